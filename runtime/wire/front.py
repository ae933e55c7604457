"""The TLS front: accepts connections, asks for a certificate without insisting, and hands each one to the gRPC server
behind a private unix socket, vouching for who it is.

Rules owned here:
1. Each connection to the gRPC server comes from an abstract socket name of its own; ``peers`` maps that name, which
   the server reports for every call, to the verified subject and the real address. Nobody else can reach the
   server's socket: its directory admits this user alone.
2. A handshake uses the newest credentials; a connection that stands keeps what it was made with.
3. Connections are bounded, in total, in handshakes, and without a certificate; what is above is closed at once. A
   connection without a certificate lives ``ANONYMOUS_SECONDS`` at most: joining takes less.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import socket
import ssl
from collections.abc import Callable

from runtime.wire.authorise import Peer
from runtime.wire.certificates import subject_of_der
from runtime.wire.port import Credentials
from runtime.wire.tls import PlainEnd, TlsEnd, server_context

logger = logging.getLogger("swarmlet.wire")

CONNECTIONS_MAX = 16384
HANDSHAKES_MAX = 512
ANONYMOUS_MAX = 128
ANONYMOUS_SECONDS = 300.0
ACCEPT_PAUSE = 0.1


class Front:
    """One listening socket in front of one gRPC server. All of it runs on the loop's thread."""

    def __init__(self, listener: socket.socket, backend: str, credentials: Credentials, buffer: memoryview) -> None:
        self._listener = listener
        self.backend = backend
        self._credentials = credentials
        self._buffer = buffer
        self._context: ssl.SSLContext | None = None
        self._context_version = 0
        self._task: asyncio.Task[None] | None = None
        self._work: set[asyncio.Task[None]] = set()
        self._shaking: set[TlsEnd] = set()
        self._standing: dict[TlsEnd, str] = {}
        self._anonymous: dict[TlsEnd, asyncio.TimerHandle] = {}
        self._prefix = f"swarmlet-{secrets.token_hex(8)}"
        self._count = 0
        self._on_change: Callable[[], None] | None = None
        self.peers: dict[str, Peer] = {}
        self.refused = 0

    def start(self) -> None:
        """Begins to accept."""
        self._task = asyncio.get_running_loop().create_task(self._accept())

    def check(self) -> None:
        """``ssl.SSLError`` or ValueError if the present credentials cannot be used."""
        self._newest_context()

    @property
    def connections(self) -> int:
        """How many connections there are, with those still in their handshake."""
        return len(self._shaking) + len(self._standing)

    async def stop_accepting(self) -> None:
        """Closes the listening socket; what stands goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self._listener.close()

    async def close(self) -> None:
        """Ends everything and waits until it is gone."""
        await self.stop_accepting()
        for task in list(self._work):
            task.cancel()
        gone = asyncio.get_running_loop().create_future()
        self._on_change = lambda: self._report_empty(gone)
        for end in [*self._shaking, *self._standing]:
            end.finish()
            if end.transport is not None:
                end.transport.abort()
        self._report_empty(gone)
        await gone

    def _report_empty(self, gone: asyncio.Future[None]) -> None:
        if self.connections == 0 and not gone.done():
            gone.set_result(None)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(self._listener)
            except OSError as error:
                # Out of descriptors, or the caller left while it waited: neither ends the server.
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ECONNABORTED, errno.ENOBUFS, errno.ENOMEM):
                    raise
                logger.warning("cannot accept a connection: %s", error)
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            if self.connections >= CONNECTIONS_MAX or len(self._shaking) >= HANDSHAKES_MAX:
                self.refused += 1
                connection.close()
                continue
            try:
                await self._greet(connection, _shown(address))
            except OSError as error:
                logger.debug("a connection was lost while it was greeted: %s", error)
                connection.close()

    async def _greet(self, connection: socket.socket, address: str) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = TlsEnd(
            self._newest_context(),
            self._buffer,
            server_side=True,
            server_name=None,
            ready=lambda end: self._shaken(end, address),
            lost=self._lost,
        )
        await asyncio.get_running_loop().connect_accepted_socket(lambda: end, connection)
        if end.transport is not None and not end.transport.is_closing() and not end.shaken:
            self._shaking.add(end)

    def _newest_context(self) -> ssl.SSLContext:
        material = self._credentials.material
        if self._context is None or self._context_version != material.version:
            try:
                self._context = server_context(material)
                self._context_version = material.version
            except (ssl.SSLError, ValueError) as error:
                if self._context is None:
                    raise
                logger.error("the new credentials cannot be used, the ones before stay: %s", error)
                self._context_version = material.version
        return self._context

    def _shaken(self, end: TlsEnd, address: str) -> None:
        self._shaking.discard(end)
        der = end.tls.getpeercert(binary_form=True)
        if der is None and len(self._anonymous) >= ANONYMOUS_MAX:
            self.refused += 1
            end.finish()
            return
        self._count += 1
        name = f"{self._prefix}-{self._count}"
        self.peers[name] = Peer(subject_of_der(der) if der is not None else None, address)
        self._standing[end] = name
        loop = asyncio.get_running_loop()
        if der is None:
            self._anonymous[end] = loop.call_later(ANONYMOUS_SECONDS, end.finish)
        task = loop.create_task(self._hand_over(end, name))
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _hand_over(self, end: TlsEnd, name: str) -> None:
        """Connects to the gRPC server under the connection's own name and joins the two."""
        local = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        local.setblocking(False)
        try:
            local.bind(f"\0{name}")
            loop = asyncio.get_running_loop()
            await loop.sock_connect(local, self.backend)
            _, plain = await loop.create_connection(lambda: PlainEnd(self._buffer), sock=local)
        except (OSError, asyncio.CancelledError) as error:
            local.close()
            end.fail(ConnectionError(f"the gRPC server behind the front cannot be reached: {error}"))
            return
        if end.transport is None or end.transport.is_closing():
            plain.finish()
            return
        end.join(plain)
        if plain.transport is not None:
            plain.transport.resume_reading()

    def _lost(self, end: TlsEnd, exc: Exception | None) -> None:
        self._shaking.discard(end)
        name = self._standing.pop(end, None)
        if name is not None:
            self.peers.pop(name, None)
        timer = self._anonymous.pop(end, None)
        if timer is not None:
            timer.cancel()
        if exc is not None:
            logger.debug("connection lost: %s", exc)
        if self._on_change is not None:
            self._on_change()


def _shown(address: tuple[str, int] | tuple[str, int, int, int]) -> str:
    """``host:port``, an IPv6 host in brackets."""
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
