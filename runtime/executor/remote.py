"""Questions about a task and their answers, to and from the wire messages by which managers reach tasks at their nodes.

Rules owned here: what comes over the wire is checked for its shape before anybody acts on it, whoever sent it: a
question that is none is ``Refused(INVALID_ARGUMENT)``, an answer that is none ``Refused(INTERNAL)``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from runtime.errors import Code, Refused, invalid
from runtime.executor.inspection import Look, NotBegun, Processes, RunCommand, SendSignal, TakeUsage, Top
from runtime.stage.answers import ActorUnavailable
from runtime.swarm.task_access import is_too_large
from runtime.wire.pb import access_pb2 as access

SIGNAL_MAX: Final = 64
SIZE_MAX: Final = 65535
TEXT_MAX: Final = 2000
FAILED: Final = "the task's node failed over the question; its log has the details"
NO_ANSWER: Final = "the task's node answered with what is no answer"
_USAGE: Final = {"pids_stats": dict, "cpu_stats": dict, "memory_stats": dict, "blkio_stats": dict, "read": str}


def to_question(task_id: str, question: Look) -> access.AccessQuestion:
    """A question for the wire; of a command its callbacks stay here."""
    made = access.AccessQuestion(task_id=task_id)
    if isinstance(question, Top):
        made.top = question.arguments
    elif isinstance(question, TakeUsage):
        made.usage = True
    elif isinstance(question, SendSignal):
        made.signal = question.number
    else:
        made.run.CopyFrom(_to_run(question))
    return made


def _to_run(question: RunCommand) -> access.RunCommand:
    rows, columns = (max(0, min(each, SIZE_MAX)) for each in question.size)
    made = access.RunCommand(
        argv=question.argv,
        env=question.env,
        directory=question.directory,
        user=question.user,
        tty=question.tty,
        stdin=question.stdin,
        output=question.output,
        rows=rows,
        columns=columns,
    )
    if is_too_large(made):
        raise invalid("the command's words and environment are more than is carried to another node")
    return made


def look_of(
    question: access.AccessQuestion,
    on_output: Callable[[int, bytes], None] = lambda stream, data: None,
    on_exit: Callable[[int | None], None] = lambda code: None,
) -> Look:
    """The question that a wire message asks. Refused(INVALID_ARGUMENT)."""
    what = question.WhichOneof("what")
    if what == "top":
        return Top(question.top or Top().arguments)
    if what == "usage":
        return TakeUsage()
    if what == "signal" and 0 < question.signal <= SIGNAL_MAX:
        return SendSignal(question.signal)
    run = question.run
    if what != "run" or not run.argv or is_too_large(run) or max(run.rows, run.columns) > SIZE_MAX:
        raise invalid("that is no question about a task")
    return RunCommand(
        tuple(run.argv),
        tuple(run.env),
        run.directory,
        run.user,
        run.tty,
        run.stdin,
        run.output,
        (run.rows, run.columns),
        on_output,
        on_exit,
    )


def to_answer(answer: Any) -> access.FromTask:
    """What an executor answered (but for a session), for the wire."""
    made = access.FromTask()
    if isinstance(answer, NotBegun):
        made.not_begun.text, made.not_begun.code = answer.text, answer.code
    elif isinstance(answer, Processes):
        made.processes.titles.text.extend(answer.titles)
        for row in answer.rows:
            made.processes.rows.add(text=row)
    elif isinstance(answer, Refused):
        made.refused.code, made.refused.text = int(answer.code), answer.text
    elif answer is None:
        made.done = True
    else:
        made.usage = json.dumps(answer).encode()
    return made


def refused_of(error: BaseException) -> Refused:
    """What may be said elsewhere about an error at this node: nothing of its inner state."""
    if isinstance(error, ActorUnavailable) or not isinstance(error, Refused):
        return Refused(Code.UNAVAILABLE, FAILED)
    return error


def answer_of(message: access.FromTask) -> Any:
    """The answer that a wire message holds. Raises the Refused that it is, or Refused(INTERNAL)."""
    what = message.WhichOneof("what")
    if what == "refused":
        raise refusal_of(message.refused)
    if what == "not_begun":
        return NotBegun(message.not_begun.text[:TEXT_MAX], message.not_begun.code or 126)
    if what == "processes":
        found = message.processes
        return Processes(tuple(found.titles.text), tuple(tuple(row.text) for row in found.rows))
    if what == "usage":
        return _usage_of(message.usage)
    if what == "done":
        return None
    raise Refused(Code.INTERNAL, NO_ANSWER)


def refusal_of(refusal: access.Refusal) -> Refused:
    """A refusal under its code; one that names none is UNKNOWN."""
    known = {code.value for code in Code if code is not Code.OK}
    return Refused(Code(refusal.code) if refusal.code in known else Code.UNKNOWN, refusal.text[:TEXT_MAX])


def _usage_of(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(found.get(key), kind) for key, kind in _USAGE.items()):
        raise Refused(Code.INTERNAL, NO_ANSWER)
    return found
