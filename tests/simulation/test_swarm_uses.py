"""What people ask of a simulated swarm besides services that run: that it is asked, and what would be noticed."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import pytest

from runtime.store.changes import Action
from runtime.swarm.labels import LOST_AFTER, REMOVE_AFTER, SCHEDULE, START_AFTER
from runtime.wire.pb import objects_pb2
from runtime.wire.pb import types_pb2 as types
from tests.simulation.plan import Planned
from tests.simulation.raft_invariants import Violation
from tests.simulation.swarm_invariants import Model
from tests.simulation.swarm_plan import KINDS, USED, USES, uses
from tests.simulation.swarm_run import SwarmSimulation
from tests.simulation.swarm_uses import BAD, GOOD

CREATE, UPDATE, REMOVE = Action.CREATE, Action.UPDATE, Action.REMOVE


class Store:
    """A reference model that is told objects, each as it is now. ``time`` is when."""

    def __init__(self) -> None:
        self.model = Model()
        self.time = 0.0

    def put(self, field: str, new: Any) -> None:
        known = new.id in self.model.tables[field]
        self.model._change(field, UPDATE if known else CREATE, new, self.time)

    def remove(self, field: str, id: str) -> None:
        self.model._change(field, REMOVE, self.model.tables[field][id], self.time)

    def service(self, id: str, labels: dict[str, str] | None = None, iteration: int = 0, **job: int) -> Any:
        made = objects_pb2.Service(id=id)
        made.spec.annotations.name = f"name-of-{id}"
        made.spec.annotations.labels.update(labels or {})
        if job:
            made.spec.replicated_job.total_completions = job["total"]
            made.spec.replicated_job.max_concurrent = job["most"]
            made.job_status.job_iteration.index = iteration
        self.put("service", made)
        return made

    def task(self, id: str, service: str, state: int, **fields: Any) -> None:
        made = objects_pb2.Task(id=id, service_id=service, slot=fields.get("slot", 1), node_id=fields.get("node", ""))
        made.status.state = types.TaskState.ValueType(state)
        made.desired_state = types.TaskState.ValueType(fields.get("desired", types.COMPLETE))
        made.job_iteration.index = fields.get("iteration", 0)
        made.spec_version.index = fields.get("version", 0)
        self.put("task", made)

    def node(self, state: int, role: int = types.WORKER, **labels: str) -> None:
        made = objects_pb2.Node(id="n")
        made.role = made.spec.desired_role = types.NodeRole.ValueType(role)
        made.status.state = types.NodeStatus.State.ValueType(state)
        made.spec.annotations.labels.update(labels)
        self.put("node", made)


# The rules by themselves


def test_no_more_tasks_of_a_job_may_be_under_way_than_were_asked_for() -> None:
    store = Store()
    store.service("j", total=5, most=2)
    store.task("a", "j", types.RUNNING, slot=0)
    store.task("b", "j", types.NEW, slot=1)
    store.task("b", "j", types.COMPLETE, slot=1)
    store.task("c", "j", types.NEW, slot=2)
    store.task("old", "j", types.RUNNING, slot=4, iteration=7)
    with pytest.raises(Violation, match="at most 2"):
        store.task("d", "j", types.NEW, slot=3)


def test_a_slot_of_a_job_has_one_task_under_way() -> None:
    store = Store()
    store.service("j", total=5, most=3)
    store.task("a", "j", types.RUNNING, slot=0)
    store.task("a", "j", types.RUNNING, slot=0, desired=types.SHUTDOWN)
    store.task("b", "j", types.NEW, slot=0)
    with pytest.raises(Violation, match="one in each"):
        store.task("c", "j", types.NEW, slot=0)


def test_a_run_by_the_clock_waits_for_the_one_before_but_not_for_what_never_ran() -> None:
    store = Store()
    labels = {SCHEDULE: "@every 10s"}
    store.service("j", labels, total=1, most=1)
    store.task("waits", "j", types.PENDING)
    store.service("j", labels, iteration=1, total=1, most=1)
    store.task("one", "j", types.RUNNING, iteration=1)
    store.task("one", "j", types.COMPLETE, iteration=1)
    store.service("j", labels, iteration=2, total=1, most=1)
    store.task("two", "j", types.RUNNING, iteration=2)
    with pytest.raises(Violation, match=r"of which \['two'\] still go"):
        store.service("j", labels, iteration=3, total=1, most=1)


def test_a_service_may_not_start_before_what_it_starts_after_has_run() -> None:
    store = Store()
    store.node(types.NodeStatus.READY)
    store.service("first")
    store.service("second", {START_AFTER: "name-of-first"})
    store.task("f", "first", types.PENDING)
    store.task("s", "second", types.PENDING)
    with pytest.raises(Violation, match="starts before name-of-first ran"):
        store.task("s", "second", types.ASSIGNED, node="n")


def test_a_service_starts_after_another_and_waits_no_more_once_it_has() -> None:
    store = Store()
    store.node(types.NodeStatus.READY)
    store.service("first")
    store.service("second", {START_AFTER: "name-of-first"})
    store.task("f", "first", types.ASSIGNED, node="n")
    store.task("f", "first", types.RUNNING, node="n")
    store.task("s", "second", types.ASSIGNED, node="n")
    store.remove("service", "first")
    store.task("s2", "second", types.ASSIGNED, node="n", slot=2)
    assert store.model.rules.seen["ordered starts"] == 1


def test_what_a_service_uses_may_not_be_removed() -> None:
    store = Store()
    for id in ("used", "free"):
        store.put("secret", objects_pb2.Secret(id=id))
        store.put("config", objects_pb2.Config(id=id))
    service = store.service("s")
    service.spec.task.container.secrets.add(secret_id="used")
    service.spec.task.container.configs.add(config_id="used")
    store.put("service", service)
    for field in ("secret", "config"):
        store.remove(field, "free")
        with pytest.raises(Violation, match=f"{field} used is removed, and service s uses it"):
            store.remove(field, "used")


def test_a_node_with_patience_is_out_of_touch_before_it_is_down() -> None:
    store = Store()
    labels = {LOST_AFTER: "1m"}
    store.node(types.NodeStatus.READY, **labels)
    store.time = 20.0
    store.node(types.NodeStatus.DISCONNECTED, **labels)
    store.node(types.NodeStatus.DOWN, **labels)
    store.node(types.NodeStatus.UNKNOWN, **labels)
    with pytest.raises(Violation, match="is down at once"):
        store.node(types.NodeStatus.DOWN, **labels)


@pytest.mark.parametrize("labels", [{}, {LOST_AFTER: "0s"}])
def test_a_node_without_patience_is_down_at_once(labels: dict[str, str]) -> None:
    store = Store()
    store.node(types.NodeStatus.READY, **labels)
    store.time = 20.0
    store.node(types.NodeStatus.DOWN, **labels)


@pytest.mark.parametrize(
    ("state", "role", "labels"),
    [
        (types.NodeStatus.DOWN, types.WORKER, {}),
        (types.NodeStatus.READY, types.WORKER, {REMOVE_AFTER: "5s"}),
        (types.NodeStatus.DOWN, types.MANAGER, {REMOVE_AFTER: "5s"}),
    ],
)
def test_nobody_is_removed_but_workers_that_are_down_and_may_be(state: int, role: int, labels: dict[str, str]) -> None:
    store = Store()
    store.node(state, role, **labels)
    with pytest.raises(Violation, match="nobody asked for it"):
        store.remove("node", "n")


def test_a_worker_that_is_down_may_be_removed_and_so_may_whom_somebody_removes() -> None:
    store = Store()
    store.node(types.NodeStatus.DOWN, **{REMOVE_AFTER: "5s"})
    store.remove("node", "n")
    store.node(types.NodeStatus.READY, types.MANAGER)
    store.model.rules.forgotten.add("n")
    store.remove("node", "n")


def test_with_start_first_each_version_has_one_live_task_in_a_slot() -> None:
    store = Store()
    service = store.service("s")
    service.spec.update.order = types.UpdateConfig.START_FIRST
    store.put("service", service)
    for version in range(3):
        store.task(f"v{version}", "s", types.RUNNING, desired=types.RUNNING, version=version)
    with pytest.raises(Violation, match="4 live tasks in slot 1"):
        store.task("again", "s", types.NEW, desired=types.RUNNING, version=2)


def test_the_present_unlock_key_is_the_last_and_others_are_kept_for_who_stands_under_them() -> None:
    store, cluster = Store(), objects_pb2.Cluster(id="c")
    for key in (b"one", b"two", b"", b"one"):
        del cluster.unlock_keys[:]
        cluster.unlock_keys.add(subsystem="another", key=b"other")
        if key:
            cluster.unlock_keys.add(subsystem="swarm-manager", key=key)
        store.put("cluster", cluster)
    assert store.model.unlock_keys == [b"two", b"one"]


# What must hold at rest


def at_rest(*services: objects_pb2.Service, tasks: tuple[objects_pb2.Task, ...] = ()) -> tuple[SwarmSimulation, Any]:
    tables: dict[str, dict[str, Any]] = defaultdict(dict)
    tables["service"] = {each.id: each for each in services}
    tables["task"] = {each.id: each for each in tasks}
    tables["node"] = {"n": objects_pb2.Node(id="n")}
    simulation = SwarmSimulation(1, [])
    simulation.scaled = [each.id for each in services if each.spec.HasField("replicated")]
    return simulation, tables


def web(state: int | None = None) -> objects_pb2.Service:
    made = objects_pb2.Service(id="web")
    made.spec.annotations.name = "web"
    made.spec.replicated.replicas = 1
    made.spec.task.container.command[:] = GOOD
    if state is not None:
        made.update_status.state = types.UpdateStatus.UpdateState.ValueType(state)
    return made


@pytest.mark.parametrize(
    ("state", "fine"),
    [
        (None, True),
        (types.UpdateStatus.COMPLETED, True),
        (types.UpdateStatus.ROLLBACK_COMPLETED, True),
        (types.UpdateStatus.UPDATING, False),
        (types.UpdateStatus.PAUSED, False),
        (types.UpdateStatus.ROLLBACK_STARTED, False),
        (types.UpdateStatus.ROLLBACK_PAUSED, False),
    ],
)
def test_no_update_may_go_on_at_rest(state: int | None, fine: bool) -> None:
    simulation, tables = at_rest(web(state))
    assert (simulation.unmet(tables) == "") is fine


def test_at_rest_what_runs_is_what_the_service_asks_for() -> None:
    old = objects_pb2.Task(id="t", service_id="web", desired_state=types.RUNNING)
    old.status.state = types.RUNNING
    old.spec.container.command[:] = BAD
    simulation, tables = at_rest(web(), tasks=(old,))
    assert simulation.unmet(tables) == "task t of web is not up to date"
    old.spec.container.command[:] = GOOD
    assert simulation.unmet(tables) == ""


def test_at_rest_jobs_are_complete_in_their_present_iteration() -> None:
    here, everywhere = objects_pb2.Service(id="here"), objects_pb2.Service(id="everywhere")
    here.spec.annotations.name, everywhere.spec.annotations.name = "job-here", "job-everywhere"
    here.spec.replicated_job.total_completions = 2
    everywhere.spec.global_job.SetInParent()
    for each in (here, everywhere):
        each.job_status.job_iteration.index = 1

    def done(id: str, service: str, slot: int, iteration: int) -> objects_pb2.Task:
        made = objects_pb2.Task(id=id, service_id=service, slot=slot, node_id="n")
        made.job_iteration.index, made.status.state = iteration, types.COMPLETE
        return made

    given = (done("a", "here", 0, 1), done("b", "here", 1, 0), done("c", "everywhere", 0, 1))
    simulation, tables = at_rest(here, everywhere, tasks=given)
    assert simulation.unmet(tables) == "job-here is not complete: [1] of iteration 1"
    tables["task"]["b"].job_iteration.index = 1
    assert simulation.unmet(tables) == ""
    tables["node"]["m"] = objects_pb2.Node(id="m")
    assert simulation.unmet(tables) == "job-everywhere is not complete: ['m'] of iteration 1"


def test_a_task_that_starts_with_other_secrets_than_were_made_is_noticed() -> None:
    simulation, tables = at_rest()
    simulation.payloads = {"s": b"right", "c": b"right"}
    task = objects_pb2.Task(id="t")
    task.spec.container.secrets.add(secret_id="s")
    task.spec.container.configs.add(config_id="c")

    class Given:
        """What a node was given."""

        secret = staticmethod({"s": b"right"}.__getitem__)
        config = staticmethod({"c": b"wrong"}.__getitem__)

    simulation._compare_payloads(simulation.first, task, Given)
    assert simulation.wrong == ["task t starts on manager-1 with another c"]
    Given.config = staticmethod({}.__getitem__)  # type: ignore[assignment]
    simulation._compare_payloads(simulation.first, task, Given)
    assert simulation.wrong[1:] == ["task t starts on manager-1 without c: 'c'"]
    with pytest.raises(Violation, match="with another c"):
        simulation.unmet(tables)


# Whole runs


def test_uses_are_drawn_apart_from_faults_and_each_as_often_as_is_said() -> None:
    drawn = [{each.kind for each in uses(seed, 30.0)} for seed in range(400)]
    for name in USES:
        assert 0.7 * USED < sum(name in each for each in drawn) / 400 < 1.3 * USED
    assert not set(USES) & set(KINDS)
    numbers = [each.number for each in uses(4, 30.0)]
    assert len(numbers) == len(set(numbers))


def all_uses(seed: int) -> list[Planned]:
    """One of each, in time for it to come true; who is promoted is not removed, so that comes last."""
    planned = []
    for number, (name, kind) in enumerate(USES.items()):
        at, dice = 45.0 if name == "promotions" else 1.0 + number, random.Random(f"{seed}/{number}")
        planned.append(Planned(number, at, name, max(kind.lasting), kind.args(dice)))
    return planned


def test_everything_is_asked_in_one_run_and_comes_true() -> None:
    simulation = SwarmSimulation(219, all_uses(219)).run()
    assert set(simulation.injected) == set(USES)
    seen = simulation.watcher.model.rules.seen
    assert {"changes of jobs", "runs by the clock", "ordered starts", "removals of secrets"} <= set(seen)
    assert {"nodes out of touch", "nodes removed"} <= set(seen)
    assert simulation.payloads
    assert not simulation.wrong
    assert simulation.watcher.model.unlock_keys
