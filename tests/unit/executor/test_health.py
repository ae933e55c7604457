"""When a task is healthy and when it is not any more, on a loop whose time is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from runtime.executor.health import HealthRules, watch_health
from runtime.wire.pb import types_pb2


class Counted(asyncio.SelectorEventLoop):
    """A loop that does not wait: its time jumps to whatever is due next."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0.0

    def time(self) -> float:
        return self.at

    def _run_once(self) -> None:
        waiting = [each for each in self._scheduled if not each.cancelled()]  # type: ignore[attr-defined]
        if waiting and not self._ready:  # type: ignore[attr-defined]
            self.at = max(self.at, min(each.when() for each in waiting))
        super()._run_once()  # type: ignore[misc]


@pytest.fixture
def loop() -> Iterator[Counted]:
    made = Counted()
    yield made
    made.close()


def rules(**seconds: Any) -> HealthRules:
    config = types_pb2.HealthConfig(test=["CMD", "check"], retries=seconds.pop("retries", 0))
    for name, value in seconds.items():
        getattr(config, name).FromMilliseconds(int(value * 1000))
    return HealthRules(config)


def watch(loop: Counted, made: HealthRules, results: str, was_healthy: bool = False) -> tuple[list[float], list[float]]:
    """When checks ran and when they succeeded, until the task is unhealthy; ``results``: + and -, the last repeated."""
    checks: list[float] = []
    healthy: list[float] = []

    async def probe(argv: list[str], seconds: float) -> bool:
        checks.append(loop.time())
        return results[min(len(checks), len(results)) - 1] == "+"

    loop.run_until_complete(watch_health(made, probe, lambda: healthy.append(loop.time()), was_healthy=was_healthy))
    return checks, healthy


def test_what_is_left_out_is_the_engines() -> None:
    made = rules()
    assert (made.interval, made.timeout, made.start_period, made.start_interval, made.retries) == (30, 30, 0, 5, 3)


def test_a_shell_test_is_run_by_the_shell() -> None:
    assert HealthRules(types_pb2.HealthConfig(test=["CMD-SHELL", "a b"])).argv == ["/bin/sh", "-c", "a b"]
    assert HealthRules(types_pb2.HealthConfig(test=["CMD", "a", "b"])).argv == ["a", "b"]


def test_so_many_failures_in_a_row_make_a_task_unhealthy(loop: Counted) -> None:
    assert watch(loop, rules(interval=10, retries=2), "-") == ([10, 20], [])


def test_a_success_forgets_the_failures_before_it(loop: Counted) -> None:
    assert watch(loop, rules(interval=10, retries=2), "-+--") == ([10, 20, 30, 40], [20])


def test_failures_within_the_start_period_do_not_count_and_come_faster(loop: Counted) -> None:
    checks, _ = watch(loop, rules(interval=10, retries=2, start_period=5, start_interval=2), "-")
    assert checks == [2, 4, 6, 16]


def test_the_first_success_ends_the_start_period(loop: Counted) -> None:
    checks, healthy = watch(loop, rules(interval=10, retries=1, start_period=100, start_interval=2), "--+-")
    assert (checks, healthy) == ([2, 4, 6, 16], [6])


def test_a_task_that_was_healthy_has_no_start_period_any_more(loop: Counted) -> None:
    checks, _ = watch(loop, rules(interval=10, retries=2, start_period=100), "-", was_healthy=True)
    assert checks == [10, 20]
