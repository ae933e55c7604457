"""From the role that a node is to have to the one that it has (SwarmKit's role manager).

Rules owned here: a promotion is written at once; a demotion only when the node is no member of the consensus any more,
because from then on only a worker's certificate is issued to it; a member whose node is gone, or is a worker already,
is put out; and nothing is written over a wish that has changed meanwhile.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable

from runtime.swarm.ports import Tx, View
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

RECONCILE_EVERY_S = 5.0
REMOVAL_TIMEOUT_S = 5.0


class Need(enum.Enum):
    """What a node's role needs."""

    NOTHING = "nothing"
    PROMOTION = "promotion"
    REMOVAL = "removal from the consensus"
    DEMOTION = "demotion"


def need_of(node: objects.Node | None, *, is_member: bool) -> Need:
    """The next thing to do for a node that is in the store, or (None) is no more."""
    if node is None:
        return Need.REMOVAL if is_member else Need.NOTHING
    wanted = node.spec.desired_role
    if wanted == types.MANAGER and node.role == types.WORKER:
        return Need.PROMOTION
    if wanted == types.WORKER and is_member:
        return Need.REMOVAL  # also of one that was admitted while its demotion was written
    if wanted == types.WORKER and node.role == types.MANAGER:
        return Need.DEMOTION
    return Need.NOTHING


def unsettled(view: View, members: Iterable[str]) -> list[str]:
    """The ids of the nodes for which something is to be done; ``members`` are the consensus's, by node id."""
    known = set(members)
    ids = {node.id for node in view.all(objects.Node)} | known
    return sorted(
        node_id
        for node_id in ids
        if need_of(view.get(objects.Node, node_id), is_member=node_id in known) is not Need.NOTHING
    )


def giving_role(node_id: str, role: types.NodeRole) -> Callable[[Tx], bool]:
    """The transaction that writes the observed role; False if that is no longer wanted, or done."""

    def run(tx: Tx) -> bool:
        stored = tx.get(objects.Node, node_id)
        if stored is None or stored.spec.desired_role != role or stored.role == role:
            return False
        node = objects.Node()
        node.CopyFrom(stored)
        node.role = role
        tx.update(node)
        return True

    return run
