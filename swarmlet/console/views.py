"""What each screen shows, as plain tables made from answers: no terminal here, so that all of it can be tested.

A table has columns and rows; a row has a key that stays the same while what it stands for is there, so that the cursor
stays on it. Cells are text. Rows come in an order that does not jump: by name, unless another column was asked for.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.cells import cell_len, set_cell_size

from runtime.introspection.lines import harmless
from runtime.introspection.render import state, window
from runtime.introspection.render_domain import behind, first_of, what_of
from runtime.introspection.sequence import OUTSIDE, duration, names, participants, trace_id

Answer = Mapping[str, Any]
NAME_MAX: Final = 30
"""Of an actor in the tree: the figures beside it must fit on 80 columns."""

TAIL: Final = 6
"""So many characters of its end are left of a cell that is cut."""


@dataclass(frozen=True, slots=True)
class Row:
    """``sort`` has a value for each column, to sort by it. ``alone`` takes the place of the first cell where the rows
    around it are not those that it belongs to. A filter looks at the cells and the key."""

    key: str
    cells: tuple[str, ...]
    sort: tuple[Any, ...] = ()
    alone: str = ""

    def value(self, column: int) -> Any:
        """What to sort by in this column."""
        return self.sort[column] if self.sort else self.cells[column]


@dataclass(frozen=True, slots=True)
class Table:
    """``right`` are the columns that stand at their right edge (figures); ``of`` is how many rows there are in all,
    where these are not all of them."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    right: tuple[int, ...] = ()
    closing: str = ""
    of: int = 0

    @property
    def count(self) -> str:
        """How many rows there are, for the title."""
        shown = len(self.rows)
        return f"({shown} of {self.of})" if self.of > shown else f"({shown})"


def arranged(table: Table, wanted: str, column: int | None, descending: bool) -> Table:
    """The rows that hold ``wanted`` in a cell or in their key (any case), by ``column`` if one is chosen; equal rows
    keep their order. Nothing in a cell commands the terminal."""
    rows = [Row(row.key, tuple(map(harmless, row.cells)), row.sort, row.alone) for row in table.rows]
    if wanted:
        rows = [row for row in rows if wanted.lower() in " ".join((*row.cells, row.key)).lower()]
    sorted_ = column is not None and column < len(table.columns)
    if sorted_:
        rows.sort(key=lambda row: _comparable(row.value(column or 0)), reverse=descending)
    if wanted or (sorted_ and column):
        rows = [Row(row.key, (row.alone or row.cells[0], *row.cells[1:]), row.sort) for row in rows]
    return Table(table.columns, tuple(rows), table.right, table.closing, max(table.of, len(table.rows)))


def fitted(table: Table, widest: int) -> Table:
    """The same with all cells but the last of each row cut to ``widest`` columns of a terminal: a long name leaves room
    for what is said of it."""
    rows = [
        Row(row.key, (*(_cut(cell, widest) for cell in row.cells[:-1]), *row.cells[-1:]), row.sort, row.alone)
        for row in table.rows
    ]
    return Table(table.columns, tuple(rows), table.right, table.closing, table.of)


def _cut(cell: str, widest: int) -> str:
    """Both ends of it: tasks of one service differ in the last."""
    if cell_len(cell) <= widest:
        return cell
    end = cell[-TAIL:]
    return f"{set_cell_size(cell, widest - 1 - cell_len(end))}…{end}"


def _comparable(value: Any) -> tuple[int, float, str]:
    if isinstance(value, (int, float)):
        return (0, float(value), "")
    return (1, 0.0, str(value).lower())


# Actors


