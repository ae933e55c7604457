"""top, stats, wait and kill of containers, with the engine's words where they cannot be had."""

from __future__ import annotations

import asyncio
import json
import pathlib
from typing import Any

import aiohttp
import pytest

from runtime.engine_api.routes import inspection
from runtime.errors import Code, Refused
from runtime.executor.inspection import Processes, SendSignal, TakeUsage, Top
from runtime.protocol.agent import Until
from runtime.wire.pb import types_pb2 as types
from tests.unit.engine_api.support import ask, over_http
from tests.unit.engine_api.test_containers import Local

ID = f"{1:064x}"


class Looked(Local):
    """One container, and what is answered about it."""

    def __init__(self, state: Any = types.RUNNING) -> None:
        super().__init__()
        self.only = self.task(1, state)
        self.questions: list[Any] = []
        self.answers: list[Any] = []
        self.untils: list[Until] = []
        self.codes: asyncio.Queue[int] = asyncio.Queue()

    async def look(self, task: Any, question: Any) -> Any:
        assert task.id == self.only.id
        self.questions.append(question)
        found = self.answers.pop(0) if self.answers else None
        if isinstance(found, BaseException):
            raise found
        return found

    async def await_task(self, task: Any, until: Until) -> int:
        self.untils.append(until)
        return await self.codes.get()


def used(read: str = "2026-01-01T00:00:00.000000001Z", total: int = 5) -> dict[str, Any]:
    return {
        "read": read,
        "pids_stats": {"current": 2},
        "cpu_stats": {"cpu_usage": {"total_usage": total}, "online_cpus": 2},
        "memory_stats": {"usage": 7},
        "blkio_stats": {"io_service_bytes_recursive": [{"op": "read", "value": 1}]},
    }


# top


@pytest.mark.parametrize(
    ("query", "arguments"), [("", "-ef"), ("?ps_args=", "-ef"), ("?ps_args=-o%20pid,comm", "-o pid,comm")]
)
def test_top_is_what_ps_says(query: str, arguments: str) -> None:
    backend = Looked()
    backend.answers = [Processes(("PID", "CMD"), (("1", "sh -c x"),))]
    status, found = ask(backend, "GET", f"/containers/{ID}/top{query}")
    assert (status, found) == (200, {"Titles": ["PID", "CMD"], "Processes": [["1", "sh -c x"]]})
    assert backend.questions == [Top(arguments)]


def test_what_ps_refuses_is_an_error_without_a_class() -> None:
    backend = Looked()
    backend.answers = [Refused(Code.UNKNOWN, "ps: error: unknown gnu long option")]
    assert ask(backend, "GET", f"/containers/{ID}/top?ps_args=x") == (500, "ps: error: unknown gnu long option")


@pytest.mark.parametrize("state", [types.PREPARING, types.COMPLETE, types.FAILED])
def test_what_does_not_run_is_a_conflict_before_anybody_is_asked(state: Any) -> None:
    backend = Looked(state)
    assert ask(backend, "GET", f"/containers/{ID}/top") == (409, f"Container {ID} is not running")
    assert backend.questions == []


@pytest.mark.parametrize("code", [Code.FAILED_PRECONDITION, Code.NOT_FOUND])
def test_what_has_ended_since_is_one_too(code: Code) -> None:
    backend = Looked()
    backend.answers = [Refused(code, "gone")]
    assert ask(backend, "GET", f"/containers/{ID}/top") == (409, f"Container {ID} is not running")


def test_a_task_that_cannot_be_looked_at_is_not_implemented() -> None:
    backend = Looked()
    backend.answers = [Refused(Code.UNIMPLEMENTED, "tasks of this kind cannot be looked at")]
    assert ask(backend, "GET", f"/containers/{ID}/top")[0] == 501


@pytest.mark.parametrize(
    "path", ["GET /containers/none/top", "GET /containers/none/stats", "POST /containers/none/wait"]
)
def test_what_is_not_there_is_not_found(path: str) -> None:
    method, _, target = path.partition(" ")
    assert ask(Looked(), method, target) == (404, "No such container: none")


# stats


