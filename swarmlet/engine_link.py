"""The Engine API as the commands for operators ask it: over a unix socket or TCP with TLS, of swarmlet and of dockerd.

Rules it owns: what is changed is read anew and tried again when somebody else changed it in between (``update out of
sequence``), so no change of others is lost; no body of a request is ever part of an error.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import IO, Any, Final, Protocol

from swarmlet.errors import StartError
from swarmlet.operator_options import Where
from swarmlet.unix_http import UnixConnection

TIMEOUT_S: Final = 60.0
ATTEMPTS: Final = 20
REST_S: Final = 0.1
OUT_OF_SEQUENCE: Final = "update out of sequence"
CERTIFICATES: Final = ("ca.pem", "cert.pem", "key.pem")


class Refused(Exception):
    """The daemon said no; its own words."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class NoAnswer(StartError):
    """Nobody answers there."""


class Carrier(Protocol):
    """How a request gets to a daemon: status and body of its answer."""

    def __call__(self, method: str, target: str, body: bytes) -> tuple[int, bytes]: ...


class Engine:
    """One daemon's API. ``clock`` and ``rest`` are how time is told and passed."""

    def __init__(
        self, carrier: Carrier, clock: Callable[[], float] = monotonic, rest: Callable[[float], None] = sleep
    ) -> None:
        self._carrier = carrier
        self.clock = clock
        self.rest = rest

    def get(self, path: str, **query: Any) -> Any:
        """The decoded answer. `Refused` with the daemon's words, NoAnswer if there is none."""
        return self._ask("GET", path, query)

    def post(self, path: str, body: Any, **query: Any) -> Any:
        """As `get`, with a body."""
        return self._ask("POST", path, query, body)

    def delete(self, path: str) -> None:
        """As `get`, of what is to go."""
        self._ask("DELETE", path, {})

    def listed(self, path: str, filters: Mapping[str, str] | None = None, **query: Any) -> list[Any]:
        """A list; each filter has one value."""
        if filters:
            query["filters"] = json.dumps({key: [value] for key, value in filters.items()})
        return list(self.get(path, **query) or [])

    def update(self, kind: str, id: str, change: Callable[[Any], Any]) -> Any:
        """Gives what ``change`` makes of a service, a node, a secret or a config to the daemon as its new spec; None is
        no change. It is asked anew each time that somebody else was quicker. The object as `change` saw it last."""
        for attempt in range(ATTEMPTS):
            found = self.get(f"/{kind}/{quoted(id)}")
            spec = change(found)
            if spec is None:
                return found
            try:
                self.post(f"/{kind}/{quoted(found['ID'])}/update", spec, version=found["Version"]["Index"])
            except Refused as refused:
                if OUT_OF_SEQUENCE not in str(refused):
                    raise
                self.rest(REST_S * (attempt + 1))
            else:
                return found
        raise StartError(f"{id} is changed by others all the time: {ATTEMPTS} attempts were out of sequence")

    def service(self, name: str) -> Any:
        """One service, by name or id."""
        return self.get(f"/services/{quoted(name)}")

    def services(self, **filters: str) -> list[Any]:
        """Services, each with how many tasks it runs and wants."""
        return self.listed("/services", filters, status="true")

    def tasks(self, **filters: str) -> list[Any]:
        """Tasks, also those that ended."""
        return self.listed("/tasks", filters)

    def nodes(self) -> list[Any]:
        """All nodes."""
        return self.listed("/nodes")

    def _ask(self, method: str, path: str, query: Mapping[str, Any], body: Any = None) -> Any:
        target = path + (f"?{urllib.parse.urlencode(query)}" if query else "")
        sent = b"" if body is None else json.dumps(body).encode()
        status, content = self._carrier(method, target, sent)
        if status >= http.client.BAD_REQUEST:
            raise Refused(status, _refusal(content, status))
        try:
            return json.loads(content) if content.strip() else None
        except ValueError:
            raise StartError(f"{path}: the answer is no JSON") from None


def connect(place: Where) -> Engine:
    """The API there; each request has a connection of its own. StartError if its certificates cannot be read."""
    context = _context(place.certificates) if place.host else None

    def carry(method: str, target: str, body: bytes) -> tuple[int, bytes]:
        link = _link(place, context)
        try:
            link.request(method, target, body or None, {"Content-Type": "application/json"})
            answer = link.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"no answer from {place}: {getattr(error, 'strerror', None) or error}") from None
        finally:
            link.close()

    return Engine(carry)


def _link(place: Where, context: ssl.SSLContext | None) -> http.client.HTTPConnection:
    if place.host:
        return http.client.HTTPSConnection(place.host, place.port, timeout=TIMEOUT_S, context=context)
    return UnixConnection(place.socket, TIMEOUT_S)


@contextlib.contextmanager
def upgraded(place: Where, target: str, body: Any) -> Iterator[tuple[socket.socket, IO[bytes]]]:
    """A request whose connection stops being HTTP: the connection to write to, and the file to read from, for whatever
    came behind the answer's head is in that. `Refused`, NoAnswer."""
    link = _link(place, _context(place.certificates) if place.host else None)
    headers = {"Content-Type": "application/json", "Connection": "Upgrade", "Upgrade": "tcp"}
    try:
        try:
            link.request("POST", target, json.dumps(body).encode(), headers)
            answer = link.getresponse()
            if answer.status != http.client.SWITCHING_PROTOCOLS:
                raise Refused(answer.status, _refusal(answer.read(), answer.status))
            link.sock.settimeout(None)
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"no answer from {place}: {getattr(error, 'strerror', None) or error}") from None
        yield link.sock, answer.fp
    finally:
        link.close()


def _context(certificates: Path) -> ssl.SSLContext:
    ca, cert, key = (str(certificates / name) for name in CERTIFICATES)
    try:
        context = ssl.create_default_context(cafile=ca)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # Python 3.13's own: docker takes authorities that say less
        context.load_cert_chain(cert, key)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(CERTIFICATES)
        raise StartError(f"cannot use the certificates in {certificates} ({files}): {error}") from None
    return context


def quoted(text: str) -> str:
    """A name as a part of a path."""
    return urllib.parse.quote(text, safe="")


def _refusal(body: bytes, status: int) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, LookupError, TypeError):
        return f"status {status}"
