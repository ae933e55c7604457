"""Two connections that are one: what comes from either side goes to the other, as fast as that takes it.

Rules owned here:
1. Of a side that is slower than the other at most one piece is held, and nothing is read for it meanwhile.
2. A side that has said all is passed on as such, and the other may go on. Where that one has said all too, both close.
3. A side that breaks (reset, or its machine is gone: it is probed when it is silent) breaks the other; one that closes
   closes the other once that has taken what was said.

Everything here is called on the I/O loop's thread alone.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any, Final, cast

PIECE: Final = 1 << 16
KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
"""A peer that is gone without a word is noticed within two minutes."""
RESET: Final = struct.pack("ii", 1, 0)
TCP_CLOSED: Final = 7  # linux/tcp_states.h


class Side(asyncio.BufferedProtocol):
    """One of the two. Nothing is read from it before it is joined with the other.

    ``piece`` is what is read into, and may be shared by all sides of a loop: it is free again when a read is over.
    ``made`` hears that the side is there, ``over`` that it is gone; each once.
    """

    __slots__ = ("_made", "_other", "_over", "_piece", "ended", "lost", "transport")

    def __init__(self, piece: memoryview, made: Callable[[Side], None], over: Callable[[Side], None]) -> None:
        self._piece = piece
        self._made = made
        self._over = over
        self._other: Side | None = None
        self.transport: asyncio.Transport | None = None
        self.ended = False
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Held until there is another."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.pause_reading()
        self.transport.set_write_buffer_limits(high=0)
        mine = self.socket
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            mine.setsockopt(socket.IPPROTO_TCP, option, value)
        self._made(self)

    @property
    def socket(self) -> Any:
        """Its socket, as far as a transport lends it."""
        assert self.transport is not None
        return self.transport.get_extra_info("socket")

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next piece comes."""
        return self._piece

    def buffer_updated(self, nbytes: int) -> None:
        """Handed on at once; the copy is the transport's to keep."""
        assert self._other is not None
        assert self._other.transport is not None
        self._other.transport.write(bytes(self._piece[:nbytes]))

    def pause_writing(self) -> None:
        """This side is slow: the other is not read meanwhile."""
        other = self._readable()
        if other is not None:
            other.pause_reading()

    def resume_writing(self) -> None:
        """It has taken all."""
        other = self._readable()
        if other is not None:
            other.resume_reading()

    def _readable(self) -> asyncio.Transport | None:
        other = self._other
        return None if other is None or other.lost or other.ended else other.transport

    def eof_received(self) -> bool:
        """Whether this side is still written to."""
        self.ended = True
        other = self._other
        if other is None or other.transport is None or other.lost:
            return False
        if other.ended:
            other.transport.close()
            return False
        other.transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The other goes with it."""
        self.lost = True
        other, self._other = self._other, None
        if other is not None and other.transport is not None and not other.lost:
            if exc is None:
                other.transport.close()
            else:
                other._reset()
        self._over(self)

    def abort(self) -> None:
        """Resets it and the other, as far as they are there: their peers are not to take what they have for all."""
        other, self._other = self._other, None
        self._reset()
        if other is not None:
            other._other = None
            other._reset()

    def _reset(self) -> None:
        if self.transport is not None and not self.lost:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.transport.abort()

    @property
    def gone(self) -> bool:
        """Whether the peer is gone although nothing was heard of it, as may be after it has said all."""
        if self.lost or not self.ended:
            return self.lost
        state: bytes = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        return state[0] == TCP_CLOSED


def join(one: Side, two: Side) -> None:
    """From now on they are one; if a side is gone meanwhile, so is the other."""
    if one.lost or two.lost:
        one.abort()
        two.abort()
        return
    one._other, two._other = two, one
    for each in (one, two):
        assert each.transport is not None
        each.transport.resume_reading()
