"""Looking at a task that runs, and reaching into it: an optional part of the executor port.

A controller that can do so is ``Inspectable``; whoever asks one that is not is refused. Questions are values, and so
are their answers: in the shapes of a container engine, so that an executor which stands on one may pass them through.
Rules 1 and 5 of the port hold here too; any number of questions may be under way beside the controller's operation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

from runtime.executor.port import Operation


@dataclasses.dataclass(frozen=True, slots=True)
class Top:
    """Which processes are there? ``arguments`` are those of ``ps``. Answered with Processes."""

    arguments: str = "-ef"


@dataclasses.dataclass(frozen=True, slots=True)
class Processes:
    """What ``ps`` says of the task's processes: its columns' titles, and a row for each process."""

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class TakeUsage:
    """What does it use now? Answered with Usage."""


Usage: TypeAlias = Mapping[str, Any]
"""The parts ``read`` (RFC 3339), ``pids_stats``, ``cpu_stats``, ``memory_stats``, ``blkio_stats`` and, if it has any of
its own, ``networks`` of the engine's ``GET /containers/{id}/stats``. Not to be changed."""


@dataclasses.dataclass(frozen=True, slots=True)
class SendSignal:
    """Sends a signal to the task's first process. Answered with None."""

    number: int


Look: TypeAlias = Top | TakeUsage | SendSignal
OnLooked = Callable[[Any], None]
"""Hears the answer, or the Refused that stands for it."""


@runtime_checkable
class Inspectable(Protocol):
    """A controller whose task can be looked at."""

    def look(self, question: Look, done: OnLooked) -> Operation:
        """Answers a question to ``done``, once. A task that does not run is ``Refused(FAILED_PRECONDITION)``."""
