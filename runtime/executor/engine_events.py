"""What happens to an executor's containers, from the engine's one stream of events.

Rules owned here: an event only says "look again", so events that come twice, late or in another order do no harm; each
time the stream begins anew everybody looks again, for nobody knows what was missed. Between two streams there is a
pause that grows to five seconds. Runs on one asyncio loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from runtime.executor.engine_client import EngineClient, EngineRefused, EngineUnavailable, lines_of

PAUSE_S: Final = 0.1
PAUSE_MAX_S: Final = 5.0
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
    those who watch are woken."""

    def __init__(self, client: EngineClient, label: str, resync: Callable[[], Awaitable[None]]) -> None:
        self._client = client
        self._filters = json.dumps({"type": ["container"], "label": [label]})
        self._resync = resync
        self._watches: dict[str, set[Watch]] = {}

    @contextmanager
    def watch(self, key: str) -> Iterator[Watch]:
        """Watches a container (by its id) or a task (by its id)."""
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

    async def _stream(self) -> Any:
        async with self._client.stream("GET", "/events", query={"filters": self._filters}) as pieces:
            await self._resync()
            self._wake_all()
            async for line in lines_of(pieces):
                yield json.loads(line)

    def _take(self, event: Any) -> None:
        action = str(event.get("Action") or event.get("status") or "").partition(":")[0]
        if action not in LOOKED_AT:
            return
        actor = event.get("Actor") or {}
        attributes = actor.get("Attributes") or {}
        for key in (actor.get("ID") or event.get("id"), attributes.get("com.docker.swarm.task.id")):
            for watch in self._watches.get(str(key), ()):
                watch.wake()

    def _wake_all(self) -> None:
        for watches in self._watches.values():
            for watch in watches:
                watch.wake()
