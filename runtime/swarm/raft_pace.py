"""How fast the consensus ticks: SwarmKit's second, or a tenth of it where every manager can keep up with that.

A follower that ticks faster than its leader would take it for dead. So the two paces are kept in step by rules:

1. Fast is allowed while every member's node carries the engine label ``swarmlet.raft=1`` (each of ours does).
2. The leader becomes fast first and says so with every message; followers do as the leader they hear says.
3. The leader becomes slow last: it says slow while it still ticks fast, as long as the last answer of any member that
   can be reached was a fast one's. A member without the label is admitted only after that.
4. Who ticks fast asks before it stands for election (PreVote): one that missed the word disturbs nobody, since those
   who hear a leader refuse.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from runtime.swarm.ports import View
from runtime.wire.pb import objects_pb2 as objects

PACE_LABEL: Final = "swarmlet.raft"
PACE_VALUE: Final = "1"


def can_be_fast(view: View, node_id: str) -> bool:
    """Whether this manager's node says that it can."""
    node = view.get(objects.Node, node_id)
    return node is not None and node.description.engine.labels.get(PACE_LABEL) == PACE_VALUE


def all_can_be_fast(view: View, node_ids: Iterable[str]) -> bool:
    """Whether every one of several managers can. One alone has nobody to be fast for."""
    known = list(node_ids)
    return len(known) > 1 and all(can_be_fast(view, node_id) for node_id in known)


def pace_warning(view: View, node_ids: Iterable[str]) -> str:
    """Who of these managers keeps the others from ticking fast; empty if nobody does, if none of them could anyway, or
    as long as it is not known."""
    nodes = [node for node in (view.get(objects.Node, node_id) for node_id in node_ids) if node is not None]
    known = [node for node in nodes if node.HasField("description")]
    slow = sorted(node.description.hostname for node in known if not can_be_fast(view, node.id))
    if not slow or len(slow) == len(known):
        return ""
    return f"WARNING: The managers notice a lost leader late, since these tick but once a second: {', '.join(slow)}"


class RaftPace:
    """One member's pace: what it ticks at (``fast``), and what its messages say (``told``)."""

    def __init__(self, fast: bool = False) -> None:
        self.fast = fast
        self.told = fast
        self.admitting = False
        """True while a member is to be admitted that cannot be fast."""
        self._heard: dict[int, bool] = {}

    def follow(self, fast: bool) -> None:
        """The leader says so."""
        self.fast = self.told = fast
        self._heard.clear()

    def answered(self, raft_id: int, fast: bool) -> None:
        """A member's answer says how it ticks."""
        self._heard[raft_id] = fast

    def lead(self, allowed: bool, reachable: Collection[int]) -> None:
        """The leader's own part, whenever something may have changed."""
        if allowed and not self.admitting:
            self.fast = self.told = True
            return
        self.told = False
        self.fast = any(self._heard.get(raft_id, False) for raft_id in reachable)
