"""Which executor a node gets: descriptions that a host hands over before anything runs.

An executor needs its node's loop, directories and clock, so what a host names is a factory; a host's own executor is
any object with ``build``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from swarmlet.errors import StartError

if TYPE_CHECKING:
    from runtime.executor.actor import ActorExecutor as Actors
    from runtime.executor.actor_plan import Registered
    from runtime.executor.port import Executor
    from runtime.stage import Actor, Clock
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
        """The executor, ready to take tasks; called once for each start of the node. StartError if it cannot be had, or
        would not see what another one has left running here."""


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

        _refuse_left_containers(place)
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


@dataclass(frozen=True, slots=True)
class ActorExecutor:
    """Tasks are actors of this program: the image ``actor/counter`` is what ``actors`` has under ``counter``, a class
    or ``Registered(class, arguments, restart)``. Nothing else can run; to run processes too: ``MixedExecutor``."""

    actors: Mapping[str, type[Actor] | Registered]
    name: str = "actor"

    @property
    def images(self) -> tuple[str, ...]:
        """The images that there are here."""
        return tuple(f"actor/{name}" for name in sorted(self.actors))

    def build(self, place: ExecutorPlace) -> Executor:
        """As ``ExecutorFactory.build``."""
        _refuse_left_processes(place)
        _refuse_left_containers(place)
        return self.executor()

    def executor(self) -> Actors:
        """The executor alone, which needs no place."""
        from actors.task_supervisor_actor import TaskSupervisorActor
        from runtime.executor.actor import ActorExecutor as Made
        from runtime.executor.process import describe_machine

        return Made(self.actors, TaskSupervisorActor, describe_machine((), ""))


@dataclass(frozen=True, slots=True)
class MixedExecutor:
    """Images of actors run in this program, all others by another executor."""

    actors: ActorExecutor
    others: ExecutorFactory = field(default_factory=ProcessExecutor)

    @property
    def name(self) -> str:
        """Both kinds."""
        return f"{self.others.name}, {self.actors.name}"

    @property
    def images(self) -> tuple[str, ...]:
        """The images of both."""
        return (*images_of(self.others), *self.actors.images)

    def build(self, place: ExecutorPlace) -> Executor:
        """As ``ExecutorFactory.build``."""
        from runtime.executor.mixed import MixedExecutor as Mixed

        return Mixed(self.actors.executor(), self.others.build(place))


@dataclass(frozen=True, slots=True)
class ContainerExecutor:
    """Tasks are containers of an engine on this machine that speaks Docker's API over a unix socket.

    ``socket``: where it listens; None is the usual place of ``engine``, which is ``docker`` or ``podman``.
    ``generic_resources``: as the process executor's, beside those of the engine's own configuration.
    ``local_networks``: the swarm's networks are networks of the engine, on each node its own, not refused.
    """

    socket: str | None = None
    engine: str = "docker"
    generic_resources: tuple[str, ...] = ()
    local_networks: bool = False
    name: str = "container"

    def build(self, place: ExecutorPlace) -> Executor:
        """As ``ExecutorFactory.build``. StartError if there is no engine, and none has been there before."""
        from runtime.executor.container import ContainerExecutor as Container
        from runtime.executor.container import NoEngine
        from runtime.executor.process import parse_generic_resources

        socket = self.socket or engine_socket(self.engine, os.environ, os.getuid())
        _refuse_left_processes(place)
        _refuse_left_containers(place, socket)
        try:
            return Container(
                place.loop,
                socket=socket,
                directory=str(_engine_directory(place)),
                run_dir=str(place.run_dir),
                generic_resources=parse_generic_resources(self.generic_resources),
                local_networks=self.local_networks,
                prefer_offline=os.environ.get("DOCKER_SERVICE_PREFER_OFFLINE_IMAGE") == "1",
            )
        except NoEngine as error:
            raise StartError(str(error)) from None


def _engine_directory(place: ExecutorPlace) -> Path:
    """Beside the worker's directories: leaving a swarm clears those."""
    return place.directory.parents[1] / "engine"


def _refuse_left_processes(place: ExecutorPlace) -> None:
    from runtime.executor import left_behind

    _refuse(left_behind.of_processes(str(place.directory)))


def _refuse_left_containers(place: ExecutorPlace, socket: str = "") -> None:
    if _engine_directory(place).exists():  # a node without a past of containers loads nothing for them
        from runtime.executor import left_behind

        _refuse(left_behind.of_containers(place.loop, str(_engine_directory(place)), socket))


def _refuse(left: str) -> None:
    if left:
        raise StartError(left)


def engine_socket(engine: str, environ: Mapping[str, str], uid: int) -> str:
    """Where an engine usually listens: root's, or the user's own."""
    own = environ.get("XDG_RUNTIME_DIR", "") if uid != 0 else ""
    if engine == "podman":
        return f"{own or '/run'}/podman/podman.sock"
    rootless = f"{own}/docker.sock"
    return rootless if own and os.path.exists(rootless) else "/var/run/docker.sock"


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