def tree(before: Answer | None, after: Answer, folded: frozenset[str] = frozenset()) -> Table:
    """The actor tree; ``folded`` paths hide what is below them. Figures are of the time between the two answers."""
    rates = {each["path"]: each for each in window(before or after, after)["actors"]}
    parents = {row["path"].rsplit("/", 1)[0] for row in after["actors"]}
    rows = []
    for row in after["actors"]:
        path = row["path"]
        if any(path.startswith(f"{each}/") for each in folded):
            continue
        depth = path.count("/") - 1
        mark = "▸ " if path in folded and path in parents else "▾ " if path in parents else "  "
        rate = rates[path]
        name = f"{'  ' * depth}{mark}{path.rsplit('/', 1)[1]}"
        name = name if len(name) <= NAME_MAX else f"{name[: NAME_MAX - 1]}…"
        alone = path if len(path) <= NAME_MAX else f"…{path[1 - NAME_MAX :]}"
        cells = (name, state(row), str(row["depth"]), f"{rate['rate']:.1f}", f"{rate['busy'] * 100:.0f}%",
                 str(row["restarts"] or ""), _doing(row), " ".join(row["last_error"].split())[:60])  # fmt: skip
        sort = (path, state(row), row["depth"], rate["rate"], rate["busy"], row["restarts"], row["handling_s"],
                row["last_error"])  # fmt: skip
        rows.append(Row(path, cells, sort, alone))
    totals = after["stage"]
    closing = f"{totals['actors']} actors, {totals['crashes']} failures kept, {totals['dead_letters']} dead letters"
    columns = ("ACTOR", "STATE", "DEPTH", "MSG/S", "BUSY", "FAILS", "NOW", "LAST ERROR")
    return Table(columns, tuple(rows), (2, 3, 4, 5), closing)


def _doing(row: Answer) -> str:
    if row["handling"]:
        return f"{row['handling']} {duration(row['handling_s'])}"
    return f"oldest {duration(row['oldest_s'])}" if row["depth"] else ""


def messages(figures: Sequence[Answer]) -> Table:
    """What an actor did, or all of them, by message type; with how many a second where that was counted."""
    times = ("wait_p50_s", "wait_p99_s", "wait_max_s", "busy_p50_s", "busy_p99_s", "busy_max_s", "busy_s")
    rows = []
    for each in figures:
        rate = each.get("rate", 0.0)
        cells = (each["type"], str(each["count"]), f"{rate:.1f}" if "rate" in each else "", str(each["failed"] or ""))
        sort = (each["type"], each["count"], rate, each["failed"], *(each[name] for name in times))
        rows.append(Row(each["type"], (*cells, *(duration(each[name]) for name in times)), sort))
    columns = ("MESSAGE", "COUNT", "MSG/S", "FAILED", "WAIT P50", "P99", "MAX", "BUSY P50", "P99", "MAX", "IN ALL")
    return Table(columns, tuple(rows), tuple(range(1, 11)))


def crashes(reports: Sequence[Answer]) -> Table:
    """The last failures, newest first, each with how often its actor failed in all."""
    rows = []
    for each in reversed(reports):
        often = each.get("in_all", 0)
        cells = (_time(each["at"]), each["path"], str(often or ""), each["message"], " ".join(each["error"].split()))
        sort = (each["at"], each["path"], often, each["message"], each["error"])
        rows.append(Row(f"{each['at']}-{each['path']}", cells, sort))
    return Table(("AT", "ACTOR", "FAILS", "OVER", "ERROR"), tuple(rows), (2,))


def trace(records: Sequence[Answer]) -> Table:
    """Messages as they were handled; actors by the shortest names that tell them apart."""
    start = records[0]["told"] if records else 0.0
    called = names(participants(records))
    rows = []
    for number, each in enumerate(records):
        kind = each["type"] + ("" if each["outcome"] == "ok" else f" ({each['outcome']})")
        at = f"+{duration(max(0.0, each['told'] - start))}"
        ends = (each["sender"] or OUTSIDE, each["receiver"])
        sort = (each["told"], *ends, each["type"], each["took"], each["trace"])
        shown = (at, *(called[end] for end in ends), kind, duration(each["took"]), trace_id(each["trace"]))
        rows.append(Row(f"{number} {' '.join(ends)}", shown, sort))
    return Table(("AT", "FROM", "TO", "MESSAGE", "TOOK", "TRACE"), tuple(rows), (0, 4, 5))


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%H:%M:%S")


