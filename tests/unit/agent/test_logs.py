"""Log publishing's rules: rate, position, what waits between the executor's thread and the publisher."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.executor.port import LogLine, Stream
from runtime.swarm.agent_logs import BURST, RATE, LogFeed, LogPosition, LogRate, LogTarget
from runtime.wire.pb import logs_pb2 as logs


def line(number: int, size: int = 1) -> LogLine:
    return LogLine(number, Stream.STDOUT, b"%d" % number + b"x" * size)


# Rate


def test_a_burst_goes_at_once_and_the_rest_at_the_rate() -> None:
    rate = LogRate(0.0)
    rate.spend(int(BURST))
    assert rate.wait(0.0) == 0.0
    rate.spend(int(RATE))
    assert rate.wait(0.0) == pytest.approx(1.0)
    assert rate.wait(0.4) == pytest.approx(0.6)
    assert rate.wait(1.0) == pytest.approx(0.0, abs=1e-9)


def test_idle_time_is_worth_no_more_than_a_burst() -> None:
    rate = LogRate(0.0, rate=10, burst=20)
    assert rate.wait(1000.0) == 0.0
    rate.spend(30)
    assert rate.wait(1000.0) == pytest.approx(1.0)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 50)), max_size=40))
def test_over_any_time_no_more_goes_than_burst_and_rate_allow(events: list[tuple[float, int]]) -> None:
    rate = LogRate(0.0, rate=10, burst=20)
    now, sent, last = 0.0, 0, 0
    for pause, size in events:
        now += pause
        if rate.wait(now) == 0.0:
            rate.spend(size)
            sent, last = sent + size, size
    assert sent - last <= 20 + 10 * now + 1e-6


# Position


@given(
    st.lists(st.integers(1, 5), max_size=30).map(sorted), st.lists(st.integers(0, 30), max_size=5), st.integers(0, 5)
)
def test_reading_again_from_the_last_timestamp_gives_every_line_once(
    stamps: list[int], breaks: list[int], since: int
) -> None:
    lines = list(enumerate(stamps))
    position = LogPosition(since)
    got: list[int] = []
    for limit in [*breaks, len(lines)]:
        if position.began:
            position.resume()
        taken = 0
        for number, stamp in lines:
            if stamp < position.since_ns and not got:
                continue
            if stamp < (stamps[got[-1]] if got else since):
                continue
            if taken == limit and limit != len(lines):
                break
            if position.admit(stamp):
                got.append(number)
                taken += 1
    assert got == [number for number, stamp in lines if stamp >= since]


# Feed


def test_a_reader_is_woken_once_until_it_looks() -> None:
    woken: list[None] = []
    feed = LogFeed(woken.append)
    feed.line(line(1))
    feed.line(line(2))
    assert len(woken) == 1
    feed.look()
    assert [feed.take().timestamp_ns for _ in range(2)] == [1, 2]
    assert not feed
    feed.line(line(3))
    assert len(woken) == 2


def test_a_line_that_comes_between_look_and_take_is_taken_or_announced() -> None:
    woken: list[None] = []
    feed = LogFeed(woken.append)
    feed.line(line(1))
    feed.look()
    feed.line(line(2))
    assert len(woken) == 2


def test_beyond_its_limit_a_feed_breaks_the_reading_off_and_takes_no_more() -> None:
    cancels: list[int] = []
    feed = LogFeed(lambda _: None, limit=1000)
    feed.begun(lambda: cancels.append(1))
    for number in range(100):
        feed.line(line(number, 100))
    assert feed.overfull
    assert cancels == [1]
    taken = 0
    while feed:
        assert feed.take().timestamp_ns == taken
        taken += 1
    assert 5 <= taken <= 10
    feed.line(line(100))
    assert not feed


def test_a_reading_that_was_too_fast_is_broken_off_as_soon_as_that_is_possible() -> None:
    feed = LogFeed(lambda _: None, limit=10)
    feed.line(line(1, 100))
    cancels: list[int] = []
    feed.begun(lambda: cancels.append(1))
    assert cancels == [1]


def test_what_was_taken_makes_room() -> None:
    feed = LogFeed(lambda _: None, limit=500)
    for number in range(100):
        feed.line(line(number, 100))
        feed.take()
    assert not feed.overfull


def test_lines_pass_between_threads_in_order_and_none_is_left_behind() -> None:
    ready = threading.Semaphore(0)
    feed = LogFeed(lambda _: ready.release(), limit=1 << 30)
    got: list[int] = []

    def write() -> None:
        for number in range(20_000):
            feed.line(line(number))

    writer = threading.Thread(target=write)
    writer.start()
    while len(got) < 20_000:
        assert ready.acquire(timeout=60), f"not woken after {len(got)} lines"
        feed.look()
        while feed:
            got.append(feed.take().timestamp_ns)
    writer.join()
    assert got == list(range(20_000))


# Target


def test_a_selector_means_tasks_by_any_of_its_lists() -> None:
    target = LogTarget.of(logs.LogSelector(service_ids=["s"], node_ids=["n"], task_ids=["t"]))
    assert target.means("t", "-", "-")
    assert target.means("-", "s", "-")
    assert target.means("-", "-", "n")
    assert not target.means("s", "n", "t")
