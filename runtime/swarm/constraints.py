"""Placement constraints: reading expressions such as ``node.labels.zone != east``, and asking nodes whether they fit.

Rules owned here: the grammar (one operator, ``==`` looked for before ``!=``), which keys exist, and that a comparison
is exact but for case: no globs, no patterns. What a node does not say compares as the empty text, so ``==`` fails and
``!=`` holds; a key that nobody knows never matches, with either operator.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from runtime.errors import Code, Refused
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

OPERATORS: Final = ("==", "!=")
NODE_LABEL: Final = "node.labels."
ENGINE_LABEL: Final = "engine.labels."

_KEY = re.compile(r"[a-z_][a-z0-9\-_.]+", re.IGNORECASE | re.ASCII)
_VALUE = re.compile(r"[a-z0-9:\-_\s.*()?+\[\]\\^$|/]+", re.IGNORECASE | re.ASCII)
_ROLES: Final = {types.WORKER: "worker", types.MANAGER: "manager"}


@dataclass(frozen=True, slots=True)
class Constraint:
    """One condition on a node: ``key`` as written, whether it must equal ``value`` or must not."""

    key: str
    equal: bool
    value: str

    def __str__(self) -> str:
        return f"{self.key} {'==' if self.equal else '!='} {self.value}"


def parse(expressions: Iterable[str]) -> tuple[Constraint, ...]:
    """The constraints that texts stand for; raises Refused(UNKNOWN), as SwarmKit's plain errors reach clients."""
    return _parse(tuple(expressions))


@functools.lru_cache(maxsize=1024)
def _parse(expressions: tuple[str, ...]) -> tuple[Constraint, ...]:
    return tuple(_parse_one(text) for text in expressions)


def _parse_one(text: str) -> Constraint:
    for operator in OPERATORS:
        key, found, value = text.partition(operator)
        if found:
            return _checked(key.strip(), operator, value.strip())
    raise Refused(Code.UNKNOWN, "constraint expected one operator from ==, !=")


def _checked(key: str, operator: str, value: str) -> Constraint:
    if not _KEY.fullmatch(key):
        raise Refused(Code.UNKNOWN, f"key '{key}' is invalid")
    if not _VALUE.fullmatch(value):
        raise Refused(Code.UNKNOWN, f"value '{value}' is invalid")
    return Constraint(key, operator == "==", value)


def matches(node: objects.Node, constraint: Constraint) -> bool:
    """Whether a node satisfies one constraint."""
    key = constraint.key.lower()
    if key == "node.ip":
        return _matches_address(node.status.addr, constraint)
    actual = value_of(node, constraint.key)
    return actual is not None and (actual.lower() == constraint.value.lower()) == constraint.equal


def matches_all(node: objects.Node, constraints: Sequence[Constraint]) -> bool:
    """Whether a node satisfies every one of the constraints."""
    return all(matches(node, constraint) for constraint in constraints)


def node_fits(node: objects.Node, expressions: Iterable[str]) -> bool:
    """Whether a node satisfies a spec's constraints; expressions that cannot be read constrain nothing.

    Such can only come from a swarm that let them in: control requests are checked with `parse`.
    """
    try:
        return matches_all(node, parse(expressions))
    except Refused:
        return True


def label(node: objects.Node, descriptor: str) -> str | None:
    """The value of ``node.labels.X`` or ``engine.labels.X``, empty when the node has none; None for anything else.

    The prefix is read in any case, the label's own name is not.
    """
    lowered = descriptor.lower()
    if lowered.startswith(NODE_LABEL) and len(lowered) > len(NODE_LABEL):
        labels = node.spec.annotations.labels
        return labels.get(descriptor[len(NODE_LABEL) :], "")
    if lowered.startswith(ENGINE_LABEL) and len(lowered) > len(ENGINE_LABEL):
        labels = node.description.engine.labels
        return labels.get(descriptor[len(ENGINE_LABEL) :], "")
    return None


def value_of(node: objects.Node, written: str) -> str | None:
    """What a node has for a key, but for its address; None for a key that nobody knows."""
    match written.lower():
        case "node.id":
            return node.id
        case "node.hostname":
            return node.description.hostname
        case "node.role":
            return _ROLES[node.role]
        case "node.platform.os":
            return node.description.platform.os
        case "node.platform.arch":
            return node.description.platform.architecture
    return label(node, written)


def _matches_address(addr: str, constraint: Constraint) -> bool:
    """``node.ip`` against an address or a network; malformed values never match, a node without address only ``!=``."""
    try:
        network = ipaddress.ip_network(constraint.value, strict=False)
    except ValueError:
        return False
    try:
        inside = ipaddress.ip_address(addr) in network
    except ValueError:
        inside = False
    return inside == constraint.equal
