"""The container executor: tasks are containers of an engine that speaks Docker's API (dockerd, or Podman's service).

Rules owned here: containers of this node bear its *owner*, a name that its directory keeps, so that several nodes may
share an engine; what the engine said of itself is kept too, so that a node can start while its engine is down, and
where it is, so that another executor finds what this one has left (`left_behind`).
``close`` lets the containers run on; ``stop_all`` ends them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError

from runtime.errors import Code, Refused
from runtime.executor import engine_description
from runtime.executor.container_config import TASK_LABEL
from runtime.executor.container_controller import ContainerController
from runtime.executor.container_files import clear_payloads, payload_root
from runtime.executor.container_plan import OWNER_LABEL, PlanSettings, make_plan
from runtime.executor.engine_client import EngineClient, EngineRefused, EngineUnavailable
from runtime.executor.engine_containers import EngineContainers
from runtime.executor.engine_events import AGAIN_S, EngineEvents
from runtime.executor.inspection import NotShown, OnLooked
from runtime.executor.port import Orphan, Rejected, TaskContext
from runtime.executor.work import Loop, Work, answer_of
from runtime.wire.pb import objects_pb2, types_pb2

OWNER, SOCKET, DESCRIPTION = "owner", "socket", "description"
MEET_S: Final = 10.0
SHOW_S: Final = 10.0
SYSTEMD: Final = "/run/systemd/system"

log = logging.getLogger("swarmlet.executor")


class NoEngine(Exception):
    """There is no engine to run containers by, and none has ever been here."""


class ContainerExecutor:
    """The port's Executor. Blocks until the engine has said what it is; NoEngine if it cannot be reached and never was.

    - ``socket``: the engine's. ``directory``: what lasts (0700). ``run_dir``: where files of tasks may go.
    - ``generic_resources``: what the node offers beside what the engine's own configuration says.
    - ``prefer_offline``: images that are here are not pulled.
    - ``local_networks``: networks of the swarm are networks of this engine, each node's own.
    - ``look_again``: seconds after which whoever waits for what does not run looks again.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        socket: str,
        directory: str,
        run_dir: str,
        generic_resources: Sequence[types_pb2.GenericResource] = (),
        prefer_offline: bool = False,
        local_networks: bool = False,
        look_again: float = AGAIN_S,
    ) -> None:
        os.makedirs(directory, 0o700, exist_ok=True)
        self._loop = loop
        self._directory = directory
        self._generic = tuple(generic_resources)
        self._client = EngineClient(socket)
        self.owner = kept_owner(directory)
        self._containers = EngineContainers(self._client, self.owner, prefer_offline=prefer_offline)
        self.files = payload_root(run_dir)
        self._settings = PlanSettings(self.owner, self.files, os.geteuid() == 0, local_networks)
        label = f"{OWNER_LABEL}={self.owner}"
        self._events = EngineEvents(self._client, label, self._resync, self._running, every=look_again)
        self._controllers: list[ContainerController] = []
        self._lock = threading.Lock()
        self._known: Collection[str] | None = None
        self._closed = False
        self._met = False
        self._description = self._meet()
        self._follow = (loop.submit(self._events.run()), loop.submit(self._events.look_again()))

    def _meet(self) -> types_pb2.NodeDescription:
        """What the engine says; what it said last if it cannot be reached now."""
        told = answer_of(self._loop, self._read(), MEET_S)
        if isinstance(told, types_pb2.NodeDescription):
            return told
        if isinstance(told, TimeoutError):
            told = EngineUnavailable(f"the container engine at {self._client.path} does not answer")
        known = self._remembered()
        if known is None or isinstance(told, EngineRefused):
            self._loop.submit(self._client.close())
            raise NoEngine(str(told))
        log.warning("the node starts without its container engine: %s", told)
        return known

    async def _read(self) -> types_pb2.NodeDescription:
        described = engine_description.describe(*await engine_description.read(self._client), self._generic)
        podman = described.engine.labels[engine_description.ENGINE_LABEL] == engine_description.PODMAN
        self._containers.makes_sources = podman
        self._containers.checks_health = podman and not os.path.isdir(SYSTEMD)  # noqa: ASYNC240 - in memory
        try:
            write_whole(os.path.join(self._directory, DESCRIPTION), described.SerializeToString(deterministic=True))
            write_whole(os.path.join(self._directory, SOCKET), os.fsencode(self._client.path))
        except OSError as error:
            log.warning("what the container engine says of itself cannot be kept for the next start: %s", error)
        return described

    def _remembered(self) -> types_pb2.NodeDescription | None:
        try:
            with open(os.path.join(self._directory, DESCRIPTION), "rb") as file:
                return types_pb2.NodeDescription.FromString(file.read())
        except (FileNotFoundError, DecodeError):
            return None

    def describe(self) -> types_pb2.NodeDescription:
        """As the port's: as the engine said when it was last met."""
        return self._description

    def controller(self, task: objects_pb2.Task, context: TaskContext) -> ContainerController:
        """As the port's."""
        if self._closed:
            raise Rejected("the executor is closed")
        plan = make_plan(task, context, self._settings)
        controller = ContainerController(self._loop, self._containers, self._events, plan, context, self.files)
        with self._lock:
            self._controllers = [each for each in self._controllers if not each.closed]
            self._controllers.append(controller)
        return controller

    def orphans(self) -> Sequence[Orphan]:
        """As the port's: none, for a container does not end with whoever runs it."""
        return ()

    def known(self, task_ids: Collection[str]) -> None:
        """As ``Tidying.known``."""
        with self._lock:
            begin = self._known is None or not task_ids
            self._known = task_ids
        if begin:
            self._loop.submit(self._tidy())

    async def _tidy(self) -> None:
        """Removes the containers of tasks that nobody knows; the engine's next return has it done again."""
        try:
            found = await self._containers.all()
            with self._lock:
                kept = {*(self._known or ()), *(each.task_id for each in self._controllers if not each.closed)}
            for each in found:
                if each["Labels"].get(TASK_LABEL) not in kept:
                    log.warning("container %s is that of no task of this node and is removed", each["Id"])
                    await self._stop(str(each["Id"]))
                    await self._containers.remove(str(each["Id"]))
        except (EngineUnavailable, EngineRefused) as error:
            log.warning("containers of tasks that are gone cannot be removed: %s", error)

    def show(self, path: str, query: Mapping[str, str], done: OnLooked) -> Work:
        """As ``Showing.show``."""
        work = Work(lambda result: done(_shown(result)))
        work.begin(self._loop, self._client.call("GET", path, query=query, seconds=SHOW_S))
        return work

    def stop_all(self, done: Callable[[], None]) -> None:
        """As the port's."""

        def ended(result: Any) -> None:
            if isinstance(result, Exception):
                log.error("the tasks cannot be stopped: %s", result)
            done()

        self._loop.submit(self._stop_all(), ended)

    async def _stop_all(self) -> None:
        await asyncio.gather(*(self._stop(str(each["Id"])) for each in await self._containers.alive()))
        clear_payloads(self.files, ())

    async def _stop(self, container: str) -> None:
        """Each has its own grace period, which the engine was told when it was made."""
        try:
            await self._containers.stop(container, None)
        except EngineRefused as refused:
            log.error("container %s cannot be stopped: %s", container, refused)

    def close(self, done: Callable[[], None]) -> None:
        """As the port's."""
        with self._lock:
            self._closed = True
            controllers, self._controllers = self._controllers, []
        for controller in controllers:
            controller.close(lambda _: None)
        for end in self._follow:
            end()
        self._containers.close()
        self._loop.submit(self._client.close(), lambda _: done())

    async def _running(self) -> set[str]:
        found = await self._containers.all()
        return {str(each["Labels"].get(TASK_LABEL)) for each in found if each.get("State") == "running"}

    async def _resync(self) -> None:
        """The engine is there (again): it may be another one than before."""
        self._description = await self._read()
        if self._known is not None:
            self._loop.submit(self._tidy())
        if not self._met:
            self._met = True
            found = await self._containers.all()
            with self._lock:
                mine = [each.task_id for each in self._controllers]  # whose containers may be in the making
            clear_payloads(self.files, [*mine, *(str(each["Labels"].get(TASK_LABEL)) for each in found)])


def _shown(result: Any) -> Any:
    """What an answer of the engine means for who asked."""
    if isinstance(result, EngineRefused):
        return NotShown(result.status, result.text)
    if isinstance(result, BaseException) or result is None:
        return Refused(Code.UNAVAILABLE, str(result or "the container engine said nothing"))
    return result


def kept_owner(directory: str) -> str:
    """The name of this executor; chosen at its first start."""
    path = os.path.join(directory, OWNER)
    try:
        with open(path, encoding="ascii") as file:
            found = file.read().strip()
    except FileNotFoundError:
        found = ""
    if not found:
        found = secrets.token_hex(16)
        write_whole(path, found.encode())
    return found


def write_whole(path: str, content: bytes) -> None:
    """Replaces a file; whoever reads it finds the old content or the new one, after a crash too."""
    new = f"{path}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)
    os.replace(new, path)
