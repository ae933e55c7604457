"""The I/O loop: order, coalescing, outcomes, and nothing left behind."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from runtime.wire.loop import IoLoop
from tests.descriptors import open_files, opened_since


def both(first: Callable[[], object], second: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        first()
        second()

    return run


def test_calls_run_on_the_loops_thread_in_their_order() -> None:
    got: list[int] = []
    threads: set[str] = set()

    def note(number: int) -> None:
        got.append(number)
        threads.add(threading.current_thread().name)

    with IoLoop("named") as io:
        for number in range(1000):
            assert io.call_soon(lambda number=number: note(number))  # type: ignore[misc]
    assert got == list(range(1000))
    assert threads == {"named"}


def test_many_calls_while_the_loop_is_busy_cost_one_wakeup() -> None:
    held, release, done = threading.Event(), threading.Event(), threading.Event()
    with IoLoop() as io:
        io.call_soon(both(held.set, lambda: release.wait(90.0)))
        assert held.wait(60.0)
        before = io.wakeups
        for _ in range(500):
            io.call_soon(lambda: None)
        io.call_soon(done.set)
        assert io.wakeups == before + 1
        release.set()
        assert done.wait(60.0)


def test_a_call_from_the_loops_own_thread_runs_later_and_wakes_nobody() -> None:
    order: list[str] = []
    done = threading.Event()

    def outer() -> None:
        io.call_soon(both(lambda: order.append("inner"), done.set))
        order.append("outer")

    with IoLoop() as io:
        io.call_soon(outer)
        assert done.wait(60.0)
        assert io.wakeups == 1
    assert order == ["outer", "inner"]


def test_a_callback_that_raises_is_logged_and_the_next_one_runs(caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Event()
    with IoLoop() as io, caplog.at_level(logging.ERROR):
        io.call_soon(lambda: 1 / 0 and None)
        io.call_soon(done.set)
        assert done.wait(60.0)
    assert "ZeroDivisionError" in caplog.text


def submit(io: IoLoop, coro: Any) -> tuple[list[Any], threading.Event, Any]:
    outcomes: list[Any] = []
    ended = threading.Event()
    cancel = io.submit(coro, lambda outcome: both(lambda: outcomes.append(outcome), ended.set)())
    return outcomes, ended, cancel


def test_a_task_reports_its_result_or_its_exception_once() -> None:
    async def good() -> int:
        await asyncio.sleep(0)
        return 7

    async def bad() -> int:
        raise KeyError("x")

    with IoLoop() as io:
        outcomes, ended, _ = submit(io, good())
        assert ended.wait(60.0)
        failures, failed, _ = submit(io, bad())
        assert failed.wait(60.0)
    assert outcomes == [7]
    assert [type(failure) for failure in failures] == [KeyError]


def test_a_cancelled_task_says_so_even_if_it_never_began() -> None:
    with IoLoop() as io:
        outcomes, ended, cancel = submit(io, asyncio.sleep(3600))
        cancel()
        cancel()
        assert ended.wait(60.0)
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError]


def test_stopping_cancels_what_runs_and_leaves_no_thread_or_descriptor() -> None:
    files = open_files()
    threads = set(threading.enumerate())
    io = IoLoop("short-lived").start()
    outcomes, ended, _ = submit(io, asyncio.sleep(3600))
    io.stop()
    io.stop()
    assert ended.is_set()
    assert [type(outcome) for outcome in outcomes] == [asyncio.CancelledError]
    assert [each.name for each in threading.enumerate() if each not in threads] == []
    assert opened_since(files) == []


def test_a_stopped_loop_refuses_work_and_says_so() -> None:
    io = IoLoop().start()
    io.stop()
    ran: list[bool] = []
    assert not io.call_soon(lambda: ran.append(True))
    outcomes, ended, cancel = submit(io, asyncio.sleep(0))
    cancel()
    assert ended.is_set()
    assert isinstance(outcomes[0], RuntimeError)
    assert ran == []


def test_a_loop_that_never_started_closes() -> None:
    files = open_files()
    io = IoLoop()
    io.stop()
    assert opened_since(files) == []


def test_it_cannot_be_stopped_from_within() -> None:
    refused: list[Any] = []
    done = threading.Event()

    def inside() -> None:
        try:
            io.stop()
        except RuntimeError as error:
            refused.append(error)
        done.set()

    with IoLoop() as io:
        io.call_soon(inside)
        assert done.wait(60.0)
    assert "own thread" in str(refused[0])


def test_a_callback_that_blocks_is_named_when_stopping_gives_up() -> None:
    release = threading.Event()
    io = IoLoop("blocked").start()
    io.call_soon(lambda: release.wait(90.0) and None)
    with pytest.raises(RuntimeError, match="blocked did not end"):
        io.stop(timeout=0.05)
    release.set()


def test_a_callback_that_exits_ends_the_loop_and_it_can_still_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    io = IoLoop().start()

    def leave() -> None:
        raise SystemExit(3)

    io.call_soon(leave)
    io.stop()
    assert not io.running
    assert not io.call_soon(leave)
