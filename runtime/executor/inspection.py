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


@dataclasses.dataclass(frozen=True, slots=True)
class RunCommand:
    """Runs a command beside the task: as it runs, but for what is said here. Answered with a Session once it has begun,
    or with NotBegun.

    ``env`` is added to the task's; ``directory`` and ``user`` are empty for the task's own; ``size`` is the terminal's
    rows and columns. Callbacks come from any thread: ``on_output`` with 1 (stdout; all of a terminal) or 2 and what
    came, ``on_exit`` once, after all output, with the exit code (None: nobody knows).
    """

    argv: tuple[str, ...]
    env: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    directory: str = ""
    user: str = ""
    tty: bool = False
    stdin: bool = False
    output: bool = True
    size: tuple[int, int] = (0, 0)
    on_output: Callable[[int, bytes], None] = dataclasses.field(default=lambda stream, data: None, repr=False)
    on_exit: Callable[[int | None], None] = dataclasses.field(default=lambda code: None, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class NotBegun:
    """A command that could not begin, in the words of an engine, with the exit code that it has for that."""

    text: str
    code: int


class Session(Protocol):
    """A command that was begun. Methods may be called from any thread, also after its end."""

    @property
    def pid(self) -> int:
        """Its process; 0 where that is no process of this machine."""

    def write(self, data: bytes, done: Callable[[], None]) -> None:
        """Input; ``done`` is called when it was taken, or will never be."""

    def end_input(self) -> None:
        """No more input comes. A terminal has no end."""

    def resize(self, rows: int, columns: int) -> None:
        """Another size of its terminal."""

    def hold(self, held: bool) -> None:
        """Whether its output is to wait: nobody takes any at the moment."""

    def close(self) -> None:
        """Ends it; nothing if it has ended."""


Look: TypeAlias = Top | TakeUsage | SendSignal | RunCommand
OnLooked = Callable[[Any], None]
"""Hears the answer, or the Refused that stands for it."""


@dataclasses.dataclass(frozen=True, slots=True)
class NotShown:
    """An engine's refusal to show something: its HTTP status and its words."""

    status: int
    text: str


@runtime_checkable
class Showing(Protocol):
    """An executor that stands on a container engine, which can be asked what else it has."""

    def show(self, path: str, query: Mapping[str, str], done: OnLooked) -> Operation:
        """Tells ``done``, once, the engine's answer to a GET of its API (never None), NotShown, or
        ``Refused(UNAVAILABLE)``."""


@runtime_checkable
class Inspectable(Protocol):
    """A controller whose task can be looked at."""

    def look(self, question: Look, done: OnLooked) -> Operation:
        """Answers a question to ``done``, once. A task that does not run is ``Refused(FAILED_PRECONDITION)``."""
