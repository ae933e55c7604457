"""What a node's role needs, and what is written for it."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.swarm.roles import Need, giving_role, need_of, unsettled
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

M, W = types.MANAGER, types.WORKER


def node(id: str, role: types.NodeRole, desired: types.NodeRole) -> objects.Node:
    made = objects.Node(id=id, role=role)
    made.spec.desired_role = desired
    return made


@pytest.mark.parametrize(
    ("role", "desired", "is_member", "need"),
    [
        (W, W, False, Need.NOTHING),
        (W, W, True, Need.REMOVAL),
        (W, M, False, Need.PROMOTION),
        (W, M, True, Need.PROMOTION),
        (M, M, False, Need.NOTHING),
        (M, M, True, Need.NOTHING),
        (M, W, True, Need.REMOVAL),
        (M, W, False, Need.DEMOTION),
    ],
)
def test_what_a_role_needs(role: types.NodeRole, desired: types.NodeRole, is_member: bool, need: Need) -> None:
    assert need_of(node("n1", role, desired), is_member=is_member) is need


def test_a_member_without_a_node_is_put_out() -> None:
    assert need_of(None, is_member=True) is Need.REMOVAL
    assert need_of(None, is_member=False) is Need.NOTHING


class View:
    def __init__(self, *nodes: objects.Node) -> None:
        self.nodes = {each.id: each for each in nodes}

    def all(self, kind: Any) -> Any:
        return list(self.nodes.values())

    def get(self, kind: Any, id: str) -> Any:
        return self.nodes.get(id)

    def update(self, obj: objects.Node) -> None:
        self.nodes[obj.id] = obj


def test_the_unsettled_are_found_among_nodes_and_members() -> None:
    view: Any = View(node("a", W, W), node("b", W, M), node("c", M, W), node("d", M, M))
    assert unsettled(view, ["c", "d", "gone"]) == ["b", "c", "gone"]


def test_a_role_is_written_only_while_it_is_still_wanted() -> None:
    view: Any = View(node("a", W, M), node("b", W, W), node("c", M, M))
    assert [giving_role(id, M)(view) for id in ("a", "b", "c", "gone")] == [True, False, False, False]
    assert view.nodes["a"].role == M
    assert view.nodes["b"].role == W
