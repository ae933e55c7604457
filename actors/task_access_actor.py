"""TaskAccessActor lets managers reach this node's tasks: it listens at the session's manager, and has answered.

It listens on the session's own connection (a stream that is idle nearly always), answers what is one answer on it too,
and gives each command an actor and a connection of its own, so that no output ever holds up a heartbeat. The manager is
one by its certificate, as for all that a session says. With `--no-remote-exec` each question is refused in words.

Rules kept here:
1. What is asked is checked for its shape, and bounded in number, whoever asks.
2. A manager that knows no such service (another kind of node) is left alone until the next session, without a word.
3. When the stream ends, so does every command that was asked for over it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial

from google.protobuf.message import Message

from actors.remote_command_actor import RemoteCommandActor
from runtime.errors import Code, Refused
from runtime.executor.remote import look_of, refused_of, to_answer
from runtime.protocol.agent import AccessLife, AgentSetup, InspectTask, ManagerIsAt, SaidToCommand
from runtime.protocol.cluster import ToTask
from runtime.stage import Actor, Address, Answer, GiveUp, Policy, handles
from runtime.swarm import task_access as rules
from runtime.swarm.agent_session import SessionBackoff
from runtime.wire.pb import access_pb2 as pb
from runtime.wire.port import Cancel, Channel
from runtime.wire.services import path

LISTEN = path("TaskAccessBroker", "Listen")
ANSWER = path("TaskAccessBroker", "Answer")
ANSWER_TIMEOUT = 10.0
LOOKS_MAX = 64

log = logging.getLogger("swarmlet.agent")


@dataclass(frozen=True, slots=True)
class _ListenAgain:
    number: int


class TaskAccessActor(Actor):
    """``agent`` knows the tasks; commands are children, by the id of what was asked."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, agent: Address, setup: AgentSetup) -> None:
        super().__init__()
        self.agent = agent
        self.setup = setup
        self.backoff = SessionBackoff()
        self._target: str | None = None
        self._channel: Channel | None = None
        self._listening: Cancel | None = None
        self._number = 0
        self._commands: dict[str, Address] = {}
        self._looks = 0
        self._begun = 0

    def started(self) -> None:
        self.tell(self.agent, AccessLife())

    def stopped(self) -> None:
        self._hang_up()

    def crashed(self) -> None:
        self._hang_up()

    def snapshot(self) -> dict[str, object]:
        return {
            "allowed": self.setup.remote_exec,
            "manager": self._target or "",
            "listening": self._listening is not None,
            "commands": sum(1 for each in self._commands.values() if each.resolve() is not None),
        }

    # The manager

    @handles(ManagerIsAt)
    def manager_is_at(self, message: ManagerIsAt) -> None:
        """Another session, or none: what was asked over the one before is over."""
        self._hang_up()
        self._target, self._channel = message.target, message.channel
        self._listen()

    @handles(_ListenAgain)
    def listen_again(self, message: _ListenAgain) -> None:
        """The back-off is over."""
        if message.number == self._number:
            self._listen()

    def _listen(self) -> None:
        if self._channel is None:
            return
        self._number += 1
        told, ended = partial(self._told, self._number), partial(self._ended, self._number)
        self._listening = self._channel.stream(
            LISTEN, pb.ListenRequest(), on_item=self.sink(told), on_end=self.sink(ended)
        )

    def _ended(self, number: int, refused: Refused | None) -> None:
        if number != self._number:
            return
        self._hang_up()
        if refused is not None and refused.code is Code.UNIMPLEMENTED:
            log.debug("the manager at %s does not reach for tasks of other nodes", self._target, extra=self.about())
            return
        self.backoff.failed()
        self.after(self.backoff.delay(self.world.random), _ListenAgain(self._number))

    def _hang_up(self) -> None:
        self._number += 1
        listening, self._listening = self._listening, None
        if listening is not None:
            listening()
        commands, self._commands = self._commands, {}
        for command in commands.values():
            self.stop(command)

    # Questions

    def _told(self, number: int, message: pb.ToTask) -> None:
        if number != self._number:
            return
        self.backoff.succeeded()
        if message.WhichOneof("what") == "question":
            try:
                self._asked(message)
            except Refused as refused:
                self._answer(message.access_id, to_answer(refused))
            return
        command = self._commands.get(message.access_id)
        if command is None:
            return  # it has ended, which the manager hears at this moment
        if message.WhichOneof("what") == "close":
            del self._commands[message.access_id]
            self.stop(command)
        else:
            self.tell(command, SaidToCommand(message))

    def _asked(self, message: pb.ToTask) -> None:
        question = message.question
        if not self.setup.remote_exec:
            raise Refused(Code.UNIMPLEMENTED, rules.SWITCHED_OFF)
        if question.WhichOneof("what") == "reach":
            self._answer(message.access_id, pb.FromTask(done=True))
        elif question.WhichOneof("what") == "run":
            self._run(message)
        else:
            self._look(message)

    def _run(self, message: pb.ToTask) -> None:
        question, access_id = message.question, message.access_id
        look_of(question)
        self._commands = {id: each for id, each in self._commands.items() if each.resolve() is not None}
        if access_id in self._commands or len(self._commands) >= rules.COMMANDS_MAX:
            raise Refused(Code.RESOURCE_EXHAUSTED, f"{len(self._commands)} commands run from elsewhere here already")
        log.info(
            "%s runs beside task %s, asked for at manager %s",
            rules.shown(question.run.argv[0]),
            rules.shown(question.task_id),
            rules.shown(message.asked_at),
            extra=self.about(task_id=question.task_id),
        )
        self._begun += 1
        assert self._target is not None, "whoever listens has a manager"
        self._commands[access_id] = self.spawn(
            f"command-{self._begun}", RemoteCommandActor, self.agent, self.setup, self._target, access_id, question,
        )  # fmt: skip

    def _look(self, message: pb.ToTask) -> None:
        look = look_of(message.question)
        if self._looks >= LOOKS_MAX:
            raise Refused(Code.RESOURCE_EXHAUSTED, f"{self._looks} questions are under way here already")
        if message.question.WhichOneof("what") == "signal":
            log.info(
                "task %s is sent signal %d, asked for at manager %s",
                rules.shown(message.question.task_id),
                message.question.signal,
                rules.shown(message.asked_at),
                extra=self.about(task_id=message.question.task_id),
            )
        self._looks += 1
        question = ToTask(message.question.task_id, InspectTask(look))
        self.ask(self.agent, question, partial(self._looked, message.access_id), rules.ANSWER_MAX)

    def _looked(self, access_id: str, answer: Answer) -> None:
        self._looks -= 1
        if answer.error is None:
            self._answer(access_id, to_answer(answer.value))
        else:
            self._answer(access_id, to_answer(refused_of(answer.error)))

    def _answer(self, access_id: str, answer: pb.FromTask) -> None:
        """One answer and no more. One that does not get there is missed by whoever asked, and nobody else."""
        answer.access_id = access_id
        if self._channel is not None:
            self._channel.unary(ANSWER, answer, timeout=ANSWER_TIMEOUT, done=_unheard)


def _unheard(result: Message | Refused) -> None:
    """The manager's word that it has an answer."""
