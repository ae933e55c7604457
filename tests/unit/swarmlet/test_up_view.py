"""What up shows: lines for what changed, a table that fits, output that cannot steer the terminal."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.wire.pb import types_pb2
from swarmlet.convergence import judge
from swarmlet.up_view import Screen, Snapshot, changes, printable, table, task_line
from tests.unit.swarmlet.objects import service, task

WEB = service()


def test_a_task_is_told_with_its_state_and_its_reason() -> None:
    assert task_line(task(WEB, 1)) == "st_web.1 running"
    assert task_line(task(WEB, 1, message="started")) == "st_web.1 running"
    waiting = task(WEB, 2, types_pb2.PENDING, err="no suitable node", message="pending task scheduling")
    assert task_line(waiting) == "st_web.2 pending: no suitable node"
    assert task_line(task(WEB, 2, types_pb2.PREPARING, message="preparing")) == "st_web.2 preparing: preparing"


def test_an_exit_code_is_told_once() -> None:
    failed = task(WEB, 1, types_pb2.FAILED, err="task: non-zero exit (3)")
    failed.status.container.exit_code = 3
    assert task_line(failed) == "st_web.1 failed: task: non-zero exit (3)"
    failed.status.err = "killed"
    assert task_line(failed) == "st_web.1 failed (exit code 3): killed"


def test_only_what_changed_is_told() -> None:
    first, second = task(WEB, 1), task(WEB, 2, types_pb2.STARTING)
    lines, before = changes({}, [first, second])
    assert lines == ["st_web.1 running", "st_web.2 starting"]
    second.status.state = types_pb2.RUNNING
    lines, before = changes(before, [first, second])
    assert lines == ["st_web.2 running"]
    assert changes(before, [first, second])[0] == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n", "plain"),
        ("tab\tstays\r\n", "tab\tstays"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[H\x1b]0;title\x07x", "0;titlex"),
        ("a\rb\x08c\x00", "abc"),
        ("\x9b31m", "31m"),
        ("ü", "ü"),
    ],
)
def test_output_cannot_steer_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_no_control_character_is_ever_shown(text: str) -> None:
    shown = printable(text)
    assert not any((ord(char) < 32 and char not in "\t\n") or 127 <= ord(char) < 160 for char in shown)


def snapshot(count: int) -> Snapshot:
    web = service(replicas=count)
    tasks = tuple(task(web, slot) for slot in range(1, count + 1))
    return Snapshot(tuple(judge([web], tasks)), tasks)


def test_the_table_shows_services_and_their_tasks() -> None:
    assert table(snapshot(2), 80, 24) == [
        "SERVICE    TASKS  STATE",
        "st_web       2/2  converged",
        "  st_web.1 running",
        "  st_web.2 running",
    ]


def test_the_table_says_why_a_service_has_not_converged() -> None:
    web = service(replicas=1)
    tasks = (task(web, 1, types_pb2.PENDING, err="no suitable node"),)
    shown = table(Snapshot(tuple(judge([web], tasks)), tasks), 80, 24)
    assert shown[1] == "st_web       0/1  0 of 1 tasks run"
    assert shown[2] == "  st_web.1 pending: no suitable node"


@pytest.mark.parametrize(("width", "height"), [(80, 24), (20, 10), (5, 3), (1, 1), (200, 100)])
def test_the_table_fits_the_terminal(width: int, height: int) -> None:
    shown = table(snapshot(50), width, height)
    assert all(len(line) <= max(1, width - 1) for line in shown)
    assert len(shown) <= max(4, int(height * 0.6))


def test_a_pipe_gets_lines_and_no_table() -> None:
    out = io.StringIO()
    screen = Screen(out, live=False)
    screen.say(["one"], ["table"])
    screen.say(["two"])
    assert out.getvalue() == "one\ntwo\n"


def test_a_terminal_gets_the_table_below_the_lines_and_redrawn_only_on_change() -> None:
    out = io.StringIO()
    screen = Screen(out, live=True)
    screen.say(["one"], ["a", "b"])
    assert out.getvalue() == "one\na\nb\n"
    screen.say([], ["a", "b"])
    assert out.getvalue() == "one\na\nb\n"
    screen.say(["two"], ["a", "c"])
    assert out.getvalue() == "one\na\nb\n\x1b[2F\x1b[Jtwo\na\nc\n"
    screen.say(["end"], [])
    screen.say(["after"])
    assert out.getvalue().endswith("\x1b[2F\x1b[Jend\nafter\n")
