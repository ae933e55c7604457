"""A trace as a table, as a sequence diagram in text, and as one in Mermaid's language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

OUTSIDE: Final = "(outside)"
NAME_MAX: Final = 18
_MARKS: Final = {"ok": "", "refused": " (refused)", "failed": " (FAILED)"}

Record = Mapping[str, Any]


def duration(seconds: float) -> str:
    """Short and with its unit."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def trace_id(trace: int) -> str:
    """A trace id for people: where it began, and which of the traces that began there."""
    return f"{trace >> 32:05x}.{trace & 0xFFFFFFFF}" if trace >> 32 else str(trace)


def table(records: Sequence[Record]) -> str:
    """One message a line: when, who told whom what, how long it waited and took, and how it ended."""
    heads = ("AT", "FROM", "TO", "MESSAGE", "WAITED", "TOOK", "TRACE")
    start = records[0]["told"] if records else 0.0
    rows = [
        (
            f"+{duration(max(0.0, each['told'] - start))}",
            each["sender"] or OUTSIDE,
            each["receiver"],
            each["type"] + _MARKS.get(each["outcome"], ""),
            duration(max(0.0, each["begun"] - each["told"])),
            duration(each["took"]),
            trace_id(each["trace"]),
        )
        for each in records
    ]
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (heads, *rows))
    return "\n".join(line.rstrip() for line in lines)


def participants(records: Sequence[Record]) -> list[str]:
    """Everybody in the trace, in the order of appearance."""
    seen: dict[str, None] = {}
    for each in records:
        seen.setdefault(each["sender"] or OUTSIDE)
        seen.setdefault(each["receiver"])
    return list(seen)


def names(paths: Sequence[str]) -> dict[str, str]:
    """The shortest endings of paths that tell them apart."""
    found: dict[str, str] = {}
    for path in paths:
        parts = path.strip("/").split("/")
        for count in range(1, len(parts) + 1):
            short = "/".join(parts[-count:])
            if sum(1 for other in paths if f"/{other.strip('/')}".endswith(f"/{short}")) == 1:
                break
        found[path] = short
    return found


def text(records: Sequence[Record]) -> str:
    """A column for each actor, an arrow for each message, downwards in time."""
    paths = participants(records)
    shown = {path: name[-NAME_MAX:] for path, name in names(paths).items()}
    width = max((len(name) for name in shown.values()), default=0) + 4
    middle = {path: index * width + width // 2 for index, path in enumerate(paths)}
    lines = ["".join(shown[path].center(width) for path in paths).rstrip()]
    for each in records:
        lines.append(_label(each, middle, width * len(paths)))
        lines.append(_arrow(each, middle, width * len(paths)))
    return "\n".join(line.rstrip() for line in lines)


def _bars(middle: dict[str, int], width: int) -> list[str]:
    line = [" "] * max(width, 1)
    for place in middle.values():
        line[place] = "│"
    return line


def _label(record: Record, middle: dict[str, int], width: int) -> str:
    here, there = middle[record["sender"] or OUTSIDE], middle[record["receiver"]]
    label = f"{record['type']}{_MARKS.get(record['outcome'], '')} {duration(record['took'])}"
    start = min(here, there) + 2
    line = _bars(middle, max(width, start + len(label) + 1))
    line[start : start + len(label)] = label
    return "".join(line)


def _arrow(record: Record, middle: dict[str, int], width: int) -> str:
    here, there = middle[record["sender"] or OUTSIDE], middle[record["receiver"]]
    line = _bars(middle, width + 4)
    if here == there:
        line[here : here + 4] = "│◀─┘"
        return "".join(line)
    low, high = min(here, there), max(here, there)
    line[low + 1 : high] = "─" * (high - low - 1)
    line[there - 1 if there > here else there + 1] = "▶" if there > here else "◀"
    return "".join(line)


def mermaid(records: Sequence[Record]) -> str:
    """For a document: Mermaid draws it."""
    paths = participants(records)
    shown = names(paths)
    numbers = {path: f"p{index}" for index, path in enumerate(paths)}
    lines = ["sequenceDiagram", *(f"    participant {numbers[path]} as {shown[path]}" for path in paths)]
    for each in records:
        arrow = "-x" if each["outcome"] == "failed" else "->>"
        label = f"{each['type']}{_MARKS.get(each['outcome'], '')} ({duration(each['took'])})"
        lines.append(f"    {numbers[each['sender'] or OUTSIDE]}{arrow}{numbers[each['receiver']]}: {label}")
    return "\n".join(lines)
