"""What happens to an executor's containers, from the engine's one stream of events.

Rules owned here: an event only says "look again", so events that come twice, late or in another order do no harm; each
time the stream begins anew everybody looks again, for nobody knows what was missed. Between two streams there is a
pause that grows to five seconds. Runs on one asyncio loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final

from runtime.executor.container_config import TASK_LABEL
from runtime.executor.engine_client import EngineClient, EngineRefused, EngineUnavailable, lines_of

PAUSE_S: Final = 0.1
PAUSE_MAX_S: Final = 5.0
AGAIN_S: Final = 60.0
LOOKED_AT: Final = ("create", "start", "die", "died", "stop", "kill", "oom", "destroy", "remove", "health_status")

log = logging.getLogger("swarmlet.executor")


class Watch:
    """Somebody's interest in one container, or in one task that has none yet."""

    def __init__(self) -> None:
        self._happened = asyncio.Event()

    def wake(self) -> None:
        """Something happened."""
        self._happened.set()

    async def changed(self, seconds: float | None = None) -> None:
        """Returns once something has happened since the last return (or after ``seconds``)."""
        try:
            await asyncio.wait_for(self._happened.wait(), seconds)
        except TimeoutError:
            return
        finally:
            self._happened.clear()


class EngineEvents:
    """``label`` (``key=value``) is on all containers that matter. ``resync`` is awaited as each stream begins, before
    those who watch are woken; ``running`` says whose containers run, each ``every`` seconds."""

    def __init__(
        self,
        client: EngineClient,
        label: str,
        resync: Callable[[], Awaitable[None]],
        running: Callable[[], Awaitable[Collection[str]]],
        *,
        every: float = AGAIN_S,
    ) -> None:
        self._client = client
        self._running = running
        self._every = every
        self._filters = json.dumps({"type": ["container"], "label": [label]})
        self._resync = resync
        self._watches: dict[str, set[Watch]] = {}

    @contextmanager
    def watch(self, key: str) -> Iterator[Watch]:
        """Watches the container of a task, made or not, by the task's id."""
        watch = Watch()
        self._watches.setdefault(key, set()).add(watch)
        try:
            yield watch
        finally:
            left = self._watches[key]
            left.discard(watch)
            if not left:
                del self._watches[key]

    async def run(self) -> None:
        """Follows the engine until cancelled."""
        pause, trouble = PAUSE_S, ""
        while True:
            try:
                async for event in self._stream():
                    pause, trouble = PAUSE_S, ""
                    self._take(event)
                reason = "the stream of events ended"
            except (EngineUnavailable, EngineRefused, ValueError) as error:
                reason = str(error)
            if reason != trouble:
                trouble = reason
                log.warning("the container engine is not followed: %s", reason)
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_MAX_S)

    async def look_again(self) -> None:
        """Every minute whoever watches what does not run looks again, until cancelled: an engine drops events that its
        listeners are slow to take."""
        while True:
            await asyncio.sleep(self._every)
            try:
                running = await self._running()
            except (EngineUnavailable, EngineRefused):
                continue  # those who watch look when the engine is back
            for key in [key for key in self._watches if key not in running]:
                self._wake(key)

    async def _stream(self) -> Any:
        async with self._client.stream("GET", "/events", query={"filters": self._filters}) as pieces:
            await self._resync()
            self._wake_all()
            async for line in lines_of(pieces):
                yield json.loads(line)

    def _take(self, event: Any) -> None:
        task_id = concerned(event)
        if task_id:
            self._wake(task_id)

    def _wake_all(self) -> None:
        for key in self._watches:
            self._wake(key)

    def _wake(self, key: str) -> None:
        for watch in self._watches.get(key, ()):
            watch.wake()


def concerned(event: Any) -> str:
    """The task whose container an event is about, empty if it changes nothing for one."""
    if not isinstance(event, dict):
        return ""
    action = str(event.get("Action") or event.get("status") or "").partition(":")[0]
    actor = event.get("Actor")
    attributes = actor.get("Attributes") if isinstance(actor, dict) else None
    if action not in LOOKED_AT or not isinstance(attributes, dict):
        return ""
    return str(attributes.get(TASK_LABEL) or "")
