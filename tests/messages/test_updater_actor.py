"""UpdaterActor below ReplicatedActor: order, parallelism, delay, failure actions, rollback, failures half-way."""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import Any

import pytest

from runtime.protocol.store import Entries, Write, WriteBatch
from runtime.swarm.defaults import to_duration
from runtime.swarm.service_spec import rolled_back
from runtime.swarm.task_changes import Create, Desire, apply
from runtime.swarm.task_model import new_task
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.messages.orchestration_bench import Consensus, OrchestrationBench
from tests.unit.swarm_orchestration.little_store import service_of

Status = types.UpdateStatus
Config = types.UpdateConfig


def config(**more: Any) -> types.UpdateConfig:
    made = Config(parallelism=more.pop("parallelism", 1), monitor=to_duration(more.pop("monitor", 2.0)))
    made.delay.CopyFrom(to_duration(more.pop("delay", 0.0)))
    for name, value in more.items():
        setattr(made, name, value)
    return made


def running(
    replicas: int = 4, rollback: types.UpdateConfig | None = None, seed: int = 3, slow: float = 0.0, **more: Any
) -> OrchestrationBench:
    bench = OrchestrationBench(seed, slow=slow)
    service = service_of(replicas=replicas, delay=0.5)
    service.spec.update.CopyFrom(config(**more))
    if rollback is not None:
        service.spec.rollback.CopyFrom(rollback)
    bench.put(service)
    bench.until(lambda: len(bench.running()) == replicas)
    bench.run_for(0.1)
    bench.seen.clear()
    return bench


def image(bench: OrchestrationBench, name: str) -> None:
    def edit(spec: specs.ServiceSpec) -> None:
        spec.task.container.image = name

    bench.update(edit)


def state(bench: OrchestrationBench) -> int:
    return bench.service().update_status.state


def settled(bench: OrchestrationBench, wanted: int, within: float = 120.0) -> float:
    return bench.until(lambda: state(bench) == wanted and not bench.updaters(), within)


def of_slots(bench: OrchestrationBench) -> list[tuple[float, dict[int, list[objects.Task]]]]:
    """The tasks of each slot after each change since the update began; older ones appear as they change."""
    looks = []
    for at, tasks in bench.history():
        slots: dict[int, list[objects.Task]] = defaultdict(list)
        for task in tasks.values():
            slots[task.slot].append(task)
        looks.append((at, slots))
    return looks


def created(bench: OrchestrationBench, name: str) -> list[float]:
    first: dict[str, float] = {}
    for at, task, id in bench.seen:
        if task is not None and task.spec.container.image == name:
            first.setdefault(id, at)
    return sorted(first.values())


def test_all_tasks_are_replaced_and_the_status_tells_the_way() -> None:
    bench = running(3)
    image(bench, "two")
    bench.until(lambda: state(bench) == Status.UPDATING)
    assert bench.service().update_status.message == "update in progress"
    assert bench.service().update_status.HasField("started_at")
    settled(bench, Status.COMPLETED)
    status = bench.service().update_status
    assert status.message == "update completed"
    assert status.completed_at.seconds >= status.started_at.seconds
    assert len(bench.running("two")) == 3
    assert sorted(task.slot for task in bench.running()) == [1, 2, 3]


def test_stop_first_runs_the_new_task_only_after_the_old_one_stopped() -> None:
    bench = running(2)
    image(bench, "two")
    settled(bench, Status.COMPLETED)
    for _at, slots in of_slots(bench):
        for tasks in slots.values():
            assert sum(types.ASSIGNED <= task.status.state <= types.RUNNING for task in tasks) <= 2
            states = {task.spec.container.image: task for task in tasks if task.desired_state <= types.RUNNING}
            if "two" in states and states["two"].desired_state == types.RUNNING:
                old = [task for task in tasks if task.spec.container.image == "one"]
                assert [task.status.state for task in old] == [types.SHUTDOWN]


