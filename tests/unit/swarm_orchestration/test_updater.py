"""The updater's decisions and steps, without actors: who goes when, what fails, what the status says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.swarm import update_steps
from runtime.swarm.defaults import to_duration
from runtime.swarm.task_changes import Desire, Start, apply
from runtime.swarm.task_model import wanted
from runtime.swarm.update_steps import STALE, Basis, Replaced
from runtime.swarm.updater import (
    Begin,
    Complete,
    Order,
    Pause,
    Phase,
    Replace,
    RollBack,
    ShutDownOthers,
    Updater,
    config_of,
    needs_update,
)
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.little_store import LittleStore, node_of_id, service_of, task_of

Config, Status = types.UpdateConfig, types.UpdateStatus


def never(task: objects.Task) -> bool:
    return False


class Update:
    """A service of old tasks with a new spec, and an updater whose orders are carried out at once."""

    def __init__(self, replicas: int = 3, **config: Any) -> None:
        self.store = LittleStore()
        self.now = 0.0
        service = service_of(replicas=replicas)
        made = service.spec.update
        made.parallelism = config.pop("parallelism", 1)
        for name in ("delay", "monitor"):
            if name in config:
                getattr(made, name).CopyFrom(to_duration(config.pop(name)))
        for name, value in config.items():
            setattr(made, name, value)
        old = [task_of(service, f"old{slot}", slot=slot, node="n1") for slot in range(1, replicas + 1)]
        self.store.put(service, node_of_id("n1"), *old)
        self.change("two")
        self.updater = self.fresh()

    def change(self, image: str) -> None:
        def edit(service: objects.Service) -> None:
            service.previous_spec.CopyFrom(service.spec)
            service.previous_spec_version.CopyFrom(service.spec_version)
            service.spec.task.container.image = image
            service.spec_version.index += 1
            service.ClearField("update_status")

        self.store.edit(objects.Service, "web", edit)

    def fresh(self) -> Updater:
        return Updater(self.store.view, self.store.service(), never, self.now, self.store.now)

    def go(self, after: float = 0.0) -> list[Order]:
        """The orders that are due, carried out."""
        self.now += after
        self.store.now += after
        orders = self.updater.take(self.now)
        for order in orders:
            self.carry_out(order)
        return orders

    def carry_out(self, order: Order) -> Any:
        basis, store = self.updater.basis, self.store
        match order:
            case Begin():
                return store.run(lambda tx: update_steps.begin(tx, basis))
            case ShutDownOthers(place, keep):
                return store.run(lambda tx: update_steps.shut_down_others(tx, basis, place, keep))
            case Pause(task_id):
                return store.run(lambda tx: update_steps.pause(tx, basis, task_id))
            case RollBack(task_id):
                return store.run(lambda tx: update_steps.roll_back(tx, basis, task_id))
            case Complete():
                return store.run(lambda tx: update_steps.complete(tx, basis))
            case Replace(place):
                outcome = self.replace(place)
                assert isinstance(outcome, Replaced)
                self.updater.replaced(place, outcome)
                if outcome.task_id is not None:
                    self.updater.task_changed(store.task(outcome.task_id), self.now)
                return outcome

    def replace(self, place: Any) -> Any:
        basis, order, id = self.updater.basis, self.updater.order, self.store.new_id()
        return self.store.run(lambda tx: update_steps.replace(tx, basis, place, order, id, never))

    def state(self, id: str, state: types.TaskState) -> None:
        self.updater.task_changed(self.store.observe(id, state), self.now)

    def start(self, id: str) -> None:
        self.store.run(lambda tx: apply(tx, [Start(id)]))

    def new(self) -> list[objects.Task]:
        return [task for task in self.store.tasks() if task.spec.container.image == "two"]

    def status(self) -> types.UpdateStatus:
        return self.store.service().update_status


def test_the_first_orders_begin_the_update_and_take_as_many_places_as_run_in_parallel() -> None:
    update = Update(4, parallelism=2)
    assert update.go() == [Begin(), Replace(1), Replace(2)]
    assert update.go() == []
    assert update.status().state == Status.UPDATING
    assert update.status().message == "update in progress"


def test_a_place_is_free_when_its_task_came_up_and_the_delay_is_over() -> None:
    update = Update(2, delay=4.0)
    update.go()
    new = update.new()[0].id
    update.state(new, types.STARTING)
    assert update.updater.next_at() is None
    update.state(new, types.RUNNING)
    assert update.updater.next_at() == 4.0
    assert update.go(3.9) == []
    assert update.go(0.1) == [Replace(2)]


def test_stop_first_shuts_down_the_old_and_holds_the_new() -> None:
    update = Update(1)
    update.go()
    assert update.store.task("old1").desired_state == types.SHUTDOWN
    assert [task.desired_state for task in update.new()] == [types.READY]


def test_start_first_starts_the_new_and_shuts_down_the_old_when_that_runs() -> None:
    update = Update(1, order=Config.START_FIRST)
    update.go()
    new = update.new()[0]
    assert (new.desired_state, update.store.task("old1").desired_state) == (types.RUNNING, types.RUNNING)
    update.state(new.id, types.RUNNING)
    assert ShutDownOthers(1, new.id) in update.go()
    assert update.store.task("old1").desired_state == types.SHUTDOWN


def test_start_first_keeps_the_old_if_the_new_fails_before_it_ran() -> None:
    update = Update(1, order=Config.START_FIRST)
    update.go()
    new = update.new()[0].id
    update.state(new, types.FAILED)
    assert update.go() == [Pause(new)]
    assert update.store.task("old1").desired_state == types.RUNNING


def test_old_tasks_stay_if_the_new_one_ended_before_they_are_shut_down() -> None:
    update = Update(1, order=Config.START_FIRST)
    update.go()
    new = update.new()[0].id
    update.store.observe(new, types.FAILED)
    update.carry_out(ShutDownOthers(1, new))
    assert update.store.task("old1").desired_state == types.RUNNING


def test_after_the_last_place_the_update_is_watched_for_the_monitor_period() -> None:
    update = Update(1, monitor=9.0)
    update.go()
    update.state(update.new()[0].id, types.RUNNING)
    assert update.go() == []
    assert (update.updater.phase, update.updater.next_at()) == (Phase.MONITORING, 9.0)
    assert update.go(8.9) == []
    assert update.go(0.1) == [Complete()]
    assert (update.status().state, update.status().message) == (Status.COMPLETED, "update completed")
    assert update.status().HasField("completed_at")
    assert update.updater.next_at() is None


def test_a_delay_longer_than_the_monitor_period_is_watched_for_a_second_more() -> None:
    update = Update(1, monitor=2.0, delay=3.0)
    update.go()
    update.state(update.new()[0].id, types.RUNNING)
    update.go(3.0)
    assert update.updater.next_at() == 3.0 + 4.0


def test_a_monitor_period_that_is_not_given_is_five_seconds() -> None:
    assert Update(1).updater.monitor == 5.0
    assert Update(1, monitor=0.0).updater.monitor == 0.0


def test_parallelism_zero_takes_everything() -> None:
    assert [order for order in Update(5, parallelism=0).go() if isinstance(order, Replace)] == [
        Replace(slot) for slot in range(1, 6)
    ]


@pytest.mark.parametrize(("ratio", "failures"), [(0.0, 1), (0.2, 2), (0.5, 3), (0.75, 4)])
def test_more_failures_than_the_ratio_allows_end_the_update(ratio: float, failures: int) -> None:
    update = Update(5, parallelism=0, max_failure_ratio=ratio)
    update.go()
    for number, task in enumerate(update.new(), 1):
        assert update.updater.phase is Phase.ROLLING
        update.state(task.id, types.FAILED)
        if number == failures:
            assert update.go() == [Pause(task.id)]
            break
        assert update.go() == []
    assert update.updater.phase is Phase.ENDED


def test_a_failure_is_counted_once_however_often_the_task_changes() -> None:
    update = Update(4, parallelism=0, max_failure_ratio=0.25)
    update.go()
    new = update.new()[0].id
    for _time in range(5):
        update.state(new, types.FAILED)
    assert update.updater.failures == 1
    assert update.updater.phase is Phase.ROLLING


def test_tasks_that_the_update_did_not_make_do_not_count() -> None:
    update = Update(3)
    update.go()
    update.state("old3", types.FAILED)
    assert update.updater.failures == 0


def test_a_task_counts_as_failed_up_to_the_monitor_period_after_it_came_up() -> None:
    for late, counted in ((5.0, 1), (5.1, 0)):
        update = Update(2, parallelism=2, monitor=5.0)
        update.go()
        new = update.new()[0].id
        update.state(new, types.RUNNING)
        update.now += late
        update.state(new, types.FAILED)
        assert update.updater.failures == counted


def test_continue_counts_nothing() -> None:
    update = Update(1, failure_action=Config.CONTINUE)
    update.go()
    update.state(update.new()[0].id, types.FAILED)
    assert [type(order) for order in update.go() + update.go(60)] == [Complete]


def test_a_place_whose_task_was_deleted_is_looked_at_again() -> None:
    update = Update(2)
    update.go()
    new = update.new()[0].id
    update.store.delete(objects.Task, new)
    update.updater.task_gone(new, update.now)
    assert update.go() == [Replace(1)]
    assert [task.slot for task in update.new()] == [1]


def test_a_task_that_is_given_up_before_it_ran_is_no_failure_and_what_took_its_place_is_waited_for() -> None:
    update = Update(2)
    update.go()
    lost = update.new()[0].id
    update.store.run(lambda tx: apply(tx, [Desire(lost, types.SHUTDOWN)]))
    other = task_of(update.store.service(), "other", slot=1, node="n1", state=types.READY)
    update.store.put(other)
    update.updater.task_changed(update.store.task(lost), update.now)
    assert update.go() == [Replace(1)]
    update.state(lost, types.SHUTDOWN)
    assert (update.updater.failures, update.go(60)) == (0, [])
    update.state("other", types.RUNNING)
    assert update.go() == [Replace(2)]


def test_a_place_that_is_given_up_with_its_task_holds_no_other_up() -> None:
    update = Update(2)
    update.go()
    new = update.new()[0].id
    for id in (new, "old1"):
        update.store.run(lambda tx, id=id: apply(tx, [Desire(id, types.REMOVE)]))
    update.updater.task_changed(update.store.task(new), update.now)
    assert update.go() == [Replace(1)]
    assert update.go() == [Replace(2)]


@pytest.mark.parametrize(("availability", "taken"), [(0, ["n1", "n2"]), (1, ["n1"]), (2, ["n1"])])
def test_an_update_of_a_global_service_leaves_out_nodes_that_get_nothing_new(
    availability: int, taken: list[str]
) -> None:
    update = Update(0, parallelism=0)
    service = update.store.service()
    update.store.put(node_of_id("n2", availability=availability))
    update.store.edit(objects.Service, "web", lambda it: getattr(it.spec, "global").SetInParent())
    for node in ("n1", "n2"):
        old = task_of(service, f"old-{node}", slot=0, node=node)
        old.spec_version.index -= 1
        old.spec.container.image = "one"
        update.store.put(old)
    update.updater = update.fresh()
    assert [order.place for order in update.go() if isinstance(order, Replace)] == taken
    assert [task.node_id for task in update.new()] == taken


def test_a_node_that_stops_taking_tasks_during_the_update_of_a_global_service_is_left_alone() -> None:
    update = Update(0)
    update.store.edit(objects.Service, "web", lambda it: getattr(it.spec, "global").SetInParent())
    old = task_of(update.store.service(), "old", slot=0, node="n1")
    old.spec_version.index -= 1
    old.spec.container.image = "one"
    update.store.put(old)
    update.updater = update.fresh()
    update.store.edit(objects.Node, "n1", lambda node: setattr(node.spec, "availability", 1))
    assert update.go() == [Begin(), Replace("n1")]
    assert update.new() == []
    assert update.go() == []
    assert update.go(60) == [Complete()]


def test_pausing_names_the_task() -> None:
    update = Update(1)
    update.go()
    new = update.new()[0].id
    update.state(new, types.REJECTED)
    update.go()
    assert update.status().state == Status.PAUSED
    assert update.status().message == f"update paused due to failure or early termination of task {new}"
    assert update.fresh().phase is Phase.ENDED


def rolled_back() -> Update:
    update = Update(2, failure_action=Config.ROLLBACK)
    update.go()
    update.state(update.new()[0].id, types.FAILED)
    assert isinstance(update.go()[0], RollBack)
    return update


def test_rolling_back_restores_spec_and_version_and_keeps_the_time_of_the_beginning() -> None:
    update = rolled_back()
    service = update.store.service()
    assert service.spec.task.container.image == "one"
    assert service.spec_version.index == 1
    assert not service.HasField("previous_spec")
    assert not service.HasField("previous_spec_version")
    status = update.status()
    assert status.state == Status.ROLLBACK_STARTED
    assert status.message.startswith("update rolled back due to failure or early termination of task t0")
    assert status.HasField("started_at")


def test_a_rollback_is_completed_by_its_own_name() -> None:
    update = rolled_back()
    update.updater = update.fresh()
    orders = update.go()
    assert orders == [Begin(), Replace(1)]
    again = [task for task in update.store.tasks() if task.desired_state == types.READY]
    update.state(again[0].id, types.RUNNING)
    update.go()
    update.go(5.0)
    assert (update.status().state, update.status().message) == (Status.ROLLBACK_COMPLETED, "rollback completed")


@pytest.mark.parametrize("action", [Config.PAUSE, Config.ROLLBACK])
def test_a_rollback_that_fails_is_paused_whatever_its_action(action: types.UpdateConfig.FailureAction) -> None:
    update = rolled_back()
    update.store.edit(objects.Service, "web", lambda service: setattr(service.spec.rollback, "failure_action", action))
    update.updater = update.fresh()
    update.go()
    again = next(task.id for task in update.store.tasks() if task.desired_state == types.READY)
    update.state(again, types.FAILED)
    update.go()
    assert update.status().state == Status.ROLLBACK_PAUSED
    assert update.status().message == f"rollback paused due to failure or early termination of task {again}"


def test_without_a_previous_spec_a_rollback_pauses() -> None:
    update = Update(1, failure_action=Config.ROLLBACK)
    update.store.edit(objects.Service, "web", lambda service: service.ClearField("previous_spec"))
    update.go()
    update.state(update.new()[0].id, types.FAILED)
    update.go()
    assert update.status().state == Status.PAUSED
    assert update.store.service().spec.task.container.image == "two"


def test_a_rollback_has_its_own_settings() -> None:
    service = service_of()
    service.spec.update.parallelism, service.spec.rollback.parallelism = 3, 7
    assert config_of(service).parallelism == 3
    service.update_status.state = Status.ROLLBACK_STARTED
    assert config_of(service).parallelism == 7
    service.spec.ClearField("rollback")
    assert (config_of(service).parallelism, config_of(service).failure_action) == (1, Config.PAUSE)


@pytest.mark.parametrize(
    "order", [Begin(), Replace(1), ShutDownOthers(1, "old1"), Pause("x"), RollBack("x"), Complete()]
)
def test_no_step_touches_a_service_that_went_on_or_is_gone(order: Order) -> None:
    update = Update(1)
    update.store.edit(objects.Service, "web", lambda service: setattr(service.spec.task, "force_update", 9))
    version = update.store.view.version
    for _round in range(2):
        outcome = update.replace(1) if isinstance(order, Replace) else update.carry_out(order)
        assert outcome is STALE
        assert update.store.task("old1").desired_state == types.RUNNING
        if update.store.view.get(objects.Service, "web") is not None:
            assert update.store.service().update_status.state == Status.UNKNOWN
            update.store.delete(objects.Service, "web")
    assert update.store.view.version > version


def test_a_basis_holds_through_the_updates_own_notes() -> None:
    update = Update(1)
    basis = Basis.of(update.store.service())
    update.go()
    assert basis.holds(update.store.service())
    assert not basis.holds(None)


def test_a_clean_task_of_a_place_is_kept_and_the_others_go() -> None:
    update = Update(1)
    service = update.store.service()
    update.store.put(task_of(service, "clean", state=types.PENDING), task_of(service, "held", desired=types.READY))
    assert update.replace(1) == Replaced("clean")
    assert {task.id: task.desired_state for task in update.store.tasks()} == {
        "clean": types.RUNNING,
        "held": types.SHUTDOWN,
        "old1": types.SHUTDOWN,
    }


def test_start_first_keeps_the_old_until_a_clean_task_that_was_there_runs() -> None:
    update = Update(1, order=Config.START_FIRST)
    update.store.put(task_of(update.store.service(), "clean", state=types.PENDING))
    assert update.replace(1) == Replaced("clean")
    assert update.store.task("old1").desired_state == types.RUNNING
    update.store.observe("clean", types.RUNNING)
    assert update.replace(1) == Replaced(None)
    assert update.store.task("old1").desired_state == types.SHUTDOWN


def test_an_empty_place_is_left_to_reconciliation() -> None:
    update = Update(1)
    update.store.run(lambda tx: apply(tx, [Desire("old1", types.REMOVE)]))
    assert update.replace(1) == Replaced(None)
    assert update.new() == []


def test_a_place_of_a_global_service_is_its_node() -> None:
    update = Update(1)
    update.store.edit(objects.Service, "web", lambda service: getattr(service.spec, "global").SetInParent())
    update.updater = update.fresh()
    assert update.go()[1:] == [Replace("n1")]
    assert [(task.node_id, task.slot) for task in update.new()] == [("n1", 0)]


def test_a_new_life_waits_for_what_the_last_one_began() -> None:
    update = Update(3)
    update.go()
    first = update.new()[0].id
    update.updater = update.fresh()
    assert (update.updater.total, update.go()) == (3, [Begin()])
    update.state(first, types.RUNNING)
    assert update.go() == [Replace(2)]


def test_a_new_life_does_not_wait_for_tasks_that_no_update_made() -> None:
    update = Update(2)
    update.go()
    update.state(update.new()[0].id, types.RUNNING)
    update.store.put(task_of(update.store.service(), "grown", slot=9, state=types.PENDING))
    update.updater = update.fresh()
    assert update.go() == [Begin(), Replace(2)]


def test_nothing_to_do_ends_an_update_that_says_it_goes_on() -> None:
    update = Update(0)
    update.store.edit(
        objects.Service, "web", lambda service: setattr(service.update_status, "state", Status.ROLLBACK_STARTED)
    )
    update.updater = update.fresh()
    assert update.go() == [Complete()]
    assert update.status().state == Status.ROLLBACK_COMPLETED


def test_a_new_life_watches_the_last_places_for_what_is_left_of_their_time() -> None:
    update = Update(1, monitor=5.0)
    update.go()
    update.state(update.new()[0].id, types.RUNNING)
    update.go(3.0)
    update.updater = update.fresh()
    update.go()
    assert update.updater.next_at() == 5.0
    assert update.go(1.9) == []
    assert update.go(0.2) == [Complete()]


def test_a_new_life_sees_a_failure_of_what_came_up_before_it() -> None:
    update = Update(2, monitor=5.0)
    update.go()
    new = update.new()[0].id
    update.state(new, types.RUNNING)
    update.go(3.0)
    update.updater = update.fresh()
    update.state(new, types.FAILED)
    assert update.go() == [Pause(new)]


def test_a_new_life_sits_out_the_delay_of_a_place_that_came_up_before_it() -> None:
    update = Update(2, delay=10.0)
    update.go()
    update.state(update.new()[0].id, types.RUNNING)
    update.go(4.0)
    update.updater = update.fresh()
    assert update.go() == [Begin()]
    assert update.updater.next_at() == 10.0
    assert update.go(6.0) == [Replace(2)]


def test_a_clock_that_is_ahead_makes_no_delay_longer_than_it_is() -> None:
    update = Update(2, delay=10.0)
    update.go()
    update.store.observe(update.new()[0].id, types.RUNNING, update.store.now + 3600)
    update.updater = update.fresh()
    update.go()
    assert update.updater.next_at() == 10.0


def test_places_and_failures_of_an_earlier_life_count_in_the_next() -> None:
    update = Update(4, max_failure_ratio=0.5, monitor=5.0)
    for slot, state in ((1, types.FAILED), (2, types.REJECTED)):
        update.go(1.0)
        update.state(next(task.id for task in update.new() if task.slot == slot), state)
    update.updater = update.fresh()
    assert (update.updater.total, update.updater.failures) == (4, 2)
    assert update.go() == [Begin(), Replace(3)]
    third = next(task.id for task in update.new() if task.slot == 3)
    update.state(third, types.FAILED)
    assert update.go() == [Pause(third)]


def test_one_failure_in_what_is_left_of_an_update_is_one_of_all_its_places() -> None:
    update = Update(4, max_failure_ratio=0.3)
    for slot in (1, 2, 3):
        update.go(1.0)
        new = next(task for task in update.new() if task.slot == slot)
        update.state(new.id, types.RUNNING)
    update.updater = update.fresh()
    update.go(1.0)
    last = next(task for task in update.new() if task.slot == 4)
    update.state(last.id, types.FAILED)
    assert update.go() == []


def test_what_failed_after_it_had_run_for_long_is_no_failure_of_the_update() -> None:
    update = Update(2, monitor=5.0)
    update.go()
    new = update.new()[0].id
    update.state(new, types.RUNNING)
    update.go(60.0)
    update.store.observe(new, types.FAILED)
    update.updater = update.fresh()
    assert update.updater.failures == 0


@pytest.mark.parametrize(
    ("state", "dirty", "needed"),
    [
        (Status.UNKNOWN, False, False),
        (Status.UNKNOWN, True, True),
        (Status.UPDATING, False, True),
        (Status.ROLLBACK_STARTED, False, True),
        (Status.COMPLETED, False, False),
        (Status.COMPLETED, True, True),
        (Status.PAUSED, True, False),
        (Status.ROLLBACK_PAUSED, True, False),
    ],
)
def test_when_an_updater_is_needed(state: int, dirty: bool, needed: bool) -> None:
    service = service_of()
    task = task_of(service, "t")
    service.update_status.state = state  # type: ignore[assignment]
    if dirty:
        service.spec_version.index, service.spec.task.force_update = 2, 1
    assert needs_update(LittleStore().view, service, [[task]]) is needed


EVENTS = st.lists(st.tuples(st.sampled_from(["run", "fail", "wait", "anew"]), st.integers(0, 9)), max_size=60)


@settings(max_examples=80)
@given(EVENTS, st.integers(1, 4), st.sampled_from([Config.STOP_FIRST, Config.START_FIRST]))
def test_never_more_than_parallelism_places_are_between_old_and_new(
    events: list[tuple[str, int]], parallelism: int, order: types.UpdateConfig.UpdateOrder
) -> None:
    update = Update(6, parallelism=parallelism, order=order, failure_action=Config.CONTINUE)
    update.go()
    for what, number in events:
        coming = [task for task in update.new() if task.status.state < types.RUNNING]
        assert len({task.slot for task in coming}) <= parallelism
        if what == "wait":
            update.go(float(number))
        elif what == "anew":
            update.updater = update.fresh()
        elif coming:
            task = coming[number % len(coming)]
            update.start(task.id)
            update.state(task.id, types.RUNNING if what == "run" else types.FAILED)
        update.go()
    for slot in range(1, 7):
        assert any(wanted(task) for task in update.store.tasks() if task.slot == slot)
