"""Where published ports are bound, and how much of a process's files they may take."""

from __future__ import annotations

import errno
import logging
import resource
import socket

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from runtime.wire import ingress_sockets
from runtime.wire.ingress_sockets import CONNECTIONS_MAX, EVERYWHERE, FLOWS_MAX, QUIET_S, Seldom, opened, shares
from tests.ipv6 import IPV6, MISSING, needs_ipv6

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
KINDS = pytest.mark.parametrize("kind", [TCP, UDP])


def free() -> int:
    """A port that nobody has, neither for TCP nor for UDP."""
    family, everywhere = (socket.AF_INET, "0.0.0.0") if MISSING else (socket.AF_INET6, "::")
    while True:
        with socket.socket(family) as probe, socket.socket(family, UDP) as other:
            probe.bind((everywhere, 0))
            port = int(probe.getsockname()[1])
            try:
                other.bind((everywhere, port))
            except OSError:
                continue
            return port


def bound(host: str, kind: socket.SocketKind, port: int = 0) -> socket.socket:
    """Somebody else's."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    if ":" in host:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind((host, port))
    if kind == TCP:
        made.listen()
    return made


@KINDS
def test_a_port_is_opened_at_both_families(kind: socket.SocketKind) -> None:
    port = free()
    found = opened(EVERYWHERE, port, kind)
    try:
        assert [each.getsockname()[:2] for each in found] == [("0.0.0.0", port), ("::", port)]
        assert not any(each.getblocking() or each.get_inheritable() for each in found)
    finally:
        for each in found:
            each.close()


@KINDS
@pytest.mark.parametrize("host", ["127.0.0.1", IPV6, "0.0.0.0", pytest.param("::", marks=needs_ipv6)])
def test_it_is_had_everywhere_or_nowhere(kind: socket.SocketKind, host: str) -> None:
    with bound(host, kind) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            opened(EVERYWHERE, port, kind)
    for each in opened(EVERYWHERE, port, kind):  # nothing of the first try is left
        each.close()


@KINDS
def test_tcp_and_udp_of_one_number_are_apart(kind: socket.SocketKind) -> None:
    port = free()
    with bound("0.0.0.0", TCP if kind == UDP else UDP, port):
        for each in opened(EVERYWHERE, port, kind):
            each.close()


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_a_machine_without_ipv6_listens_by_ipv4_alone(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bind = ingress_sockets._bound

    def poor(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
        if host == "::":
            raise OSError(number, "no such family")
        return bind(host, port, kind)

    monkeypatch.setattr(ingress_sockets, "_bound", poor)
    (only,) = opened(EVERYWHERE, free(), TCP)
    assert only.family == socket.AF_INET
    only.close()
    with pytest.raises(OSError, match="no such family"):
        opened(["::"], free(), TCP)


def test_a_port_below_1024_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(ingress_sockets, "_bound", refused)
    with pytest.raises(OSError, match="Permission denied"):
        opened(EVERYWHERE, 80, TCP)


@for_all(st.integers(0, 1 << 20))
def test_a_quarter_of_the_files_is_the_nodes_own(files: int) -> None:
    connections, flows = shares(files)
    assert 2 * connections + flows <= files * 3 // 4 + 1
    assert connections <= CONNECTIONS_MAX
    assert flows <= FLOWS_MAX


def test_shares_are_those_of_this_process() -> None:
    assert shares() == shares(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    assert shares(1 << 20) == (CONNECTIONS_MAX, FLOWS_MAX)
    assert shares(1024) == (256, 256)


def test_trouble_is_told_once_a_minute(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    monkeypatch.setattr(ingress_sockets.time, "monotonic", lambda: now)
    seldom = Seldom(logging.getLogger("test"))
    for step in (0.0, 0.0, QUIET_S - 1, 1.0, 1.0):
        now += step
        seldom.warn("at %g", now)
    assert [record.message for record in caplog.records] == ["at 1000", f"at {1000 + QUIET_S:g}"]
