"""RemoteCommandActor runs one command beside a task of this node for somebody at a manager.

It has a connection of its own to the manager, answers whether the command could begin, and carries what it says and is
told within the windows of both ends (`task_access`). It lives as long as the command or the connection, whichever ends
first: with the connection, the command is ended.
"""

from __future__ import annotations

import logging
from functools import partial

from google.protobuf.message import Message

from runtime.errors import Code, Refused
from runtime.executor.held_session import HeldSession
from runtime.executor.inspection import NotBegun
from runtime.executor.remote import look_of, refused_of, to_answer
from runtime.protocol.agent import AgentSetup, InspectTask, SaidToCommand
from runtime.protocol.cluster import ToTask
from runtime.stage import Actor, Address, Policy, handles
from runtime.stage.answers import Answer, Reply
from runtime.stage.policy import Restart
from runtime.swarm import task_access as rules
from runtime.wire.pb import access_pb2 as pb
from runtime.wire.port import Channel, Upload
from runtime.wire.services import path

ANSWER = path("TaskAccessBroker", "Answer")
LOOK_AGAIN = 60.0
EARLY_MAX = 4096  # messages that wait for the command's beginning

log = logging.getLogger("swarmlet.agent")


class _LookIdle:
    """Time to see whether anything was said lately."""


class RemoteCommandActor(Actor):
    """``access_id`` is what the manager calls it, ``question`` the command."""

    policy = Policy(restart=Restart.TEMPORARY)

    def __init__(
        self, agent: Address, setup: AgentSetup, target: str, access_id: str, question: pb.AccessQuestion
    ) -> None:
        super().__init__()
        self.agent = agent
        self.setup = setup
        self.target = target
        self.access_id = access_id
        self.question = question
        self.output = rules.Window()
        self.input = rules.Window()
        self._begun = False
        self._early: list[pb.ToTask] = []
        self._said_at = 0.0
        self._channel: Channel | None = None
        self._upload: Upload | None = None
        self._held: HeldSession | None = None

    def started(self) -> None:
        assert self.world.transport is not None, "this node has no transport"
        self._said_at = self.monotonic()
        self._channel = self.world.transport.connect(self.target, self.setup.credentials)
        self._upload = self._channel.upload(ANSWER, done=self.sink(self._closed))
        held = self._held = HeldSession(self.sink(self._look))
        answered = self.sink(self._answered)

        def come(answer: Answer) -> None:
            """On whatever thread: a command that begins when nobody is here any more is ended by what holds it."""
            if answer.error is None and not isinstance(answer.value, NotBegun):
                held.begun(answer.value)
            answered(answer)

        look = look_of(self.question, held.output, held.exit)
        self.agent.send(ToTask(self.question.task_id, InspectTask(look)), self.address, Reply(come), self.trace)
        self.every(LOOK_AGAIN, _LookIdle())

    def stopped(self) -> None:
        """The command ends with whoever asked for it."""
        held, self._held = self._held, None
        upload, self._upload = self._upload, None
        channel, self._channel = self._channel, None
        if held is not None:
            held.close()
        if upload is not None:
            upload.cancel()
        if channel is not None:
            channel.close()

    def crashed(self) -> None:
        self.stopped()

    def snapshot(self) -> dict[str, object]:
        return {
            "task": self.question.task_id,
            "running": self._begun,
            "unheard": self.output.under_way,
            "untaken": self.input.under_way,
        }

    # Its beginning

    def _answered(self, answer: Answer) -> None:
        if answer.error is not None:
            self._last(to_answer(refused_of(answer.error)))
        elif isinstance(answer.value, NotBegun):
            self._last(to_answer(answer.value))
        else:
            self._begun = True
            self._send(pb.FromTask(begun=answer.value.pid))
            early, self._early = self._early, []
            for message in early:
                self._obey(message)
            self._say_on()

    # What the command says

    def _look(self, _: None) -> None:
        if self._held is not None:
            self._held.look()
            if self._begun:
                self._say_on()

    def _say_on(self) -> None:
        """As much as the window has room for; the rest when there is room again."""
        held = self._held
        while held is not None and (piece := held.take(self._fitting)) is not None:
            stream, data = piece
            self.output.spend(rules.cost(data))
            self._send(pb.FromTask(output=pb.Output(stream=stream, data=data)))
            self._said_at = self.monotonic()
        if held is not None and held.ended is not None:
            code = held.ended[0]
            self._last(pb.FromTask(exit=pb.Exit(code=code or 0, known=code is not None)))

    def _fitting(self, data: bytes) -> bytes:
        piece = data[: rules.PIECE_MAX]
        return piece if self.output.has_room(rules.cost(piece)) else b""

    def _send(self, message: pb.FromTask) -> None:
        message.access_id = self.access_id
        if self._upload is not None:
            self._upload.send(message)  # where it cannot, the upload's end says why

    def _last(self, message: pb.FromTask) -> None:
        """Nothing follows: the manager's answer ends this actor."""
        self._send(message)
        held, self._held = self._held, None
        if held is not None:
            held.close()
        if self._upload is not None:
            self._upload.finish()

    def _closed(self, result: Message | Refused) -> None:
        if isinstance(result, Refused):
            log.debug("a command beside task %s: %s", self.question.task_id, result, extra=self.about())
        self.stop()

    # What it is told

    @handles(SaidToCommand)
    def said(self, message: SaidToCommand) -> None:
        """Input waits until the command has begun."""
        self._said_at = self.monotonic()
        what = message.message.WhichOneof("what")
        broken = what == "input" and not self.input.spend(rules.cost(message.message.input))
        if broken or len(self._early) >= EARLY_MAX:
            self._last(to_answer(Refused(Code.RESOURCE_EXHAUSTED, rules.BROKEN)))
        elif self._begun:
            self._obey(message.message)
        elif self._held is not None:
            self._early.append(message.message)

    def _obey(self, message: pb.ToTask) -> None:
        session = self._held.session if self._held is not None else None
        what = message.WhichOneof("what")
        if session is None:
            return  # it has said its last
        if what == "input":
            taken = self.sink(self._taken)
            session.write(message.input, partial(taken, rules.cost(message.input)))
        elif what == "input_end":
            session.end_input()
        elif what == "size":
            session.resize(message.size.rows, message.size.columns)
        elif what == "taken" and self.output.give(message.taken):
            self._say_on()

    def _taken(self, price: int) -> None:
        self.input.give(price)
        if self._held is not None:
            self._send(pb.FromTask(taken=price))

    @handles(_LookIdle)
    def look_idle(self, message: _LookIdle) -> None:
        """Of a command that nobody listens or speaks to for long."""
        if self.monotonic() - self._said_at > rules.IDLE_MAX:
            self._last(to_answer(Refused(Code.DEADLINE_EXCEEDED, rules.ENDED_IDLE)))
