"""What must hold whatever users, nodes and failures do: the leader's parts over a real store, judged at every commit.

The agents here take a task up its ladder and stop it when it is to stop; a node that is down says nothing. Everything
else is real: allocator, scheduler, orchestrators with updaters and restarts, reaper, enforcer.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.allocator_actor import AllocatorActor
from actors.constraint_enforcer_actor import ConstraintEnforcerActor
from actors.global_actor import GlobalActor
from actors.jobs_actor import JobsActor
from actors.replicated_actor import ReplicatedActor
from actors.scheduler_actor import SchedulerActor
from actors.store_watcher import StoreWatcher
from actors.task_reaper_actor import TaskReaperActor
from runtime.protocol.manager import LeaderContext
from runtime.stage import GiveUp, Policy, handles
from runtime.store.events import Commit, WatchFilter
from runtime.store.transaction import Transaction
from runtime.store.view import View
from runtime.swarm.constraints import node_fits
from runtime.swarm.defaults import to_duration
from runtime.swarm.service_spec import created, rolled_back, to_timestamp, updated
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.messages.orchestration_bench import Look
from tests.messages.part_bench import PartBench
from tests.unit.swarm_orchestration.little_store import cluster_with
from tests.unit.swarm_orchestration.placing import CPU, node

EXAMPLES = int(os.environ.get("SWARMLET_EXAMPLES", "15"))
PARTS = {
    "allocator": AllocatorActor,
    "scheduler": SchedulerActor,
    "replicated": ReplicatedActor,
    "global": GlobalActor,
    "jobs": JobsActor,
    "task_reaper": TaskReaperActor,
    "constraint_enforcer": ConstraintEnforcerActor,
}
NODES = ("n0", "n1", "n2")
LIMIT = 3
CPUS = 4


class Agents(StoreWatcher):
    """The agents of all nodes; ``fail`` holds the images whose tasks fail."""

    policy = Policy(give_up=GiveUp.NEVER)
    watched = WatchFilter.kinds(objects.Task, objects.Node)

    def __init__(self, context: LeaderContext, fail: set[str]) -> None:
        super().__init__(context)
        self.fail = fail

    def begin(self, view: View) -> None:
        for task in view.all(objects.Task):
            self._plan(task)

    def commit(self, commit: Commit) -> None:
        for event in commit.events:
            if event.kind is objects.Node:
                self._all_of(event.object.id)
            elif event.new is not None:
                self._plan(event.new)

    def _all_of(self, node_id: str) -> None:
        for task in self.view.find(objects.Task, "node", node_id):
            self._plan(task)

    def _plan(self, task: objects.Task) -> None:
        if _next(task, self.fail) is not None:
            self.after(0.3, Look(task.id))

    @handles(Look)
    def look(self, message: Look) -> None:
        def step(tx: Transaction) -> None:
            task = tx.get(objects.Task, message.task_id)
            state = _next(task, self.fail) if task is not None else None
            where = tx.get(objects.Node, task.node_id) if task is not None else None
            if task is None or state is None or where is None or where.status.state != types.NodeStatus.READY:
                return
            new = objects.Task()
            new.CopyFrom(task)
            new.status.state = state
            new.status.timestamp.CopyFrom(to_timestamp(tx.now))
            tx.update(new)

        self.write(step)


def _next(task: objects.Task, fail: set[str]) -> types.TaskState | None:
    state, desired = task.status.state, task.desired_state
    if not types.ASSIGNED <= state <= types.RUNNING:
        return None
    if desired > types.COMPLETE:
        return types.SHUTDOWN
    if state < types.READY:
        return types.READY
    if state < types.RUNNING and desired >= types.RUNNING:
        return types.FAILED if task.spec.container.image in fail else types.RUNNING
    return types.COMPLETE if state == types.RUNNING and desired == types.COMPLETE else None


class Judge:
    """Looks at every commit and keeps what each task was."""

    def __init__(self) -> None:
        self.tasks: dict[str, objects.Task] = {}

    def see(self, before: View, commit: Commit) -> None:
        for event in commit.events:
            if event.kind is objects.Task:
                self._task(before, commit.view, event.old, event.new)
        self._no_two_in_a_place(commit.view)
        self._nothing_over_committed(commit.view)

    def _task(self, before: View, after: View, old: Any, new: Any) -> None:
        if old is not None and new is not None:
            assert new.status.state >= old.status.state, f"{new.id} went back from {old.status.state}"
            assert new.desired_state >= old.desired_state
        placed = new is not None and new.status.state >= types.ASSIGNED > (old.status.state if old is not None else 0)
        if placed and new.status.state < types.COMPLETE:
            where = after.get(objects.Node, new.node_id)
            assert where is not None, f"{new.id} was placed on a node that is not there"
            assert node_fits(where, new.spec.placement.constraints), f"{new.id} was placed where it does not fit"
            assert where.spec.availability == specs.NodeSpec.ACTIVE

    def _no_two_in_a_place(self, view: View) -> None:
        for service in view.all(objects.Service):
            per_node = service.spec.WhichOneof("mode") in ("global", "global_job")
            start_first = service.spec.update.order == types.UpdateConfig.START_FIRST
            alive = [
                task
                for task in view.find(objects.Task, "service", service.id)
                if task.desired_state <= types.COMPLETE and task.status.state < types.COMPLETE
            ]
            places = Counter(
                (task.node_id if per_node else task.slot, task.job_iteration.index)
                for task in alive
                if not (start_first or task.status.state > types.RUNNING)
            )
            assert all(count == 1 for count in places.values()), f"{service.id}: {places}"

    def _nothing_over_committed(self, view: View) -> None:
        for where in view.all(objects.Node):
            held = [
                task
                for task in view.find(objects.Task, "node", where.id)
                if types.ASSIGNED <= task.status.state <= types.RUNNING
            ]
            assert sum(task.spec.resources.reservations.nano_cpus for task in held) <= CPUS * CPU, where.id


class Cluster(PartBench):
    """All parts, one store; ``act`` does something, ``settle`` puts everything in order and lets it work."""

    def __init__(self, seed: int) -> None:
        self.fail: set[str] = set()
        nodes = [node(id, cpus=CPUS, labels={"even": str(number % 2 == 0)}) for number, id in enumerate(NODES)]
        super().__init__(AllocatorActor, cluster_with(LIMIT), *nodes, seed=seed)
        for name, part in PARTS.items():
            if name != "allocator":
                self.stage.mount(name, part, self.context)
        self.stage.mount("agents", Agents, self.context, self.fail)
        self.judge = Judge()
        self.simulator.settle()
        self.stage.mount("judge", Judging, self.context, self.judge)
        self.number = 0

    def ids(self) -> list[str]:
        return [service.id for service in self.published.view.all(objects.Service)]

    def running(self, id: str) -> int:
        tasks = self.published.view.find(objects.Task, "service", id)
        return sum(task.status.state == types.RUNNING and task.desired_state == types.RUNNING for task in tasks)

    def create(self, spec: specs.ServiceSpec) -> None:
        self.number += 1
        id = f"s{self.number}"
        spec.annotations.name = id
        self.run(lambda tx: tx.create(created(id, spec, tx.now)))

    def update(self, id: str, edit: Any) -> None:
        def step(tx: Transaction) -> None:
            service = tx.get(objects.Service, id)
            assert service is not None
            spec = specs.ServiceSpec()
            spec.CopyFrom(service.spec)
            edit(spec)
            tx.update(updated(service, spec, service.meta.version, tx.now))

        self.run(step)

    def roll_back(self, id: str) -> None:
        def step(tx: Transaction) -> None:
            service = tx.get(objects.Service, id)
            if service is not None and service.HasField("previous_spec"):
                tx.update(rolled_back(service, tx.now))

        self.run(step)

    def crash_part(self, name: str) -> None:
        cell = self.stage.cells["/part" if name == "allocator" else f"/{name}"]
        if cell.instance is not None:
            cell.control(lambda: cell.failed(ValueError("a fault of the test"), None))

    def settle(self) -> None:
        """All nodes are well and nothing fails: whatever is not in order after a while never will be."""
        self.fail.clear()
        for id in NODES:
            if self.published.view.get(objects.Node, id) is None:
                self.put(node(id, cpus=CPUS, labels={"even": "True"}))
            self.edit(objects.Node, id, _well)
        self.simulator.run_for(120)


class Judging(StoreWatcher):
    """Has the judge see each commit."""

    def __init__(self, context: LeaderContext, judge: Judge) -> None:
        super().__init__(context)
        self.judge = judge
        self.before = context.published.view

    def commit(self, commit: Commit) -> None:
        self.judge.see(self.before, commit)
        self.before = commit.view


def _well(it: objects.Node) -> None:
    it.status.state = types.NodeStatus.READY
    it.spec.availability = specs.NodeSpec.ACTIVE


def some_spec(draw: Any) -> specs.ServiceSpec:
    spec = specs.ServiceSpec()
    mode = draw(st.sampled_from(["replicated", "replicated", "global", "replicated_job", "global_job"]))
    getattr(spec, mode).SetInParent()
    spec.replicated.replicas = draw(st.integers(0, 5)) if mode == "replicated" else 0
    if mode != "replicated":
        getattr(spec, mode).SetInParent()
    if mode == "replicated_job":
        spec.replicated_job.total_completions = draw(st.integers(1, 4))
        spec.replicated_job.max_concurrent = draw(st.integers(1, 2))
    spec.task.container.image = draw(st.sampled_from(["a", "b"]))
    spec.task.resources.reservations.nano_cpus = draw(st.sampled_from([0, CPU]))
    if draw(st.booleans()):
        spec.task.placement.constraints.append("node.labels.even == True")
    spec.task.restart.condition = draw(st.sampled_from([types.RestartPolicy.ANY, types.RestartPolicy.NONE]))
    spec.task.restart.delay.CopyFrom(to_duration(draw(st.sampled_from([0.0, 2.0]))))
    spec.task.restart.max_attempts = draw(st.sampled_from([0, 0, 2]))
    spec.update.parallelism = draw(st.integers(0, 2))
    spec.update.monitor.CopyFrom(to_duration(1.0))
    spec.update.failure_action = draw(st.sampled_from([0, 1, 2]))
    return spec


def act(cluster: Cluster, draw: Any) -> None:
    """One thing that a user, a machine or a fault does."""
    what = draw(st.sampled_from(["create", *SERVICE_ACTS, *NODE_EDITS, "delete node", *FAULTS]))
    ids = cluster.ids()
    if what == "create" or (what in SERVICE_ACTS and not ids):
        cluster.create(some_spec(draw))
    elif what in SERVICE_ACTS:
        SERVICE_ACTS[what](cluster, draw(st.sampled_from(ids)), draw)
    elif what in FAULTS:
        FAULTS[what](cluster, draw)
    else:
        where = draw(st.sampled_from(NODES))
        if cluster.published.view.get(objects.Node, where) is None:
            return
        if what == "delete node":
            cluster.remove(objects.Node, where)
        else:
            cluster.edit(objects.Node, where, NODE_EDITS[what])
    cluster.simulator.run_for(draw(st.sampled_from([0.0, 0.02, 0.1, 0.7, 3.0])))


def scale(cluster: Cluster, id: str, draw: Any) -> None:
    if cluster.service(id).spec.HasField("replicated"):
        replicas = draw(st.integers(0, 5))
        cluster.update(id, lambda spec: setattr(spec.replicated, "replicas", replicas))


def image(cluster: Cluster, id: str, draw: Any) -> None:
    name = draw(st.sampled_from("abc"))
    cluster.update(id, lambda spec: setattr(spec.task.container, "image", name))


def fail_image(cluster: Cluster, draw: Any) -> None:
    cluster.fail.symmetric_difference_update({draw(st.sampled_from("abc"))})


def fail_task(cluster: Cluster, draw: Any) -> None:
    tasks = [task for task in cluster.published.view.all(objects.Task) if task.status.state == types.RUNNING]
    if tasks:
        victim = draw(st.sampled_from(tasks))
        cluster.edit(objects.Task, victim.id, lambda it: setattr(it.status, "state", types.FAILED))


SERVICE_ACTS: dict[str, Any] = {
    "scale": scale,
    "image": image,
    "force": lambda cluster, id, draw: cluster.update(
        id, lambda spec: setattr(spec.task, "force_update", spec.task.force_update + 1)
    ),
    "rollback": lambda cluster, id, draw: cluster.roll_back(id),
    "remove": lambda cluster, id, draw: cluster.remove(objects.Service, id),
}
FAULTS: dict[str, Any] = {
    "fail image": fail_image,
    "fail task": fail_task,
    "crash": lambda cluster, draw: cluster.crash_part(draw(st.sampled_from(sorted(PARTS)))),
}
NODE_EDITS = {
    "drain": lambda it: setattr(it.spec, "availability", specs.NodeSpec.DRAIN),
    "pause": lambda it: setattr(it.spec, "availability", specs.NodeSpec.PAUSE),
    "down": lambda it: setattr(it.status, "state", types.NodeStatus.DOWN),
    "up": _well,
    "label": lambda it: it.spec.annotations.labels.update(
        even="False" if it.spec.annotations.labels["even"] == "True" else "True"
    ),
}


def check_settled(cluster: Cluster) -> None:
    view = cluster.published.view
    services = {service.id: service for service in view.all(objects.Service)}
    for task in view.all(objects.Task):
        assert task.service_id in services, f"{task.id} of a removed service is still there: {task.status.state}"
    for service in services.values():
        tasks = view.find(objects.Task, "service", service.id)
        kept = max(LIMIT, service.spec.task.restart.max_attempts + 1)
        per_node = service.spec.WhichOneof("mode") in ("global", "global_job")
        histories = Counter(task.node_id if per_node else task.slot for task in tasks)
        assert all(count <= kept + 1 for count in histories.values()), f"{service.id}: {histories}"
        _check_complete(view, service, tasks)


def _check_complete(view: View, service: objects.Service, tasks: list[objects.Task]) -> None:
    """Nobody waits in vain: what does not run has a reason that the scheduler names, or gave up by its policy."""
    waiting = [task for task in tasks if task.desired_state <= types.COMPLETE and task.status.state < types.RUNNING]
    for task in waiting:
        assert task.status.state == types.PENDING, f"{task.id} is stuck in {task.status.state}"
        assert task.status.err.startswith("no suitable node"), task.status.err
    policy = service.spec.task.restart
    replaces = policy.condition == types.RestartPolicy.ANY and not policy.max_attempts
    if service.spec.WhichOneof("mode") == "replicated" and replaces:
        alive = {task.slot for task in tasks if task.desired_state <= types.RUNNING}
        assert len(alive) == service.spec.replicated.replicas


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data(), st.integers(0, 1000))
def test_whatever_happens_the_cluster_keeps_its_promises_and_comes_to_rest(data: st.DataObject, seed: int) -> None:
    cluster = Cluster(seed)
    for _ in range(data.draw(st.integers(3, 20))):
        act(cluster, data.draw)
    cluster.settle()
    judge = cluster.stage.cells["/judge"]
    assert judge.instance is not None
    assert not [report for report in cluster.stage.observations.crashes if report.path == "/judge"]
    check_settled(cluster)
