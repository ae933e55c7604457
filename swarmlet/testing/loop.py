"""An asyncio event loop under virtual time, so that the Engine API's coroutines run unchanged in a simulation.

Its callbacks are timers of the simulator: between two of them actors have their turns, and a seed fixes all of it.
It has no sockets, threads or processes: what asks for them gets NotImplementedError from the base class.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple

from runtime.stage.simulator import Simulator, Stuck
from runtime.stage.timers import Timer

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class VirtualLoop(asyncio.AbstractEventLoop):
    """Runs coroutines as virtual time passes. ``run`` is called from outside of it; everything else is asyncio's."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._timers: dict[int, Timer] = {}
        self.errors: list[dict[str, Any]] = []
        """What callbacks raised that nobody waited for, as asyncio's exception handlers are told it."""

    def run(self, work: Coroutine[Any, Any, T], within: float = 60.0) -> T:
        """Runs the simulation until ``work`` is done; Stuck after ``within`` virtual seconds, when it is cancelled."""
        task = self.create_task(work)
        try:
            self._simulator.run_until(task.done, within)
        except Stuck:
            task.cancel()
            self._simulator.run_for(0.001)
            raise
        result: T = task.result()
        return result

    def time(self) -> float:
        return self._simulator.time

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._simulator.set(0.0, lambda: self._call(handle))
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._timers[id(handle)] = self._simulator.set(when - self.time(), lambda: self._due(handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: contextvars.Context | None = None
    ) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        timer = self._timers.pop(id(handle), None)
        if timer is not None:
            timer.cancel()

    def _due(self, handle: asyncio.TimerHandle) -> None:
        self._timers.pop(id(handle), None)
        self._call(handle)

    def _call(self, handle: asyncio.Handle) -> None:
        if handle.cancelled():
            return
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            handle._run()
        finally:
            asyncio._set_running_loop(before)
