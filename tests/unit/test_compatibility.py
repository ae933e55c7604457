"""``docs/compatibility.md`` says no more than there is: the tests that it names exist, each row has one or a reason."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "compatibility.md"
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+) \|$")
NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def rows() -> Iterator[tuple[str, int, str, str]]:
    """Part, number, what, held by."""
    part = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            part = line[3:]
        elif found := ROW.match(line):
            yield part, int(found[1]), found[2], found[3]


@pytest.mark.parametrize(("part", "count"), [("The engine's API", 120), ("SwarmKit", 200)])
def test_the_rows_are_all_there_in_order(part: str, count: int) -> None:
    assert [number for where, number, _, _ in rows() if where == part] == list(range(1, count + 1))


def test_every_row_has_a_test_or_a_reason() -> None:
    bare = [
        f"{part} {number}"
        for part, number, _, held in rows()
        if not (NAMED.search(held) if not held.startswith("— ") else len(held) > 15)
    ]
    assert bare == []


def test_every_test_that_is_named_exists() -> None:
    missing = []
    sources: dict[str, str] = {}
    for part, number, _, held in rows():
        for path, name in NAMED.findall(held):
            if path not in sources:
                file = ROOT / "tests" / path
                sources[path] = file.read_text(encoding="utf-8") if file.exists() else ""
            if not re.search(rf"^(async )?def {name}\(", sources[path], re.MULTILINE):
                missing.append(f"{part} {number}: {path}::{name}")
    assert missing == []


def test_nothing_that_looks_like_a_test_is_named_in_another_way() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(re.findall(r"\btest_\w+`", text)) == len(NAMED.findall(text))
