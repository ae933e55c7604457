"""A store for tests of decisions: the real views and transactions, without log or actors."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, TypeVar

from runtime.store.changes import apply
from runtime.store.transaction import Transaction
from runtime.store.view import View
from runtime.swarm.defaults import to_duration
from runtime.swarm.service_spec import to_timestamp
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

R = TypeVar("R")
NOW = 1_700_000_000.0


class LittleStore:
    """``run`` carries out one transaction; ``now`` is the time of day that it sees."""

    def __init__(self) -> None:
        self.view = View()
        self.now = NOW
        self._ids = count(1)

    def new_id(self) -> str:
        return f"t{next(self._ids):05}"

    def run(self, step: Callable[[Transaction], R]) -> R:
        version = self.view.version + 1
        tx = Transaction(self.view, version, self.now)
        value = step(tx)
        check_no_desire_goes_back(tx)
        self.view = apply(self.view, tx.changes, version + 1)
        return value

    def put(self, *things: Any) -> None:
        def step(tx: Transaction) -> None:
            for thing in things:
                if tx.get(type(thing), thing.id) is None:
                    tx.create(thing)
                else:
                    tx.update(thing)

        self.run(step)

    def edit(self, kind: type[Any], id: str, edit: Callable[[Any], object]) -> Any:
        def step(tx: Transaction) -> None:
            new = kind()
            new.CopyFrom(tx.get(kind, id))
            edit(new)
            tx.update(new)

        self.run(step)
        return self.view.get(kind, id)

    def delete(self, kind: type[Any], id: str) -> None:
        self.run(lambda tx: tx.delete(kind, id))

    def task(self, id: str) -> objects.Task:
        found = self.view.get(objects.Task, id)
        assert found is not None
        return found

    def service(self, id: str = "web") -> objects.Service:
        found = self.view.get(objects.Service, id)
        assert found is not None
        return found

    def tasks(self, service: str = "web") -> list[objects.Task]:
        return self.view.find(objects.Task, "service", service)

    def observe(self, id: str, state: types.TaskState, at: float | None = None) -> objects.Task:
        def edit(task: objects.Task) -> None:
            task.status.state = state
            task.status.timestamp.CopyFrom(to_timestamp(self.now if at is None else at))

        found: objects.Task = self.edit(objects.Task, id, edit)
        return found


def check_no_desire_goes_back(tx: Transaction) -> None:
    for change in tx.changes:
        if change.kind is objects.Task and change.old is not None and change.new is not None:
            assert change.new.desired_state >= change.old.desired_state


def service_of(id: str = "web", replicas: int = 1, image: str = "one", **restart: Any) -> objects.Service:
    """A replicated service; ``restart``: condition, delay, attempts, window."""
    service = objects.Service(id=id, spec_version=types.Version(index=1))
    service.spec.annotations.name = id
    service.spec.task.container.image = image
    service.spec.replicated.replicas = replicas
    if restart:
        policy = service.spec.task.restart
        policy.condition = restart.get("condition", types.RestartPolicy.ANY)
        policy.max_attempts = restart.get("attempts", 0)
        if "delay" in restart:
            policy.delay.CopyFrom(to_duration(restart["delay"]))
        if "window" in restart:
            policy.window.CopyFrom(to_duration(restart["window"]))
    return service


def task_of(service: objects.Service, id: str, slot: int = 1, **more: Any) -> objects.Task:
    """A task of a service's present spec; ``more``: state, desired, node, at."""
    task = objects.Task(id=id, service_id=service.id, slot=slot, spec=service.spec.task)
    task.spec_version.CopyFrom(service.spec_version)
    task.status.state = more.get("state", types.RUNNING)
    task.status.timestamp.CopyFrom(to_timestamp(more.get("at", NOW)))
    task.desired_state = more.get("desired", types.RUNNING)
    task.node_id = more.get("node", "")
    return task


def node_of_id(id: str, **more: Any) -> objects.Node:
    """A ready, active node; ``more``: state, availability, labels."""
    node = objects.Node(id=id)
    node.status.state = more.get("state", types.NodeStatus.READY)
    node.spec.availability = more.get("availability", 0)
    node.spec.annotations.labels.update(more.get("labels", {}))
    return node


def cluster_with(limit: int) -> objects.Cluster:
    cluster = objects.Cluster(id="cluster")
    cluster.spec.annotations.name = "default"
    cluster.spec.orchestration.task_history_retention_limit = limit
    return cluster
