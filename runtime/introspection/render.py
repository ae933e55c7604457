"""Answers as text: the tree with its branches, tables with aligned columns, one actor with all that is known of it."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from runtime.introspection.sequence import duration

_HEADS: Final = ("ACTOR", "STATE", "DEPTH", "MOST", "HANDLED", "FAILS", "LAST ERROR")
ERROR_SHOWN: Final = 80
STUCK_S: Final = 1.0
"""An actor that is at one message for so long is said to be stuck."""
CRASHES_SHOWN: Final = 20


def tree(value: dict[str, Any]) -> str:
    """What ``tree`` was answered, for people: columns, a closing line of totals."""
    actors = value["actors"]
    lines = [(branch + each["path"].rsplit("/", 1)[-1], each) for branch, each in _branches(actors)]
    table = [_HEADS, *(_cells(name, each) for name, each in lines)]
    widths = [max(len(line[column]) for line in table) for column in range(len(_HEADS))]
    shown = [_aligned(line, widths) for line in table]
    totals = value["stage"]
    shown.append(
        f"{totals['actors']} actors, {sum(each['handled'] for each in actors)} messages handled, "
        f"{sum(each['restarts'] for each in actors)} failures, {totals['dead_letters']} dead letters"
    )
    return "\n".join(shown)


def state(row: Mapping[str, Any]) -> str:
    """Where an actor stands, for people: ``stuck`` while it runs and is at one message for a second or more."""
    return "stuck" if row["state"] == "running" and row.get("handling_s", 0.0) >= STUCK_S else str(row["state"])


def cleared(value: Mapping[str, Any]) -> str:
    """What ``clear`` was answered."""
    return f"{value['traces']} traces ended, {value['undone']} suspensions and log levels undone"


def _cells(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    error = " ".join(row["last_error"].split())
    if len(error) > ERROR_SHOWN:
        error = error[: ERROR_SHOWN - 3] + "..."
    stands = state(row) + (f" ({row['handling']})" if row["handling"] else "")
    return (name, stands, str(row["depth"]), str(row["highest"]), str(row["handled"]), str(row["restarts"]), error)


def _aligned(line: tuple[str, ...], widths: list[int]) -> str:
    cells = [
        text.rjust(width) if 2 <= column <= 5 else text.ljust(width)
        for column, (text, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _branches(actors: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Each actor with what is drawn before its name; an actor whose parent is not shown stands at the top."""
    by_path = {each["path"]: each for each in actors}
    children: dict[str, list[str]] = {}
    for path in by_path:
        parent = path.rsplit("/", 1)[0]
        children.setdefault(parent if parent in by_path else "", []).append(path)
    drawn: list[tuple[str, dict[str, Any]]] = []
    _draw("", "", children, by_path, drawn)
    return drawn


def _draw(
    parent: str,
    indent: str,
    children: dict[str, list[str]],
    by_path: dict[str, dict[str, Any]],
    drawn: list[tuple[str, dict[str, Any]]],
) -> None:
    paths = children.get(parent, [])
    for path in paths:
        last = path == paths[-1]
        mark, below = ("", "") if not parent else ("└─ ", "   ") if last else ("├─ ", "│  ")
        drawn.append((indent + mark, by_path[path]))
        _draw(path, indent + below, children, by_path, drawn)


# Windows of time


