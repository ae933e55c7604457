"""What it costs to look inside: observation per message and of writes, a traced message, an answer of the tree.

    python bench/bench_introspection.py [--rounds N] [--writes N] [--directory DIR]

Figures of messages are CPU time, and the smallest of many rounds that take turns (with, without, with, ...): what other
programs do on the machine makes rounds longer, never shorter. Those of writes, which grow what they write to, are
medians over pairs of rounds, beside pairs that do not differ.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import pathlib
import statistics
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from bench_writes import Above, creating

from runtime.disk.real import RealDisk
from runtime.introspection.asks import Asks
from runtime.introspection.tracing import Tracing, checked
from runtime.protocol.store import Write
from runtime.stage import Actor, Address, Policy, Stage, World, handles
from runtime.stage.answers import Answer, Reply
from runtime.stage.cell import Cell
from runtime.stage.timers import ThreadTimers
from runtime.store.view import Published

MESSAGES = 20_000
SHARE = 64


class Add:
    """A message of the cheapest kind."""

    __slots__ = ()


class Counter(Actor):
    """Handles it in the cheapest way."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    @handles(Add)
    def add(self, message: Add) -> None:
        """Counts."""
        self.total += 1


class ByHand:
    """A dispatcher whose turns are taken by the caller, on the caller's thread: nothing else is measured."""

    def __init__(self) -> None:
        self.due: deque[Cell] = deque()

    def schedule(self, cell: Cell) -> None:
        """Keeps a cell for the next ``run``."""
        self.due.append(cell)

    def runner_for(self, policy: Policy, name: str) -> ByHand:
        """The same for all."""
        return self

    def released(self, runner: Any) -> None:
        """Nothing was held."""

    def timers(self, clock: Any, name: str) -> ThreadTimers:
        """Real ones, which nobody here uses."""
        return ThreadTimers(clock.monotonic, name)

    def close(self) -> None:
        """Nothing was held."""

    def run(self) -> None:
        """All turns that are due."""
        while self.due:
            self.due.popleft().turn(SHARE)


class Bare:
    """A stage with one actor; ``round`` is the CPU time of a message in microseconds."""

    def __init__(self, observing: bool = True) -> None:
        self.hand = ByHand()
        self.stage = Stage(dispatcher=self.hand, name="bench")
        self.stage.observing = observing
        self.address: Address = self.stage.mount("counter", Counter)
        self.hand.run()

    def round(self) -> float:
        """Tells and handles many messages."""
        message, tell = Add(), self.address.tell
        begun = time.thread_time()
        for _ in range(MESSAGES):
            tell(message)
        self.hand.run()
        return (time.thread_time() - begun) / MESSAGES * 1e6


