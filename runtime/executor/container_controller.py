"""One container task, as its agent drives it: the port's Controller over a container engine.

Every operation is a coroutine on the I/O loop; its outcome is told once. Texts are the engine's own and those of its
swarm agent (``starting container failed: ...``, ``task: non-zero exit (3)``). An engine that is away fails an operation
for a second; one that only waits goes on waiting, and looks again when the engine is back.
"""

from __future__ import annotations

import asyncio
import os.path
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from runtime.errors import Code, Refused
from runtime.executor import container_files as files
from runtime.executor.container_logs import BrokenLog, Frames, Reading, TerminalLines, line_of
from runtime.executor.container_plan import Plan
from runtime.executor.container_state import ContainerState
from runtime.executor.engine_client import EngineRefused, EngineUnavailable
from runtime.executor.engine_containers import CONFLICT, GONE, EngineContainers
from runtime.executor.engine_events import EngineEvents
from runtime.executor.inspection import Look, OnLooked
from runtime.executor.port import (
    CONTROLLER_CLOSED,
    Already,
    Done,
    Failed,
    LogOptions,
    OnDone,
    OnEnd,
    OnLine,
    Outcome,
    TaskContext,
)
from runtime.executor.work import Loop, Work
from runtime.wire.pb import objects_pb2

DRAIN_S: Final = 2.0
AGAIN_S: Final = 1.0
DESTROYED: Final = "dockerexec: container destroyed"
UNHEALTHY: Final = "dockerexec: unhealthy container"


def outcome_of(result: Any) -> Outcome:
    """What a coroutine's end means for the task."""
    if isinstance(result, Done | Already | Failed):
        return result
    if result == CONTROLLER_CLOSED:
        return Failed(CONTROLLER_CLOSED)
    if result == "cancelled" or isinstance(result, asyncio.CancelledError):
        return Failed("cancelled", cancelled=True)
    if isinstance(result, EngineUnavailable):
        return Failed(str(result), temporary=True)
    if isinstance(result, EngineRefused):
        return Failed(result.text)
    return Failed(f"{type(result).__name__}: {result}")


class ContainerController:
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
        self._loop = loop
        self._containers = containers
        self._events = events
        self._plan = plan
        self._context = context
        self._root = root
        self._id = ""
        self._open: list[Work] = []
        self._closed = False

    @property
    def task_id(self) -> str:
        """Whose container it is."""
        return self._plan.task_id

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    # The port

    def update(self, task: objects_pb2.Task, done: OnDone) -> Work:
        """As the port's: nothing of a container changes."""
        return self._begin(self._updated(), done)

    def prepare(self, done: OnDone) -> Work:
        """As the port's: there is a container afterwards."""
        return self._begin(self._prepare(), done)

    def start(self, done: OnDone) -> Work:
        """As the port's."""
        return self._begin(self._start(), done)

    def wait(self, done: OnDone) -> Work:
        """As the port's; an unhealthy container is stopped."""
        return self._begin(self._wait(), done)

    def shutdown(self, done: OnDone) -> Work:
        """As the port's."""
        return self._begin(self._shutdown(), done)

    def terminate(self, done: OnDone) -> Work:
        """As the port's."""
        return self._begin(self._terminate(), done)

    def remove(self, done: OnDone) -> Work:
        """As the port's."""
        return self._begin(self._remove(), done)

    def close(self, done: OnDone) -> Work:
        """As the port's."""
        self._closed = True
        for work in self._open:
            work.cancel(CONTROLLER_CLOSED)
        work = Work(lambda result: done(outcome_of(result)))
        work.ended(Done())
        return work

    def logs(self, options: LogOptions, on_line: OnLine, on_end: OnEnd) -> Work:
        """As the port's."""

        def ended(result: Any) -> None:
            quiet = result is None or result == "cancelled"
            on_end(None if quiet else _trouble(result))

        return self._run(self._logs(options, Reading(options, on_line)), ended)

    # Looking at it

    def look(self, question: Look, done: OnLooked) -> Work:
        """As ``Inspectable.look``: the engine's own answers."""
        return self._run(self._look(question), lambda result: done(_looked(result)))

    async def _look(self, question: Look) -> Any:
        found = await self._state()
        if found is None or not found.running:
            raise _not_running()
        try:
            return await self._containers.look(found.id, question)
        except EngineRefused as refused:
            ended = refused.status in (GONE, CONFLICT)
            raise _not_running() if ended else Refused(Code.UNKNOWN, refused.text) from None

    # Operations

    def _begin(self, coro: Coroutine[Any, Any, Outcome], done: OnDone) -> Work:
        return self._run(coro, lambda result: done(outcome_of(result)))

    def _run(self, coro: Coroutine[Any, Any, Any], finish: Callable[[Any], None]) -> Work:
        work = Work(finish)
        if self._closed:
            coro.close()
            work.ended(Failed(CONTROLLER_CLOSED))
            return work
        self._open = [each for each in self._open if not each.over]
        self._open.append(work)
        work.begin(self._loop, coro)
        return work

    async def _updated(self) -> Outcome:
        return Done()

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
            return Failed(f"starting container failed: {_why(error)}")
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
            await self._read(found, reading, follow=options.follow and found.running)
        except EngineRefused as refused:
            if refused.status != GONE:
                raise
            return True  # removed a moment ago
        return not options.follow or found.ended

    async def _read(self, found: ContainerState, reading: Reading, *, follow: bool) -> None:
        path, query = f"/containers/{found.id}/logs", reading.query(follow)
        async with self._containers.client.stream("GET", path, query=query) as pieces:
            cut: Frames | TerminalLines = TerminalLines() if found.tty else Frames()
            async for piece in pieces:
                for stream, payload in cut.feed(piece):
                    reading.give(line_of(stream, payload))
            if isinstance(cut, TerminalLines):
                for stream, payload in cut.rest():
                    reading.give(line_of(stream, payload))


def _looked(result: Any) -> Any:
    """What a coroutine's end means for who looks."""
    if isinstance(result, Refused):
        return result
    if isinstance(result, Failed):
        return Refused(Code.UNAVAILABLE, result.text)
    if result in (CONTROLLER_CLOSED, "cancelled") or isinstance(result, EngineUnavailable):
        return Refused(Code.UNAVAILABLE, str(result))
    if isinstance(result, BaseException):
        return Refused(Code.UNKNOWN, f"{type(result).__name__}: {result}")
    return result


def _not_running() -> Refused:
    return Refused(Code.FAILED_PRECONDITION, "the task does not run")


def _trouble(result: Any) -> str:
    if isinstance(result, BrokenLog):
        return str(result)
    outcome = outcome_of(result)
    assert isinstance(outcome, Failed)
    return outcome.text


def _why(error: Exception) -> str:
    if isinstance(error, Refused):
        return error.text
    if isinstance(error, OSError):
        return f"{error.strerror}: {error.filename}"
    return f"a secret or config is not on this node: {error.args[0]}"
