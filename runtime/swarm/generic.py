"""Generic resources: what nodes offer by name or by number (GPUs, SSDs, ...), and what tasks take of it.

Rules owned here: the syntax in which a node's resources are written; a node offers a kind either as a number (discrete)
or as a set of named values, tasks ask for a number only; claiming takes from what is free and says what was taken,
reclaiming gives back and never leaves more free than the node offers now. Lists are in, lists are out: nothing is
changed in place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from runtime.errors import Refused, invalid
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

ENV_PREFIX: Final = "DOCKER_RESOURCE_"

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")

Resources = Sequence[types.GenericResource]


def discrete(kind: str, value: int) -> types.GenericResource:
    """A number of something."""
    return types.GenericResource(discrete_resource_spec=types.DiscreteGenericResource(kind=kind, value=value))


def named(kind: str, value: str) -> types.GenericResource:
    """One named value of a set."""
    return types.GenericResource(named_resource_spec=types.NamedGenericResource(kind=kind, value=value))


def kind_of(resource: types.GenericResource) -> str:
    """The kind of a resource; empty when nothing is set."""
    which = resource.WhichOneof("resource")
    return str(getattr(resource, which).kind) if which else ""


def is_named(resource: types.GenericResource) -> bool:
    """Whether this is a value of a named set."""
    return resource.HasField("named_resource_spec")


def parse(text: str) -> list[types.GenericResource]:
    """Resources from ``kind=value,kind=value``: one line of comma separated terms, as dockerd's flag takes them.

    A kind with one whole number is discrete; a kind with several values, or with one that is no number, is a named set.
    Raises Refused(INVALID_ARGUMENT).
    """
    values: dict[str, list[str]] = {}
    for term in _terms(text):
        pieces = [piece.strip() for piece in term.split("=")]
        if len(pieces) != 2 or not pieces[0] or not pieces[1]:
            raise _bad(f"incorrect term {term.strip()}, missing '=' or malformed expression")
        values.setdefault(pieces[0], []).append(pieces[1])
    return [resource for kind, given in values.items() for resource in _resources(kind, given)]


def _terms(text: str) -> list[str]:
    line = text.strip("\r\n")
    if "\n" in line or "\r" in line:
        raise _bad("it has to be one line")
    return [term.strip().strip('"') for term in line.split(",")] if line.strip() else []


def _resources(kind: str, given: list[str]) -> list[types.GenericResource]:
    numbers = [value for value in given if _INTEGER.fullmatch(value)]
    if len(given) == 1 and numbers:
        if int(given[0]) < 0:
            raise _bad(f"negative value {given[0]} for {kind}")
        return [discrete(kind, int(given[0]))]
    if numbers:
        raise _bad(f"mixed discrete and named resources in expression '{kind}={','.join(given)}'")
    return [named(kind, value) for value in dict.fromkeys(given)]


def _bad(problem: str) -> Refused:
    return invalid(f"could not parse GenericResource: {problem}")


def request_of(resource: types.GenericResource) -> tuple[str, int]:
    """Kind and number of a task's request. One by name can never be met: Refused(INVALID_ARGUMENT)."""
    if resource.WhichOneof("resource") != "discrete_resource_spec":
        raise invalid("generic resource requests have to be discrete")
    return resource.discrete_resource_spec.kind, resource.discrete_resource_spec.value


def named_requests(spec: specs.TaskSpec) -> list[str]:
    """A sentence for each resource that a task asks for by its name: SwarmKit takes that, and never places the task."""
    return [
        f'{each.named_resource_spec.kind} is asked for by the name "{each.named_resource_spec.value}", '
        "which no task is ever given: ask for a number of them"
        for each in spec.resources.reservations.generic
        if is_named(each)
    ]


def available(resources: Iterable[types.GenericResource], kind: str) -> int:
    """How many of a kind there are: the number of a discrete resource, or the size of a named set."""
    total = 0
    for resource in resources:
        if kind_of(resource) == kind:
            total += 1 if is_named(resource) else resource.discrete_resource_spec.value
    return total


def has_enough(free: Resources, requests: Resources) -> bool:
    """Whether all requests together can be claimed."""
    wanted: dict[str, int] = {}
    for kind, number in map(request_of, requests):
        wanted[kind] = wanted.get(kind, 0) + number
    return all(available(free, kind) >= number for kind, number in wanted.items())


def claim(free: Resources, requests: Resources) -> tuple[list[types.GenericResource], list[types.GenericResource]]:
    """What the requests take, and what is left free after that.

    Of a discrete kind the number is taken, of a named set the first values. Ask `has_enough` first: claiming more
    than there is breaks an invariant.
    """
    assigned: list[types.GenericResource] = []
    left = list(free)
    for kind, number in map(request_of, requests):
        taken, left = _take(left, kind, number)
        assigned.extend(taken)
    return assigned, left


def _take(free: Resources, kind: str, number: int) -> tuple[list[types.GenericResource], list[types.GenericResource]]:
    taken: list[types.GenericResource] = []
    left: list[types.GenericResource] = []
    missing = number
    for resource in free:
        if kind_of(resource) != kind or missing <= 0:
            left.append(resource)
        elif is_named(resource):
            taken.append(resource)
            missing -= 1
        else:
            count = min(missing, resource.discrete_resource_spec.value)
            taken.append(discrete(kind, count))
            missing -= count
            if resource.discrete_resource_spec.value > count:
                left.append(discrete(kind, resource.discrete_resource_spec.value - count))
    assert missing <= 0, f"claimed {number} of {kind}, {missing} more than were free"
    return taken, left


def reclaim(free: Resources, returned: Resources, offered: Resources) -> list[types.GenericResource]:
    """What is free after a task gave its resources back, given what the node offers now.

    Kinds that the node no longer offers are dropped; a kind that changed between number and set starts anew with all
    that is offered; named values not offered any more are dropped; never is more free than is offered.
    """
    result: list[types.GenericResource] = []
    for kind in dict.fromkeys(kind_of(resource) for resource in offered):
        offer = [resource for resource in offered if kind_of(resource) == kind]
        mine = [resource for resource in (*free, *returned) if kind_of(resource) == kind]
        result.extend(_clamp(kind, mine, offer))
    return result


def _clamp(kind: str, mine: list[types.GenericResource], offer: list[types.GenericResource]) -> Resources:
    by_name = is_named(offer[0])
    if any(is_named(resource) != by_name for resource in mine):
        return offer
    if by_name:
        values = {resource.named_resource_spec.value for resource in mine}
        return [resource for resource in offer if resource.named_resource_spec.value in values]
    number = min(available(mine, kind), available(offer, kind))
    return [discrete(kind, number)] if number > 0 else []


def environment(assigned: Resources) -> list[str]:
    """The variables that tell a container what it was given: ``DOCKER_RESOURCE_GPU=uuid1,uuid2``, sorted by name."""
    values: dict[str, list[str]] = {}
    for resource in assigned:
        value = resource.named_resource_spec.value if is_named(resource) else str(resource.discrete_resource_spec.value)
        values.setdefault(kind_of(resource), []).append(value)
    return [f"{ENV_PREFIX}{kind.upper()}={','.join(values[kind])}" for kind in sorted(values)]