def test_start_first_stops_the_old_task_only_when_the_new_one_runs() -> None:
    bench = running(2, order=Config.START_FIRST)
    image(bench, "two")
    settled(bench, Status.COMPLETED)
    stopped = 0
    for _at, slots in of_slots(bench):
        for tasks in slots.values():
            for old in tasks:
                if old.spec.container.image == "one" and old.desired_state > types.RUNNING:
                    stopped += 1
                    new = [task for task in tasks if task.spec.container.image == "two"]
                    assert [task.status.state for task in new] == [types.RUNNING]
    assert stopped > 0
    assert len(bench.running("two")) == 2


@pytest.mark.parametrize("parallelism", [1, 2, 3])
def test_no_more_than_parallelism_slots_are_under_way(parallelism: int) -> None:
    bench = running(6, parallelism=parallelism)
    image(bench, "two")
    settled(bench, Status.COMPLETED)
    most = 0
    for _at, slots in of_slots(bench):
        coming = [
            slot
            for slot, tasks in slots.items()
            if any(task.spec.container.image == "two" and task.status.state < types.RUNNING for task in tasks)
        ]
        most = max(most, len(coming))
    assert most == parallelism


def test_parallelism_zero_takes_all_at_once() -> None:
    bench = running(5, parallelism=0)
    image(bench, "two")
    bench.until(lambda: len(created(bench, "two")) == 5, 1.0)
    settled(bench, Status.COMPLETED)
    assert len(bench.running("two")) == 5


def test_the_delay_lies_between_a_task_that_came_up_and_the_next_slot() -> None:
    bench = running(3, delay=7.0, monitor=1.0)
    image(bench, "two")
    settled(bench, Status.COMPLETED)
    first, second, third = created(bench, "two")
    step = 7.0 + bench.behaviour.stop + bench.behaviour.boot
    assert second - first == pytest.approx(step, abs=0.2)
    assert third - second == pytest.approx(step, abs=0.2)


def test_the_update_is_watched_for_the_monitor_period_after_the_last_slot() -> None:
    bench = running(1, monitor=9.0)
    image(bench, "two")
    bench.until(lambda: len(bench.running("two")) == 1)
    assert settled(bench, Status.COMPLETED) == pytest.approx(9.0, abs=0.2)


def test_a_change_that_no_task_notices_is_no_update() -> None:
    bench = running(2)
    bench.update(lambda spec: spec.annotations.labels.update({"a": "b"}))
    bench.run_for(10)
    assert not bench.service().HasField("update_status")
    assert len({id for _at, _task, id in bench.seen}) == 0


def test_the_first_failure_pauses_the_update_and_names_the_task() -> None:
    bench = running(4)
    bench.behaviour.fail = frozenset(["bad"])
    image(bench, "bad")
    settled(bench, Status.PAUSED)
    failed = [task.id for _at, task, _id in bench.seen if task is not None and task.status.state == types.FAILED]
    text = f"update paused due to failure or early termination of task {failed[0]}"
    assert bench.service().update_status.message == text
    bench.run_for(30)
    assert len(bench.running("one")) == 3
    assert state(bench) == Status.PAUSED


def test_a_paused_update_goes_on_with_the_next_update() -> None:
    bench = running(3)
    bench.behaviour.fail = frozenset(["bad"])
    image(bench, "bad")
    settled(bench, Status.PAUSED)
    image(bench, "good")
    settled(bench, Status.COMPLETED)
    assert len(bench.running("good")) == 3


def test_a_task_that_fails_within_the_monitor_period_counts() -> None:
    bench = running(2, monitor=5.0)
    bench.behaviour.fail = frozenset(["bad"])
    bench.behaviour.fail_after = 3.0
    image(bench, "bad")
    settled(bench, Status.PAUSED)


def test_a_task_that_fails_after_the_monitor_period_does_not_count() -> None:
    bench = running(1, monitor=2.0)
    bench.behaviour.fail = frozenset(["bad"])
    bench.behaviour.fail_after = 4.0
    image(bench, "bad")
    settled(bench, Status.COMPLETED)


