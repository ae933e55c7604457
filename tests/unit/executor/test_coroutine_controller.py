"""What becomes of the coroutines of a controller: one outcome each, whatever ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from runtime.errors import Code, Refused
from runtime.executor.coroutine_controller import CoroutineController, not_running, why_not_given
from runtime.executor.inspection import Look, Top
from runtime.executor.port import CONTROLLER_CLOSED, Already, Done, Failed, Outcome
from runtime.wire.pb import objects_pb2


class Broken(Exception):
    """What goes wrong with tasks of this kind."""


class Held:
    """A loop whose coroutines end when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Coroutine[Any, Any, Any], Callable[[Any], None]]] = []

    def submit(self, coro: Coroutine[Any, Any, Any], done: Callable[[Any], None] | None = None) -> Callable[[], None]:
        assert done is not None
        self.waiting.append((coro, done))
        return lambda: self.end(coro, asyncio.CancelledError())

    def end(self, coro: Coroutine[Any, Any, Any], result: Any = None) -> None:
        """Runs it, unless it was broken off."""
        for each, done in self.waiting:
            if each is coro:
                self.waiting.remove((each, done))
                if isinstance(result, asyncio.CancelledError):
                    each.close()
                    done(result)
                else:
                    done(_run(each))
                return

    def run(self) -> None:
        """Runs all."""
        while self.waiting:
            self.end(self.waiting[0][0])


def _run(coro: Coroutine[Any, Any, Any]) -> Any:
    try:
        return asyncio.run(coro)
    except Exception as error:
        return error


class Toy(CoroutineController):
    """Each coroutine ends as ``ends`` says, in turn; ``begun`` names them."""

    def __init__(self, loop: Held, *ends: Any) -> None:
        super().__init__(loop)
        self.ends = list(ends)
        self.begun: list[str] = []

    async def _end(self, name: str) -> Any:
        self.begun.append(name)
        end = self.ends.pop(0) if self.ends else Done()
        if isinstance(end, BaseException):
            raise end
        return end

    async def _prepare(self) -> Outcome:
        return await self._end("prepare")  # type: ignore[no-any-return]

    async def _start(self) -> Outcome:
        return await self._end("start")  # type: ignore[no-any-return]

    async def _wait(self) -> Outcome:
        return await self._end("wait")  # type: ignore[no-any-return]

    async def _shutdown(self) -> Outcome:
        return await self._end("shutdown")  # type: ignore[no-any-return]

    async def _terminate(self) -> Outcome:
        return await self._end("terminate")  # type: ignore[no-any-return]

    async def _remove(self) -> Outcome:
        return await self._end("remove")  # type: ignore[no-any-return]

    async def _look(self, question: Look) -> Any:
        return await self._end("look")

    @staticmethod
    def own_failure(error: Any) -> Failed | None:
        return Failed("broken", temporary=True) if isinstance(error, Broken) else None

    @staticmethod
    def own_refusal(error: Any) -> Refused | None:
        return Refused(Code.ABORTED, "broken") if isinstance(error, Broken) else None


def told(*ends: Any) -> list[Any]:
    """What is heard of prepares that end so."""
    loop, heard = Held(), list[Any]()
    toy = Toy(loop, *ends)
    for _ in ends:
        toy.prepare(heard.append)
    loop.run()
    return heard


def test_each_operation_is_its_coroutine() -> None:
    loop, heard = Held(), list[Outcome]()
    toy = Toy(loop)
    toy.update(objects_pb2.Task(), heard.append)
    for operation in (toy.prepare, toy.start, toy.wait, toy.shutdown, toy.terminate, toy.remove):
        operation(heard.append)
    loop.run()
    assert toy.begun == ["prepare", "start", "wait", "shutdown", "terminate", "remove"]
    assert heard == [Done()] * 7


def test_an_outcome_is_told_as_it_is_and_an_exception_as_its_kind_says() -> None:
    assert told(Done(), Already(), Failed("x", 3)) == [Done(), Already(), Failed("x", 3)]
    assert told(Broken(), OSError(5, "x")) == [Failed("broken", temporary=True), Failed("OSError: [Errno 5] x")]


def test_what_is_broken_off_is_cancelled_and_told_once() -> None:
    loop, heard = Held(), list[Outcome]()
    work = Toy(loop).wait(heard.append)
    work.cancel()
    work.cancel()
    assert heard == [Failed("cancelled", cancelled=True)]


def test_closing_breaks_off_what_is_open_and_refuses_what_comes() -> None:
    loop, heard = Held(), list[Any]()
    toy = Toy(loop)
    toy.prepare(heard.append)
    loop.run()
    toy.wait(heard.append)
    toy.close(heard.append)
    toy.start(heard.append)
    toy.look(Top(), heard.append)
    assert heard[:4] == [Done(), Failed(CONTROLLER_CLOSED), Done(), Failed(CONTROLLER_CLOSED)]
    assert (heard[4].code, heard[4].text) == (Code.UNAVAILABLE, CONTROLLER_CLOSED)
    assert toy.closed
    assert not loop.waiting


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (not_running(), Code.FAILED_PRECONDITION), (Broken(), Code.ABORTED), (OSError(5, "x"), Code.UNKNOWN),
        (Failed("away"), Code.UNAVAILABLE),
    ],
)  # fmt: skip
def test_who_looks_hears_a_refusal_where_there_is_no_answer(end: Any, code: Code) -> None:
    loop, heard = Held(), list[Any]()
    toy = Toy(loop, end, {"an": "answer"})
    for _ in range(2):
        toy.look(Top(), heard.append)
    loop.run()
    assert isinstance(heard[0], Refused)
    assert (heard[0].code, heard[1]) == (code, {"an": "answer"})


def test_the_end_of_a_log_is_trouble_only_where_there_was_some() -> None:
    async def log(end: Exception | None) -> None:
        if end is not None:
            raise end

    loop, heard = Held(), list[str | None]()
    toy = Toy(loop)
    toy._read(log(None), heard.append)
    toy._read(log(Broken()), heard.append)
    loop.run()
    toy._read(log(None), heard.append).cancel()
    assert heard == [None, "broken", None]


def test_why_a_task_was_not_given_its_secrets_is_said_for_people() -> None:
    assert why_not_given(Refused(Code.UNKNOWN, "bad template")) == "bad template"
    assert why_not_given(OSError(28, "No space left", "/x")) == "No space left: /x"
    assert why_not_given(KeyError("s1")) == "a secret or config is not on this node: s1"
