"""A container engine's HTTP API over its unix socket: requests, answers, streams.

Rules owned here: the version spoken is the engine's, but none newer than ours; an engine that cannot be reached, that
says nothing for a while or breaks off an answer is ``EngineUnavailable`` (the same may succeed later), an answer of
refusal ``EngineRefused`` with the engine's own words (304, ``not modified``, is one too). Runs on one asyncio loop.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import aiohttp

NEWEST: Final = (1, 47)
OLDEST: Final = (1, 40)
CONNECT_S: Final = 5.0
ANSWER_S: Final = 60.0
ERROR_BYTES: Final = 1 << 20

Query = Mapping[str, str]


class EngineUnavailable(Exception):
    """The engine did not answer; what was asked may have been done."""


class EngineRefused(Exception):
    """The engine's refusal: its HTTP status and its words."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text

    def __str__(self) -> str:
        return self.text


class EngineClient:
    """``path`` is the engine's socket. ``answer_s``: seconds that an ordinary answer may take."""

    def __init__(self, path: str, *, answer_s: float = ANSWER_S) -> None:
        self.path = path
        self._answer_s = answer_s
        self._session: aiohttp.ClientSession | None = None
        self._version = ""
        self._closed = False

    async def close(self) -> None:
        """Ends all connections; what is under way is broken off."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def ping(self) -> Mapping[str, str]:
        """The engine's answer to ``/_ping``; settles which version is spoken. EngineRefused if none is common."""
        async with self._answer("GET", "/_ping", None, None, None, self._answer_s) as response:
            await self._whole(response)
            headers = dict(response.headers)
        self._version = spoken(headers.get("Api-Version", ""))
        return headers

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        seconds: float | None = None,
    ) -> Any:
        """The JSON of an answer, None for an empty one. EngineRefused, EngineUnavailable."""
        where = await self._at(path)
        async with self._answer(method, where, query, body, headers, seconds or self._answer_s) as response:
            content = await self._whole(response)
        try:
            return json.loads(content) if content.strip() else None
        except ValueError:
            raise EngineUnavailable(f"{self.path} answered {method} {path} with what is no JSON") from None

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, *, query: Query | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """An answer piece by piece, as long as it takes; broken off by leaving. EngineRefused, EngineUnavailable."""
        where = await self._at(path)
        async with self._answer(method, where, query, None, headers, None) as response:
            yield self._pieces(response)

    async def hijack(self, path: str, body: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A POST whose answer is a connection for bytes both ways, the caller's to close. EngineRefused,
        EngineUnavailable."""
        where, octets = await self._at(path), json.dumps(body).encode()
        head = [
            f"POST {where} HTTP/1.1", "Host: engine", "Content-Type: application/json", "Connection: Upgrade",
            "Upgrade: tcp", f"Content-Length: {len(octets)}",
        ]  # fmt: skip
        try:
            async with asyncio.timeout(self._answer_s):
                reader, writer = await asyncio.open_unix_connection(self.path)
                try:
                    writer.write("\r\n".join([*head, "", ""]).encode() + octets)
                    await _answered(reader)
                except BaseException:
                    writer.close()
                    raise
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise EngineUnavailable(self._trouble(error)) from error
        return reader, writer

    async def _at(self, path: str) -> str:
        if not self._version:
            await self.ping()
        return f"/v{self._version}{path}"

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: Any,
        headers: Mapping[str, str] | None,
        seconds: float | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        import aiohttp

        try:
            timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_S)
            async with self._open().request(
                method, f"http://engine{path}", params=query, json=body, headers=headers, timeout=timeout,
                allow_redirects=False,
            ) as response:  # fmt: skip
                if response.status >= 300:
                    raise EngineRefused(response.status, words_of(await response.content.read(ERROR_BYTES)))
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._version = ""  # whoever answers next may be another engine
            raise EngineUnavailable(self._trouble(error)) from error

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._closed:
            raise EngineUnavailable("the executor is closed")
        if self._session is None:
            connector = aiohttp.UnixConnector(path=self.path, limit=0)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False, auto_decompress=False)
        return self._session

    def _trouble(self, error: BaseException) -> str:
        if isinstance(error, asyncio.TimeoutError):
            return f"the container engine at {self.path} does not answer"
        reason = getattr(getattr(error, "os_error", None), "strerror", None) or str(error) or type(error).__name__
        return f"Cannot connect to the Docker daemon at unix://{self.path}. Is the docker daemon running? ({reason})"

    async def _whole(self, response: aiohttp.ClientResponse) -> bytes:
        return await response.read()

    async def _pieces(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        async for piece in response.content.iter_any():
            yield piece


async def _answered(reader: asyncio.StreamReader) -> None:
    """Reads the head of an answer that is a connection. EngineRefused for another."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = head.split(" ", 2)[1] if head.startswith("http/1.1 ") else ""
    if status in ("101", "200"):
        return
    found = re.search(r"\r\ncontent-length: *(\d+)\r\n", head)
    body = await reader.readexactly(min(int(found[1]), ERROR_BYTES)) if found else b""
    raise EngineRefused(int(status) if status.isdigit() else 500, words_of(body))


def spoken(offered: str) -> str:
    """The version to speak with an engine that offers one. EngineRefused for an engine that is too old."""
    major, _, minor = offered.partition(".")
    if not (major.isdigit() and minor.isdigit()):
        raise EngineRefused(400, f"what listens there is no container engine: it offers API version {offered!r}")
    version = min((int(major), int(minor)), NEWEST)
    if version < OLDEST:
        raise EngineRefused(400, f"the container engine is too old: it offers API version {offered}, not 1.40 or newer")
    return f"{version[0]}.{version[1]}"


def words_of(body: bytes) -> str:
    """What an answer of refusal says: its message, else its text."""
    try:
        found = json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace").strip() or "the container engine gave no reason"
    message = found.get("message") or found.get("cause") if isinstance(found, dict) else None
    return str(message or found)


async def lines_of(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines of a stream, without their ends; what follows the last end comes too."""
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.strip():
                yield line
    if rest.strip():
        yield rest
