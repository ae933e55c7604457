"""ConstraintEnforcerActor: what it rejects moves elsewhere."""

from __future__ import annotations

from typing import Any

from actors.constraint_enforcer_actor import ConstraintEnforcerActor
from runtime.swarm.enforcer import MESSAGE
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.messages.orchestration_bench import OrchestrationBench
from tests.unit.swarm_orchestration.little_store import service_of


def label(bench: OrchestrationBench, node: str, **labels: str) -> None:
    def edit(it: Any) -> None:
        it.spec.annotations.labels.clear()
        it.spec.annotations.labels.update(labels)

    bench.edit(objects.Node, node, edit)


def constrained(*constraints: str) -> objects.Service:
    service = service_of(replicas=3, delay=0.2)
    service.spec.task.placement.constraints.extend(constraints)
    return service


def running(*constraints: str) -> OrchestrationBench:
    bench = OrchestrationBench()
    bench.put(constrained(*constraints))
    bench.until(lambda: len(bench.running()) == 3)
    return bench


def rejected(bench: OrchestrationBench) -> set[str]:
    return {task.node_id for _at, task, _id in bench.seen if task is not None and task.status.state == types.REJECTED}


def test_a_node_that_stops_fitting_has_its_tasks_rejected_and_restarted() -> None:
    bench = running("node.labels.zone != east")
    bench.stage.mount("enforcer", ConstraintEnforcerActor, bench.context)
    bench.run_for(2)
    assert rejected(bench) == set()
    label(bench, "node1", zone="east")
    bench.until(lambda: rejected(bench) == {"node1"})
    task = next(each for each in bench.tasks() if each.status.state == types.REJECTED)
    assert task.status.message == MESSAGE
    bench.until(lambda: task.slot in {each.slot for each in bench.running()} and task not in bench.running())


def test_nodes_that_do_not_fit_are_found_in_the_beginning() -> None:
    bench = running("node.labels.zone != east")
    label(bench, "node2", zone="east")
    bench.run_for(1)
    assert rejected(bench) == set()
    bench.stage.mount("enforcer", ConstraintEnforcerActor, bench.context)
    bench.until(lambda: rejected(bench) == {"node2"})


def test_a_node_that_is_made_active_again_is_looked_at() -> None:
    bench = running("node.labels.zone != east")
    bench.stage.mount("enforcer", ConstraintEnforcerActor, bench.context)
    bench.edit(objects.Node, "node0", lambda node: setattr(node.spec, "availability", specs.NodeSpec.PAUSE))
    label(bench, "node0", zone="east")
    bench.run_for(2)
    assert rejected(bench) == set()
    bench.edit(objects.Node, "node0", lambda node: setattr(node.spec, "availability", specs.NodeSpec.ACTIVE))
    bench.until(lambda: rejected(bench) == {"node0"})


def test_a_change_that_cannot_matter_writes_nothing() -> None:
    bench = running("node.labels.zone != east")
    bench.stage.mount("enforcer", ConstraintEnforcerActor, bench.context)
    bench.run_for(2)
    bench.edit(objects.Node, "node0", lambda node: setattr(node.status, "message", "still here"))
    version = bench.published.view.version
    bench.run_for(10)
    assert bench.published.view.version == version
