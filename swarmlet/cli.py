"""``swarmlet``: one command each, errors as one sentence on stderr, exit codes 2 for usage and 1 for the rest."""

from __future__ import annotations

import gc
import os
import platform
import sys
from collections.abc import Sequence

from swarmlet import __version__, options
from swarmlet.errors import EXIT_FAILED, EXIT_OK, EXIT_USAGE, StartError, UsageError


def main(arguments: Sequence[str] | None = None) -> int:
    """The whole command; the exit code."""
    try:
        return _run(options.parse(sys.argv[1:] if arguments is None else arguments, os.environ, os.getuid()))
    except UsageError as error:
        print(f"swarmlet: {error}", file=sys.stderr)
        return EXIT_USAGE
    except StartError as error:
        print(f"swarmlet: {error}", file=sys.stderr)
        return EXIT_FAILED
    except BrokenPipeError:
        # Whoever read our output is gone. Nothing more can be said, not even by the interpreter's own flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


def _run(asked: options.Options) -> int:
    """Commands are imported when they are run: asking for a version must not load a node."""
    if isinstance(asked, options.DaemonOptions):
        gc.disable()  # a start makes little but what stays; the daemon turns the collector on when it is up
        from swarmlet import daemon

        return daemon.run(asked)
    if isinstance(asked, options.UpOptions):
        from swarmlet import up

        return up.run(asked, os.environ)
    if isinstance(asked, options.LookOptions):
        from swarmlet import look

        return look.run(asked)
    if isinstance(asked, options.RecoveryOptions):
        from swarmlet import recovery

        return recovery.run(asked)
    if isinstance(asked, options.OperatorOptions):
        from swarmlet import operate

        return operate.run(asked)
    print(f"swarmlet {__version__} (Python {platform.python_version()})")
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
