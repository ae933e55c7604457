"""What protobuf's encoding is made of, for the few messages that are put together or taken apart by hand: around large
objects, a message of the library's would hold each of them once more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

VARINT, FIXED_64, LENGTH_DELIMITED, FIXED_32 = 0, 1, 2, 5
_FIXED = {FIXED_64: 8, FIXED_32: 4}
_VARINT_MAX = 10


@dataclass(frozen=True, slots=True)
class Field:
    """Where a field stands in what was read: its key at ``begin``, its content from ``start`` to ``end``."""

    number: int
    wire_type: int
    begin: int
    start: int
    end: int


def varint(number: int) -> bytes:
    """A number as keys and lengths are written."""
    if number < 0x80:
        return bytes((number,))
    pieces = bytearray()
    while number >= 0x80:
        pieces.append(number & 0x7F | 0x80)
        number >>= 7
    pieces.append(number)
    return bytes(pieces)


def key(message: Any, field: str) -> bytes:
    """What stands before the length of a field that is a message or bytes."""
    return varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | LENGTH_DELIMITED)


def fields(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Field]:
    """The fields of a message, as they stand there; DecodeError where it is none. Groups, which nobody writes any more,
    are none."""
    end = len(data) if end is None else end
    while start < end:
        head, at = _varint_at(data, start, end)
        wire_type = head & 7
        if wire_type == LENGTH_DELIMITED:
            length, at = _varint_at(data, at, end)
            stop = at + length
        elif wire_type == VARINT:
            stop = _varint_at(data, at, end)[1]
        elif wire_type in _FIXED:
            stop = at + _FIXED[wire_type]
        else:
            raise DecodeError(f"a field of type {wire_type}")
        if stop > end or not head >> 3:
            raise DecodeError("a field that cannot be")
        yield Field(head >> 3, wire_type, start, at, stop)
        start = stop


def _varint_at(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number, and where it ends."""
    number = 0
    for shift in range(0, 7 * _VARINT_MAX, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise DecodeError("a number without an end")
