"""``swarmlet console``: finds the node, here or by ssh, and runs the terminal."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import NoReturn

from swarmlet.console.app import Console
from swarmlet.console.source import Forwarded, Lost, Source
from swarmlet.errors import EXIT_OK, StartError


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def run(socket: str, api: str, ssh: str, write: bool) -> int:
    """Runs until the viewer leaves. StartError if there is no terminal, or no node at the start."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise StartError("the console needs a terminal; swarmlet tree and top print the same in plain lines")
    with contextlib.ExitStack() as ends:

        def hung_up(number: int, frame: object) -> NoReturn:
            """The terminal is gone. An orderly end would restore it first: textual writes to it and waits for the
            thread that reads from it, which finds its end again and again."""
            ends.close()
            os._exit(128 + number)

        for number, handler in ((signal.SIGHUP, hung_up), (signal.SIGTERM, _end)):
            ends.callback(signal.signal, number, signal.signal(number, handler))
        source = Source(socket, api)
        if ssh:
            forwarded = Forwarded(ssh, socket, api)
            ends.callback(forwarded.close)
            source = Source(forwarded.introspection, forwarded.api, forwarded.renew)
        try:
            source.ask("node")
        except Lost as lost:
            raise StartError(str(lost)) from None
        Console(source, write).run()
    return EXIT_OK
