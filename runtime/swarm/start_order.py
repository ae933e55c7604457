"""Which services are to be up before another one starts for the first time (label ``swarmlet.start-after``).

Rules owned here:
1. A name means the service of that name, else the one of the same stack that is called so there.
2. A service is up while a task of it runs (which one with a health check does once it is healthy); a job is up once its
   present iteration is complete.
3. Only a first start waits: once a node was given a task of the service, whatever becomes of it and of those before it,
   nothing of it waits any more. So no restart, no scaling and no update ever hangs on another service.
4. Services that wait for each other would never start: who would close such a circle is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from runtime.errors import invalid
from runtime.swarm import jobs
from runtime.swarm.labels import START_AFTER, starts_after
from runtime.swarm.ports import View
from runtime.swarm.service_spec import is_job
from runtime.swarm.task_model import wanted
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

STACK: Final = "com.docker.stack.namespace"
STARTS_AFTER: Final = "it starts after"
"""How each reason of a hold begins."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a service does not start yet, and the ids of those services, as far as there are such, that it waits for."""

    why: str
    services: frozenset[str]


def hold(view: View, service: objects.Service) -> Hold | None:
    """What keeps the first tasks of a service from starting; None when nothing does."""
    names = starts_after(service.spec.annotations.labels)
    if not names or _has_begun(view, service):
        return None
    found = [(name, _called(view, name, service.spec)) for name in names]
    reasons = [f"{name} ({why})" for name, other in found if (why := _missing(view, other))]
    if not reasons:
        return None
    awaited = frozenset(other.id for _, other in found if other is not None)
    return Hold(f"{STARTS_AFTER} {', '.join(reasons)}: label {START_AFTER}", awaited)


def check_no_circle(view: View, spec: specs.ServiceSpec) -> None:
    """``Refused`` if the service of this spec would wait for itself, directly or by way of others."""
    way = _way_back(view, spec)
    if way:
        raise invalid(f"label {START_AFTER}: {' would start after '.join((*way, way[0]))}, so none of them ever would")


def _way_back(view: View, spec: specs.ServiceSpec) -> Sequence[str]:
    """The names on a way from the service back to itself, itself first; empty if there is none."""
    own = spec.annotations.name
    ways: list[tuple[specs.ServiceSpec, tuple[str, ...]]] = [(spec, (own,))]
    seen: set[str] = set()
    while ways:
        at, way = ways.pop()
        for name in starts_after(at.annotations.labels):
            for meant in _meant(name, at):
                if meant == own.lower():
                    return way
                other = _named(view, meant)
                if other is not None:
                    if other.id not in seen:
                        seen.add(other.id)
                        ways.append((other.spec, (*way, other.spec.annotations.name)))
                    break
    return ()


def _has_begun(view: View, service: objects.Service) -> bool:
    return any(task.status.state >= types.ASSIGNED for task in view.find(objects.Task, "service", service.id))


def _meant(name: str, by: specs.ServiceSpec) -> tuple[str, ...]:
    """What a name can stand for in a spec, in small letters; the first service that there is of these is meant."""
    stack = by.annotations.labels.get(STACK, "")
    return (name.lower(), f"{stack}_{name}".lower()) if stack else (name.lower(),)


def _called(view: View, name: str, by: specs.ServiceSpec) -> objects.Service | None:
    return next((found for meant in _meant(name, by) if (found := _named(view, meant)) is not None), None)


def _named(view: View, name: str) -> objects.Service | None:
    return next(iter(view.find(objects.Service, "name", name)), None)


def _missing(view: View, service: objects.Service | None) -> str:
    """What a service lacks to be up; empty when it is."""
    if service is None:
        return "there is no such service"
    if is_job(service.spec):
        return _missing_of_job(view, service)
    tasks = view.find(objects.Task, "service", service.id)
    if any(task.status.state == types.RUNNING and wanted(task) for task in tasks):
        return ""
    none_wanted = service.spec.WhichOneof("mode") == "replicated" and not service.spec.replicated.replicas
    return "it is scaled to 0" if none_wanted else "no task of it runs"


def _missing_of_job(view: View, service: objects.Service) -> str:
    tasks = view.find(objects.Task, "service", service.id)
    current = [task for task in tasks if jobs.is_current(task, service)]
    complete = sum(task.status.state == types.COMPLETE for task in current)
    if service.spec.WhichOneof("mode") == "replicated_job":
        total = service.spec.replicated_job.total_completions
    else:
        total = max(1, len({task.node_id for task in current}))
    return "" if complete >= total else f"{complete} of {total} tasks of the job are complete"