def test_as_many_failures_as_the_ratio_allows_do_not_stop_the_update() -> None:
    bench = running(4, max_failure_ratio=0.25)
    image(bench, "two")
    bench.until(lambda: len(bench.running("two")) == 1)
    victim = bench.running("two")[0].id
    bench.edit(objects.Task, victim, lambda task: setattr(task.status, "state", types.FAILED))
    settled(bench, Status.COMPLETED)
    bench.until(lambda: len(bench.running("two")) == 4)


def test_continue_goes_on_whatever_fails() -> None:
    bench = running(3, failure_action=Config.CONTINUE)
    bench.behaviour.fail = frozenset(["bad"])
    image(bench, "bad")
    settled(bench, Status.COMPLETED)
    assert bench.running("one") == []


def test_a_failure_rolls_the_service_back_to_its_previous_spec() -> None:
    bench = running(4, failure_action=Config.ROLLBACK)
    before = bench.service()
    bench.behaviour.fail = frozenset(["bad"])
    image(bench, "bad")
    bench.until(lambda: state(bench) == Status.ROLLBACK_STARTED)
    text = "update rolled back due to failure or early termination of task "
    assert bench.service().update_status.message.startswith(text)
    settled(bench, Status.ROLLBACK_COMPLETED)
    after = bench.service()
    assert after.update_status.message == "rollback completed"
    assert (after.spec, after.spec_version) == (before.spec, before.spec_version)
    assert not after.HasField("previous_spec")
    bench.until(lambda: len(bench.running("one")) == 4)
    kept = [task.id for task in bench.running() if all(id != task.id for _at, _task, id in bench.seen)]
    assert len(kept) == 3, "tasks that were not updated yet stay as they are"


def test_a_rollback_that_fails_pauses_and_stays_paused() -> None:
    bench = running(3, failure_action=Config.ROLLBACK, rollback=config(failure_action=Config.ROLLBACK))
    image(bench, "two")
    settled(bench, Status.COMPLETED)
    bench.behaviour.fail = frozenset(["bad", "two"])
    image(bench, "bad")
    settled(bench, Status.ROLLBACK_PAUSED)
    text = "rollback paused due to failure or early termination of task "
    assert bench.service().update_status.message.startswith(text)
    bench.run_for(60)
    assert state(bench) == Status.ROLLBACK_PAUSED


def test_a_rollback_by_hand_uses_the_rollback_settings() -> None:
    bench = running(4, rollback=config(parallelism=4))
    image(bench, "two")
    settled(bench, Status.COMPLETED)
    bench.seen.clear()

    def step(tx: Any) -> None:
        tx.update(rolled_back(tx.get(objects.Service, "web"), tx.now))

    bench.write(step)
    bench.until(lambda: len(created(bench, "one")) == 4, 1.0)
    settled(bench, Status.ROLLBACK_COMPLETED)
    assert len(bench.running("one")) == 4


def test_a_newer_update_takes_the_place_of_the_one_under_way() -> None:
    bench = running(5)
    image(bench, "two")
    bench.until(lambda: len(bench.running("two")) == 2)
    image(bench, "three")
    settled(bench, Status.COMPLETED)
    assert len(bench.running("three")) == 5
    assert len(created(bench, "two")) <= 3


def test_scaling_in_mid_update_ends_with_all_tasks_new() -> None:
    bench = running(4)
    image(bench, "two")
    bench.until(lambda: len(bench.running("two")) == 1)
    bench.update(lambda spec: setattr(spec.replicated, "replicas", 7))
    bench.until(lambda: len(bench.running("two")) == 7 and not bench.updaters(), 120)
    bench.update(lambda spec: setattr(spec.replicated, "replicas", 2))
    bench.until(lambda: all(task.slot in (1, 2) or task.desired_state == types.REMOVE for task in bench.tasks()))
    bench.until(lambda: len(bench.running("two")) == 2 and len({task.slot for task in bench.tasks()}) == 2)


