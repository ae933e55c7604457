"""Commands beside containers, and attaching: made, started once, carried over a connection that stops being HTTP."""

from __future__ import annotations

import asyncio
import json
import pathlib
import select
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine_api import execs as room
from runtime.engine_api import hijack
from runtime.engine_api.execs import Exec, ExecConfig, Execs
from runtime.engine_api.frames import frame
from runtime.engine_api.questions import Landing
from runtime.errors import Code, Refused
from runtime.executor.inspection import NotBegun, RunCommand
from runtime.wire.pb import logs_pb2
from runtime.wire.pb import types_pb2 as types
from tests.unit.engine_api.support import ask, serving
from tests.unit.engine_api.test_containers import Local

ID = f"{1:064x}"


class FakeSession:
    """A command that the test plays."""

    pid = 77

    def __init__(self, question: RunCommand) -> None:
        self.question = question
        self.written: list[bytes] = []
        self.sizes: list[tuple[int, int]] = []
        self.held: list[bool] = []
        self.input_ended = self.closed = False
        self.after: Callable[[FakeSession], None] = lambda _: None

    def write(self, data: bytes, done: Callable[[], None]) -> None:
        self.written.append(data)
        done()
        self.after(self)

    def end_input(self) -> None:
        self.input_ended = True
        self.after(self)

    def resize(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))

    def hold(self, held: bool) -> None:
        self.held.append(held)

    def close(self) -> None:
        self.closed = True


class Running(Local):
    """A container, and a command that ends as it is told once it was begun."""

    def __init__(self, state: Any = types.RUNNING) -> None:
        super().__init__()
        self.only = self.task(1, state)
        self.sessions: list[FakeSession] = []

    def plays(self, then: Callable[[FakeSession], None] = lambda _: None) -> None:
        def begin(question: RunCommand) -> FakeSession:
            session = FakeSession(question)
            session.after = then
            self.sessions.append(session)
            then(session)
            return session

        self.answers.append(begin)


def ends(code: int, out: bytes = b"", err: bytes = b"") -> Callable[[FakeSession], None]:
    def then(session: FakeSession) -> None:
        if out:
            session.question.on_output(1, out)
        if err:
            session.question.on_output(2, err)
        session.question.on_exit(code)

    return then


def created(backend: Running, **body: Any) -> str:
    status, found = ask(backend, "POST", f"/containers/{ID}/exec", {"Cmd": ["sh", "-c", "x"], **body})
    assert status == 201, found
    return str(found["Id"])


def inspected(backend: Running, exec_id: str) -> Any:
    status, found = ask(backend, "GET", f"/exec/{exec_id}/json")
    assert status == 200, found
    return found


# Making and looking


def test_a_command_is_made_and_shown_before_it_runs() -> None:
    backend = Running()
    made = created(backend, AttachStdout=True, AttachStdin=True, Tty=True, User="me", DetachKeys="ctrl-x,q")
    assert inspected(backend, made) == {
        "ID": made, "Running": False, "ExitCode": None, "OpenStdin": True, "OpenStderr": False, "OpenStdout": True,
        "ProcessConfig": {
            "tty": True, "entrypoint": "sh", "arguments": ["-c", "x"], "privileged": False, "user": "me",
        },
        "CanRemove": False, "ContainerID": ID, "DetachKeys": "ctrl-x,q", "Pid": 0,
    }  # fmt: skip
    assert len(made) == 64
    assert backend.looks == []


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 400, "No exec command specified"),
        ({"Cmd": []}, 400, "No exec command specified"),
        ({"Cmd": ["x"], "DetachKeys": "nonsense"}, 500, "Invalid escape keys (nonsense) provided"),
        ({"Cmd": ["x"], "DetachKeys": "ctrl-"}, 500, "Invalid escape keys (ctrl-) provided"),
        ({"Cmd": ["x"], "Privileged": True}, 501, "running a command with more privileges"),
    ],
)
def test_what_is_no_command_is_refused(body: dict[str, Any], status: int, text: str) -> None:
    found = ask(Running(), "POST", f"/containers/{ID}/exec", body)
    assert found[0] == status
    assert text in found[1]


def test_nothing_runs_beside_what_does_not_run() -> None:
    refused = (409, f"Container {ID} is not running")
    assert ask(Running(types.COMPLETE), "POST", f"/containers/{ID}/exec", {"Cmd": ["x"]}) == refused
    backend = Running()
    made = created(backend)
    backend.only.status.state = types.FAILED
    assert ask(backend, "POST", f"/exec/{made}/start", {"Detach": True}) == refused
    assert not inspected(backend, made)["Running"]


