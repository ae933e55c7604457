"""ProxyActor brings the calls that only a leader serves to the leader: the part below this manager, or another manager.

WireActor's routes of those services end here, ControlActor asks it to write elsewhere, and the manager tells it who
leads. A call is passed on once, on behalf of whoever made it; one that was passed on before is refused. Items of
streams and uploads go from connection to connection without a stop here.

While nobody leads, or the leader does not answer, calls wait for whoever will; once nobody has led for ten seconds they
are refused at once, since too few managers may be left. A call that surely never reached the leader waits for the next
one. A unary call that is lost with its leader is made once more there, as SwarmKit does it; a write of this manager's
own is not, for it may have been carried out: its outcome is unknown, and said to be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from actors.raft_peer import is_serving
from runtime.errors import Code, NotSent, Refused
from runtime.protocol.manager import LEADS_HERE, LeaderIs, ToLeader
from runtime.protocol.wire import Incoming
from runtime.stage import Actor, Address, Policy, Reply, handles
from runtime.swarm.membership import LOST_LEADERSHIP, NO_LEADER_MAX, NO_QUORUM, OUTCOME_UNKNOWN
from runtime.wire.authorise import REDIRECTED, check_redirect, forward_headers
from runtime.wire.pb import health_pb2
from runtime.wire.port import MANAGER, Call, Channel, Credentials, Headers, Identity
from runtime.wire.services import METHODS, path
from runtime.wire.to_actor import trace_header

# The part of the leader's subtree that serves a service.
SERVED_BY_LEADER: Mapping[str, str] = {
    "Dispatcher": "dispatcher",
    "Logs": "log_broker",
    "LogBroker": "log_broker",
    "TaskAccess": "task_access",
    "TaskAccessBroker": "task_access",
    "CA": "ca",
    "NodeCA": "ca",
    "RaftMembership": "membership",
    "ResourceAllocator": "resource_allocator",
}
UNARY_WAIT = 60.0
WAIT_MAX = 20.0
LOOK_PAUSE = 0.25
CHECK = path("Health", "Check")
CHECK_TIMEOUT = 2.0
LOCAL_PEER = "@"  # what stands for a caller on the control socket
TOO_LATE = "context deadline exceeded"
LOST = frozenset({Code.UNAVAILABLE, Code.CANCELLED})


@dataclass(slots=True, eq=False)
class _Task:
    """A call on its way: one from the wire, or one of this manager's own."""

    method: str
    call: Call | None
    request: Message | None
    reply: Reply
    until: float
    again: bool
    trace: int


class _Overdue:
    """A call may have waited long enough."""


class _Look:
    """Time to see whether a leader that did not answer does now."""


