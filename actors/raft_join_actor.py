"""RaftJoinActor asks the leader to take this manager into the consensus group, or to note its new address.

RaftActor starts it where a log is missing, or where the log says that this manager listens elsewhere, and hears
JoinAnswered once. Any manager may be asked: those that do not lead pass the request on. Who cannot be reached, or knows
no leader, is asked again after a pause, one manager after the other; a refusal ends the first try of a new member with
the leader's words, unless the node was demoted while it still has a manager's certificate: then the manager ends as one
that was removed, and the node goes on until the certificate follows. Who lost its log leaves under its old raft id
before it joins: it may have voted and acknowledged under that one, and must not do so again (moby/moby#29180).
"""

from __future__ import annotations

from google.protobuf.message import Message

from actors.raft_peer import PACES
from runtime.disk.raft_records import Member
from runtime.errors import Code, Refused
from runtime.protocol.raft import JoinAnswered, NotWanted
from runtime.stage import Actor, Address, Policy, handles
from runtime.swarm.membership import was_demoted
from runtime.wire.pb import raft_pb2
from runtime.wire.port import Channel, Credentials
from runtime.wire.services import path

OURS = PACES[False]
"""A manager of our kind asks: it may be taken in to listen first."""
JOIN = path("RaftMembership", "Join")
LEAVE = path("RaftMembership", "Leave")
JOIN_TIMEOUT = 25.0
PAUSE = 0.1
PAUSE_MAX = 2.0
PASSING = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED, Code.ABORTED, Code.CANCELLED})


class _Again:
    """The pause is over."""


class RaftJoinActor(Actor):
    """``addr`` is where this manager listens; ``persists`` says that no refusal is final; ``leaves`` is the raft id of
    a log that is lost, or 0."""

    policy = Policy(escalates=(Exception,))

    def __init__(
        self, raft: Address, addr: str, managers: tuple[str, ...], credentials: Credentials | None, persists: bool,
        leaves: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.raft = raft
        self.addr = addr
        self.managers = managers
        self.credentials = credentials
        self.persists = persists
        self.leaves = leaves
        self._channel: Channel | None = None
        self._pause = PAUSE
        self._turn = 0
        self._trouble = ""

    def started(self) -> None:
        self._turn = self.world.random.randrange(len(self.managers))
        self._ask()

    def stopped(self) -> None:
        if self._channel is not None:
            self._channel.close()

    def crashed(self) -> None:
        self.stopped()

    def snapshot(self) -> dict[str, object]:
        return {"asking": self._target, "trouble": self._trouble}

    @property
    def _target(self) -> str:
        return self.managers[self._turn % len(self.managers)]

    def _ask(self) -> None:
        transport = self.world.transport
        assert transport is not None, "joining needs a network"
        self.stopped()
        self._channel = transport.connect(self._target, self.credentials)
        if self.leaves:
            leave = raft_pb2.LeaveRequest(node=raft_pb2.RaftMember(raft_id=self.leaves))
            self._channel.unary(LEAVE, leave, timeout=JOIN_TIMEOUT, done=self.sink(self._left))
            return
        request = raft_pb2.JoinRequest(addr=self.addr)
        self._channel.unary(JOIN, request, timeout=JOIN_TIMEOUT, done=self.sink(self._answered), metadata=OURS)

    def _left(self, answer: Message | Refused) -> None:
        if not isinstance(answer, Refused) or answer.code is Code.NOT_FOUND:
            self.leaves = 0
            self._ask()
        else:  # also where the others would have no quorum: then they need this one back, with its log
            self._wait(answer)

    def _answered(self, answer: Message | Refused) -> None:
        if isinstance(answer, raft_pb2.JoinResponse):
            members = {each.raft_id: Member(each.raft_id, each.node_id, each.addr) for each in answer.members}
            self.tell(self.raft, JoinAnswered(answer.raft_id, members))
            self.stop()
            return
        assert isinstance(answer, Refused)
        if was_demoted(answer) and not self.persists:
            self.tell(self.raft, NotWanted())
            self.stop()
            return
        if answer.code not in PASSING and not self.persists:
            raise Refused(answer.code, f"can't initialize raft node: {answer.rpc_text}")
        self._wait(answer)

    def _wait(self, answer: Refused) -> None:
        self._trouble = str(answer)
        self._turn += 1
        self.after(self._pause, _Again())
        self._pause = min(PAUSE_MAX, self._pause * 2)

    @handles(_Again)
    def again(self, message: _Again) -> None:
        """Asks the next manager."""
        self._ask()
