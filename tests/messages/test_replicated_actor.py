"""ReplicatedActor: scaling, restarts with their delays and limits, nodes that fail, removal, its own failures."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from runtime.swarm import replicated
from runtime.swarm.replicated import Round
from runtime.swarm.task_changes import CHANGES_MAX, Create, Desire, apply
from runtime.swarm.task_model import new_task
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.messages.orchestration_bench import OrchestrationBench
from tests.unit.swarm_orchestration.little_store import service_of

FAST = {"delay": 2.0}


def scale(bench: OrchestrationBench, replicas: int) -> None:
    bench.update(lambda spec: setattr(spec.replicated, "replicas", replicas))


def started(replicas: int = 3, seed: int = 3, slow: float = 0.0, **more: Any) -> OrchestrationBench:
    bench = OrchestrationBench(seed, slow=slow)
    bench.put(service_of(replicas=replicas, **more))
    bench.until(lambda: len(bench.running()) == replicas)
    return bench


def test_a_service_gets_its_tasks_in_slots_from_one_on() -> None:
    bench = started(3)
    assert sorted(task.slot for task in bench.tasks()) == [1, 2, 3]


def test_scaling_up_fills_the_lowest_free_slots_and_is_no_update() -> None:
    bench = started(2)
    before = {task.id for task in bench.tasks()}
    scale(bench, 5)
    bench.until(lambda: len(bench.running()) == 5)
    assert before <= {task.id for task in bench.running()}
    assert sorted(task.slot for task in bench.running()) == [1, 2, 3, 4, 5]
    bench.run_for(20)
    assert not bench.service().HasField("update_status")


def test_scaling_down_removes_tasks_and_the_reaper_forgets_them() -> None:
    bench = started(5)
    scale(bench, 2)
    bench.until(lambda: len(bench.tasks()) == 2)
    assert len(bench.running()) == 2
    removed = [task for _at, task, _id in bench.seen if task is not None and task.desired_state == types.REMOVE]
    assert {task.status.state for task in removed} == {types.RUNNING, types.SHUTDOWN}, "removed tasks stop first"


def test_a_service_of_a_thousand_tasks_is_filled_over_several_transactions() -> None:
    bench = OrchestrationBench()
    bench.behaviour.silent = frozenset([""])
    bench.put(service_of(replicas=450))
    bench.until(lambda: len(bench.tasks()) == 450)
    bench.run_for(5)
    assert sorted(task.slot for task in bench.tasks()) == list(range(1, 451))


def counted(bench: OrchestrationBench, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many changes each decision about the service came to."""
    decisions: list[int] = []
    decide = replicated.reconcile

    def count(*args: Any) -> Round:
        round = decide(*args)
        decisions.append(len(round.changes))
        return round

    monkeypatch.setattr(replicated, "reconcile", count)
    return decisions


def test_a_large_service_is_decided_about_seldom_and_written_in_transactions_that_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = OrchestrationBench()
    bench.behaviour.silent = frozenset([""])
    decisions = counted(bench, monkeypatch)
    bench.put(service_of(replicas=1250))
    bench.until(lambda: len(bench.tasks()) == 1250)
    bench.run_for(5)
    assert decisions == [CHANGES_MAX, 1050]
    assert sorted(task.slot for task in bench.tasks()) == list(range(1, 1251))
    scale(bench, 20)
    bench.until(lambda: len(bench.tasks()) == 20)
    assert len(decisions) <= 5


def test_scaling_down_between_the_transactions_of_a_large_round_is_seen_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = OrchestrationBench(slow=0.2)
    bench.behaviour.silent = frozenset([""])
    bench.put(service_of(replicas=900))
    bench.until(lambda: len(bench.tasks()) > 0)
    scale(bench, 300)
    bench.run_for(20)
    assert sorted(task.slot for task in bench.tasks() if task.desired_state == types.RUNNING) == list(range(1, 301))


def test_a_service_removed_in_the_middle_of_its_large_round_leaves_nothing() -> None:
    bench = OrchestrationBench(slow=0.2)
    bench.behaviour.silent = frozenset([""])
    bench.put(service_of(replicas=900))
    bench.until(lambda: len(bench.tasks()) > 0)
    bench.write(lambda tx: tx.delete(objects.Service, "web") and None)
    bench.until(lambda: bench.tasks() == [])
    bench.run_for(20)
    assert bench.tasks() == []


