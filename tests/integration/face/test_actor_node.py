"""Actors as tasks of a real node: threads, sockets, a disk, the Engine API."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from runtime.executor.actor_plan import Registered, TaskPlace
from runtime.protocol.actor_tasks import Stopping
from runtime.stage import Actor, handles
from runtime.wire.pb import control_pb2, specs_pb2, types_pb2
from swarmlet import ActorExecutor, MixedExecutor, Node
from tests.integration.face.worlds import NOTHING, Machine, Traces
from tests.waiting import until


class Worker(Actor):
    """Says who it is; sees that it is stopped; waits where it is told to."""

    def __init__(self, place: TaskPlace, seen: list[str], gate: threading.Event) -> None:
        super().__init__()
        self.place, self.seen, self.gate = place, seen, gate

    def started(self) -> None:
        self.place.log(f"slot {self.place.slot}")

    @handles(Stopping)
    def stopping(self, message: Stopping) -> None:
        self.seen.append("stopping")
        self.after(0.1, "end")

    @handles(str)
    def told(self, what: str) -> None:
        if what == "wait":
            self.seen.append("waits")
            self.gate.wait(60)
        elif what == "end":
            self.seen.append("ended")
            self.place.exit(0)


class World:
    def __init__(self, tmp_path: Path) -> None:
        self.seen: list[str] = []
        self.gate = threading.Event()
        self.machine = Machine()
        executor = ActorExecutor({"worker": Registered(Worker, (self.seen, self.gate))})
        self.node = Node(
            tmp_path / "state",
            run_dir=tmp_path / "run",
            executor=MixedExecutor(executor, self.machine.factory),
            hostname="box",
        )

    def create(self, replicas: int = 1, image: str = "actor/worker", restart: int = 2, grace: int = 60) -> str:
        spec = specs_pb2.ServiceSpec()
        spec.annotations.name = "workers"
        spec.task.container.image = image
        spec.task.container.stop_grace_period.FromSeconds(grace)
        spec.task.restart.condition = restart
        spec.task.restart.delay.FromMilliseconds(100)
        spec.replicated.replicas = replicas
        made = self.node.control(
            "CreateService", control_pb2.CreateServiceRequest(spec=spec), control_pb2.CreateServiceResponse
        )
        return str(made.service.id)

    def tasks(self) -> list[Any]:
        return list(self.node.control("ListTasks", control_pb2.ListTasksRequest(), control_pb2.ListTasksResponse).tasks)

    def running(self, count: int) -> None:
        until(lambda: sum(each.status.state == types_pb2.RUNNING for each in self.tasks()) == count)

    @property
    def actors(self) -> list[str]:
        return [path for path in self.node.stage.cells if path.startswith("/tasks/")]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_actors_run_each_on_a_thread_of_its_own_beside_processes(world: World) -> None:
    with world.node:
        world.node.init()
        world.create(3)
        world.running(3)
        assert len(world.actors) == 3
        threads = [world.node.stage.cells[path].thread for path in world.actors]
        assert len(set(threads)) == 3
        seen = {each["path"] for each in world.node.introspect("tree")["actors"]}
        assert set(world.actors) < seen


def test_tasks_are_stopped_with_their_grace_period_before_the_node_ends(world: World) -> None:
    with world.node:
        world.node.init()
        world.create(2)
        world.running(2)
    assert world.seen.count("stopping") == 2
    assert world.seen.count("ended") == 2


def test_a_node_that_keeps_its_tasks_cannot_keep_actors_and_starts_others_next_time(world: World) -> None:
    with world.node:
        world.node.init()
        world.create()
        world.running(1)
        world.node.stop("keep")
        world.node.start()
        world.node.wait_ready()
        until(lambda: any("ended with the program" in each.status.err for each in world.tasks()))
        world.running(1)
        assert len(world.actors) == 1


def test_an_actor_that_does_not_return_holds_neither_the_node_nor_its_end_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.task_supervisor_actor.GIVE_UP_AFTER", 0.3)
    with world.node:
        world.node.init()
        world.create(2, grace=3)
        world.running(2)
        world.node.stage.at(world.actors[0]).tell("wait")
        until(lambda: "waits" in world.seen)
        assert world.node.info().local_node_state == "active"
        world.node.stop()
    assert world.seen.count("ended") == 1
    world.gate.set()


def test_nothing_is_left_of_a_node_with_actors(tmp_path: Path) -> None:
    with World(tmp_path / "warm").node:
        pass
    before = Traces()
    world = World(tmp_path)
    with world.node:
        world.node.init()
        world.create(2)
        world.running(2)
    assert before.left() == NOTHING


def test_a_node_of_actors_alone_takes_nothing_else(tmp_path: Path) -> None:
    node = Node(tmp_path / "state", run_dir=tmp_path / "run", executor=ActorExecutor({"idle": Idle}), hostname="box")
    world = World(tmp_path / "unused")
    world.node = node
    with node:
        node.init()
        world.create(1, "host")
        until(lambda: any("needs the process executor" in each.status.err for each in world.tasks()))
        assert node.info().local_node_state == "active"


class Idle(Actor):
    """Does nothing."""

    def __init__(self, place: TaskPlace) -> None:
        super().__init__()