def test_removing_the_service_ends_its_update() -> None:
    bench = running(4)
    image(bench, "two")
    bench.until(lambda: len(bench.running("two")) == 1)
    bench.write(lambda tx: tx.delete(objects.Service, "web") and None)
    bench.until(lambda: bench.tasks() == [] and not bench.updaters())


@pytest.mark.parametrize("order", [Config.STOP_FIRST, Config.START_FIRST])
@pytest.mark.parametrize("who", ["updater", "replicated"])
@pytest.mark.parametrize("at", [0.0, 0.3, 1.2, 2.0, 3.1])
def test_an_update_goes_on_after_a_failure_half_way(order: int, who: str, at: float) -> None:
    bench = running(4, parallelism=2, order=order, monitor=6.0)
    image(bench, "two")
    bench.until(lambda: bool(bench.updaters()))
    bench.run_for(at)
    path = "/replicated" if who == "replicated" else bench.updaters()[0]
    bench.crash(path)
    settled(bench, Status.COMPLETED)
    assert len(bench.running("two")) == 4
    assert len(bench.running()) == 4
    for _at, slots in of_slots(bench):
        coming = {
            slot
            for slot, tasks in slots.items()
            for task in tasks
            if task.spec.container.image == "two" and task.status.state < types.RUNNING
        }
        assert len(coming) <= 2


@pytest.mark.parametrize("slow", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(4))
def test_a_slot_is_never_left_to_two_tasks_in_a_storm_of_updates(seed: int, slow: float) -> None:
    bench = running(4, seed=seed, slow=slow, parallelism=2, failure_action=Config.CONTINUE)
    chance = bench.simulator.random
    for number in range(12):
        image(bench, f"v{number % 3}")
        bench.run_for(chance.random() * 6)
        live = bench.running()
        if live and chance.random() < 0.6:
            victim = live[int(chance.random() * len(live))].id
            bench.edit(objects.Task, victim, lambda task: setattr(task.status, "state", types.FAILED))
        paths = [*bench.updaters(), "/replicated"]
        if chance.random() < 0.4:
            bench.crash(paths[0])
    image(bench, "last")
    bench.until(lambda: len(bench.running("last")) == 4 and not bench.updaters(), 200)
    bench.run_for(10)
    wanted = [task.slot for task in bench.tasks() if task.desired_state <= types.RUNNING]
    assert sorted(wanted) == [1, 2, 3, 4]
    for _at, slots in of_slots(bench):
        for tasks in slots.values():
            assert sum(task.desired_state <= types.RUNNING for task in tasks) <= 1


def test_an_idle_service_has_no_updater() -> None:
    bench = running(3)
    bench.run_for(5)
    assert bench.updaters() == []
    image(bench, "two")
    settled(bench, Status.COMPLETED)
    bench.run_for(5)
    assert bench.updaters() == []


def test_an_update_that_waits_makes_way_for_a_newer_one_at_once() -> None:
    bench = running(2, delay=1000.0)
    image(bench, "two")
    bench.until(lambda: len(bench.running("two")) == 1)
    image(bench, "three")
    bench.until(lambda: len(created(bench, "three")) == 1, 0.5)


@pytest.mark.parametrize("slow", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(6))
def test_an_update_that_comes_as_the_last_one_ends_is_not_lost(seed: int, slow: float) -> None:
    bench = running(1, seed=seed, slow=slow, monitor=1.0)
    image(bench, "two")
    bench.until(lambda: len(bench.running("two")) == 1)
    bench.run_for(0.9 + seed * 0.02)
    for name in ("three", "four"):
        bench.until(lambda: state(bench) in (Status.COMPLETED, Status.UPDATING))
        image(bench, name)
    bench.until(lambda: len(bench.running("four")) == 1)


