"""What tests of every kind may use."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A machine may have its temporary files at a path so long that no unix socket (107 bytes) has room below it.
if len(os.fsencode(tempfile.gettempdir())) > 24:
    os.environ["TMPDIR"] = tempfile.tempdir = "/tmp"

# How long an example takes is the machine's matter: no test fails for it.
settings.register_profile("swarmlet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("swarmlet")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory as ``tmp_path``, with a path short enough for unix sockets below it (a socket's has 107 bytes)."""
    path = Path(tempfile.mkdtemp(prefix="swarmlet-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
