"""How one core is set up."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from runtime.raft.read_only import ReadOnlyOption
from runtime.raft.storage import Storage
from runtime.raft.types import NO_LIMIT


def _silent(level: str, text: str) -> None:
    """Says nothing."""


@dataclass(slots=True)
class RaftConfig:
    """Ticks are calls of ``tick``; sizes are bytes. ``max_committed_size`` 0 means as ``max_size_per_msg``.

    ``random`` draws election timeouts. SwarmKit's values: heartbeat 1, election 10, 65535 bytes per message, 256
    inflight, CheckQuorum, no PreVote.
    """

    id: int
    storage: Storage
    election_tick: int = 10
    heartbeat_tick: int = 1
    applied: int = 0
    async_storage_writes: bool = False
    max_size_per_msg: int = 65535
    max_committed_size: int = 0
    max_uncommitted_size: int = NO_LIMIT
    max_inflight_msgs: int = 256
    max_inflight_bytes: int = 0
    check_quorum: bool = True
    pre_vote: bool = False
    read_only: ReadOnlyOption = ReadOnlyOption.SAFE
    disable_proposal_forwarding: bool = False
    disable_conf_change_validation: bool = False
    step_down_on_removal: bool = False
    random: random.Random = field(default_factory=random.Random)
    log: Callable[[str, str], None] = _silent

    def __post_init__(self) -> None:
        if self.id == 0:
            raise ValueError("a node's id is not 0")
        if not 0 < self.heartbeat_tick < self.election_tick:
            raise ValueError(
                f"ticks: 0 < heartbeat {self.heartbeat_tick} < election {self.election_tick} does not hold"
            )
        if self.read_only is ReadOnlyOption.LEASE_BASED and not self.check_quorum:
            raise ValueError("lease based reads need check_quorum")
