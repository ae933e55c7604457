"""Questions and answers over the wire: what goes out comes in, and what is none is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import Code, Refused
from runtime.executor.inspection import NotBegun, Processes, RunCommand, SendSignal, TakeUsage, Top
from runtime.executor.remote import TEXT_MAX, answer_of, look_of, to_answer, to_question
from runtime.wire.pb import access_pb2 as pb

USAGE = {"read": "now", "pids_stats": {"current": 1}, "cpu_stats": {}, "memory_stats": {}, "blkio_stats": {}}
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.mark.parametrize("question", [Top("aux"), Top(), TakeUsage(), SendSignal(15)])
def test_a_question_comes_in_as_it_went_out(question: Any) -> None:
    assert look_of(to_question("t1", question)) == question


@given(st.lists(WORDS, min_size=1, max_size=5), st.lists(WORDS, max_size=3), st.booleans(), st.booleans())
def test_a_command_comes_in_as_it_went_out(argv: list[str], env: list[str], tty: bool, stdin: bool) -> None:
    asked = RunCommand(tuple(argv), tuple(env), "/tmp", "me", tty, stdin, True, (24, 80))
    sent = pb.AccessQuestion.FromString(to_question("t1", asked).SerializeToString())
    found = look_of(sent)
    assert isinstance(found, RunCommand)
    assert sent.task_id == "t1"
    assert (found.argv, found.env, found.directory, found.user) == (asked.argv, asked.env, "/tmp", "me")
    assert (found.tty, found.stdin, found.output, found.size) == (tty, stdin, True, (24, 80))


def test_a_command_calls_back_whoever_carries_it() -> None:
    heard: list[Any] = []
    found = look_of(to_question("t1", RunCommand(("sh",))), lambda *said: heard.append(said), heard.append)
    assert isinstance(found, RunCommand)
    found.on_output(2, b"x")
    found.on_exit(3)
    assert heard == [(2, b"x"), 3]


@pytest.mark.parametrize(
    "message",
    [
        pb.AccessQuestion(task_id="t"),
        pb.AccessQuestion(reach=True),
        pb.AccessQuestion(run=pb.RunCommand()),
        pb.AccessQuestion(run=pb.RunCommand(argv=["x" * (1 << 20)])),
        pb.AccessQuestion(run=pb.RunCommand(argv=["x"], env=["y" * 70_000, "z" * 70_000])),
        pb.AccessQuestion(run=pb.RunCommand(argv=["x"], rows=1 << 17)),
        pb.AccessQuestion(signal=0),
        pb.AccessQuestion(signal=-9),
        pb.AccessQuestion(signal=65),
    ],
)
def test_what_is_no_question_is_refused(message: pb.AccessQuestion) -> None:
    with pytest.raises(Refused) as caught:
        look_of(message)
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_a_command_that_is_too_large_to_be_carried_is_refused_where_it_is_asked_for() -> None:
    with pytest.raises(Refused, match="more than is carried"):
        to_question("t1", RunCommand(("x" * (1 << 20),)))


@pytest.mark.parametrize("answer", [None, NotBegun("no such file", 127), Processes(("PID",), (("1",), ("2",))), USAGE])
def test_an_answer_comes_in_as_it_went_out(answer: Any) -> None:
    assert answer_of(pb.FromTask.FromString(to_answer(answer).SerializeToString())) == answer


def test_a_refusal_is_raised_under_its_code_and_in_its_words() -> None:
    with pytest.raises(Refused) as caught:
        answer_of(to_answer(Refused(Code.UNIMPLEMENTED, "not here")))
    assert (caught.value.code, caught.value.text) == (Code.UNIMPLEMENTED, "not here")


@pytest.mark.parametrize("code", [0, 17, -1, 1 << 30])
def test_a_refusal_without_a_code_that_there_is_is_one_all_the_same_and_no_longer_than_people_read(code: int) -> None:
    with pytest.raises(Refused) as caught:
        answer_of(pb.FromTask(refused=pb.Refusal(code=code, text="x" * 1_000_000)))
    assert caught.value.code is Code.UNKNOWN
    assert len(caught.value.text) == TEXT_MAX


@pytest.mark.parametrize(
    "message",
    [
        pb.FromTask(),
        pb.FromTask(output=pb.Output(stream=1, data=b"x")),
        pb.FromTask(begun=1),
        pb.FromTask(usage=b"nonsense"),
        pb.FromTask(usage=b"[1]"),
        pb.FromTask(usage=b"[" * 200_000),
        pb.FromTask(usage=b'{"read": 1}'),
        pb.FromTask(usage=b'{"read": "", "pids_stats": {}, "cpu_stats": 7, "memory_stats": {}, "blkio_stats": {}}'),
        pb.FromTask(usage=b"\xff\xfe"),
    ],
)
def test_what_a_hostile_node_answers_is_an_error_of_its_and_no_failure_here(message: pb.FromTask) -> None:
    with pytest.raises(Refused) as caught:
        answer_of(message)
    assert caught.value.code is Code.INTERNAL
