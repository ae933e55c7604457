"""One actor system: a tree of actors, its dispatcher, its timers, its observations. Nothing of it is global.

A stage belongs to one node (one world); a process may hold many. ``Stage()`` starts threads only when the first
actor is mounted, and ``close`` ends them all.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runtime.stage.actor import Actor
from runtime.stage.address import Address
from runtime.stage.answers import ActorUnavailable, Reply, forbid_blocking
from runtime.stage.cell import Cell, Life
from runtime.stage.dispatch import Dispatcher, Runner, Threads
from runtime.stage.messages import ActorDown, ActorUp
from runtime.stage.observe import CrashReport, Linker, Moment, Observations, Past, Tracer
from runtime.stage.policy import Policy
from runtime.stage.timers import TimerService
from runtime.stage.world import World

if TYPE_CHECKING:
    from runtime.stage.probe import Probe

log = logging.getLogger("swarmlet.stage")
MARKS = 1 << 20


class Stage:
    """An actor system. ``mount`` puts actors at the top; they live until ``close`` or until they are stopped.

    Trace ids begin with 20 bits that tell stages apart, since a trace may go on at another node: ``mark``, or else
    some that are made of the name.
    """

    def __init__(
        self,
        world: World | None = None,
        dispatcher: Dispatcher | None = None,
        name: str = "swarmlet",
        mark: int | None = None,
    ) -> None:
        self.world = world if world is not None else World()
        self.name = name
        self.log = log
        self.dispatcher: Dispatcher = dispatcher if dispatcher is not None else Threads()
        self.observations = Observations()
        self.observing = True
        self.tracer: Tracer | None = None
        self.linker: Linker | None = None
        self.hide: Callable[[str], str] = lambda text: text
        """Takes out of the text of an error, and of its traceback, what nobody may read. From any thread."""
        self.crash_listeners: list[Callable[[CrashReport], None]] = []
        self.moment_listeners: list[Callable[[Moment], None]] = []
        self.cells: dict[str, Cell] = {}
        self.read_nanos: Callable[[], int] = getattr(self.dispatcher, "read_nanos", time.perf_counter_ns)
        """The clock of all that is observed: nanoseconds since some time in the past."""
        self._watchers: dict[str, list[Address]] = {}
        self._watching: dict[str, set[str]] = {}
        self._traces = itertools.count(((zlib.crc32(name.encode()) if mark is None else mark) % MARKS << 32) + 1)
        self.next_trace = self._traces.__next__
        self._lock = threading.RLock()
        self._timers: TimerService | None = None
        self._ends: dict[str, threading.Event] = {}
        self._empty = threading.Event()
        self._empty.set()
        self._closing = False

    @property
    def timers(self) -> TimerService:
        """The stage's timers; their thread starts with the first use."""
        if self._timers is None:
            with self._lock:
                if self._timers is None:
                    self._timers = self.dispatcher.timers(self.world.clock, self.name)
        return self._timers

    def read_clock(self) -> float:
        """Seconds on the clock of what is observed, for who looks."""
        return self.read_nanos() / 1e9

    def runner_for(self, policy: Policy) -> Runner:
        """Who runs the turns of an actor with this policy."""
        return self.dispatcher.runner_for(policy, self.name)

    def mount(self, name: str, cls: type[Actor], *args: Any, policy: Policy | None = None) -> Address:
        """Starts an actor at ``/<name>``."""
        return self.create(f"/{name}", None, cls, args, policy)

    def create(
        self,
        path: str,
        parent: Cell | None,
        cls: type[Actor],
        args: tuple[Any, ...],
        policy: Policy | None,
        watched: bool = False,
    ) -> Address:
        """Makes a cell and starts its first life, which its parent may watch from the start."""
        with self._lock:
            if self._closing:
                raise ActorUnavailable(f"{path}: the stage is closing")
            if path in self.cells:
                raise RuntimeError(f"somebody lives at {path}: wait for its end before another starts there")
            cell = Cell(self, path, parent, cls, args, policy if policy is not None else cls.policy)
            self.cells[path] = cell
            self._empty.clear()
            if parent is not None:
                parent.children[path.rsplit("/", 1)[1]] = cell
                if watched:
                    self._add_watcher(path, parent.address)
        cell.control(cell.start)
        return cell.address

    def probe(self, name: str = "probe") -> Probe:
        """Something that stands at ``/<name>`` in another actor's place, keeps what it is told and lets a test expect
        it. Under a simulator only: elsewhere nobody could run time until a message has come."""
        make: Callable[[Stage, str], Probe] | None = getattr(self.dispatcher, "probe", None)
        if make is None:
            raise RuntimeError("a probe needs the simulator's virtual time")
        return make(self, name)

    def at(self, path: str) -> Address:
        """The address of a path, whether or not somebody lives there now."""
        return Address(self, path, self.cells.get(path))

    def watch(self, target: Address, watcher: Address) -> None:
        """Tells ``watcher`` of each ActorDown and ActorUp of ``target``, beginning with its present state."""
        with self._lock:
            self._add_watcher(target.path, watcher)
        cell = target.resolve()
        if cell is None:
            watcher.tell(ActorDown(target.path, None, True))
        elif cell.life is Life.RUNNING:
            watcher.tell(ActorUp(target.path, cell.failures.total))

    def _add_watcher(self, path: str, watcher: Address) -> None:
        watchers = self._watchers.setdefault(path, [])
        if watcher not in watchers:
            watchers.append(watcher)
            self._watching.setdefault(watcher.path, set()).add(path)

    def unwatch(self, target: Address, watcher: Address) -> None:
        """Ends what ``watch`` began; notices that are on their way still arrive."""
        with self._lock:
            self._watching.get(watcher.path, set()).discard(target.path)
            self._drop_watcher(target.path, watcher)

    def watchers_of(self, path: str) -> list[str]:
        """The paths of those who watch an actor."""
        with self._lock:
            return sorted(watcher.path for watcher in self._watchers.get(path, ()))

    def _forget_watcher(self, cell: Cell) -> None:
        with self._lock:
            for path in self._watching.pop(cell.path, ()):
                self._drop_watcher(path, cell.address)

    def _drop_watcher(self, path: str, watcher: Address) -> None:
        left = [each for each in self._watchers.get(path, ()) if each != watcher]
        if left:
            self._watchers[path] = left
        else:
            self._watchers.pop(path, None)

    def notify(self, cell: Cell, event: ActorDown | ActorUp) -> None:
        """Tells the watchers of a cell."""
        for watcher in tuple(self._watchers.get(cell.path, ())):
            watcher.tell(event, cell.address)

    def removed(self, cell: Cell, error: BaseException | None) -> None:
        """A cell is gone: its name is free again."""
        with self._lock:
            if self.cells.get(cell.path) is cell:
                del self.cells[cell.path]
                self.observations.past.setdefault(cell.cls.__name__, Past()).add(cell)
            if cell.parent is not None:
                cell.parent.children.pop(cell.path.rsplit("/", 1)[1], None)
            ended = self._ends.pop(cell.path, None)
        if ended is not None:
            ended.set()
        self.notify(cell, ActorDown(cell.path, error, True))
        self._forget_watcher(cell)
        self.dispatcher.released(cell.runner)
        if not self.cells:
            self._empty.set()

    def dead_letter(self, path: str, message: object, reply: Reply | None) -> None:
        """Counts a message that nobody can be given; a question is refused."""
        self.observations.dead_letter(path, message)
        if reply is not None:
            reply.fail(ActorUnavailable(f"nobody is at {path}"))

    def crashed(self, report: CrashReport, told: bool = False, passed_on: bool = False) -> None:
        """Keeps a crash report and logs it; in one line where the error itself is ``told`` to be for a reader. One that
        was ``passed_on`` by a child is in the log already."""
        self.observations.crashes.append(report)
        self.observations.crashed += 1
        for listener in self.crash_listeners:
            listener(report)
        about = {"node": self.name, "actor": report.path}
        where = "" if told else f"\n{report.traceback}"
        level = logging.DEBUG if passed_on else logging.ERROR
        log.log(level, "%s failed over %s: %s%s", report.path, report.message, report.error, where, extra=about)

    def walk(self) -> list[Cell]:
        """All cells, parents before children, by path."""
        with self._lock:
            return sorted(self.cells.values(), key=lambda cell: cell.path)

    def end(self, path: str, timeout: float) -> bool:
        """Stops one actor with everything below it, and waits for its end; False if that did not come in time."""
        forbid_blocking()
        with self._lock:
            cell = self.cells.get(path)
            if cell is None:
                return True
            ended = self._ends.setdefault(path, threading.Event())
        cell.request_stop()
        return ended.wait(timeout)

    def close(self, timeout: float = 15.0) -> bool:
        """Stops every actor, bottom up, then the threads. False if some did not end in time."""
        forbid_blocking()
        with self._lock:
            self._closing = True
            tops = [cell for cell in self.cells.values() if cell.parent is None]
        for cell in reversed(tops):
            cell.request_stop()
        ended = self._empty.wait(timeout)
        if not ended:
            log.error("still running after %g s: %s", timeout, ", ".join(sorted(self.cells)))
        if self._timers is not None:
            self._timers.close()
        self.dispatcher.close()
        return ended
