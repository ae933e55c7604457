"""Who runs the turns: a shared pool of threads, or a thread of an actor's own (a pool of one)."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

from runtime.stage.policy import Policy
from runtime.stage.timers import ThreadTimers, TimerService

if TYPE_CHECKING:
    from runtime.stage.cell import Cell
    from runtime.stage.world import Clock

JOIN_S = 1.0  # how long a thread that ends is waited for: an actor that does not return keeps its own
SHARE = 64  # messages that one actor may handle before others get their turn


class Runner(Protocol):
    """Takes cells that have something to do."""

    def schedule(self, cell: Cell) -> None: ...


class Dispatcher(Protocol):
    """Gives actors their turns, and timers their time."""

    def runner_for(self, policy: Policy, name: str) -> Runner: ...

    def released(self, runner: Runner) -> None: ...

    def timers(self, clock: Clock, name: str) -> TimerService: ...

    def close(self) -> None: ...


class Pool:
    """Threads that share one queue of cells."""

    def __init__(self, name: str, size: int) -> None:
        self._queue: SimpleQueue[Cell | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def schedule(self, cell: Cell) -> None:
        """Enqueues a cell for one turn."""
        self._queue.put(cell)

    def close(self, wait: bool = True) -> None:
        """Ends the threads after what is queued."""
        for _ in self._threads:
            self._queue.put(None)
        if wait:
            for thread in self._threads:
                if thread is not threading.current_thread():
                    thread.join(JOIN_S)

    def _run(self) -> None:
        while (cell := self._queue.get()) is not None:
            cell.turn(SHARE)


class Threads:
    """The dispatcher of production. Two threads serve most actors: more would only wait for the interpreter's lock."""

    def __init__(self, size: int = 2) -> None:
        self._size = size
        self._shared: Pool | None = None
        self._own: list[Pool] = []
        self._lock = threading.Lock()

    def runner_for(self, policy: Policy, name: str) -> Runner:
        """The shared pool, or a new thread where the policy asks for one."""
        with self._lock:
            if policy.own_thread:
                own = Pool(name, 1)
                self._own.append(own)
                return own
            if self._shared is None:
                self._shared = Pool(name.split("/", 1)[0], self._size)
            return self._shared

    def released(self, runner: Runner) -> None:
        """An actor with a thread of its own is gone: the thread ends after its last turn."""
        with self._lock:
            if runner is self._shared or not isinstance(runner, Pool):
                return
            self._own.remove(runner)
        runner.close(wait=False)

    def timers(self, clock: Clock, name: str) -> TimerService:
        """A thread with a heap."""
        return ThreadTimers(clock.monotonic, name)

    def close(self) -> None:
        """Ends all threads."""
        with self._lock:
            pools = [*self._own, *([self._shared] if self._shared is not None else [])]
            self._own, self._shared = [], None
        for pool in pools:
            pool.close()
