"""The transport port over sockets: a TLS front before gRPC's servers, a TLS splice behind its channels.

Rules owned here: everything runs on one ``IoLoop``, which the owner starts before and stops after; the private unix
sockets lie in one directory (``private_directory``) that goes with the transport; ``close`` leaves no socket, file or
task.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from runtime.errors import Code, Refused
from runtime.wire.authorise import Peer
from runtime.wire.front import Front
from runtime.wire.grpc_client import GrpcChannel
from runtime.wire.grpc_core import CoreServer
from runtime.wire.grpc_server import OPTIONS, Service
from runtime.wire.loop import IoLoop
from runtime.wire.originate import Originator
from runtime.wire.port import (
    DEFAULT_LIMITS,
    MANAGER,
    Access,
    Channel,
    Credentials,
    Routes,
    Server,
    StreamLimits,
)
from runtime.wire.private_directory import PrivateDirectory
from runtime.wire.tls import read_buffer

START_TIMEOUT = 30.0
BACKLOG = 1024
CONTROL_SOCKET_MODE = 0o600
UNIX = "unix:"


class GrpcTransport:
    """One node's way out and in; implements ``port.Transport``. ``clock`` gives unix seconds; ``dial_from``
    is the address of this machine that connections to others come from, empty for the system's choice; ``run_dir``
    is where its directory is made, empty for the system's temporary one."""

    def __init__(
        self, io_loop: IoLoop, *, clock: Callable[[], float] = time.time, dial_from: str = "", run_dir: str = ""
    ) -> None:
        self._io_loop = io_loop
        self._clock = clock
        self._dial_from = dial_from
        self._lock = threading.Lock()
        self._directory = PrivateDirectory(run_dir)
        self._buffer = read_buffer()
        self._count = 0
        self._closed = False
        self._channels: dict[int, GrpcChannel] = {}
        self._servers: dict[int, GrpcServer] = {}

    def connect(
        self,
        target: str,
        credentials: Credentials | None,
        *,
        server_name: str | None = MANAGER,
        verify: bool = True,
    ) -> Channel:
        """As the port says. ValueError for a target that is not ``host:port`` or ``unix:path``, and if there is
        nothing to verify the peer by."""
        if target.startswith(UNIX):
            channel = GrpcChannel(self._io_loop, target.removeprefix(UNIX), "localhost", None, self._forget)
        else:
            if verify and credentials is None:
                raise ValueError(f"{target}: without credentials there is no root to verify the peer by")
            host, port = split_address(target)
            path = self._new_path("c")
            originator = Originator(
                path,
                host,
                port,
                credentials,
                server_name=server_name,
                verify=verify,
                clock=self._clock,
                buffer=self._buffer,
                dial_from=self._dial_from,
            )
            channel = GrpcChannel(self._io_loop, path, server_name or target, originator, self._forget)
        with self._lock:
            self._channels[id(channel)] = channel
        return channel

    def serve(
        self,
        address: str,
        routes: Routes,
        *,
        access: Callable[[], Access],
        credentials: Credentials | None = None,
        limits: StreamLimits = DEFAULT_LIMITS,
    ) -> Server:
        """As the port says. Waits until the server has started, so not for the loop's own thread."""
        if self._io_loop.on_thread:
            raise RuntimeError("serve waits for the loop and cannot be called on its thread")
        self._await(self._released())
        if address.startswith(UNIX):
            if _answers(address.removeprefix(UNIX)):
                raise Refused(Code.UNAVAILABLE, f"listen {address}: bind: address already in use")
            server = GrpcServer(self._io_loop, self._forget_server, address)
            self._await(server.start_local(routes, access, limits))
        elif credentials is None:
            raise ValueError(f"{address} needs credentials: only unix sockets go without TLS")
        else:
            listener = listen(address)
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            server = GrpcServer(self._io_loop, self._forget_server, shown)
            front = Front(listener, self._new_path("s"), credentials, self._buffer)
            self._await(server.start_front(front, routes, access, limits))
        with self._lock:
            self._servers[id(server)] = server
        return server

    def close(self) -> None:
        """Ends every server and channel at once, waits for that, and removes the directory. Again is nothing.

        Not for the loop's own thread. RuntimeError if the loop has stopped before: what was open then stays open.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._await(self._shut())
        self._directory.remove()

    async def _released(self) -> None:
        """Servers that were told to close may not have come to it: who is next at their addresses waits for that."""
        await asyncio.gather(*[server.released() for server in list(self._servers.values())])

    async def _shut(self) -> None:
        await asyncio.gather(*[channel.shut() for channel in list(self._channels.values())])
        await asyncio.gather(*[server.shut(0.0) for server in list(self._servers.values())])

    def _forget(self, channel: GrpcChannel) -> None:
        with self._lock:
            self._channels.pop(id(channel), None)

    def _forget_server(self, server: GrpcServer) -> None:
        with self._lock:
            self._servers.pop(id(server), None)

    def _new_path(self, kind: str) -> str:
        with self._lock:
            if self._closed:
                raise Refused(Code.UNAVAILABLE, "the transport is closed")
            self._count += 1
            return os.path.join(self._directory.path, f"{kind}{self._count}")

    def _await(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine on the loop and waits for it; raises what it raises."""
        ended = threading.Event()
        outcome: list[None | BaseException] = []  # noqa: RUF036

        def done(result: BaseException | None) -> None:
            outcome.append(result)
            ended.set()

        self._io_loop.submit(work, done)
        if not ended.wait(START_TIMEOUT):
            raise RuntimeError(f"the I/O loop did nothing for {START_TIMEOUT:g} s")
        if outcome[0] is not None:
            raise outcome[0]


