"""TLS ends for asyncio, and the two-sided splice that carries gRPC's bytes between a peer and a local socket.

Rules owned here: TLS 1.2 or newer, SwarmKit's suites, ALPN ``h2`` always offered and answered, no session is ever
resumed (each handshake verifies against the newest roots), no renegotiation. A private key never touches the disk.
A splice pushes back: whoever reads slowly stops the other side's reading, so memory stays bounded. When one side ends
what it has sent is flushed, then both are closed.

The TLS end works on ``ssl.SSLObject`` and memory buffers, not on asyncio's own TLS transport: that one allocates a
read buffer of 256 KiB for each idle connection. All ends of one loop read into one buffer (``read_buffer``): what
arrives is dealt with before the next read, and nothing keeps a view of it.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Callable
from typing import Any

from runtime.wire.port import Material

SUITES = ":".join(
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
    )
)
READ_SIZE = 64 << 10
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)
_DER = 2  # how the ssl module numbers it
HANDSHAKE_TIMEOUT = 10.0
CLOSE_TIMEOUT = 5.0


def read_buffer() -> memoryview:
    """What the ends of one loop share to read into."""
    return memoryview(bytearray(READ_SIZE))


def server_context(material: Material) -> ssl.SSLContext:
    """A context that verifies a client certificate if one is given, against the material's roots."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, material)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0
    return context


def client_context(material: Material | None, *, verify: bool, check_name: bool) -> ssl.SSLContext:
    """A context for calling. Without ``verify`` any certificate is taken, and only its bytes are of use."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, material)
    context.check_hostname = verify and check_name
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    return context


def _context(protocol: int, material: Material | None) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(SUITES)
    context.set_alpn_protocols(["h2"])
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if material is not None:
        if material.roots:
            context.load_verify_locations(cadata=material.roots.decode("ascii"))
        if material.certificate:
            load_chain(context, material)
            _trust_own_intermediates(context, material)
    return context


def _trust_own_intermediates(context: ssl.SSLContext, material: Material) -> None:
    """During a root rotation leaves come with the new root as the old one signed it. dockerd's is taken for signed by
    itself by OpenSSL, since it has the old root's name and does not say whose key signed it; so the one in our own
    chain, which was verified before it was taken, is trusted as it stands."""
    between = b"".join(_BLOCK.findall(material.certificate)[1:])
    if between and material.roots:
        context.load_verify_locations(cadata=between.decode("ascii"))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def presented_chain(tls: ssl.SSLObject) -> bytes:
    """The certificates that the peer showed, leaf first, verified or not, as PEM. Python offers them from 3.13 on, and
    has them for long."""
    shown: Any = tls
    if hasattr(shown, "get_unverified_chain"):
        chain = shown.get_unverified_chain()
    else:
        chain = [each.public_bytes(_DER) for each in shown._sslobj.get_unverified_chain() or ()]
    return "".join(ssl.DER_cert_to_PEM_cert(each) for each in chain).encode()


def load_chain(context: ssl.SSLContext, material: Material) -> None:
    """Loads chain and key by way of anonymous memory: ``ssl`` takes them from files only."""
    descriptor = os.memfd_create("credentials", os.MFD_CLOEXEC)
    try:
        data = material.certificate.rstrip() + b"\n" + material.key
        written = os.write(descriptor, data)
        assert written == len(data), f"{written} of {len(data)} bytes written"
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


class _End(asyncio.BufferedProtocol):
    """One side of a splice: while it has too much to write, nothing is read from its partner, whose bytes wait in the
    socket."""

    __slots__ = ("partner", "transport")

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.partner: _End | None = None

    def pause_writing(self) -> None:
        if self.partner is not None:
            self.partner.pause()

    def resume_writing(self) -> None:
        if self.partner is not None:
            self.partner.resume()

    def pause(self) -> None:
        """The partner has too much to write."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        """The partner can write again."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()


