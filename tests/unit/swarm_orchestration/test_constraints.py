"""Placement constraints: what can be read, and which nodes fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import Code, Refused
from runtime.swarm import constraints
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.placing import node

KEYS = st.from_regex(r"[a-z_][a-zA-Z0-9\-_.]{1,20}", fullmatch=True)
VALUES = st.text("abcXYZ019:-_.*()?+[]\\^$|/", min_size=1)


def fits(target: objects.Node, *expressions: str) -> bool:
    return constraints.matches_all(target, constraints.parse(expressions))


@given(KEYS, st.sampled_from(constraints.OPERATORS), VALUES)
def test_what_is_written_is_read_back(key: str, operator: str, value: str) -> None:
    (parsed,) = constraints.parse([f"  {key} {operator} {value} "])
    assert parsed == constraints.Constraint(key, operator == "==", value)
    assert str(parsed) == f"{key} {operator} {value}"


@pytest.mark.parametrize("text", ["", "node.role", "node.role=manager", "node.role ! = x"])
def test_without_an_operator_nothing_is_read(text: str) -> None:
    with pytest.raises(Refused, match=r"constraint expected one operator from ==, !=$") as refused:
        constraints.parse([text])
    assert refused.value.code is Code.UNKNOWN


@pytest.mark.parametrize("key", ["", "a", "1ab", "-ab", "a b", "nodé.x", "a$b"])
def test_a_key_begins_with_a_letter_and_has_two_characters(key: str) -> None:
    with pytest.raises(Refused) as refused:
        constraints.parse([f"{key}==x"])
    assert refused.value.text == f"key '{key}' is invalid"


@pytest.mark.parametrize("value", ["", "a,b", "a==b", "é", "a'b", "a{b}"])
def test_values_have_their_characters(value: str) -> None:
    with pytest.raises(Refused) as refused:
        constraints.parse([f"node.id=={value}"])
    assert refused.value.text == f"value '{value}' is invalid"


def test_equal_is_looked_for_before_unequal() -> None:
    with pytest.raises(Refused, match=r"key 'node.id != a' is invalid"):
        constraints.parse(["node.id != a == b"])


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("node.id == N1", True),
        ("NODE.ID != n1", False),
        ("node.hostname == HOST-n1", True),
        ("node.role == worker", True),
        ("node.role != Manager", True),
        ("node.platform.os == Linux", True),
        ("node.platform.arch == x86_64", True),
        ("node.platform.arch == amd64", False),
        ("node.labels.zone == EAST", True),
        ("Node.Labels.zone == east", True),
        ("node.labels.Zone == east", False),
        ("node.labels.Zone != east", True),
        ("node.labels.none == x", False),
        ("node.labels.none != x", True),
        ("node.labels.zone == e*", False),
        ("engine.labels.disk == ssd", True),
        ("engine.labels.zone != east", True),
        ("node.nonsense == x", False),
        ("node.nonsense != x", False),
        ("node.labels. != x", False),
        ("node.ip == 10.0.0.5", True),
        ("node.ip != 10.0.0.5", False),
        ("node.ip == 10.0.0.0/24", True),
        ("node.ip == 10.1.0.0/16", False),
        ("node.ip != 10.1.0.0/16", True),
        ("node.ip == 10.0.0.77/24", True),
        ("node.ip == fd00::/8", False),
        ("node.ip == nonsense", False),
        ("node.ip != nonsense", False),
    ],
)
def test_which_nodes_fit(expression: str, expected: bool) -> None:
    one = node("n1", labels={"zone": "east"}, engine_labels={"disk": "ssd"})
    assert fits(one, expression) is expected


def test_a_manager_is_one_by_its_observed_role() -> None:
    one = node("n1")
    one.spec.desired_role = types.MANAGER
    assert not fits(one, "node.role == manager")
    one.role = types.MANAGER
    assert fits(one, "node.role == manager")


def test_a_node_without_an_address_is_in_no_network() -> None:
    one = node("n1")
    one.status.addr = ""
    assert not fits(one, "node.ip == 10.0.0.0/8")
    assert fits(one, "node.ip != 10.0.0.0/8")


def test_all_constraints_have_to_hold() -> None:
    one = node("n1", labels={"zone": "east", "disk": "ssd"})
    assert fits(one, "node.labels.zone == east", "node.labels.disk == ssd")
    assert not fits(one, "node.labels.zone == east", "node.labels.disk != ssd")


def test_expressions_that_cannot_be_read_constrain_nothing_that_is_stored() -> None:
    assert constraints.node_fits(node("n1"), ["nonsense"])
    assert not constraints.node_fits(node("n1"), ["node.id == n2"])


@given(st.sampled_from(["node.id", "node.hostname", "node.role", "node.labels.a", "engine.labels.b"]), VALUES)
def test_known_keys_fit_with_exactly_one_of_the_operators(key: str, value: str) -> None:
    one = node("n1", labels={"a": "x"}, engine_labels={"b": "y"})
    assert fits(one, f"{key} == {value}") is not fits(one, f"{key} != {value}")


@pytest.mark.parametrize(
    ("descriptor", "expected"),
    [
        ("node.labels.zone", "east"),
        ("NODE.labels.zone", "east"),
        ("node.labels.rack", ""),
        ("engine.labels.disk", "ssd"),
        ("node.labels.", None),
        ("node.hostname", None),
    ],
)
def test_labels_are_found_by_descriptor(descriptor: str, expected: str | None) -> None:
    one = node("n1", labels={"zone": "east"}, engine_labels={"disk": "ssd"})
    assert constraints.label(one, descriptor) == expected
