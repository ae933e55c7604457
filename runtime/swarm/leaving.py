"""What a manager is told that wants to leave its swarm without force: always a refusal, and what the swarm would lose.

Rule owned here (the engine's): with the last manager goes the swarm; without a quorum among the rest it is of no use;
where the managers cannot be asked, nothing is known; with a quorum left only the way back is named.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

ATTEMPT: Final = "You are attempting to leave the swarm on a node that is participating as a manager. "
LAST: Final = "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. "
UNKNOWN: Final = "Doing so may lose the consensus of your cluster. "
WAY_BACK: Final = (
    "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. "
    "Use `--force` to suppress this message."
)


def refusal(nodes: Iterable[objects.Node], own_id: str) -> str:
    """The text for the manager ``own_id``; no nodes where they are not known."""
    managers = {node.id: node.manager_status.reachability for node in nodes if node.HasField("manager_status")}
    if own_id not in managers:
        return ATTEMPT + UNKNOWN + WAY_BACK
    reachable = sum(each == types.RaftMemberStatus.REACHABLE for each in managers.values())
    unreachable = len(managers) - reachable
    if (reachable, unreachable) == (1, 0):
        return ATTEMPT + LAST
    if reachable - 2 <= unreachable:
        loss = (
            f"Removing this node leaves {reachable - 1} managers out of {len(managers)}. "
            "Without a Raft quorum your swarm will be inaccessible. "
        )
        return ATTEMPT + loss + WAY_BACK
    return ATTEMPT + WAY_BACK