class GrpcServer(Server):
    """A gRPC server, behind a front or directly on the control socket."""

    __slots__ = ("_address", "_backend", "_closing", "_file", "_forget", "_front", "_io_loop", "_server", "service")

    def __init__(self, io_loop: IoLoop, forget: Callable[[GrpcServer], None], address: str) -> None:
        self._io_loop = io_loop
        self._forget = forget
        self._address = address
        self._front: Front | None = None
        self._server: CoreServer | None = None
        self._backend = ""
        self._file: tuple[str, int] | None = None
        self._closing: asyncio.Task[None] | None = None
        self.service: Service | None = None

    @property
    def address(self) -> str:
        return self._address

    async def start_front(
        self, front: Front, routes: Routes, access: Callable[[], Access], limits: StreamLimits
    ) -> None:
        """Starts the gRPC server on a private socket, then the front before it."""
        try:
            front.check()
            self.service = Service(routes, access, limits, lambda name: _behind(front, name))
            self._start_grpc(front.backend, self.service)
            front.start()
        except BaseException:
            await front.close()
            raise
        self._front = front

    async def start_local(self, routes: Routes, access: Callable[[], Access], limits: StreamLimits) -> None:
        """Starts on the control socket. It is made in a directory that is ours alone and then moved to its place,
        so that nobody can reach it before its mode is set; a stale file there is replaced (a live server was looked
        for before)."""
        path = self._address.removeprefix(UNIX)
        self.service = Service(routes, access, limits, lambda _: Peer(None, "", local=True))
        parent = os.path.dirname(path) or "."
        scratch = tempfile.mkdtemp(prefix=".", dir=parent)
        try:
            made = os.path.join(scratch, "s")
            self._start_grpc(made, self.service)
            os.chmod(made, CONTROL_SOCKET_MODE)
            os.rename(made, path)
        finally:
            shutil.rmtree(scratch)
        self._file = (path, os.stat(path).st_ino)

    def _start_grpc(self, path: str, service: Service) -> None:
        server = CoreServer(OPTIONS, service.begin)
        if not server.listen(path):
            raise Refused(Code.UNAVAILABLE, f"cannot listen at unix:{path}")
        server.start()
        self._server = server

    def close(self, grace: float, done: Callable[[], None] | None = None) -> None:
        self._io_loop.submit(self.shut(grace), lambda _: None if done is None else done())

    async def shut(self, grace: float) -> None:
        """On the loop's thread: nothing new from now on, calls for ``grace`` seconds, then the end of all."""
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._wind_down(grace))
        await asyncio.shield(self._closing)

    async def released(self) -> None:
        """Of one that was told to close: until its address is free."""
        if self._closing is not None:
            await self._let_go()

    async def _let_go(self) -> None:
        if self._front is not None:
            await self._front.stop_accepting()
        if self._file is not None:
            self._remove_file(*self._file)

    async def _wind_down(self, grace: float) -> None:
        await self._let_go()
        if self._server is not None:
            await _stop(self._server, grace)
        if self._front is not None:
            await self._front.close()
        self._forget(self)

    def _remove_file(self, path: str, inode: int) -> None:
        """Removes the control socket's file unless another server has replaced it."""
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == inode:
                os.unlink(path)


async def _stop(server: CoreServer, grace: float) -> None:
    """Nothing new from now on; what is under way has ``grace`` seconds."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def over() -> None:
        loop.call_soon_threadsafe(ended.set_result, None)

    server.stop(over)
    await asyncio.wait([ended], timeout=grace)
    server.cancel_calls()
    await ended
    server.join()


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[host]:port``; ValueError if it is neither."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{address!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def listen(address: str) -> socket.socket:
    """A listening socket at ``host:port`` (an empty host: every address); ``Refused(UNAVAILABLE)`` says why not."""
    host, port = split_address(address)
    host = host or "0.0.0.0"  # noqa: S104 - the default of a swarm's listen address
    family = socket.AF_INET6 if _is_ipv6(host) else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = (error.strerror or str(error)).lower()
        raise Refused(Code.UNAVAILABLE, f"listen tcp {address}: bind: {reason}") from error
    return listener


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


def _answers(path: str) -> bool:
    """Whether somebody listens at a unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


def _behind(front: Front, name: str) -> Peer | None:
    """The peer whose bytes come from an abstract socket name, as gRPC shows it: ``unix-abstract:name``."""
    return front.peers.get(name.removeprefix("unix-abstract:"))
