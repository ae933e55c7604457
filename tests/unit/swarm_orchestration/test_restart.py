"""The restart supervisor: conditions, attempts, windows, delays, and starts that wait for an old task."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.swarm.restart import OLD_TASK_TIMEOUT_S, RestartPlan, RestartSupervisor, has_stopped
from runtime.swarm.task_changes import Create, Desire, Start, apply
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.little_store import NOW, LittleStore, node_of_id, service_of, task_of

ANY, ON_FAILURE, NONE = types.RestartPolicy.ANY, types.RestartPolicy.ON_FAILURE, types.RestartPolicy.NONE


class Case:
    """One failed task ``t`` on node ``n1``, its supervisor, and a clock for delays beside that of the day."""

    def __init__(self, state: int = types.FAILED, node: objects.Node | None = None, **policy: Any) -> None:
        self.store = LittleStore()
        self.service = service_of(**policy)
        self.store.put(self.service, node or node_of_id("n1"))
        self.store.put(task_of(self.service, "t", state=state, node="n1"))
        self.supervisor = RestartSupervisor()
        self.clock = 100.0

    def plan(self, id: str = "t", new: str = "new") -> RestartPlan | None:
        task = self.store.task(id)
        node = self.store.view.get(objects.Node, task.node_id) if task.node_id else None
        return self.supervisor.plan(task, self.store.service(), node, None, self.store.now, new)

    def restart(self, id: str = "t", new: str = "new") -> RestartPlan:
        plan = self.plan(id, new)
        assert plan is not None
        self.store.run(lambda tx: apply(tx, plan.changes))
        self.supervisor.committed(plan, self.clock)
        return plan

    def fire(self, after: float = 0.0) -> list[str]:
        self.clock += after
        starts = self.supervisor.fire(self.store.view, self.clock)
        self.store.run(lambda tx: apply(tx, starts))
        return [start.task_id for start in starts]


@pytest.mark.parametrize(
    ("condition", "state", "comes_back"),
    [
        (ANY, types.FAILED, True),
        (ANY, types.COMPLETE, True),
        (ANY, types.REJECTED, True),
        (ON_FAILURE, types.FAILED, True),
        (ON_FAILURE, types.COMPLETE, False),
        (NONE, types.FAILED, False),
        (NONE, types.COMPLETE, False),
    ],
)
def test_the_condition_says_what_comes_back(condition: int, state: int, comes_back: bool) -> None:
    plan = Case(state, condition=condition).plan()
    assert plan is not None
    assert plan.changes[0] == Desire("t", types.SHUTDOWN)
    assert (plan.new_task is not None) is comes_back


def test_a_policy_that_says_nothing_restarts_after_five_seconds() -> None:
    plan = Case().plan()
    assert plan is not None
    assert plan.new_task is not None
    assert plan.delay == 5.0


def test_a_job_that_completed_is_not_run_again() -> None:
    case = Case(types.COMPLETE)
    case.store.edit(objects.Task, "t", lambda task: task.job_iteration.SetInParent())
    plan = case.plan()
    assert plan is not None
    assert plan.new_task is None


def test_the_replacement_is_of_the_present_spec_in_the_same_slot_and_held() -> None:
    case = Case()
    case.store.edit(objects.Service, "web", lambda service: setattr(service.spec.task.container, "image", "two"))
    plan = case.plan()
    assert plan is not None
    new = plan.new_task
    assert new is not None
    assert plan.changes == (Desire("t", types.SHUTDOWN), Create(new))
    assert (new.slot, new.node_id, new.desired_state) == (1, "", types.READY)
    assert new.spec.container.image == "two"


def test_the_replacement_of_a_global_task_stays_on_its_node() -> None:
    case = Case()
    case.store.edit(objects.Service, "web", lambda service: getattr(service.spec, "global").SetInParent())
    plan = case.plan()
    assert plan is not None
    assert plan.new_task is not None
    assert (plan.new_task.node_id, plan.place) == ("n1", "n1")


def test_a_task_that_is_shut_down_already_is_not_restarted() -> None:
    case = Case()
    case.restart()
    assert case.plan() is None


def test_planning_twice_changes_nothing() -> None:
    case = Case(attempts=1)
    first, second = case.plan(), case.plan()
    assert first is not None
    assert second is not None
    assert first.changes == second.changes
    assert case.supervisor.next_at() is None


def test_attempts_run_out_and_a_new_version_begins_anew() -> None:
    case = Case(attempts=2, delay=0.0)
    id = "t"
    for number in range(2):
        case.restart(id, f"new{number}")
        id = f"new{number}"
        case.fire()
        case.store.observe(id, types.FAILED)
    plan = case.plan(id)
    assert plan is not None
    assert plan.new_task is None
    case.store.edit(objects.Task, id, lambda task: setattr(task.spec_version, "index", 2))
    plan = case.plan(id)
    assert plan is not None
    assert plan.new_task is not None


def test_slots_count_their_attempts_apart() -> None:
    case = Case(attempts=1)
    case.restart()
    case.store.put(task_of(case.service, "other", slot=2, state=types.FAILED))
    plan = case.plan("other")
    assert plan is not None
    assert plan.new_task is not None


def test_a_window_counts_only_what_is_strictly_inside() -> None:
    service = service_of(attempts=2, window=10.0)
    supervisor = RestartSupervisor()
    for at in (NOW, NOW + 5):
        supervisor.record(task_of(service, "x"), 1, at)

    def again(at: float) -> bool:
        return supervisor.should_restart(task_of(service, "y", state=types.FAILED, at=at), service, NOW)

    assert not again(NOW + 9.0)
    assert again(NOW + 10.0), "the first is on the edge of the window"
    assert again(NOW + 5.0), "so is the second"
    assert not again(NOW + 5.5)


def test_a_window_keeps_no_more_stamps_than_attempts() -> None:
    service = service_of(attempts=3, window=1e6)
    supervisor = RestartSupervisor()
    for number in range(500):
        supervisor.record(task_of(service, "x"), 1, NOW + number)
    history = supervisor._history["web"][1]
    assert len(history.stamps) == 3


def test_without_a_limit_nothing_is_remembered() -> None:
    supervisor = RestartSupervisor()
    supervisor.record(task_of(service_of(), "x"), 1, NOW)
    assert supervisor._history == {}


def test_a_forgotten_service_begins_anew() -> None:
    case = Case(attempts=1)
    case.restart()
    case.supervisor.forget("web")
    case.store.put(task_of(case.service, "again", state=types.FAILED))
    plan = case.plan("again")
    assert plan is not None
    assert plan.new_task is not None


def test_the_start_comes_when_the_delay_is_over_and_not_before() -> None:
    case = Case(delay=7.0)
    case.restart()
    assert case.supervisor.next_at() == 107.0
    assert case.fire(6.9) == []
    assert case.fire(0.1) == ["new"]
    assert case.store.task("new").desired_state == types.RUNNING
    assert case.supervisor.next_at() is None


def test_a_drained_node_is_left_without_delay_but_the_old_task_is_waited_for() -> None:
    case = Case(types.RUNNING, node_of_id("n1", availability=specs.NodeSpec.DRAIN), delay=50.0)
    plan = case.restart()
    assert (plan.delay, plan.wait_for_old) == (0.0, True)
    assert case.fire() == []
    case.store.observe("t", types.SHUTDOWN)
    case.supervisor.task_changed("t", case.clock + 2)
    assert case.fire(2.0) == ["new"]


def test_a_task_on_a_node_that_is_down_is_not_waited_for() -> None:
    plan = Case(types.RUNNING, node_of_id("n1", state=types.NodeStatus.DOWN)).plan()
    assert plan is not None
    assert not plan.wait_for_old


@pytest.mark.parametrize("how", ["down", "deleted"])
def test_waiting_ends_when_the_old_tasks_node_is_lost(how: str) -> None:
    case = Case(types.RUNNING, node_of_id("n1", availability=specs.NodeSpec.DRAIN))
    case.restart()
    assert case.fire(1.0) == []
    if how == "deleted":
        case.store.delete(objects.Node, "n1")
    else:
        case.store.edit(objects.Node, "n1", lambda node: setattr(node.status, "state", types.NodeStatus.DOWN))
    case.supervisor.node_changed("n1", case.clock)
    assert case.fire() == ["new"]


def test_waiting_ends_after_a_minute_from_its_beginning() -> None:
    case = Case(types.RUNNING, node_of_id("n1", availability=specs.NodeSpec.DRAIN))
    case.restart()
    assert case.fire(1.0) == []
    assert case.supervisor.next_at() == 100.0 + OLD_TASK_TIMEOUT_S
    assert case.fire(OLD_TASK_TIMEOUT_S - 1.1) == []
    assert case.fire(0.1) == ["new"]


def test_an_old_task_that_stops_during_the_delay_does_not_shorten_it() -> None:
    case = Case(delay=7.0)
    case.supervisor.delay_start("new", case.clock, 7.0, case.store.task("t"))
    case.supervisor.task_changed("t", case.clock + 1)
    assert case.fire(1.0) == []
    assert case.fire(6.0) == ["new"]


def test_a_newer_delay_takes_the_place_of_the_older_one() -> None:
    case = Case()
    case.supervisor.delay_start("new", case.clock, 5.0, case.store.task("t"))
    case.supervisor.delay_start("new", case.clock, 1.0)
    assert case.supervisor.next_at() == 101.0
    assert case.fire(1.0) == ["new"]
    assert case.fire(10.0) == []


def test_a_cancelled_start_never_comes_and_leaves_nothing_behind() -> None:
    case = Case()
    case.supervisor.delay_start("new", case.clock, 5.0, case.store.task("t"))
    case.supervisor.cancel("new")
    case.supervisor.cancel("new")
    assert case.supervisor.next_at() is None
    assert (case.supervisor._by_old, case.supervisor._by_node, case.supervisor._delayed) == ({}, {}, {})
    assert case.fire(10.0) == []


def test_a_replacement_that_ends_before_its_start_is_restarted_after_it() -> None:
    case = Case(delay=5.0)
    case.restart()
    case.store.observe("new", types.REJECTED)
    assert case.plan("new") is None
    assert case.supervisor.is_delayed("new")
    assert case.fire(5.0) == ["new"]
    assert case.plan("new", "newer") is not None


def test_a_start_of_a_task_that_moved_on_is_left_out() -> None:
    case = Case(delay=1.0)
    case.restart()
    case.store.edit(objects.Task, "new", lambda task: setattr(task, "desired_state", types.REMOVE))
    assert case.store.run(lambda tx: apply(tx, [Start("new"), Start("nobody")])) == 0
    assert case.store.task("new").desired_state == types.REMOVE


def test_a_job_task_is_started_to_completion() -> None:
    case = Case()
    held = task_of(case.service, "job", state=types.READY, desired=types.READY)
    held.job_iteration.SetInParent()
    case.store.put(held)
    case.store.run(lambda tx: apply(tx, [Start("job")]))
    assert case.store.task("job").desired_state == types.COMPLETE


@pytest.mark.parametrize(
    ("state", "node", "stopped"),
    [
        (types.RUNNING, "n1", False),
        (types.ASSIGNED, "n1", False),
        (types.RUNNING, "n2", True),
        (types.PENDING, "", True),
        (types.SHUTDOWN, "n1", True),
    ],
)
def test_what_has_stopped(state: int, node: str, stopped: bool) -> None:
    case = Case()
    case.store.put(task_of(case.service, "x", state=state, node=node))
    assert has_stopped(case.store.view, "x") is stopped
    assert has_stopped(case.store.view, "nobody")
