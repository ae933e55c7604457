"""UDP at published ports: datagrams of one client go to one task, and what that answers goes back to the client.

Rules owned here:
1. A *flow* is a client's address and the address of this node that it wrote to; answers come from there. It goes to the
   next backend in turn, stays with it, and ends when nothing has come from either side for 90 seconds.
2. Where a backend leaves the routes, all its flows move to another with their next datagrams. Until then its answers
   are passed on.
3. A backend says that it is dead by refusing a datagram (ICMP): all flows of it move at once, and it is avoided for a
   while (``ingress_turns``). What was sent to it until then is lost, and nothing else is. Of a dead machine nothing is
   heard: its flows move when its manager takes it out of the routes.
4. So many flows at a time and no more: a new one ends the one that has been silent longest.
5. What cannot be sent at once is lost, as UDP may; nothing is kept, nothing is sent twice.

Everything here is called on the I/O loop's thread alone.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Container, Sequence
from typing import Final

from runtime.swarm.ingress_tables import Backend
from runtime.swarm.ingress_turns import Turns
from runtime.wire.ingress_sockets import IP_PKTINFO, Seldom, opened, reached_itself, unbound

IDLE_S: Final = 90.0
BURST: Final = 64
"""Datagrams that are read before others have their turn."""
DATAGRAM_MAX: Final = 65535
ANCILLARY: Final = socket.CMSG_SPACE(32)

Address = tuple[str, int] | tuple[str, int, int, int]
Source = tuple[int, int, bytes]
"""The control message with which an answer comes from the address that its client wrote to."""
Key = tuple[int, Address, Source | None]

log = logging.getLogger("swarmlet.ingress")


class _Flow:
    __slots__ = ("backend", "key", "listener", "out", "stale", "used")

    def __init__(self, key: Key, listener: socket.socket, backend: Backend, out: socket.socket) -> None:
        self.key = key
        self.listener = listener
        self.backend = backend
        self.out = out
        self.stale = False
        self.used = 0.0


class DatagramPorts:
    """``hosts``: where it listens; ``backends``: those of a published port, now."""

    def __init__(
        self,
        hosts: Sequence[str],
        backends: Callable[[int], Sequence[Backend]],
        flows_max: int,
        idle_s: float = IDLE_S,
    ) -> None:
        self._hosts = hosts
        self._backends = backends
        self._max = flows_max
        self._idle = idle_s
        self._listeners: dict[int, list[socket.socket]] = {}
        self._flows: OrderedDict[Key, _Flow] = OrderedDict()  # the one that was silent longest first
        self._turns: Turns[int] = Turns(time.monotonic)
        self._timer: asyncio.TimerHandle | None = None
        self._many = Seldom(log)
        self._trouble = Seldom(log)

    @property
    def ports(self) -> Container[int]:
        """The ports that it listens on."""
        return self._listeners.keys()

    @property
    def flows(self) -> int:
        """How many there are."""
        return len(self._flows)

    def listen(self, port: int) -> None:
        """OSError if it cannot."""
        self._listeners[port] = opened(self._hosts, port, socket.SOCK_DGRAM)
        for each in self._listeners[port]:
            asyncio.get_running_loop().add_reader(each, self._arrived, port, each)

    def end(self, port: int) -> None:
        """Listens there no more; the port's flows are over."""
        for flow in [flow for key, flow in self._flows.items() if key[0] == port]:
            self._end(flow)
        for listener in self._listeners.pop(port, ()):
            _close(listener)

    def keep_to(self, ports: Container[int]) -> None:
        """There are new routes: ports that are not published any more end, flows see whether theirs is still there."""
        for port in [port for port in self._listeners if port not in ports]:
            self.end(port)
        wanted = {port: set(self._backends(port)) for port in self._listeners}
        self._turns.keep_to(wanted, (each for backends in wanted.values() for each in backends))
        for flow in self._flows.values():
            flow.stale = flow.backend not in wanted[flow.key[0]]

    # Datagrams

    def _arrived(self, port: int, listener: socket.socket) -> None:
        for _ in range(BURST):
            try:
                data, ancillary, _, client = listener.recvmsg(DATAGRAM_MAX, ANCILLARY)
            except OSError:  # nothing more for now
                return
            self._forward((port, client, _source(ancillary)), listener, data)

    def _forward(self, key: Key, listener: socket.socket, data: bytes) -> None:
        flow = self._flows.get(key)
        if flow is not None:
            if not flow.stale and self._sent(flow, data):
                self._touch(flow)
                return
            self._end(flow)
        for backend in self._turns.order(key[0], self._backends(key[0])):
            flow = self._begin(key, listener, backend)
            if flow is not None and self._sent(flow, data):
                return

    def _sent(self, flow: _Flow, data: bytes) -> bool:
        """False if its backend is not there."""
        try:
            flow.out.send(data)
        except BlockingIOError:
            return True  # lost
        except OSError as error:
            if error.errno == errno.EMSGSIZE:  # too long for the way there: lost, whoever it is sent to
                return True
            self._refused(flow.backend)
            return False
        return True

    def _refused(self, backend: Backend) -> None:
        if self._turns.refused(backend):
            for flow in self._flows.values():
                flow.stale = flow.stale or flow.backend == backend

    def _answered(self, flow: _Flow) -> None:
        _, client, source = flow.key
        for _ in range(BURST):
            try:
                data = flow.out.recv(DATAGRAM_MAX)
            except BlockingIOError:
                break
            except OSError:  # refused: nobody listens there any more
                self._refused(flow.backend)
                self._end(flow)
                return
            self._turns.served(flow.backend)
            self._touch(flow)
            try:
                flow.listener.sendmsg([data], [] if source is None else [source], 0, client)
            except OSError:
                break  # lost: the client is gone, or not to be reached now

    # Flows

    def _begin(self, key: Key, listener: socket.socket, backend: Backend) -> _Flow | None:
        """None if the backend cannot be written to."""
        before = self._flows.get(key)
        if before is not None:
            self._end(before)
        self._make_room()
        try:
            out = unbound(backend.host, socket.SOCK_DGRAM)
        except OSError as error:  # too many files: what is sent is lost
            self._trouble.warn("datagrams to published ports are lost: %s", error.strerror or error)
            return None
        try:
            out.connect((backend.host, backend.port))
            there = not reached_itself(out)
        except OSError:
            there = False
        if not there:
            out.close()
            self._refused(backend)
            return None
        flow = self._flows[key] = _Flow(key, listener, backend, out)
        asyncio.get_running_loop().add_reader(out, self._answered, flow)
        self._touch(flow)
        return flow

    def _make_room(self) -> None:
        if len(self._flows) >= self._max:
            self._many.warn("%d clients of published udp ports: the longest silent gives way to new ones", self._max)
            self._end(next(iter(self._flows.values())))

    def _touch(self, flow: _Flow) -> None:
        loop = asyncio.get_running_loop()
        flow.used = loop.time()
        self._flows.move_to_end(flow.key)
        if self._timer is None:
            self._timer = loop.call_later(self._idle, self._expire)

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._flows:
            flow = next(iter(self._flows.values()))
            if flow.used + self._idle > loop.time():
                self._timer = loop.call_at(flow.used + self._idle, self._expire)
                return
            self._end(flow)

    def _end(self, flow: _Flow) -> None:
        del self._flows[flow.key]
        _close(flow.out)
        if not self._flows and self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _source(ancillary: Sequence[tuple[int, int, bytes]]) -> Source | None:
    """For answers: from the address that was written to, whatever interface leads to the client."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO) and len(data) == 12:
            return level, kind, struct.pack("=i4s4s", 0, data[4:8], bytes(4))
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO) and len(data) == 20:
            link_local = data[0] == 0xFE and data[1] & 0xC0 == 0x80
            return level, kind, data if link_local else data[:16] + bytes(4)
    return None


def _close(each: socket.socket) -> None:
    asyncio.get_running_loop().remove_reader(each)
    each.close()
