"""A question to an actor from the server's loop, and its answer in a file that is the owner's alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

from runtime.errors import Refused
from runtime.introspection.protocol import BadRequest
from runtime.stage.address import Address
from runtime.stage.answers import ActorUnavailable, Answer, Reply


async def ask_actor(address: Address, question: Any, deadline_s: float) -> Any:
    """The answer's value; BadRequest with a sentence when it is refused, late, or there is nobody to ask."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[Answer] = loop.create_future()

    def take(answer: Answer) -> None:
        if not arrived.done():
            arrived.set_result(answer)

    def answered(answer: Answer) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(take, answer)

    address.send(question, None, Reply(answered), 0)
    try:
        async with asyncio.timeout(deadline_s):
            answer = await arrived
    except TimeoutError:
        raise BadRequest(f"no answer within {deadline_s:g} s") from None
    if isinstance(answer.error, ActorUnavailable):
        raise BadRequest("this node runs no manager now")
    if isinstance(answer.error, Refused):
        raise BadRequest(answer.error.text)
    return answer.get()


def write_private(path: str, data: bytes) -> None:
    """Makes a file of mode 0600 that is there whole or not at all, and outlasts a power cut. FileExistsError if there
    is one: a backup takes the place of nothing."""
    target = Path(path)
    fd, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.link(name, target)
    finally:
        Path(name).unlink()
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