def test_tasks_of_a_large_spec_are_made_as_many_at_once_as_an_entry_holds() -> None:
    """200 of them are twice what one entry may hold."""
    bench = OrchestrationBench()
    bench.behaviour.silent = frozenset([""])
    service = service_of(replicas=230)
    service.spec.task.container.env.append("A=" + "x" * 16_000)
    bench.put(service)
    bench.until(lambda: len(bench.tasks()) == 230)
    bench.write(lambda tx: tx.delete(objects.Service, "web") and None)
    bench.until(lambda: bench.tasks() == [])


def test_down_and_up_again_at_once_leaves_as_many_tasks_as_wanted() -> None:
    bench = started(4, condition=types.RestartPolicy.NONE)
    scale(bench, 1)
    scale(bench, 4)
    bench.run_for(30)
    assert len(bench.running()) == 4


def test_removing_a_service_stops_its_tasks_before_they_are_forgotten() -> None:
    bench = started(3)
    bench.write(lambda tx: tx.delete(objects.Service, "web") and None)
    bench.run_for(0.5)
    assert {task.desired_state for task in bench.tasks()} == {types.REMOVE}
    assert {task.status.state for task in bench.tasks()} == {types.RUNNING}
    bench.until(lambda: bench.tasks() == [])


def test_a_task_that_fails_is_replaced_in_its_slot_after_the_delay() -> None:
    bench = started(2, **FAST)
    victim = bench.running()[0]
    bench.edit(objects.Task, victim.id, lambda task: setattr(task.status, "state", types.FAILED))
    took = bench.until(lambda: len(bench.running()) == 2)
    assert took >= FAST["delay"]
    replacement = next(task for task in bench.running() if task.slot == victim.slot)
    assert replacement.id != victim.id
    starts = [at for at, task, id in bench.seen if id == replacement.id and task.desired_state == types.RUNNING]
    made = next(at for at, _task, id in bench.seen if id == replacement.id)
    assert starts[0] - made == pytest.approx(FAST["delay"], abs=0.1)


def test_a_task_deleted_while_it_is_wanted_is_made_anew() -> None:
    bench = started(2)
    bench.write(lambda tx: tx.delete(objects.Task, bench.running()[0].id) and None)
    bench.until(lambda: len(bench.running()) == 2)


@pytest.mark.parametrize(
    ("condition", "end", "restarts"),
    [
        (types.RestartPolicy.NONE, types.FAILED, False),
        (types.RestartPolicy.ON_FAILURE, types.COMPLETE, False),
        (types.RestartPolicy.ON_FAILURE, types.FAILED, True),
        (types.RestartPolicy.ANY, types.COMPLETE, True),
    ],
)
def test_the_condition_decides_whether_a_task_comes_back(condition: int, end: int, restarts: bool) -> None:
    bench = started(1, condition=condition, delay=0.1)
    bench.edit(objects.Task, bench.running()[0].id, lambda task: setattr(task.status, "state", end))
    bench.run_for(30)
    assert len(bench.running()) == int(restarts)
    if not restarts:
        assert [task.desired_state for task in bench.tasks()] == [types.SHUTDOWN]


def test_a_task_is_tried_so_often_and_no_more() -> None:
    bench = OrchestrationBench()
    bench.behaviour.fail = frozenset(["bad"])
    bench.put(service_of(image="bad", delay=0.5, attempts=3))
    bench.run_for(60)
    tried = [task for task in bench.tasks() if task.status.state == types.FAILED]
    assert len(tried) == 1 + 3
    assert len(bench.tasks()) == 4


def test_attempts_already_made_count_after_the_actor_failed() -> None:
    bench = OrchestrationBench()
    bench.behaviour.fail = frozenset(["bad"])
    bench.put(service_of(image="bad", delay=2.0, attempts=4))
    bench.until(lambda: len(bench.tasks()) == 3)
    bench.crash("/replicated")
    bench.run_for(90)
    assert len(bench.tasks()) == 1 + 4


def test_a_window_lets_a_slow_failure_go_on_for_ever() -> None:
    bench = OrchestrationBench()
    bench.behaviour.fail = frozenset(["bad"])
    bench.put(service_of(image="bad", delay=4.0, attempts=2, window=3.0))
    bench.run_for(60)
    assert len({id for _at, _task, id in bench.seen}) >= 10


