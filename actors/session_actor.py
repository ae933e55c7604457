"""SessionActor keeps this node registered with a manager, one session after another.

A session is a stream on which the manager speaks of the node and of managers, heartbeats, and a stream of assignments;
any error in one of them ends all of it, and another session is tried after the back-off. The agent hears of assignments
and of beginnings and ends, the node of what the manager says about it. It never acts on an assignment.

Which manager: this node's own whenever there is one, else a weighted choice that remembers what was experienced.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from google.protobuf.message import Message

from runtime.errors import Code, Refused
from runtime.pki.certificates import certificate_info, issuer_identity
from runtime.pki.chain import is_issued_by
from runtime.pki.pem import load_certificates
from runtime.protocol.agent import (
    AgentSetup,
    Assignments,
    CertificateRenewed,
    IngressBlocked,
    Managers,
    ManagersSeen,
    RenewSession,
    RootSeen,
    SendStatuses,
    SessionBegan,
    SessionDown,
    SessionEnded,
    SessionLife,
    SessionUp,
)
from runtime.protocol.node import NodeChanged
from runtime.stage import Actor, Address, GiveUp, Policy, Timer, handles
from runtime.stage.answers import Reply
from runtime.swarm import ingress_blocked
from runtime.swarm.agent_remotes import BAD, GOOD, Remote, Remotes
from runtime.swarm.agent_session import (
    REMOVED_PAUSE,
    AssignmentSequence,
    SessionBackoff,
    from_tasks,
    says_removed,
    trace_in,
)
from runtime.swarm.raft_pace import PACE_LABEL, PACE_VALUE
from runtime.wire.pb import dispatcher_pb2, objects_pb2, types_pb2
from runtime.wire.port import MANAGER, WORKER, Cancel, Channel, Material
from runtime.wire.services import path
from runtime.wire.to_actor import trace_header

log = logging.getLogger("swarmlet.agent")

RPC_TIMEOUT = 5.0
DESCRIPTION_CHECK = 20.0
PERIOD_MIN = 0.1  # a manager that asks for more heartbeats than this is not obeyed

SESSION = path("Dispatcher", "Session")
HEARTBEAT = path("Dispatcher", "Heartbeat")
ASSIGNMENTS = path("Dispatcher", "Assignments")
TASKS = path("Dispatcher", "Tasks")
UPDATE_STATUS = path("Dispatcher", "UpdateTaskStatus")


@dataclass(slots=True, eq=False)
class _Session:
    """One try at a session, from its connection to its end."""

    target: str
    remote: Remote | None
    channel: Channel
    role: str
    description: types_pb2.NodeDescription
    registered: bool = False
    sequence: AssignmentSequence = field(default_factory=AssignmentSequence)
    streams: list[Cancel] = field(default_factory=list)
    sends: list[Reply] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Begin:
    """The back-off is over."""


@dataclass(frozen=True, slots=True)
class _StartOverdue:
    session: _Session


@dataclass(frozen=True, slots=True)
class _Beat:
    session: _Session


class _CheckDescription:
    """Every 20 s: does the node still look as it was announced?"""


class SessionActor(Actor):
    """``current`` is the session, or the try at one; none while waiting."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, agent: Address, node: Address, setup: AgentSetup) -> None:
        super().__init__()
        self.agent = agent
        self.node = node
        self.setup = setup
        self.local: str | None = None
        self.remotes = Remotes()
        self.backoff = SessionBackoff()
        self.session_id = ""
        self.current: _Session | None = None
        self._waiting: Timer | None = None
        self._node_seen: objects_pb2.Node | None = None
        self._root_told = b""
        self._tls: tuple[int, types_pb2.NodeTLSInfo, str] | None = None
        self._blocked: dict[str, str] = {}

    def started(self) -> None:
        self.every(DESCRIPTION_CHECK, _CheckDescription())
        self.tell(self.agent, SessionLife())

    def stopped(self) -> None:
        self._close("the agent ended")

    def crashed(self) -> None:
        registered = self.current is not None and self.current.registered
        self._close("the session's keeper failed")
        if registered:
            self.tell(self.node, SessionDown("the session's keeper failed"))

    def snapshot(self) -> dict[str, object]:
        current = self.current
        return {
            "session": self.session_id,
            "registered": current is not None and current.registered,
            "target": current.target if current is not None else "",
            "local": self.local or "",
            "remotes": len(self.remotes),
            "backoff": self.backoff.bound,
        }

    # Whom to turn to

    @handles(Managers)
    def managers(self, message: Managers) -> None:
        """Where managers are; who waits for the first of them, or for the local one, begins at once."""
        appeared = message.local is not None and self.local is None
        self.local = message.local
        self.remotes.told(message.remotes)
        if self.current is None and (self._waiting is None or appeared):
            self._begin()

    @handles(_Begin)
    def begin(self, message: _Begin) -> None:
        """Another try."""
        self._begin()

    def _begin(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        if self.current is not None:
            return
        remote = self.remotes.select(self.world.random) if self.local is None else None
        target = self.local if remote is None else remote[1]
        if target is None:
            return  # Managers will tell of one
        assert self.world.transport is not None, "this node has no transport"
        channel = self.world.transport.connect(target, self.setup.credentials)
        _, role = self._identity()
        session = self.current = _Session(target, remote, channel, role, self._describe())
        request = dispatcher_pb2.SessionRequest(description=session.description, session_id=self.session_id)
        self._open(session, SESSION, request, self._said)
        self.after(RPC_TIMEOUT, _StartOverdue(session))

    def _open(self, session: _Session, method: str, request: Message, then: Any) -> None:
        cancel = session.channel.stream(
            method,
            request,
            on_item=self.sink(partial(then, session)),
            on_end=self.sink(partial(self._stream_ended, session, method)),
        )
        session.streams.append(cancel)

    # Ends

    @handles(_StartOverdue)
    def start_overdue(self, message: _StartOverdue) -> None:
        """5 s without a first message."""
        if message.session is self.current and not message.session.registered:
            self._failed(message.session, "session initiation timed out")

    def _stream_ended(self, session: _Session, method: str, refused: Refused | None) -> None:
        if session is not self.current:
            return
        if method == ASSIGNMENTS and refused is not None and refused.code is Code.UNIMPLEMENTED:
            request = dispatcher_pb2.TasksRequest(session_id=self.session_id)
            self._open(session, TASKS, request, self._tasks)
            return
        if refused is not None:
            self._failed(session, str(refused), removed=says_removed(refused, self.setup.node_id))
        else:
            self._failed(session, "the manager ended the session")

    def _failed(self, session: _Session, text: str, *, removed: bool = False) -> None:
        self.backoff.failed()
        self._end(session, text, BAD, removed=removed)

    def _end(self, session: _Session, text: str, observation: int, *, removed: bool = False) -> None:
        self._close(text)
        if session.remote is not None:
            self.remotes.observe_if_known(session.remote, observation)
        log.debug("a session with %s ended: %s", session.target, text, extra=self.about())
        if session.registered:
            self.tell(self.agent, SessionEnded(text))
        self.tell(self.node, SessionDown(text, removed))
        self._waiting = self.after(REMOVED_PAUSE if removed else self.backoff.delay(self.world.random), _Begin())

    def _close(self, text: str) -> None:
        session, self.current = self.current, None
        if session is None:
            return
        for reply in session.sends:
            reply.fail(Refused(Code.UNAVAILABLE, f"the session ended: {text}"))
        for cancel in session.streams:
            cancel()
        session.channel.close()

    # What the manager says

    def _said(self, session: _Session, message: dispatcher_pb2.SessionMessage) -> None:
        if session is not self.current:
            return
        self._see_managers(message)  # before the node counts as ready: it must find them again after a crash
        if not session.registered:
            self._registered(session, message)
        self._see_node(message.node)
        if message.RootCA and message.RootCA not in (self.setup.credentials.material.roots, self._root_told):
            self._root_told = message.RootCA
            self.tell(self.node, RootSeen(message.RootCA))

    def _registered(self, session: _Session, message: dispatcher_pb2.SessionMessage) -> None:
        session.registered = True
        self._node_seen = None  # told once a session at least: what was told before may have been in vain
        self.session_id = message.session_id
        self.backoff.succeeded()
        log.debug("a session with %s began", session.target, extra=self.about())
        self.tell(self.agent, SessionBegan(message.session_id, session.target, session.channel))
        self.tell(self.node, SessionUp(message.node.id or self.setup.node_id))
        self._beat(session)
        request = dispatcher_pb2.AssignmentsRequest(session_id=message.session_id)
        self._open(session, ASSIGNMENTS, request, self._assigned)

    def _see_managers(self, message: dispatcher_pb2.SessionMessage) -> None:
        seen = {(m.peer.node_id, m.peer.addr): m.weight for m in message.managers if m.peer.addr}
        for remote, weight in seen.items():
            self.remotes.observe(remote, weight)
        if seen:  # a list of nobody is not worth forgetting everybody for
            self.remotes.keep_only(seen)
            self.tell(self.node, ManagersSeen(tuple(sorted((*remote, weight) for remote, weight in seen.items()))))

    def _see_node(self, node: objects_pb2.Node) -> None:
        said = objects_pb2.Node()
        said.CopyFrom(node)
        said.ClearField("status")
        said.ClearField("meta")
        if not node.id or said == self._node_seen:
            return
        self._node_seen = said
        role = MANAGER if node.spec.desired_role == types_pb2.MANAGER else WORKER
        rotate = node.certificate.status.state == types_pb2.IssuanceStatus.ROTATE
        self.tell(self.node, NodeChanged(role, rotate))

    def _assigned(self, session: _Session, message: dispatcher_pb2.AssignmentsMessage) -> None:
        if session is not self.current:
            return
        wrong = session.sequence.check(message)
        if wrong is not None:
            self._failed(session, wrong)
        else:
            self.continue_trace(trace_in(message))
            self.tell(self.agent, Assignments(message))

    def _tasks(self, session: _Session, message: dispatcher_pb2.TasksMessage) -> None:
        if session is self.current:
            self.tell(self.agent, Assignments(from_tasks(message)))

    # Heartbeats

    @handles(_Beat)
    def beat(self, message: _Beat) -> None:
        """The period is over."""
        if message.session is self.current:
            self._beat(message.session)

    def _beat(self, session: _Session) -> None:
        request = dispatcher_pb2.HeartbeatRequest(session_id=self.session_id)
        done = self.sink(partial(self._beaten, session))
        session.channel.unary(HEARTBEAT, request, timeout=RPC_TIMEOUT, done=done)

    def _beaten(self, session: _Session, result: dispatcher_pb2.HeartbeatResponse | Refused) -> None:
        if session is not self.current:
            return
        if isinstance(result, Refused):
            unknown = result.code is Code.NOT_FOUND
            text = "node not registered" if unknown else f"heartbeat failed: {result}"
            self._failed(session, text, removed=says_removed(result, self.setup.node_id))
            return
        period = result.period.seconds + result.period.nanos / 1e9
        self.after(max(period, PERIOD_MIN), _Beat(session))

    # Statuses

    @handles(SendStatuses)
    def send_statuses(self, message: SendStatuses) -> None:
        """One call. A manager that does not know the node or its tasks (NOT_FOUND) has nothing more to hear."""
        session = self.current
        if session is None or not session.registered:
            raise Refused(Code.UNAVAILABLE, "there is no session")
        request = dispatcher_pb2.UpdateTaskStatusRequest(session_id=self.session_id)
        for task_id, status in message.updates:
            request.updates.add(task_id=task_id, status=status)
        reply = self.defer()
        session.sends.append(reply)
        done = self.sink(partial(self._sent, session, reply), self.trace)
        headers = trace_header(self.trace)
        session.channel.unary(UPDATE_STATUS, request, timeout=RPC_TIMEOUT, done=done, metadata=headers)

    def _sent(self, session: _Session, reply: Reply, result: Message | Refused) -> None:
        if session is not self.current:
            return  # the end of the session answered
        session.sends.remove(reply)
        if isinstance(result, Refused) and result.code is not Code.NOT_FOUND:
            reply.fail(result)
            self._failed(session, f"reporting statuses failed: {result}")
        else:
            reply.set(None)

    # What this node is

    @handles(_CheckDescription)
    def check_description(self, message: _CheckDescription) -> None:
        """A session announces a node once: one that looks different needs another session."""
        self._announce_anew("the node's description changed")

    @handles(RenewSession)
    def renew(self, message: RenewSession) -> None:
        """The manager says anew how this node is to be; tasks and statuses are not touched."""
        if self.current is not None and self.current.registered:
            self._end(self.current, "the manager's newest word is wanted", GOOD)

    @handles(CertificateRenewed)
    def certificate_renewed(self, message: CertificateRenewed) -> None:
        """A new role is what managers are to see at once; a new issuer shows in the description."""
        _, role = self._identity()
        if self.current is not None and (message.role or role) != self.current.role:
            self._end(self.current, "the node's role changed", GOOD)
        else:
            self._announce_anew("the node's certificate has another issuer")

    @handles(IngressBlocked)
    def ingress_blocked(self, message: IngressBlocked) -> None:
        """What this node cannot do for the swarm is in its description."""
        self._blocked = dict(message.ports)
        self._announce_anew("other published ports cannot be listened on")

    def _announce_anew(self, text: str) -> None:
        session = self.current
        if session is not None and session.registered and session.description != self._describe():
            self._end(session, text, GOOD)

    def _describe(self) -> types_pb2.NodeDescription:
        assert self.world.executor is not None, "this node has no executor"
        description = types_pb2.NodeDescription()
        description.CopyFrom(self.world.executor.describe())
        description.hostname = self.setup.hostname
        description.engine.labels[PACE_LABEL] = PACE_VALUE
        if self._blocked:
            description.engine.labels[ingress_blocked.LABEL] = ingress_blocked.to_label(self._blocked)
        description.tls_info.CopyFrom(self._identity()[0])
        return description

    def _identity(self) -> tuple[types_pb2.NodeTLSInfo, str]:
        """TLS information and role of the newest certificate."""
        material = self.setup.credentials.material
        if self._tls is None or self._tls[0] != material.version:
            self._tls = material.version, *_read_identity(material)
        return self._tls[1], self._tls[2]


def _read_identity(material: Material) -> tuple[types_pb2.NodeTLSInfo, str]:
    info = types_pb2.NodeTLSInfo(trust_root=material.roots)
    if not material.certificate:
        return info, ""
    leaf, *intermediates = load_certificates(material.certificate)
    for authority in (*intermediates, *load_certificates(material.roots)):
        if is_issued_by(leaf, authority):
            issuer = issuer_identity(authority)
            info.cert_issuer_subject = issuer.subject
            info.cert_issuer_public_key = issuer.public_key
            break
    return info, certificate_info(leaf).role
