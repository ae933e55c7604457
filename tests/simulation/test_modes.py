"""Services of every mode on a whole swarm under virtual time, from the control API to the executors."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runtime.wire.pb import objects_pb2, specs_pb2
from runtime.wire.pb import types_pb2 as types
from tests.simulation.cluster import Host, Swarm, replicated, wait, worker_token


def swarm_of(seed: int, hosts: int = 3) -> tuple[Swarm, Host]:
    """A manager and workers, all ready."""
    swarm = Swarm(seed, hosts)
    manager, *workers = swarm.boot()
    manager.init()
    token = worker_token(manager)
    for worker in workers:
        worker.join(manager, token)
    wait(swarm, lambda: all(node.status.state == types.NodeStatus.READY for node in nodes(manager)))
    return swarm, manager


def nodes(manager: Host) -> list[objects_pb2.Node]:
    return list(manager.control("ListNodes").nodes)


def node_of(manager: Host, host: Host) -> objects_pb2.Node:
    return next(node for node in nodes(manager) if node.description.hostname == host.name)


def change_node(manager: Host, host: Host, edit: Callable[[specs_pb2.NodeSpec], object]) -> None:
    node = node_of(manager, host)
    edit(node.spec)
    manager.control("UpdateNode", node_id=node.id, node_version=node.meta.version, spec=node.spec)


def of_mode(name: str, mode: str) -> specs_pb2.ServiceSpec:
    """A service of processes of another mode."""
    spec = replicated(name, 0)
    spec.ClearField("replicated")
    getattr(spec, mode).SetInParent()
    return spec


def update(manager: Host, service_id: str, edit: Callable[[specs_pb2.ServiceSpec], object]) -> objects_pb2.Service:
    service = manager.control("GetService", service_id=service_id).service
    edit(service.spec)
    request = {"service_id": service.id, "service_version": service.meta.version, "spec": service.spec}
    updated: objects_pb2.Service = manager.control("UpdateService", **request).service
    return updated


def places(swarm: Swarm, manager: Host, service_id: str) -> list[str]:
    """The names of the hosts on which the service runs as it is to."""
    names = {node.id: node.description.hostname for node in nodes(manager)}
    return sorted(names[task.node_id] for task in swarm.running(manager, service_id))


@pytest.mark.parametrize("seed", range(3))
def test_a_global_service_follows_nodes_that_are_drained_lost_labelled_and_removed(seed: int) -> None:
    swarm, manager = swarm_of(seed)
    _, one, two = swarm.hosts
    spec = of_mode("everywhere", "global")
    spec.task.placement.constraints.append("node.labels.out != yes")
    service = manager.control("CreateService", spec=spec).service

    def runs_on(*hosts: Host) -> None:
        wanted = sorted(host.name for host in hosts)
        wait(swarm, lambda: places(swarm, manager, service.id) == wanted)

    runs_on(manager, one, two)
    change_node(manager, one, lambda node: setattr(node, "availability", specs_pb2.NodeSpec.DRAIN))
    runs_on(manager, two)
    change_node(manager, one, lambda node: setattr(node, "availability", specs_pb2.NodeSpec.ACTIVE))
    runs_on(manager, one, two)
    change_node(manager, one, lambda node: node.annotations.labels.update(out="yes"))
    runs_on(manager, two)
    change_node(manager, one, lambda node: node.annotations.labels.clear())
    runs_on(manager, one, two)
    two.crash()
    two.executor.power_off()
    wait(swarm, lambda: node_of(manager, two).status.state == types.NodeStatus.DOWN)
    runs_on(manager, one)
    two.boot()
    runs_on(manager, one, two)
    two.crash()
    two.executor.power_off()
    wait(swarm, lambda: node_of(manager, two).status.state == types.NodeStatus.DOWN)
    gone = node_of(manager, two).id
    manager.control("RemoveNode", node_id=gone)
    wait(swarm, lambda: all(task.node_id != gone for task in swarm.tasks(manager, service.id)))
    runs_on(manager, one)


@pytest.mark.parametrize("seed", range(3))
def test_an_update_of_a_global_service_leaves_a_paused_node_until_it_is_active_again(seed: int) -> None:
    swarm, manager = swarm_of(seed)
    spec = of_mode("everywhere", "global")
    spec.update.parallelism = 2
    spec.update.monitor.FromSeconds(1)
    service = manager.control("CreateService", spec=spec).service
    wait(swarm, lambda: len(places(swarm, manager, service.id)) == 3)
    paused = swarm.hosts[1]
    change_node(manager, paused, lambda node: setattr(node, "availability", specs_pb2.NodeSpec.PAUSE))
    update(manager, service.id, lambda spec: spec.task.container.command.append("1"))

    def status() -> int:
        return int(manager.control("GetService", service_id=service.id).service.update_status.state)

    def new() -> set[str]:
        return {task.node_id for task in swarm.running(manager, service.id) if len(task.spec.container.command) == 3}

    wait(swarm, lambda: status() == types.UpdateStatus.COMPLETED)
    held_back = node_of(manager, paused).id
    assert new() == {node.id for node in nodes(manager)} - {held_back}
    assert len(places(swarm, manager, service.id)) == 3
    change_node(manager, paused, lambda node: setattr(node, "availability", specs_pb2.NodeSpec.ACTIVE))
    wait(swarm, lambda: new() == {node.id for node in nodes(manager)})


def completed(swarm: Swarm, manager: Host, service_id: str, iteration: int) -> list[objects_pb2.Task]:
    return [
        task
        for task in swarm.tasks(manager, service_id)
        if task.status.state == types.COMPLETE and task.job_iteration.index == iteration
    ]


@pytest.mark.parametrize("seed", range(3))
def test_a_replicated_job_completes_although_a_worker_and_then_the_manager_die(seed: int) -> None:
    swarm, manager = swarm_of(seed)
    spec = replicated("job", 0, "sleep", "8")
    spec.replicated_job.max_concurrent = 4
    spec.replicated_job.total_completions = 9
    service = manager.control("CreateService", spec=spec).service
    wait(swarm, lambda: any(task.status.state == types.RUNNING for task in swarm.tasks(manager, service.id)))
    swarm.hosts[1].crash()
    swarm.hosts[1].executor.power_off()
    wait(swarm, lambda: bool(completed(swarm, manager, service.id, 0)))
    manager.crash()
    manager.boot()
    swarm.simulator.run_for(5)
    wait(swarm, lambda: len(completed(swarm, manager, service.id, 0)) == 9, 300)
    swarm.simulator.run_for(60)
    assert sorted(task.slot for task in completed(swarm, manager, service.id, 0)) == list(range(9))
    (status,) = manager.control("ListServiceStatuses", services=[service.id]).statuses
    assert (status.desired_tasks, status.completed_tasks) == (4, 9)


@pytest.mark.parametrize("seed", range(3))
def test_a_global_job_runs_on_every_node_also_on_one_that_comes_back_and_again_after_an_update(seed: int) -> None:
    swarm, manager = swarm_of(seed)
    away = swarm.hosts[2]
    away.crash()
    away.executor.power_off()
    wait(swarm, lambda: node_of(manager, away).status.state == types.NodeStatus.DOWN)
    spec = of_mode("job", "global_job")
    spec.task.container.command[:] = ["sleep", "3"]
    service = manager.control("CreateService", spec=spec).service
    wait(swarm, lambda: len(completed(swarm, manager, service.id, 0)) == 2)
    away.boot()
    wait(swarm, lambda: len(completed(swarm, manager, service.id, 0)) == 3)
    update(manager, service.id, lambda spec: spec.task.container.env.append("AGAIN=1"))
    wait(swarm, lambda: len(completed(swarm, manager, service.id, 1)) == 3)
    assert {task.node_id for task in completed(swarm, manager, service.id, 1)} == {node.id for node in nodes(manager)}
