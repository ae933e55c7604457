"""Messages as plain values, for traces that are saved, and back, for traces that are replayed into a message test.

Rules owned here: secrets are left out, by type (a dataclass's field with ``repr=False``, the protobuf fields of
``SECRET_FIELDS``, what looks like a token or a private key in any text, and bytes of whatever kind: log entries and
snapshots hold secrets too); of a field whose metadata say ``scrubbed`` only the secrets within are left out. Functions,
connections and other things of one process cannot be kept. A message that lacks a part cannot be made again. A class is
found again only in the rooms that the reader names, so that a file can run no other code. A view is all of the store
and is not kept: a commit is made again out of its changes, over a store that the reader gives.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from runtime.introspection.redact import hide
from runtime.stage import Address
from runtime.store.changes import apply
from runtime.store.events import Commit
from runtime.store.view import Published, View
from runtime.wire import pb

SIZE_MAX: Final = 256 * 1024
"""Bytes of one protobuf message that are kept."""
SECRET_FIELDS: Final = frozenset(
    {
        "docker.swarmkit.v1.SecretSpec.data",
        "docker.swarmkit.v1.RootCA.ca_key",
        "docker.swarmkit.v1.RootCA.join_tokens",
        "docker.swarmkit.v1.RootRotation.ca_key",
        "docker.swarmkit.v1.CAConfig.signing_ca_key",
        "docker.swarmkit.v1.EncryptionKey.key",
        "docker.swarmkit.v1.ContainerSpec.PullOptions.registry_auth",
        "docker.swarmkit.v1.IssueNodeCertificateRequest.token",
        "docker.swarmkit.v1.GetUnlockKeyResponse.unlock_key",
        "raftpb.Entry.Data",
        "raftpb.Snapshot.data",
        "swarmlet.v1.ToTask.input",
        "swarmlet.v1.Output.data",
        "swarmlet.v1.RunCommand.argv",
        "swarmlet.v1.RunCommand.env",
    }
)
ROOMS: Final = ("runtime.", "actors.")
"""Where the project's own messages are."""
_DEPTH_MAX: Final = 12


class NotReplayable(ValueError):
    """A message that cannot be made again; the text says which part is missing."""


def to_plain(value: Any, depth: int = 0) -> Any:
    """A value made of what msgpack knows; ``{"$missing": WHY}`` where that cannot be."""
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$missing": f"{len(value)} bytes are not kept"} if value else b""
    if depth > _DEPTH_MAX:
        return {"$missing": "nested too deeply"}
    if isinstance(value, enum.Enum):
        return {"$enum": _name(type(value)), "value": to_plain(value.value, depth + 1)}
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else {"$int": str(value)}
    if isinstance(value, Message):
        return _protobuf(value)
    if isinstance(value, Address):
        return {"$address": value.path}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _dataclass(value, depth)
    if isinstance(value, Mapping):
        pairs = [[to_plain(key, depth + 1), to_plain(inner, depth + 1)] for key, inner in value.items()]
        return {"$map": pairs}
    if isinstance(value, (list, tuple, set, frozenset)):
        kind = "list" if isinstance(value, list) else "tuple" if isinstance(value, tuple) else "set"
        items = sorted(value, key=repr) if kind == "set" else value
        return {f"${kind}": [to_plain(each, depth + 1) for each in items]}
    return _class_or_signal(value)


def _class_or_signal(value: Any) -> Any:
    if isinstance(value, View):
        return {"$view": value.version}
    if isinstance(value, type) and issubclass(value, Message):
        return {"$kind": value.DESCRIPTOR.full_name}
    if _stateless(value):
        return {"$data": _name(type(value)), "fields": {}}  # its class is all it says
    return {"$missing": f"a {type(value).__name__} belongs to its process"}


def _stateless(value: Any) -> bool:
    slots = any(getattr(base, "__slots__", ()) for base in type(value).__mro__)
    return type(value).__module__ != "builtins" and not slots and not getattr(value, "__dict__", None)


def _protobuf(value: Message) -> dict[str, Any]:
    if value.ByteSize() > SIZE_MAX:
        return {"$missing": f"a message of {value.ByteSize()} bytes is more than is kept"}
    kept = type(value)()
    kept.CopyFrom(value)
    scrub(kept)
    return {"$protobuf": value.DESCRIPTOR.full_name, "data": kept.SerializeToString(deterministic=True)}


def scrub(message: Message) -> None:
    """Clears every field that holds a secret, in this message and in those within it, and hides what looks like one in
    texts."""
    for field, value in message.ListFields():
        if field.full_name in SECRET_FIELDS:
            message.ClearField(field.name)
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            _scrub_map(value)
        elif field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                scrub(inner)
        elif field.type == FieldDescriptor.TYPE_STRING and field.is_repeated:
            value[:] = [hide(each) for each in value]
        elif field.type == FieldDescriptor.TYPE_STRING:
            setattr(message, field.name, hide(value))


def _scrub_map(values: Any) -> None:
    for key, value in list(values.items()):
        if isinstance(value, Message):
            scrub(value)
        elif isinstance(value, str):
            values[key] = hide(value)