@pytest.mark.parametrize("path", ["GET /exec/nope/json", "POST /exec/nope/start", "POST /exec/nope/resize?h=1&w=1"])
def test_what_is_not_known_is_not_found(path: str) -> None:
    method, _, target = path.partition(" ")
    assert ask(Running(), method, target, {}) == (404, "No such exec instance: nope")


# Detached


def test_a_detached_command_runs_and_its_exit_code_is_kept() -> None:
    backend = Running()
    made = created(
        backend, AttachStdout=True, AttachStdin=True, Env=["A=b"], WorkingDir="/x", User="u", ConsoleSize=[5, 6]
    )
    backend.plays(ends(3, b"out"))
    assert ask(backend, "POST", f"/exec/{made}/start", {"Detach": True}) == (200, None)
    (question,) = backend.looks
    assert (question.argv, question.env, question.directory, question.user) == (("sh", "-c", "x"), ("A=b",), "/x", "u")
    assert (question.stdin, question.output, question.size) == (False, False, (5, 6))
    assert ask(backend, "GET", f"/containers/{ID}/json")[1]["ExecIDs"] is None
    found = inspected(backend, made)
    assert (found["Running"], found["ExitCode"], found["Pid"]) == (False, 3, 77)
    text = f"Error: Exec command {made} has already run"
    assert ask(backend, "POST", f"/exec/{made}/start", {}) == (409, text)


def test_one_that_runs_is_not_started_again() -> None:
    backend = Running()
    made = created(backend)
    backend.plays()
    assert ask(backend, "POST", f"/exec/{made}/start", {"Detach": True}) == (200, None)
    assert ask(backend, "POST", f"/exec/{made}/start", {})[1] == f"Error: Exec command {made} is already running"
    assert inspected(backend, made)["Running"]
    assert ask(backend, "GET", f"/containers/{ID}/json")[1]["ExecIDs"] == [made]


def test_one_that_cannot_begin_says_why_and_has_an_exit_code() -> None:
    backend = Running()
    made = created(backend)
    backend.answers.append(NotBegun("exec failed: no such file", 127))
    assert ask(backend, "POST", f"/exec/{made}/start", {"Detach": True}) == (400, "exec failed: no such file")
    assert inspected(backend, made)["ExitCode"] == 127


def test_one_that_could_not_be_asked_for_may_be_started_again() -> None:
    backend = Running()
    made = created(backend)
    backend.answers.append(Refused(Code.UNIMPLEMENTED, "not here"))
    assert ask(backend, "POST", f"/exec/{made}/start", {"Detach": True})[0] == 501
    backend.plays(ends(0))
    assert ask(backend, "POST", f"/exec/{made}/start", {"Detach": True})[0] == 200


@pytest.mark.parametrize(("query", "status"), [("h=x&w=1", 400), ("h=1", 400), ("h=10&w=20", 200)])
def test_a_terminals_size_is_handed_on(query: str, status: int) -> None:
    backend = Running()
    made = created(backend, Tty=True)
    backend.plays()
    ask(backend, "POST", f"/exec/{made}/start", {"Detach": True})
    assert ask(backend, "POST", f"/exec/{made}/resize?{query}")[0] == status
    assert backend.sessions[0].sizes == ([(10, 20)] if status == 200 else [])


def test_of_one_that_does_not_run_no_size_can_be_changed() -> None:
    backend = Running()
    assert ask(backend, "POST", f"/exec/{created(backend)}/resize?h=1&w=1") == (404, "no such exec")


def test_a_task_has_no_terminal_to_be_resized() -> None:
    assert ask(Running(), "POST", f"/containers/{ID}/resize?h=1&w=1") == (200, None)
    assert ask(Running(types.FAILED), "POST", f"/containers/{ID}/resize?h=1&w=1")[0] == 409
    assert ask(Running(), "POST", f"/containers/{ID}/resize?h=x&w=1")[0] == 400


# Over a connection


