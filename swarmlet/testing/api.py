"""Clients of the Engine API for tests: one in the same process and in virtual time, one over a unix socket.

Both send what ``docker`` would send and get what it would get: the routes, the JSON and the refusals are the daemon's.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from runtime.engine_api import answering
from runtime.engine_api.backend import Backend
from runtime.engine_api.call import Answer, Stream
from runtime.engine_api.errors import ApiError
from runtime.errors import Refused
from swarmlet.testing.loop import VirtualLoop
from swarmlet.unix_http import UnixConnection

WAIT_S = 60.0


class RequestRefused(AssertionError):
    """The API said no: the status and its sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. ``value`` is its JSON, or raises RequestRefused if the status says that it is none."""

    status: int
    body: bytes

    @property
    def value(self) -> Any:
        if self.status >= 400:
            raise RequestRefused(self.status, self.message)
        return json.loads(self.body) if self.body else None

    @property
    def message(self) -> str:
        """The sentence of a refusal."""
        try:
            return str(json.loads(self.body)["message"])
        except (ValueError, KeyError, TypeError):
            return self.body.decode("utf-8", "replace").strip()


class Carrier(Protocol):
    """How a request gets to a daemon. ``during`` bounds the seconds for which a stream is read."""

    def __call__(self, method: str, path: str, body: bytes, headers: Mapping[str, str], during: float) -> Response: ...


class Api:
    """The Engine API of one node: ``api.get("/services").value``."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        during: float = WAIT_S,
    ) -> Response:
        """One request; ``body`` is sent as JSON. A stream is read to its end, or for ``during`` seconds."""
        data = b"" if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} if data else {}
        return self._carrier(method, path, data, {**sent, **(headers or {})}, during)

    def get(self, path: str, during: float = WAIT_S) -> Response:
        """``GET``."""
        return self.request("GET", path, during=during)

    def post(self, path: str, body: Any = None) -> Response:
        """``POST`` of a JSON body."""
        return self.request("POST", path, body)

    def delete(self, path: str) -> Response:
        """``DELETE``."""
        return self.request("DELETE", path)


class InProcess:
    """Carries requests to the routes over a backend, in virtual time and without a socket."""

    def __init__(self, loop: VirtualLoop, backend: Backend) -> None:
        self._loop = loop
        self._backend = backend

    def __call__(self, method: str, path: str, body: bytes, headers: Mapping[str, str], during: float) -> Response:
        given = {name.lower(): value for name, value in headers.items()}
        return self._loop.run(self._answer(method, path, body, given, during), max(WAIT_S, during) + 1.0)

    async def _answer(self, method: str, path: str, body: bytes, headers: Mapping[str, str], during: float) -> Response:
        answer: Answer | Stream
        try:
            answer = await answering.dispatch(self._backend, method, path, body, lambda name: headers.get(name.lower()))
        except (ApiError, Refused) as error:
            answer = answering.refusal(error)
        if isinstance(answer, Answer):
            return Response(answer.status, answer.body)
        return Response(answer.status, b"".join(await self._read(answer, during)))

    async def _read(self, stream: Stream, during: float) -> list[bytes]:
        read: list[bytes] = []

        async def take() -> None:
            async with contextlib.aclosing(stream.pieces) as pieces:
                async for piece in pieces:
                    read.append(piece)

        task = self._loop.create_task(take())
        end = self._loop.call_later(during, task.cancel)
        await asyncio.wait({task})
        end.cancel()
        if not task.cancelled():
            task.result()
        return read


class OverSocket:
    """Carries requests over a unix socket; each has a connection of its own."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, method: str, path: str, body: bytes, headers: Mapping[str, str], during: float) -> Response:
        connection = UnixConnection(self._path, WAIT_S)
        try:
            connection.request(method, path, body or None, dict(headers))
            answer = connection.getresponse()
            return Response(answer.status, self._read(connection, answer, during))
        finally:
            connection.close()

    def _read(self, connection: UnixConnection, answer: http.client.HTTPResponse, during: float) -> bytes:
        read, deadline = b"", time.monotonic() + during
        while (left := deadline - time.monotonic()) > 0:
            connection.sock.settimeout(left)
            try:
                piece = answer.read1(65536)
            except TimeoutError:
                break
            if not piece:
                break
            read += piece
        return read
