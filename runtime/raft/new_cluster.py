"""What makes one member's log the log of a cluster of that member alone (SwarmKit's ForceNewCluster, etcd's too).

Pure: from what is committed follow the entries to put behind it. Everybody else is removed by ordinary configuration
changes, so that replaying the log, here or on whoever joins later, gives the same membership and the same list of
removed members. What was not committed is dropped: nobody was told that it would stay.
"""

from __future__ import annotations

from collections.abc import Sequence

from runtime.raft.codec import decode_change, encode_change
from runtime.raft.confchange import Changer, ChangeRefused, ChangeType, ConfChange, Config, restore
from runtime.raft.progress import Inflights
from runtime.raft.types import ConfState, Entry, EntryType


def membership_after(conf_state: ConfState, entries: Sequence[Entry]) -> Config:
    """The membership once these committed entries are applied to ``conf_state``, as a core applies them."""
    present = Changer(Config(), {}, 0, _no_inflights)
    restore(present, conf_state)
    for entry in entries:
        if entry.type is not EntryType.NORMAL:
            following = Changer(present.config, present.progress, 0, _no_inflights)
            try:
                following.take(decode_change(entry))
            except ChangeRefused:
                continue  # as whoever applies it: the membership stays
            present = following
    return present.config


def entries_alone(own_id: int, config: Config, own_context: bytes, term: int, after: int) -> list[Entry]:
    """The entries behind index ``after`` that leave ``own_id`` as the only member, none if it is that already.

    ``own_context`` is this node's encoded RaftMember. A joint configuration is left first; this node becomes a voter
    before the others go, for a membership is never empty.
    """
    changes: list[ConfChange] = []
    if config.joint:
        changes.append(ConfChange())
    if own_id not in config.voters:
        changes.append(ConfChange(((ChangeType.ADD_NODE, own_id),), context=own_context, v1=True))
    others = (config.voters | config.outgoing | config.learners | config.learners_next) - {own_id}
    changes += [ConfChange(((ChangeType.REMOVE_NODE, id),), v1=True) for id in sorted(others)]
    encoded = map(encode_change, changes)
    return [Entry(term, after + offset, kind, data) for offset, (kind, data) in enumerate(encoded, 1)]


def _no_inflights() -> Inflights:
    return Inflights(1)
