"""One container task, as its agent drives it: the port's Controller over a container engine.

Every operation is a coroutine on the I/O loop; its outcome is told once. Texts are the engine's own and those of its
swarm agent (``starting container failed: ...``, ``task: non-zero exit (3)``). An engine that is away fails an operation
for a second; one that only waits goes on waiting, and looks again when the engine is back.
"""

from __future__ import annotations

import asyncio
import os.path
from collections.abc import Awaitable, Callable
from typing import Any, Final

from runtime.errors import Code, Refused
from runtime.executor import container_files as files
from runtime.executor.container_logs import BrokenLog, Frames, Reading, TerminalLines, line_of
from runtime.executor.container_plan import Plan
from runtime.executor.container_state import ContainerState
from runtime.executor.coroutine_controller import DRAIN_S, CoroutineController, not_running, why_not_given
from runtime.executor.engine_client import EngineRefused, EngineUnavailable
from runtime.executor.engine_containers import CONFLICT, GONE, EngineContainers
from runtime.executor.engine_events import EngineEvents
from runtime.executor.inspection import Look
from runtime.executor.port import (
    Already,
    Done,
    Failed,
    LogOptions,
    OnEnd,
    OnLine,
    Outcome,
    TaskContext,
)
from runtime.executor.work import Loop, Work

AGAIN_S: Final = 1.0
DESTROYED: Final = "dockerexec: container destroyed"
UNHEALTHY: Final = "dockerexec: unhealthy container"


