"""What ``swarmlet up`` shows: plain lines in a pipe, a table that is drawn anew on a terminal.

Rules it owns: a line is one event, told once (a task's new state, a line of its output); on a terminal the table stays
below whatever scrolls, never wider or higher than the terminal; what tasks print cannot move the cursor or recolour it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TextIO

from runtime.wire.pb import objects_pb2, types_pb2
from swarmlet.convergence import ServiceState, state_name, task_name

_CONTROL: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b.|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UP_AND_ERASE: Final = "\x1b[{0}F\x1b[J"
_TASKS_SHOWN: Final = 12
_TABLE_SHARE: Final = 0.6


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The stack at one moment."""

    services: tuple[ServiceState, ...]
    tasks: tuple[objects_pb2.Task, ...]


def printable(text: str) -> str:
    """Output of a task without what would steer the terminal; tabs stay."""
    return _CONTROL.sub("", text.replace("\r\n", "\n").rstrip("\n"))


def task_line(task: objects_pb2.Task) -> str:
    """A task's present state as a line."""
    because = task.status.err or ("" if task.status.state == types_pb2.RUNNING else task.status.message)
    exit_code = task.status.container.exit_code
    code = f" (exit code {exit_code})" if exit_code and "exit" not in because else ""
    return printable(f"{task_name(task)} {state_name(task.status.state)}{code}" + (f": {because}" if because else ""))


def changes(before: Mapping[str, str], tasks: Sequence[objects_pb2.Task]) -> tuple[list[str], dict[str, str]]:
    """Lines for tasks whose state is another than in ``before`` (by task id), and the new ``before``."""
    after = {task.id: task_line(task) for task in tasks}
    lines = [line for task_id, line in after.items() if before.get(task_id) != line]
    return lines, after


def table(snapshot: Snapshot, width: int, height: int) -> list[str]:
    """Services and their newest tasks as lines that fit; those that wait or fail say why."""
    room = max(4, int(height * _TABLE_SHARE))
    names = [each.name for each in snapshot.services]
    column = max([len(name) for name in names] + [len("SERVICE")])
    lines = [f"{'SERVICE':<{column}}  {'TASKS':>7}  STATE"]
    for each in snapshot.services:
        state = "converged" if each.converged else each.reasons[0]
        lines.append(f"{each.name:<{column}}  {f'{each.running}/{each.wanted}':>7}  {state}")
    current = [task for task in snapshot.tasks if task.desired_state <= types_pb2.RUNNING]
    shown = sorted(current, key=lambda task: (task.service_annotations.name, task.slot))[:_TASKS_SHOWN]
    lines.extend(f"  {task_line(task)}" for task in shown)
    if len(current) > len(shown):
        lines.append(f"  and {len(current) - len(shown)} more tasks")
    if len(lines) > room:
        lines = [*lines[: room - 1], "..."]
    return [printable(line)[: max(1, width - 1)] for line in lines]


class Screen:
    """Where it is shown. ``live`` says that ``out`` is a terminal, whose ``size`` is (columns, lines)."""

    def __init__(self, out: TextIO, live: bool) -> None:
        self._out = out
        self._live = live
        self._drawn: list[str] = []

    def say(self, lines: Sequence[str], footer: Sequence[str] | None = None) -> None:
        """Prints lines for good; on a terminal with ``footer`` below them, in place of the one before."""
        footer = self._drawn if footer is None else footer
        if not self._live:
            footer = []
        if not lines and footer == self._drawn:
            return
        erase = _UP_AND_ERASE.format(len(self._drawn)) if self._drawn else ""
        self._out.write(erase + "".join(f"{line}\n" for line in (*lines, *footer)))
        self._out.flush()
        self._drawn = list(footer)
