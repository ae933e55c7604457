"""The transport port's in-memory twin: hosts, links and faults without sockets, threads or a clock of its own.

Everything happens in callbacks of ``schedule(delay in seconds, fn)``, so a simulator decides order and time, and a
seed fixes both. What it models is TCP with TLS and gRPC on top: connections made on first use with a handshake that
checks both certificates, messages in order in each direction, windows that push back, and the faults below.

Rules owned here:
1. A link cut in either direction holds what is under way. If it heals in time, everything arrives, late and in
   order; after ``dead_after`` seconds of one cut, its connections break for both ends: UNAVAILABLE.
2. A lost call (``drop``) never says whether its handler ran: the request or the answer was lost, and UNAVAILABLE
   follows. A call is repeated (``duplicate``) only if it is unary, and only its first answer counts. Calls of the
   Control service are not: no connection repeats a call by itself, and a client may rely on "out of sequence".
3. A host that crashes hears nothing more; its peers hear UNAVAILABLE, behind a cut link only when it heals or
   breaks.

Thread-safe exactly if ``schedule`` is and runs one callback at a time.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

from runtime.errors import Code, Refused
from runtime.wire.authorise import Peer
from runtime.wire.endings import closed, reset
from runtime.wire.memory_call import Connection
from runtime.wire.memory_channel import MemoryChannel
from runtime.wire.port import DEFAULT_LIMITS, MANAGER, Access, Channel, Credentials, Routes, Server, StreamLimits

Schedule = Callable[[float, Callable[[], None]], None]
FIRST_FREE_PORT = 40000


@dataclasses.dataclass(slots=True)
class Link:
    """One pair of hosts: one-way latency and jitter in seconds, chances that a call is lost or repeated."""

    latency: float = 0.001
    jitter: float = 0.0
    drop: float = 0.0
    duplicate: float = 0.0


class MemoryNetwork:
    """Hosts by name (an address without the port), and the switches of the links between them.

    ``clock`` gives unix seconds, for the validity of certificates; a host may have a skewed one of its own.
    """

    def __init__(
        self,
        schedule: Schedule,
        rng: random.Random,
        *,
        clock: Callable[[], float],
        latency: float = 0.001,
        jitter: float = 0.0,
        dead_after: float = 20.0,
        connect_timeout: float = 20.0,
    ) -> None:
        self.schedule = schedule
        self.rng = rng
        self.clock = clock
        self.dead_after = dead_after
        self.connect_timeout = connect_timeout
        self._default = Link(latency, jitter)
        self._links: dict[tuple[str, str], Link] = {}
        self._cuts: dict[tuple[str, str], int] = {}
        self._cut_number = 0
        self._servers: dict[tuple[str, str], MemoryServer] = {}
        self._connections: dict[int, Connection] = {}
        self._transports: dict[str, MemoryTransport] = {}
        self._numbers = 0
        self.lost = self.repeated = 0
        """Calls that were lost, and that came twice, by the chances of their links."""

    def transport(self, host: str, clock: Callable[[], float] | None = None) -> MemoryTransport:
        """The transport of one host; a second one for the same host only after ``crash``."""
        if host in self._transports:
            raise RuntimeError(f"{host} has a transport already")
        self._transports[host] = MemoryTransport(self, host, clock or self.clock)
        return self._transports[host]

    def link(self, one: str, other: str) -> Link:
        """The settings of a link, to read and to change."""
        link = self._links.get((one, other))
        if link is None:
            link = self._links[one, other] = self._links[other, one] = dataclasses.replace(self._default)
        return link

    def half_open(self, source: str, target: str) -> None:
        """Cuts one direction: what ``source`` sends does not arrive."""
        self._cut_number += 1
        number = self._cuts.setdefault((source, target), self._cut_number)
        self.schedule(self.dead_after, lambda: self._dead(source, target, number))

    def partition(self, one: str, other: str) -> None:
        """Cuts both directions."""
        self.half_open(one, other)
        self.half_open(other, one)

    def isolate(self, host: str) -> None:
        """Cuts a host off from every other that has a transport."""
        for other in self._transports:
            if other != host:
                self.partition(host, other)

    def heal(self, one: str | None = None, other: str | None = None) -> None:
        """Mends a link; of one host all its links; without arguments everything. What was held goes on."""
        wanted = {one, other} - {None}
        for pair in [pair for pair in self._cuts if wanted <= set(pair)]:
            del self._cuts[pair]
        for connection in list(self._connections.values()):
            connection.resume()

    def reset(self, one: str, other: str) -> int:
        """Breaks every connection between two hosts at once, as a lost NAT entry does; how many there were."""
        broken = list(self._between(one, other))
        for connection in broken:
            connection.break_off(reset())
        return len(broken)

    def crash(self, host: str) -> None:
        """Takes a host's process away: no callback reaches it any more, and its peers' connections break."""
        transport = self._transports.pop(host)
        transport.crashed = True
        for key in [key for key in self._servers if key[0] == host]:
            del self._servers[key]
        for connection in [c for c in self._connections.values() if host in (c.client, c.server)]:
            other = connection.server if host == connection.client else connection.client
            if not self.blocked(host, other):
                connection.break_off(reset())

    def blocked(self, source: str, target: str) -> bool:
        """Whether what ``source`` sends is held."""
        return (source, target) in self._cuts

    def delay(self, source: str, target: str) -> float:
        """One message's one-way time in seconds, drawn now."""
        if source == target:
            return 0.0
        link = self.link(source, target)
        return link.latency + (self.rng.random() * link.jitter if link.jitter else 0.0)

    def chance(self, probability: float) -> bool:
        """Draws, but only where there is something to draw."""
        return probability > 0 and self.rng.random() < probability

    def find(self, host: str, address: str) -> MemoryServer | None:
        """The server that listens at an address of a host."""
        return self._servers.get((host, address))

    def attach(self, connection: Connection) -> None:
        """Notes a connection that stands, so that faults find it."""
        self._connections[connection.number] = connection

    def detach(self, connection: Connection) -> None:
        """Forgets a connection."""
        self._connections.pop(connection.number, None)

    def next_number(self) -> int:
        """A number never given before."""
        self._numbers += 1
        return self._numbers

    def listen(self, server: MemoryServer, host: str, address: str) -> None:
        """Registers a server; ``Refused(UNAVAILABLE)`` if the address is taken."""
        if (host, address) in self._servers:
            raise Refused(Code.UNAVAILABLE, f"listen {address}: bind: address already in use")
        self._servers[host, address] = server

    def unlisten(self, server: MemoryServer, host: str, address: str) -> None:
        """Frees an address, unless another server has it by now."""
        if self._servers.get((host, address)) is server:
            del self._servers[host, address]

    def connections_of(self, server: MemoryServer) -> list[Connection]:
        """What is connected to a server."""
        return [connection for connection in self._connections.values() if connection.listener is server]

    def _between(self, one: str, other: str) -> list[Connection]:
        return [c for c in self._connections.values() if {c.client, c.server} == {one, other}]

    def _dead(self, source: str, target: str, number: int) -> None:
        if self._cuts.get((source, target)) == number:
            for connection in self._between(source, target):
                connection.break_off(Refused(Code.UNAVAILABLE, "connection timed out"))


