"""Who says to be a member that this one does not know yet, and where: a bounded book of what was said and proven.

A member that was away may be asked for its vote, or be led, by others that joined meanwhile, whose places stand in the
very entries that it lacks. They say with their messages where they are reached. Saying it proves nothing: whoever calls
shows a manager's certificate, and the claim counts once the same certificate was shown at the place that it named.

Pure: time is handed in, in seconds. Rules kept here:

1. A node makes one claim at a time. It takes another's place when the node moves, or joins anew.
2. A raft id is whose node proved it first, for as long as that one is heard.
3. A node whose claim could not be proven is not called again at once, wherever it says to be by then.
4. There are at most ``CLAIMS_MAX``; one that was not proven makes room first, then the one not heard for longest. What
   is not heard for ``KEPT`` seconds goes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

CLAIMS_MAX = 16
KEPT = 30.0
RETRY = 1.0
"""Seconds between two tries of what a node claims, unless the first one proved it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Node ``node_id`` says that it is member ``raft_id``, reached at ``addr`` (``host:port``)."""

    raft_id: int
    node_id: str
    addr: str


@dataclass(slots=True)
class Standing:
    """When a claim was heard last, whether it was proven when last tried, and from when it may be tried (again)."""

    heard: float
    proven: bool = False
    tried_from: float = 0.0


class Claims:
    """``standing`` has those that are remembered, in the order in which they came."""

    def __init__(self) -> None:
        self._standing: dict[Claim, Standing] = {}

    @property
    def standing(self) -> Mapping[Claim, Standing]:
        """Every claim that is remembered; always the same mapping."""
        return self._standing

    def hear(self, claim: Claim, now: float) -> None:
        """It was said (again). Whether it is remembered, ``standing`` says."""
        known = self._standing.get(claim)
        if known is not None:
            known.heard = now
            return
        holder = self.of(claim.raft_id)
        if holder is not None and holder.node_id != claim.node_id and self._standing[holder].proven:
            return
        tried_from = 0.0
        for each in [each for each in self._standing if claim.node_id == each.node_id or each == holder]:
            gone = self._standing.pop(each)
            tried_from = gone.tried_from if each.node_id == claim.node_id else tried_from
        if len(self._standing) >= CLAIMS_MAX:
            del self._standing[min(self._standing, key=self._worth)]
        self._standing[claim] = Standing(now, tried_from=tried_from)

    def _worth(self, claim: Claim) -> tuple[bool, float]:
        standing = self._standing[claim]
        return standing.proven, standing.heard

    def of(self, raft_id: int) -> Claim | None:
        """Who says to be this member."""
        return next((each for each in self._standing if each.raft_id == raft_id), None)

    def begin(self, claim: Claim, now: float) -> bool:
        """Whether to try it now: it is remembered, and no try is under way or was in vain just now."""
        standing = self._standing.get(claim)
        if standing is None or now < standing.tried_from:
            return False
        standing.tried_from = now + RETRY
        return True

    def tried(self, claim: Claim, proven: bool) -> bool:
        """What became of a try; False as well if nobody remembers the claim any more."""
        standing = self._standing.get(claim)
        if standing is None:
            return False
        standing.proven = proven
        if proven:
            standing.tried_from = 0.0
        return proven

    def expire(self, now: float) -> None:
        """Lets go of what was not heard for long."""
        for claim in [claim for claim, standing in self._standing.items() if now - standing.heard > KEPT]:
            del self._standing[claim]

    def forget(self, raft_ids: Collection[int]) -> None:
        """These members are known by now, or removed."""
        for claim in [claim for claim in self._standing if claim.raft_id in raft_ids]:
            del self._standing[claim]
