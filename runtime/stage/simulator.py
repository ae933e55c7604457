"""The deterministic dispatcher: one thread, virtual time, the order of turns drawn from a seed.

One simulator drives any number of stages (one per node), each with a world of its own over the simulator's clock.
A step is one message of one actor. While anything can run, virtual time moves by ``cost`` per step (or busy actors
would starve the clock); when nothing can, it jumps to the next timer. ``digest`` hashes every delivery: equal seeds
give equal digests, in any process and under any hash seed. ``current`` is the cell whose turn it is, so that a fault
that strikes inside a handler knows whom it strikes; ``observers`` see every delivery before it is made, ``linkers``
hear which traces go on in which.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runtime.stage.cell import Life
from runtime.stage.observe import Linker
from runtime.stage.policy import Policy
from runtime.stage.stage import Stage
from runtime.stage.timers import Timer
from runtime.stage.world import World

if TYPE_CHECKING:
    from runtime.stage.address import Address
    from runtime.stage.cell import Cell
    from runtime.stage.dispatch import Runner
    from runtime.stage.mailbox import Envelope
    from runtime.stage.probe import Probe
    from runtime.stage.timers import TimerService
    from runtime.stage.world import Clock

Observer = Callable[["Cell", "Envelope"], None]
"""Is given the cell and the message that it is about to be given; control messages are not shown."""
EPOCH = 1_700_000_000.0  # the time of day at which every simulation begins


class SimulatedClock:
    """One node's view of virtual time: ``skew`` seconds are added to its time of day, and it may run fast or slow."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._since = self._base = 0.0
        self.rate = 1.0
        self.skew = 0.0

    def monotonic(self) -> float:
        return self._base + (self._simulator.time - self._since) * self.rate

    def now(self) -> float:
        return EPOCH + self.monotonic() + self.skew

    def drift(self, rate: float) -> None:
        """From now on the clock counts ``rate`` seconds a second; timers set from now on follow it."""
        self._base, self._since, self.rate = self.monotonic(), self._simulator.time, rate


class Stuck(AssertionError):
    """What a test waited for did not happen; the text ends with the last deliveries."""


