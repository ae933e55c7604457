"""``swarmlet exec``: which container is meant, what is asked for, and where each stream goes."""

from __future__ import annotations

import io
import json
import os
import pathlib
import socket
import threading
from typing import Any

import pytest

from runtime.engine_api.frames import frame
from swarmlet import engine_link, operate, operate_exec, options
from swarmlet.engine_link import Engine, NoAnswer, Refused
from swarmlet.errors import StartError, UsageError
from swarmlet.operate_exec import NO_END, NO_TERMINAL, body_of, container_of, give, take
from swarmlet.operator_options import OperatorOptions, Where

TYPED: dict[str, Any] = {
    "interactive": False, "tty": False, "user": "me", "workdir": "/x", "env": ["A=b"], "task": "web.1", "words": ["sh"],
}  # fmt: skip


def parsed(*words: str) -> OperatorOptions:
    found = options.parse(["exec", "-H", "unix:///s", *words], {"HOME": "/h"}, 0)
    assert isinstance(found, OperatorOptions)
    return found


def engine(**answers: tuple[int, Any]) -> Engine:
    """An API that knows these paths."""
    known = {"/" + path.replace("__", "/"): answer for path, answer in answers.items()}

    def carry(method: str, target: str, body: bytes) -> tuple[int, bytes]:
        status, value = known.get(target, (404, {"message": f"No such container: {target}"}))
        return status, json.dumps(value).encode()

    return Engine(carry)


# What is typed


def test_all_behind_the_task_is_the_command_also_what_looks_like_a_flag() -> None:
    typed = parsed("-i", "-t", "-e", "A=b", "-e", "C=d", "-u", "me", "web.1", "ls", "-l", "--", "-i").typed
    assert typed["words"] == ["ls", "-l", "--", "-i"]
    assert (typed["interactive"], typed["tty"], typed["env"], typed["user"]) == (True, True, ["A=b", "C=d"], "me")


@pytest.mark.parametrize("words", [[], ["web.1"]])
def test_without_a_command_there_is_nothing_to_do(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parsed(*words)


def test_what_is_asked_for_is_what_was_typed() -> None:
    body = body_of(TYPED)
    assert (body["Cmd"], body["User"], body["WorkingDir"], body["Env"]) == (["sh"], "me", "/x", ["A=b"])
    assert (body["AttachStdin"], body["Tty"], "ConsoleSize" in body) == (False, False, False)
    assert len(body_of({**TYPED, "tty": True})["ConsoleSize"]) == 2


# Which container is meant


def test_a_container_is_meant_first_and_then_a_task_by_its_id() -> None:
    there = engine(
        containers__web__json=(200, {"ID": "x", "Id": "c1"}),
        tasks__t1=(200, {"Status": {"State": "running", "ContainerStatus": {"ContainerID": "c2"}}}),
    )
    assert container_of(there, "web") == "c1"
    assert container_of(there, "t1") == "c2"


def test_a_task_beside_which_nothing_runs_is_said_to_be_none() -> None:
    there = engine(tasks__t1=(200, {"Status": {"State": "pending"}}))
    with pytest.raises(StartError, match="task t1 is pending"):
        container_of(there, "t1")


def test_what_nothing_is_called_is_refused_in_the_words_for_a_container() -> None:
    with pytest.raises(Refused, match="No such container"):
        container_of(engine(), "nothing")
    with pytest.raises(Refused, match="a sentence"):
        container_of(engine(containers__x__json=(503, {"message": "a sentence"})), "x")


# What is said


def test_each_stream_goes_where_it_belongs() -> None:
    said = io.BytesIO(frame(1, b"a") + frame(2, b"b") + frame(1, b"c"))
    out, err = io.BytesIO(), io.BytesIO()
    take(said, False, out, err)
    assert (out.getvalue(), err.getvalue()) == (b"ac", b"b")


def test_of_a_terminal_all_is_one_stream_as_it_comes() -> None:
    out, err = io.BytesIO(), io.BytesIO()
    take(io.BufferedReader(io.BytesIO(b"\x01\x00ab")), True, out, err)  # type: ignore[arg-type]
    assert (out.getvalue(), err.getvalue()) == (b"\x01\x00ab", b"")


@pytest.mark.parametrize("cut", range(1, len(frame(1, b"abc"))))
def test_a_connection_that_breaks_within_a_frame_is_no_end(cut: int) -> None:
    with pytest.raises(StartError, match="lost"):
        take(io.BytesIO(frame(1, b"abc")[:cut]), False, io.BytesIO(), io.BytesIO())


def test_all_that_is_typed_goes_out_and_then_its_end() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    with ours, theirs:
        os.write(writer, b"typed")
        os.close(writer)
        give(reader, ours)
        os.close(reader)
        assert theirs.recv(100) == b"typed"
        assert theirs.recv(100) == b""


# The connection


class Listening:
    """A daemon that answers one request with these bytes, and keeps what it was asked."""

    def __init__(self, path: pathlib.Path, answer: bytes) -> None:
        self.where = Where(socket=str(path))
        self.asked = b""
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(1)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        link, _ = self._socket.accept()
        with link:
            while b"}" not in self.asked:
                self.asked += link.recv(4096)
            link.sendall(self._answer)

    def close(self) -> None:
        self._thread.join(10)
        self._socket.close()


def test_what_comes_behind_the_head_in_one_piece_with_it_is_not_lost(tmp_path: pathlib.Path) -> None:
    head = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    daemon = Listening(tmp_path / "s", head + frame(1, b"said"))
    out = io.BytesIO()
    with engine_link.upgraded(daemon.where, "/exec/1/start", {"Tty": False}) as (_, said):
        take(said, False, out, io.BytesIO())
    daemon.close()
    assert out.getvalue() == b"said"
    assert b"Upgrade: tcp" in daemon.asked


def test_a_daemon_that_does_not_change_over_is_heard(tmp_path: pathlib.Path) -> None:
    body = b'{"message": "not running"}'
    daemon = Listening(tmp_path / "s", b"HTTP/1.1 409 Conflict\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    with (
        pytest.raises(Refused, match="not running"),
        engine_link.upgraded(daemon.where, "/exec/1/start", {}),
    ):
        pass
    daemon.close()
    with pytest.raises(NoAnswer), engine_link.upgraded(Where(socket=str(tmp_path / "none")), "/x", {}):
        pass


@pytest.mark.parametrize(
    ("more", "where", "text"),
    [
        ({"tty": True}, Where(socket="/s"), NO_TERMINAL),
        ({}, Where(host="h", port=2376), NO_END),
    ],
)
def test_what_cannot_be_carried_is_refused_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], where: Where, text: str
) -> None:
    monkeypatch.setattr(operate_exec.sys, "stdin", io.StringIO())
    asked = OperatorOptions("exec", where, {**TYPED, "interactive": True, **more})

    def carry(method: str, target: str, body: bytes) -> tuple[int, bytes]:
        raise AssertionError("nothing is to be asked")

    with pytest.raises(StartError) as caught:
        operate.carry_out(Engine(carry), asked, print)
    assert str(caught.value) == text
