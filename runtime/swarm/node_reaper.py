"""Which nodes are removed from the swarm by themselves: workers that their label says to be gone for good once down.

Rules owned here: a node is removed when it was down for the time that its label ``swarmlet.remove-after`` gives,
counted by one leader without a break: the clocks of two managers are not compared, so a new leader counts from its
beginning. No manager is ever removed so, nor a worker that is wanted as one. What removing means is the matter of
``control.nodes``.
"""

from __future__ import annotations

from runtime.swarm.labels import REMOVE_AFTER, seconds_of
from runtime.swarm.node_status import Deadlines
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types


def patience(node: objects.Node) -> float | None:
    """How long the node may stay down, in seconds; None for one that is not removed, or is not down."""
    if node.status.state != types.NodeStatus.DOWN or types.MANAGER in (node.role, node.spec.desired_role):
        return None
    return seconds_of(node.spec.annotations.labels, REMOVE_AFTER)


class NodeReaper:
    """The nodes that are down and may be removed; times are seconds of a clock that only grows."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._due = Deadlines()

    def __len__(self) -> int:
        return len(self._since)

    def node_changed(self, node: objects.Node, now: float) -> None:
        """A node as it is now. Another label counts from when the node was seen down."""
        may_wait = patience(node)
        if may_wait is None:
            self.node_gone(node.id)
        else:
            self._due.set(node.id, self._since.setdefault(node.id, now) + may_wait)

    def node_gone(self, node_id: str) -> None:
        """A node that is up again, is not to be removed any more, or is gone."""
        self._since.pop(node_id, None)
        self._due.drop(node_id)

    def take_due(self, now: float) -> list[str]:
        """The nodes whose time is over, each once."""
        return self._due.take_due(now)

    def put_off(self, node_id: str, at: float) -> None:
        """The node could not be removed: again then, unless it is up by that time."""
        if node_id in self._since:
            self._due.set(node_id, at)

    def due_at(self, node_id: str) -> float | None:
        """When the node is removed; None for one that is not to be."""
        return self._due.at(node_id)

    @property
    def next_at(self) -> float | None:
        """When `take_due` has something to give at the earliest."""
        return self._due.next