class ProxyActor(Actor):
    """``leader`` is where this manager's own leader's subtree is; ``credentials`` are this manager's."""

    policy = Policy()

    def __init__(self, leader: Address, credentials: Credentials) -> None:
        super().__init__()
        self.leader = leader
        self.credentials = credentials
        self.known = LeaderIs("", False)
        self._nobody_since = 0.0
        self._channel: Channel | None = None
        self._waiting: list[_Task] = []
        self._silent = False

    def started(self) -> None:
        self._nobody_leads()

    def stopped(self) -> None:
        self._hang_up()
        for task in self._waiting:
            _refuse(task, Refused(Code.UNAVAILABLE, LOST_LEADERSHIP))

    def crashed(self) -> None:
        self.stopped()

    def snapshot(self) -> dict[str, Any]:
        return {"leader": "here" if self.known.here else self.known.addr, "waiting": len(self._waiting)}

    @handles(LeaderIs)
    def leader_is(self, message: LeaderIs) -> None:
        """Who leads now: whoever waited goes there."""
        before, self.known = self.known, message
        if message.addr != before.addr or message.here:
            self._hang_up()
            self._silent = False
        if not message.addr and not message.here:
            if before.addr or before.here:
                self._nobody_leads()
            return
        self._release()

    def _nobody_leads(self) -> None:
        self._nobody_since = self.monotonic()
        self.after(NO_LEADER_MAX, _Overdue())

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, []
        for task in waiting:
            self._pass_on(task)

    def _hang_up(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    # Calls

    @handles(Incoming)
    def incoming(self, message: Incoming) -> None:
        """A call of the wire."""
        if self.known.here:
            self.forward(self._part(message.call), message)
            return
        call = message.call
        check_redirect(call.metadata)
        method = METHODS[call.method]
        request = None if method.client_streaming else call.request
        self._pass_on(_Task(call.method, call, request, self.defer(), self.monotonic() + WAIT_MAX, True, self.trace))

    @handles(ToLeader)
    def to_leader(self, message: ToLeader) -> None:
        """A call of this manager's own."""
        until = self.monotonic() + WAIT_MAX
        self._pass_on(_Task(message.method, None, message.request, self.defer(), until, False, self.trace))

    def _part(self, call: Call) -> Address:
        part = SERVED_BY_LEADER[METHODS[call.method].service]
        return self.leader.stage.at(f"{self.leader.path}/{part}")

    def _pass_on(self, task: _Task) -> None:
        if self.known.here:
            self._serve_here(task)
        elif self.known.addr and not self._silent:
            self._send(task)
        elif self._is_lost:
            _refuse(task, Refused(Code.UNKNOWN, NO_QUORUM))
        else:
            self._waiting.append(task)
            self.after(max(0.0, task.until - self.monotonic()), _Overdue())

    @property
    def _is_lost(self) -> bool:
        """Whether nobody has led for so long that too few managers may be left."""
        nobody = not self.known.addr and not self.known.here
        return nobody and self.monotonic() - self._nobody_since >= NO_LEADER_MAX

    @handles(_Overdue)
    def overdue(self, message: _Overdue) -> None:
        """Calls that waited too long, or in vain, are refused."""
        waiting, self._waiting = self._waiting, []
        for task in waiting:
            if self._is_lost:
                _refuse(task, Refused(Code.UNKNOWN, NO_QUORUM))
            elif task.until <= self.monotonic():
                _refuse(task, Refused(Code.DEADLINE_EXCEEDED, TOO_LATE))
            else:
                self._waiting.append(task)

    def _serve_here(self, task: _Task) -> None:
        if task.call is None:
            task.reply.set(LEADS_HERE)
        else:
            self._part(task.call).send(Incoming(task.call), self.address, task.reply, task.trace)

    def _connected(self) -> Channel:
        if self._channel is None:
            transport = self.world.transport
            assert transport is not None, "a manager is on a network"
            self._channel = transport.connect(self.known.addr, self.credentials)
        return self._channel

    def _send(self, task: _Task) -> None:
        channel = self._connected()
        headers, method = self._headers(task), METHODS[task.method]
        if method.server_streaming:
            _pipe_stream(channel, task, headers)
        elif method.client_streaming:
            _pipe_upload(channel, task, headers)
        else:
            assert task.request is not None
            done = self.sink(lambda answer: self._answered(task, answer), task.trace)
            cancel = channel.unary(task.method, task.request, timeout=UNARY_WAIT, done=done, metadata=headers)
            if task.call is not None:
                task.call.on_cancel(cancel)

    def _headers(self, task: _Task) -> Headers:
        if task.call is None:
            own = forward_headers(Identity(role=MANAGER, remote_addr=LOCAL_PEER, local=True))
            return (*own, *trace_header(task.trace))
        identity = task.call.identity
        if identity.local:
            identity = dataclasses.replace(identity, remote_addr=LOCAL_PEER)
        forwarded = forward_headers(identity, task.call.metadata)
        return (*forwarded, *trace_header(task.trace, task.call.metadata))

    def _answered(self, task: _Task, answer: Message | Refused) -> None:
        if not isinstance(answer, Refused):
            task.reply.set(answer)
        elif _never_began(answer):
            self._wait_for_leader()
            self._pass_on(task)
        elif answer.code in LOST:
            self._wait_for_leader()
            if task.again:
                task.again = False
                self._pass_on(task)
            else:
                _refuse(task, Refused(Code.UNKNOWN, OUTCOME_UNKNOWN))
        else:
            _refuse(task, answer)

    # A leader that does not answer

    def _wait_for_leader(self) -> None:
        """Nothing is sent to who was taken for the leader until it is known to serve, or another one leads."""
        if not self._silent and self.known.addr:
            self._silent = True
            self._hang_up()
            self.after(LOOK_PAUSE, _Look())

    @handles(_Look)
    def look(self, message: _Look) -> None:
        """Asks it for its health."""
        if self._silent:
            channel = self._connected()
            done = self.sink(lambda answer: self._checked(channel, answer))
            request = health_pb2.HealthCheckRequest(service="Raft")
            channel.unary(CHECK, request, timeout=CHECK_TIMEOUT, done=done)

    def _checked(self, channel: Channel, answer: Message | Refused) -> None:
        if not self._silent or channel is not self._channel:
            return
        if is_serving(answer):
            self._silent = False
            self._release()
        else:
            self._hang_up()
            self.after(LOOK_PAUSE, _Look())


def _pipe_stream(channel: Channel, task: _Task, headers: Headers) -> None:
    call = task.call
    assert call is not None
    assert task.request is not None

    def ended(refused: Refused | None) -> None:
        if refused is None:
            call.end()
        else:
            call.fail(_of_the_way(refused))

    def came(item: Message) -> None:
        call.send(item)

    call.on_cancel(channel.stream(task.method, task.request, on_item=came, on_end=ended, metadata=headers))


def _pipe_upload(channel: Channel, task: _Task, headers: Headers) -> None:
    call = task.call
    assert call is not None

    def done(answer: Message | Refused) -> None:
        if isinstance(answer, Refused):
            call.fail(_of_the_way(answer))
        else:
            call.reply(answer)

    upload = channel.upload(task.method, done=done, metadata=headers)

    def came(item: Message) -> None:
        upload.send(item)

    call.receive(came, lambda refused: upload.finish() if refused is None else upload.cancel())


def _never_began(answer: Refused) -> bool:
    """Whether nothing was carried out: it never got there, or the other side says itself that it does not lead."""
    if isinstance(answer, NotSent) and answer.code in LOST:
        return True
    redirected = answer.code is Code.RESOURCE_EXHAUSTED and answer.text.startswith(REDIRECTED)
    return redirected or (answer.code is Code.UNAVAILABLE and LOST_LEADERSHIP in answer.text)


def _of_the_way(answer: Refused) -> Refused:
    """The connection to the leader was given up by this side: to whoever called, the leader is lost."""
    return Refused(Code.UNAVAILABLE, LOST_LEADERSHIP) if answer.code is Code.CANCELLED else answer


def _refuse(task: _Task, refused: Refused) -> None:
    if task.call is not None and task.request is None:
        task.call.fail(refused)
    task.reply.fail(refused)
