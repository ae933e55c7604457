"""A manager for agents under test: its dispatcher and log broker answer what the test tells them to."""

from __future__ import annotations

import random
import time
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from runtime.errors import Refused
from runtime.stage.probe import Probe
from runtime.stage.simulator import Simulator
from runtime.wire.memory import MemoryNetwork
from runtime.wire.pb import dispatcher_pb2 as pb
from runtime.wire.pb import logs_pb2, objects_pb2, types_pb2
from runtime.wire.port import WORKER, Access, Call, Credentials, Metadata
from runtime.wire.services import path, routes
from tests.unit.wire.authority import CLUSTER, authority

SOCKET = "unix:/run/swarmlet.sock"
LONG_AGO = -3000.0


def network(simulator: Simulator) -> MemoryNetwork:
    """A network in the simulator's time; certificates see today's date."""
    today = time.time()
    return MemoryNetwork(simulator.set, random.Random(7), clock=lambda: today + simulator.time)


def worker(node_id: str = "n1") -> Credentials:
    """A worker's credentials."""
    return authority().credentials(node_id, WORKER, start=LONG_AGO)


class Manager:
    """Serves at ``address`` on a transport, and keeps every call."""

    def __init__(
        self, transport: Any, address: str = SOCKET, *, tasks_only: bool = False, silent: bool = False
    ) -> None:
        self.sessions: list[Call] = []
        self.beats: list[Call] = []
        self.streams: list[Call] = []
        self.task_streams: list[Call] = []
        self.reports: list[pb.UpdateTaskStatusRequest] = []
        self.report_metadata: list[Metadata] = []
        self.listeners: list[Call] = []
        self.published: list[logs_pb2.PublishLogsMessage] = []
        self.uploads: list[Call] = []
        self.uploads_ended = 0
        self.period = 5.0
        self.silent = silent
        self.beat_error: Refused | None = None
        self.report_error: Refused | None = None
        self.hold_reports = False
        self.held: list[Call] = []
        self.managers: list[types_pb2.WeightedPeer] = []
        self.root = b""
        self.node = objects_pb2.Node(id="n1")
        self._results = 0
        handlers = {
            path("Dispatcher", "Session"): self._session,
            path("Dispatcher", "Heartbeat"): self._heartbeat,
            path("Dispatcher", "Tasks"): self.task_streams.append,
            path("Dispatcher", "UpdateTaskStatus"): self._update,
            path("LogBroker", "ListenSubscriptions"): self.listeners.append,
            path("LogBroker", "PublishLogs"): self._publish,
        }
        if not tasks_only:
            handlers[path("Dispatcher", "Assignments")] = self._assignments
        self.server = transport.serve(
            address,
            routes(handlers),
            access=lambda: Access(CLUSTER),
            credentials=None
            if address.startswith("unix:")
            else authority().credentials("m1", "swarm-manager", start=LONG_AGO),
        )

    # What comes in

    def _session(self, call: Call) -> None:
        self.sessions.append(call)
        if not self.silent:
            self.say()

    def _heartbeat(self, call: Call) -> None:
        self.beats.append(call)
        if self.beat_error is not None:
            call.fail(self.beat_error)
        else:
            whole, rest = divmod(int(self.period * 1e9), 10**9)
            call.reply(pb.HeartbeatResponse(period=Duration(seconds=whole, nanos=rest)))

    def _assignments(self, call: Call) -> None:
        self._results = 0
        self.streams.append(call)

    def _update(self, call: Call) -> None:
        request = call.request
        assert isinstance(request, pb.UpdateTaskStatusRequest)
        self.reports.append(request)
        self.report_metadata.append(call.metadata)
        if self.hold_reports:
            self.held.append(call)
        elif self.report_error is not None:
            call.fail(self.report_error)
        else:
            call.reply(pb.UpdateTaskStatusResponse())

    def _publish(self, call: Call) -> None:
        def ended(refused: Refused | None) -> None:
            self.uploads_ended += 1
            if refused is None:
                call.reply(logs_pb2.PublishLogsResponse())

        def item(message: Message) -> None:
            assert isinstance(message, logs_pb2.PublishLogsMessage)
            self.published.append(message)

        self.uploads.append(call)
        call.receive(item, ended)

    # What the test says

    def say(self, **more: Any) -> None:
        """A session message on the newest session."""
        message = pb.SessionMessage(
            session_id="session-1", node=self.node, managers=self.managers, RootCA=self.root, **more
        )
        self.sessions[-1].send(message)

    def assign(
        self,
        *tasks: objects_pb2.Task,
        removed: tuple[str, ...] = (),
        complete: bool | None = None,
        applies_to: str | None = None,
        results_in: str | None = None,
        secrets: tuple[objects_pb2.Secret, ...] = (),
        configs: tuple[objects_pb2.Config, ...] = (),
    ) -> None:
        """The next message on the newest assignment stream; the first is complete unless said otherwise."""
        first = self._results == 0
        kind = pb.AssignmentsMessage.COMPLETE if (first if complete is None else complete) else 1
        message = pb.AssignmentsMessage(
            type=kind,  # type: ignore[arg-type]
            applies_to=applies_to if applies_to is not None else ("" if first else str(self._results)),
            results_in=results_in if results_in is not None else str(self._results + 1),
        )
        self._results += 1
        for secret in secrets:
            message.changes.add().assignment.secret.CopyFrom(secret)
        for config in configs:
            message.changes.add().assignment.config.CopyFrom(config)
        for task in tasks:
            message.changes.add().assignment.task.CopyFrom(task)
        for task_id in removed:
            message.changes.add(action=pb.AssignmentChange.REMOVE).assignment.task.id = task_id
        self.streams[-1].send(message)

    def states(self, task_id: str) -> list[int]:
        """The states that were reported of a task, in order."""
        return [each.status.state for report in self.reports for each in report.updates if each.task_id == task_id]

    def last(self, task_id: str) -> types_pb2.TaskStatus:
        """The newest status that was reported of a task."""
        found = [each.status for report in self.reports for each in report.updates if each.task_id == task_id]
        assert found, f"nothing was reported of {task_id}"
        return found[-1]

    def lines(self) -> list[bytes]:
        """What was published, in order."""
        return [line.data for message in self.published for line in message.messages]


def task(
    task_id: str = "t1", desired: int = types_pb2.RUNNING, service: str = "s1", secrets: tuple[str, ...] = ()
) -> objects_pb2.Task:
    """A task as a dispatcher assigns it."""
    made = objects_pb2.Task(id=task_id, service_id=service, node_id="n1", slot=1, desired_state=desired)  # type: ignore[arg-type]
    made.service_annotations.name = "web"
    made.status.state = types_pb2.ASSIGNED
    made.status.message = "scheduler assigned task to node"
    made.meta.version.index = 12
    made.spec.container.image = "sleep"
    for secret in secrets:
        made.spec.container.secrets.add(secret_id=secret, secret_name=secret)
    return made


def later(simulator: Simulator, seconds: float) -> None:
    """Lets exactly this much virtual time pass. (A timer just behind it keeps the clock from jumping ahead.)"""
    simulator.set(seconds + 1e-6, lambda: None)
    simulator.run_for(seconds)


def silence(simulator: Simulator, probe: Probe, kind: type[Any], during: float = 1.0) -> None:
    """Lets time pass, and fails if the probe was told such a message."""
    later(simulator, during)
    assert [message for message in probe.messages if isinstance(message, kind)] == []
