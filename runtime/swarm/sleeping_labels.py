"""Labels that ask in vain: a manager of another kind that leads keeps them and does nothing about them.

Rule owned here: who asked for something is told by name when it sleeps, and only then.
"""

from __future__ import annotations

from itertools import chain, islice
from typing import Final

from runtime.swarm.labels import LOST_AFTER, REMOVE_AFTER, SCHEDULE, START_AFTER
from runtime.swarm.ports import View
from runtime.swarm.raft_pace import can_be_fast
from runtime.wire.pb import objects_pb2 as objects

SHOWN_MAX: Final = 10
OF_SERVICES: Final = (START_AFTER, SCHEDULE)
OF_NODES: Final = (LOST_AFTER, REMOVE_AFTER)


def sleeping_labels(view: View, leader_id: str) -> str:
    """What ``docker info`` warns of while the node with this id leads; empty if it follows labels, if nobody asks for
    anything, or as long as it is not known what it is."""
    leader = view.get(objects.Node, leader_id) if leader_id else None
    if leader is None or not leader.HasField("description") or can_be_fast(view, leader_id):
        return ""
    services = (each.spec.annotations for each in view.all(objects.Service))
    nodes = ((each.description.hostname, each.spec.annotations.labels) for each in view.all(objects.Node))
    asking = chain(
        (f"service {each.name}" for each in services if any(key in each.labels for key in OF_SERVICES)),
        (f"node {name}" for name, labels in nodes if any(key in labels for key in OF_NODES)),
    )
    shown = list(islice(asking, SHOWN_MAX))
    more = ", ..." if next(asking, None) is not None else ""
    if not shown:
        return ""
    who = leader.description.hostname
    return f"WARNING: {who} leads and does nothing about the labels swarmlet.* of {', '.join(shown)}{more}"