def compared(rounds: int, **ways: Callable[[], float]) -> dict[str, tuple[float, float]]:
    """The smallest and the median of the rounds of each way; the ways take turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(way())
    return {name: (min(each), statistics.median(each)) for name, each in taken.items()}


def messages(rounds: int) -> float:
    """Observation and tracing, per message; what observation costs, in microseconds."""
    on, off, traced, filtered = Bare(), Bare(observing=False), Bare(), Bare()

    def trace(bare: Bare, **wanted: Any) -> Callable[[], float]:
        def run() -> float:
            tracing = Tracing(bare.stage)
            found = tracing.begin(checked(count=100_000, rate=50_000, **wanted), lambda: None)
            took = 0.0
            try:
                message, tell = Add(), bare.address.tell
                begun = time.thread_time()
                for _ in range(MESSAGES // 4):
                    tell(message)
                bare.hand.run()
                took = time.thread_time() - begun
                expected = 0 if "nobody" in wanted.get("paths", ()) else MESSAGES // 4
                assert found.taken == expected, f"{found.taken} of {expected} were traced ({found.ended})"
            finally:
                tracing.finish(found)
            return took / (MESSAGES // 4) * 1e6

        return run

    found = compared(
        rounds, off=off.round, on=on.round, traced=trace(traced, paths=["/counter"]),
        filtered=trace(filtered, paths=["nobody"]),
    )  # fmt: skip
    base, observed = found["off"], found["on"]
    print(f"a message, not observed      {base[0]:6.2f} us (median {base[1]:.2f})")
    _print("observation", observed, base, 0.5)
    _print("being traced", found["traced"], observed, 5.0)
    _print("being left out by a trace", found["filtered"], observed, 5.0)
    return observed[0] - base[0]


def _print(what: str, found: tuple[float, float], base: tuple[float, float], aim: float) -> None:
    print(f"{what:28} {found[0] - base[0]:+6.2f} us (median {found[1] - base[1]:+.2f}); at most {aim:g}")


class Writing:
    """A manager's store, consensus and log on a disk, all on the caller's thread and in batches of one size: on threads
    of their own, how many writes share an append differs from round to round by more than observation costs.
    Observation is switched between rounds, so that both ways share files and growth."""

    def __init__(self, directory: pathlib.Path) -> None:
        published, leads = Published(), threading.Event()
        self.hand = ByHand()
        self.stage = Stage(World("bench", disk=RealDisk(directory)), dispatcher=self.hand)
        self.stage.mount("manager", Above, published, leads)
        ends = time.monotonic() + 30
        while not leads.is_set():
            self.hand.run()
            if time.monotonic() > ends:
                raise TimeoutError("no leader within 30 s")
            leads.wait(0.01)
        self.store = self.stage.at("/manager/store")
        self.number = self.answered = 0

    def round(self, observing: bool, batches: int, batch: int = 64) -> float:
        """CPU microseconds for a write."""
        self.stage.observing = observing
        begun, wanted = time.thread_time(), self.answered + batches * batch
        for _ in range(batches):
            for _ in range(batch):
                self.number += 1
                self.store.send(Write(creating(self.number)), None, Reply(self._answer), 0)
            self.hand.run()
        took = time.thread_time() - begun
        assert self.answered == wanted, f"{wanted - self.answered} writes are unanswered"
        return took / (batches * batch) * 1e6

    def handled(self) -> int:
        """Messages that were observed so far."""
        return sum(each.count for cell in self.stage.walk() for each in list(cell.tally.stats.values()))

    def close(self) -> None:
        """Ends the actors, whose last turns are taken here too."""
        closing = threading.Thread(target=self.stage.close)
        closing.start()
        while closing.is_alive():
            self.hand.run()
            closing.join(0.01)

    def _answer(self, answer: Answer) -> None:
        answer.get()
        self.answered += 1


def middle(pairs: list[tuple[float, float]]) -> str:
    """By how much the second of each pair is above the first: the median, and where that is with 95 % certainty."""
    ratios = sorted((other / one - 1) * 100 for one, other in pairs)
    half, apart = len(ratios) // 2, math.ceil(0.98 * len(ratios) ** 0.5)
    low, high = ratios[max(0, half - apart)], ratios[min(len(ratios) - 1, half + apart)]
    return f"{statistics.median(ratios):+6.1f} % ({low:+.1f} to {high:+.1f})"


def writes(number: int, batches: int, directory: str | None, observation_us: float) -> None:
    """What observation takes of a write: as the cost of a message times the messages of a write, and as measured in
    pairs of rounds next to each other, beside pairs that do not differ at all: what those show is the machine."""
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        writing = Writing(pathlib.Path(scratch))
        writing.round(True, batches)
        same, differing, rounds, handled = [], [], 0, writing.handled()
        for turn in range(number):
            same.append((writing.round(False, batches), writing.round(False, batches)))
            ways = {way: writing.round(way, batches) for way in ((True, False) if turn % 2 else (False, True))}
            differing.append((ways[False], ways[True]))
            rounds += batches * 64
        cpu, messages = statistics.median(off for off, _ in differing), (writing.handled() - handled) / rounds
        print(f"a write, not observed        {cpu:6.0f} us CPU (median), {messages:.1f} messages")
        print(f"observation, counted         {messages * observation_us / cpu * 100:+6.1f} % of it; at most 3 %")
        print(f"observation, measured        {middle(differing)} of it; at most 3 %")
        print(f"  where nothing differs      {middle(same)}")
        writing.close()


def answers(rounds: int) -> None:
    """CPU time of an answer about a stage of many actors."""
    bare = Bare()
    for number in range(999):
        bare.stage.mount(f"other{number}", Counter)
    bare.hand.run()
    asks = Asks(bare.stage)

    def tree() -> float:
        begun = time.thread_time()
        asyncio.run(asks.answer({"ask": "tree"}))
        return (time.thread_time() - begun) * 1e3

    took = compared(max(5, rounds // 4), tree=tree)["tree"]
    print(f"the tree of 1,000 actors     {took[0]:6.1f} ms CPU (median {took[1]:.1f})")


def main() -> None:
    """All figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=200, help="of rounds of writes")
    parser.add_argument("--batches", type=int, default=4, help="of 64 writes, in a round")
    parser.add_argument("--directory", help="where the logs of the writes are (default: the temporary directory)")
    options = parser.parse_args()
    gc.disable()
    observation_us = messages(options.rounds)
    answers(options.rounds)
    gc.enable()
    writes(options.pairs, options.batches, options.directory, observation_us)


if __name__ == "__main__":
    main()
