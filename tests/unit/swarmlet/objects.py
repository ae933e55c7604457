"""Services and tasks as a manager lists them."""

from __future__ import annotations

from typing import Any

from runtime.wire.pb import objects_pb2, types_pb2


def service(name: str = "st_web", replicas: int = 2, version: int = 5, **labels: str) -> objects_pb2.Service:
    found = objects_pb2.Service(id=f"id-{name}")
    found.spec.annotations.name = name
    found.spec.annotations.labels.update(labels)
    found.spec.task.container.image = "host"
    found.spec.replicated.replicas = replicas
    found.spec_version.index = version
    found.meta.version.index = version
    return found


def task(of: objects_pb2.Service, slot: int, state: int = types_pb2.RUNNING, **fields: Any) -> objects_pb2.Task:
    found = objects_pb2.Task(id=f"{of.id}-{slot}", service_id=of.id, slot=slot, desired_state=types_pb2.RUNNING)
    found.spec.CopyFrom(of.spec.task)
    found.spec_version.CopyFrom(of.spec_version)
    found.service_annotations.name = of.spec.annotations.name
    found.status.state = state  # type: ignore[assignment]
    for name, value in fields.items():
        target = found.status if name in ("err", "message") else found
        setattr(target, name, value)
    return found
