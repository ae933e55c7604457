"""A connection that stops being HTTP: bytes both ways until the answer ends, as ``docker exec`` and ``attach`` have it.

Rules: either direction ends alone, so a client that has said all still hears the rest; a slow client is waited for;
when the client is gone, the answer's generator is closed. The connection is of no more use afterwards.
Clients wait for the head of the answer before they say more, as docker's do: what comes in one piece with a request's
body may be lost in the HTTP parser.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import select
import socket
import struct
import termios
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from runtime.engine_api.call import Stream

READ_BYTES: Final = 64 << 10
READ_S: Final = 5.0
READ_LOOK_S: Final = 0.0025
READ_LOOK_MOST_S: Final = 0.05
LOOK_S: Final = 1.0
"""Between looks whether a client that says no more is there still."""


def wanted(request: web.BaseRequest, stream: Stream) -> bool:
    """Whether the client asks for such a connection and the answer can have one."""
    connection = request.headers.get("Connection", "").lower()
    return stream.take is not None and "upgrade" in connection and bool(request.headers.get("Upgrade"))


class Hijacked(web.StreamResponse):
    """Stands for an answer that was given already: aiohttp writes nothing of it."""

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing."""


class _Early:
    """Takes from aiohttp's protocol what has come behind the request."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """Seen again by whoever reads on."""


async def run(request: web.BaseRequest, stream: Stream, headers: Mapping[str, str]) -> Hijacked:
    """Carries the stream to its end."""
    transport, before = request.transport, request.protocol
    response = Hijacked()
    response.force_close()
    if transport is None:
        await stream.pieces.aclose()
        return response
    early = _Early()
    before.set_parser(early)  # type: ignore[arg-type]  # all that is asked of one is here
    reader = asyncio.StreamReader(limit=READ_BYTES)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    with contextlib.suppress(RuntimeError):  # it is reading
        transport.resume_reading()
    reader.feed_data(early.data)
    writer = asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop())
    try:
        writer.write(_head(headers, stream.content_type))
        await _until_read(writer)
        await _both_ways(reader, writer, stream)
    except ConnectionError:
        pass  # the client is gone, and what it asked for ends as it may
    finally:
        transport.set_protocol(before)
        transport.close()
    return response


def _head(headers: Mapping[str, str], content_type: str) -> bytes:
    lines = ["HTTP/1.1 101 UPGRADED", f"Content-Type: {content_type}", "Connection: Upgrade", "Upgrade: tcp"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()


async def _until_read(writer: asyncio.StreamWriter) -> None:
    """Waits a moment for a client on a unix socket to read what was written. Some read the head of an answer through a
    buffer which they then throw away, with everything that came behind the head; on a busy machine they come to it
    late."""
    peer = writer.get_extra_info("socket")
    if peer.family is not socket.AF_UNIX:
        return
    loop = asyncio.get_running_loop()
    limit, pause = loop.time() + READ_S, READ_LOOK_S
    while loop.time() < limit:
        if peer.fileno() < 0 or not struct.unpack("i", fcntl.ioctl(peer.fileno(), termios.TIOCOUTQ, bytes(4)))[0]:
            return
        await asyncio.sleep(pause)
        pause = min(2 * pause, READ_LOOK_MOST_S)


async def _both_ways(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: Stream) -> None:
    """Until all is said, or the client is gone: that it says no more does not mean that."""
    giving, taking = asyncio.ensure_future(_give(writer, stream)), asyncio.ensure_future(_take(reader, stream))
    gone = asyncio.ensure_future(_until_gone(writer, taking))
    try:
        await asyncio.wait((giving, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in (taking, giving, gone):
            each.cancel()
        outcomes = await asyncio.gather(taking, giving, gone, return_exceptions=True)
        await stream.pieces.aclose()
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


async def _take(reader: asyncio.StreamReader, stream: Stream) -> None:
    assert stream.take is not None
    while data := await reader.read(READ_BYTES):
        await stream.take(data)
    await stream.take(b"")


async def _until_gone(writer: asyncio.StreamWriter, taking: asyncio.Future[None]) -> None:
    """Returns when there is no client any more. One that has said all may still listen: what tells the two apart is
    that nobody holds the other end, and that is only seen by looking."""
    closed = asyncio.ensure_future(writer.wait_closed())
    try:
        await asyncio.wait((closed, taking), return_when=asyncio.FIRST_COMPLETED)
        fd = writer.get_extra_info("socket").fileno()
        if fd < 0:
            return
        looking = select.poll()
        looking.register(fd, 0)
        while not closed.done() and not looking.poll(0):
            await asyncio.wait((closed,), timeout=LOOK_S)
    finally:
        closed.cancel()
        await asyncio.gather(closed, return_exceptions=True)


async def _give(writer: asyncio.StreamWriter, stream: Stream) -> None:
    async for piece in stream.pieces:
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
