"""A trace as a file: msgpack, one map a record after a head, and how it is told again to an actor under test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgpack

from runtime.introspection.bodies import ROOMS, NotReplayable, from_plain, to_plain
from runtime.introspection.tracing import Record
from runtime.stage import Address

FORMAT: Final = "swarmlet.trace"
VERSION: Final = 1
FIELDS: Final = ("told", "begun", "took", "trace", "sender", "receiver", "type", "outcome")


def plain(record: Record) -> dict[str, Any]:
    """A record as a map; ``body`` is there if it was kept."""
    found: dict[str, Any] = dict(zip(FIELDS, record, strict=False))
    if record[-1] is not None:
        found["body"] = to_plain(record[-1])
    return found


def save(path: Path, records: Iterable[dict[str, Any]], **about: Any) -> None:
    """Writes a trace for its owner alone: bodies may hold what only the cluster should know."""
    path.touch(mode=0o600)
    with path.open("wb") as file:
        file.write(msgpack.packb({"format": FORMAT, "version": VERSION, **about}))
        for record in records:
            file.write(msgpack.packb(record, default=str))


def load(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Head and records. ValueError if the file is no trace of this version."""
    with path.open("rb") as file:
        unpacker = msgpack.Unpacker(file, strict_map_key=False)
        try:
            head, *records = unpacker
        except (ValueError, msgpack.UnpackException):
            raise ValueError(f"{path} is no recorded trace") from None
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise ValueError(f"{path} is no recorded trace")
    if head.get("version") != VERSION:
        raise ValueError(f"{path} is a trace of version {head.get('version')!r}; version {VERSION} is understood")
    return head, records


def replay(
    records: Iterable[dict[str, Any]],
    receiver: str,
    target: Address,
    resolve: Callable[[str], Address],
    rooms: tuple[str, ...] = ROOMS,
) -> list[str]:
    """Tells ``target`` in order what ``receiver`` was told in the trace, each from the address of its sender.

    The answer names what could not be told again, and why: messages whose body was not kept, or not whole, or whose
    class is in none of the ``rooms`` (beginnings of modules; a host program adds its own).
    """
    left_out: list[str] = []
    for record in records:
        if record["receiver"] != receiver:
            continue
        try:
            if "body" not in record:
                raise NotReplayable("its body was not recorded")
            message = from_plain(record["body"], resolve, rooms)
        except NotReplayable as why:
            left_out.append(f"{record['type']}: {why}")
            continue
        target.tell(message, resolve(record["sender"]) if record["sender"] else None)
    return left_out