class Pipe:
    """A client that asks for a connection of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, target: str, body: Any = None, *, upgrade: bool = True, more: bytes = b"") -> str:
        octets = json.dumps(body).encode() if body is not None else b""
        head = [
            f"POST {target} HTTP/1.1",
            "Host: x",
            f"Content-Length: {len(octets)}",
            "Content-Type: application/json",
        ]
        head += ["Connection: Upgrade", "Upgrade: tcp"] if upgrade else ["Connection: close"]
        self.writer.write("\r\n".join([*head, "", ""]).encode() + octets + more)
        return (await self.reader.readuntil(b"\r\n\r\n")).decode()


def piped(tmp_path: pathlib.Path, backend: Running, talk: Callable[[Pipe], Awaitable[None]]) -> None:
    async def run() -> None:
        async with serving(backend, tmp_path):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
            async with asyncio.timeout(60):
                await talk(Pipe(reader, writer))
            writer.close()

    asyncio.run(run())


async def turned(condition: Callable[[], bool]) -> None:
    """Some turns of the loop, until it holds."""
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        await asyncio.sleep(0)
        if condition():
            return
    raise AssertionError("it never holds")


def test_what_an_attached_command_says_comes_in_frames_and_then_the_end(tmp_path: pathlib.Path) -> None:
    backend = Running()
    made = created(backend, AttachStdout=True, AttachStderr=True)
    backend.plays(ends(0, b"out", b"err"))

    async def talk(pipe: Pipe) -> None:
        head = await pipe.ask(f"/v1.41/exec/{made}/start", {})
        assert head.startswith("HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n")
        assert "Connection: Upgrade\r\nUpgrade: tcp\r\n" in head
        assert "Api-Version" in head
        assert await pipe.reader.read() == frame(1, b"out") + frame(2, b"err")

    piped(tmp_path, backend, talk)


def test_nothing_comes_in_one_piece_with_the_head(tmp_path: pathlib.Path) -> None:
    """A client that reads the head late, through a buffer of its own, as http.client does."""
    backend = Running()
    made = created(backend, AttachStdout=True)
    backend.plays(ends(0, b"out"))

    def read(peer: socket.socket) -> tuple[bytes, bytes]:
        with peer:
            head = f"POST /exec/{made}/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
            peer.sendall(head.encode())
            select.select([peer], [], [])
            threading.Event().wait(0.5)  # busy with something else
            return peer.recv(1 << 16), peer.recv(1 << 16)

    async def run() -> None:
        async with serving(backend, tmp_path):
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(str(tmp_path / "api.sock"))
            first, second = await asyncio.to_thread(read, peer)
            assert first.endswith(b"\r\n\r\n")
            assert second == frame(1, b"out")

    asyncio.run(run())


def test_only_the_streams_that_were_asked_for_come(tmp_path: pathlib.Path) -> None:
    backend = Running()
    made = created(backend, AttachStderr=True)
    backend.plays(ends(0, b"out", b"err"))

    async def talk(pipe: Pipe) -> None:
        head = await pipe.ask(f"/exec/{made}/start", {})
        assert "application/vnd.docker.multiplexed-stream" in head
        assert await pipe.reader.read() == frame(2, b"err")

    piped(tmp_path, backend, talk)


def test_input_goes_to_the_command_and_its_end_leaves_the_answer_open(tmp_path: pathlib.Path) -> None:
    backend = Running()
    made = created(backend, AttachStdin=True, AttachStdout=True, Tty=True)

    def echo(session: FakeSession) -> None:
        if session.input_ended:
            session.question.on_output(1, b"".join(session.written))
            session.question.on_exit(0)

    backend.plays(echo)

    async def talk(pipe: Pipe) -> None:
        await pipe.ask(f"/exec/{made}/start", {"Tty": True})
        pipe.writer.write(b"early ")
        await pipe.writer.drain()
        pipe.writer.write(b"late")
        pipe.writer.write_eof()
        assert await pipe.reader.read() == b"early late"

    piped(tmp_path, backend, talk)
    assert backend.sessions[0].question.stdin


def test_a_client_that_leaves_ends_the_input_and_the_command_goes_on(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hijack, "LOOK_S", 0.01)
    backend = Running()
    made = created(backend, AttachStdin=True, AttachStdout=True)
    backend.plays()

    async def talk(pipe: Pipe) -> None:
        await pipe.ask(f"/exec/{made}/start", {})
        await turned(lambda: bool(backend.sessions))
        (session,) = backend.sessions
        pipe.writer.transport.abort()
        await turned(lambda: session.input_ended and not backend.execs.get(made)._read)  # type: ignore[union-attr]
        assert not session.closed
        for _ in range(3):
            session.question.on_output(1, b"x" * room.HOLD_BYTES)  # to nobody
        session.question.on_exit(4)
        await turned(lambda: not backend.execs.get(made).running)  # type: ignore[union-attr]

    piped(tmp_path, backend, talk)
    assert inspected(backend, made)["ExitCode"] == 4
    assert True not in backend.sessions[0].held


def test_why_an_attached_command_cannot_begin_is_what_it_says(tmp_path: pathlib.Path) -> None:
    backend = Running()
    made = created(backend, AttachStdout=True)
    backend.answers.append(NotBegun("exec failed: no", 126))

    async def talk(pipe: Pipe) -> None:
        assert "101" in await pipe.ask(f"/exec/{made}/start", {})
        assert await pipe.reader.read() == frame(1, b"exec failed: no\r\n")

    piped(tmp_path, backend, talk)
    assert inspected(backend, made)["ExitCode"] == 126


def test_why_an_attached_command_may_not_be_asked_for_is_what_it_says(tmp_path: pathlib.Path) -> None:
    backend = Running()
    made = created(backend, AttachStdout=True, AttachStdin=True)
    backend.answers.append(Refused(Code.UNIMPLEMENTED, "not here"))

    async def talk(pipe: Pipe) -> None:
        assert "101" in await pipe.ask(f"/exec/{made}/start", {})
        pipe.writer.write(b"for nobody")
        said = await pipe.reader.read()
        assert said[8:].endswith(b"not here\r\n")

    piped(tmp_path, backend, talk)
    found = inspected(backend, made)
    assert (found["Running"], found["ExitCode"]) == (False, 126)  # clients take no code for 0


def test_without_an_upgrade_the_answer_is_a_stream_like_others(tmp_path: pathlib.Path) -> None:
    backend = Running()
    made = created(backend, AttachStdout=True)
    backend.plays(ends(0, b"out"))

    async def talk(pipe: Pipe) -> None:
        head = await pipe.ask(f"/exec/{made}/start", {}, upgrade=False)
        assert "200 OK" in head
        assert frame(1, b"out") in await pipe.reader.read()

    piped(tmp_path, backend, talk)


def test_a_refusal_comes_before_the_connection_stops_being_http(tmp_path: pathlib.Path) -> None:
    async def talk(pipe: Pipe) -> None:
        assert (await pipe.ask("/exec/nope/start", {})).startswith("HTTP/1.1 404")
        assert b"No such exec instance" in await pipe.reader.read(1000)

    piped(tmp_path, Running(), talk)


def test_a_server_that_stops_ends_connections_too(tmp_path: pathlib.Path) -> None:
    backend = Running()
    made = created(backend, AttachStdout=True)
    backend.plays()

    async def run() -> None:
        async with serving(backend, tmp_path):
            pipe = Pipe(*await asyncio.open_unix_connection(str(tmp_path / "api.sock")))
            await pipe.ask(f"/exec/{made}/start", {})
        async with asyncio.timeout(60):
            assert await pipe.reader.read() == b""
        pipe.writer.close()

    asyncio.run(run())


def test_a_slow_client_holds_the_command_until_it_reads_again(tmp_path: pathlib.Path) -> None:
    backend = Running()
    made = created(backend, AttachStdout=True)
    backend.plays()
    piece = b"x" * (64 << 10)

    async def talk(pipe: Pipe) -> None:
        pipe.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await pipe.ask(f"/exec/{made}/start", {})
        await turned(lambda: bool(backend.sessions))
        (session,) = backend.sessions
        sent = 0
        while True not in session.held:
            session.question.on_output(1, piece)
            sent += 1
            await turned(lambda: True)
        session.question.on_exit(0)
        assert len(await pipe.reader.read()) == sent * len(frame(1, piece))

    piped(tmp_path, backend, talk)
    assert backend.sessions[0].held == [True, False]


def test_keys_at_a_terminal_leave_the_command_running(tmp_path: pathlib.Path) -> None:
    backend = Running()
    made = created(backend, AttachStdin=True, AttachStdout=True, Tty=True)
    backend.plays()

    async def talk(pipe: Pipe) -> None:
        await pipe.ask(f"/exec/{made}/start", {"Tty": True})
        pipe.writer.write(b"ls\r\x10")
        await turned(lambda: bool(backend.sessions and backend.sessions[0].written))
        pipe.writer.write(b"\x11more")
        assert await pipe.reader.read() == b""

    piped(tmp_path, backend, talk)
    assert b"".join(backend.sessions[0].written) == b"ls\r"
    assert inspected(backend, made)["Running"]
    assert not backend.sessions[0].closed


@pytest.mark.parametrize(
    ("keys", "pieces", "passed", "left"),
    [
        ("", [b"a\x10\x11b"], b"a", True),
        ("", [b"\x10", b"\x11"], b"", True),
        ("", [b"\x10", b"x", b"\x11"], b"\x10x\x11", False),
        ("", [b"\x10\x10", b"\x11"], b"\x10", True),
        ("ctrl-x,q", [b"\x10\x11", b"\x18q"], b"\x10\x11", True),
        ("a", [b"bca", b"d"], b"bc", True),
        ("ctrl-@,ctrl-_", [b"\0\x1f"], b"", True),
    ],
)
def test_only_the_keys_in_their_order_leave(keys: str, pieces: list[bytes], passed: bytes, left: bool) -> None:
    looking, out = room.DetachKeys(keys), b""
    for piece in pieces:
        given, found = looking.feed(piece)
        out += given
        if found:
            assert left
            break
    else:
        assert not left
    assert out == passed


@given(st.lists(st.binary(max_size=6).map(lambda each: each.replace(b"\x11", b"")), max_size=8))
def test_without_the_last_key_nothing_is_kept_back_but_a_beginning(pieces: list[bytes]) -> None:
    looking = room.DetachKeys("")
    given_on = b"".join(looking.feed(piece)[0] for piece in pieces)
    whole = b"".join(pieces)
    assert whole in (given_on, given_on + b"\x10")


# Attaching


def line(text: bytes) -> logs_pb2.SubscribeLogsMessage:
    return logs_pb2.SubscribeLogsMessage(messages=[logs_pb2.LogMessage(stream=logs_pb2.LOG_STREAM_STDOUT, data=text)])


@pytest.mark.parametrize(
    ("query", "follow", "tail"),
    [
        ("stream=1&stdout=1&stderr=1", True, -1),
        ("logs=1&stdout=1", False, 0),
        ("logs=1&stream=1&stdout=1", True, 0),
        ("", False, -1),
        ("stdout=1", False, -1),
    ],
)
def test_attaching_follows_the_log(tmp_path: pathlib.Path, query: str, follow: bool, tail: int) -> None:
    backend = Running()
    backend.log_batches = [line(b"one\n"), line(b"two\n")]

    async def talk(pipe: Pipe) -> None:
        head = await pipe.ask(f"/v1.41/containers/{ID}/attach?{query}", more=b"input that nobody takes")
        assert head.startswith("HTTP/1.1 101 UPGRADED")
        assert await pipe.reader.read() == frame(1, b"one\n") + frame(1, b"two\n")

    piped(tmp_path, backend, talk)
    ((_, task_id, options),) = backend.did
    assert (task_id, options.follow, options.tail) == (backend.only.id, follow, tail)


def test_what_is_not_there_cannot_be_attached_to() -> None:
    assert ask(Running(), "POST", "/containers/none/attach?stream=1") == (404, "No such container: none")


# The instances


def config() -> ExecConfig:
    return ExecConfig(("x",))


def test_ended_ones_are_forgotten_when_there_are_many_newer_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "KEPT", 3)

    async def run() -> None:
        kept = Execs()
        first, second = kept.make(ID, config()), kept.make(ID, config())
        first.running = True
        newer = [kept.make(ID, config()) for _ in range(4)]
        assert kept.get(first.id) is first, "it runs"
        assert kept.get(second.id) is None
        assert kept.get(newer[-1].id) is newer[-1]

    asyncio.run(run())


def test_all_that_run_end_with_the_daemon() -> None:
    async def run() -> None:
        kept = Execs()
        made: Exec = kept.make(ID, config())
        session = FakeSession(RunCommand(("x",)))

        async def begin(question: RunCommand) -> FakeSession:
            return session

        made.claim()
        await made.start(Landing(asyncio.get_running_loop()), begin, True, (0, 0))
        kept.close()
        assert session.closed
        assert kept.get(made.id) is None

    asyncio.run(run())


def test_secrets_in_its_environment_are_in_no_repr() -> None:
    shown = repr(ExecConfig(("x",), ("KEY=hunter2",))) + repr(RunCommand(("x",), ("KEY=hunter2",)))
    assert "hunter2" not in shown
