"""Where the console's answers come from: a node's introspection socket and its API, here or over ssh.

Rules owned here: every call may fail, and says so in a sentence (``Lost``) when the node is not there; the next call
connects anew, so a daemon that restarts is found again. Over ssh both sockets are forwarded into a private directory;
an ssh that ended is begun again, without asking anybody for a password.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from runtime.introspection.client import Link, NoAnswer
from runtime.wire.private_directory import for_sockets
from swarmlet.console.engine import Engine, EngineError, EngineRefused
from swarmlet.errors import StartError

FORWARD_S: Final = 20.0
AGAIN_S: Final = 5.0
ALIVE: Final = ("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "-o", "LogLevel=ERROR")
"""A network that is gone is noticed within 20 s, and nothing but errors is written over the terminal's pages."""


class Lost(Exception):
    """The node does not answer; the text says how."""


class Source:
    """Answers for one viewer, to any thread, one after the other; streams have connections of their own. ``renew`` is
    called before each connection: Lost if there is no way to the node."""

    def __init__(self, introspection: str, api: str = "", renew: Callable[[], None] = lambda: None) -> None:
        self.introspection = introspection
        self._api = api
        self._renew = renew
        self._link: Link | None = None
        self._lock = threading.Lock()

    def ask(self, what: str, /, **details: Any) -> Any:
        """One question about the actors. ValueError with the node's own refusal."""
        with self._lock:
            kept = self._link is not None
            try:
                return self._ask(what, details)
            except NoAnswer as error:
                if not kept or what == "act":
                    raise Lost(str(error)) from None
            try:  # the node may have hung up on one who said nothing for long: once more
                return self._ask(what, details)
            except NoAnswer as error:
                raise Lost(str(error)) from None

    def _ask(self, what: str, details: dict[str, Any]) -> Any:
        try:
            if self._link is None:
                self._renew()
                self._link = Link(self.introspection)
            return self._link.ask(what, **details)
        except NoAnswer:
            self.drop()
            raise

    def drop(self) -> None:
        """Ends the connection, and with it whatever was begun over it."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def link(self) -> Link:
        """A connection of its own, for a trace."""
        self._renew()
        try:
            return Link(self.introspection)
        except NoAnswer as error:
            raise Lost(str(error)) from None

    @property
    def engine(self) -> Engine:
        """The node's API. Lost if the node does not say where it is."""
        if not self._api:
            self._api = next(iter(self.ask("node").get("api", ())), "")
        if not self._api:
            raise Lost("the node serves no API at a unix socket")
        self._renew()
        return Engine(self._api)

    def get(self, path: str, **query: Any) -> Any:
        """One answer of the API; a refusal is a ValueError in the daemon's own words. Lost if there is none."""
        try:
            return self.engine.get(path, **query)
        except EngineRefused as error:
            raise ValueError(str(error)) from None
        except EngineError as error:
            raise Lost(str(error)) from None


class Forwarded:
    """The sockets of a node on another machine, brought here by ssh for as long as this is open."""

    def __init__(self, host: str, introspection: str, api: str) -> None:
        if not host or host.startswith("-"):
            raise StartError(f"{host!r} is no host for ssh")
        self.directory = Path(tempfile.mkdtemp(prefix="swarmlet-console-", dir=for_sockets()))
        self.introspection = str(self.directory / "i.sock")
        self.api = str(self.directory / "a.sock")
        self._host = host
        self._command = ["ssh", "-N", *ALIVE, "-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindUnlink=yes"]
        self._command += ["-L", f"{self.introspection}:{introspection}", "-L", f"{self.api}:{api}", "--", host]
        self._lock = threading.Lock()
        try:
            self._ssh = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)  # noqa: S603 - no shell, a checked host
            self._wait(FORWARD_S)
        except BaseException:
            self.close()
            raise

    def renew(self) -> None:
        """Begins ssh again if it ended. Lost if it cannot, or only by asking somebody."""
        with self._lock:
            if self._ssh.poll() is None:
                return
            for path in (self.introspection, self.api):
                Path(path).unlink(missing_ok=True)
            quiet = [self._command[0], "-o", "BatchMode=yes", "-o", f"ConnectTimeout={AGAIN_S:.0f}", *self._command[1:]]
            null = subprocess.DEVNULL  # an error would be written over the page: it is said at its head
            self._ssh = subprocess.Popen(quiet, stdin=null, stderr=null)  # noqa: S603 - no shell, a checked host
            try:
                self._wait(AGAIN_S)
            except StartError as error:
                raise Lost(str(error)) from None

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not os.path.exists(self.introspection):
            if self._ssh.poll() is not None:
                raise StartError(f"ssh to {self._host} ended with {self._ssh.returncode}")
            if time.monotonic() > until:
                raise StartError(f"ssh to {self._host} did not forward the sockets within {seconds:g} s")
            time.sleep(0.05)

    def close(self) -> None:
        """Ends ssh and removes what it made."""
        ssh = getattr(self, "_ssh", None)
        if ssh is not None and ssh.poll() is None:
            ssh.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                ssh.wait(5)
        shutil.rmtree(self.directory, ignore_errors=True)
