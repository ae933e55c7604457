"""Asks a running node about itself, from another process: one request, one answer, with a deadline."""

from __future__ import annotations

import json
import socket
import time
from typing import Any, Final

from runtime.introspection import protocol

TIMEOUT_S: Final = 5.0


class NoAnswer(Exception):
    """Nobody answers at the socket, or not in time, or not in a way that is understood; the text says which."""


def ask(socket_path: str, what: str, /, *, timeout_s: float = TIMEOUT_S, **details: Any) -> Any:
    """The value of the answer to ``what``. Raises NoAnswer, or ValueError with the node's own refusal."""
    path, deadline = socket_path, time.monotonic() + timeout_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        try:
            link.settimeout(timeout_s)
            link.connect(path)
            link.sendall(protocol.encode({"version": protocol.VERSION, "ask": what, **details}))
            line = _line(link, path, deadline)
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoAnswer(f"no node answers at {path}: is it running, and is this its socket?") from None
        except PermissionError:
            raise NoAnswer(f"{path} belongs to another user: the socket is its owner's alone") from None
        except TimeoutError:
            raise NoAnswer(f"no answer from {path} within {timeout_s:g} s") from None
        except OSError as error:
            raise NoAnswer(f"cannot ask {path}: {error.strerror or error}") from None
    try:
        answer = json.loads(line)
        if answer["ok"] is True:
            return answer["value"]
        refusal = str(answer["error"])
    except (ValueError, LookupError, TypeError):
        raise NoAnswer(f"what answers at {path} is no node of swarmlet") from None
    raise ValueError(refusal)


def _line(link: socket.socket, path: str, deadline: float) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        link.settimeout(left)
        piece = link.recv(1 << 16)
        if not piece:
            raise NoAnswer(f"{path} hung up without an answer")
        received += piece
        if len(received) > protocol.ANSWER_MAX:
            raise NoAnswer(f"the answer from {path} has more than {protocol.ANSWER_MAX} bytes")
    return bytes(received)
