"""Looking at what a container of this node does, waiting for its end, sending it a signal.

Rules: what is asked is answered by the executor that runs the task, whichever that is, on whichever node; one that
cannot be looked at is status 501. That a container does not run is said before it is asked, in the engine's words.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from runtime.engine_api import jsonio
from runtime.engine_api.call import JSON_TYPE, Answer, Call, Stream, answer
from runtime.engine_api.convert.stats import stats_to_json
from runtime.engine_api.errors import STATUS_OF_CODE, ApiError, bad, plain
from runtime.engine_api.routes.containers import find
from runtime.errors import Code, Refused
from runtime.executor.inspection import Look, Processes, SendSignal, TakeUsage, Top, Usage
from runtime.executor.signals import signal_number
from runtime.protocol.agent import Until

if TYPE_CHECKING:
    from runtime.engine_api.backend import Backend
    from runtime.engine_api.convert.local import Container

EVERY_S: Final = 1.0
ONE_SHOT_SINCE: Final = (1, 41)
NO_WAIT: Final = "this daemon does not offer to wait for the end of a task of another node: wait at that node"
NO_CONTENT: Final = Answer(204)


def not_running(container: Container) -> ApiError:
    """The engine's refusal."""
    return ApiError(409, f"Container {container.id} is not running")


async def look(backend: Backend, container: Container, question: Look) -> Any:
    """What the executor answers about a container that runs. Raises ApiError 409 if it does not."""
    if container.state != "running":
        raise not_running(container)
    try:
        if container.remote:
            return await backend.look_elsewhere(container.task, question)
        return await backend.look(container.task, question)
    except Refused as refused:
        if refused.code in (Code.FAILED_PRECONDITION, Code.NOT_FOUND):  # it has ended since
            raise not_running(container) from None
        if refused.code is Code.UNKNOWN:
            raise plain(refused.text) from None
        if container.remote:
            raise ApiError(STATUS_OF_CODE.get(refused.code, 500), refused.text) from None
        raise


async def reach(backend: Backend, container: Container) -> None:
    """Returns if commands can be run beside a container of another node. Raises ApiError with what is in the way."""
    try:
        await backend.look_elsewhere(container.task, None)
    except Refused as refused:
        raise ApiError(STATUS_OF_CODE.get(refused.code, 500), refused.text) from None


async def top(call: Call) -> Answer:
    """``GET /containers/{id}/top``."""
    container = await find(call.backend, call.target)
    given = call.query("ps_args")
    found: Processes = await look(call.backend, container, Top(given) if given.strip() else Top())
    return answer({"Processes": [list(row) for row in found.rows], "Titles": list(found.titles)})


async def stats(call: Call) -> Answer | Stream:
    """``GET /containers/{id}/stats``: a document each second, or one (with a second between two readings)."""
    container = await find(call.backend, call.target)
    if call.query("stream") == "" or call.loose("stream"):
        return Stream(JSON_TYPE, documents(call.backend, container))
    first = await usage_of(call.backend, container)
    one_shot = call.loose("one-shot") and call.version >= ONE_SHOT_SINCE
    if one_shot or first is None:
        return answer(stats_to_json(container, first, None))
    await asyncio.sleep(EVERY_S)
    return answer(stats_to_json(container, await usage_of(call.backend, container), first))


async def usage_of(backend: Backend, container: Container) -> Usage | None:
    """What it uses now; None if it does not run."""
    try:
        usage: Usage = await look(backend, container, TakeUsage())
    except ApiError as error:
        if error.status == 409:
            return None
        raise
    return usage


async def documents(backend: Backend, container: Container) -> AsyncGenerator[bytes, None]:
    """As long as there is such a container."""
    before: Usage | None = None
    while True:
        now = await usage_of(backend, container)
        yield jsonio.encode(stats_to_json(container, now, before))
        before = now
        await asyncio.sleep(EVERY_S)
        try:
            container = await find(backend, container.id)
        except ApiError:
            return


async def wait(call: Call) -> Stream:
    """``POST /containers/{id}/wait``; a condition that is none means the first, as it does to the engine."""
    container = await find(call.backend, call.target)
    if container.remote:
        raise ApiError(501, NO_WAIT)
    given = call.query("condition")
    until = Until(given) if given in {each.value for each in Until} else Until.NOT_RUNNING
    return Stream(JSON_TYPE, ended(call.backend, container, until))


async def ended(backend: Backend, container: Container, until: Until) -> AsyncGenerator[bytes, None]:
    """The exit code, once there is one."""
    code = await backend.await_task(container.task, until)
    yield jsonio.encode({"Error": None, "StatusCode": code})


async def kill(call: Call) -> Answer:
    """``POST /containers/{id}/kill``: a signal for the task's first process. That it ends is the swarm's to mend."""
    number = signal_of(call.query("signal"), call.target)
    try:
        container = await find(call.backend, call.target)
        await look(call.backend, container, SendSignal(number))
    except ApiError as error:
        raise ApiError(error.status, f"Cannot kill container: {call.target}: {error.text}") from None
    return NO_CONTENT


def signal_of(text: str, target: str) -> int:
    """The signal that is meant, SIGKILL if none is named."""
    try:
        return signal_number(text or "KILL")
    except ValueError:
        pass
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()) or not digits.strip("0") or len(digits) > 18:
        raise bad(f"Invalid signal: {text}")
    unsigned = int(text) % (1 << 64)
    raise plain(f"Cannot kill container: {target}: The linux daemon does not support signal {unsigned}")


ROUTES: Final[dict[str, Callable[[Call], Awaitable[Answer | Stream]]]] = {
    "GET /containers/*/top": top,
    "GET /containers/*/stats": stats,
    "POST /containers/*/wait": wait,
    "POST /containers/*/kill": kill,
}
