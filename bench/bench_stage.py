"""Tells a second and ask latency of the stage, observation on and off, beside bare pykka."""

from __future__ import annotations

import statistics
import threading
import time
from typing import Any

import pykka

from runtime.failpoints import failpoint
from runtime.stage import Actor, Address, Policy, Stage, handles

COUNT = 200_000


class Add:
    __slots__ = ()


class Done:
    __slots__ = ()


class Counter(Actor):
    def __init__(self, finished: threading.Event) -> None:
        super().__init__()
        self.finished = finished
        self.total = 0

    @handles(Add)
    def add(self, message: Add) -> None:
        self.total += 1

    @handles(Done)
    def done(self, message: Done) -> int:
        self.finished.set()
        return self.total


class Bare(pykka.ThreadingActor):
    def __init__(self, finished: threading.Event) -> None:
        super().__init__()
        self.finished = finished
        self.total = 0

    def on_receive(self, message: Any) -> Any:
        if message is None:
            self.finished.set()
            return self.total
        self.total += 1
        return None


def tells(tell: Any, end: Any, finished: threading.Event) -> float:
    begun = time.perf_counter()
    message = Add()
    for _ in range(COUNT):
        tell(message)
    tell(end)
    finished.wait()
    return COUNT / (time.perf_counter() - begun)


def asks(ask: Any, number: int = 5000) -> tuple[float, float]:
    took = []
    for _ in range(number):
        begun = time.perf_counter()
        ask()
        took.append((time.perf_counter() - begun) * 1e6)
    took.sort()
    return statistics.median(took), took[int(number * 0.99)]


def stage_figures(observing: bool, own_thread: bool) -> tuple[float, float, float]:
    stage = Stage(name="bench")
    stage.observing = observing
    finished = threading.Event()
    address: Address = stage.mount("counter", Counter, finished, policy=Policy(own_thread=own_thread))
    rate = tells(address.tell, Done(), finished)
    median, p99 = asks(lambda: address.ask(Done()).result(5))
    stage.close()
    return rate, median, p99


def pykka_figures() -> tuple[float, float, float]:
    finished = threading.Event()
    ref = Bare.start(finished)
    rate = tells(ref.tell, None, finished)
    median, p99 = asks(lambda: ref.ask(None, timeout=5))
    ref.stop()
    return rate, median, p99


def failpoint_figure(number: int = 1_000_000) -> float:
    """What a failpoint costs that is not armed, in nanoseconds, without the loop around it."""
    begun = time.perf_counter()
    for _ in range(number):
        failpoint("bench")
    called = time.perf_counter() - begun
    begun = time.perf_counter()
    for _ in range(number):
        pass
    return (called - (time.perf_counter() - begun)) / number * 1e9


def main() -> None:
    rows = [
        ("bare pykka", pykka_figures()),
        ("stage, observed", stage_figures(True, False)),
        ("stage, not observed", stage_figures(False, False)),
        ("stage, own thread", stage_figures(True, True)),
    ]
    bare_rate, bare_median, _ = rows[0][1]
    print(f"{'':22}{'tells/s':>12}{'of bare':>9}{'ask p50 us':>12}{'of bare':>9}{'ask p99 us':>12}")
    for name, (rate, median, p99) in rows:
        ratios = rate / bare_rate, median / bare_median
        print(f"{name:22}{rate:12,.0f}{ratios[0]:8.2f}x{median:12.1f}{ratios[1]:8.2f}x{p99:12.1f}")
    print(f"a failpoint that is not armed: {failpoint_figure():.0f} ns")


if __name__ == "__main__":
    main()