class MemoryTransport:
    """One host's way out and in; implements ``port.Transport``."""

    def __init__(self, network: MemoryNetwork, host: str, clock: Callable[[], float]) -> None:
        self.network = network
        self.host = host
        self.clock = clock
        self.crashed = False
        self._next_port = FIRST_FREE_PORT

    def connect(
        self,
        target: str,
        credentials: Credentials | None,
        *,
        server_name: str | None = MANAGER,
        verify: bool = True,
    ) -> Channel:
        """As the port says; ``127.0.0.1`` and ``localhost`` are this host."""
        host, address = self._locate(target)
        return MemoryChannel(self, host, address, credentials, server_name if verify else None, verify)

    def serve(
        self,
        address: str,
        routes: Routes,
        *,
        access: Callable[[], Access],
        credentials: Credentials | None = None,
        limits: StreamLimits = DEFAULT_LIMITS,
    ) -> Server:
        """As the port says; the host of the address is this host, whatever it reads."""
        if address.startswith("unix:"):
            key = shown = address
        elif credentials is None:
            raise ValueError(f"{address} needs credentials: only unix sockets go without TLS")
        else:
            named, _, port = address.rpartition(":")
            key = self._port(port)
            shown = f"{named or self.host}:{key}"
        server = MemoryServer(self, key, shown, routes, access, credentials, limits)
        self.network.listen(server, self.host, key)
        return server

    def _port(self, port: str) -> str:
        if int(port):
            return port
        while self.network.find(self.host, str(self._next_port)) is not None:
            self._next_port += 1
        self._next_port += 1
        return str(self._next_port - 1)

    def _locate(self, target: str) -> tuple[str, str]:
        if target.startswith("unix:"):
            return self.host, target
        host, _, port = target.rpartition(":")
        return (self.host if host in ("", "127.0.0.1", "localhost") else host.strip("[]")), port


class MemoryServer(Server):
    """Something that listens on a host."""

    __slots__ = ("_closed", "_key", "_shown", "_transport", "_waiting", "access", "credentials", "limits", "routes")

    def __init__(
        self,
        transport: MemoryTransport,
        key: str,
        shown: str,
        routes: Routes,
        access: Callable[[], Access],
        credentials: Credentials | None,
        limits: StreamLimits,
    ) -> None:
        self._transport = transport
        self._key = key
        self._shown = shown
        self._closed = False
        self._waiting: list[Callable[[], None]] = []
        self.routes = routes
        self.access = access
        self.credentials = credentials
        self.limits = limits

    @property
    def address(self) -> str:
        return self._shown

    @property
    def closed(self) -> bool:
        """Whether new calls are turned away."""
        return self._closed

    @property
    def crashed(self) -> bool:
        """Whether its host's process is gone."""
        return self._transport.crashed

    @property
    def clock(self) -> Callable[[], float]:
        """The host's clock, in unix seconds."""
        return self._transport.clock

    def peer(self, connection: Connection) -> Peer:
        """The direct caller of a connection."""
        return Peer(connection.subject, connection.client_address, local=self.credentials is None)

    def close(self, grace: float, done: Callable[[], None] | None = None) -> None:
        network = self._transport.network
        first, self._closed = not self._closed, True
        network.unlisten(self, self._transport.host, self._key)
        if done is not None:
            self._waiting.append(done)
        network.schedule(0.0, lambda: self._wind_down(grace if first else None))

    def _wind_down(self, grace: float | None) -> None:
        """Ends each connection as soon as it is idle, all of them after ``grace`` (None: that was said before)."""
        network = self._transport.network
        for connection in network.connections_of(self):
            connection.drain(self._report)
        self._report()
        if grace is not None:
            network.schedule(grace, self._break_all)

    def _report(self) -> None:
        """Tells those who wait when no connection is left."""
        if not self._transport.network.connections_of(self):
            waiting, self._waiting = self._waiting, []
            for done in waiting:
                done()

    def _break_all(self) -> None:
        for connection in self._transport.network.connections_of(self):
            connection.break_off(closed())