class Simulator:
    """Draws turns, moves time, counts deliveries."""

    def __init__(self, seed: int = 0, cost: float = 1e-5) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.cost = cost
        self.time = 0.0
        self.steps = 0
        self._last: deque[tuple[float, str]] = deque(maxlen=200)
        self._lines: dict[tuple[str, str, str], tuple[str, bytes]] = {}
        self.stages: list[Stage] = []
        self.current: Cell | None = None
        self.observers: list[Observer] = []
        self.linkers: list[Linker] = []
        self._hash = hashlib.blake2b(digest_size=16)
        self._ready: list[Cell] = []
        self._heap: list[tuple[float, int, Timer, Stage | None]] = []
        self._numbers = itertools.count()
        self._paused: dict[str, list[Cell]] = {}
        self._pauses: dict[str, int] = {}
        self._slowed: dict[Cell, Callable[[], float]] = {}

    # Building

    def node(self, name: str, **ports: Any) -> Stage:
        """A stage with a world of its own, all of whose randomness derives from the seed and the name."""
        seeded = random.Random(f"{self.seed}/{name}")
        world = World(name, SimulatedClock(self), seeded, random.Random(f"{self.seed}/{name}/keys").randbytes, **ports)
        return self.adopt(world, name)

    def adopt(self, world: World, name: str) -> Stage:
        """A stage over a world that is there already (a node that starts again)."""
        stage = Stage(world, SimulatedDispatcher(self), name)
        stage.linker = self._link
        self.stages.append(stage)
        return stage

    @property
    def last(self) -> list[str]:
        """The last 200 deliveries, a line each."""
        return [f"{time:.6f} {line}" for time, line in self._last]

    @property
    def digest(self) -> str:
        """The hash of all deliveries so far."""
        return self._hash.hexdigest()

    # Running

    def schedule(self, cell: Cell) -> None:
        """A cell has something to do."""
        if self._slowed and cell in self._slowed:
            self.set(self._slowed[cell](), lambda: self._enqueue(cell), stage=cell.stage)
        elif self._paused:
            self._enqueue(cell)
        else:
            self._ready.append(cell)

    def _enqueue(self, cell: Cell) -> None:
        held = self._paused.get(cell.stage.name)
        (self._ready if held is None else held).append(cell)

    def set(
        self, delay: float, call: Callable[[], None], period: float | None = None, stage: Stage | None = None
    ) -> Timer:
        """Sets a virtual timer."""
        timer = Timer(self.time + max(0.0, delay), call, period)
        heapq.heappush(self._heap, (timer.due, next(self._numbers), timer, stage))
        return timer

    def step(self) -> bool:
        """One delivery or one timer. False when nothing is left to happen."""
        heap = self._heap
        if heap and heap[0][0] <= self.time and self._fire_due() and not self._ready:
            return True  # what fired woke nobody, and it may have set the next timer
        ready = self._ready
        if not ready:
            return self._jump()
        index = int(self.random.random() * len(ready))
        ready[index], ready[-1] = ready[-1], ready[index]
        cell = ready.pop()
        self.steps += 1
        self.time += self.cost
        self._note(cell)
        self.current = cell
        try:
            cell.turn(0 if cell.mailbox.control else 1)  # control messages are a step of their own
        finally:
            self.current = None
        return True

    def run_for(self, seconds: float) -> None:
        """Runs until virtual time has moved by ``seconds``."""
        self.run_until_time(self.time + seconds)

    def run_until_time(self, time: float) -> None:
        """Runs everything that is due before ``time``, then stands there."""
        while self._ready or self._next_timer() <= time:
            if self.time > time:
                return
            self.step()
        self.time = max(self.time, time)

    def run_until(self, condition: Callable[[], bool], within: float = 60.0) -> None:
        """Runs until ``condition()``; raises Stuck after ``within`` virtual seconds."""
        limit = self.time + within
        while not condition():
            if self.time > limit or (not self._ready and self._next_timer() > limit):
                raise Stuck(f"seed {self.seed}: not within {within:g} virtual seconds\n" + "\n".join(self.last))
            self.step()

    def settle(self) -> None:
        """Runs what can run now, without letting a timer pass."""
        while self._ready:
            self.step()

    def ask(self, address: Address, message: Any, within: float = 60.0) -> Any:
        """Asks from outside and runs until the answer is there."""
        future = address.ask(message)
        self.run_until(lambda: future.done, within)
        return future.result(0)

    # Faults

    def crash(self, stage: Stage) -> None:
        """Ends a node at once: no hook runs, no message is answered, no timer fires."""
        for cell in list(stage.cells.values()):
            cell.life = Life.GONE
            cell.instance = None
            cell.mailbox.user.clear()
            cell.mailbox.control.clear()
        stage.cells.clear()
        self._ready = [cell for cell in self._ready if cell.stage is not stage]
        for _due, _number, timer, owner in self._heap:
            if owner is stage:
                timer.cancel()
        for cell in [cell for cell in self._slowed if cell.stage is stage]:
            del self._slowed[cell]
        if stage.name in self._paused:
            self._paused[stage.name] = []
        self.stages.remove(stage)

    def pause(self, stage: Stage, seconds: float) -> None:
        """Holds a node still; its timers then fire in a burst. Pauses may overlap: the last to end lets it go."""
        self._paused.setdefault(stage.name, []).extend(cell for cell in self._ready if cell.stage is stage)
        self._ready = [cell for cell in self._ready if cell.stage is not stage]
        self._pauses[stage.name] = self._pauses.get(stage.name, 0) + 1
        self.set(seconds, lambda: self._unpause(stage.name))

    def _unpause(self, name: str) -> None:
        self._pauses[name] -= 1
        if not self._pauses[name]:
            del self._pauses[name]
            self._ready.extend(self._paused.pop(name))

    def paused(self, stage: Stage) -> bool:
        """Whether a node is held still now."""
        return stage.name in self._paused

    def slow(self, cell: Cell, delay: Callable[[], float] | None) -> None:
        """Has each turn of an actor wait ``delay()`` seconds first, as if its disk or its processor were slow; None
        ends that."""
        if delay is None:
            self._slowed.pop(cell, None)
        else:
            self._slowed[cell] = delay

    # Inside

    def _link(self, cause: int, effect: int) -> None:
        for linker in self.linkers:
            linker(cause, effect)

    def _note(self, cell: Cell) -> None:
        mailbox = cell.mailbox
        told = mailbox.user[0] if mailbox.user and not mailbox.control else None
        what = (cell.stage.name, cell.path, told[0].__class__.__name__ if told is not None else "(control)")
        line = self._lines.get(what)
        if line is None:
            text = f"{what[0]}:{what[1]} {what[2]}"
            line = self._lines[what] = text, text.encode()
        self._hash.update(line[1])
        self._last.append((self.time, line[0]))
        if told is not None:
            for observer in self.observers:
                observer(cell, told)

    def _fire_due(self) -> bool:
        heap, fired = self._heap, False
        while heap and (heap[0][0] <= self.time or heap[0][2].call is None):
            _due, _number, timer, stage = heapq.heappop(heap)
            if timer.call is None:
                continue
            fired = True
            timer.fire()
            if timer.period is not None and timer.active:
                timer.due = max(timer.due + timer.period, self.time)
                heapq.heappush(heap, (timer.due, next(self._numbers), timer, stage))
        return fired

    def _next_timer(self) -> float:
        heap = self._heap
        while heap and heap[0][2].call is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else math.inf

    def _jump(self) -> bool:
        due = self._next_timer()
        if due == math.inf:
            return False
        self.time = max(self.time, due)
        self._fire_due()
        return True


class SimulatedDispatcher:
    """A stage's door to its simulator."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self.stage_timers = _StageTimers(simulator)

    def read_nanos(self) -> int:
        """Virtual time stands for the processor's clock, so that figures are reproducible too."""
        return int(self._simulator.time * 1e9)

    def runner_for(self, policy: Policy, name: str) -> Runner:
        return self._simulator

    def released(self, runner: Runner) -> None:
        """Nothing belongs to one actor here."""

    def timers(self, clock: Clock, name: str) -> TimerService:
        self.stage_timers.stage = next(stage for stage in self._simulator.stages if stage.name == name)
        return self.stage_timers

    def probe(self, stage: Stage, name: str) -> Probe:
        """See ``Stage.probe``."""
        from runtime.stage.probe import Probe  # it stands on this module

        return Probe(self._simulator, stage, name)

    def close(self) -> None:
        """Nothing runs by itself here."""


class _StageTimers:
    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self.stage: Stage | None = None

    def set(self, delay: float, call: Callable[[], None], period: float | None = None) -> Timer:
        rate: float = getattr(self.stage.world.clock, "rate", 1.0) if self.stage is not None else 1.0
        return self._simulator.set(delay / rate, call, None if period is None else period / rate, self.stage)

    def close(self) -> None:
        """Timers end with their actors."""
