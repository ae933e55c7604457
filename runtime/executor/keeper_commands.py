"""Commands that are run beside a task, as long as who asked for them is there: the keeper's side.

They have what the task has (account, limits, control group) and descriptors that whoever asked brought along, so
nothing of what they say goes through the keeper. Imported by the keeper: standard library only.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from runtime.executor import spawn
from runtime.executor.reactor import Reactor


class Command:
    """One command. ``begun`` hears ``{"pid": ...}`` once it is in its program, or ``error`` and ``code``."""

    __slots__ = ("_begun", "_reactor", "_waiters", "child", "code", "spec")

    def __init__(self, reactor: Reactor, spec: spawn.Spec, child: spawn.Child, begun: Callable[[Any], None]) -> None:
        self._reactor = reactor
        self._begun: Callable[[Any], None] | None = begun
        self._waiters: list[Callable[[int], None]] = []
        self.spec = spec
        self.child = child
        self.code: int | None = None
        reactor.watch(child.error_fd, self._look)

    def when_ended(self, reply: Callable[[int], None]) -> None:
        """``reply`` hears the exit code."""
        if self.code is not None:
            reply(self.code)
        else:
            self._waiters.append(reply)

    def kill(self) -> None:
        """Ends it with its process group; of one that has ended, nothing."""
        if self.code is not None:
            return
        for send in (os.killpg, os.kill):  # it has not made its group yet, perhaps
            try:
                send(self.child.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue

    def ended(self, code: int) -> None:
        """It was reaped."""
        self._look()
        self.child.abandon()
        self._tell({"error": "it ended before it began", "code": code})
        self.code = code
        waiters, self._waiters = self._waiters, []
        for reply in waiters:
            reply(code)

    def _look(self) -> None:
        """The error pipe says something, or closed: the program has begun."""
        data = self.child.begun(self._reactor.forget)
        if data:
            text, code = spawn.explain(data, self.spec)
            self._tell({"error": text, "code": code})
        elif data is not None:
            self._tell({"pid": self.child.pid})

    def _tell(self, result: dict[str, Any]) -> None:
        begun, self._begun = self._begun, None
        if begun is not None:
            begun(result)