def test_a_rollback_by_hand_that_fails_is_paused_although_there_is_another_spec() -> None:
    bench = running(2, rollback=config(failure_action=Config.ROLLBACK))
    image(bench, "two")
    settled(bench, Status.COMPLETED)
    bench.behaviour.fail = frozenset(["one"])
    bench.write(lambda tx: tx.update(rolled_back(tx.get(objects.Service, "web"), tx.now)) and None)
    settled(bench, Status.ROLLBACK_PAUSED)
    assert bench.service().spec.task.container.image == "one"


@pytest.mark.parametrize("lost", ["down", "drained", "removed"])
def test_an_update_does_not_hang_on_a_node_that_is_lost_before_the_new_task_came_up(lost: str) -> None:
    bench = running(3, delay=0.5)
    bench.behaviour.boot = 5.0
    image(bench, "two")
    bench.until(lambda: any(task.spec.container.image == "two" and task.node_id for task in bench.tasks()))
    where = next(task.node_id for task in bench.tasks() if task.spec.container.image == "two" and task.node_id)
    bench.behaviour.silent = frozenset([where])
    if lost == "down":
        bench.edit(objects.Node, where, lambda node: setattr(node.status, "state", types.NodeStatus.DOWN))
    elif lost == "drained":
        bench.edit(objects.Node, where, lambda node: setattr(node.spec, "availability", specs.NodeSpec.DRAIN))
    else:
        bench.write(lambda tx: tx.delete(objects.Node, where) and None)
    settled(bench, Status.COMPLETED, 300.0)
    assert len(bench.running("two")) == 3
    assert where not in {task.node_id for task in bench.running()}


@pytest.mark.parametrize("at", [0.5, 2.0, 4.0, 6.0])
def test_a_bad_update_is_stopped_by_its_ratio_also_when_the_leader_changes_half_way(at: float) -> None:
    bench = running(8, max_failure_ratio=0.4, monitor=2.0)
    bench.behaviour.fail = frozenset(["bad"])
    image(bench, "bad")
    bench.run_for(at)
    bench.crash("/replicated")
    settled(bench, Status.PAUSED)
    assert len({task.slot for task in bench.tasks() if task.spec.container.image == "bad"}) == 4
    assert len(bench.running("one")) == 4


def test_an_update_that_fails_is_told_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    bench = running(2)
    bench.behaviour.fail = frozenset(["bad"])
    with caplog.at_level(logging.WARNING, "swarmlet.updater"):
        image(bench, "bad")
        settled(bench, Status.PAUSED)
    assert [record.getMessage() for record in caplog.records] == [
        f"service web: {bench.service().update_status.message}"
    ]


def test_a_task_that_somebody_else_has_just_proposed_is_waited_for_and_not_asked_for_without_end() -> None:
    bench = running(2, slow=0.5)
    proposed_at, asked = 0.0, 0

    def restarted(tx: Any) -> None:
        service, (old,) = tx.get(objects.Service, "web"), [each for each in bench.tasks() if each.slot == 2]
        apply(tx, [Desire(old.id, types.SHUTDOWN), Create(new_task("restarted", service, None, tx.now, slot=2))])

    def observe(cell: Any, envelope: Any) -> None:
        """The moment before the updater hears that it may go on to slot 2 belongs to somebody else."""
        nonlocal proposed_at, asked
        asked += proposed_at > 0.0 and isinstance(envelope[0], WriteBatch)
        if not proposed_at and "/updater-" in cell.path and bench.running("two"):
            proposed_at = bench.simulator.time
            bench.store.tell(Write(restarted))

    bench.simulator.observers.append(observe)
    image(bench, "two")
    bench.until(lambda: proposed_at > 0.0)
    bench.run_for(0.45)
    assert bench.published.view.get(objects.Task, "restarted") is None, "not committed yet"
    assert 1 <= asked < 10
    settled(bench, Status.COMPLETED)
    assert "restarted" in [task.id for task in bench.running("two")]


