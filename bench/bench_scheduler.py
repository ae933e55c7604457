"""How long the scheduler takes to place many tasks at once, and one more task on a full cluster.

Prints figures, asserts none: ``python bench/bench_scheduler.py [tasks] [nodes]``.
"""

from __future__ import annotations

import sys
import time

from instant_log import Log

from actors.scheduler_actor import SchedulerActor
from actors.store_actor import StoreActor
from runtime.protocol.manager import LeaderContext
from runtime.protocol.store import Leading, WriteBatch
from runtime.stage.simulator import Simulator
from runtime.store.view import Published
from runtime.swarm.scheduling import Scheduler
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from runtime.wire.port import Credentials

GIB = 1 << 30
SERVICE = objects.Service(id="svc", spec_version=types.Version(index=1))


def make_node(number: int) -> objects.Node:
    """A ready node in one of ten zones."""
    return objects.Node(
        id=f"node{number:05}",
        spec=specs.NodeSpec(annotations=types.Annotations(labels={"zone": f"zone{number % 10}"})),
        description=types.NodeDescription(resources=types.Resources(nano_cpus=64 * 10**9, memory_bytes=256 * GIB)),
        status=types.NodeStatus(state=types.NodeStatus.READY),
    )


def make_task(number: int, service: str, spec: specs.TaskSpec) -> objects.Task:
    """A pending task of a service."""
    return objects.Task(
        id=f"{service}-{number:06}",
        service_id=service,
        slot=number + 1,
        spec=spec,
        spec_version=types.Version(index=1),
        status=types.TaskStatus(state=types.PENDING),
        desired_state=types.RUNNING,
    )


def measure(title: str, spec: specs.TaskSpec, tasks: int, nodes: int) -> None:
    """One group of tasks on an empty cluster, then one task more."""
    scheduler = Scheduler()
    for number in range(nodes):
        scheduler.put_node(make_node(number))
    for number in range(tasks):
        scheduler.put_task(make_task(number, "svc", spec), 0.0)
    begin = time.perf_counter()
    decisions = scheduler.run(0.0, lambda service_id: None)
    took = time.perf_counter() - begin
    placed = sum(decision.node_id is not None for decision in decisions)
    scheduler.put_task(make_task(tasks, "svc", spec), 0.0)
    begin = time.perf_counter()
    scheduler.run(0.0, lambda service_id: None)
    one = time.perf_counter() - begin
    print(f"{title:<24} {placed:>6} of {tasks} tasks on {nodes} nodes: {took:.3f} s; one more: {one * 1e3:.2f} ms")


def measure_services(spec: specs.TaskSpec, tasks: int, nodes: int, services: int) -> None:
    """Tasks of many services at once, each service with a look at every node."""
    scheduler = Scheduler()
    for number in range(nodes):
        scheduler.put_node(make_node(number))
    for number in range(tasks):
        scheduler.put_task(make_task(number, f"svc{number % services:04}", spec), 0.0)
    begin = time.perf_counter()
    decisions = scheduler.run(0.0, lambda service_id: None)
    took = time.perf_counter() - begin
    placed = sum(decision.node_id is not None for decision in decisions)
    print(f"{services} services{'':<11} {placed:>6} of {tasks} tasks on {nodes} nodes: {took:.3f} s")


def measure_waiting(spec: specs.TaskSpec, tasks: int, nodes: int) -> None:
    """Tasks that fit nowhere, and are tried again because a node changed."""
    scheduler = Scheduler()
    for number in range(nodes):
        scheduler.put_node(make_node(number))
    for number in range(tasks):
        scheduler.put_task(make_task(number, "svc", spec), 0.0)
    for decision in scheduler.run(0.0, lambda service_id: SERVICE):
        task = make_task(int(decision.task_id[4:]), "svc", spec)
        task.status.err = decision.err
        scheduler.put_task(task, 0.0)
    scheduler.put_node(make_node(0))
    begin = time.perf_counter()
    again = scheduler.run(0.0, lambda service_id: SERVICE)
    took = time.perf_counter() - begin
    print(f"{'waiting, a node changed':<24} {len(again):>6} of {tasks} explained again: {took:.3f} s")


def measure_actor(spec: specs.TaskSpec, tasks: int, nodes: int) -> None:
    """The scheduler's actor over a store whose log commits at once: decisions, transactions, events and all."""
    simulator = Simulator(1)
    stage = simulator.node("manager")
    published = Published()
    store = stage.mount("store", StoreActor, stage.mount("raft", Log, stage.at("/store")), published)
    store.tell(Leading(2, 8))
    simulator.settle()
    made = [make_node(number) for number in range(nodes)] + [make_task(number, "svc", spec) for number in range(tasks)]
    simulator.ask(store, WriteBatch([lambda tx, one=one: tx.create(one) and None for one in [SERVICE, *made]]), 600.0)
    stage.mount("scheduler", SchedulerActor, LeaderContext("m", "c", store, published, Credentials(b"")))
    begin, cpu = time.perf_counter(), time.process_time()
    simulator.run_until(
        lambda: published.view.count_found(objects.Task, "task_state", types.ASSIGNED) == tasks, within=600.0
    )
    took, spent = time.perf_counter() - begin, time.process_time() - cpu
    print(
        f"{'actor over a store':<24} {tasks:>6} tasks on {nodes} nodes read, placed, written: {took:.3f} s,"
        f" {spent:.3f} s CPU"
    )


def main() -> None:
    """Three kinds of service, many services, and tasks that have to wait."""
    tasks, nodes = (int(text) for text in (sys.argv[1:] + ["10000", "1000"][len(sys.argv) - 1 :])[:2])
    container = specs.ContainerSpec(image="nginx")
    reserve = types.ResourceRequirements(reservations=types.Resources(nano_cpus=10**9, memory_bytes=GIB))
    spread = types.PlacementPreference(spread=types.SpreadOver(spread_descriptor="node.labels.zone"))
    measure("plain", specs.TaskSpec(container=container), tasks, nodes)
    measure("reservations", specs.TaskSpec(container=container, resources=reserve), tasks, nodes)
    placement = types.Placement(constraints=["node.labels.zone != zone3"], preferences=[spread])
    full = specs.TaskSpec(container=container, resources=reserve, placement=placement)
    measure("constraints and spread", full, tasks, nodes)
    for services in (100, 1000):
        measure_services(full, tasks, nodes, services)
    measure_actor(specs.TaskSpec(container=container, resources=reserve), tasks, nodes)
    nowhere = specs.TaskSpec(container=container, placement=types.Placement(constraints=["node.id == none"]))
    measure_waiting(nowhere, tasks, nodes)


if __name__ == "__main__":
    main()
