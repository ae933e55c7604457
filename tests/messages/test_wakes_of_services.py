"""What a service waits for with its orchestrator, its updater or an operator: a second after the cure it goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from actors.allocator_actor import AllocatorActor
from actors.global_actor import GlobalActor
from actors.jobs_actor import JobsActor
from runtime.swarm.defaults import to_duration
from runtime.swarm.service_spec import rolled_back
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.messages.orchestration_bench import OrchestrationBench
from tests.messages.part_bench import PartBench
from tests.unit.swarm_orchestration.little_store import service_of
from tests.unit.swarm_orchestration.placing import ingress, port, service, task

SECOND = 1.0
Step = Callable[[OrchestrationBench], object]
READY, DOWN = types.NodeStatus.READY, types.NodeStatus.DOWN
ACTIVE, PAUSE, DRAIN = specs.NodeSpec.ACTIVE, specs.NodeSpec.PAUSE, specs.NodeSpec.DRAIN


def wanted_on(bench: OrchestrationBench, node_id: str = "") -> list[objects.Task]:
    """Tasks that are to live and have not ended, on a node or anywhere."""
    return [
        task
        for task in bench.tasks()
        if task.desired_state <= types.COMPLETE and task.status.state <= types.RUNNING and node_id in ("", task.node_id)
    ]


def edit_node(edit: Callable[[objects.Node], object], id: str = "node1") -> Step:
    return lambda bench: bench.edit(objects.Node, id, edit)


def availability(value: int) -> Step:
    return edit_node(lambda node: setattr(node.spec, "availability", value))


def state(value: int) -> Step:
    return edit_node(lambda node: setattr(node.status, "state", value))


# Services and jobs of each node: the nodes that they leave out

LEFT_OUT: dict[str, tuple[Step, Step]] = {
    "a label": (
        lambda bench: None,
        edit_node(lambda node: node.spec.annotations.labels.update(disk="ssd")),
    ),
    "a drained node": (availability(DRAIN), availability(ACTIVE)),
    "a paused node": (availability(PAUSE), availability(ACTIVE)),
    "a node that is down": (state(DOWN), state(READY)),
}


@pytest.mark.parametrize("cause", LEFT_OUT)
@pytest.mark.parametrize("mode", ["global", "global_job"])
def test_a_node_that_was_left_out_gets_its_task_within_a_second_of_the_cure(mode: str, cause: str) -> None:
    bench = OrchestrationBench()
    bench.stage.mount("global", GlobalActor, bench.context)
    bench.stage.mount("jobs", JobsActor, bench.context)
    before, cure = LEFT_OUT[cause]
    before(bench)
    made = service_of()
    getattr(made.spec, mode).SetInParent()
    if cause == "a label":
        made.spec.task.placement.constraints.append("node.labels.disk == ssd")
    bench.put(made)
    bench.run_for(10)
    assert wanted_on(bench, "node1") == []
    cure(bench)
    bench.until(lambda: len(wanted_on(bench, "node1")) == 1, SECOND)


# Replicated services


def replicated(replicas: int = 1, **restart: Any) -> OrchestrationBench:
    bench = OrchestrationBench()
    made = service_of(replicas=replicas, **restart)
    made.spec.update.monitor.CopyFrom(to_duration(1.0))
    bench.put(made)
    bench.until(lambda: len(bench.running()) == replicas)
    return bench


def force(spec: specs.ServiceSpec) -> None:
    spec.task.force_update += 1


def test_a_place_that_its_policy_gave_up_is_filled_within_a_second_of_a_forced_update() -> None:
    bench = replicated(condition=types.RestartPolicy.NONE)
    (task,) = bench.running()
    bench.edit(objects.Task, task.id, lambda it: setattr(it.status, "state", types.FAILED))
    bench.run_for(20)
    assert wanted_on(bench) == []
    bench.update(force)
    bench.until(lambda: len(wanted_on(bench)) == 1, SECOND)


def test_a_replacement_that_waits_for_the_old_task_starts_within_a_second_of_its_end() -> None:
    bench = replicated(delay=0.0)
    (old,) = bench.running()
    bench.behaviour.stop = 30.0
    bench.edit(objects.Node, old.node_id, lambda node: setattr(node.spec, "availability", DRAIN))
    bench.run_for(20)
    (new,) = wanted_on(bench)
    assert new.desired_state == types.READY
    bench.edit(objects.Task, old.id, lambda it: setattr(it.status, "state", types.SHUTDOWN))
    bench.until(lambda: wanted_on(bench)[0].desired_state == types.RUNNING, SECOND)


def test_the_tasks_of_a_lost_node_have_replacements_within_a_second() -> None:
    bench = replicated(3, delay=0.0)
    lost = bench.running()[0].node_id
    bench.edit(objects.Node, lost, lambda node: setattr(node.status, "state", DOWN))
    bench.until(lambda: len([task for task in wanted_on(bench) if task.node_id != lost]) == 3, SECOND)


@pytest.mark.parametrize("cure", ["an update", "a rollback"])
def test_a_paused_update_goes_on_within_a_second_of_what_the_operator_does(cure: str) -> None:
    bench = replicated(2, delay=60.0)
    bench.behaviour.fail = frozenset({"bad"})
    bench.update(lambda spec: setattr(spec.task.container, "image", "bad"))
    bench.until(lambda: bench.service().update_status.state == types.UpdateStatus.PAUSED)
    bench.run_for(20)
    known = {task.id for task in bench.tasks()}
    if cure == "an update":
        bench.update(lambda spec: setattr(spec.task.container, "image", "three"))
    else:
        bench.write(lambda tx: tx.update(rolled_back(bench.service(), tx.now)) and None)
    good = bench.service().spec.task.container.image
    assert good in ("three", "one")
    bench.until(
        lambda: any(task.spec.container.image == good and task.id not in known for task in wanted_on(bench)), SECOND
    )


# Jobs


def job(**mode: int) -> OrchestrationBench:
    bench = OrchestrationBench()
    bench.stage.mount("jobs", JobsActor, bench.context)
    made = service_of(delay=0.0, condition=types.RestartPolicy.NONE)
    made.job_status.SetInParent()
    for name, value in {"total_completions": 2, "max_concurrent": 2, **mode}.items():
        setattr(made.spec.replicated_job, name, value)
    bench.put(made)
    return bench


def test_a_job_that_may_run_nothing_at_once_begins_within_a_second_of_being_let() -> None:
    bench = job(max_concurrent=0)
    bench.run_for(10)
    assert wanted_on(bench) == []
    bench.update(lambda spec: setattr(spec.replicated_job, "max_concurrent", 2))
    bench.until(lambda: len(wanted_on(bench)) == 2, SECOND)


def test_a_job_that_was_given_up_begins_anew_within_a_second_of_its_next_iteration() -> None:
    bench = job()
    bench.until(lambda: len(wanted_on(bench)) == 2)
    for each in wanted_on(bench):
        bench.edit(objects.Task, each.id, lambda it: setattr(it.status, "state", types.FAILED))
    bench.run_for(20)
    assert wanted_on(bench) == []
    bench.update(force)
    bench.until(lambda: len([task for task in wanted_on(bench) if task.job_iteration.index == 1]) == 2, SECOND)


# The allocator


def test_tasks_of_a_published_service_go_on_within_a_second_of_the_ingress_network() -> None:
    waits = task("t", "web", state=types.NEW)
    bench = PartBench(AllocatorActor, service(ports=[port(80, 8080)]), waits)
    bench.wait(lambda: "no ingress network is present" in bench.task("t").status.err)
    bench.simulator.run_for(20)
    bench.put(ingress())
    bench.wait(lambda: bench.task("t").status.state == types.PENDING, SECOND)
    assert bench.task("t").status.err == ""
