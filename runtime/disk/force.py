"""Forcing a new cluster out of one member's log: what was committed stays, everybody else is removed.

Rules owned here: the log is rewritten in one synced batch, so that a crash leaves the old cluster's log or the new
cluster's; an order is carried out once, however often whoever got it is started again, because members that joined
the new cluster must not be thrown out by the next start.
"""

from __future__ import annotations

from runtime.disk.errors import NothingToForce
from runtime.disk.raft_log import Loaded, RaftLog
from runtime.disk.raft_records import Member
from runtime.raft.confchange import Config
from runtime.raft.new_cluster import entries_alone, membership_after
from runtime.raft.types import ConfState
from runtime.wire.pb import raft_pb2


def committed_membership(loaded: Loaded, up_to: int | None = None) -> Config:
    """The members of the consensus group once everything committed in a log, or up to an entry, is applied."""
    snapshot = loaded.snapshot
    index, conf_state = (snapshot.index, snapshot.conf_state) if snapshot is not None else (0, ConfState())
    end = loaded.hard_state.commit if up_to is None else up_to
    return membership_after(conf_state, [entry for entry in loaded.entries if index < entry.index <= end])


def force_new_cluster(log: RaftLog, loaded: Loaded, order: str, *, keep_tail: bool = False) -> bool:
    """Makes the log that of a cluster of its owner alone; False if there is no log, or the order was carried out.
    ``NothingToForce`` if it holds nothing of a cluster.

    ``order`` is any name that no other order has. The log must be loaded, and be loaded again before it is used. With
    ``keep_tail`` what is not known to be committed stays, as it would under a leader elected with this log: some of it
    may have been acknowledged by a leader that did not live to tell this member. Without, it goes, as in SwarmKit.
    """
    member = loaded.member
    if loaded.empty or log.was_forced(order):
        return False
    if member is None or (loaded.snapshot is None and not loaded.hard_state.commit):
        raise NothingToForce(
            "this node's log holds nothing that was committed: it had not caught up when the cluster was lost. "
            "Force a new cluster on a manager that had"
        )
    after = log.last_index if keep_tail else max(loaded.hard_state.commit, loaded.base_index)
    membership = committed_membership(loaded, after)
    alone = entries_alone(member.raft_id, membership, _context(member), loaded.hard_state.term, after)
    log.force_new_cluster(alone, order, after)
    return True


def _context(member: Member) -> bytes:
    encoded = raft_pb2.RaftMember(raft_id=member.raft_id, node_id=member.node_id, addr=member.addr)
    return encoded.SerializeToString(deterministic=True)
