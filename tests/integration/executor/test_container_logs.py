"""The log of a container as its readers want it, whatever happens to the engine meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.executor.port import Stream
from runtime.wire.loop import IoLoop
from tests.integration.executor.container_bench import ContainerBench, container_task
from tests.integration.executor.fake_engine import STAMP
from tests.waiting import until


@pytest.fixture
def bench(loop: IoLoop, short_path: Path) -> Iterator[ContainerBench]:
    made = ContainerBench(loop, short_path)
    yield made
    made.end()


def test_lines_come_in_order_with_their_times_and_streams(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    bench.engine.write("t", "one\n")
    bench.engine.write("t", "two\n", stream=2)
    bench.engine.write("t", "no end")
    reader = bench.read(controller)
    assert reader.end() is None
    assert reader.texts == ["one\n", "two\n", "no end"]
    assert [line.stream for line in reader.lines] == [Stream.STDOUT, Stream.STDERR, Stream.STDOUT]
    assert [line.partial for line in reader.lines] == [False, False, True]
    times = [line.timestamp_ns for line in reader.lines]
    assert times == [1767323040 * 10**9 + number for number in range(3)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"tail": 0}, "abcd"), ({"tail": 1}, "bcd"), ({"tail": -2}, "d"), ({"tail": -1}, ""), ({"tail": -9}, "abcd"),
        ({"streams": (Stream.STDERR,)}, "b"), ({"since_ns": 1767323040 * 10**9 + 2}, "cd"),
        ({"streams": (Stream.STDERR,), "tail": -2}, "b"),
    ],
)  # fmt: skip
def test_what_is_read_is_what_was_asked_for(bench: ContainerBench, options: dict[str, int], expected: str) -> None:
    controller = bench.started("t", "sleep")
    for letter in "abcd":
        bench.engine.write("t", f"{letter}\n", stream=2 if letter == "b" else 1)
    reader = bench.read(controller, **options)
    assert reader.end() is None
    assert "".join(reader.texts).replace("\n", "") == expected


def test_whoever_follows_hears_the_end(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    bench.engine.write("t", "before\n")
    reader = bench.read(controller, follow=True)
    until(lambda: reader.texts == ["before\n"], "what was written is read")
    bench.engine.write("t", "after\n")
    until(lambda: len(reader.texts) == 2, "what is written is read")
    bench.engine.exit("t", 0)
    assert reader.end() is None
    assert reader.texts == ["before\n", "after\n"]


def test_whoever_follows_may_come_before_the_start(bench: ContainerBench) -> None:
    controller = bench.controller("t", "sleep")
    bench.followed()
    reader = bench.read(controller, follow=True)
    bench.do(controller.prepare)
    bench.do(controller.start)
    bench.engine.write("t", "first\n")
    until(lambda: reader.texts == ["first\n"], "the first line is read")
    reader.operation.cancel()
    assert reader.end() is None


def test_nothing_is_lost_or_told_twice_when_the_engine_restarts(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    for text in ("one\n", "two, first part", "two, second part\n"):
        bench.engine.write("t", text, stamp=STAMP.format(0, 5))
    reader = bench.read(controller, follow=True)
    until(lambda: len(reader.lines) == 3, "all is read")
    bench.engine.down()
    bench.engine.write("t", "three\n", stamp=STAMP.format(0, 5))
    bench.engine.write("t", "four\n", stamp=STAMP.format(0, 6))
    bench.engine.up()
    until(lambda: len(reader.lines) == 5, "the rest is read")
    bench.engine.exit("t", 0)
    assert reader.end() is None
    assert reader.texts == ["one\n", "two, first part", "two, second part\n", "three\n", "four\n"]


def test_the_last_lines_are_not_counted_anew_when_the_engine_restarts(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    for letter in "abcd":
        bench.engine.write("t", f"{letter}\n")
    reader = bench.read(controller, follow=True, tail=-3)
    until(lambda: reader.texts == ["c\n", "d\n"], "the last two are read")
    bench.engine.down()
    for letter in "efgh":
        bench.engine.write("t", f"{letter}\n")
    bench.engine.up()
    until(lambda: "".join(reader.texts).replace("\n", "") == "cdefgh", "nothing is missing")


def test_a_terminal_has_lines_and_no_frames(bench: ContainerBench) -> None:
    made = container_task("t", "sleep")
    made.spec.container.tty = True
    controller = bench.started(made)
    bench.engine.write("t", "one\r\n")
    bench.engine.write("t", "$ ")
    reader = bench.read(controller)
    assert reader.end() is None
    assert reader.texts == ["one\r\n", "$ "]
    assert {line.stream for line in reader.lines} == {Stream.STDOUT}


def test_a_driver_that_keeps_nothing_says_so(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    bench.engine.fail("/logs", 501, "configured logging driver does not support reading")
    assert bench.read(controller).end() == "configured logging driver does not support reading"


def test_a_log_of_a_task_without_a_container_is_empty(bench: ContainerBench) -> None:
    controller = bench.controller("t", "sleep")
    reader = bench.read(controller)
    assert reader.end() is None
    assert reader.lines == []


def test_a_reading_ends_when_the_container_is_removed(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    bench.engine.write("t", "one\n")
    reader = bench.read(controller, follow=True)
    until(lambda: reader.texts == ["one\n"], "it is read")
    bench.do(controller.remove)
    assert reader.end() is None


def test_a_closed_controller_says_so_to_who_reads(bench: ContainerBench) -> None:
    controller = bench.started("t", "sleep")
    reader = bench.read(controller, follow=True)
    bench.do(controller.close)
    assert reader.end() == "controller closed"
    assert bench.read(controller).end() == "controller closed"