class TlsEnd(_End):
    """The side of a splice that faces the network.

    ``ready`` is called after the handshake; reading rests until ``partner`` is set by ``join``. ``lost`` is called
    once when the connection is gone, with the reason or None.
    """

    __slots__ = (
        "_buffer",
        "_incoming",
        "_lost",
        "_outgoing",
        "_ready",
        "_timer",
        "heard",
        "reason",
        "shaken",
        "tls",
    )
    partner: PlainEnd | None

    def __init__(
        self,
        context: ssl.SSLContext,
        buffer: memoryview,
        *,
        server_side: bool,
        server_name: str | None,
        ready: Callable[[TlsEnd], None],
        lost: Callable[[TlsEnd, Exception | None], None],
    ) -> None:
        super().__init__()
        self._buffer = buffer
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_name
        )
        self._ready = ready
        self._lost = lost
        self.shaken = False
        self._timer: asyncio.TimerHandle | None = None
        self.reason: Exception | None = None
        self.heard = False

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=4 * READ_SIZE)
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT, self._too_slow)
        self._handshake()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._incoming.write(self._buffer[:nbytes])
        if self.shaken:
            self._read()
        else:
            self._handshake()

    def eof_received(self) -> bool:
        self._incoming.write_eof()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self.partner is not None:
            self.partner.finish()
        lost, self._lost = self._lost, _ignore
        lost(self, self.reason or exc)

    # The partner's and the owner's side.

    def join(self, partner: PlainEnd) -> None:
        """Starts the splice with a partner that is connected."""
        assert self.transport is not None
        self.partner = partner
        partner.partner = self
        self.transport.resume_reading()
        self._read()

    def send(self, view: memoryview) -> None:
        """Encrypts and sends; OpenSSL takes one record at a time."""
        try:
            while view:
                view = view[self.tls.write(view) :]
        except ssl.SSLError as error:
            self.fail(error)
            return
        self._flush()

    def finish(self) -> None:
        """Ends well: what was sent goes out with a closing alert, then the connection closes."""
        if self.transport is None or self.transport.is_closing():
            return
        if self.shaken:
            try:
                self.tls.unwrap()
            except ssl.SSLError:
                pass  # it waits for the peer's own alert, which need not come
            self._flush()
        self._close()

    def fail(self, reason: Exception) -> None:
        """Ends with a reason; an alert that OpenSSL has made for the peer goes out first."""
        self.reason = self.reason or reason
        if self.transport is not None and not self.transport.is_closing():
            self._flush()
            self._close()

    def _close(self) -> None:
        """Closes after a flush; a peer that reads nothing any more is not waited for longer than the time-out."""
        assert self.transport is not None
        self.transport.close()
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self.transport.abort)

    def _handshake(self) -> None:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except (ssl.SSLError, ValueError) as error:
            self.fail(error)
            return
        self._flush()
        self.shaken = True
        self._stop_timer()
        assert self.transport is not None
        self.transport.pause_reading()
        self._ready(self)

    def _read(self) -> None:
        """Hands on all plain bytes there are; a bound on them is what one wake-up of the socket brings."""
        partner = self.partner
        if partner is None:
            return
        try:
            while True:
                data = self.tls.read(READ_SIZE)
                if not data:
                    self.finish()
                    return
                self.heard = True
                partner.send(data)
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLZeroReturnError:
            self.finish()
        except ssl.SSLError as error:
            self.fail(error)

    def _flush(self) -> None:
        if self._outgoing.pending and self.transport is not None:
            self.transport.write(self._outgoing.read())

    def _too_slow(self) -> None:
        self.reason = TimeoutError(f"no TLS handshake within {HANDSHAKE_TIMEOUT:g} s")
        if self.transport is not None:
            self.transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class PlainEnd(_End):
    """The side of a splice that faces gRPC over a private unix socket."""

    __slots__ = ("_buffer", "_finished")
    partner: TlsEnd | None

    def __init__(self, buffer: memoryview) -> None:
        super().__init__()
        self._buffer = buffer
        self._finished = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=4 * READ_SIZE)
        if self.partner is None:
            transport.pause_reading()
        if self._finished:
            transport.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.partner is not None:
            self.partner.send(self._buffer[:nbytes])

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self.partner is not None:
            self.partner.finish()

    def send(self, data: bytes) -> None:
        """Writes what the peer sent."""
        if self.transport is not None:
            self.transport.write(data)

    def finish(self) -> None:
        """Flushes and closes, at once or as soon as it is connected: a peer may be known to be out of reach by then."""
        self._finished = True
        if self.transport is not None:
            self.transport.close()


def _ignore(end: TlsEnd, exc: Exception | None) -> None:
    """After the loss was reported."""
