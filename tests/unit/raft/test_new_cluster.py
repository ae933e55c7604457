"""One member's log becomes the log of a cluster of that member alone, whatever the membership was."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.raft.codec import encode_change
from runtime.raft.confchange import ChangeType as C
from runtime.raft.confchange import ConfChange, Config, Transition
from runtime.raft.config import RaftConfig
from runtime.raft.new_cluster import entries_alone, membership_after
from runtime.raft.node import RawNode
from runtime.raft.storage import MemoryStorage
from runtime.raft.types import ConfState, Entry, EntryType, HardState, Role, Snapshot
from tests.unit.raft.network import Member

ids = st.integers(1, 6)
changes = st.lists(
    st.builds(
        ConfChange,
        st.lists(st.tuples(st.sampled_from(list(C)), ids), min_size=0, max_size=3).map(tuple),
        st.sampled_from(list(Transition)),
    ),
    max_size=6,
)


def entry(index: int, change: ConfChange) -> Entry:
    kind, data = encode_change(change)
    return Entry(1, index, kind, data)


@pytest.mark.parametrize(
    ("state", "kinds"),
    [
        (ConfState((1,)), []),
        (ConfState((1, 2, 3)), [(C.REMOVE_NODE, 2), (C.REMOVE_NODE, 3)]),
        (ConfState((2, 3)), [(C.ADD_NODE, 1), (C.REMOVE_NODE, 2), (C.REMOVE_NODE, 3)]),
        (ConfState((1,), learners=(4,)), [(C.REMOVE_NODE, 4)]),
        (ConfState((2,), learners=(1,)), [(C.ADD_NODE, 1), (C.REMOVE_NODE, 2)]),
        (ConfState(), [(C.ADD_NODE, 1)]),
    ],
)
def test_everybody_else_is_removed_and_the_survivor_votes(state: ConfState, kinds: list[tuple[C, int]]) -> None:
    from runtime.raft.codec import decode_change

    made = entries_alone(1, membership_after(state, ()), b"me", 7, 41)
    assert [(each.term, each.index) for each in made] == [(7, 42 + number) for number in range(len(made))]
    decoded = [decode_change(each) for each in made]
    assert [each.changes for each in decoded] == [(kind,) for kind in kinds]
    assert all(each.context == (b"me" if each.changes[0][0] is C.ADD_NODE else b"") for each in decoded)


@given(changes, ids)
def test_any_membership_becomes_that_of_one(some: list[ConfChange], own: int) -> None:
    entries = [entry(index, change) for index, change in enumerate(some, 1)]
    before = membership_after(ConfState((1, 2, 3)), entries)
    alone = entries_alone(own, before, b"", 2, len(entries))
    after = membership_after(before.state(), alone)
    assert after == Config(voters={own})
    assert entries_alone(own, after, b"", 2, 99) == []


@given(changes)
def test_the_membership_is_what_a_core_would_have(some: list[ConfChange]) -> None:
    from runtime.raft.confchange import ChangeRefused

    state = ConfState((1, 2, 3))
    storage = MemoryStorage()
    storage.apply_snapshot(Snapshot(1, 1, state))
    storage.hard_state = HardState(1, 0, 1)
    node = RawNode(RaftConfig(id=1, storage=storage, applied=1, random=random.Random(1)))
    for change in some:
        try:
            state = node.apply_conf_change(change)
        except ChangeRefused:
            continue
    entries = [entry(index, change) for index, change in enumerate(some, 1)]
    assert membership_after(ConfState((1, 2, 3)), entries).state() == state


def test_ordinary_entries_say_nothing_of_membership() -> None:
    assert membership_after(ConfState((1, 2)), [Entry(1, 1, EntryType.NORMAL, b"x")]).voters == {1, 2}


def test_a_core_restarted_from_such_a_log_leads_alone_and_still_has_what_was_committed() -> None:
    member = Member(1, (1, 2, 3), {})
    committed = [Entry(1, index, EntryType.NORMAL, b"%d" % index) for index in (2, 3)]
    alone = entries_alone(1, membership_after(ConfState((1, 2, 3)), committed), b"", 1, 3)
    member.storage.append([*committed, *alone])
    member.storage.hard_state = HardState(1, 2, alone[-1].index)
    member.restart()
    while member.node.has_ready():
        member.carry_out()
    assert member.storage.conf_state == ConfState((1,))
    member.node.campaign()
    while member.node.has_ready():
        member.carry_out()
    assert member.role is Role.LEADER
    member.node.propose(b"new")
    while member.node.has_ready():
        member.carry_out()
    assert [each.data for each in member.applied if each.data and each.type is EntryType.NORMAL] == [b"2", b"3", b"new"]
