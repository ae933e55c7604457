"""What is said to a cluster actor in another process, and its answer: the messages of ``runtime.protocol.cluster`` and
what they are made of, as plain lists for msgpack.

Only classes named there can come out of it. What holds a callback or an address of an actor cannot cross: TypeError.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import msgpack
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from runtime import errors
from runtime.engine_api import backend
from runtime.protocol import cluster

PLAIN = (type(None), bool, int, float, str, bytes)
REFUSALS: dict[str, type[errors.Refused]] = {
    each.__name__: each
    for each in (
        errors.Refused,
        errors.NotSent,
        cluster.ClusterError,
        cluster.CertificateExpired,
        cluster.NodeRemoved,
    )
}
CLASSES: dict[str, type[Any]] = {
    name: each
    for module in (cluster, backend)
    for name, each in vars(module).items()
    if isinstance(each, type) and (dataclasses.is_dataclass(each) or issubclass(each, enum.Enum))
}


def pack(value: Any) -> bytes:
    """A value as bytes. TypeError for what cannot cross."""
    packed: bytes = msgpack.packb(_plain(value))
    return packed


def unpack(data: bytes) -> Any:
    """What ``pack`` was given."""
    return _made(msgpack.unpackb(data))


def _plain(value: Any) -> Any:
    if isinstance(value, errors.Refused):
        return ["refused", type(value).__name__, int(value.code), value.text, getattr(value, "kind", "")]
    if isinstance(value, enum.Enum) and type(value).__name__ in CLASSES:
        return ["enum", type(value).__name__, value.name]
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Message):
        return ["pb", value.DESCRIPTOR.full_name, value.SerializeToString(deterministic=True)]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *map(_plain, value)]
    if isinstance(value, frozenset):
        return ["frozenset", *map(_plain, sorted(value))]
    if CLASSES.get(type(value).__name__) is type(value):
        parts = ([field.name, _plain(getattr(value, field.name))] for field in dataclasses.fields(value))
        return ["object", type(value).__name__, *parts]
    raise TypeError(f"{type(value).__name__} cannot be said to a node in another process")


def _made(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    kind, *rest = value
    if kind in ("list", "tuple", "frozenset"):
        return {"list": list, "tuple": tuple, "frozenset": frozenset}[kind](map(_made, rest))
    if kind == "pb":
        found = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(rest[0]))
        return found.FromString(rest[1])
    if kind == "enum":
        return CLASSES[rest[0]][rest[1]]
    if kind == "object":
        return CLASSES[rest[0]](**{name: _made(part) for name, part in rest[1:]})
    return _refusal(*rest)


def _refusal(name: str, code: int, text: str, kind: str) -> errors.Refused:
    refusal = REFUSALS.get(name, errors.Refused)
    if refusal is cluster.ClusterError:
        return cluster.ClusterError(kind, text)
    for known in (cluster.CertificateExpired, cluster.NodeRemoved):
        if refusal is known:
            return known(text)
    return refusal(errors.Code(code), text)