def window(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What happened between two answers to ``tree``: for each actor messages a second, share of busy time, growth of
    the mailbox. Actors that were not there before count from nothing. First come those whose mailbox has a message that
    waits for a second or more, longest first, then the busiest."""
    seconds = max(1e-6, after["stage"]["clock"] - before["stage"]["clock"])
    known = {row["path"]: row for row in before["actors"]}
    rows = [_between(known.get(row["path"], {}), row, seconds) for row in after["actors"]]
    return {"seconds": seconds, "actors": sorted(rows, key=_behind_first)}


def _behind_first(row: Mapping[str, Any]) -> tuple[Any, ...]:
    behind = row["oldest_s"] if row["depth"] and row["oldest_s"] >= STUCK_S else 0.0
    return (-behind, -row["busy"], -row["rate"], row["path"])


def _between(before: Mapping[str, Any], row: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    return {
        "path": row["path"],
        "state": row["state"],
        "rate": (row["handled"] - before.get("handled", 0)) / seconds,
        "busy": max(0.0, _busy(row) - _busy(before)) / seconds,
        "depth": row["depth"],
        "grown": row["depth"] - before.get("depth", 0),
        "oldest_s": row["oldest_s"],
        "failures": row["restarts"] - before.get("restarts", 0),
        "handling": row["handling"],
        "handling_s": row["handling_s"],
    }


def actor_window(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What one actor did between two answers to ``actor``: messages a second and share of busy time."""
    seconds = max(1e-6, after["clock"] - before["clock"])
    found = _between(before, after, seconds)
    return {"seconds": seconds, "rate": max(0.0, found["rate"]), "busy": found["busy"]}


def with_rates(
    before: Sequence[Mapping[str, Any]], figures: Sequence[Mapping[str, Any]], seconds: float
) -> list[dict[str, Any]]:
    """Figures by message type, with how many a second there were since ``before``."""
    counts = {each["type"]: each["count"] for each in before}
    return [
        {**each, "rate": max(0, each["count"] - counts.get(each["type"], 0)) / max(1e-6, seconds)} for each in figures
    ]


def _busy(row: Mapping[str, Any]) -> float:
    """Seconds in handlers, with those of the message in hand: an actor that is stuck is busy, whatever it finished."""
    return float(row.get("busy_s", 0.0) + row.get("handling_s", 0.0))


def top(value: Mapping[str, Any], rows: int) -> str:
    """The actors of a window that are behind, and the busiest."""
    heads = ("ACTOR", "MSG/S", "BUSY", "DEPTH", "GROWN", "OLDEST", "FAILS", "NOW")
    table = [heads]
    for each in value["actors"][:rows]:
        at_rest = "" if each["state"] == "running" else f"({each['state']})"
        now = f"{each['handling']} for {duration(each['handling_s'])}" if each["handling"] else at_rest
        oldest = duration(each["oldest_s"]) if each["depth"] else ""
        table.append(
            (
                each["path"],
                f"{each['rate']:.1f}",
                f"{each['busy'] * 100:.1f} %",
                str(each["depth"]),
                f"{each['grown']:+d}" if each["grown"] else "",
                oldest,
                str(each["failures"] or ""),
                now,
            )
        )
    total = sum(each["rate"] for each in value["actors"])
    busy = sum(each["busy"] for each in value["actors"])
    closing = f"{total:.1f} messages a second, {busy * 100:.1f} % of one thread busy, over {value['seconds']:.1f} s"
    return f"{columns(table, right=range(1, 7))}\n{closing}"


def columns(table: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Aligned columns, two blanks apart; those in ``right`` stand at their right edge."""
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(
            text.rjust(width) if column in right else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    )


# One actor, crashes, states


def actor(value: Mapping[str, Any]) -> str:
    """All that is known of one actor."""
    lines = [f"{value['path']}  ({value['actor']}, {state(value)})"]
    if value["handling"]:
        lines.append(f"handles {value['handling']} for {duration(value['handling_s'])}")
    waits = f"{value['depth']} wait, the oldest for {duration(value['oldest_s'])}"
    lines.append(f"mailbox: {waits}; at most {value['highest']} so far")
    lines.append(f"handled {value['handled']}, failed {value['failed']}, restarts {value['restarts']}; "
                 f"busy {duration(value['busy_s'])} in all")  # fmt: skip
    lines += [_window_line(each) for each in value.get("windows", ())]
    for name in ("parent", "children", "watchers"):
        paths = [value[name]] if name == "parent" else value[name]
        if any(paths):
            lines.append(f"{name}: {', '.join(paths)}")
    for waited in value["waits_for"]:
        since = f"{duration(waited['waited_s'])} of at most {duration(waited['deadline_s'])}"
        lines.append(f"waits for an answer from {waited['path']} to {waited['type']}, for {since}")
    lines += ["", "STATE", states(value["snapshot"])]
    lines += ["", messages(value["messages"])]
    if value["stack"]:
        lines += ["", "WHERE ITS THREAD IS", *(f"  {frame}" for frame in value["stack"])]
    if value["crashes"]:
        lines += ["", crashes(value["crashes"], tracebacks=False)]
    return "\n".join(lines)


def _window_line(each: Mapping[str, Any]) -> str:
    return (f"over {each['seconds']:.0f} s: {each['rate']:.1f} messages a second, "
            f"{each['busy'] * 100:.1f} % of the time busy")  # fmt: skip


def messages(figures: Sequence[Mapping[str, Any]]) -> str:
    """Figures by message type; with how many a second where that was counted."""
    rated = any("rate" in each for each in figures)
    table = [("MESSAGE", "COUNT", *(("MSG/S",) if rated else ()), "FAILED",
              "WAIT P50", "P99", "MAX", "BUSY P50", "P99", "MAX", "IN ALL")]  # fmt: skip
    times = ("wait_p50_s", "wait_p99_s", "wait_max_s", "busy_p50_s", "busy_p99_s", "busy_max_s", "busy_s")
    for each in figures:
        rate = (f"{each['rate']:.1f}",) if rated else ()
        figure = (each["type"], str(each["count"]), *rate, str(each["failed"] or ""))
        table.append((*figure, *(duration(each[name]) for name in times)))
    return columns(table, right=range(1, len(table[0])))


def crashes(reports: Sequence[Mapping[str, Any]], tracebacks: bool) -> str:
    """How often each actor failed with the same error (of what is kept: 20 of each actor) and in all since it is there;
    then the last failures, newest last."""
    if not reports:
        return "nothing failed"
    often = Counter((each["path"], each["message"], " ".join(str(each["error"]).split())) for each in reports)
    in_all = {each["path"]: str(each["in_all"] or "") for each in reports}
    table = [("TIMES", "FAILS", "ACTOR", "OVER", "ERROR")]
    table += [
        (str(count), in_all[path], path, over, error[:ERROR_SHOWN])
        for (path, over, error), count in often.most_common()
    ]
    lines = [*columns(table, right=(0, 1)).splitlines(), ""] if len(often) < len(reports) else []
    for each in reports[-CRASHES_SHOWN:]:
        at = datetime.datetime.fromtimestamp(each["at"], datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
        lines.append(f"{at}  {each['path']}  over {each['message']}: {' '.join(str(each['error']).split())}")
        if each["before"]:
            lines.append(f"    before it: {', '.join(each['before'])}")
        if tracebacks:
            lines += [f"    {line}" for line in each["traceback"]]
    return "\n".join(lines)


def states(value: Any, indent: str = "  ") -> str:
    """A declared state as indented lines."""
    if isinstance(value, Mapping):
        width = max((len(str(key)) for key in value), default=0)
        lines = []
        for key, inner in value.items():
            if isinstance(inner, (Mapping, list)) and inner:
                lines.append(f"{indent}{key}:")
                lines.append(states(inner, indent + "  "))
            else:
                lines.append(f"{indent}{str(key).ljust(width)}  {inner if inner not in ({}, []) else '(none)'}")
        return "\n".join(lines)
    if isinstance(value, list):
        flat = all(not isinstance(each, (Mapping, list)) for each in value)
        return f"{indent}{', '.join(map(str, value))}" if flat else "\n".join(states(each, indent) for each in value)
    return f"{indent}{value}"
