"""Why a placement constraint can match no node at all: a key that does not exist, a label or a value that no node has.

Rules owned here: only what no known node satisfies is pointed out, by itself and not together with other constraints;
what is close to it and exists is named.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

from runtime.errors import Refused
from runtime.swarm import constraints
from runtime.swarm.constraints import ENGINE_LABEL, NODE_LABEL, Constraint
from runtime.wire.pb import objects_pb2 as objects

KEYS: Final = ("node.id", "node.hostname", "node.ip", "node.role", "node.platform.os", "node.platform.arch")
SHOWN_MAX: Final = 5
PATTERN_SIGNS: Final = "*?["


def hints(nodes: Sequence[objects.Node], expressions: Iterable[str]) -> list[str]:
    """A sentence for each constraint that no node satisfies; none where there are no nodes."""
    try:
        parsed = constraints.parse(expressions)
    except Refused:
        return []
    if not nodes:
        return []
    return [
        f"constraint {each}: {_why(nodes, each)}{_pattern(each)}"
        for each in parsed
        if not any(constraints.matches(node, each) for node in nodes)
    ]


def _why(nodes: Sequence[objects.Node], constraint: Constraint) -> str:
    key = constraint.key.lower()
    if key == "node.ip" and not _is_address(constraint.value):
        return f"{constraint.value} is no address"
    if key in KEYS:
        return f"every node is {constraint.value}" if not constraint.equal else _others(nodes, constraint)
    for prefix in (NODE_LABEL, ENGINE_LABEL):
        if key.startswith(prefix) and len(key) > len(prefix):
            return _label(nodes, constraint, prefix)
    return f"there is no key {constraint.key}{_meant(nodes, constraint.key)}"


def _pattern(constraint: Constraint) -> str:
    """What looks like a pattern is taken by the letter."""
    meant = constraint.equal and set(constraint.value) & set(PATTERN_SIGNS)
    return "; values are compared whole, there are no patterns" if meant else ""


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _others(nodes: Sequence[objects.Node], constraint: Constraint) -> str:
    values = {constraints.value_of(node, constraint.key) or "" for node in nodes} - {""}
    close = difflib.get_close_matches(constraint.value.lower(), sorted(values), 1)
    return "no node has that value" + (f"; did you mean {close[0]}?" if close else "")


def _label(nodes: Sequence[objects.Node], constraint: Constraint, prefix: str) -> str:
    name = constraint.key[len(prefix) :]
    having = [node for node in nodes if name in _labels(node, prefix)]
    if not having:
        return f"no node has the label {name}{_meant(nodes, name)}"
    values = sorted({_labels(node, prefix)[name] for node in having})
    shown = ", ".join(values[:SHOWN_MAX]) + (", ..." if len(values) > SHOWN_MAX else "")
    return f"on every node {name} is {shown}" if not constraint.equal else f"no node has that value, only {shown}"


def _meant(nodes: Sequence[objects.Node], written: str) -> str:
    """A key that exists and looks like what was written."""
    tail = written.rpartition(".")[2]
    for prefix in (NODE_LABEL, ENGINE_LABEL):
        if any({written, tail} & set(_labels(node, prefix)) for node in nodes):
            exact = any(written in _labels(node, prefix) for node in nodes)
            return f"; did you mean {prefix}{written if exact else tail}?"
    known = {
        f"{prefix}{name}" for prefix in (NODE_LABEL, ENGINE_LABEL) for node in nodes for name in _labels(node, prefix)
    }
    names = {each.rpartition(".labels.")[2]: each for each in sorted(known)} | {each: each for each in KEYS}
    close = difflib.get_close_matches(written.lower(), sorted(names), 1)
    return f"; did you mean {names[close[0]]}?" if close else ""


def _labels(node: objects.Node, prefix: str) -> dict[str, str]:
    held = node.spec.annotations.labels if prefix == NODE_LABEL else node.description.engine.labels
    return dict(held)
