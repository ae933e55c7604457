"""GlobalActor: one task on every node, as nodes come, go, pause and drain."""

from __future__ import annotations

from typing import Any

import pytest

from actors.global_actor import GlobalActor
from runtime.swarm.defaults import to_duration
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.messages.orchestration_bench import OrchestrationBench
from tests.unit.swarm_orchestration.little_store import node_of_id, service_of


def running(**more: Any) -> OrchestrationBench:
    bench = OrchestrationBench()
    bench.stage.mount("global", GlobalActor, bench.context)
    service = service_of(delay=1.0)
    getattr(service.spec, "global").SetInParent()
    service.spec.update.monitor.CopyFrom(to_duration(1.0))
    service.spec.update.parallelism = 1
    service.spec.task.placement.constraints.extend(more.get("constraints", []))
    bench.put(service)
    bench.until(lambda: on_nodes(bench) == ["node0", "node1", "node2"])
    return bench


def on_nodes(bench: OrchestrationBench) -> list[str]:
    return sorted(task.node_id for task in bench.running())


def availability(bench: OrchestrationBench, value: int) -> None:
    bench.edit(objects.Node, "node1", lambda node: setattr(node.spec, "availability", value))


def test_a_node_that_joins_gets_its_task() -> None:
    bench = running()
    bench.put(node_of_id("node3"))
    bench.until(lambda: on_nodes(bench) == ["node0", "node1", "node2", "node3"])


def test_a_drained_node_loses_its_task_and_gets_it_back() -> None:
    bench = running()
    availability(bench, specs.NodeSpec.DRAIN)
    bench.until(lambda: on_nodes(bench) == ["node0", "node2"])
    availability(bench, specs.NodeSpec.ACTIVE)
    bench.until(lambda: on_nodes(bench) == ["node0", "node1", "node2"])


def test_a_node_that_is_removed_has_its_tasks_forgotten() -> None:
    bench = running()
    bench.write(lambda tx: tx.delete(objects.Node, "node1") and None)
    bench.until(lambda: [task.node_id for task in bench.tasks()].count("node1") == 0)


def test_a_task_that_fails_comes_back_on_its_node_after_the_delay() -> None:
    bench = running()
    victim = bench.running()[0]
    bench.edit(objects.Task, victim.id, lambda task: setattr(task.status, "state", types.FAILED))
    assert bench.until(lambda: on_nodes(bench) == ["node0", "node1", "node2"]) >= 1.0


def test_on_a_paused_node_a_task_that_fails_does_not_come_back() -> None:
    bench = running()
    availability(bench, specs.NodeSpec.PAUSE)
    bench.run_for(3)
    victim = next(task for task in bench.running() if task.node_id == "node1")
    bench.edit(objects.Task, victim.id, lambda task: setattr(task.status, "state", types.FAILED))
    bench.run_for(20)
    assert on_nodes(bench) == ["node0", "node2"]


@pytest.mark.parametrize("fails", [False, True])
def test_an_update_goes_from_node_to_node(fails: bool) -> None:
    bench = running()
    bench.run_for(0.5)
    bench.seen.clear()
    bench.update(lambda spec: setattr(spec.task.container, "image", "two"))
    if fails:
        bench.run_for(2)
        bench.crash("/global")
    bench.until(lambda: bench.service().update_status.state == types.UpdateStatus.COMPLETED)
    assert sorted(task.node_id for task in bench.running("two")) == ["node0", "node1", "node2"]
    for _at, tasks in bench.history():
        coming = [t for t in tasks.values() if t.spec.container.image == "two" and t.status.state < types.RUNNING]
        assert len(coming) <= 1


def test_removing_the_service_removes_its_tasks() -> None:
    bench = running()
    bench.write(lambda tx: tx.delete(objects.Service, "web") and None)
    bench.until(lambda: bench.tasks() == [])


def test_replicated_services_are_not_its_concern() -> None:
    bench = running()
    bench.put(service_of("other", replicas=2))
    bench.until(lambda: len(bench.tasks("other")) == 2)
    bench.run_for(5)
    assert [task.slot for task in bench.tasks("other")] in ([1, 2], [2, 1])
