"""The executor port: how a task becomes something that runs, whoever runs it.

The process executor, a container engine, actors and the deterministic simulator implement the same three protocols.
Rules that every implementation keeps and every caller may rely on:

1. Callback style. No method blocks; what takes time is reported to ``done`` (or ``on_end``) exactly once, from any
   thread, possibly before the method has returned. The callback must hand the matter on (a ``tell``) and return.
2. ``Operation.cancel`` makes the outcome ``Failed`` with ``cancelled`` True unless another outcome came first. What
   was begun in the world may go on: a cancelled ``start`` may have started the task, and the next ``start`` then
   says ``Already``.
3. Every operation may be repeated, also by a daemon that was restarted in between: ``prepare`` and ``start`` answer
   ``Already``, ``wait`` answers again with the same exit, ``shutdown``, ``terminate`` and ``remove`` of what is gone
   are ``Done``.
4. States and messages of a task belong to the caller. An outcome says what happened, as SwarmKit's controllers do:
   ``Failed`` is fatal to the task unless it is ``temporary`` (try again after a second) or ``cancelled``.
5. After ``close`` of a controller or an executor every call answers ``Failed("controller closed")``.
   Closing stops nothing that runs.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from runtime.wire.pb import objects_pb2, types_pb2

if TYPE_CHECKING:
    from runtime.stage import Stage

CONTROLLER_CLOSED = "controller closed"


class Rejected(Exception):
    """A task that this executor can never run; ``text`` names the reason for a person. The task becomes REJECTED
    (``resolving controller failed``)."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """The operation was carried out. ``container_status`` and ``port_status`` are what is known of the task now;
    None means: keep what was known before."""

    container_status: types_pb2.ContainerStatus | None = None
    port_status: types_pb2.PortStatus | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Already:
    """``prepare`` of a prepared task or ``start`` of a started one (also of one that has exited since): a success."""

    container_status: types_pb2.ContainerStatus | None = None
    port_status: types_pb2.PortStatus | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """The operation failed; ``text`` is the task's error.

    ``exit_code`` is set if the task's process ended or could not be started (127, 126), and wins over that of
    ``container_status`` when it is not 0. ``temporary``: the same operation may succeed later. ``cancelled``:
    the caller broke it off itself and nothing is wrong.
    """

    text: str
    exit_code: int | None = None
    temporary: bool = False
    cancelled: bool = False
    container_status: types_pb2.ContainerStatus | None = None
    port_status: types_pb2.PortStatus | None = None


Outcome = Done | Already | Failed
OnDone = Callable[[Outcome], None]


class Operation(Protocol):
    """Something under way."""

    def cancel(self) -> None:
        """Breaks it off if it is not over; ``done`` hears of it. From any thread, any number of times."""


class Stream(enum.IntEnum):
    """Where a line was written to; the numbers of SwarmKit's LogStream."""

    STDOUT = 1
    STDERR = 2


@dataclasses.dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a task's output, or a piece of one.

    ``timestamp_ns`` is unix time in nanoseconds, growing within a task. ``data`` has its newline unless ``partial``
    says that the rest of the line follows in the next LogLine of this stream (a line beyond 16 KiB), or that the
    output ended without.
    """

    timestamp_ns: int
    stream: Stream
    data: bytes
    partial: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class LogOptions:
    """What to read. ``tail`` is SwarmKit's: 0 everything, n > 0 skips that many from the start, -n-1 the last n lines.
    ``since_ns`` leaves out what is older (0: nothing is). ``follow`` goes on until cancelled or the task is removed
    (a task that ended and was read to its end ends the stream)."""

    streams: Sequence[Stream] = (Stream.STDOUT, Stream.STDERR)
    follow: bool = False
    tail: int = 0
    since_ns: int = 0


OnLine = Callable[[LogLine], None]
OnEnd = Callable[[str | None], None]


@dataclasses.dataclass(frozen=True, slots=True)
class TaskContext:
    """What an executor may know beyond the task itself. All callables may be called from any thread.

    - ``expand(text)``: one template text in the context of this task and node (``runtime.swarm.templates.expand``
      with both bound); raises ``Refused`` or ValueError for a bad template.
    - ``secret(secret_id)`` and ``config(config_id)``: the payload, with its own templating done, restricted to what
      the task refers to; KeyError or ``Refused`` if this node was not given it.
    """

    node_id: str
    hostname: str
    expand: Callable[[str], str]
    secret: Callable[[str], bytes]
    config: Callable[[str], bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class Orphan:
    """A task that ran on this node although its runner was lost; it was killed. ``exit code unknown``."""

    task_id: str
    text: str


class Controller(Protocol):
    """One task. One operation at a time, as SwarmKit's task manager; ``logs`` at any time and as often as wanted."""

    def update(self, task: objects_pb2.Task, done: OnDone) -> Operation:
        """A newer version of the task (labels, desired state)."""

    def prepare(self, done: OnDone) -> Operation:
        """Everything before the start that may fail for this node's sake."""

    def start(self, done: OnDone) -> Operation:
        """Starts it and waits until it is healthy, where health is asked for."""

    def wait(self, done: OnDone) -> Operation:
        """Done when the task ended with exit code 0, Failed (``task: non-zero exit (3)``) when with another."""

    def shutdown(self, done: OnDone) -> Operation:
        """Stops it: stop signal, grace period, SIGKILL. Done when it is gone, with its exit code."""

    def terminate(self, done: OnDone) -> Operation:
        """SIGKILL at once."""

    def remove(self, done: OnDone) -> Operation:
        """Stops it and forgets it, with its logs."""

    def close(self, done: OnDone) -> Operation:
        """Lets go of it, without stopping it."""

    def logs(self, options: LogOptions, on_line: OnLine, on_end: OnEnd) -> Operation:
        """Lines in the order of their writing, then ``on_end(None)``, or ``on_end(text)`` on trouble. A cancel ends it
        with ``on_end(None)``; no line comes after it."""


class Executor(Protocol):
    """What runs the tasks of one node."""

    def describe(self) -> types_pb2.NodeDescription:
        """Platform, resources, generic resources, engine version, labels and plugins; the host name and TLS
        information are the caller's to fill in. Cheap, never blocks."""

    def controller(self, task: objects_pb2.Task, context: TaskContext) -> Controller:
        """The one who runs ``task``. Starts nothing; raises ``Rejected``. For a task that runs already (the daemon was
        restarted) the controller finds it again."""

    def orphans(self) -> Sequence[Orphan]:
        """Tasks found running after their runner was lost, since the last call; each is told once."""

    def stop_all(self, done: Callable[[], None]) -> None:
        """Stops every task that this executor runs on this node, each with its own grace period."""

    def close(self, done: Callable[[], None]) -> None:
        """Lets go: tasks linger as the executor was told. Again is nothing (but ``done`` is called)."""


@runtime_checkable
class Tidying(Protocol):
    """An executor that may find what a node let go of while it could not be removed, and removes it."""

    def known(self, task_ids: Collection[str]) -> None:
        """All tasks that this node has now, those that are being removed included: whatever else runs here for this
        node may go, unless it has an open controller. Not called before the node was told all its tasks."""


@runtime_checkable
class OnStage(Protocol):
    """An executor whose tasks live among the node's own actors."""

    def enter(self, stage: Stage) -> None:
        """Called once in each life of the node, before the first of its actors."""
