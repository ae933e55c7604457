"""A trace as a file: msgpack, one map a record after a head, and how it is told again to an actor under test."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgpack

from runtime.introspection.bodies import ROOMS, NotReplayable, from_plain, to_plain
from runtime.introspection.tracing import Record
from runtime.stage import Address
from runtime.store.view import Published

FORMAT: Final = "swarmlet.trace"
VERSION: Final = 1
_KINDS: Final[dict[str, Any]] = {
    "told": (int, float), "begun": (int, float), "took": (int, float), "trace": int,
    "sender": str, "receiver": str, "type": str, "outcome": str,
}  # fmt: skip
FIELDS: Final = tuple(_KINDS)


def plain(record: Record) -> dict[str, Any]:
    """A record as a map; ``body`` is there if it was kept."""
    found: dict[str, Any] = dict(zip(FIELDS, record, strict=False))
    if record[-1] is not None:
        found["body"] = to_plain(record[-1])
    return found


def check_place(path: Path) -> None:
    """OSError if no trace can be saved there."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not os.access(path.parent, os.W_OK | os.X_OK):
        number = errno.EACCES if path.parent.is_dir() else errno.ENOENT
        raise OSError(number, os.strerror(number), str(path.parent))


def save(path: Path, records: Sequence[dict[str, Any]], **about: Any) -> None:
    """Writes a trace for its owner alone: bodies may hold what only the cluster should know. It is there whole or not
    at all, and takes the place of what was there."""
    fd, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(msgpack.packb({"format": FORMAT, "version": VERSION, "count": len(records), **about}))
            for record in records:
                file.write(msgpack.packb(record, default=str))
        os.replace(name, path)
    except BaseException:
        Path(name).unlink()
        raise


def load(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Head and records. ValueError if the file is no trace of this version, or not all of one."""
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
    if head.get("count", len(records)) != len(records):
        raise ValueError(f"{path} was cut: it has {len(records)} of {head['count']} messages")
    if not all(_is_record(each) for each in records):
        raise ValueError(f"{path} holds what is no message of a trace")
    return head, records


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in _KINDS.items())


def replay(
    records: Iterable[dict[str, Any]],
    receiver: str,
    target: Address,
    resolve: Callable[[str], Address],
    rooms: tuple[str, ...] = ROOMS,
    published: Published | None = None,
) -> list[str]:
    """Tells ``target`` in order what ``receiver`` was told in the trace, each from the address of its sender. Commits
    are made to ``published``, the test's own store, whose view is that of the last of them afterwards.

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
            message = from_plain(record["body"], resolve, rooms, published)
        except NotReplayable as why:
            left_out.append(f"{record['type']}: {why}")
            continue
        target.tell(message, resolve(record["sender"]) if record["sender"] else None)
    return left_out