def test_a_task_that_is_gone_before_it_was_seen_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = running(1)
    held: list[Any] = []
    tell = Consensus.tell

    def hold(self: Consensus, to: Any, message: Any) -> None:
        held.extend(message.entries)

    def delete(tx: Any) -> None:
        for task in tx.find(objects.Task, "service", "web"):
            tx.delete(objects.Task, task.id)

    image(bench, "two")
    monkeypatch.setattr(Consensus, "tell", hold)
    bench.run_for(0.1)
    bench.store.tell(Write(delete))
    bench.run_for(0.1)
    assert len(held) > 1, "its replacement, and that this is gone"
    monkeypatch.setattr(Consensus, "tell", tell)
    bench.store.tell(Entries(tuple(held)))
    settled(bench, Status.COMPLETED)
    assert len(bench.running("two")) == 1


def most_of_one_version(bench: OrchestrationBench, name: str) -> int:
    """How many tasks of an image were to live in one slot at the same time, at most."""
    alive = (
        sum(each.spec.container.image == name and each.desired_state <= types.RUNNING for each in tasks)
        for _at, slots in of_slots(bench)
        for tasks in slots.values()
    )
    return max(alive)


def test_an_old_task_that_ends_while_the_new_one_comes_up_is_not_replaced_by_one_more() -> None:
    bench = running(2, order=Config.START_FIRST)
    bench.behaviour.boot = 3.0
    image(bench, "two")
    bench.until(lambda: any(task.spec.container.image == "two" for task in bench.tasks()))
    (new,) = [task for task in bench.tasks() if task.spec.container.image == "two"]
    (old,) = [task for task in bench.tasks() if task.slot == new.slot and task.id != new.id]
    bench.edit(objects.Task, old.id, lambda task: setattr(task.status, "state", types.FAILED))
    settled(bench, Status.COMPLETED)
    assert most_of_one_version(bench, "two") == 1
    assert new.id in {task.id for task in bench.running("two")}
    assert sorted(task.slot for task in bench.running()) == [1, 2]


def test_both_tasks_of_a_slot_that_lose_their_node_are_replaced_by_one() -> None:
    bench = running(1, order=Config.START_FIRST)
    bench.behaviour.boot = 3.0
    (old,) = bench.running()
    for node in [each for each in bench.published.view.all(objects.Node) if each.id != old.node_id]:
        bench.edit(objects.Node, node.id, lambda node: setattr(node.spec, "availability", specs.NodeSpec.PAUSE))
    image(bench, "two")
    bench.until(lambda: [task.node_id for task in bench.tasks()] == [old.node_id] * 2)
    for node in [each for each in bench.published.view.all(objects.Node) if each.id != old.node_id]:
        bench.edit(objects.Node, node.id, lambda node: setattr(node.spec, "availability", specs.NodeSpec.ACTIVE))
    bench.edit(objects.Node, old.node_id, lambda node: setattr(node.status, "state", types.NodeStatus.DOWN))
    settled(bench, Status.COMPLETED)
    assert most_of_one_version(bench, "two") == 1
    assert [task.slot for task in bench.running("two")] == [1]


@pytest.mark.parametrize("long", [1.5, 30.0])
def test_an_old_task_goes_once_the_restart_of_a_new_one_that_failed_runs(long: float) -> None:
    bench = running(2, order=Config.START_FIRST, failure_action=Config.CONTINUE)
    bench.behaviour.fail = frozenset({"two"})
    image(bench, "two")
    settled(bench, Status.COMPLETED)
    assert len(bench.running("one")) == 2, "none of the new ones ever ran"
    bench.run_for(long)
    assert len(bench.running("one")) == 2
    bench.behaviour.fail = frozenset()
    bench.until(lambda: len(bench.running("two")) == 2 and bench.running("one") == [])
    bench.run_for(30)
    assert sorted(task.slot for task in bench.running()) == [1, 2]
    assert bench.updaters() == []
