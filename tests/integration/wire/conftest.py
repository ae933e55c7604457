"""The world of tests over real sockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.wire.worlds import SocketWorld


@pytest.fixture
def world() -> Iterator[SocketWorld]:
    """Taken down with its servers and channels."""
    made = SocketWorld()
    yield made
    made.close()
