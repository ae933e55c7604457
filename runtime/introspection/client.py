"""Asks a running node about itself, from another process: one request, one answer or a stream, with a deadline."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import time
from collections.abc import Iterator
from typing import Any, Final

from runtime.introspection import protocol

TIMEOUT_S: Final = 5.0
"""So long a node has for an answer, unless somebody says otherwise."""


class NoAnswer(Exception):
    """Nobody answers at the socket, or not in time, or not in a way that is understood; the text says which."""


def ask(socket_path: str, what: str, /, *, timeout_s: float | None = None, **details: Any) -> Any:
    """The value of the answer to ``what``. Raises NoAnswer, or ValueError with the node's own refusal."""
    with Link(socket_path, timeout_s) as link:
        return link.ask(what, **details)


class Link:
    """A connection to a node's introspection socket. ``ask`` and ``follow`` may be called again and again."""

    def __init__(self, path: str, timeout_s: float | None = None) -> None:
        self._path = path
        self._timeout_s = TIMEOUT_S if timeout_s is None else timeout_s
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(self._timeout_s)
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise self._no_answer(error) from None

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and what the node does for it; a read under way in another thread ends too."""
        with contextlib.suppress(OSError):  # the other side was faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def ask(self, what: str, /, **details: Any) -> Any:
        """One request, one answer."""
        answer = self._exchange({"version": protocol.VERSION, "ask": what, **details})
        if answer.get("ok") is True and "value" in answer:
            return answer["value"]
        if answer.get("ok") is not False or "error" not in answer:
            raise self._stranger()
        raise ValueError(str(answer["error"]))

    def follow(self, what: str, /, **details: Any) -> Iterator[dict[str, Any]]:
        """An answer that goes on: ``{"value": ...}``, ``{"more": ...}`` any number of times, at last ``{"end": ...}``.

        While nothing comes this waits without limit: the node ends a stream by itself.
        """
        yield {"value": self.ask(what, **details)}
        while True:
            piece = self._read(None)
            yield piece
            if "end" in piece:
                return

    def outlast(self, seconds: float) -> None:
        """Waits so long with the connection open. NoAnswer as soon as the node hangs up: what was begun has ended."""
        deadline = time.monotonic() + seconds
        try:
            self._bytes(1, deadline)
        except TimeoutError:
            return
        except OSError as error:
            raise self._no_answer(error) from None

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + self._timeout_s
        try:
            self._socket.sendall(protocol.encode(request))
        except (BrokenPipeError, ConnectionResetError):
            # A node that refuses a connection says why and hangs up unasked: its words are here.
            return self._read(deadline)
        except OSError as error:
            raise self._no_answer(error) from None
        return self._read(deadline)

    def _read(self, deadline: float | None) -> dict[str, Any]:
        try:
            length = protocol.frame_length(self._bytes(protocol.HEAD.size, deadline), protocol.ANSWER_MAX)
            return protocol.decode(self._bytes(length, deadline))
        except protocol.BadRequest:
            raise self._stranger() from None
        except OSError as error:
            raise self._no_answer(error) from None

    def _bytes(self, count: int, deadline: float | None) -> bytes:
        received = bytearray()
        while len(received) < count:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            piece = self._socket.recv(min(1 << 16, count - len(received)))
            if not piece:
                raise NoAnswer(f"{self._path} hung up")
            received += piece
        return bytes(received)

    def _stranger(self) -> NoAnswer:
        return NoAnswer(f"what answers at {self._path} is no node of swarmlet")

    def _no_answer(self, error: OSError) -> NoAnswer:
        path = self._path
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            return NoAnswer(f"no node answers at {path}: {_why_nobody(path)}")
        if isinstance(error, PermissionError):
            return NoAnswer(f"{path} belongs to another user: the socket is its owner's alone")
        if isinstance(error, TimeoutError):
            return NoAnswer(f"no answer from {path} within {self._timeout_s:g} s")
        return NoAnswer(f"cannot ask {path}: {error.strerror or error}")


def _why_nobody(path: str) -> str:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return "is it running, and is this its socket?"
    return "whoever made this socket has ended" if stat.S_ISSOCK(mode) else "it is no socket"
