"""A console in tests asks often, and has its time."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is busy an answer may take long, and what was said may be looked at late."""
    app = pytest.importorskip("swarmlet.console.app")
    monkeypatch.setattr(app, "REFRESH_S", 0.03)
    monkeypatch.setattr(app, "SILENT_S", 600.0)
    monkeypatch.setattr(app.Console, "NOTIFICATION_TIMEOUT", 600.0)
