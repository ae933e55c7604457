"""Reconciliation of jobs: slots and nodes that are open, under way, complete or given up, iteration by iteration."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.swarm.jobs import needs_restart, reconcile, reconcile_node, restart_or_shut_down
from runtime.swarm.reaper import PlaceKey, reap_place
from runtime.swarm.replicated import Round
from runtime.swarm.restart import RestartSupervisor
from runtime.swarm.service_spec import rolled_back, updated
from runtime.swarm.task_changes import CHANGES_MAX, Desire, apply
from runtime.swarm.task_init import rebuild_history
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.little_store import LittleStore, cluster_with, node_of_id, service_of, task_of

NONE, ON_FAILURE, ANY = types.RestartPolicy.NONE, types.RestartPolicy.ON_FAILURE, types.RestartPolicy.ANY


class Job:
    """A job in a store; ``spent`` are the tasks whose policy would not restart them."""

    def __init__(self, total: int = 3, concurrent: int = 3, *nodes: objects.Node, per_node: bool = False) -> None:
        self.store, service = LittleStore(), service_of()
        self.spent: set[str] = set()
        service.job_status.SetInParent()
        if per_node:
            service.spec.global_job.SetInParent()
        else:
            service.spec.replicated_job.max_concurrent = concurrent
            service.spec.replicated_job.total_completions = total
        self.store.put(service, *nodes)

    def would(self, task: objects.Task) -> bool:
        return task.id not in self.spent

    def settle(self) -> Round:
        def step(tx: Any) -> Round:
            made = reconcile(tx, "web", self.store.new_id, self.would, tx.now)
            apply(tx, made.changes)
            return made

        return self.store.run(step)

    def settle_node(self, node_id: str) -> Round:
        def step(tx: Any) -> Round:
            made = reconcile_node(tx, node_id, self.store.new_id, self.would, tx.now)
            apply(tx, made.changes)
            return made

        return self.store.run(step)

    def alive(self) -> list[int]:
        """The slots that are under way."""
        live = [
            task
            for task in self.store.tasks()
            if task.desired_state <= types.COMPLETE and task.status.state != types.COMPLETE
        ]
        return sorted(task.slot for task in live)

    def on_nodes(self) -> list[str]:
        live = [task for task in self.store.tasks() if task.desired_state <= types.COMPLETE]
        return sorted(task.node_id for task in live if task.status.state != types.COMPLETE)

    def of_slot(self, slot: int) -> objects.Task:
        return max((task for task in self.store.tasks() if task.slot == slot), key=lambda task: task.id)

    def end(self, slot: int, state: types.TaskState = types.COMPLETE) -> objects.Task:
        return self.store.observe(self.of_slot(slot).id, state)

    def desire(self, id: str, state: types.TaskState) -> None:
        self.store.run(lambda tx: apply(tx, [Desire(id, state)]))

    def again(self) -> None:
        """The next iteration, as an update of the service makes it."""
        service = self.store.service()
        self.store.put(updated(service, service.spec, service.meta.version, self.store.now))


def test_slots_are_numbered_from_0_and_tasks_are_to_complete() -> None:
    job = Job()
    job.settle()
    tasks = job.store.tasks()
    assert sorted(task.slot for task in tasks) == [0, 1, 2]
    assert {task.desired_state for task in tasks} == {types.COMPLETE}
    assert all(task.HasField("job_iteration") and task.job_iteration.index == 0 for task in tasks)
    assert job.settle().changes == []


def test_no_more_slots_are_under_way_than_may_be_and_each_completes_once() -> None:
    job = Job(5, 2)
    job.settle()
    assert job.alive() == [0, 1]
    job.end(1)
    job.settle()
    assert job.alive() == [0, 2]
    job.end(0)
    job.end(2)
    job.settle()
    assert job.alive() == [3, 4]
    job.end(3)
    job.settle()
    assert job.alive() == [4]
    job.end(4)
    assert job.settle().changes == []


def test_a_job_that_may_run_nothing_at_once_makes_nothing() -> None:
    job = Job(3, 0)
    assert job.settle().changes == []


def test_less_concurrency_than_runs_makes_nothing_and_breaks_nothing() -> None:
    job = Job(9, 4)
    job.settle()
    job.store.edit(objects.Service, "web", lambda it: setattr(it.spec.replicated_job, "max_concurrent", 2))
    job.end(0)
    assert job.settle().changes == []


def test_a_failed_task_that_waits_for_its_restart_is_under_way() -> None:
    job = Job(2, 1)
    job.settle()
    failed = job.end(0, types.FAILED)
    assert needs_restart(job.store.view, failed)
    assert job.settle().changes == []


def test_a_slot_that_failed_for_good_is_given_up_and_makes_room_for_the_next() -> None:
    job = Job(3, 1)
    job.settle()
    failed = job.end(0, types.FAILED)
    job.spent.add(failed.id)
    job.desire(failed.id, types.SHUTDOWN)
    job.settle()
    assert job.alive() == [1]
    job.end(1)
    job.settle()
    job.end(2)
    assert job.settle().changes == []
    job.again()
    job.settle()
    assert job.alive() == [0]


def test_a_slot_whose_task_was_shut_down_but_not_by_its_policy_is_filled_again() -> None:
    job = Job(1, 1)
    job.settle()
    lost = job.of_slot(0)
    job.desire(lost.id, types.SHUTDOWN)
    job.settle()
    assert [task.id for task in job.store.tasks() if task.desired_state == types.COMPLETE] != [lost.id]
    assert job.alive() == [0]


def test_an_update_runs_everything_anew_and_removes_what_still_runs() -> None:
    job = Job(2, 2)
    job.settle()
    job.end(0)
    still = job.of_slot(1)
    job.again()
    job.settle()
    assert job.store.task(still.id).desired_state == types.REMOVE
    current = [task for task in job.store.tasks() if task.job_iteration.index == 1]
    assert sorted(task.slot for task in current) == [0, 1]
    assert job.settle().changes == []


def test_a_manual_rollback_is_a_new_iteration_and_is_noted_as_completed() -> None:
    job = Job(1, 1)
    job.settle()
    job.again()
    job.settle()
    job.store.put(rolled_back(job.store.service(), job.store.now))
    job.settle()
    assert job.store.service().update_status.state == types.UpdateStatus.ROLLBACK_STARTED
    job.settle()
    status = job.store.service().update_status
    assert (status.state, status.message) == (types.UpdateStatus.ROLLBACK_COMPLETED, "rollback completed")
    assert [task.job_iteration.index for task in job.store.tasks() if task.desired_state == types.COMPLETE] == [2]
    assert job.settle().changes == []


@pytest.mark.parametrize("per_node", [False, True])
def test_large_jobs_are_made_in_rounds(per_node: bool) -> None:
    many = 2 * CHANGES_MAX + 50
    nodes = [node_of_id(f"n{number:04}") for number in range(many)] if per_node else []
    job = Job(1 << 62, many, *nodes, per_node=per_node)
    rounds = 0
    while job.settle().more:
        rounds += 1
    assert rounds == 2
    assert len(job.store.tasks()) == many


# Global jobs


def test_a_global_job_runs_once_on_each_ready_active_node_that_fits() -> None:
    nodes = [
        node_of_id("n1"),
        node_of_id("n2", availability=specs.NodeSpec.PAUSE),
        node_of_id("n3", availability=specs.NodeSpec.DRAIN),
        node_of_id("n4", state=types.NodeStatus.UNKNOWN),
        node_of_id("n5", labels={"no": "yes"}),
    ]
    job = Job(0, 0, *nodes, per_node=True)
    job.store.edit(objects.Service, "web", lambda it: it.spec.task.placement.constraints.append("node.labels.no!=yes"))
    job.settle()
    assert job.on_nodes() == ["n1"]
    assert [task.slot for task in job.store.tasks()] == [0]
    job.end(0)
    assert job.settle().changes == job.settle_node("n1").changes == []


def test_a_node_that_becomes_ready_later_runs_the_present_iteration_once() -> None:
    job = Job(0, 0, node_of_id("n1"), per_node=True)
    job.settle()
    job.store.put(node_of_id("n2", state=types.NodeStatus.UNKNOWN))
    assert job.settle_node("n2").changes == []
    job.store.edit(objects.Node, "n2", lambda node: setattr(node.status, "state", types.NodeStatus.READY))
    job.settle_node("n2")
    assert job.on_nodes() == ["n1", "n2"]
    assert job.settle_node("n2").changes == []


def test_a_drained_node_loses_its_task_of_a_global_job_and_runs_it_when_it_is_back() -> None:
    job = Job(0, 0, node_of_id("n1"), per_node=True)
    job.settle()
    task = job.store.tasks()[0]
    job.store.edit(objects.Node, "n1", lambda node: setattr(node.spec, "availability", specs.NodeSpec.DRAIN))
    job.settle_node("n1")
    assert job.store.task(task.id).desired_state == types.SHUTDOWN
    job.store.edit(objects.Node, "n1", lambda node: setattr(node.spec, "availability", specs.NodeSpec.ACTIVE))
    job.settle_node("n1")
    assert job.on_nodes() == ["n1"]


def test_tasks_on_nodes_that_are_gone_are_shut_down_what_they_completed_stays() -> None:
    job = Job(0, 0, node_of_id("n1"), node_of_id("n2"), per_node=True)
    job.settle()
    done, lost = job.store.tasks()
    job.store.observe(done.id, types.COMPLETE)
    for node in ("n1", "n2"):
        job.store.delete(objects.Node, node)
        job.settle_node(node)
    job.settle()
    assert job.store.task(done.id).desired_state == types.COMPLETE
    assert job.store.task(lost.id).desired_state == types.SHUTDOWN


@pytest.mark.parametrize(
    ("availability", "decision"),
    [(specs.NodeSpec.ACTIVE, True), (specs.NodeSpec.PAUSE, types.SHUTDOWN), (specs.NodeSpec.DRAIN, types.SHUTDOWN)],
)
def test_a_failed_task_of_a_global_job_is_restarted_where_its_node_takes_tasks(
    availability: int, decision: Any
) -> None:
    job = Job(0, 0, node_of_id("n1"), per_node=True)
    job.settle()
    task = job.store.observe(job.store.tasks()[0].id, types.FAILED)
    job.store.edit(objects.Node, "n1", lambda node: setattr(node.spec, "availability", availability))
    wanted = decision if decision is True else Desire(task.id, decision)
    assert restart_or_shut_down(job.store.view, task) == wanted


def test_a_failed_task_of_an_earlier_iteration_is_removed_and_a_completed_one_left_alone() -> None:
    job = Job(2, 2)
    job.settle()
    failed, done = job.end(0, types.FAILED), job.end(1)
    job.again()
    assert restart_or_shut_down(job.store.view, failed) == Desire(failed.id, types.REMOVE)
    assert restart_or_shut_down(job.store.view, done) is False


@pytest.mark.parametrize(("where", "restart"), [("down", True), ("gone", True), ("up", False)])
def test_a_task_of_a_replicated_job_is_run_elsewhere_when_its_node_is_lost(where: str, restart: bool) -> None:
    job = Job(1, 1, node_of_id("n1", state=types.NodeStatus.DOWN), node_of_id("n2"))
    job.settle()
    node = {"down": "n1", "gone": "n0", "up": "n2"}[where]
    task = job.store.edit(objects.Task, job.of_slot(0).id, lambda it: setattr(it, "node_id", node))
    assert needs_restart(job.store.view, task) is restart
    done = job.end(0)
    assert not needs_restart(job.store.view, done)


# Restarts and history


@pytest.mark.parametrize("per_node", [False, True])
@pytest.mark.parametrize(("condition", "attempts", "restarts"), [(NONE, 0, 0), (ON_FAILURE, 2, 2), (ANY, 1, 1)])
def test_attempts_are_limited_in_each_iteration_also_for_global_jobs(
    per_node: bool, condition: types.RestartPolicy.RestartCondition, attempts: int, restarts: int
) -> None:
    job, supervisor = Job(1, 1, node_of_id("n1"), per_node=per_node), RestartSupervisor()
    job.store.edit(objects.Service, "web", lambda it: setattr(it.spec.task.restart, "condition", condition))
    job.store.edit(objects.Service, "web", lambda it: setattr(it.spec.task.restart, "max_attempts", attempts))
    for _iteration in range(2):
        job.settle()
        task = next(each for each in job.store.tasks() if each.desired_state == types.COMPLETE)
        made = 0
        while True:
            failed = job.store.observe(task.id, types.FAILED)
            service, node = job.store.service(), job.store.view.get(objects.Node, "n1")
            plan = supervisor.plan(failed, service, node, None, job.store.now, job.store.new_id())
            assert plan is not None
            job.store.run(lambda tx, plan=plan: apply(tx, plan.changes))
            supervisor.committed(plan, 0.0)
            if plan.new_task is None:
                break
            task, made = plan.new_task, made + 1
            assert task.job_iteration == failed.job_iteration
            supervisor.cancel(task.id)
        assert made == restarts
        job.again()


def test_history_is_rebuilt_from_the_present_iteration_alone() -> None:
    job, service = Job(1, 1), service_of()
    job.store.edit(objects.Service, "web", lambda it: setattr(it.spec.task.restart, "max_attempts", 3))
    for id, iteration in (("a", 0), ("b", 0), ("c", 0), ("d", 1), ("e", 1)):
        task = task_of(service, id, slot=0, state=types.FAILED)
        task.spec.restart.max_attempts = 3
        task.job_iteration.index = iteration
        job.store.put(task)
    supervisor = RestartSupervisor()
    rebuild_history(supervisor, job.store.view, job.store.service())
    assert supervisor._history["web"][0].count == 1


def test_what_the_present_iteration_came_to_is_not_reaped() -> None:
    job = Job(2, 2)
    job.store.put(cluster_with(0))
    for iteration in range(3):
        job.settle()
        job.end(0)
        failed = job.end(1, types.FAILED)
        job.spent.add(failed.id)
        job.desire(failed.id, types.SHUTDOWN)
        job.store.now += 60
        if iteration < 2:
            job.again()
    late = min(job.store.tasks(), key=lambda task: task.id)
    job.store.edit(objects.Task, late.id, lambda task: setattr(task.status.applied_at, "seconds", 2_000_000_000))
    for slot in (0, 1):
        job.store.run(lambda tx, slot=slot: reap_place(tx, PlaceKey("web", slot, "")))
    kept = {(task.slot, task.job_iteration.index) for task in job.store.tasks()}
    assert {(0, 2), (1, 2)} <= kept
    assert len(kept) == 3
    assert job.settle().changes == []


@settings(max_examples=60)
@given(st.data())
def test_whatever_happens_no_slot_has_two_live_tasks_and_none_completes_twice(data: st.DataObject) -> None:
    total, concurrent = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    job = Job(total, concurrent)
    supervisor = RestartSupervisor()
    job.store.edit(objects.Service, "web", lambda it: setattr(it.spec.task.restart, "max_attempts", 2))
    for _ in range(data.draw(st.integers(1, 25))):
        live = [each for each in job.store.tasks() if each.desired_state <= types.COMPLETE]
        open = [each for each in live if each.status.state != types.COMPLETE]
        what = data.draw(st.sampled_from(["settle", "complete", "fail", "again"]))
        if what == "settle":
            job.settle()
        elif what == "again" and data.draw(st.integers(0, 3)) == 0:
            job.again()
        elif open and what in ("complete", "fail"):
            task = data.draw(st.sampled_from(open))
            job.store.observe(task.id, types.COMPLETE if what == "complete" else types.FAILED)
            if what == "fail" and restart_or_shut_down(job.store.view, job.store.task(task.id)) is True:
                failed, service = job.store.task(task.id), job.store.service()
                plan = supervisor.plan(failed, service, None, None, job.store.now, job.store.new_id())
                if plan is not None:
                    job.store.run(lambda tx, plan=plan: apply(tx, plan.changes))
                    supervisor.committed(plan, 0.0)
                    if plan.new_task is None:
                        job.spent.add(failed.id)
                    else:
                        supervisor.cancel(plan.new_task.id)
        iteration = job.store.service().job_status.job_iteration.index
        current = [each for each in job.store.tasks() if each.job_iteration.index == iteration]
        slots = [each.slot for each in current if each.desired_state <= types.COMPLETE]
        assert len(slots) == len(set(slots))
        assert all(slot < total for slot in slots)
        live = [each for each in current if each.desired_state <= types.COMPLETE]
        assert sum(each.status.state != types.COMPLETE for each in live) <= concurrent
