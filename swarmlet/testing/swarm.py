"""A whole swarm under virtual time: hosts with a disk, an executor and a link each, and the real actors on them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from runtime.protocol.cluster import Inspect
from runtime.protocol.raft import RaftStatus
from runtime.stage.cell import Cell
from runtime.stage.mailbox import Envelope
from runtime.stage.observe import CrashReport, Moment
from runtime.stage.simulator import EPOCH, Simulator
from runtime.wire.memory import MemoryNetwork
from runtime.wire.pb import control_pb2, objects_pb2, specs_pb2
from runtime.wire.pb import types_pb2 as types
from swarmlet.executors import ActorExecutor
from swarmlet.testing.api import Api
from swarmlet.testing.host import Host
from swarmlet.testing.loop import VirtualLoop
from swarmlet.testing.trace import SimulatedTrace, Trace


class Swarm:
    """Hosts on one network; also the ground of a TestCluster. ``events`` is what happened, as (time, text)."""

    remembered = "deliveries"

    def __init__(
        self, seed: int, hosts: int = 1, names: Sequence[str] = (), actors: ActorExecutor | None = None
    ) -> None:
        self.simulator = Simulator(seed)
        self.loop = VirtualLoop(self.simulator)  # type: ignore[abstract]  # what it leaves out is sockets and processes
        self.network = MemoryNetwork(
            self.schedule, random.Random(f"{seed}/network"), clock=lambda: EPOCH + self.simulator.time, jitter=0.002
        )
        named = names or [f"node-{number}" for number in range(1, hosts + 1)]
        self.hosts = [Host(self, name, f"10.0.0.{number}", actors) for number, name in enumerate(named, 1)]
        self.events: list[tuple[float, str]] = []
        self._by_name = {host.name: host for host in self.hosts}
        self._leads: dict[str, bool] = {}
        self.simulator.observers.append(self._observe)

    def schedule(self, delay: float, call: Callable[[], None]) -> None:
        """A callback of the world outside the actors."""
        self.simulator.set(delay, call)

    def boot(self) -> list[Host]:
        """Starts every host."""
        for host in self.hosts:
            host.boot()
        return self.hosts

    def host(self, name: str) -> Host:
        """The host of that name."""
        if name not in self._by_name:
            raise AssertionError(f"there is no node {name!r}: {', '.join(self._by_name)}")
        return self._by_name[name]

    # Tasks

    def tasks(self, manager: Host, service_id: str) -> list[objects_pb2.Task]:
        """The service's tasks, as the manager knows them."""
        filters = control_pb2.ListTasksRequest.Filters(service_ids=[service_id])
        return list(manager.control("ListTasks", filters=filters).tasks)

    def running(self, manager: Host, service_id: str) -> list[objects_pb2.Task]:
        """Its tasks that run and are to run."""
        return [
            task
            for task in self.tasks(manager, service_id)
            if task.status.state == types.RUNNING and task.desired_state == types.RUNNING
        ]

    def wait_running(self, manager: Host, service_id: str, count: int, within: float = 120.0) -> list[objects_pb2.Task]:
        """Runs until so many tasks run."""
        limit = self.simulator.time + within
        while True:
            running = self.running(manager, service_id)
            if len(running) == count:
                return running
            if self.simulator.time > limit:
                known = (f"{t.slot} {t.status.state} {t.status.err}" for t in self.tasks(manager, service_id))
                raise AssertionError(f"{len(running)} of {count} tasks run: {'; '.join(known)}")
            self.simulator.run_for(0.25)

    # What happened

    def note(self, text: str) -> None:
        """An event of the timeline."""
        self.events.append((self.simulator.time, text))

    def crashed(self, host: Host, report: CrashReport) -> None:
        """An actor failed."""
        self.note(f"{host.name}:{report.path} failed over {report.message}: {report.error}")

    def happened(self, host: Host, moment: Moment) -> None:
        """A node says what whoever runs it wants to know of; who leads is seen by itself."""
        if moment.type != "manager":
            self.note(f"{host.name}: {moment.attributes['text']}")

    def _observe(self, cell: Cell, envelope: Envelope) -> None:
        status = envelope[0]
        if status.__class__ is RaftStatus:
            name = cell.stage.world.name
            if self._leads.get(name, False) != status.leading:
                self._leads[name] = status.leading
                term = f"in term {status.term}"
                self.note(f"{name} leads {term}" if status.leading else f"{name} does not lead any more {term}")

    # As a ground

    @property
    def names(self) -> list[str]:
        return list(self._by_name)

    def start(self) -> None:
        self.boot()

    def close(self) -> None:
        """Nothing of it lives outside of this object."""

    def time(self) -> float:
        return self.simulator.time

    def advance(self, seconds: float) -> None:
        self.simulator.run_for(seconds)

    def run_until(self, condition: Callable[[], bool], within: float) -> None:
        self.simulator.run_until(condition, within)

    def ask(self, node: str, message: Any, within: float) -> Any:
        return self.host(node).ask(message, within)

    def init_message(self, node: str) -> Any:
        return self.host(node).init_message()

    def join_message(self, node: str, manager: str, token: str) -> Any:
        return self.host(node).join_message(self.host(manager), token)

    def api(self, node: str) -> Api:
        return self.host(node).api

    def up(self, node: str) -> bool:
        return self.host(node).stage is not None

    def leads(self, node: str) -> int:
        return self.host(node).leads()

    def stop(self, node: str) -> None:
        self.host(node).shut_down()

    def start_again(self, node: str) -> None:
        self._leads.pop(node, None)
        self.host(node).boot()

    def crash(self, node: str, power: bool) -> None:
        self.host(node).crash(self.simulator.random.getrandbits(32) if power else None)

    def pause(self, node: str, seconds: float) -> None:
        stage = self.host(node).stage
        assert stage is not None, f"{node} is down"
        self.simulator.pause(stage, seconds)

    def crash_actor(self, node: str, path: str) -> None:
        cell = self.host(node).cell(path)
        if cell is None:
            raise AssertionError(f"nobody lives at {path} on {node}")
        cell.control(lambda: cell.failed(RuntimeError("failed by a test"), None))

    def kill_task(self, node: str, task: objects_pb2.Task) -> None:
        executor = self.host(node).executor
        if task.id not in executor.running:
            raise AssertionError(f"task {task.id} has no process on {node}")
        executor.kill(task.id)

    def cut(self, source: str, target: str) -> None:
        self.network.half_open(self.host(source).ip, self.host(target).ip)

    def heal(self) -> None:
        self.network.heal()
        for host in self.hosts:
            host.disk.files.fail_after = None
            for _name, image in host.disk.images:
                image.heal()

    def disk_full(self, node: str) -> None:
        disk = self.host(node).disk
        disk.files.fail_after = 0
        for _name, image in disk.images:
            image.full_after(0)

    def skew(self, node: str, seconds: float) -> None:
        self.host(node).clock.skew += seconds

    def trace(self, paths: str, types: str, limit: int, follow: bool) -> Trace:
        return SimulatedTrace(self.simulator, paths, types, limit, follow)

    def last_lines(self) -> list[str]:
        return list(self.simulator.last)


def replicated(name: str, replicas: int, *command: str) -> specs_pb2.ServiceSpec:
    """A service of processes."""
    spec = specs_pb2.ServiceSpec()
    spec.annotations.name = name
    spec.replicated.replicas = replicas
    spec.task.container.image = "host"
    spec.task.container.command.extend(command or ("sleep", "1000000"))
    spec.task.restart.condition = types.RestartPolicy.ANY
    spec.task.restart.delay.FromMilliseconds(500)
    return spec


def worker_token(manager: Host) -> str:
    """What a worker joins with."""
    return str(manager.ask(Inspect()).root_ca.join_tokens.worker)


def manager_token(manager: Host) -> str:
    """What a manager joins with."""
    return str(manager.ask(Inspect()).root_ca.join_tokens.manager)
