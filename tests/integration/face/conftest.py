"""A node that is asked about itself has its time: a machine that is busy is not what these tests are about."""

from __future__ import annotations

import pytest

from runtime.introspection import asks, client
from swarmlet.console import engine


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state is waited for longer than an actor is ever silent, and an answer longer than that."""
    monkeypatch.setattr(asks, "STATE_DEADLINE_S", 40.0)
    monkeypatch.setattr(client, "TIMEOUT_S", 60.0)
    monkeypatch.setattr(engine, "TIMEOUT_S", 60.0)
