"""A task that waits is woken within a second of its cure, whatever it waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from actors.allocator_actor import AllocatorActor
from actors.scheduler_actor import SchedulerActor
from runtime.swarm import generic
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.messages.part_bench import PartBench
from tests.unit.swarm_orchestration.placing import (
    GIB,
    HOST,
    attach,
    changed,
    given,
    ingress,
    network,
    node,
    port,
    service,
    task,
)

RUNNING = types.RUNNING
GPU = [generic.discrete("gpu", 1)]
Cure = Callable[[PartBench], None]


def on_node(id: str = "n") -> Callable[[Callable[[Any], object]], Cure]:
    return lambda edit: lambda bench: bench.edit(objects.Node, id, edit)


def ends(bench: PartBench) -> None:
    bench.edit(objects.Task, "other", lambda it: setattr(it.status, "state", types.COMPLETE))


def removed(bench: PartBench) -> None:
    bench.remove(objects.Task, "other")


def asks(edit: Callable[[objects.Task], object]) -> objects.Task:
    made: objects.Task = changed(task("t"), edit)
    return made


def log_driver(it: objects.Task) -> None:
    it.spec.log_driver.name = "fluentd"


def volume_driver(it: objects.Task) -> None:
    mount = it.spec.container.mounts.add(type=types.Mount.VOLUME, target="/v")
    mount.volume_options.driver_config.name = "nfs"


def plugin(kind: str, name: str) -> Callable[[objects.Node], object]:
    return lambda it: it.description.engine.plugins.add(type=kind, name=name)


def arm(it: objects.Task) -> None:
    it.spec.placement.platforms.add(architecture="arm64", os="linux")


def busy(**more: Any) -> objects.Task:
    return task("other", state=RUNNING, node_id="n", slot=9, **more)


def with_engine(kind: str) -> objects.Node:
    made: objects.Node = changed(node("n"), plugin(kind, "other"))
    return made


CAUSES: dict[str, tuple[list[Any], objects.Task, str, Cure]] = {
    "no node is there": ([], task("t"), "no suitable node", lambda bench: bench.put(node("n"))),
    "the node is down": (
        [node("n", state=types.NodeStatus.DOWN)],
        task("t"),
        "1 node not available for new tasks",
        on_node()(lambda it: setattr(it.status, "state", types.NodeStatus.READY)),
    ),
    "the node is drained": (
        [node("n", availability=specs.NodeSpec.DRAIN)],
        task("t"),
        "1 node not available for new tasks",
        on_node()(lambda it: setattr(it.spec, "availability", specs.NodeSpec.ACTIVE)),
    ),
    "the node is paused": (
        [node("n", availability=specs.NodeSpec.PAUSE)],
        task("t"),
        "1 node not available for new tasks",
        on_node()(lambda it: setattr(it.spec, "availability", specs.NodeSpec.ACTIVE)),
    ),
    "cpus that a task frees": ([node("n"), busy(cpus=4)], task("t", cpus=1), "insufficient resources", ends),
    "memory that a removed task frees": (
        [node("n"), busy(memory=8 * GIB)],
        task("t", memory=GIB),
        "insufficient resources",
        removed,
    ),
    "memory that the node gets": (
        [node("n", memory=GIB)],
        task("t", memory=2 * GIB),
        "insufficient resources",
        on_node()(lambda it: setattr(it.description.resources, "memory_bytes", 4 * GIB)),
    ),
    "a generic resource that a task frees": (
        [node("n", generic=GPU), changed(busy(generic=GPU), lambda it: it.assigned_generic_resources.extend(GPU))],
        task("t", generic=GPU),
        "insufficient resources",
        ends,
    ),
    "a generic resource that the node gets": (
        [node("n")],
        task("t", generic=GPU),
        "insufficient resources",
        on_node()(lambda it: it.description.resources.generic.extend(GPU)),
    ),
    "a log plugin": (
        [with_engine("Log")],
        asks(log_driver),
        "missing plugin",
        on_node()(plugin("Log", "fluentd")),
    ),
    "a volume plugin": (
        [with_engine("Volume")],
        asks(volume_driver),
        "missing plugin",
        on_node()(plugin("Volume", "nfs:latest")),
    ),
    "a node label": (
        [node("n")],
        task("t", constraints=["node.labels.rack == a"]),
        "scheduling constraints not satisfied",
        on_node()(lambda it: it.spec.annotations.labels.update(rack="a")),
    ),
    "an engine label": (
        [node("n")],
        task("t", constraints=["engine.labels.disk == ssd"]),
        "scheduling constraints not satisfied",
        on_node()(lambda it: it.description.engine.labels.update(disk="ssd")),
    ),
    "a role": (
        [node("n")],
        task("t", constraints=["node.role == manager"]),
        "scheduling constraints not satisfied",
        on_node()(lambda it: setattr(it, "role", types.MANAGER)),
    ),
    "an address": (
        [node("n")],
        task("t", constraints=["node.ip == 10.1.0.0/16"]),
        "scheduling constraints not satisfied",
        on_node()(lambda it: setattr(it.status, "addr", "10.1.0.7")),
    ),
    "a platform": (
        [node("n")],
        asks(arm),
        "unsupported platform",
        on_node()(lambda it: setattr(it.description.platform, "architecture", "aarch64")),
    ),
    "a host port": (
        [node("n"), busy(ports=[port(80, 8080, HOST)])],
        task("t", ports=[port(80, 8080, HOST)]),
        "host-mode port already in use",
        ends,
    ),
    "the tasks of the service on the node": (
        [node("n"), busy()],
        task("t", max_replicas=1),
        "max replicas per node limit exceed",
        ends,
    ),
    "a task of the service that only stops counting": (
        [node("n"), busy()],
        task("t", max_replicas=1),
        "max replicas per node limit exceed",
        lambda bench: bench.edit(objects.Task, "other", lambda it: setattr(it, "desired_state", types.SHUTDOWN)),
    ),
    "room on the node that the task came with": (
        [node("n"), busy(cpus=4)],
        task("t", cpus=1, node_id="n", slot=0),
        "insufficient resources",
        ends,
    ),
}


def waiting(cause: str) -> PartBench:
    things, waits, why, _ = CAUSES[cause]
    bench = PartBench(SchedulerActor, service(), *things, waits)
    bench.simulator.run_for(3)
    status = bench.task("t").status
    assert status.state == types.PENDING
    assert why in status.err
    return bench


@pytest.mark.parametrize("cause", CAUSES)
def test_a_waiting_task_is_placed_within_a_second_of_its_cure(cause: str) -> None:
    bench = waiting(cause)
    CAUSES[cause][3](bench)
    bench.wait(lambda: bench.task("t").status.state == types.ASSIGNED, 1.0)
    assert (bench.task("t").node_id, bench.task("t").status.err) == ("n", "")


@pytest.mark.parametrize("cause", CAUSES)
def test_also_when_the_cure_comes_while_the_scheduler_is_between_two_lives(cause: str) -> None:
    bench = waiting(cause)
    bench.crash()
    CAUSES[cause][3](bench)
    bench.wait(lambda: bench.task("t").status.state == types.ASSIGNED, 1.0)


# What waits for addresses and ports waits with the allocator.


def new(id: str, service: str = "", **more: Any) -> objects.Task:
    made: objects.Task = task(id, service, state=types.NEW, **more)
    return made


def on_backend(it: objects.Task) -> None:
    it.spec.networks.add(target="backend")


def one_free_address() -> objects.Network:
    made: objects.Network = given(network("backend", "10.0.1.0/30"))
    return made


NETWORK_CAUSES: dict[str, tuple[list[Any], objects.Task, str, Cure]] = {
    "a network that is not there": (
        [],
        changed(new("t"), on_backend),
        "network backend not found",
        lambda bench: bench.put(given(network("backend", "10.0.1.0/24"))),
    ),
    "an address that a task frees": (
        [one_free_address(), attach(new("other"), "backend")],
        attach(new("t"), "backend"),
        "no address is free on network backend",
        lambda bench: bench.edit(objects.Task, "other", lambda it: setattr(it.status, "state", types.FAILED)),
    ),
    "an address that a removed task frees": (
        [one_free_address(), attach(new("other"), "backend")],
        attach(new("t"), "backend"),
        "no address is free on network backend",
        removed,
    ),
    "a port that a removed service frees": (
        [service("taken", ports=[port(80, 8080)])],
        new("t", "web"),
        "port 8080/tcp is already published",
        lambda bench: bench.remove(objects.Service, "taken"),
    ),
}


def waiting_for_network(cause: str) -> PartBench:
    things, waits, why, _ = NETWORK_CAUSES[cause]
    bench = PartBench(AllocatorActor, ingress(), *things)
    bench.simulator.run_for(1)
    bench.put(service(ports=[port(80, 8080)] if waits.service_id else []), waits)
    bench.wait(lambda: why in bench.task("t").status.err)
    assert bench.task("t").status.state == types.NEW
    return bench


@pytest.mark.parametrize("cause", NETWORK_CAUSES)
def test_a_task_that_waits_for_the_allocator_goes_on_within_a_second_of_its_cure(cause: str) -> None:
    bench = waiting_for_network(cause)
    NETWORK_CAUSES[cause][3](bench)
    bench.wait(lambda: bench.task("t").status.state == types.PENDING, 1.0)
    assert bench.task("t").status.err == ""


@pytest.mark.parametrize("cause", NETWORK_CAUSES)
def test_also_when_the_cure_comes_while_the_allocator_is_between_two_lives(cause: str) -> None:
    bench = waiting_for_network(cause)
    bench.crash()
    NETWORK_CAUSES[cause][3](bench)
    bench.wait(lambda: bench.task("t").status.state == types.PENDING, 1.0)
