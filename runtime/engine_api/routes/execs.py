"""Commands beside a container, and what a container says as it says it.

Rules: what can be refused is refused before the connection stops being HTTP; a command is started once; a client that
leaves an attached command leaves it running, unless it runs at another node: there it ends. Input needs a connection
that is upgraded.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TYPE_CHECKING, Final

from runtime.engine_api import frames
from runtime.engine_api.call import EMPTY, Answer, Call, Stream, answer
from runtime.engine_api.convert import fields, names
from runtime.engine_api.errors import ApiError, bad, plain, status_and_text
from runtime.engine_api.execs import Exec, ExecConfig
from runtime.engine_api.routes import elsewhere, logs
from runtime.engine_api.routes.containers import find
from runtime.engine_api.routes.inspection import look, not_running, reach
from runtime.errors import Refused
from runtime.executor.inspection import NotBegun, RunCommand, Session
from runtime.wire.pb import logs_pb2

if TYPE_CHECKING:
    from runtime.engine_api.jsonio import JsonObject

SIZE_DIGITS: Final = 9
NOT_RUNNABLE: Final = 126
KEYS: Final = frozenset("abcdefghijklmnopqrstuvwxyz@[\\]^_")


async def create(call: Call) -> Answer:
    """``POST /containers/{id}/exec``."""
    body = call.json()
    container = await find(call.backend, call.target)
    config = config_of(body)
    if container.state != "running":
        raise not_running(container)
    if container.remote:
        await reach(call.backend, container)
    return answer({"Id": call.backend.execs.make(container.id, config).id}, 201)


def config_of(body: JsonObject) -> ExecConfig:
    """What is asked for. Raises ApiError for a command that is none, and for what no process here can have."""
    argv = tuple(fields.texts(body, "Cmd", ""))
    if not argv:
        raise bad("No exec command specified")
    if fields.flag(body, "Privileged", ""):
        raise ApiError(501, "running a command with more privileges than its task has is not offered by this daemon")
    keys = fields.text(body, "DetachKeys", "")
    if not _are_keys(keys):
        raise plain(f"Invalid escape keys ({keys}) provided")
    return ExecConfig(
        argv=argv,
        env=tuple(fields.texts(body, "Env", "")),
        directory=fields.text(body, "WorkingDir", ""),
        user=fields.text(body, "User", ""),
        tty=fields.flag(body, names.TERMINAL, ""),
        stdin=fields.flag(body, "AttachStdin", ""),
        stdout=fields.flag(body, "AttachStdout", ""),
        stderr=fields.flag(body, "AttachStderr", ""),
        detach_keys=keys,
        size=_size_in(body),
    )


def _are_keys(text: str) -> bool:
    """``a`` or ``ctrl-a``, with commas between."""
    keys = text.split(",") if text else []
    return all(len(key) == 1 or (key.startswith("ctrl-") and key[5:] in KEYS and len(key) == 6) for key in keys)


def _size_in(body: JsonObject) -> tuple[int, int]:
    """A terminal's rows and columns, if the body has them."""
    size = fields.listing(body, "ConsoleSize", "")
    if len(size) != 2 or not all(isinstance(each, int) and 0 <= each < 1 << 16 for each in size):
        return (0, 0)
    return (int(size[0]), int(size[1]))


def known(call: Call) -> Exec:
    """The instance that is meant. Raises ApiError 404."""
    found = call.backend.execs.get(call.target)
    if found is None:
        raise ApiError(404, f"No such exec instance: {call.target}")
    return found


async def inspect(call: Call) -> Answer:
    """``GET /exec/{id}/json``."""
    return answer(known(call).to_json())


async def start(call: Call) -> Answer | Stream:
    """``POST /exec/{id}/start``: detached, or with what it says as the answer."""
    body, instance = call.json(), known(call)
    container = await find(call.backend, instance.container_id)
    if container.state != "running":
        raise not_running(container)
    instance.claim()

    async def run(question: RunCommand) -> Session | NotBegun:
        begun: Session | NotBegun = await look(call.backend, container, question)
        return begun

    detached = fields.flag(body, "Detach", "")
    instance.ends_with_client = container.remote
    begin = functools.partial(instance.start, call.backend.landing, run, detached, _size_in(body))
    if not detached:
        media_type = logs.MULTIPLEXED if call.version >= (1, 42) and not instance.config.tty else logs.RAW
        return Stream(media_type, attached(instance, begin), take=instance.take)
    refused = await begin()
    if refused is not None:
        raise bad(refused.text)
    return EMPTY


async def attached(instance: Exec, begin: Callable[[], Awaitable[object]]) -> AsyncGenerator[bytes, None]:
    """Starts a command and gives what it says. It begins behind the head of the answer, as the engine's do: clients
    take the head for themselves, and might lose what comes in one piece with it."""
    try:
        await begin()
    except (ApiError, Refused) as error:
        instance.exit_code = NOT_RUNNABLE
        text = f"{status_and_text(error)[1]}\r\n".encode()
        yield text if instance.config.tty else frames.frame(frames.STDOUT, text)
        return
    async with contextlib.aclosing(instance.output()) as pieces:
        async for piece in pieces:
            yield piece


def size_of(call: Call) -> tuple[int, int]:
    """Rows and columns in the query."""
    return _number(call.query("h")), _number(call.query("w"))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= SIZE_DIGITS):
        raise bad(f'strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


async def resize(call: Call) -> Answer:
    """``POST /exec/{id}/resize``."""
    rows, columns = size_of(call)
    instance = known(call)
    if instance.session is None or not instance.running:
        raise ApiError(404, "no such exec")
    instance.session.resize(rows, columns)
    return EMPTY


async def resize_container(call: Call) -> Answer:
    """``POST /containers/{id}/resize``: a task has no terminal, so there is nothing to change."""
    size_of(call)
    container = await find(call.backend, call.target)
    if container.state != "running":
        raise not_running(container)
    return EMPTY


async def attach(call: Call) -> Stream:
    """``POST /containers/{id}/attach``: what it says from now on, has said (``logs``), or both. It takes no input."""
    container = await find(call.backend, call.target)
    streams = [stream for name, stream in STREAMS if call.loose(name)]
    options = logs_pb2.LogSubscriptionOptions(streams=streams, follow=call.loose("stream"))
    options.tail = 0 if call.loose("logs") else -1
    if not streams or not (call.loose("logs") or call.loose("stream")):
        options.streams[:] = [stream for _, stream in STREAMS]
        options.follow, options.tail = False, -1
    lines = elsewhere.lines(call.backend, container, options)
    shown = logs.as_stream(call, lines, container.task.spec.container.tty)
    return Stream(shown.content_type, shown.pieces, take=_no_input)


async def _no_input(data: bytes) -> None:
    """A task has no input; what is sent goes nowhere, as the engine does it."""


STREAMS: Final = (("stdout", logs_pb2.LOG_STREAM_STDOUT), ("stderr", logs_pb2.LOG_STREAM_STDERR))
ROUTES: Final[dict[str, Callable[[Call], Awaitable[Answer | Stream]]]] = {
    "POST /containers/*/exec": create,
    "GET /exec/*/json": inspect,
    "POST /exec/*/start": start,
    "POST /exec/*/resize": resize,
    "POST /containers/*/resize": resize_container,
    "POST /containers/*/attach": attach,
}
