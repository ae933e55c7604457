"""JobsActor: jobs run to completion through failures, lost nodes, updates and lives of the actor."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from actors.jobs_actor import JobsActor
from runtime.swarm.service_spec import rolled_back
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.messages.orchestration_bench import OrchestrationBench
from tests.unit.swarm_orchestration.little_store import node_of_id, service_of

PATH = "/jobs"


def job_bench(total: int = 4, concurrent: int = 2, *, per_node: bool = False, **restart: Any) -> OrchestrationBench:
    bench = OrchestrationBench()
    bench.stage.mount("jobs", JobsActor, bench.context)
    service = service_of(**{"delay": 1.0, **restart})
    service.job_status.SetInParent()
    if per_node:
        service.spec.global_job.SetInParent()
    else:
        service.spec.replicated_job.max_concurrent = concurrent
        service.spec.replicated_job.total_completions = total
    bench.put(service)
    return bench


def done(bench: OrchestrationBench, iteration: int = 0) -> list[int]:
    """The slots that the iteration has completed, as often as it did."""
    return sorted(
        task.slot
        for task in bench.tasks()
        if task.status.state == types.COMPLETE and task.job_iteration.index == iteration
    )


def most_at_once(bench: OrchestrationBench) -> int:
    """How many tasks of one iteration were to complete and had not, at most."""
    most = 0
    for _at, tasks in bench.history():
        open = [
            task.job_iteration.index
            for task in tasks.values()
            if task.desired_state <= types.COMPLETE and task.status.state != types.COMPLETE
        ]
        most = max(most, *Counter(open).values(), 0)
    return most


def test_a_job_completes_with_no_more_at_once_than_it_may() -> None:
    bench = job_bench(5, 2)
    bench.until(lambda: done(bench) == [0, 1, 2, 3, 4])
    bench.run_for(30)
    assert len(bench.tasks()) == 5
    assert most_at_once(bench) == 2


def test_a_failed_task_is_run_again_in_its_slot_after_the_delay() -> None:
    bench = job_bench(2, 2)
    bench.until(lambda: sum(task.status.state == types.RUNNING for task in bench.tasks()) == 2)
    victim = next(task for task in bench.tasks() if task.slot == 0)
    bench.edit(objects.Task, victim.id, lambda task: setattr(task.status, "state", types.FAILED))
    begun = bench.simulator.time
    bench.until(lambda: done(bench) == [0, 1])
    again = next(task for task in bench.tasks() if task.slot == 0 and task.id != victim.id)
    started = next(
        at
        for at, task, id in bench.seen
        if id == again.id and task is not None and task.desired_state == types.COMPLETE
    )
    assert started - begun >= 1.0


def test_slots_that_fail_for_good_are_given_up_and_the_others_complete() -> None:
    bench = job_bench(3, 1, attempts=1)
    bench.behaviour.fail = frozenset(["one"])
    bench.run_for(60)
    tasks = bench.tasks()
    assert Counter(task.slot for task in tasks) == {0: 2, 1: 2, 2: 2}
    assert all(task.status.state == types.FAILED for task in tasks)
    bench.behaviour.fail = frozenset()
    bench.update(lambda spec: None)
    bench.until(lambda: done(bench, 1) == [0, 1, 2])


def test_without_restarts_each_slot_is_tried_once_also_across_lives() -> None:
    bench = job_bench(3, 1, condition=types.RestartPolicy.NONE)
    bench.behaviour.fail = frozenset(["one"])
    bench.run_for(5)
    bench.crash(PATH)
    bench.run_for(30)
    assert sorted(task.slot for task in bench.tasks()) == [0, 1, 2]


def test_an_update_runs_the_job_anew_and_ends_what_runs() -> None:
    bench = job_bench(3, 3)
    bench.behaviour.work = 1000.0
    bench.until(lambda: sum(task.status.state == types.RUNNING for task in bench.tasks()) == 3)
    bench.behaviour.work = 1.0
    bench.update(lambda spec: setattr(spec.task.container, "image", "two"))
    bench.until(lambda: done(bench, 1) == [0, 1, 2])
    bench.run_for(5)
    assert {task.spec.container.image for task in bench.tasks()} == {"two"}
    assert not bench.service().HasField("update_status")


def test_a_manual_rollback_of_a_job_runs_the_previous_spec_and_comes_to_an_end() -> None:
    bench = job_bench(1, 1)
    bench.until(lambda: done(bench) == [0])
    bench.update(lambda spec: setattr(spec.task.container, "image", "two"))
    bench.until(lambda: done(bench, 1) == [0])
    bench.write(lambda tx: tx.update(rolled_back(bench.service(), tx.now)) and None)
    bench.until(lambda: done(bench, 2) == [0])
    bench.until(lambda: bench.service().update_status.state == types.UpdateStatus.ROLLBACK_COMPLETED)
    assert bench.updaters() == []
    last = next(task for task in bench.tasks() if task.job_iteration.index == 2)
    assert last.spec.container.image == "one"


@pytest.mark.parametrize("when", [0.2, 1.0, 3.0])
def test_a_new_life_goes_on_and_runs_nothing_twice(when: float) -> None:
    bench = job_bench(4, 2)
    bench.run_for(when)
    bench.crash(PATH)
    bench.until(lambda: done(bench) == [0, 1, 2, 3])
    bench.run_for(30)
    assert len(bench.tasks()) == 4
    assert most_at_once(bench) <= 2


def test_what_ran_on_a_node_that_is_lost_or_drained_is_run_elsewhere() -> None:
    bench = job_bench(3, 3)
    bench.behaviour.work = 20.0
    bench.until(lambda: sum(task.status.state == types.RUNNING for task in bench.tasks()) == 3)
    bench.behaviour.silent = frozenset(["node0"])
    bench.edit(objects.Node, "node0", lambda node: setattr(node.status, "state", types.NodeStatus.DOWN))
    bench.edit(objects.Node, "node1", lambda node: setattr(node.spec, "availability", specs.NodeSpec.DRAIN))
    bench.until(lambda: done(bench) == [0, 1, 2])
    assert {task.node_id for task in bench.tasks() if task.status.state == types.COMPLETE} == {"node2"}


def test_a_global_job_runs_once_on_each_node_and_on_those_that_join_later() -> None:
    bench = job_bench(per_node=True)

    def where() -> list[str]:
        return sorted(task.node_id for task in bench.tasks() if task.status.state == types.COMPLETE)

    bench.until(lambda: where() == ["node0", "node1", "node2"])
    bench.put(node_of_id("node3"))
    bench.until(lambda: where() == ["node0", "node1", "node2", "node3"])
    bench.edit(objects.Node, "node3", lambda node: setattr(node.spec, "availability", specs.NodeSpec.DRAIN))
    bench.edit(objects.Node, "node3", lambda node: setattr(node.spec, "availability", specs.NodeSpec.ACTIVE))
    bench.crash(PATH)
    bench.run_for(30)
    assert len(bench.tasks()) == 4


def test_a_node_that_is_drained_in_the_middle_of_a_global_job_runs_it_when_it_is_back() -> None:
    bench = job_bench(per_node=True)
    bench.behaviour.work = 5.0
    bench.until(lambda: sum(task.status.state == types.RUNNING for task in bench.tasks()) == 3)
    bench.edit(objects.Node, "node1", lambda node: setattr(node.spec, "availability", specs.NodeSpec.DRAIN))
    bench.run_for(20)
    states = {task.node_id: task.status.state for task in bench.tasks()}
    assert states == {"node0": types.COMPLETE, "node1": types.SHUTDOWN, "node2": types.COMPLETE}
    bench.edit(objects.Node, "node1", lambda node: setattr(node.spec, "availability", specs.NodeSpec.ACTIVE))
    bench.until(lambda: sum(task.status.state == types.COMPLETE for task in bench.tasks()) == 3)


@pytest.mark.parametrize("per_node", [False, True])
def test_removing_a_job_ends_its_tasks(per_node: bool) -> None:
    bench = job_bench(per_node=per_node)
    bench.run_for(1)
    bench.write(lambda tx: tx.delete(objects.Service, "web") and None)
    bench.until(lambda: bench.tasks() == [])


def test_other_modes_are_not_its_concern() -> None:
    bench = job_bench(1, 1)
    bench.put(service_of("other", replicas=2))
    bench.until(lambda: len(bench.tasks("other")) == 2)
    bench.run_for(5)
    assert sorted(task.slot for task in bench.tasks("other")) == [1, 2]
