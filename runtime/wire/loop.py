"""One asyncio loop on one named thread: all of a process's network I/O lives here.

Rules: it starts and stops explicitly and leaves no thread, task or file descriptor behind; work comes in from other
threads by ``call_soon`` and ``submit`` alone; wake-ups are coalesced, so that many calls from busy threads cost one
write to the loop's self-pipe and not one each. A callback that raises is logged and ends nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
logger = logging.getLogger("swarmlet.wire")


class IoLoop:
    """An asyncio loop with a thread of its own. Usable as a context manager; not restartable after ``stop``."""

    def __init__(self, name: str = "swarmlet-io") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._queue: list[Callable[[], None]] = []
        self._waking = False
        self._accepting = False
        self._wakeups = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop itself, for code that already runs on its thread."""
        return self._loop

    @property
    def running(self) -> bool:
        """Whether it takes work."""
        return self._accepting

    @property
    def wakeups(self) -> int:
        """How often another thread had to wake the loop: a measure of the coalescing."""
        return self._wakeups

    @property
    def on_thread(self) -> bool:
        """Whether the caller runs on the loop's thread."""
        return threading.get_ident() == self._thread.ident

    def start(self) -> IoLoop:
        """Starts the thread and returns once the loop takes work. RuntimeError if it was started before."""
        ready = threading.Event()
        with self._lock:
            self._accepting = True
        self._loop.call_soon(ready.set)
        self._thread.start()
        ready.wait()
        return self

    def stop(self, timeout: float = 10.0) -> None:
        """Runs what was queued, cancels what is still under way, closes the loop and joins the thread.

        Called from the loop's own thread it is refused: it could only wait for itself. RuntimeError if the thread
        has not ended after ``timeout`` seconds, which names a callback that blocks. A second call is nothing.
        """
        if self.on_thread:
            raise RuntimeError(f"{self._name} cannot be stopped from its own thread")
        with self._lock:
            running, self._accepting = self._accepting, False
        if running:
            self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread.ident is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                raise RuntimeError(f"{self._name} did not end within {timeout} s: a callback blocks it")
        if not self._loop.is_closed():
            self._loop.close()

    def __enter__(self) -> IoLoop:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def call_soon(self, fn: Callable[[], None]) -> bool:
        """Has ``fn`` called on the loop's thread, in the order of the calls. False once the loop has stopped:
        then ``fn`` is not called."""
        with self._lock:
            if not self._accepting:
                return False
            self._queue.append(fn)
            if self._waking:
                return True
            self._waking = True
        if self.on_thread:
            self._loop.call_soon(self._drain)
            return True
        self._wakeups += 1
        self._loop.call_soon_threadsafe(self._drain)
        return True

    def submit(
        self, coro: Coroutine[Any, Any, T], done: Callable[[T | BaseException], None] | None = None
    ) -> Callable[[], None]:
        """Runs a coroutine as a task; ``done`` hears its result or its exception, exactly once, on the loop's
        thread (on the caller's, with a RuntimeError, if the loop has stopped). Returns what cancels it."""
        task: list[asyncio.Task[T]] = []

        def begin() -> None:
            started = self._loop.create_task(coro)
            task.append(started)
            self._tasks.add(started)
            started.add_done_callback(lambda ended: self._finish(ended, done))

        if not self.call_soon(begin):
            coro.close()
            if done is not None:
                done(RuntimeError(f"{self._name} has stopped"))
        return lambda: self._cancel(task)

    def _cancel(self, task: list[asyncio.Task[T]]) -> None:
        # Queued behind ``begin``: when this runs, the task is there.
        self.call_soon(lambda: _drop(task[0].cancel()))

    def _finish(self, task: asyncio.Task[T], done: Callable[[T | BaseException], None] | None) -> None:
        self._tasks.discard(task)
        outcome = asyncio.CancelledError() if task.cancelled() else task.exception() or task.result()
        if done is not None:
            self._guard(lambda: done(outcome))
        elif isinstance(outcome, Exception):
            logger.error("a task on %s failed", self._name, exc_info=outcome)

    def _drain(self) -> None:
        with self._lock:
            batch, self._queue = self._queue, []
            self._waking = False
        for fn in batch:
            self._guard(fn)

    def _guard(self, fn: Callable[[], None]) -> None:
        try:
            fn()
        except Exception:
            logger.exception("a callback on %s failed", self._name)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._wind_down())
        finally:
            with self._lock:  # also when a callback's SystemExit got us here
                self._accepting = False
            asyncio.set_event_loop(None)
            self._loop.close()

    async def _wind_down(self) -> None:
        """Cancels every task, also those that cancelled tasks start, and waits for them."""
        self._drain()
        me = asyncio.current_task()
        for _ in range(100):
            rest = [task for task in asyncio.all_tasks() if task is not me]
            if not rest:
                break
            for task in rest:
                task.cancel()
            await asyncio.wait(rest, timeout=1.0)
        await self._loop.shutdown_asyncgens()
        await self._loop.shutdown_default_executor()
        await asyncio.sleep(0)  # transports that were closed above report it in the next turn


def _drop(_: object) -> None:
    """Takes a value that nobody needs."""
