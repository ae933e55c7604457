"""Messages in requests: pieces of snapshots, how they are joined, and what is refused before a core sees it."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import Code, Refused
from runtime.raft.chunks import PIECE_BYTES, REQUEST_MAX, Assembly, decode_message, requests_of
from runtime.raft.codec import message_to_pb
from runtime.raft.types import ConfState, Entry, Message, MessageType, Snapshot

T = MessageType


def snapshot(size: int) -> Message:
    data = bytes(range(256)) * (size // 256 + 1)
    return Message(T.SNAP, to=2, from_=1, term=3, snapshot=Snapshot(7, 3, ConfState((1, 2)), data[:size]))


def rejoined(message: Message, limit: int) -> Message:
    assembly = Assembly()
    for request in requests_of(message, limit):
        assert request.ByteSize() <= limit
        assembly.take(request.message)
    assert message.snapshot is not None
    assert assembly.size == len(message.snapshot.data)
    return assembly.decoded()


@given(st.integers(0, 5000), st.integers(300, 2000))
def test_a_snapshot_of_any_size_arrives_as_it_was_in_requests_that_fit(size: int, limit: int) -> None:
    message = rejoined(snapshot(size), limit)
    assert (message.type, message.term, message.snapshot) == (T.SNAP, 3, snapshot(size).snapshot)


def test_a_snapshot_of_9_mb_takes_nine_requests_of_a_mib_and_its_envelope() -> None:
    requests = list(requests_of(snapshot(9_000_000)))
    assert [len(request.message.snapshot.data) for request in requests] == [PIECE_BYTES] * 8 + [9_000_000 % PIECE_BYTES]
    assert max(request.ByteSize() for request in requests) < PIECE_BYTES + 256


def test_one_that_fits_into_half_a_request_is_not_cut() -> None:
    (request,) = requests_of(snapshot(REQUEST_MAX // 2 - 100))
    assert PIECE_BYTES < request.ByteSize() < REQUEST_MAX


def test_any_other_message_is_one_request() -> None:
    message = Message(T.APP, to=2, from_=1, term=2, log_term=2, index=4, entries=[Entry(2, 5, data=b"x")], commit=4)
    (request,) = requests_of(message)
    assert decode_message(request.message) == message


def test_pieces_of_different_messages_and_of_other_kinds_are_refused() -> None:
    assembly = Assembly()
    assembly.take(message_to_pb(snapshot(10)))
    other = message_to_pb(snapshot(10))
    other.index = 9
    with pytest.raises(Refused) as refused:
        assembly.take(other)
    assert refused.value.code is Code.INVALID_ARGUMENT
    with pytest.raises(Refused):
        assembly.take(message_to_pb(Message(T.HEARTBEAT, term=1)))


def test_nothing_at_all_is_no_message() -> None:
    assert Assembly().first is None


def test_requests_are_made_one_at_a_time_and_the_snapshots_data_is_never_copied_as_a_whole() -> None:
    whole = snapshot(40 << 20)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        largest = 0
        for request in requests_of(whole):
            largest = max(largest, request.ByteSize())
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert PIECE_BYTES < largest <= REQUEST_MAX
    assert peak < 3 * PIECE_BYTES


def test_more_than_there_is_room_for_is_refused_and_what_was_dropped_takes_nothing_more() -> None:
    assembly = Assembly()
    assembly.take(message_to_pb(snapshot(100)), room=100)
    with pytest.raises(Refused) as refused:
        assembly.take(message_to_pb(snapshot(101)), room=100)
    assert refused.value.code is Code.RESOURCE_EXHAUSTED
    assembly.drop()
    assembly.take(message_to_pb(snapshot(100)))
    assert (assembly.size, assembly.first) == (0, None)


def test_a_piece_too_few_is_another_snapshot_than_the_one_that_was_sent() -> None:
    assembly = Assembly()
    first, _, *others = requests_of(snapshot(5000), 1000)
    for request in (first, *others):
        assembly.take(request.message)
    assert assembly.decoded().snapshot != snapshot(5000).snapshot


@pytest.mark.parametrize(
    "message",
    [
        Message(T.SNAP, term=1),
        Message(T.SNAP, term=1, snapshot=Snapshot()),
        Message(T.READ_INDEX),
        Message(T.READ_INDEX_RESP, entries=[Entry(), Entry()]),
        Message(T.HEARTBEAT),
        Message(T.VOTE),
        Message(T.APP, term=1, index=3, entries=[Entry(1, 5)]),
        Message(T.APP, term=1, index=3, entries=[Entry(2, 4)]),
        Message(T.APP, term=5, log_term=4, index=3, entries=[Entry(3, 4)]),
    ],
)
def test_what_no_core_sends_is_refused(message: Message) -> None:
    with pytest.raises(Refused) as refused:
        decode_message(message_to_pb(message))
    assert refused.value.code is Code.INVALID_ARGUMENT


def test_no_length_of_a_snapshot_loses_a_byte_at_the_end_of_a_piece() -> None:
    limit = 600
    for length in range(limit // 2, 3 * limit):
        data = bytes(number % 251 for number in range(length))
        message = Message(MessageType.SNAP, to=2, from_=1, term=3, snapshot=Snapshot(9, 3, data=data))
        assert b"".join(each.message.snapshot.data for each in requests_of(message, limit)) == data
