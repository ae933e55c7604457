"""The Engine API as the console asks it: JSON over a unix socket, and its two streams (events, logs)."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import urllib.parse
from collections.abc import Iterator
from typing import Any, Final

from swarmlet.unix_http import UnixConnection

TIMEOUT_S: Final = 5.0
VERSION: Final = "v1.45"
_FRAME: Final = struct.Struct(">B3xI")
_STREAMS: Final = {2: "!"}
"""What a line of this stream is marked with."""


class EngineError(Exception):
    """The API cannot be asked, or refused; the text is for people."""


class EngineRefused(EngineError):
    """The API answered, with a refusal in the daemon's own words."""


class Engine:
    """One node's API at a unix socket. Any thread may use it; each call has a connection of its own."""

    def __init__(self, path: str) -> None:
        self.path = path

    def get(self, path: str, **query: Any) -> Any:
        """The decoded answer. EngineRefused with the daemon's own words, EngineError if there is no answer."""
        connection, response = self._request(path, query, TIMEOUT_S)
        with connection:
            try:
                return json.loads(response.read())
            except (OSError, ValueError, http.client.HTTPException) as error:
                raise EngineError(f"{path}: {error}") from None

    def events(self) -> Stream:
        """What happens to the swarm from now on, one event an item."""
        return Stream(*self._request("/events", {}, None), _lines)

    def logs(self, name: str, kind: str = "services") -> Stream:
        """The last lines of a service's tasks (or of one, if ``kind`` is tasks) and those to come, one line an item."""
        query = {"follow": 1, "stdout": 1, "stderr": 1, "tail": 200, "details": 1}
        return Stream(*self._request(f"/{kind}/{urllib.parse.quote(name, safe='')}/logs", query, None), _frames)

    def _request(
        self, path: str, query: dict[str, Any], timeout: float | None
    ) -> tuple[_Closing, http.client.HTTPResponse]:
        connection = UnixConnection(self.path, TIMEOUT_S)
        target = f"/{VERSION}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        try:
            connection.request("GET", target)
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise EngineRefused(_refusal(response.read(), response.status))
            connection.sock.settimeout(timeout)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise EngineError(f"no answer from {self.path}: {error}") from None
        except EngineError:
            connection.close()
            raise
        return _Closing(connection), response


class _Closing:
    """A connection that can be closed from another thread than the one that reads."""

    def __init__(self, connection: UnixConnection) -> None:
        self._connection = connection
        self._sock = connection.sock

    def __enter__(self) -> _Closing:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended by itself
        finally:
            self._connection.close()


class Stream:
    """An answer that goes on: iterate in one thread, ``close`` from any."""

    def __init__(self, connection: _Closing, response: http.client.HTTPResponse, read: Any) -> None:
        self._connection = connection
        self._items: Iterator[Any] = read(response)

    def __iter__(self) -> Iterator[Any]:
        """Items until the other side or ``close`` ends it."""
        try:
            yield from self._items
        except (OSError, ValueError, http.client.HTTPException, AttributeError):
            return  # closed: HTTPResponse has no other way to say so to a read under way

    def close(self) -> None:
        """Ends the stream."""
        self._connection.close()


def _refusal(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, LookupError, TypeError):
        return f"status {status}"


def _lines(response: http.client.HTTPResponse) -> Iterator[Any]:
    while line := response.readline():
        if line.strip():
            yield json.loads(line)


def _frames(response: http.client.HTTPResponse) -> Iterator[str]:
    """Lines as ``task id`` and text: who said it comes first in the details."""
    while len(head := _exactly(response, _FRAME.size)) == _FRAME.size:
        stream, length = _FRAME.unpack(head)
        payload = _exactly(response, length).decode("utf-8", "replace").rstrip("\r\n")
        details, _, text = payload.partition(" ")
        told = dict(urllib.parse.parse_qsl(details.replace(",", "&")))
        task = told.get("com.docker.swarm.task.id", "")[:12]
        yield f"{task:12} {_STREAMS.get(stream, '|')} {text}"


def _exactly(response: http.client.HTTPResponse, count: int) -> bytes:
    received = b""
    while len(received) < count and (piece := response.read(count - len(received))):
        received += piece
    return received
