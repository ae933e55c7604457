"""What a manager hears that wants to leave: by who else is there."""

from __future__ import annotations

import pytest

from runtime.swarm.leaving import ATTEMPT, LAST, UNKNOWN, WAY_BACK, refusal
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types


def nodes(reachable: int, unreachable: int = 0, workers: int = 1) -> list[objects.Node]:
    made = []
    for number in range(reachable + unreachable):
        node = objects.Node(id=f"m{number}")
        up = number < reachable
        node.manager_status.reachability = (
            types.RaftMemberStatus.REACHABLE if up else types.RaftMemberStatus.UNREACHABLE
        )
        made.append(node)
    return made + [objects.Node(id=f"w{number}") for number in range(workers)]


def loss(left: int, of: int) -> str:
    return f"Removing this node leaves {left} managers out of {of}. " + (
        "Without a Raft quorum your swarm will be inaccessible. "
    )


@pytest.mark.parametrize(
    ("reachable", "unreachable", "text"),
    [
        (1, 0, LAST),
        (2, 0, loss(1, 2) + WAY_BACK),
        (2, 1, loss(1, 3) + WAY_BACK),
        (3, 0, WAY_BACK),
        (3, 1, loss(2, 4) + WAY_BACK),
        (4, 1, WAY_BACK),
        (1, 2, loss(0, 3) + WAY_BACK),
    ],
)
def test_a_manager_hears_what_the_others_could_do_without_it(reachable: int, unreachable: int, text: str) -> None:
    assert refusal(nodes(reachable, unreachable), "m0") == ATTEMPT + text


def test_a_manager_that_does_not_know_the_others_is_told_so() -> None:
    assert refusal([], "m0") == refusal(nodes(3), "m9") == ATTEMPT + UNKNOWN + WAY_BACK