def test_history_keeps_so_many_tasks_of_a_slot() -> None:
    bench = OrchestrationBench(limit=3)
    bench.behaviour.fail = frozenset(["bad"])
    bench.put(service_of(image="bad", delay=0.2))
    bench.run_for(30)
    assert len({id for _at, _task, id in bench.seen}) > 10
    assert len(bench.tasks()) <= 4
    bench.edit(objects.Cluster, "cluster", lambda it: setattr(it.spec.orchestration, "task_history_retention_limit", 1))
    bench.run_for(5)
    assert len(bench.tasks()) <= 2


def test_a_drained_node_gives_up_its_tasks_without_delay() -> None:
    bench = started(3, delay=1000.0)
    bench.edit(objects.Node, "node0", lambda node: setattr(node.spec, "availability", specs.NodeSpec.DRAIN))
    bench.until(lambda: len(bench.running()) == 3 and all(task.node_id != "node0" for task in bench.running()), 10.0)


def test_tasks_of_a_node_that_went_down_run_elsewhere() -> None:
    bench = started(3, delay=1.0)
    bench.behaviour.silent = frozenset(["node1"])
    bench.edit(objects.Node, "node1", lambda node: setattr(node.status, "state", types.NodeStatus.DOWN))
    bench.until(lambda: len(bench.running()) == 3 and all(task.node_id != "node1" for task in bench.running()), 10.0)
    lost = [task for task in bench.tasks() if task.node_id == "node1"]
    assert [task.desired_state for task in lost] == [types.SHUTDOWN]


def test_tasks_of_a_removed_node_run_elsewhere() -> None:
    bench = started(3, delay=1.0)
    bench.behaviour.silent = frozenset(["node1"])
    bench.write(lambda tx: tx.delete(objects.Node, "node1") and None)
    bench.until(lambda: len(bench.running()) == 3 and all(task.node_id != "node1" for task in bench.running()), 10.0)


def test_an_unreachable_node_keeps_its_tasks_until_it_is_down() -> None:
    bench = started(3)
    before = {task.id for task in bench.running()}
    bench.edit(objects.Node, "node1", lambda node: setattr(node.status, "state", types.NodeStatus.UNKNOWN))
    bench.run_for(30)
    assert {task.id for task in bench.running()} == before


def test_a_removed_task_that_was_orphaned_is_forgotten() -> None:
    bench = started(3)
    bench.behaviour.silent = frozenset(["node1"])
    bench.edit(objects.Node, "node1", lambda node: setattr(node.status, "state", types.NodeStatus.DOWN))
    bench.write(lambda tx: tx.delete(objects.Service, "web") and None)
    bench.run_for(10)
    left = bench.tasks()
    assert [task.node_id for task in left] == ["node1"]
    bench.edit(objects.Task, left[0].id, lambda task: setattr(task.status, "state", types.ORPHANED))
    bench.until(lambda: bench.tasks() == [])


def test_a_failure_of_the_actor_loses_no_restart() -> None:
    bench = started(3, delay=3.0)
    victim = bench.running()[0].id
    bench.edit(objects.Task, victim, lambda task: setattr(task.status, "state", types.FAILED))
    bench.run_for(1.0)
    bench.crash("/replicated")
    took = bench.until(lambda: len(bench.running()) == 3)
    assert 1.5 < took < 4.0, "the rest of the delay, not none and not all of it again"


def test_work_that_came_up_while_the_actor_was_away_is_done() -> None:
    bench = started(2)
    bench.crash("/replicated")
    scale(bench, 4)
    bench.put(service_of("other", 2))
    bench.until(lambda: len(bench.running()) == 4 and len(bench.tasks("other")) == 2)


def test_a_task_held_by_somebody_else_starts_when_the_old_one_has_stopped() -> None:
    bench = started(1, delay=50.0)
    old = bench.running()[0]

    def replace(tx: Any) -> None:
        service = tx.get(objects.Service, "web")
        newer = objects.Service()
        newer.CopyFrom(service)
        newer.spec_version.index += 1
        tx.update(newer)
        apply(tx, [Desire(old.id, types.SHUTDOWN)])
        apply(tx, [Create(new_task("next", newer, None, tx.now, slot=1, desired=types.READY))])

    bench.write(replace)
    took = bench.until(lambda: [task.id for task in bench.running()] == ["next"], 10.0)
    assert took >= bench.behaviour.stop