class ContainerController(CoroutineController):
    """``root`` is the directory for files of secrets and configs."""

    def __init__(
        self,
        loop: Loop,
        containers: EngineContainers,
        events: EngineEvents,
        plan: Plan,
        context: TaskContext,
        root: str,
    ) -> None:
        super().__init__(loop)
        self._containers = containers
        self._events = events
        self._plan = plan
        self._context = context
        self._root = root
        self._id = ""

    @property
    def task_id(self) -> str:
        """Whose container it is."""
        return self._plan.task_id

    # The port

    def logs(self, options: LogOptions, on_line: OnLine, on_end: OnEnd) -> Work:
        """As the port's."""
        return self._read(self._logs(options, Reading(options, on_line)), on_end)

    @staticmethod
    def own_failure(error: Any) -> Failed | None:
        """As the base's."""
        if isinstance(error, EngineUnavailable):
            return Failed(str(error), temporary=True)
        if isinstance(error, EngineRefused):
            return Failed(error.text)
        return Failed(str(error)) if isinstance(error, BrokenLog) else None

    @staticmethod
    def own_refusal(error: Any) -> Refused | None:
        """As the base's."""
        return Refused(Code.UNAVAILABLE, str(error)) if isinstance(error, EngineUnavailable) else None

    # Looking at it: the engine's own answers

    async def _look(self, question: Look) -> Any:
        found = await self._state()
        if found is None or not found.running:
            raise not_running()
        try:
            return await self._containers.look(found.id, question)
        except EngineRefused as refused:
            ended = refused.status in (GONE, CONFLICT)
            raise not_running() if ended else Refused(Code.UNKNOWN, refused.text) from None

    # Operations

    async def _prepare(self) -> Outcome:
        found = await self._state()
        if found is not None:
            return self._already(found)
        await self._containers.pull(self._plan)
        for source in self._plan.binds if self._containers.makes_sources else ():
            if not os.path.exists(source):  # noqa: ASYNC240 - a look at a directory
                return Failed(f'invalid mount config for type "bind": bind source path does not exist: {source}')
        try:
            files.lay_out(self._plan)
            await self._containers.make_networks(self._plan)
            self._id = await self._containers.make(self._plan)
        except (EngineRefused, OSError):
            self._clear()
            raise
        return Done()

    async def _start(self) -> Outcome:
        found = await self._state()
        if found is None:
            return Failed(f"No such container: {self._plan.name}")
        began = found.fresh and await self._begin_to_run(found.id)
        if isinstance(began, Failed):
            return began
        return await self._until(self._well if began else self._well_already)

    async def _begin_to_run(self, container: str) -> bool | Failed:
        async def before() -> None:
            files.fill(self._plan, self._context.secret, self._context.config)
            await self._containers.make_networks(self._plan)
            await self._containers.join_networks(container, self._plan)

        try:
            return await self._containers.start(container, before)
        except (KeyError, Refused, OSError) as error:
            self._clear()
            return Failed(f"starting container failed: {why_not_given(error)}")
        except EngineRefused as refused:
            found = await self._state()
            self._clear()
            status = None if found is None else found.container_status
            code = found.exit_code if found is not None and found.exit_code else None
            return Failed(f"starting container failed: {refused.text}", code, container_status=status)

    async def _wait(self) -> Outcome:
        return await self._until(self._over)

    async def _shutdown(self) -> Outcome:
        self._containers.abandon(self._plan)
        await self._drain()
        return await self._stopped(lambda container: self._containers.stop(container, self._plan.grace))

    async def _terminate(self) -> Outcome:
        return await self._stopped(self._containers.kill)

    async def _stopped(self, stop: Callable[[str], Awaitable[None]]) -> Outcome:
        """Stops it; until the engine has done so, there is nothing else to do but to ask again."""
        container = await self._container()
        if not container:
            self._clear()
            return Done()
        try:
            await stop(container)
        except EngineRefused as refused:
            return Failed(refused.text, temporary=True)
        self._clear()
        found = await self._state()
        return Done() if found is None else Done(found.container_status)

    async def _drain(self) -> None:
        """Gives those who forward connections the time to hear that this task takes no new ones."""
        if self._plan.published and self._plan.grace > 0:
            found = await self._state()
            if found is not None and found.running:
                await asyncio.sleep(DRAIN_S)

    async def _remove(self) -> Outcome:
        await self._shutdown()  # what cannot be stopped is removed by force
        container = await self._container()
        if container:
            try:
                await self._containers.remove(container)
            except EngineRefused as refused:
                return Failed(refused.text, temporary=True)
        await self._containers.leave_networks(self._plan)
        return Done()

    def _clear(self) -> None:
        files.remove_payloads(self._root, self._plan.task_id)

    # How it stands

    async def _container(self) -> str:
        """Its container's id, empty if there is none."""
        self._id = self._id or await self._containers.find(self._plan.task_id)
        return self._id

    async def _state(self) -> ContainerState | None:
        container = await self._container()
        found = await self._containers.inspect(container) if container else None
        if found is None:
            self._id = ""
        return found

    async def _until(self, judge: Callable[[ContainerState | None], Awaitable[Outcome | None]]) -> Outcome:
        """The first verdict of ``judge``, which sees the container whenever something happened to it."""
        with self._events.watch(self._plan.task_id) as watch:
            while True:
                try:
                    found = await self._state()
                    verdict = await judge(found)
                    if verdict is not None:
                        return verdict
                    checks = self._containers.checks_health and found is not None and found.health != ""
                    await watch.changed(self._plan.check_every if checks else None)
                    if checks:
                        await self._containers.check_health(self._id)
                except EngineUnavailable:
                    await watch.changed(AGAIN_S)

    async def _well(self, found: ContainerState | None) -> Outcome | None:
        """Whether it has come to run well, or will not. One without a health check is well when it runs."""
        if found is not None and found.running and found.health in ("", "healthy"):
            return Done(*self._statuses(found))
        return await self._over(found)

    async def _well_already(self, found: ContainerState | None) -> Outcome | None:
        """As ``_well``, of one that was started before: how it ended is for ``wait`` to say."""
        if found is not None and (found.ended or (found.running and found.health in ("", "healthy"))):
            return self._already(found)
        return await self._over(found)

    async def _over(self, found: ContainerState | None) -> Outcome | None:
        """Whether it has ended; nobody reads the task's secrets any more."""
        if found is None:
            self._clear()
            return Failed(DESTROYED)
        if found.running and found.health == "unhealthy":
            return await self._unhealthy(found)
        if found.running:
            return None
        self._clear()
        return self._exit(found, "")

    async def _unhealthy(self, found: ContainerState) -> Outcome:
        await self._containers.stop(found.id, self._plan.grace)
        self._clear()
        return self._exit(await self._state() or found, f": {UNHEALTHY}")

    def _exit(self, found: ContainerState, cause: str) -> Outcome:
        if found.exit_code or cause:
            text = f"task: non-zero exit ({found.exit_code}){cause}"
            return Failed(text, found.exit_code, container_status=found.container_status)
        return Done(found.container_status)

    def _statuses(self, found: ContainerState) -> tuple[Any, Any]:
        return found.container_status, found.port_status(self._plan.ports, self._plan.on_host)

    def _already(self, found: ContainerState) -> Already:
        return Already(*self._statuses(found))

    # Logs

    async def _logs(self, options: LogOptions, reading: Reading) -> None:
        with self._events.watch(self._plan.task_id) as watch:
            while True:
                try:
                    if await self._read_on(options, reading):
                        return
                except EngineUnavailable:
                    if not options.follow:
                        raise
                await watch.changed(AGAIN_S if reading.begun else None)

    async def _read_on(self, options: LogOptions, reading: Reading) -> bool:
        """Reads what there is; whether nothing more will come."""
        found = await self._state()
        if found is None or found.fresh:
            return reading.begun or not options.follow
        reading.begun = True
        try:
            await self._read_pieces(found, reading, follow=options.follow and found.running)
        except EngineRefused as refused:
            if refused.status != GONE:
                raise
            return True  # removed a moment ago
        return not options.follow or found.ended

    async def _read_pieces(self, found: ContainerState, reading: Reading, *, follow: bool) -> None:
        path, query = f"/containers/{found.id}/logs", reading.query(follow)
        async with self._containers.client.stream("GET", path, query=query) as pieces:
            cut: Frames | TerminalLines = TerminalLines() if found.tty else Frames()
            async for piece in pieces:
                for stream, payload in cut.feed(piece):
                    reading.give(line_of(stream, payload))
            if isinstance(cut, TerminalLines):
                for stream, payload in cut.rest():
                    reading.give(line_of(stream, payload))
