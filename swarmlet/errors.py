"""How the face says no: exit codes follow from the type."""

from __future__ import annotations

from typing import Final

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_TIMED_OUT: Final = 124
EXIT_INTERRUPTED: Final = 130
EXIT_TERMINATED: Final = 143


class UsageError(Exception):
    """What was typed, or written into a configuration file, makes no sense. Exit code 2."""


class StartError(Exception):
    """A node cannot start here and now; the text says why and what would help. Exit code 1."""
