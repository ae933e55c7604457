"""The checks that every control request shares, with the texts that clients know.

Rules owned here: a missing id, version or spec is ``invalid argument`` unless its kind says more; an unknown object is
``<kind> <id> not found``; an update carries the version that its author read, and the store compares it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from google.protobuf.message import Message

from runtime.errors import Code, Refused, invalid, not_found
from runtime.swarm.ports import T, Tx, View
from runtime.wire.pb import types_pb2 as types

OBJECT_BYTES_MAX: Final = (1536 << 10) - (64 << 10)
"""An entry of the log has at most 1.5 MiB."""

M = TypeVar("M", bound=Message)


def require(*given: object, text: str = "invalid argument") -> None:
    """Refuses a request in which something that it cannot do without is empty."""
    if not all(given):
        raise invalid(text)


def require_field(request: Message, *names: str) -> None:
    """Refuses a request that lacks a message field; an empty message counts as given."""
    if not all(request.HasField(name) for name in names):
        raise invalid("invalid argument")


def find_or_refuse(view: View, kind: type[T], id: str) -> T:
    """The object with this id; refused with NotFound."""
    found = view.get(kind, id)
    if found is None:
        raise not_found(f"{kind.DESCRIPTOR.name.lower()} {id} not found")
    return found


def check_room(obj: Message) -> None:
    """Refuses an object that a log entry might not hold once states, endpoints and addresses are written into it: an
    update that was taken would wait for ever."""
    check_size(obj.ByteSize())


def check_size(size: int) -> None:
    """The same of something that is put together later."""
    if size > OBJECT_BYTES_MAX:
        text = f"raft: raft message is too large and can't be sent ({size} of {OBJECT_BYTES_MAX} bytes)"
        raise invalid(text)


def copy_of(message: M) -> M:
    """A copy to change; what a view hands out is not changed."""
    new = type(message)()
    new.CopyFrom(message)
    return new


def based_on(stored: T, version: types.Version) -> T:
    """A copy of a stored object that claims to follow the version its author read; ``Tx.update`` checks the claim."""
    new = copy_of(stored)
    new.meta.version.CopyFrom(version)
    return new


def stored(tx: Tx, kind: type[T], id: str) -> T:
    """What a transaction just wrote, with its stamps."""
    found = tx.get(kind, id)
    assert found is not None, f"{kind.__name__} {id} was written and is not there"
    return found


def named(view: View, kind: type[T], name: str) -> Sequence[T]:
    """The objects that hold a name, in any case of letters."""
    return view.find(kind, "name", name.lower())


def refuse_taken(view: View, kind: type[T], name: str, refusal: Refused, own_id: str = "") -> None:
    """Raises the refusal when another object of the kind has the name."""
    if any(holder.id != own_id for holder in named(view, kind, name)):
        raise refusal


def exists(text: str) -> Refused:
    """A request that would make a second of what there can be one of."""
    return Refused(Code.ALREADY_EXISTS, text)


def unimplemented(text: str) -> Refused:
    """A request that is understood and that nobody here can carry out."""
    return Refused(Code.UNIMPLEMENTED, text)
