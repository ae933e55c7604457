"""The HTTP server: sockets in, calls to handlers, answers with the headers that every client expects.

Rules:
- One function takes every request; aiohttp's own router, middlewares and signals are not used.
- Every answer, refusals included, carries the API version. A failure is logged with its traceback and answered 500.
- A reading request ends when its client hangs up. A changing one runs to its end, because half of it may be done.
- Stopping closes the sockets and idle connections at once, ends streams, and gives the rest a stated time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from runtime.engine_api import answering, hijack, jsonio, sockets, versions
from runtime.engine_api.call import Answer, Stream, unicode
from runtime.engine_api.errors import ApiError
from runtime.engine_api.pages import Pages, read
from runtime.errors import Refused

if TYPE_CHECKING:
    from runtime.engine_api.backend import Backend

log = logging.getLogger(__name__)

FIELD_SIZE: Final = 64 * 1024
"""Bytes of one header or of the request line: registry credentials and filters can be long."""
CLOSING_S: Final = 0.2
"""How long connections without a request, and requests that were given up, may take to end."""


class EngineServer:
    """The Engine API of one daemon on unix sockets, handed-over sockets and TLS addresses."""

    def __init__(
        self,
        backend: Backend,
        *,
        unix_paths: Sequence[str] = (),
        fds: Sequence[int] = (),
        tls: Sequence[sockets.TlsListener] = (),
        group: str | None = None,
        grace_s: float = 5.0,
        pages: Pages | None = None,
    ) -> None:
        """``grace_s`` is how long running requests may take at a stop; ``group`` may use the unix sockets too;
        ``pages`` are served beside the API."""
        self._pages: Pages = pages or {}
        self._backend = backend
        self._unix_paths = tuple(unix_paths)
        self._fds = tuple(fds)
        self._tls = tuple(tls)
        self._group = group
        self._grace_s = grace_s
        self._headers: dict[str, str] = {}
        self._http: web.Server | None = None
        self._listeners: list[sockets.UnixListener] = []
        self._servers: list[asyncio.Server] = []
        self._running: dict[asyncio.Task[Any], Any] = {}
        self._streaming: set[asyncio.Task[Any]] = set()

    @property
    def addresses(self) -> list[Any]:
        """Where the server listens: paths of unix sockets, (host, port) of TCP ones."""
        return [sock.getsockname() for server in self._servers for sock in server.sockets]

    async def start(self) -> None:
        """Listen on everything or on nothing. Raises ListenError with a sentence that says why not."""
        system = await self._backend.system()
        self._headers = {
            "Api-Version": versions.NEWEST_TEXT,
            "Docker-Experimental": "false",
            "Ostype": system.os_type,
            "Server": f"Docker/{system.server_version} ({system.os_type})",
        }
        self._http = web.Server(
            self._handle,
            request_factory=_request_factory,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            max_line_size=FIELD_SIZE,
            max_field_size=FIELD_SIZE,
        )
        try:
            await self._listen()
        except BaseException:
            await self.stop()
            raise

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        assert self._http is not None
        for path in self._unix_paths:
            listener = await asyncio.to_thread(sockets.listen_unix, path, self._group)
            self._listeners.append(listener)
            self._servers.append(await loop.create_unix_server(self._http, sock=listener.sock))
        for fd in self._fds:
            self._servers.append(await loop.create_server(self._http, sock=sockets.adopt(fd)))
        for tls in self._tls:
            try:
                server = await loop.create_server(self._http, tls.host, tls.port, ssl=tls.context)
            except OSError as error:
                raise sockets.ListenError(f"cannot listen on {tls.host}:{tls.port}: {error}") from error
            self._servers.append(server)

    async def stop(self) -> None:
        """Stop listening, close idle connections, end streams, wait for the rest up to the grace time."""
        for server in self._servers:
            server.close()
        for listener in self._listeners:
            await asyncio.to_thread(listener.remove)
        if self._http is not None:
            self._http.pre_shutdown()
            busy = set(self._running.values())
            for connection in self._http.connections:
                if connection not in busy:
                    # aiohttp stops reading from an idle connection but leaves it open until its own shutdown.
                    connection.force_close()
            await self._finish_running()
            await self._http.shutdown(CLOSING_S)
        self._servers.clear()
        self._listeners.clear()
        self._http = None

    async def _finish_running(self) -> None:
        """End streams at once, let the other requests finish, give up what outlasts the grace time."""
        for task in self._streaming:
            task.cancel()
        if not self._running:
            return
        _, late = await asyncio.wait(self._running, timeout=self._grace_s)
        for task in late:
            task.cancel()
        if late:
            log.warning("%d requests were given up at the stop", len(late))
            await asyncio.wait(late, timeout=CLOSING_S)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; whatever goes wrong becomes an answer too.

        aiohttp runs this in a task that also writes the answer, and cancels it when the client hangs up.
        """
        task = asyncio.current_task()
        assert task is not None
        self._running[task] = request.protocol
        task.add_done_callback(self._running.pop)
        try:
            answer = await self._dispatch(request)
        except (ApiError, Refused) as error:
            answer = answering.refusal(error)
        except Exception as error:
            log.exception("%s %s failed", request.method, request.raw_path.partition("?")[0])
            answer = answering.refusal(error)
        if isinstance(answer, Stream):
            if hijack.wanted(request, answer):
                return await self._hijack(request, answer)
            return await self._stream(request, answer)
        headers = {**self._headers, **answer.headers} if answer.headers else dict(self._headers)
        if answer.content_type:
            headers["Content-Type"] = answer.content_type
        response = web.Response(status=answer.status, body=answer.body, headers=headers)
        if not answer.content_type:
            # aiohttp would name octets where there are none.
            response.headers.popall("Content-Type", None)
        return response

    async def _dispatch(self, request: web.BaseRequest) -> Answer | Stream:
        page = await read(self._pages, request.method, request.raw_path) if self._pages else None
        if page is not None:
            return page
        body = await _body(request) if request.body_exists else b""
        return await answering.dispatch(
            self._backend, request.method, unicode(request.raw_path), body, request.headers.get
        )

    async def _hijack(self, request: web.BaseRequest, stream: Stream) -> web.StreamResponse:
        """The connection carries the stream, both ways, and ends with it."""
        task = asyncio.current_task()
        assert task is not None
        self._streaming.add(task)
        try:
            return await hijack.run(request, stream, self._headers)
        finally:
            self._streaming.discard(task)

    async def _stream(self, request: web.BaseRequest, stream: Stream) -> web.StreamResponse:
        """Send the headers at once and then each piece as it comes, until either side ends."""
        headers = {**self._headers, "Content-Type": stream.content_type}
        response = web.StreamResponse(status=stream.status, headers=headers)
        response.enable_chunked_encoding()
        task = asyncio.current_task()
        assert task is not None
        self._streaming.add(task)
        try:
            async with contextlib.aclosing(stream.pieces) as pieces:
                await response.prepare(request)
                async for piece in pieces:
                    await response.write(piece)
                await response.write_eof()
        except ConnectionError:
            log.debug("the client of a stream is gone")
        finally:
            self._streaming.discard(task)
        return response


def _request_factory(
    message: Any, payload: Any, protocol: Any, writer: Any, task: asyncio.Task[None]
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=jsonio.MAX_BODY)


async def _body(request: web.BaseRequest) -> bytes:
    """The request's body, whole. Raises ApiError 400 if it is too large or breaks off."""
    length = request.content_length
    if length is not None and length > jsonio.MAX_BODY:
        raise jsonio.too_large()
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise jsonio.too_large() from None
    except (HttpProcessingError, web.RequestPayloadError) as error:
        raise ApiError(400, f"the request's body breaks off: {type(error).__name__}") from None
