"""Who may be taken into the consensus group: the node must be wanted as a manager, not only be certified as one."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.errors import Code, Refused
from runtime.swarm.membership import check_caller, check_wanted
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

M, W = types.MANAGER, types.WORKER


class View:
    def __init__(self, *nodes: objects.Node) -> None:
        self.nodes = {each.id: each for each in nodes}

    def get(self, kind: Any, id: str) -> Any:
        return self.nodes.get(id)


def view(role: types.NodeRole, desired: types.NodeRole) -> Any:
    node = objects.Node(id="n1", role=role)
    node.spec.desired_role = desired
    return View(node)


@pytest.mark.parametrize("role", [M, W])
def test_whose_node_is_to_be_a_manager_is_taken_in(role: types.NodeRole) -> None:
    check_caller(view(role, M), "n1")
    check_wanted(view(role, M), "n1")


@pytest.mark.parametrize("role", [M, W])
def test_whose_node_is_to_be_a_worker_is_not_taken_in(role: types.NodeRole) -> None:
    with pytest.raises(Refused, match="node n1 is not to be a manager") as refused:
        check_wanted(view(role, W), "n1")
    assert refused.value.code is Code.FAILED_PRECONDITION


def test_one_that_may_be_a_member_still_is_heard_and_one_that_is_a_worker_already_is_not() -> None:
    check_caller(view(M, W), "n1")
    with pytest.raises(Refused):
        check_caller(view(W, W), "n1")


@pytest.mark.parametrize("check", [check_caller, check_wanted])
def test_a_manager_without_a_node_is_not_part_of_the_swarm(check: Any) -> None:
    with pytest.raises(Refused, match="node n2 is not part of the swarm"):
        check(view(M, M), "n2")
