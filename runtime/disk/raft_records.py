"""How the raft log is laid out in its database: keys, records and their checksums.

Rules owned here: every record carries a checksum; an entry's covers index, term, type, payload and the checksum of
the entry before it, so that a hole or a swap is seen whatever the database thinks. Payloads are sealed, what the
consensus core needs to start (indices, terms, votes, membership) is in clear.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import msgpack

from runtime.disk.errors import DiskDamaged
from runtime.raft.types import ConfState, Entry, EntryType, HardState

ENTRIES, ENTRIES_END = b"e", b"f"
CHUNKS, CHUNKS_END = b"c", b"d"
HARD_STATE, POINTER, BASE, MEMBER, FORCED = b"h", b"s", b"b", b"m", b"n"
EVERYTHING, EVERYTHING_END = b"", b"\xff"

_PLACE = struct.Struct(">QQBI")


@dataclass(frozen=True, slots=True)
class Member:
    """Who this log belongs to."""

    raft_id: int
    node_id: str
    addr: str


@dataclass(frozen=True, slots=True)
class Base:
    """The entry before the first one kept: its index, its term and its checksum, on which the chain rests."""

    index: int = 0
    term: int = 0
    crc: int = 0


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which chunks make up the snapshot in force."""

    sequence: int
    index: int
    term: int
    conf_state: ConfState
    chunks: int
    size: int
    crc: int


def entry_key(index: int) -> bytes:
    """Entries sort by index."""
    return ENTRIES + index.to_bytes(8, "big")


def chunk_key(sequence: int, number: int) -> bytes:
    """Chunks sort by snapshot and position."""
    return CHUNKS + sequence.to_bytes(8, "big") + number.to_bytes(4, "big")


def entry_place(entry: Entry, previous: int) -> bytes:
    """What an entry is besides its payload, for checksum and seal."""
    return _PLACE.pack(entry.index, entry.term, int(entry.type), previous)


def chunk_place(sequence: int, number: int) -> bytes:
    """Where a chunk belongs, for its seal."""
    return b"chunk" + chunk_key(sequence, number)


def chain(place: bytes, payload: bytes) -> int:
    """The checksum of an entry with this place and sealed payload."""
    return zlib.crc32(payload, zlib.crc32(place))


def pack_entry(entry: Entry, payload: bytes, previous: int, crc: int) -> bytes:
    """An entry's record."""
    packed: bytes = msgpack.packb((entry.index, entry.term, int(entry.type), previous, crc, payload))
    return packed


def unpack_entry(record: bytes) -> tuple[Entry, int, int]:
    """Entry (its data still sealed), checksum before it and its own; ``DiskDamaged`` when it does not hold together."""
    fields = _unpack(record, 6)
    try:
        entry = Entry(term=fields[1], index=fields[0], type=EntryType(fields[2]), data=fields[5])
        previous, crc = fields[3], fields[4]
        sound = chain(entry_place(entry, previous), entry.data) == crc
    except (ValueError, TypeError, struct.error):
        sound = False
    if not sound:
        raise DiskDamaged("the checksum of an entry does not match")
    return entry, previous, crc


def pack_plain(*fields: Any) -> bytes:
    """A record in clear: its fields and a checksum over them."""
    body: bytes = msgpack.packb(fields)
    packed: bytes = msgpack.packb((body, zlib.crc32(body)))
    return packed


def unpack_plain(record: bytes, count: int) -> list[Any]:
    """The fields of a record in clear; ``DiskDamaged`` when it does not hold together."""
    body, crc = _unpack(record, 2)
    if not isinstance(body, bytes) or zlib.crc32(body) != crc:
        raise DiskDamaged("the checksum of a record does not match")
    return _unpack(body, count)


def _unpack(record: bytes, count: int) -> list[Any]:
    try:
        # An entry may be as large as the record it came in; msgpack's own limit is for streams from strangers.
        fields = msgpack.unpackb(record, max_bin_len=len(record))
    except (ValueError, msgpack.UnpackException) as error:
        raise DiskDamaged(f"a record is malformed: {error}") from None
    if not isinstance(fields, list) or len(fields) != count:
        raise DiskDamaged("a record is malformed")
    return fields


def pack_hard_state(state: HardState) -> bytes:
    """Term, vote and commit."""
    return pack_plain(state.term, state.vote, state.commit)


def pack_pointer(pointer: Pointer) -> bytes:
    """The snapshot in force."""
    conf = pointer.conf_state
    members = (conf.voters, conf.voters_outgoing, conf.learners, conf.learners_next, conf.auto_leave)
    return pack_plain(pointer.sequence, pointer.index, pointer.term, members, pointer.chunks, pointer.size, pointer.crc)


def unpack_pointer(record: bytes) -> Pointer:
    """The snapshot in force, as ``pack_pointer`` wrote it."""
    sequence, index, term, members, chunks, size, crc = unpack_plain(record, 7)
    voters, outgoing, learners, learners_next = (tuple(group) for group in members[:4])
    conf = ConfState(voters, outgoing, learners, learners_next, members[4])
    return Pointer(sequence, index, term, conf, chunks, size, crc)
