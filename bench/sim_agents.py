"""Many workers in one process that speak the real protocol over real sockets, and whose tasks are entries in a table.

Each joins with the token, keeps a session with heartbeats and an assignment stream, and takes its tasks up the ladder:
one status call for each state, for all tasks that are in it, as fast as the manager answers. All of it runs on the
transport's loop; what others read is counters.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from google.protobuf.message import Message

from runtime.errors import Refused
from runtime.pki.keys import dump_key
from runtime.pki.node_identity import new_request
from runtime.wire.grpc_transport import GrpcTransport
from runtime.wire.loop import IoLoop
from runtime.wire.pb import ca_pb2, dispatcher_pb2, types_pb2
from runtime.wire.port import CA_NAME, Channel, Credentials
from runtime.wire.services import path

LADDER = (
    types_pb2.ACCEPTED, types_pb2.PREPARING, types_pb2.READY, types_pb2.STARTING, types_pb2.RUNNING,
)  # fmt: skip
JOINING = 16


def ask(channel: Channel, method: str, request: Message, timeout: float = 30.0) -> Any:
    """One call, waited for; not for the loop's thread."""
    ended, outcome = threading.Event(), list[Any]()

    def done(result: Message | Refused) -> None:
        outcome.append(result)
        ended.set()

    channel.unary(method, request, timeout=timeout, done=done)
    ended.wait()
    if isinstance(outcome[0], Refused):
        raise outcome[0]
    return outcome[0]


class Agent:
    """One worker. ``states`` are its tasks' observed states, ``wanted`` their desired ones."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self.fleet = fleet
        self.name = f"sim-{number:04}"
        self.states: dict[str, int] = {}
        self.wanted: dict[str, int] = {}
        self.images: dict[str, str] = {}
        self.session_id = ""
        self.node_id = ""
        self._busy = False
        self._again = False

    # Joining

    def join(self) -> None:
        """Certificate, session, assignments; returns when the session began."""
        credentials = self._credentials()
        self.channel = self.fleet.transport.connect(self.fleet.manager, credentials)
        description = types_pb2.NodeDescription(hostname=self.name)
        description.platform.os, description.platform.architecture = "linux", "x86_64"
        description.resources.nano_cpus, description.resources.memory_bytes = 64 * 10**9, 256 << 30
        self._began = threading.Event()
        self.channel.stream(
            path("Dispatcher", "Session"),
            dispatcher_pb2.SessionRequest(description=description),
            on_item=self._said,
            on_end=self._lost,
        )
        if not self._began.wait(60):
            raise TimeoutError(f"{self.name} has no session")

    def _credentials(self) -> Credentials:
        fleet, request = self.fleet, new_request(os.urandom)
        channel = fleet.transport.connect(fleet.manager, Credentials(fleet.root), server_name=CA_NAME)
        issue = ca_pb2.IssueNodeCertificateRequest(csr=request.csr, token=fleet.token)
        self.node_id = ask(channel, path("NodeCA", "IssueNodeCertificate"), issue).node_id
        status = ca_pb2.NodeCertificateStatusRequest(node_id=self.node_id)
        while True:
            answer = ask(channel, path("NodeCA", "NodeCertificateStatus"), status)
            if answer.status.state == types_pb2.IssuanceStatus.ISSUED:
                break
        channel.close()
        return Credentials(fleet.root, answer.certificate.certificate, dump_key(request.key))

    # The session, on the loop

    def _said(self, message: Any) -> None:
        if self.session_id:
            return
        self.session_id = message.session_id
        self._began.set()
        self._beat()
        self.channel.stream(
            path("Dispatcher", "Assignments"),
            dispatcher_pb2.AssignmentsRequest(session_id=self.session_id),
            on_item=self._assigned,
            on_end=self._lost,
        )

    def _lost(self, refused: Refused | None) -> None:
        if not self.fleet.closing:
            self.fleet.lost.append(f"{self.name}: {refused}")

    def _beat(self) -> None:
        request = dispatcher_pb2.HeartbeatRequest(session_id=self.session_id)
        self.channel.unary(path("Dispatcher", "Heartbeat"), request, timeout=30.0, done=self._beaten)

    def _beaten(self, answer: Any) -> None:
        if isinstance(answer, Refused):
            self._lost(answer)
        else:
            period = answer.period.seconds + answer.period.nanos / 1e9
            self.fleet.loop.loop.call_later(period, self._beat)

    # Tasks, on the loop

    def _assigned(self, message: Any) -> None:
        for change in message.changes:
            if change.assignment.WhichOneof("item") != "task":
                continue
            task = change.assignment.task
            if change.action == dispatcher_pb2.AssignmentChange.REMOVE:
                for table in (self.states, self.wanted, self.images):
                    table.pop(task.id, None)
            else:
                self.states.setdefault(task.id, task.status.state)
                self.wanted[task.id] = task.desired_state
                self.images[task.id] = task.spec.container.image
        self._report()

    def _next(self, id: str) -> int | None:
        state, wanted = self.states[id], self.wanted[id]
        if wanted >= types_pb2.SHUTDOWN:
            return types_pb2.SHUTDOWN if state < types_pb2.COMPLETE else None
        return next((each for each in LADDER if state < each <= wanted), None)

    def _report(self) -> None:
        if self._busy:
            self._again = True
            return
        steps = {id: state for id in self.states if (state := self._next(id)) is not None}
        if not steps:
            return
        request = dispatcher_pb2.UpdateTaskStatusRequest(session_id=self.session_id)
        for id, state in steps.items():
            status = request.updates.add(task_id=id).status
            status.state, status.message = state, "simulated"
            status.timestamp.GetCurrentTime()
        self._busy = True
        self.channel.unary(
            path("Dispatcher", "UpdateTaskStatus"),
            request,
            timeout=60.0,
            done=lambda answer: self._reported(steps, answer),
        )

    def _reported(self, steps: dict[str, int], answer: Any) -> None:
        self._busy = False
        if isinstance(answer, Refused):
            self._lost(answer)
            return
        for id, state in steps.items():
            if id in self.states:
                self.states[id] = max(self.states[id], state)
        self._again = False
        self._report()


class Fleet:
    """All agents; a context manager."""

    def __init__(self, manager: str, token: str, root: bytes, count: int) -> None:
        self.manager = manager
        self.token = token
        self.root = root
        self.closing = False
        self.lost: list[str] = []
        self.loop = IoLoop("agents").start()
        self.transport = GrpcTransport(self.loop)
        self.agents = [Agent(self, number) for number in range(count)]

    def __enter__(self) -> Fleet:
        with ThreadPoolExecutor(JOINING) as pool:
            list(pool.map(Agent.join, self.agents))
        return self

    def __exit__(self, *_: object) -> None:
        self.closing = True
        self.transport.close()
        self.loop.stop()

    def running(self, image: str = "", leave_out: frozenset[str] = frozenset()) -> int:
        """Tasks that run and are to run; of an image, or elsewhere than on some nodes."""
        return sum(
            state == types_pb2.RUNNING
            and agent.wanted.get(id) == types_pb2.RUNNING
            and image in ("", agent.images.get(id))
            for agent in self.agents
            if agent.node_id not in leave_out
            for id, state in list(agent.states.items())
        )
