"""The same agent on threads, with a database on a disk and gRPC over a socket: what simulation cannot show."""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from actors.agent_actor import AgentActor
from runtime.disk.real import RealDisk
from runtime.executor.port import LogLine, Stream
from runtime.protocol.agent import AgentSetup, DropTasks, Managers
from runtime.stage import Actor
from runtime.stage.stage import Stage
from runtime.stage.world import World
from runtime.wire.grpc_transport import GrpcTransport
from runtime.wire.loop import IoLoop
from runtime.wire.pb import logs_pb2, types_pb2
from runtime.wire.port import Call
from tests.unit.agent import dispatcher
from tests.unit.agent.dispatcher import task
from tests.unit.agent.executor import FakeExecutor

TASKS = 100
WAIT = 60.0


class Node(Actor):
    """Hears of sessions."""

    def unhandled(self, message: Any) -> None:
        """Whatever it is."""


class Manager(dispatcher.Manager):
    """Says when something was reached."""

    def __init__(self, transport: Any, address: str) -> None:
        self.assigning = threading.Event()
        self.listening = threading.Event()
        self.running = threading.Event()
        self.logged = threading.Event()
        super().__init__(transport, address)

    def _assignments(self, call: Call) -> None:
        super()._assignments(call)
        self.assigning.set()

    def _update(self, call: Call) -> None:
        super()._update(call)
        states = {each.task_id: each.status.state for report in self.reports for each in report.updates}
        if list(states.values()).count(types_pb2.RUNNING) == TASKS:
            self.running.set()

    def _publish(self, call: Call) -> None:
        call.receive(self._item, lambda refused: None)

    def _item(self, message: Any) -> None:
        self.published.append(message)
        if message.close:
            self.logged.set()


class Bench:
    def __init__(self, directory: pathlib.Path) -> None:
        self.io = IoLoop("test-agent").start()
        self.transport = GrpcTransport(self.io)
        self.socket = f"unix:{directory}/m.sock"
        self.manager = Manager(self.transport, self.socket)
        self.executor = FakeExecutor()
        self.disk = RealDisk(directory / "data")
        self.start()

    def start(self) -> None:
        self.stage = Stage(World("n1", transport=self.transport, disk=self.disk, executor=self.executor))
        node = self.stage.mount("node", Node)
        setup = AgentSetup("n1", "host1", dispatcher.worker())
        self.agent = self.stage.mount("agent", AgentActor, node, setup)
        self.agent.tell(Managers(self.socket))
        assert self.manager.assigning.wait(WAIT)

    def end(self) -> None:
        assert self.stage.close(WAIT)
        assert not self.stage.observations.crashes

    def close(self) -> None:
        self.end()
        self.transport.close()
        self.io.stop()


@pytest.fixture
def bench(tmp_path: pathlib.Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def test_a_hundred_tasks_run_survive_a_restart_are_read_and_go(bench: Bench) -> None:
    tasks = [task(f"t{number:03}") for number in range(TASKS)]
    bench.manager.assign(*tasks)
    assert bench.manager.running.wait(WAIT)
    assert bench.executor.starts == TASKS

    bench.end()
    bench.manager.assigning.clear()
    bench.manager.running.clear()
    bench.manager.reports.clear()
    bench.manager.listeners.clear()
    bench.start()
    assert bench.manager.running.wait(WAIT), "every status is reported again"
    assert bench.executor.starts == TASKS

    _publish(bench)
    assert bench.manager.lines() == [b"%d\n" % number for number in range(1000)]

    assert bench.agent.ask(DropTasks()).result(WAIT) is None
    assert bench.executor.running == []


def _publish(bench: Bench) -> None:
    """One task's logs, written by a thread of the executor."""
    controller = bench.executor.controllers["t007"]
    reading = threading.Event()
    logs = controller.logs

    def observed(*how: Any) -> Any:
        operation = logs(*how)
        reading.set()
        return operation

    controller.logs = observed  # type: ignore[method-assign]
    message = logs_pb2.SubscriptionMessage(id="sub", selector=logs_pb2.LogSelector(task_ids=["t007"]))
    while not any(listener.send(message) for listener in bench.manager.listeners[::-1]):
        assert not reading.wait(0.01)
    assert reading.wait(WAIT)

    def write() -> None:
        controller.readings[-1].lines(*(LogLine(number, Stream.STDOUT, b"%d\n" % number) for number in range(1000)))
        controller.readings[-1].end()

    writer = threading.Thread(target=write)
    writer.start()
    assert bench.manager.logged.wait(WAIT)
    writer.join()