def test_one_shot_is_one_reading() -> None:
    backend = Looked()
    backend.answers = [used()]
    status, found = ask(backend, "GET", f"/containers/{ID}/stats?stream=false&one-shot=true")
    assert status == 200
    assert (found["read"], found["preread"]) == ("2026-01-01T00:00:00.000000001Z", "0001-01-01T00:00:00Z")
    assert found["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    assert found["pids_stats"] == {"current": 2}
    assert found["blkio_stats"]["io_service_bytes_recursive"] == [{"op": "read", "value": 1}]
    assert found["blkio_stats"]["io_queue_recursive"] == []
    assert (found["id"], found["name"]) == (ID, f"/web.1.{backend.only.id}")
    assert "networks" not in found
    assert backend.questions == [TakeUsage()]


@pytest.mark.parametrize("version", ["", "/v1.40"])
def test_otherwise_there_is_a_reading_before(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "EVERY_S", 0.0)
    backend = Looked()
    backend.answers = [used("a", 5), used("b", 9)]
    query = "?stream=0" if not version else "?stream=0&one-shot=1"  # which is younger than 1.40
    found = ask(backend, "GET", f"{version}/containers/{ID}/stats{query}")[1]
    assert (found["preread"], found["read"]) == ("a", "b")
    assert (found["precpu_stats"]["cpu_usage"]["total_usage"], found["cpu_stats"]["cpu_usage"]["total_usage"]) == (5, 9)


def test_what_does_not_run_uses_nothing_and_says_so_at_once() -> None:
    status, found = ask(Looked(types.COMPLETE), "GET", f"/containers/{ID}/stats?stream=false")
    assert status == 200
    assert found["read"] == "0001-01-01T00:00:00Z"
    assert found["memory_stats"] == found["pids_stats"] == {}
    assert found["blkio_stats"]["io_service_bytes_recursive"] is None


def test_a_stream_of_readings_goes_on_until_the_container_is_gone(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "EVERY_S", 0.0)
    backend = Looked()
    backend.answers = [used("a", 1), used("b", 2), Refused(Code.FAILED_PRECONDITION, "it ended")]
    seen: list[Any] = []

    async def talk(client: aiohttp.ClientSession) -> None:
        async with client.get(f"/containers/{ID}/stats") as answer:
            async for line in answer.content:
                seen.append(json.loads(line))
                if len(seen) == 3:
                    backend.tasks.clear()

    over_http(tmp_path, backend, talk)
    assert [each["read"] for each in seen[:3]] == ["a", "b", "0001-01-01T00:00:00Z"]
    assert [each["preread"] for each in seen[:3]] == ["0001-01-01T00:00:00Z", "a", "b"]


# wait


@pytest.mark.parametrize(
    ("query", "until"),
    [
        ("", Until.NOT_RUNNING),
        ("?condition=not-running", Until.NOT_RUNNING),
        ("?condition=next-exit", Until.NEXT_EXIT),
        ("?condition=removed", Until.REMOVED),
        ("?condition=bogus", Until.NOT_RUNNING),
    ],
)
def test_headers_come_at_once_and_the_exit_code_when_there_is_one(
    query: str, until: Until, tmp_path: pathlib.Path
) -> None:
    backend = Looked()

    async def talk(client: aiohttp.ClientSession) -> None:
        async with client.post(f"/containers/{ID}/wait{query}") as answer:
            assert answer.status == 200
            await backend.codes.put(3)
            assert json.loads(await answer.read()) == {"Error": None, "StatusCode": 3}

    over_http(tmp_path, backend, talk)
    assert backend.untils == [until]


# kill


@pytest.mark.parametrize(
    ("query", "number"), [("", 9), ("?signal=USR1", 10), ("?signal=SIGHUP", 1), ("?signal=15", 15)]
)
def test_a_signal_is_handed_on(query: str, number: int) -> None:
    backend = Looked()
    assert ask(backend, "POST", f"/containers/{ID}/kill{query}") == (204, None)
    assert backend.questions == [SendSignal(number)]


@pytest.mark.parametrize(
    ("target", "signal", "status", "text"),
    [
        (ID, "NOPE", 400, "Invalid signal: NOPE"),
        (ID, "0", 400, "Invalid signal: 0"),
        (ID, "99", 500, f"Cannot kill container: {ID}: The linux daemon does not support signal 99"),
        (ID, "-5", 500, f"Cannot kill container: {ID}: The linux daemon does not support signal 18446744073709551611"),
        ("none", "", 404, "Cannot kill container: none: No such container: none"),
    ],
)
def test_a_signal_that_cannot_be_sent_is_refused_in_the_engines_words(
    target: str, signal: str, status: int, text: str
) -> None:
    backend = Looked()
    assert ask(backend, "POST", f"/containers/{target}/kill?signal={signal}") == (status, text)
    assert backend.questions == []


def test_what_has_ended_cannot_be_killed() -> None:
    text = f"Cannot kill container: {ID}: Container {ID} is not running"
    assert ask(Looked(types.FAILED), "POST", f"/containers/{ID}/kill") == (409, text)
