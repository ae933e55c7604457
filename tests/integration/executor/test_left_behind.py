"""A node that is started with another executor than its tasks run by: it does not start, and says who runs on where."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.executor import left_behind
from runtime.stage.world import RealClock
from runtime.wire.loop import IoLoop
from swarmlet import ActorExecutor, ContainerExecutor, ExecutorPlace, Node, ProcessExecutor, StartError
from swarmlet.executors import ExecutorFactory
from tests.integration.executor.conftest import Bench, own
from tests.integration.executor.container_bench import ContainerBench
from tests.integration.executor.fake_engine import FakeEngine
from tests.waiting import until


class Machine:
    """A node's directories, an engine, and who runs tasks of the node."""

    def __init__(self, loop: IoLoop, root: Path) -> None:
        self.root = root
        self.place = ExecutorPlace(loop, root / "worker" / "process", root / "run", RealClock())
        self.engines: list[FakeEngine] = []
        self.containers = ContainerBench(loop, root)
        self.containers.boot(directory=str(root / "engine"))
        self.engines.append(self.containers.engine)

    @property
    def here(self) -> ContainerExecutor:
        """The executor of the first engine."""
        return ContainerExecutor(str(self.engines[0].path))

    def other(self) -> ContainerExecutor:
        """The executor of another engine."""
        self.engines.append(FakeEngine(self.root / f"other{len(self.engines)}.sock"))
        return ContainerExecutor(str(self.engines[-1].path))

    def builds(self, factory: ExecutorFactory) -> None:
        """Such an executor begins here."""
        factory.build(self.place).close(lambda: None)

    def refuses(self, factory: ExecutorFactory) -> str:
        """Such an executor does not; why."""
        with pytest.raises(StartError) as refused:
            factory.build(self.place)
        return str(refused.value)


@pytest.fixture
def machine(loop: IoLoop, short_path: Path) -> Iterator[Machine]:
    made = Machine(loop, short_path)
    yield made
    for engine in made.engines[1:]:
        engine.close()
    made.containers.end()


def with_processes(bench: Bench, *tasks: str) -> None:
    for each in tasks:
        bench.started(each, "sleep", "600")
    bench.close()


def test_processes_are_told_of_while_they_run_and_no_longer(bench: Bench) -> None:
    assert left_behind.of_processes(bench.directory) == ""
    with_processes(bench, "a", "b")
    told = left_behind.of_processes(bench.directory)
    assert told.startswith(
        f"2 tasks of this node still run as processes ({own('a')}, {own('b')}): start it with the process executor"
    )
    bench.boot()
    bench.stop_all()
    assert left_behind.of_processes(bench.directory) == ""


def test_processes_whose_keeper_was_killed_are_told_of_too(bench: Bench) -> None:
    with_processes(bench, "a")
    keeper = bench.keeper()
    os.kill(keeper, signal.SIGKILL)
    until(lambda: bench.keeper() == 0, "the keeper is gone")
    assert left_behind.of_processes(bench.directory).startswith(
        f"a task of this node still runs as processes ({own('a')})"
    )


def test_what_ran_before_a_reboot_runs_no_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with_processes(bench, "a")
    monkeypatch.setattr(left_behind.procfs, "boot_id", lambda: "another")
    assert left_behind.of_processes(bench.directory) == ""


def test_no_other_executor_begins_over_processes(bench: Bench, machine: Machine) -> None:
    with_processes(bench, *"abcd")
    (machine.root / "worker").mkdir()
    (machine.root / "worker" / "process").symlink_to(bench.directory)
    for other in (machine.here, ActorExecutor({})):
        assert "4 tasks of this node still run as processes (" in machine.refuses(other)
    machine.builds(ProcessExecutor(linger=None))


def test_no_other_executor_begins_over_containers(machine: Machine) -> None:
    machine.containers.started("t", "sleep")
    for other in (ProcessExecutor(), ActorExecutor({}), machine.other()):
        told = machine.refuses(other)
        assert f"still runs as containers of {machine.engines[0].path} (t): start it with that engine first" in told
    machine.builds(machine.here)
    machine.engines[0].exit("t")
    for other in (ProcessExecutor(), ActorExecutor({}), machine.other()):
        machine.builds(other)


def test_an_engine_that_is_reached_by_another_path_is_the_same(machine: Machine) -> None:
    machine.containers.started("t", "sleep")
    (machine.root / "alias.sock").symlink_to(machine.engines[0].path)
    machine.builds(ContainerExecutor(str(machine.root / "alias.sock")))


def test_an_engine_that_is_gone_is_not_waited_for(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.containers.started("t", "sleep")
    machine.engines[0].down()
    machine.builds(ProcessExecutor())
    assert f"whether tasks of this node still run at {machine.engines[0].path} cannot be told" in caplog.text


def test_an_engine_that_has_nothing_left_is_asked_once(machine: Machine) -> None:
    machine.builds(ProcessExecutor())
    asked = len(machine.engines[0].requests)
    machine.engines[0].down()
    machine.builds(ProcessExecutor())
    assert len(machine.engines[0].requests) == asked
    machine.engines[0].up()
    machine.builds(machine.here)
    machine.containers.started("t", "sleep")
    assert "(t)" in machine.refuses(ProcessExecutor())


def test_a_node_does_not_start_over_tasks_that_it_would_not_see(machine: Machine) -> None:
    machine.containers.started("t", "sleep")
    node = Node(machine.root, executor=ProcessExecutor(), run_dir=machine.root / "r")
    with pytest.raises(StartError, match="a task of this node still runs as containers"):
        node.start()
