"""Questions about tasks of other nodes, and commands beside them, over this node's own manager.

Rules: a question is one stream to the leader's broker of task access, by way of the control socket (a follower passes
it on); of a command what its client says is an upload beside it. What is under way is bounded by the windows that both
ends count. The end of the stream is the end of the command, and why it ended is said where its output goes. All of this
lives on one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from runtime.errors import Code, Refused
from runtime.executor.inspection import NotBegun, RunCommand
from runtime.executor.remote import NO_ANSWER, answer_of, refusal_of, to_question
from runtime.swarm import task_access as rules
from runtime.swarm.membership import LOST_LEADERSHIP
from runtime.wire.pb import access_pb2 as pb
from runtime.wire.services import path

if TYPE_CHECKING:
    from runtime.engine_api.questions import Landing
    from runtime.executor.inspection import Look
    from runtime.wire.port import Cancel, Channel, Upload

ASK: Final = path("TaskAccess", "Ask")
SAY: Final = path("TaskAccess", "Say")
ANSWER_S: Final = rules.ANSWER_MAX + 5.0
NOT_OFFERED: Final = (
    "the manager that leads this swarm is a dockerd, which brings nobody to tasks of other nodes: "
    "run the command at the task's node"
)
UNKNOWN_THERE: Final = ("unknown service", "unknown method", "Method not found")
"""How gRPC servers begin to say that they do not serve what is asked."""


class RemoteAccess:
    """One question and, if it is a command that has begun, the command: then as the port's Session, but for this loop
    alone. ``channel`` leads to this node's manager."""

    pid = 0

    def __init__(self, channel: Channel, landing: Landing, task_id: str, question: Look | None) -> None:
        self._channel = channel
        self._landing = landing
        self._command = question if isinstance(question, RunCommand) else None
        self._answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._id = ""
        self._over = False
        self._upload: Upload | None = None
        self._window = rules.Window()
        self._waiting: deque[tuple[bytes, Callable[[], None] | None]] = deque()
        self._taking: deque[tuple[int, Callable[[], None] | None]] = deque()
        self._input_ended = False
        self._held = False
        self._owed = 0
        asked = pb.AccessQuestion(task_id=task_id, reach=True) if question is None else to_question(task_id, question)
        self._cancel: Cancel = channel.stream(
            ASK,
            asked,
            on_item=lambda item: landing.put(self._came, item),
            on_end=lambda refused: landing.put(self._ended, refused),
        )

    async def answer(self) -> Any:
        """The answer; of a command that has begun, this. Raises Refused."""
        begun = False
        try:
            async with asyncio.timeout(ANSWER_S):
                found = await self._answer
            begun = found is self
        except TimeoutError:
            raise Refused(Code.DEADLINE_EXCEEDED, "context deadline exceeded") from None
        finally:
            if not begun:
                self.close()
        if isinstance(found, Refused):
            raise found
        return found

    # What comes

    def _came(self, message: pb.FromTask) -> None:
        what = message.WhichOneof("what")
        if self._over:
            return
        if what == "asked":
            self._id = message.access_id
        elif not self._answer.done():
            self._answered(message)
        elif what == "output" and self._command is not None:
            self._command.on_output(message.output.stream, message.output.data)
            self._owe(rules.cost(message.output.data))
        elif what == "taken":
            self._taken(message.taken)
        elif what == "exit":
            self._finish(message.exit.code if message.exit.known else None)
        elif what == "refused":
            self._fail(refusal_of(message.refused))

    def _answered(self, message: pb.FromTask) -> None:
        if message.WhichOneof("what") == "begun" and self._command is not None:
            self.pid = message.begun
            self._upload = self._channel.upload(SAY, done=lambda result: self._landing.put(self._unsaid, result))
            self._answer.set_result(self)
            return
        try:
            self._answer.set_result(answer_of(message))
        except Refused as refused:
            self._answer.set_result(refused)

    def _ended(self, refused: Refused | None) -> None:
        if not self._answer.done():
            self._answer.set_result(_in_words(refused or Refused(Code.INTERNAL, NO_ANSWER)))
        elif not self._over:
            self._fail(refused or Refused(Code.UNAVAILABLE, rules.LOST))

    def _unsaid(self, result: Any) -> None:
        """The upload is over. One that came when the command had ended already (NOT_FOUND), or ended with it, is no
        trouble: the stream says the rest."""
        self._upload = None
        if isinstance(result, Refused) and result.code is not Code.NOT_FOUND and not self._over:
            self._fail(result)

    # Its end

    def _fail(self, refused: Refused) -> None:
        """Somebody reads what a command says, and so hears why it says no more."""
        if self._command is not None:
            text = f"\r\nthe command was ended: {_in_words(refused).text}\r\n".encode()
            self._command.on_output(1 if self._command.tty else 2, text)
        self._finish(None)

    def _finish(self, code: int | None) -> None:
        self._let_go()
        if self._command is not None:
            self._command.on_exit(code)

    def _let_go(self) -> None:
        self._over = True
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.cancel()
        self._cancel()
        for _, done in (*self._taking, *self._waiting):
            if done is not None:
                done()
        self._taking.clear()
        self._waiting.clear()

    # As the port's Session

    def write(self, data: bytes, done: Callable[[], None]) -> None:
        """As the port's."""
        if self._over or self._input_ended or not data:
            done()
            return
        parts = list(rules.pieces(data))
        self._waiting.extend((part, None) for part in parts[:-1])
        self._waiting.append((parts[-1], done))
        self._write_on()

    def _write_on(self) -> None:
        while self._waiting and self._window.spend(rules.cost(self._waiting[0][0])):
            data, done = self._waiting.popleft()
            self._taking.append((rules.cost(data), done))
            self._say(pb.ToTask(input=data))
        if self._input_ended and not self._waiting:
            self._say(pb.ToTask(input_end=True))

    def _taken(self, price: int) -> None:
        """A piece was taken: they are in the order in which they were sent."""
        if not self._taking or self._taking[0][0] != price:
            self._fail(Refused(Code.INTERNAL, rules.BROKEN))
            return
        self._window.give(price)
        _, done = self._taking.popleft()
        if done is not None:
            done()
        if self._waiting:
            self._write_on()

    def end_input(self) -> None:
        """As the port's."""
        if not self._input_ended:
            self._input_ended = True
            if not self._waiting:
                self._say(pb.ToTask(input_end=True))

    def resize(self, rows: int, columns: int) -> None:
        """As the port's."""
        size = pb.TerminalSize(rows=max(0, min(rows, 65535)), columns=max(0, min(columns, 65535)))
        self._say(pb.ToTask(size=size))

    def hold(self, held: bool) -> None:
        """As the port's: what was taken is not said to be, so that no more than a window comes."""
        self._held = held
        self._owe(0)

    def _owe(self, price: int) -> None:
        self._owed += price
        if self._owed and not self._held:
            self._say(pb.ToTask(taken=self._owed))
            self._owed = 0

    def close(self) -> None:
        """As the port's."""
        if not self._over:
            running = self._answer.done() and not self._answer.cancelled() and self._answer.result() is self
            self._finish(None) if running else self._let_go()

    def _say(self, message: pb.ToTask) -> None:
        if self._upload is not None:
            message.access_id = self._id
            self._upload.send(message)  # where it cannot, the upload's end says why


def _in_words(refused: Refused) -> Refused:
    """A leader of another kind does not know what is asked; one that is lost is said to be in words for people."""
    if LOST_LEADERSHIP in refused.text:
        return Refused(refused.code, rules.LEADER_GONE)
    unknown = refused.code is Code.UNIMPLEMENTED and refused.text.startswith(UNKNOWN_THERE)
    return Refused(Code.UNIMPLEMENTED, NOT_OFFERED) if unknown else refused


async def ask(channel: Channel, landing: Landing, task_id: str, question: Look | None) -> Any:
    """What the node of a task answers: as its executor does, a session or ``NotBegun`` to a command. Without a question
    it is whether one could be asked. Raises Refused."""
    found: Any | NotBegun = await RemoteAccess(channel, landing, task_id, question).answer()
    return found