# The swarm


def waiting(found: Answer) -> Table:
    """The tasks that wait, those that wait longest first."""
    rows = [
        Row(
            each["id"],
            (
                each["name"],
                each["state"],
                each["node"],
                duration(each["since_s"]),
                each["who"],
                " ".join(each["why"].split()),
            ),
            (each["name"], each["state"], each["node"], each["since_s"], each["who"], each["why"]),
        )
        for each in found["tasks"]
    ]
    closing = _closing(found, first_of(len(rows), found["count"], "tasks that wait; Enter explains one"))
    return Table(("TASK", "STATE", "NODE", "SINCE", "NEXT", "WHY"), tuple(rows), (3,), closing, found["count"])


def nodes(found: Sequence[Answer], asked: Answer) -> Table:
    """As ``docker node ls``; ``asked`` is what the node that was asked says of itself."""
    rows = []
    for each in found:
        manager = each.get("ManagerStatus") or {}
        role = "Leader" if manager.get("Leader") else str(manager.get("Reachability", "")).capitalize()
        cells = (each["Description"].get("Hostname", ""), each["Status"].get("State", ""), each["Spec"]["Availability"],
                 role, each["Status"].get("Addr", ""), each["ID"][:12], each["Status"].get("Message", ""))  # fmt: skip
        rows.append(Row(each["ID"], cells))
    rows.sort(key=lambda row: (row.cells[0], row.key))
    return Table(("HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER", "ADDRESS", "ID", "MESSAGE"), tuple(rows),
                 (), "; ".join(behind(asked)))  # fmt: skip


def services(found: Sequence[Answer], asked: Answer) -> Table:
    """As ``docker service ls``, with the state of an update; ``asked`` as above."""
    rows = []
    for each in found:
        spec, status, update = each["Spec"], each.get("ServiceStatus") or {}, each.get("UpdateStatus") or {}
        running, desired = status.get("RunningTasks", 0), status.get("DesiredTasks", 0)
        mode = next(iter(spec.get("Mode", {})), "")
        image = spec["TaskTemplate"].get("ContainerSpec", {}).get("Image", "")
        cells = (spec["Name"], mode.lower(), f"{running}/{desired}", image, update.get("State", ""), each["ID"][:12],
                 update.get("Message", ""))  # fmt: skip
        rows.append(Row(each["ID"], cells, (*cells[:2], running - desired, *cells[3:])))
    rows.sort(key=lambda row: (row.cells[0], row.key))
    return Table(("NAME", "MODE", "REPLICAS", "IMAGE", "UPDATE", "ID", "MESSAGE"), tuple(rows), (2,),
                 "; ".join(behind(asked)))  # fmt: skip


def tasks(found: Answer) -> Table:
    """As ``docker service ps`` of all services: by name and slot, those first that are to run."""
    rows = tuple(
        Row(
            each["id"],
            (
                each["name"],
                each["state"],
                each["desired"],
                each["node"],
                each["id"][:12],
                " ".join(each["why"].split()),
            ),
        )
        for each in found["tasks"]
    )
    closing = _closing(found, first_of(len(rows), found["found"], what_of(found)))
    return Table(("TASK", "STATE", "DESIRED", "NODE", "ID", "WHY"), rows, (), closing, found["count"])


def _closing(found: Answer, text: str) -> str:
    """What ends a table; if what is in it may be old, that first. Of no rows there is nothing to say."""
    return "; ".join([*behind(found), *([text] if found["tasks"] else [])])


def event(found: Answer) -> str:
    """One event as a line."""
    actor = found.get("Actor", {})
    attributes = actor.get("Attributes", {})
    name = attributes.get("name", "") or actor.get("ID", "")[:12]
    rest = ", ".join(f"{key}={value}" for key, value in sorted(attributes.items()) if key != "name")
    what = f"{found.get('Type', ''):8} {found.get('Action', ''):8}"
    return f"{_time(found.get('time', 0))}  {what} {name}  {rest}".rstrip()
