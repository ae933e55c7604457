"""Daemons that tests of this folder share the making of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.daemon.program import Daemon


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon with a swarm of its own, whose tasks end with it."""
    daemon = Daemon(tmp_path / "d", "127.0.0.1", "--stop-tasks-on-exit")
    daemon.start()
    daemon.init()
    yield daemon
    if daemon.process is not None and daemon.process.poll() is None:
        daemon.stop()
