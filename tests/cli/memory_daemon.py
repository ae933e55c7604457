"""``swarmlet`` as its users type it, with tasks that are entries in a table: a program for the tests beside it."""

from __future__ import annotations

import sys

from swarmlet import cli, daemon
from tests.integration.face.worlds import Machine

if __name__ == "__main__":
    machine = Machine()
    daemon.ProcessExecutor = lambda **_settings: machine.factory  # type: ignore[assignment,misc]
    sys.exit(cli.main())
