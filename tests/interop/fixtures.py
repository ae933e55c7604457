"""A lab for each test, and daemons on its machines; what they said is shown when the test fails."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.interop.lab import Lab
from tests.interop.peers import Peer

Start = Callable[[type[Peer], str], Peer]
FAILED: pytest.StashKey[bool] = pytest.StashKey()


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Machines for one test."""
    made = Lab()
    yield made
    made.end()


@pytest.fixture
def start(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Starts a daemon of a kind under a name, on a machine of its own."""
    started: list[Peer] = []

    def begin(kind: type[Peer], name: str) -> Peer:
        peer = kind(lab, name)
        started.append(peer)
        peer.start()
        return peer

    yield begin
    if request.node.stash.get(FAILED, False):
        for peer in started:
            print(f"\n--- {peer.kind} {peer.name}\n{peer.tail()}")
    for peer in started:
        if peer.process is not None and peer.process.poll() is None:
            with contextlib.suppress(OSError, AssertionError):
                peer.try_docker("swarm", "leave", "--force")
            peer.kill()
