"""What tests of every kind may use."""

from __future__ import annotations

import getpass
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A unix socket's path has 107 bytes, and tests have directories such as
# /tmp/pytest-of-root/pytest-0/popen-gw0/test_name0. A machine may have its temporary files at a longer place, or a user
# with a longer name.
os.environ.pop("PYTEST_DEBUG_TEMPROOT", None)
if len(os.fsencode(tempfile.gettempdir())) > 8:
    os.environ["TMPDIR"] = tempfile.tempdir = "/tmp"
USER_MAX = 8

# How long an example takes is the machine's matter: no test fails for it.
settings.register_profile("swarmlet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("swarmlet")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Before pytest chooses the place of ``tmp_path``."""
    if config.option.basetemp is None and len(os.fsencode(_user())) > USER_MAX:
        config.option.basetemp = tempfile.mkdtemp(prefix="swarmlet-")


def _user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, OSError, KeyError):
        return "unknown"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory as ``tmp_path``, with a path short enough for unix sockets below it (a socket's has 107 bytes)."""
    path = Path(tempfile.mkdtemp(prefix="swarmlet-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
