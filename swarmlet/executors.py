"""Which executor a node gets: descriptions that a host hands over before anything runs.

An executor needs its node's loop, directories and clock, so what a host names is a factory; a host's own executor is
any object with ``build``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from runtime.executor.port import Executor
    from runtime.stage import Clock
    from runtime.wire.loop import IoLoop


@dataclass(frozen=True, slots=True)
class ExecutorPlace:
    """What a node gives its executor: where to keep what lasts (``directory``), where to put sockets (``run_dir``)."""

    loop: IoLoop
    directory: Path
    run_dir: Path
    clock: Clock


class ExecutorFactory(Protocol):
    """Makes the executor of one node."""

    @property
    def name(self) -> str:
        """The kind of executor, as ``docker info`` shows it."""

    def build(self, place: ExecutorPlace) -> Executor:
        """The executor, ready to take tasks; called once for each start of the node."""


@dataclass(frozen=True, slots=True)
class ProcessExecutor:
    """Tasks are processes of this machine.

    ``linger``: seconds that tasks go on after a host that died without a word; None is without limit. ``task_user``:
    who tasks run as unless their service says otherwise. ``generic_resources``: ``KIND=NUMBER`` or ``KIND=NAME``.
    """

    linger: float | None = 30.0
    task_user: str = ""
    require_limits: bool = False
    generic_resources: tuple[str, ...] = ()
    name: str = "process"
    images: ClassVar[tuple[str, ...]] = ("host",)

    def build(self, place: ExecutorPlace) -> Executor:
        """As ``ExecutorFactory.build``."""
        from runtime.executor.process import ProcessExecutor as Process

        return Process(
            place.loop,
            directory=str(place.directory),
            run_dir=str(place.run_dir),
            generic_resources=self.generic_resources,
            task_user=self.task_user or None,
            require_limits=self.require_limits,
            linger=self.linger,
            clock=place.clock,
        )


def images_of(factory: ExecutorFactory) -> tuple[str, ...]:
    """The images that an executor has by nature, as ``docker images`` shows them; a factory need not name any."""
    return tuple(getattr(factory, "images", ()))


@dataclass(frozen=True, slots=True)
class GivenExecutor:
    """An executor that the host has made itself."""

    make: Callable[[ExecutorPlace], Executor]
    name: str = "host"

    def build(self, place: ExecutorPlace) -> Executor:
        """As ``ExecutorFactory.build``."""
        return self.make(place)
