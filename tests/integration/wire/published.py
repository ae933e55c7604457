"""A proxy of published ports over real sockets of this machine, and what tests of it stand on."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

from runtime.swarm.ingress_tables import Backend, PublishedPort, Routes
from runtime.wire.ingress_proxy import IngressProxy
from runtime.wire.loop import IoLoop
from swarmlet.host import free_port

HERE = "127.0.0.1"
PATIENCE = 60.0


def run(loop: IoLoop, coro: Any) -> Any:
    """The result of a coroutine on the loop."""
    over, found = threading.Event(), []
    loop.submit(coro, lambda result: (found.append(result), over.set()))  # type: ignore[func-returns-value, arg-type]
    assert over.wait(PATIENCE)
    assert not isinstance(found[0], BaseException), found[0]
    return found[0]


class Bench:
    """A proxy at a free port."""

    protocol = "tcp"

    def __init__(self, loop: IoLoop, host: str = HERE, **more: Any) -> None:
        self.loop = loop
        self.proxy = IngressProxy(loop, host, **more)
        self.port = free_port(HERE)

    def apply_routes(self, routes: Routes) -> dict[PublishedPort, str]:
        """The ports that it could not have."""
        over, failed = threading.Event(), []
        self.proxy.apply(routes, lambda result: (failed.append(result), over.set()))  # type: ignore[func-returns-value, arg-type]
        assert over.wait(PATIENCE)
        return dict(failed[0])

    def apply(self, *backends: int, port: int = 0) -> dict[PublishedPort, str]:
        """One port with backends on this machine."""
        mine = PublishedPort(port or self.port, self.protocol)
        return self.apply_routes({mine: tuple(Backend(HERE, each, f"t{each}") for each in backends)})

    def connect(self, host: str = HERE) -> socket.socket:
        """A client."""
        return socket.create_connection((host, self.port), PATIENCE)

    def ask(self, text: bytes = b"") -> bytes:
        """All that is answered to one who says all."""
        with self.connect() as client:
            client.sendall(text)
            client.shutdown(socket.SHUT_WR)
            return everything(client)

    def close(self) -> None:
        """Listens no more."""
        run(self.loop, self.proxy.close())


def everything(client: socket.socket) -> bytes:
    """All that comes until the other side ends."""
    found = bytearray()
    while data := client.recv(1 << 16):
        found += data
    return bytes(found)


def reset(connection: socket.socket) -> None:
    """Closes it with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextlib.contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A backend: ``answer`` has each connection on a thread of its own; its port."""
    listener = socket.create_server((HERE, 0))

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            answer(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def saying(text: bytes) -> contextlib.AbstractContextManager[int]:
    """A backend that hears everything, then says its text."""

    def answer(connection: socket.socket) -> None:
        everything(connection)
        connection.sendall(text)

    return serving(answer)
