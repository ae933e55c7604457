"""Outbound TLS: gRPC's client dials a private unix socket without TLS, and each such connection is spliced to the peer
through Python's ``ssl``.

gRPC's own TLS cannot be used: it refuses peers that answer no ALPN, which SwarmKit's managers stop doing after their
certificate was renewed, and it cannot leave a certificate unverified for the download of the root.

Rules owned here: the newest credentials make each handshake; the peer's certificate must be for the server name, not
for its host; why a connection failed is kept in words until one succeeds, because gRPC only says that it failed.
Proxies of the environment are never used.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable

from cryptography import x509

from runtime.errors import Refused
from runtime.wire.certificates import validity_problem, verify
from runtime.wire.port import Credentials
from runtime.wire.tls import HANDSHAKE_TIMEOUT, PlainEnd, TlsEnd, client_context, presented_chain

CONNECT_TIMEOUT = 10.0

# OpenSSL's verification results that have a name of their own here.
NOT_YET_VALID = 9
EXPIRED = 10
UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})
WRONG_NAME = 62


class Originator:
    """The local socket of one channel. All of it runs on the loop's thread; ``failure`` may be read from anywhere.
    ``joined`` counts the connections that came about, ``connections`` those of them that are there.

    ``host`` and ``port`` name the peer, ``clock`` gives unix seconds for the texts about validity. ``dial_from`` is the
    address of this machine that connections come from; empty: the system's choice.
    """

    def __init__(
        self,
        path: str,
        host: str,
        port: int,
        credentials: Credentials | None,
        *,
        server_name: str | None,
        verify: bool,
        clock: Callable[[], float],
        buffer: memoryview,
        dial_from: str = "",
    ) -> None:
        self.path = path
        self.failure: str | None = None
        self.peer_certificate: bytes | None = None
        self.connections = 0
        self.joined = 0
        self._host = host
        self._port = port
        self._credentials = credentials
        self._server_name = server_name if verify else None
        self._verify = verify
        self._clock = clock
        self._buffer = buffer
        self._local_address = (dial_from, 0) if dial_from else None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: set[TlsEnd] = set()

    async def start(self) -> None:
        """Listens for gRPC's client."""
        self._server = await asyncio.get_running_loop().create_unix_server(self._local, path=self.path)

    async def close(self) -> None:
        """Ends the connections and removes the socket."""
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(FileNotFoundError):  # newer versions of asyncio remove it themselves
                os.unlink(self.path)
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        for end in list(self._ends):
            end.finish()

    def _local(self) -> PlainEnd:
        plain = PlainEnd(self._buffer)
        task = asyncio.get_running_loop().create_task(self._bridge(plain))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return plain

    async def _bridge(self, plain: PlainEnd) -> None:
        """Dials the peer for one local connection and joins the two, or closes it and keeps the reason."""
        try:
            end = await self._dial_believed()
        except (OSError, ssl.SSLError, ValueError) as error:
            self.failure = await self._explain(error)
            plain.finish()
            return
        except asyncio.CancelledError:
            plain.finish()
            raise
        self.peer_certificate = end.tls.getpeercert(binary_form=True)
        if plain.transport is None or plain.transport.is_closing():
            end.finish()
            return
        self.failure = None
        self.joined += 1
        self.connections += 1
        end.join(plain)
        plain.transport.resume_reading()

    async def _dial_believed(self) -> TlsEnd:
        """A connection to somebody who is who he is to be. What OpenSSL does not see through is looked at once more:
        the chain of a dockerd in a root rotation, whose cross-signed root has the name of its signer (``tls``)."""
        try:
            return await self._dial(self._verify, self._server_name)
        except ssl.SSLCertVerificationError as error:
            if error.verify_code not in UNKNOWN_AUTHORITY or self._credentials is None:
                raise
            end = await self._dial(False, self._server_name)
            try:
                roots = self._credentials.material.roots
                verify(presented_chain(end.tls), roots, self._clock(), self._server_name)
            except (Refused, ValueError):
                end.finish()
                raise error from None
            return end

    async def _dial(self, verified: bool, server_name: str | None) -> TlsEnd:
        """A connection with its handshake done; TimeoutError, OSError or ``ssl.SSLError`` otherwise."""
        loop = asyncio.get_running_loop()
        shaken: asyncio.Future[TlsEnd] = loop.create_future()
        material = self._credentials.material if self._credentials is not None else None
        context = client_context(material, verify=verified, check_name=server_name is not None)
        end = TlsEnd(
            context,
            self._buffer,
            server_side=False,
            server_name=server_name,
            ready=lambda end: _settle(shaken, end),
            lost=lambda end, reason: self._lost(end, reason, shaken),
        )
        self._ends.add(end)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                transport, _ = await loop.create_connection(
                    lambda: end, self._host, self._port, local_addr=self._local_address
                )
        except BaseException:
            self._ends.discard(end)
            raise
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return await shaken
        except asyncio.CancelledError:
            transport.abort()
            raise

    def _lost(self, end: TlsEnd, reason: Exception | None, shaken: asyncio.Future[TlsEnd]) -> None:
        """A connection is gone: during the handshake that fails it; soon after, it was the peer that refused."""
        self._ends.discard(end)
        if end.partner is not None:
            self.connections -= 1
        if not shaken.done():
            shaken.set_exception(reason or ConnectionResetError("the peer closed the connection in the handshake"))
        elif not end.heard and end.partner is not None and self._server is not None:
            said = "refused this node's certificate" if isinstance(reason, ssl.SSLError) else "closed the connection"
            self.failure = f"{self._where}: the peer {said} ({_reason(reason)})"

    @property
    def _where(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"connecting to {host}:{self._port}"

    async def _explain(self, error: Exception) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"{self._where}: {await self._explain_certificate(error)}"
        if isinstance(error, TimeoutError):
            return f"{self._where}: timed out after {max(CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT):g} s"
        if isinstance(error, ConnectionRefusedError):
            return f"{self._where}: connection refused"
        return f"{self._where}: {_reason(error)}"

    async def _explain_certificate(self, error: ssl.SSLCertVerificationError) -> str:
        """Why a certificate was not taken. Its bounds are not to be had from a handshake that failed, so it is
        fetched once more without verification; nothing but its bytes is used."""
        await self._fetch_certificate()
        if error.verify_code in UNKNOWN_AUTHORITY:
            return "certificate signed by unknown authority"
        if error.verify_code in (NOT_YET_VALID, EXPIRED) and self.peer_certificate is not None:
            certificate = x509.load_der_x509_certificate(self.peer_certificate)
            problem = validity_problem(certificate, self._clock())
            if problem is not None:
                return problem
        return f"certificate not accepted: {error.verify_message}"

    async def _fetch_certificate(self) -> None:
        try:
            end = await self._dial(False, None)
        except (OSError, ssl.SSLError):
            return
        self.peer_certificate = end.tls.getpeercert(binary_form=True)
        end.finish()


def _settle(future: asyncio.Future[TlsEnd], end: TlsEnd) -> None:
    if not future.done():
        future.set_result(end)


def _reason(error: Exception | None) -> str:
    """An error in words: OpenSSL's reason without its file names, the system's without its number."""
    if error is None:
        return "connection closed"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    if isinstance(error, socket.gaierror):
        return (error.strerror or "no such host").lower()
    if isinstance(error, OSError) and error.errno and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno).lower()  # what asyncio writes beside it repeats the address
    return str(error) or type(error).__name__
