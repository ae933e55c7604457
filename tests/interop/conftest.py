"""A lab for each test; what its daemons said is shown when the test fails."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.lab import Lab, missing
from tests.interop.peers import Peer

FAILED: pytest.StashKey[bool] = pytest.StashKey()
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs root and dockerd."""
    here = [item for item in items if HERE in item.path.parents]
    reason = missing() if here else ""
    for item in here:
        item.add_marker("root")
        item.add_marker(pytest.mark.timeout(240))
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.when == "call":  # type: ignore[attr-defined]
        item.stash[FAILED] = report.failed  # type: ignore[attr-defined]
    return report


@pytest.fixture
def lab() -> Iterator[Lab]:
    """Machines for one test."""
    made = Lab()
    yield made
    made.end()


@pytest.fixture
def start(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Callable[[type[Peer], str], Peer]]:
    """Starts a daemon of a kind under a name, on a machine of its own."""
    started: list[Peer] = []

    def begin(kind: type[Peer], name: str) -> Peer:
        peer = kind(lab, name)
        started.append(peer)
        peer.start()
        return peer

    yield begin
    if request.node.stash.get(FAILED, True):
        for peer in started:
            print(f"\n--- {peer.kind} {peer.name}\n{peer.tail()}")
    for peer in started:
        if peer.process is not None and peer.process.poll() is None:
            with contextlib.suppress(OSError, AssertionError):
                peer.try_docker("swarm", "leave", "--force")
            peer.kill()
