"""The tree of actors as text: one actor a line, aligned, with the branches drawn."""

from __future__ import annotations

from typing import Any, Final

_HEADS: Final = ("ACTOR", "STATE", "MAILBOX", "MOST", "HANDLED", "RESTARTS", "LAST ERROR")
ERROR_SHOWN: Final = 80


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


def _cells(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    error = " ".join(row["last_error"].split())
    if len(error) > ERROR_SHOWN:
        error = error[: ERROR_SHOWN - 3] + "..."
    state = row["state"] + (f" ({row['handling']})" if row["handling"] else "")
    return (name, state, str(row["depth"]), str(row["highest"]), str(row["handled"]), str(row["restarts"]), error)


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
