"""``depends_on`` of compose files: which services start after which, as the label that the swarm keeps.

Rules it owns: the three conditions of compose, and what each means in a swarm; a service that the file does not have is
a fault unless it is not ``required``; so are services that wait for each other.
"""

from __future__ import annotations

import graphlib
from collections.abc import Iterator, Mapping
from typing import Final

from runtime.swarm.labels import START_AFTER, starts_after
from runtime.wire.pb import specs_pb2
from swarmlet.compose_values import Place

STARTED: Final = "service_started"
HEALTHY: Final = "service_healthy"
COMPLETED: Final = "service_completed_successfully"

Specs = Mapping[str, specs_pb2.ServiceSpec]


def order(services: Place, specs: Specs) -> None:
    """Writes into each spec after which services of the file it starts, behind those that its own label names."""
    before: dict[str, list[str]] = {}
    for name, place in services.entries():
        if name in specs:
            before[name] = [other for other, how in _wishes(place.at("depends_on")) if _can(other, how, specs)]
    try:
        graphlib.TopologicalSorter(before).prepare()
    except graphlib.CycleError as error:
        circle = " after ".join(reversed(error.args[1]))
        services.at(error.args[1][0]).at("depends_on").fault(f"{circle}: none of them would ever start")
        return
    for name, others in before.items():
        labels = specs[name].annotations.labels
        if others:
            whole = (specs[other].annotations.name for other in others)
            labels[START_AFTER] = ",".join(dict.fromkeys((*starts_after(labels), *whole)))


def _wishes(place: Place) -> Iterator[tuple[str, Place]]:
    """The services that are named, each with how it is waited for (a value of None: as soon as it runs)."""
    if isinstance(place.value, list):
        yield from ((item.text(), Place(None, item.path, item.notes)) for item in place.items())
    else:
        yield from place.entries()


def _can(other: str, how: Place, specs: Specs) -> bool:
    """Whether it can be waited for; notes why not."""
    how.known("condition", "restart", "required")
    if how.at("restart").value not in (None, False):
        how.at("restart").warn("is left out: tasks are restarted for their own reasons alone")
    required = how.at("required")
    if other not in specs:
        if required.value is None or required.flag():
            how.fault(f"the file has no service {other}")
        return False
    condition = how.at("condition")
    kind = condition.choice({each: each for each in (STARTED, HEALTHY, COMPLETED)}) if condition.value else STARTED
    spec = specs[other]
    if kind == COMPLETED and spec.WhichOneof("mode") not in ("replicated_job", "global_job"):
        condition.fault(f"{other} never completes: it is no job (deploy.mode: replicated-job)")
    if kind == HEALTHY and not spec.task.container.HasField("healthcheck") and spec.task.container.image == "host":
        condition.fault(f"{other} has no healthcheck")
    return True
