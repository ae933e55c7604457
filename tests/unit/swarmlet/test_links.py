"""Links of a real TestCluster: what is forwarded, held back, and let go."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from swarmlet.testing.links import Links

NODE, FRONT, OTHER, THIRD = "127.0.0.61", "127.0.1.61", "127.0.0.62", "127.0.0.63"


@pytest.fixture
def links() -> Iterator[Links]:
    links = Links()
    links.start()
    yield links
    links.close()


@contextlib.contextmanager
def echo(port: int) -> Iterator[list[str]]:
    """A node that sends back what it is sent; the addresses it was called from."""
    callers: list[str] = []

    def serve(connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(1024):
                connection.sendall(data)

    def accept() -> None:
        while True:
            try:
                connection, address = listener.accept()
            except OSError:
                return
            callers.append(address[0])
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server((NODE, port)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield callers
        listener.shutdown(socket.SHUT_RDWR)


def dial(port: int, source: str = OTHER) -> socket.socket:
    connection = socket.create_connection((FRONT, port), timeout=60, source_address=(source, 0))
    connection.settimeout(60)
    return connection


def silent(connection: socket.socket) -> bool:
    connection.settimeout(0.2)
    try:
        return not connection.recv(1024)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(60)


def test_a_front_forwards_and_the_node_sees_who_calls(links: Links) -> None:
    port = links.front(FRONT, NODE)
    with echo(port) as callers, dial(port) as connection:
        connection.sendall(b"hello")
        assert connection.recv(1024) == b"hello"
        assert callers == [OTHER]
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1024) == b""


@pytest.mark.parametrize(("source", "target"), [(OTHER, NODE), (NODE, OTHER)])
def test_a_link_that_is_cut_holds_back_one_direction_until_it_is_mended(links: Links, source: str, target: str) -> None:
    port = links.front(FRONT, NODE)
    with echo(port), dial(port) as connection, dial(port, THIRD) as third:
        connection.sendall(b"before")
        assert connection.recv(1024) == b"before"
        links.cut(source, target)
        connection.sendall(b"during")
        assert silent(connection)
        third.sendall(b"not cut")
        assert third.recv(1024) == b"not cut"
        links.heal()
        assert connection.recv(1024) == b"during"


def test_a_connection_over_a_cut_link_comes_about_when_it_is_mended(links: Links) -> None:
    port = links.front(FRONT, NODE)
    links.cut(OTHER, NODE)
    with echo(port) as callers, dial(port) as connection:
        connection.sendall(b"hello")
        assert silent(connection)
        assert callers == []
        links.heal()
        assert connection.recv(1024) == b"hello"


def test_a_node_that_is_down_ends_the_connection(links: Links) -> None:
    with dial(links.front(FRONT, NODE)) as connection, contextlib.suppress(ConnectionResetError):
        assert connection.recv(1024) == b""


def test_closing_ends_what_is_held_back_and_again_is_nothing(links: Links) -> None:
    port = links.front(FRONT, NODE)
    links.cut(OTHER, NODE)
    with dial(port) as connection:
        links.close()
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1024) == b""
        with pytest.raises(ConnectionRefusedError):
            dial(port)