def test_tasks_of_services_that_went_while_nobody_led_are_deleted() -> None:
    bench = started(2)
    stray = objects.Task(id="stray", service_id="gone", slot=1, desired_state=types.RUNNING)
    bench.put(stray)
    bench.crash("/replicated")
    bench.until(lambda: bench.published.view.get(objects.Task, "stray") is None)
    assert len(bench.running()) == 2


@pytest.mark.parametrize("slow", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(4))
def test_no_slot_ever_has_two_wanted_tasks_in_a_storm_of_changes(seed: int, slow: float) -> None:
    bench = started(4, seed, slow, delay=0.3)
    chance = bench.simulator.random
    for _round in range(40):
        running = bench.running()
        if running and chance.random() < 0.7:
            victim = running[int(chance.random() * len(running))].id
            bench.edit(objects.Task, victim, lambda task: setattr(task.status, "state", types.FAILED))
        if chance.random() < 0.4:
            scale(bench, int(chance.random() * 7))
        if chance.random() < 0.1:
            bench.crash("/replicated")
        bench.run_for(chance.random())
    scale(bench, 5)
    bench.until(lambda: len(bench.running()) == 5, 120.0)
    for _at, tasks in bench.history():
        slots = Counter(task.slot for task in tasks.values() if task.desired_state <= types.RUNNING)
        assert max(slots.values(), default=0) <= 1


def test_an_event_of_one_service_reads_nothing_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = started(3, delay=0.1)
    bench.behaviour.silent = frozenset([""])
    bench.put(service_of("large", 400))
    bench.until(lambda: len(bench.tasks("large")) == 400)
    bench.behaviour.silent = frozenset()
    bench.run_for(2)
    read: Counter[str] = Counter()
    view = type(bench.published.view)
    plain = view.find

    def counted(self: Any, kind: Any, index: str, key: Any) -> Any:
        found = plain(self, kind, index, key)
        read[str(key).split("/")[0]] += len(found)
        return found

    monkeypatch.setattr(view, "find", counted)
    whole = view.all
    monkeypatch.setattr(view, "all", lambda self, kind: read.update([kind.__name__]) or whole(self, kind))
    bench.edit(objects.Task, bench.running()[0].id, lambda task: setattr(task.status, "state", types.FAILED))
    bench.until(lambda: len(bench.running()) == 2)
    bench.until(lambda: len(bench.running()) == 3)
    assert read["web"] > 0
    assert read["large"] == 0
    assert read["Task"] == 0


def test_a_large_service_that_is_removed_leaves_nothing_behind() -> None:
    bench = OrchestrationBench()
    bench.behaviour.silent = frozenset([""])
    bench.put(service_of(replicas=450))
    bench.until(lambda: len(bench.tasks()) == 450)
    bench.write(lambda tx: tx.delete(objects.Service, "web") and None)
    bench.until(lambda: bench.tasks() == [])


def test_a_start_that_waits_for_a_task_on_a_node_comes_when_the_node_is_down() -> None:
    bench = started(3, delay=1.0)
    bench.behaviour.silent = frozenset(["node1"])
    bench.edit(objects.Node, "node1", lambda node: setattr(node.spec, "availability", specs.NodeSpec.DRAIN))
    bench.run_for(10)
    assert len([task for task in bench.running() if task.node_id != "node1"]) == 2
    bench.edit(objects.Node, "node1", lambda node: setattr(node.status, "state", types.NodeStatus.DOWN))
    bench.until(lambda: len([task for task in bench.running() if task.node_id != "node1"]) == 3, 5.0)


def test_a_replacement_rejected_before_its_start_is_replaced_in_turn() -> None:
    bench = started(1, delay=3.0)
    bench.edit(objects.Task, bench.running()[0].id, lambda task: setattr(task.status, "state", types.FAILED))
    bench.run_for(0.5)
    held = next(task for task in bench.tasks() if task.desired_state == types.READY)
    bench.edit(objects.Task, held.id, lambda task: setattr(task.status, "state", types.REJECTED))
    assert 5.0 < bench.until(lambda: len(bench.running()) == 1) < 7.0


def test_a_start_is_forgotten_when_its_task_is_given_up() -> None:
    bench = started(2, delay=500.0)
    bench.edit(objects.Task, bench.running()[0].id, lambda task: setattr(task.status, "state", types.FAILED))
    bench.run_for(1)
    actor = bench.stage.cells["/replicated"].instance
    assert actor.supervisor.next_at() is not None
    scale(bench, 0)
    bench.run_for(3)
    assert actor.supervisor.next_at() is None
