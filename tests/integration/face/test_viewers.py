"""Traces and acts over the introspection socket: what a viewer may begin, and that it ends with the viewer."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runtime.introspection import client, recording
from runtime.introspection.bodies import to_plain
from runtime.introspection.client import Link
from runtime.introspection.server import CONNECTIONS_MAX, IntrospectionServer
from runtime.protocol.manager import LeaderReady
from runtime.stage import Actor, Address, Policy, Stage, handles
from runtime.stage.cell import Life
from runtime.stage.policy import Restart
from runtime.wire.loop import IoLoop
from swarmlet import look, options
from swarmlet.errors import StartError
from tests.integration.face.test_introspection import running, wait
from tests.waiting import until


@dataclass(frozen=True, slots=True)
class Work:
    """Something to do."""

    number: int


class Worker(Actor):
    """Counts what it did in this life."""

    def __init__(self, done: threading.Semaphore) -> None:
        super().__init__()
        self.done = done
        self.count = 0

    def snapshot(self) -> dict[str, Any]:
        return {"count": self.count}

    @handles(Work)
    def work(self, message: Work) -> int:
        self.count += 1
        self.done.release()
        return self.count

    @handles(LeaderReady)
    def by_hand(self, message: LeaderReady) -> None:
        self.done.release()


class Bench:
    def __init__(self, stage: Stage, path: str) -> None:
        self.stage, self.path = stage, path
        self.done = threading.Semaphore(0)
        self.worker: Address = stage.mount("worker", Worker, self.done)
        until(lambda: self.cell().life is Life.RUNNING)

    def tell(self, *numbers: int) -> None:
        for number in numbers:
            self.worker.tell(Work(number))

    def finished(self, count: int = 1, seconds: float = 60.0) -> bool:
        return all(self.done.acquire(timeout=seconds) for _ in range(count))

    def cell(self) -> Any:
        cell = self.worker.resolve()
        assert cell is not None
        return cell

    def act(self, link: Link, act: str, **details: Any) -> Any:
        return link.ask("act", act=act, path="/worker", write=True, **details)


@pytest.fixture(params=[False, True], ids=["", "test-mode"])
def bench(request: pytest.FixtureRequest, short_path: Path) -> Iterator[Bench]:
    path = str(short_path / "i.sock")
    stage = Stage(name="shown")
    with IoLoop("viewers-test") as loop:
        server = IntrospectionServer(stage, path, about={"api": "/a.sock"}, test_mode=request.param)
        wait(loop, server.start())
        yield Bench(stage, path)
        wait(loop, server.stop())
    assert stage.close()


def test_a_trace_goes_on_until_its_number_of_messages(bench: Bench) -> None:
    with Link(bench.path) as link:
        pieces = link.follow("trace", paths=["/worker"], count=5, bodies=True)
        assert next(pieces)["value"]["limits"] == {"count": 5, "rate": 1000, "seconds": 60.0}
        bench.tell(*range(8))
        *batches, end = pieces
    records = [record for batch in batches for record in batch["more"]]
    assert [(each["receiver"], each["type"], each["outcome"]) for each in records] == [("/worker", "Work", "ok")] * 5
    assert records[2]["body"] == to_plain(Work(2))
    assert (end["end"], end["taken"], end["dropped"]) == ("5 messages were traced", 5, 0)
    until(lambda: bench.stage.tracer is None)


def test_a_trace_ends_by_itself_when_nothing_comes(bench: Bench) -> None:
    with Link(bench.path) as link:
        *_, end = link.follow("trace", paths=["/worker"], seconds=0.2)
    assert (end["end"], end["taken"]) == ("0.2 s are over", 0)


def test_a_connection_goes_on_after_a_trace(bench: Bench) -> None:
    with Link(bench.path) as link:
        for number in range(5):
            *_, end = link.follow("trace", paths=["/worker"], seconds=0.05)
            assert end["end"] == "0.05 s are over"
            until(lambda number=number: link.ask("actor", path="/worker")["handled"] == number)  # type: ignore[misc]
            bench.tell(number)
            assert bench.finished()


def test_a_connection_goes_on_after_a_trace_that_was_refused(bench: Bench) -> None:
    with Link(bench.path) as link:
        with pytest.raises(ValueError, match="would trace everything"):
            next(link.follow("trace"))
        assert link.ask("node")["api"] == "/a.sock"


def test_a_trace_ends_with_its_viewer(bench: Bench) -> None:
    link = Link(bench.path)
    next(link.follow("trace", paths=["/worker"]))
    assert bench.stage.tracer is not None
    link.close()
    until(lambda: bench.stage.tracer is None)


def test_a_suspended_actor_handles_nothing_until_its_time_is_over(bench: Bench) -> None:
    with Link(bench.path) as link:
        begun = time.monotonic()
        assert bench.act(link, "suspend", seconds=0.3) == "/worker is suspended for 0.3 s"
        bench.tell(1)
        assert bench.finished()
    assert time.monotonic() - begun > 0.29


def test_a_suspension_ends_with_its_viewer_by_resume_and_by_clear(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.introspection.asks.STATE_DEADLINE_S", 0.5)
    with Link(bench.path) as link:
        bench.act(link, "suspend", seconds=60)
        assert link.ask("actor", path="/worker")["state"] == "suspended"
        bench.tell(1)
        assert not bench.finished(seconds=0.05)
    assert bench.finished(), "by the end of its viewer"
    with Link(bench.path) as link, Link(bench.path) as other:
        bench.act(link, "suspend", seconds=60)
        bench.act(link, "resume")
        bench.tell(2)
        assert bench.finished(), "by resume"
        bench.act(link, "suspend", seconds=60)
        assert other.ask("clear") == {"traces": 0, "undone": 1}
        bench.tell(3)
        assert bench.finished(), "by another viewer's clear"


def test_a_suspension_outlasts_the_time_that_a_viewer_may_be_silent(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Link(bench.path) as link:
        bench.act(link, "suspend", seconds=60)
        monkeypatch.setattr("runtime.introspection.server.IDLE_S", 0.1)
        assert link.ask("node")  # what it may be silent counts from here
        bench.tell(1)
        assert not bench.finished(seconds=0.5)
        bench.act(link, "resume")
        assert bench.finished()


def test_of_several_who_suspend_an_actor_the_last_one_counts(bench: Bench) -> None:
    with Link(bench.path) as first, Link(bench.path) as second:
        bench.act(first, "suspend", seconds=60)
        bench.act(second, "suspend", seconds=60)
        second.close()
        bench.tell(1)
        assert not bench.finished(seconds=0.1), "the first one's goes on"
        with Link(bench.path) as third:
            bench.act(first, "suspend", seconds=60)
            bench.act(third, "suspend", seconds=60)
            bench.act(third, "resume")
            assert bench.finished(), "resume ends both"
            assert third.ask("clear") == {"traces": 0, "undone": 0}


def test_the_off_switch_works_while_all_connections_are_taken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    links = [Link(bench.path) for _ in range(CONNECTIONS_MAX)]
    for link in links:
        bench.act(link, "suspend", seconds=60)
    with pytest.raises(ValueError, match="16 connections are open already"):
        client.ask(bench.path, "tree")
    with monkeypatch.context() as hurry:
        hurry.setattr("runtime.introspection.server.CLEARING_S", 0.1)
        with Link(bench.path) as silent:
            silent.outlast(60)  # somebody who says nothing is told the same unasked
    assert client.ask(bench.path, "clear") == {"traces": 0, "undone": CONNECTIONS_MAX}
    bench.tell(1)
    assert bench.finished()
    for link in links:
        link.close()


class Above(Actor):
    """Has a part whose failures are its own, a part that ends when it fails, and counts its lives."""

    lives = 0

    def started(self) -> None:
        Above.lives += 1
        self.spawn("part", Part, policy=Policy(escalates=(Exception,)))
        self.spawn("once", Part, policy=Policy(restart=Restart.TEMPORARY))


class Part(Actor):
    def started(self) -> None:
        self.spawn("below", Worker, threading.Semaphore(0), policy=Policy(escalates=(Exception,)))


@pytest.mark.parametrize("path", ["/above/part", "/above/part/below"])
def test_what_fails_with_its_parent_is_restarted_with_it(bench: Bench, path: str) -> None:
    above = bench.stage.mount("above", Above)
    running(bench.stage, path, "/above/once")
    begun = Above.lives
    with Link(bench.path) as link:
        said = link.ask("act", act="restart", path=path, write=True)
        assert said == f"/above begins a new life: {path} does not begin alone"
        until(lambda: Above.lives == begun + 1)
        running(bench.stage, path, "/above/once")
        with pytest.raises(ValueError, match="/above/once ends when it fails"):
            link.ask("act", act="restart", path="/above/once", write=True)
    cell = above.resolve()
    assert cell is not None
    assert cell.failures.total == 0


def test_a_command_that_holds_something_ends_when_the_node_does(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class HungUp(Link):
        def outlast(self, seconds: float) -> None:
            self._socket.shutdown(socket.SHUT_RDWR)
            super().outlast(seconds)

    monkeypatch.setattr(look, "Link", HungUp)
    typed = parsed(["actor", "/worker", "--suspend", "60", "--write", "--yes", "--socket", bench.path])
    with pytest.raises(StartError, match="hung up"):
        look.run(typed)
    assert "is suspended for 60 s" in capsys.readouterr().out


def test_a_trace_that_was_cut_off_is_shown_and_saved_as_far_as_it_came(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Cut(Link):
        def follow(self, what: str, /, **details: Any) -> Iterator[dict[str, Any]]:
            for piece in super().follow(what, **details):
                yield piece
                if "more" in piece:
                    raise client.NoAnswer("the node hung up")
                bench.tell(1)

    monkeypatch.setattr(look, "Link", Cut)
    path = tmp_path / "t"
    asked = parsed(["trace", "/worker", "--save", str(path), "--socket", bench.path])
    assert look.run(asked) == 1
    said = capsys.readouterr()
    assert "Work" in said.out
    assert "the trace is cut off: the node hung up" in said.err
    head, records = recording.load(path)
    assert (head["lost"], [each["type"] for each in records]) == (True, ["Work"])


@pytest.mark.parametrize(("place", "because"), [("nowhere/t", "No such file"), ("", "Is a directory")])
def test_a_place_where_no_trace_can_be_saved_is_said_before_the_trace(
    bench: Bench, tmp_path: Path, place: str, because: str
) -> None:
    with pytest.raises(StartError, match=because):
        look.run(parsed(["trace", "/worker", "--save", str(tmp_path / place), "--socket", bench.path]))
    assert bench.stage.tracer is None


def test_an_act_says_what_it_did_as_json_too(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["actor", "/worker", "--suspend", "0.05", "--write", "--yes", "--json", "--socket", bench.path]
    assert look.run(parsed(typed)) == 0
    assert json.loads(capsys.readouterr().out) == {"done": "/worker is suspended for 0.05 s"}


def test_the_command_line_has_the_off_switch(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    with Link(bench.path) as link, Link(bench.path) as viewer:
        bench.act(link, "suspend", seconds=60)
        next(viewer.follow("trace", paths=["/worker"]))
        assert look.run(parsed(["clear", "--socket", bench.path])) == 0
    assert capsys.readouterr().out == "1 traces ended, 1 suspensions and log levels undone\n"


def test_an_actor_is_shown_with_what_it_did_in_a_window(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.tell(1, 2, 3)
    assert bench.finished(3)
    until(lambda: client.ask(bench.path, "actor", path="/worker")["handled"] == 3)
    asked = ["actor", "/worker", "--socket", bench.path]
    assert look.run(parsed([*asked, "--window", "0.01"])) == 0
    shown = capsys.readouterr().out
    assert re.search(r"over \d+ s: 0\.0 messages a second, 0\.0 % of the time busy", shown), shown
    assert "MSG/S" in shown
    assert look.run(parsed([*asked, "--window", "0"])) == 0
    assert "MSG/S" not in capsys.readouterr().out


@pytest.mark.parametrize("command", ["tree", "crashes", "waits"])
def test_an_answer_of_another_version_is_one_sentence(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "ask", lambda *_, **__: [{"something": "else"}])
    with pytest.raises(StartError, match=r"of another version .*--json prints it"):
        look.run(parsed([command, "--socket", "/s"]))
    assert look.run(parsed([command, "--socket", "/s", "--json"])) == 0
    assert "something" in capsys.readouterr().out


def test_a_restart_begins_a_new_life_without_a_failure(bench: Bench) -> None:
    bench.tell(1)
    assert bench.finished()
    with Link(bench.path) as link:
        assert bench.act(link, "restart") == "/worker begins a new life"
        until(lambda: link.ask("actor", path="/worker")["snapshot"] == {"count": 0})
    assert bench.cell().failures.total == 0
    assert bench.cell().life is Life.RUNNING


def test_a_log_level_is_raised_for_a_while_and_with_its_viewer(bench: Bench) -> None:
    logger = logging.getLogger("swarmlet.viewers-test")
    with Link(bench.path) as link:
        link.ask("act", act="log-level", logger=logger.name, level="debug", seconds=60, write=True)
        assert logger.level == logging.DEBUG
    until(lambda: logger.level == logging.NOTSET)
    with Link(bench.path) as link:
        link.ask("act", act="log-level", logger=logger.name, level="debug", seconds=0.1, write=True)
        until(lambda: logger.level == logging.NOTSET)


def test_a_log_level_that_two_viewers_raised_goes_back_when_the_last_of_them_ends(bench: Bench) -> None:
    logger = logging.getLogger("swarmlet.viewers-test")

    def ask(link: Link, level: str) -> None:
        link.ask("act", act="log-level", logger=logger.name, level=level, seconds=60, write=True)

    with Link(bench.path) as second:
        with Link(bench.path) as first:
            ask(first, "info")
            ask(second, "debug")
            ask(first, "warning")
            assert logger.level == logging.WARNING
        until(lambda: logger.level == logging.DEBUG)
    until(lambda: logger.level == logging.NOTSET)


def test_the_command_line_has_a_node_log_more_for_a_while(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("swarmlet.viewers-test")
    typed = ["log-level", "debug", "--logger", logger.name, "--seconds", "60", "--write", "--socket", bench.path]
    levels: list[int] = []
    monkeypatch.setattr(Link, "outlast", lambda link, seconds: levels.append(logger.level))
    monkeypatch.setattr(sys, "stdin", io.StringIO("no\n"))
    assert look.run(parsed(typed)) == 0
    assert levels == []
    assert look.run(parsed([*typed, "--yes"])) == 0
    assert levels == [logging.DEBUG]
    assert "logs at level debug for 60 s" in capsys.readouterr().out
    monkeypatch.undo()
    until(lambda: logger.level == logging.NOTSET)


def parsed(typed: list[str]) -> options.LookOptions:
    found = options.parse(typed, {}, 0)
    assert isinstance(found, options.LookOptions)
    return found


def test_acts_are_logged_with_who_asked(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with Link(bench.path) as link:
        bench.act(link, "restart")
    assert "by hand, from process" in caplog.text
    assert "/worker begins a new life" in caplog.text


def test_a_message_is_sent_by_hand_in_test_mode_only(bench: Bench, request: pytest.FixtureRequest) -> None:
    with Link(bench.path) as link:
        if "test-mode" not in request.node.name:
            with pytest.raises(ValueError, match="in test mode only"):
                bench.act(link, "send", message=to_plain(LeaderReady()))
            return
        assert bench.act(link, "send", message=to_plain(LeaderReady())) == "/worker was told a LeaderReady"
        assert bench.finished()
        with pytest.raises(ValueError, match="this is no message"):
            bench.act(link, "send", message={"$data": "os:system", "fields": {}})


@pytest.mark.parametrize(
    ("details", "because"),
    [
        ({"act": "restart", "path": "/worker"}, "in write mode"),
        ({"act": "fly", "path": "/worker", "write": True}, "nothing is known of the act 'fly'"),
        ({"act": "restart", "write": True}, "names the path of an actor"),
        ({"act": "restart", "path": "/nobody", "write": True}, "nobody lives at '/nobody'"),
        ({"act": "suspend", "path": "/worker", "seconds": 10**6, "write": True}, "at most 600"),
        ({"act": "suspend", "path": "/worker", "seconds": "x", "write": True}, "a number of seconds"),
        ({"act": "log-level", "logger": "root", "level": "debug", "write": True}, "at and below 'swarmlet'"),
        ({"act": "log-level", "level": "loud", "write": True}, "a log level is one of"),
    ],
)
def test_an_act_that_may_not_be_is_refused_and_nothing_is_done(
    bench: Bench, details: dict[str, Any], because: str
) -> None:
    with pytest.raises(ValueError, match=because):
        client.ask(bench.path, "act", **details)
    bench.tell(1)
    assert bench.finished()


def test_who_waits_for_whom_and_where_a_stuck_actor_is(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.introspection.asks.STUCK_S", 0.0)
    monkeypatch.setattr("runtime.introspection.asks.STATE_DEADLINE_S", 0.05)
    go_on = threading.Event()

    class Asker(Actor):
        def __init__(self, other: Address) -> None:
            super().__init__()
            self.other = other

        @handles(str)
        def question(self, message: str) -> None:
            self.ask(self.other, Work(1), lambda answer: None, 30.0)

        @handles(int)
        def stuck(self, message: int) -> None:
            go_on.wait(90)

    with Link(bench.path) as link:
        bench.act(link, "suspend", seconds=60)
        asker = bench.stage.mount("asker", Asker, bench.worker)
        asker.tell("ask")
        until(lambda: link.ask("actor", path="/asker")["waits_for"])
        (waited,) = link.ask("actor", path="/asker")["waits_for"]
        assert (waited["path"], waited["type"], waited["deadline_s"]) == ("/worker", "Work", 30.0)
        assert 0 <= waited["waited_s"] < 30
        asker.tell(7)
        until(lambda: link.ask("actor", path="/asker")["handling"] == "int")
        shown = link.ask("actor", path="/asker")
        go_on.set()
    assert any("in stuck" in frame for frame in shown["stack"])
    assert shown["handling_s"] >= 0


def test_a_socket_that_nobody_is_behind_is_told_from_what_is_none(short_path: Path) -> None:
    left, plain = short_path / "left.sock", short_path / "plain"
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(left))
    plain.touch()
    for path, why in (
        (left, "whoever made this socket has ended"),
        (plain, "it is no socket"),
        (short_path, "it is no socket"),
        (short_path / "none", "is it running, and is this its socket?"),
    ):
        with pytest.raises(client.NoAnswer) as refused:
            client.ask(str(path), "tree")
        assert str(refused.value) == f"no node answers at {path}: {why}"


def test_a_socket_of_somebody_else_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(_self: socket.socket, path: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(client.NoAnswer, match=r"^/i[.]sock belongs to another user: the socket is"):
        client.ask("/i.sock", "tree")
