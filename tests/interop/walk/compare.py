"""What two walks have in common, and what is known to differ."""

from __future__ import annotations

import json
import tomllib
from itertools import zip_longest
from typing import Any

from tests.cli.transcript import Difference, Entry, expected, numbered, read, unlike
from tests.interop.walk.walker import DIFFERENCES, RECORDED


def recorded(chapter: str) -> list[Entry]:
    """What dockerd answered; nothing if the chapter was never recorded."""
    path = RECORDED / f"{chapter}.txt"
    return read(path) if path.exists() else []


def known(chapter: str) -> list[Difference]:
    """Where swarmlet is known to answer otherwise in a chapter."""
    if not DIFFERENCES.exists():
        return []
    tables = tomllib.loads(DIFFERENCES.read_text(encoding="utf-8")).get(chapter, [])
    return [
        Difference(
            each["command"], each["nth"], each["why"], each["code"],
            tuple(each.get("out", ())), tuple(each.get("err", ())),
        )
        for each in tables
    ]  # fmt: skip


def side_by_side(theirs: list[Entry], ours: list[Entry]) -> list[str]:
    """Every command that was answered differently, with both answers."""
    nothing = Entry("(nothing)", 0)
    pairs = zip_longest(theirs, ours, fillvalue=nothing)
    return [f"{a.text()}--- swarmlet\n{b.text()}" for a, b in pairs if a != b]


def unlike_known(theirs: list[Entry], ours: list[Entry], differences: list[Difference]) -> list[str]:
    """What differs and is not known to."""
    return unlike(expected(theirs, differences), ours)


def record(chapter: str, theirs: list[Entry], ours: list[Entry]) -> None:
    """Keeps a chapter; reasons that are known stay, new ones are a person's to write."""
    RECORDED.mkdir(exist_ok=True)
    (RECORDED / f"{chapter}.txt").write_text("\n".join(entry.text() for entry in theirs), encoding="utf-8")
    reasons = {(each.command, each.nth): each.why for each in known(chapter)}
    tables = tomllib.loads(DIFFERENCES.read_text(encoding="utf-8")) if DIFFERENCES.exists() else {}
    tables[chapter] = [
        {"command": b.command, "nth": nth, "why": reasons.get((b.command, nth), ""), "code": b.code,
         "out": list(b.out), "err": list(b.err)}
        for (a, nth), b in zip(numbered(theirs), ours, strict=True) if a != b
    ]  # fmt: skip
    DIFFERENCES.write_text("\n".join(_table(name, each) for name in tables for each in tables[name]), encoding="utf-8")


def _table(chapter: str, values: dict[str, Any]) -> str:
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items() if value != []]
    return "\n".join([f"[[{chapter}]]", *lines, ""])
