"""RaftMembershipActor is SwarmKit's RaftMembership service on the leader: managers join the group and leave it.

Other managers call it (those that do not lead pass the call on). It finds out where a joining manager is to be reached,
and whether that very node answers there, then asks RaftActor, which owns the membership.
"""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message

from actors.raft_peer import is_ours, is_serving, shown_by
from actors.serving import Serving, serves
from runtime.errors import Code, Refused
from runtime.failpoints import failpoint
from runtime.protocol.manager import LeaderContext
from runtime.protocol.raft import AddMember, Joined, RemoveMember
from runtime.stage import Address, Answer, Policy, Reply
from runtime.swarm.membership import check_caller, joining_address
from runtime.wire.pb import health_pb2, raft_pb2
from runtime.wire.port import Call
from runtime.wire.services import path

CHECK = path("Health", "Check")
CHECK_TIMEOUT = 5.0
CHANGE_WAIT = 25.0
UNREACHABLE = "could not connect to prospective new cluster member using its advertised address: "


class RaftMembershipActor(Serving):
    """``context`` is the leader's."""

    policy = Policy()

    def __init__(self, context: LeaderContext) -> None:
        super().__init__()
        assert context.raft is not None, "membership is the consensus's"
        self.raft: Address = context.raft
        self.published = context.published
        self.credentials = context.credentials

    @serves("RaftMembership", "Join")
    def join(self, call: Call) -> None:
        """Admits a manager that can be reached where it says."""
        request, identity = call.request, call.identity
        assert isinstance(request, raft_pb2.JoinRequest)
        addr = joining_address(request.addr, identity.remote_addr)
        check_caller(self.published.view, identity.node_id)
        reply, add = self.defer(), AddMember(identity.node_id, addr, listens=is_ours(call.metadata))
        self._check(add, lambda refused: reply.fail(refused) if refused is not None else self._add(add, reply))

    def _check(self, add: AddMember, then: Callable[[Refused | None], None]) -> None:
        transport = self.world.transport
        assert transport is not None, "a manager is on a network"
        addr, node_id = add.addr, add.node_id
        channel = transport.connect(addr, self.credentials)

        def answered(answer: Message | Refused) -> None:
            shown = channel.peer_certificate
            channel.close()
            if isinstance(answer, Refused):
                then(Refused(Code.UNKNOWN, UNREACHABLE + answer.rpc_text))
            elif shown_by(shown) != node_id:
                then(Refused(Code.UNKNOWN, f"{UNREACHABLE}{addr} is another node"))
            elif not is_serving(answer):
                then(Refused(Code.UNKNOWN, f"{UNREACHABLE}{addr} does not serve"))
            else:
                then(None)

        request = health_pb2.HealthCheckRequest(service="Raft")
        channel.unary(CHECK, request, timeout=CHECK_TIMEOUT, done=self.sink(answered))

    def _add(self, add: AddMember, reply: Reply) -> None:
        self.ask(self.raft, add, lambda answer: _joined(answer, reply), CHANGE_WAIT)

    @serves("RaftMembership", "Leave")
    def leave(self, call: Call) -> None:
        """Takes a member out, if the others keep a quorum."""
        request = call.request
        assert isinstance(request, raft_pb2.LeaveRequest)
        if not request.HasField("node"):
            raise Refused(Code.INVALID_ARGUMENT, "no node information provided")
        reply = self.defer()
        self.ask(self.raft, RemoveMember(request.node.raft_id), lambda answer: _left(answer, reply), CHANGE_WAIT)


def _joined(answer: Answer, reply: Reply) -> None:
    if answer.error is not None:
        reply.fail(answer.error)
        return
    joined: Joined = answer.value
    failpoint("join.member_added_not_told")
    response = raft_pb2.JoinResponse(raft_id=joined.raft_id)
    for member in joined.members.values():
        response.members.add(raft_id=member.raft_id, node_id=member.node_id, addr=member.addr)
    reply.set(response)


def _left(answer: Answer, reply: Reply) -> None:
    if answer.error is not None:
        reply.fail(answer.error)
    else:
        reply.set(raft_pb2.LeaveResponse())
