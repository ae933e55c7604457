"""The middle of a cluster for orchestrator tests: a real store, an agreeing consensus, one agent for all nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors.replicated_actor import ReplicatedActor
from actors.store_actor import StoreActor
from actors.store_watcher import StoreWatcher
from actors.task_reaper_actor import TaskReaperActor
from runtime.protocol.manager import LeaderContext
from runtime.protocol.store import Entries, Leading, Propose, Write
from runtime.stage import Actor, Address, GiveUp, Policy, handles
from runtime.stage.simulator import Simulator
from runtime.store.events import Commit, WatchFilter
from runtime.store.transaction import Transaction
from runtime.store.view import Published, View
from runtime.swarm.service_spec import to_timestamp, updated
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.little_store import cluster_with, node_of_id


@dataclass(frozen=True)
class Agreed:
    store: Address
    entry: tuple[int, int, bytes]


class Consensus(Actor):
    """Commits every entry, in the next turn or after ``delay`` seconds."""

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__()
        self.delay = delay
        self.index = 8

    @handles(Propose)
    def propose(self, message: Propose) -> None:
        assert self.sender is not None
        self.index += 1
        agreed = Agreed(self.sender, (self.index, message.number, message.data))
        if self.delay:
            self.after(self.delay, agreed)
        else:
            self.agreed(agreed)

    @handles(Agreed)
    def agreed(self, message: Agreed) -> None:
        self.tell(message.store, Entries((message.entry,)))


@dataclass(frozen=True)
class Look:
    task_id: str


@dataclass
class Behaviour:
    """Seconds that steps take, and images whose tasks fail instead of running, or soon after they ran.

    Tasks of jobs are done after ``work`` seconds.
    """

    boot: float = 0.5
    stop: float = 1.0
    work: float = 2.0
    fail: frozenset[str] = frozenset()
    fail_after: float | None = None
    silent: frozenset[str] = frozenset()


class Agents(StoreWatcher):
    """Scheduler and agents in one: places tasks on nodes in turn, and takes them as far as they are to go."""

    policy = Policy(give_up=GiveUp.NEVER)
    watched = WatchFilter.kinds(objects.Task)

    def __init__(
        self, context: LeaderContext, behaviour: Behaviour, seen: list[tuple[float, objects.Task | None, str]]
    ):
        super().__init__(context)
        self.behaviour = behaviour
        self.seen = seen

    def begin(self, view: View) -> None:
        for task in view.all(objects.Task):
            self._plan(task)

    def commit(self, commit: Commit) -> None:
        for event in commit.events:
            self.seen.append((self.monotonic(), event.new, event.object.id))
            if event.new is not None:
                self._plan(event.new)

    def _plan(self, task: objects.Task) -> None:
        delay = self._next(task)
        if delay is not None and task.node_id not in self.behaviour.silent:
            self.after(delay[0], Look(task.id))

    def _next(self, task: objects.Task) -> tuple[float, int] | None:
        state, desired = task.status.state, task.desired_state
        fails = task.spec.container.image in self.behaviour.fail
        if desired > types.COMPLETE:
            live = types.ASSIGNED <= state <= types.RUNNING
            return (self.behaviour.stop, types.SHUTDOWN) if live else None
        if state < types.READY:
            return (0.01, types.READY)
        if state < types.RUNNING and desired >= types.RUNNING:
            early = fails and self.behaviour.fail_after is None
            return (self.behaviour.boot, types.FAILED if early else types.RUNNING)
        if state == types.RUNNING and fails and self.behaviour.fail_after is not None:
            return (self.behaviour.fail_after, types.FAILED)
        if state == types.RUNNING and desired == types.COMPLETE:
            return (self.behaviour.work, types.COMPLETE)
        return None

    @handles(Look)
    def look(self, message: Look) -> None:
        def step(tx: Transaction) -> None:
            task = tx.get(objects.Task, message.task_id)
            move = self._next(task) if task is not None else None
            if task is None or move is None or task.node_id in self.behaviour.silent:
                return
            new = objects.Task()
            new.CopyFrom(task)
            new.status.state = move[1]  # type: ignore[assignment]
            new.status.timestamp.CopyFrom(to_timestamp(tx.now))
            if not new.node_id:
                nodes = [
                    node
                    for node in tx.all(objects.Node)
                    if node.status.state == types.NodeStatus.READY and node.spec.availability == 0
                ]
                new.node_id = min(nodes, key=lambda node: (len(tx.find(objects.Task, "node", node.id)), node.id)).id
            tx.update(new)

        self.write(step)


class OrchestrationBench:
    """``seen``: time, task (None when deleted) and id, of each change of a task."""

    def __init__(self, seed: int = 3, nodes: int = 3, limit: int = 5, slow: float = 0.0) -> None:
        self.simulator = Simulator(seed)
        self.stage = self.simulator.node("n1")
        self.consensus = self.stage.mount("raft", Consensus, slow)
        self.published = Published()
        self.store = self.stage.mount("store", StoreActor, self.consensus, self.published)
        self.store.tell(Leading(2, 8))
        self.simulator.settle()
        self.context = LeaderContext("n1", "cluster", self.store, self.published, None)  # type: ignore[arg-type]
        self.behaviour = Behaviour()
        self.seen: list[tuple[float, objects.Task | None, str]] = []
        self.put(cluster_with(limit), *(node_of_id(f"node{number}") for number in range(nodes)))
        self.stage.mount("agents", Agents, self.context, self.behaviour, self.seen)
        self.replicated = self.stage.mount("replicated", ReplicatedActor, self.context)
        self.stage.mount("task_reaper", TaskReaperActor, self.context)

    def write(self, step: Callable[[Transaction], Any]) -> Any:
        return self.simulator.ask(self.store, Write(step))

    def put(self, *things: Any) -> None:
        self.write(lambda tx: [tx.create(thing) for thing in things] and None)

    def edit(self, kind: type[Any], id: str, edit: Callable[[Any], object]) -> None:
        def step(tx: Transaction) -> None:
            new = kind()
            new.CopyFrom(tx.get(kind, id))
            edit(new)
            tx.update(new)

        self.write(step)

    def update(self, edit: Callable[[Any], object], id: str = "web") -> None:
        """As the control API updates a service: ``edit`` changes its spec."""

        def step(tx: Transaction) -> None:
            service = tx.get(objects.Service, id)
            assert service is not None
            copy = objects.Service()
            copy.CopyFrom(service)
            edit(copy.spec)
            tx.update(updated(service, copy.spec, service.meta.version, tx.now))

        self.write(step)

    def service(self, id: str = "web") -> objects.Service:
        found = self.published.view.get(objects.Service, id)
        assert found is not None
        return found

    def tasks(self, id: str = "web") -> list[objects.Task]:
        return self.published.view.find(objects.Task, "service", id)

    def running(self, image: str | None = None) -> list[objects.Task]:
        return [
            task
            for task in self.tasks()
            if task.status.state == types.RUNNING
            and task.desired_state == types.RUNNING
            and image in (None, task.spec.container.image)
        ]

    def crash(self, path: str) -> None:
        """The actor at a path fails with an exception; one that failed already has to come back first."""
        cell = self.stage.cells[path]
        self.until(lambda: cell.instance is not None)
        assert cell.instance is not None

        def burst(_value: Any) -> None:
            raise RuntimeError("made to fail")

        cell.instance.sink(burst)(None)
        self.simulator.settle()

    def updaters(self) -> list[str]:
        """The paths of the updaters that there are."""
        return [path for path in self.stage.cells if "/updater-" in path]

    def run_for(self, seconds: float) -> None:
        self.simulator.run_for(seconds)

    def until(self, condition: Callable[[], bool], within: float = 60.0) -> float:
        """Runs until the condition holds; the virtual seconds that took."""
        begun = self.simulator.time
        self.simulator.run_until(condition, within)
        return self.simulator.time - begun

    def history(self) -> list[tuple[float, dict[str, objects.Task]]]:
        """All tasks after each change, in order."""
        tasks: dict[str, objects.Task] = {}
        states = []
        for at, task, id in self.seen:
            tasks = {**tasks, id: task} if task is not None else {key: each for key, each in tasks.items() if key != id}
            states.append((at, tasks))
        return states
