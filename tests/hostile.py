"""What a broken or hostile peer sends: every method with nothing, noise, halves, and fields beyond measure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from runtime.wire.services import Method

NUMBERS = (0, 1, 2, 3, 7, 255, 2**31 - 1, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1, -1, -(2**31), -(2**63))
TEXTS = ("", " ", "a", "default", "../../etc/passwd", "\x00", "x" * 5000, "☃", "%s%n", "SWMTKN-1-a-b", "-----BEGIN")
RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


class Raw:
    """Bytes that stand where a message is expected."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def SerializeToString(self, *, deterministic: bool = False) -> bytes:
        return self.data


def raw(data: bytes) -> Message:
    """Bytes to be sent as they are."""
    return cast("Message", Raw(data))


class Forger:
    """Makes messages. ``known`` are texts that mean something to the victim (ids, names, addresses)."""

    def __init__(self, seed: Any, known: Sequence[str] = ()) -> None:
        self.rng = random.Random(seed)
        self.texts = (*TEXTS, *known)
        self.known = known

    def payloads(self, method: Method, forged: int) -> Iterator[bytes]:
        """Nothing; noise; and ``forged`` messages of the right shape, each whole and cut off somewhere."""
        yield b""
        yield self.rng.randbytes(self.rng.randint(1, 200))
        for _ in range(forged):
            message = self.message(method.request)
            data = message.SerializePartialToString()
            yield data
            yield data[: self.rng.randint(0, len(data))]

    def message(self, kind: type[Message]) -> Message:
        """One with any field set to anything."""
        made = kind()
        self._fill(made, made.DESCRIPTOR, 4)
        return made

    def _fill(self, message: Any, descriptor: Descriptor, depth: int) -> None:
        chosen = self.rng.choice((0.3, 0.8))
        for field in descriptor.fields:
            if self.rng.random() < chosen:
                self._set(message, field, depth)

    def _set(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        entry = field.message_type is not None and field.message_type.GetOptions().map_entry
        if entry:
            self._fill_map(getattr(message, field.name), field.message_type, depth)
        elif field.message_type is not None:
            if depth == 0:
                return
            if field.is_repeated:
                for _ in range(self.rng.choice((1, 1, 2, 5))):
                    self._fill(getattr(message, field.name).add(), field.message_type, depth - 1)
            else:
                inner = getattr(message, field.name)
                inner.SetInParent()
                self._fill(inner, field.message_type, depth - 1)
        elif field.is_repeated:
            getattr(message, field.name).extend(self._value(field) for _ in range(self.rng.choice((1, 2, 9))))
        else:
            setattr(message, field.name, self._value(field))

    def _fill_map(self, target: Any, entry: Descriptor, depth: int) -> None:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        for _ in range(self.rng.choice((1, 3))):
            if value.message_type is None:
                target[self._value(key)] = self._value(value)
            elif depth:
                self._fill(target[self._value(key)], value.message_type, depth - 1)

    def _value(self, field: FieldDescriptor) -> Any:
        rng = self.rng
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            text = rng.choice(self.known) if self.known and rng.random() < 0.6 else rng.choice(self.texts)
            return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
        if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return rng.random() < 0.5
        if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
            return rng.choice((0.0, -1.0, float("inf"), float("nan"), 1e30))
        if field.enum_type is not None and (field.enum_type.is_closed or rng.random() < 0.7):
            return rng.choice(field.enum_type.values).number
        low, high = RANGES[field.cpp_type]
        value = rng.choice(NUMBERS)
        return value if low <= value <= high else value % (high + 1)
