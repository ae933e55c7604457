"""What tasks wrote, as readers of ``docker service logs`` get it."""

from __future__ import annotations

import os
import pathlib
import signal
import threading

import pytest

from runtime.executor.port import CONTROLLER_CLOSED, LogLine, LogOptions, Stream
from tests.integration.executor.conftest import Bench, own, task
from tests.waiting import until


def test_both_streams_line_by_line_with_growing_time_stamps(bench: Bench) -> None:
    controller = bench.started("t", "sh", "-c", "echo out; echo err >&2; printf open")
    bench.do(controller.wait)
    lines = bench.lines(controller)
    assert sorted((line.stream, line.data, line.partial) for line in lines) == [
        (Stream.STDOUT, b"open", True),
        (Stream.STDOUT, b"out\n", False),
        (Stream.STDERR, b"err\n", False),
    ]
    stamps = [line.timestamp_ns for line in lines]
    assert stamps == sorted(set(stamps))


def test_what_a_running_task_has_written_is_read_although_its_keeper_had_not_read_it(
    bench: Bench, tmp_path: pathlib.Path
) -> None:
    go, said = tmp_path / "go", tmp_path / "said"
    script = f"while ! test -e {go}; do sleep 0.01; done; echo one; echo two; echo three; > {said}; exec sleep 60"
    controller = bench.started("t", "sh", "-c", script)
    keeper = bench.keeper()
    os.kill(keeper, signal.SIGSTOP)
    go.touch()
    until(said.exists, "three lines")
    lines: list[bytes] = []
    over = threading.Event()
    controller.logs(LogOptions(tail=-3), lambda line: lines.append(line.data), lambda _: over.set())
    os.kill(keeper, signal.SIGCONT)
    assert over.wait(60)
    assert lines == [b"two\n", b"three\n"]


@pytest.mark.parametrize(
    ("tail", "since", "expected"),
    [(0, 0, "12345"), (2, 0, "345"), (9, 0, ""), (-1, 0, ""), (-3, 0, "45"), (-9, 0, "12345"), (0, 3, "45")],
)
def test_the_tail_and_the_time_since_choose_lines(bench: Bench, tail: int, since: int, expected: str) -> None:
    controller = bench.started("t", "sh", "-c", "for i in 1 2 3 4 5; do echo $i; echo other >&2; done")
    bench.do(controller.wait)
    only = LogOptions(streams=[Stream.STDOUT])
    after = bench.lines(controller, only)[since - 1].timestamp_ns + 1 if since else 0
    lines = bench.lines(controller, LogOptions(streams=[Stream.STDOUT], tail=tail, since_ns=after))
    assert "".join(line.data.decode().strip() for line in lines) == expected


def test_a_long_line_comes_in_pieces_of_16_kib(bench: Bench) -> None:
    controller = bench.started("t", "sh", "-c", "head -c 40000 /dev/zero | tr '\\0' x; echo; echo next")
    bench.do(controller.wait)
    lines = bench.lines(controller)
    assert [(len(line.data), line.partial) for line in lines] == [
        (16384, True), (16384, True), (40000 - 2 * 16384 + 1, False), (5, False),
    ]  # fmt: skip
    assert len(bench.lines(controller, LogOptions(tail=-3))) == 4
    assert [line.data for line in bench.lines(controller, LogOptions(tail=-2))] == [b"next\n"]


def test_rotation_keeps_the_sizes_that_the_service_asked_for(bench: Bench) -> None:
    made = task("t", "sh", "-c", "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done")
    made.spec.log_driver.name = "json-file"
    made.spec.log_driver.options.update({"max-size": "4k", "max-file": "2"})
    controller = bench.started(made)
    bench.do(controller.wait)
    lines = bench.lines(controller)
    assert lines[-1].data == b"line 2999\n"
    assert [line.data for line in lines] == [b"line %d\n" % n for n in range(3000 - len(lines), 3000)]
    assert len(list(pathlib.Path(bench.directory, "logs", own("t")).iterdir())) == 2


def test_a_log_is_followed_until_its_task_ends(bench: Bench, tmp_path: pathlib.Path) -> None:
    flag = tmp_path / "flag"
    controller = bench.started("t", "sh", "-c", f"echo one; while ! test -e {flag}; do sleep 0.01; done; echo two")
    lines: list[LogLine] = []
    over = threading.Event()
    controller.logs(LogOptions(follow=True, tail=-2), lines.append, lambda _: over.set())
    until(lambda: lines, "the first line")
    assert not over.is_set()
    flag.touch()
    assert over.wait(60)
    assert [line.data for line in lines] == [b"one\n", b"two\n"]


def test_a_log_may_be_followed_before_its_task_starts(bench: Bench) -> None:
    controller = bench.controller("t", "sh", "-c", "echo hi")
    bench.do(controller.prepare)
    lines: list[bytes] = []
    over = threading.Event()
    controller.logs(LogOptions(follow=True), lambda line: lines.append(line.data), lambda _: over.set())
    bench.do(controller.start)
    assert over.wait(60)
    assert lines == [b"hi\n"]


def test_a_cancelled_reading_ends_without_another_line(bench: Bench) -> None:
    controller = bench.started("t", "sh", "-c", "while :; do echo x; done")
    lines: list[LogLine] = []
    ends: list[str | None] = []
    counts: list[int] = []
    over = threading.Event()

    def ended(error: str | None) -> None:
        ends.append(error)
        counts.append(len(lines))
        over.set()

    reading = controller.logs(LogOptions(follow=True), lines.append, ended)
    until(lambda: len(lines) > 100, "lines come")
    reading.cancel()
    reading.cancel()
    assert over.wait(60)
    bench.do(controller.terminate)
    assert ends == [None]
    assert counts == [len(lines)]


def test_closing_ends_the_readings_too(bench: Bench) -> None:
    controller = bench.started("t", "sleep", "60")
    ends: list[str | None] = []
    over = threading.Event()
    controller.logs(LogOptions(follow=True), lambda _: None, lambda error: (ends.append(error), over.set()))  # type: ignore[func-returns-value, arg-type]
    bench.do(controller.close)
    assert over.wait(60)
    assert ends == [CONTROLLER_CLOSED]


def test_output_that_somebody_beyond_reach_holds_open_is_ended(bench: Bench) -> None:
    """The exit is told at once; the log ends although the pipe does not."""
    controller = bench.started("t", "sh", "-c", "echo x; env -i setsid sleep 5 & sleep 0.1; exit 0")
    bench.do(controller.wait)
    assert [line.data for line in bench.lines(controller, LogOptions(follow=True))] == [b"x\n"]


def test_with_the_log_driver_none_nothing_is_kept_and_readers_are_told(bench: Bench) -> None:
    made = task("t", "sh", "-c", "echo secret; echo more >&2")
    made.spec.log_driver.name = "none"
    controller = bench.started(made)
    bench.do(controller.wait)
    ends: list[str | None] = []
    controller.logs(LogOptions(), lambda line: pytest.fail(f"{line} was kept"), ends.append)
    assert ends == ["configured logging driver does not support reading"]
    kept = [path for path in pathlib.Path(bench.directory, "logs").rglob("*") if path.is_file()]
    assert not any(b"secret" in path.read_bytes() or b"more" in path.read_bytes() for path in kept)
