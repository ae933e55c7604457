"""Messages that wait for a peer: which are joined, and that a core cannot tell the difference."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.raft.coalesce import APPEND_MAX, joined
from runtime.raft.config import RaftConfig
from runtime.raft.core import Raft
from runtime.raft.storage import MemoryStorage
from runtime.raft.types import ConfState, Entry, Message, MessageType, Snapshot

T = MessageType


def append(index: int, count: int, commit: int = 0, term: int = 2, size: int = 1) -> Message:
    entries = tuple(Entry(term, index + offset + 1, data=bytes(size)) for offset in range(count))
    return Message(T.APP, to=2, from_=1, term=term, log_term=term, index=index, entries=entries, commit=commit)


def test_an_append_that_begins_where_the_one_before_it_ends_becomes_part_of_it() -> None:
    whole = joined(append(3, 2, commit=3), append(5, 3, commit=4))
    assert whole is not None
    assert (whole.index, whole.log_term, whole.commit) == (3, 2, 4)
    assert [entry.index for entry in whole.entries] == [4, 5, 6, 7, 8]


def test_a_commit_index_alone_rides_with_the_append_before_it() -> None:
    whole = joined(append(3, 2, commit=3), append(5, 0, commit=5))
    assert whole is not None
    assert (len(whole.entries), whole.commit) == (2, 5)


@pytest.mark.parametrize(
    "second",
    [
        append(6, 1),  # a hole
        append(4, 1),  # it goes back
        append(5, 1, term=3),
        append(5, 1, commit=1),  # the commit index goes back
        Message(T.HEARTBEAT, to=2, from_=1, term=2),
    ],
)
def test_what_does_not_follow_stays_a_message_of_its_own(second: Message) -> None:
    assert joined(append(3, 2, commit=2), second) is None


def test_appends_are_joined_up_to_a_size_and_an_empty_one_always() -> None:
    large = append(1, 1, size=APPEND_MAX - 100)
    assert joined(large, append(2, 1, size=200)) is None
    assert joined(large, append(2, 0)) is not None


def test_of_two_acknowledgements_the_later_one_stands_unless_one_rejects() -> None:
    first = Message(T.APP_RESP, to=1, from_=2, term=2, index=5)
    later = replace(first, index=9)
    assert joined(first, later) is later
    assert joined(later, first) is None
    assert joined(replace(first, reject=True), later) is None
    assert joined(first, replace(later, reject=True)) is None


def test_heartbeats_are_joined_unless_they_carry_different_reads() -> None:
    first = Message(T.HEARTBEAT, to=2, from_=1, term=2, commit=3)
    assert joined(first, replace(first, commit=4)) is not None
    assert joined(first, replace(first, context=b"read")) is None


@pytest.mark.parametrize("kind", [T.VOTE, T.VOTE_RESP, T.SNAP, T.TIMEOUT_NOW, T.HEARTBEAT_RESP, T.PRE_VOTE])
def test_other_kinds_are_never_joined(kind: MessageType) -> None:
    message = Message(kind, to=2, from_=1, term=2)
    assert joined(message, replace(message)) is None


def follower() -> Raft:
    storage = MemoryStorage()
    storage.apply_snapshot(Snapshot(1, 1, ConfState((1, 2))))
    return Raft(RaftConfig(id=2, storage=storage, random=random.Random(1)))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(0, 3))
def test_a_follower_that_gets_the_joined_appends_ends_like_one_that_got_each(counts: list[int], lag: int) -> None:
    messages, index = [], 1
    for count in counts:
        messages.append(replace(append(index, count, commit=max(1, index - lag)), log_term=1 if index == 1 else 2))
        index += count
    each, once = follower(), follower()
    for message in messages:
        each.step(message)
    whole = messages[0]
    for message in messages[1:]:
        both = joined(whole, message)
        assert both is not None
        whole = both
    once.step(whole)
    assert (each.log.last_index(), each.log.committed, each.term) == (
        once.log.last_index(),
        once.log.committed,
        once.term,
    )
    assert each.after_append[-1] == once.after_append[-1]


def test_messages_of_two_terms_stay_two() -> None:
    old = Message(MessageType.APP_RESP, to=1, from_=2, term=3, index=5)
    assert joined(old, Message(MessageType.APP_RESP, to=1, from_=2, term=4, index=6)) is None


def test_a_heartbeat_that_commits_less_than_the_one_that_waits_does_not_take_its_place() -> None:
    waiting = Message(MessageType.HEARTBEAT, to=2, from_=1, term=3, commit=7)
    assert joined(waiting, Message(MessageType.HEARTBEAT, to=2, from_=1, term=3, commit=6)) is None


def test_appends_with_a_gap_between_them_stay_two() -> None:
    waiting = Message(MessageType.APP, to=2, from_=1, term=3, log_term=3, index=4, entries=[Entry(3, 5)], commit=4)
    later = Message(MessageType.APP, to=2, from_=1, term=3, log_term=3, index=6, entries=[Entry(3, 7)], commit=4)
    assert joined(waiting, later) is None