def _dataclass(value: Any, depth: int) -> dict[str, Any]:
    fields = {
        field.name: to_plain(getattr(value, field.name), depth + 1) if _kept(field) else {"$missing": "it is a secret"}
        for field in dataclasses.fields(value)
        if field.init
    }
    return {"$data": _name(type(value)), "fields": fields}


def _kept(field: dataclasses.Field[Any]) -> bool:
    return field.repr or "scrubbed" in field.metadata


def _name(kind: type[Any]) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


@dataclasses.dataclass(frozen=True, slots=True)
class _Reading:
    resolve: Callable[[str], Address]
    rooms: tuple[str, ...]
    published: Published | None


def from_plain(
    value: Any, resolve: Callable[[str], Address], rooms: tuple[str, ...] = ROOMS, published: Published | None = None
) -> Any:
    """What ``to_plain`` was given. NotReplayable, or what a class raises.

    ``resolve`` makes addresses out of paths; ``rooms`` are the beginnings of the modules whose classes may be named.
    The changes of commits are made to ``published``, which has their views then.
    """
    return _make(value, _Reading(resolve, rooms, published))


def _make(value: Any, reading: _Reading) -> Any:
    if not isinstance(value, dict):
        return value
    tag = next((key for key in value if isinstance(key, str) and key.startswith("$")), "")
    make = _MAKERS.get(tag)
    if make is None:
        raise NotReplayable(f"nothing is known of {tag or 'a map without a tag'}")
    return make(value, reading)


def _missing(value: dict[str, Any], reading: _Reading) -> Any:
    raise NotReplayable(str(value["$missing"]))


def _from_protobuf(value: dict[str, Any], reading: _Reading) -> Message:
    try:
        found: Message = _kind(value["$protobuf"]).FromString(value["data"])
    except (KeyError, DecodeError, TypeError) as error:
        raise NotReplayable(f"{value.get('$protobuf')!r} cannot be read: {error}") from None
    return found


def _kind(name: str) -> type[Message]:
    """The class of a protobuf message; those of the wire are loaded first. KeyError or TypeError if there is none."""
    for module in pkgutil.iter_modules(pb.__path__, f"{pb.__name__}."):
        importlib.import_module(module.name)
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(name))


def _from_kind(value: dict[str, Any], reading: _Reading) -> type[Message]:
    try:
        return _kind(value["$kind"])
    except (KeyError, TypeError):
        raise NotReplayable(f"{value['$kind']!r} is no message of the wire") from None


def _from_dataclass(value: dict[str, Any], reading: _Reading) -> Any:
    kind = _class(value["$data"], reading.rooms)
    fields = {str(name): inner for name, inner in value["fields"].items()}
    if kind is Commit:
        return _commit(fields, reading)
    return kind(**{name: _make(inner, reading) for name, inner in fields.items()})


def _commit(fields: dict[str, Any], reading: _Reading) -> Commit:
    if reading.published is None:
        raise NotReplayable("a commit holds the whole store: give the replay one of the test's own")
    version, events = _make(fields["version"], reading), _make(fields["events"], reading)
    view = reading.published.view
    for event in events:
        old = view.get(event.kind, event.object.id)  # which may lack what was there when the trace began
        if event.new is not None or old is not None:
            view = apply(view, (dataclasses.replace(event, old=old, of_status=False),), version)
    reading.published.view = view.at(version)
    return Commit(version, events, reading.published.view)


def _view(value: dict[str, Any], reading: _Reading) -> Any:
    raise NotReplayable("a view holds the whole store")


def _from_enum(value: dict[str, Any], reading: _Reading) -> Any:
    kind = _class(value["$enum"], reading.rooms)
    if not issubclass(kind, enum.Enum):
        raise NotReplayable(f"{value['$enum']!r} is no enumeration")
    return kind(_make(value["value"], reading))


def _class(name: Any, rooms: tuple[str, ...]) -> type[Any]:
    module, _, qualified = str(name).partition(":")
    if not module.startswith(rooms):
        raise NotReplayable(f"{name!r} is no message of ours")
    try:
        found: Any = importlib.import_module(module)
        for part in qualified.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        raise NotReplayable(f"{name!r} is not there any more") from None
    if not isinstance(found, type) or found.__module__ != module:
        raise NotReplayable(f"{name!r} is no message of ours")
    return found


_MAKERS: Final[Mapping[str, Callable[[dict[str, Any], _Reading], Any]]] = {
    "$missing": _missing,
    "$view": _view,
    "$protobuf": _from_protobuf,
    "$kind": _from_kind,
    "$data": _from_dataclass,
    "$enum": _from_enum,
    "$address": lambda value, reading: reading.resolve(value["$address"]),
    "$int": lambda value, reading: int(value["$int"]),
    "$map": lambda value, reading: {_make(k, reading): _make(v, reading) for k, v in value["$map"]},
    "$list": lambda value, reading: [_make(each, reading) for each in value["$list"]],
    "$tuple": lambda value, reading: tuple(_make(each, reading) for each in value["$tuple"]),
    "$set": lambda value, reading: frozenset(_make(each, reading) for each in value["$set"]),
}
