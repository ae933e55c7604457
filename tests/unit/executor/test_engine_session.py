"""Commands beside containers: the client of an engine's exec, held against the Engine API that we serve ourselves."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from runtime.executor import engine_session
from runtime.executor.engine_client import EngineClient, EngineRefused, EngineUnavailable
from runtime.executor.engine_session import EngineSession, begin
from runtime.executor.inspection import NotBegun, RunCommand
from runtime.wire.pb import types_pb2 as types
from tests.unit.engine_api.support import serving
from tests.unit.engine_api.test_execs import ID, FakeSession, Running, ends, turned


class Heard:
    """What is heard of a command."""

    def __init__(self) -> None:
        self.said: list[tuple[int, bytes]] = []
        self.codes: list[int | None] = []
        self.over = asyncio.Event()

    def question(self, *argv: str, **how: Any) -> RunCommand:
        return RunCommand(
            argv or ("x",), on_output=lambda stream, data: self.said.append((stream, data)), on_exit=self._exit, **how
        )

    def _exit(self, code: int | None) -> None:
        self.codes.append(code)
        self.over.set()


Talk = Callable[[EngineClient, Heard], Awaitable[None]]


def with_engine(tmp_path: pathlib.Path, backend: Running, talk: Talk) -> None:
    async def run() -> None:
        async with serving(backend, tmp_path):
            client = EngineClient(str(tmp_path / "api.sock"))
            try:
                async with asyncio.timeout(60):
                    await talk(client, Heard())
            finally:
                await client.close()

    asyncio.run(run())


async def begun(client: EngineClient, question: RunCommand) -> EngineSession:
    session = await begin(client, ID, question)
    assert isinstance(session, EngineSession)
    return session


def test_what_a_command_is_to_have_and_what_it_says_pass_through(tmp_path: pathlib.Path) -> None:
    backend = Running()
    backend.plays(ends(3, b"out", b"err"))

    async def talk(client: EngineClient, heard: Heard) -> None:
        question = heard.question("sh", "-c", "x", env=("A=b",), directory="/x", user="u")
        session = await begun(client, question)
        await heard.over.wait()
        assert session.pid == 77
        assert heard.said == [(1, b"out"), (2, b"err")]
        assert heard.codes == [3]

    with_engine(tmp_path, backend, talk)
    (asked,) = backend.looks
    assert (asked.argv, asked.env, asked.directory, asked.user) == (("sh", "-c", "x"), ("A=b",), "/x", "u")


@pytest.mark.parametrize("tty", [False, True])
def test_input_goes_in_and_its_end_too(tmp_path: pathlib.Path, tty: bool) -> None:
    backend = Running()

    def echo(session: FakeSession) -> None:
        if session.input_ended or (tty and b"".join(session.written).endswith(b"!")):
            session.question.on_output(1, b"".join(session.written))
            session.question.on_exit(0)

    backend.plays(echo)

    async def talk(client: EngineClient, heard: Heard) -> None:
        session = await begun(client, heard.question(stdin=True, tty=tty, size=(5, 6)))
        taken = asyncio.Event()
        session.write(b"one ", lambda: None)
        session.write(b"two!", taken.set)
        await taken.wait()
        session.end_input()
        await heard.over.wait()
        assert b"".join(data for _, data in heard.said) == b"one two!"
        session.write(b"late", taken.set)

    with_engine(tmp_path, backend, talk)
    (session,) = backend.sessions
    assert session.question.tty is tty
    assert session.sizes == [(5, 6)]


def test_a_terminal_changes_its_size(tmp_path: pathlib.Path) -> None:
    backend = Running()
    backend.plays()

    async def talk(client: EngineClient, heard: Heard) -> None:
        session = await begun(client, heard.question(tty=True, stdin=True))
        session.resize(7, 8)
        await turned(lambda: bool(backend.sessions[0].sizes))
        backend.sessions[0].question.on_exit(0)
        await heard.over.wait()

    with_engine(tmp_path, backend, talk)
    assert backend.sessions[0].sizes == [(7, 8)]


def test_one_that_nobody_listens_to_is_looked_at_until_it_ends(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_session, "LOOK_S", 0.0)
    backend = Running()
    backend.plays()

    async def talk(client: EngineClient, heard: Heard) -> None:
        await begun(client, heard.question(output=False))
        backend.sessions[0].question.on_exit(9)
        await heard.over.wait()
        assert heard.codes == [9]
        assert heard.said == []

    with_engine(tmp_path, backend, talk)


@pytest.mark.parametrize("output", [False, True])
def test_one_that_cannot_begin_says_why(tmp_path: pathlib.Path, output: bool) -> None:
    """Detached by the answer's status, attached by what it says, as engines do."""
    backend = Running()
    backend.answers.append(NotBegun("exec failed: no", 127))

    async def talk(client: EngineClient, heard: Heard) -> None:
        found = await begin(client, ID, heard.question(output=output))
        if not output:
            assert found == NotBegun("exec failed: no", 126)
            return
        await heard.over.wait()
        assert heard.said == [(1, b"exec failed: no\r\n")]
        assert heard.codes == [127]

    with_engine(tmp_path, backend, talk)


def test_what_the_engine_refuses_is_its_refusal(tmp_path: pathlib.Path) -> None:
    async def talk(client: EngineClient, heard: Heard) -> None:
        with pytest.raises(EngineRefused) as refused:
            await begin(client, ID, heard.question())
        assert (refused.value.status, refused.value.text) == (409, f"Container {ID} is not running")
        with pytest.raises(EngineRefused) as missing:
            await client.hijack("/exec/nope/start", {})
        assert (missing.value.status, missing.value.text) == (404, "No such exec instance: nope")

    with_engine(tmp_path, Running(types.FAILED), talk)


def test_an_engine_that_is_not_there_is_unavailable(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        client = EngineClient(str(tmp_path / "none.sock"))
        with pytest.raises(EngineUnavailable):
            await begin(client, ID, RunCommand(("x",)))
        await client.close()

    asyncio.run(run())


def test_an_engine_that_breaks_off_leaves_the_exit_code_unknown(tmp_path: pathlib.Path) -> None:
    backend = Running()
    backend.plays()

    async def run() -> None:
        heard = Heard()
        client = EngineClient(str(tmp_path / "api.sock"))
        async with serving(backend, tmp_path):
            session = await begun(client, heard.question(stdin=True))
        async with asyncio.timeout(60):
            await heard.over.wait()
        assert heard.codes == [None]
        session.close()
        await client.close()

    asyncio.run(run())


def test_a_held_command_says_nothing_until_it_is_let_go(tmp_path: pathlib.Path) -> None:
    backend = Running()
    backend.plays()

    async def talk(client: EngineClient, heard: Heard) -> None:
        session = await begun(client, heard.question())
        session.hold(True)
        played = backend.sessions[0].question
        played.on_output(1, b"one")  # whoever reads already reads on
        played.on_output(1, b"two")
        for _ in range(200):
            await asyncio.sleep(0)
        assert (1, b"two") not in heard.said
        session.hold(False)
        played.on_exit(0)
        await heard.over.wait()
        assert heard.said == [(1, b"one"), (1, b"two")]

    with_engine(tmp_path, backend, talk)
