"""The reconfigurations of this process's part in a swarm (init, join, leave, unlock): one at a time, others in a queue.

The part of ClusterActor that keeps order: who asked for what is under way, who waits, and that whoever asked is
answered once. What an operation does is ClusterActor's.
"""

from __future__ import annotations

import abc
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors.cluster_questions import ClusterQuestions
from runtime.errors import Refused
from runtime.protocol import cluster as say
from runtime.protocol.cluster import ClusterError, InitRequest
from runtime.protocol.node import StartConfig
from runtime.stage import Reply, Timer, handles


@dataclass(slots=True)
class Operation:
    """The reconfiguration under way: who asked, and what is to happen at readiness or failure. ``after_stop`` is what
    to start once the node that runs has ended."""

    kind: str
    reply: Reply
    request: InitRequest | None = None
    spec_tries: int = 0
    after_stop: StartConfig | None = None
    failed: ClusterError | None = None


@dataclass(frozen=True, slots=True)
class _Overdue:
    """An operation of this kind was not over in time."""

    kind: str
    text: str


class ClusterOperations(ClusterQuestions):
    """``source_address`` is where this machine speaks from to an IP address."""

    def __init__(self, source_address: Callable[[str], str]) -> None:
        super().__init__(source_address)
        self._operation: Operation | None = None
        self._waiting: deque[tuple[Any, Reply]] = deque()
        self._overdue: Timer | None = None

    @abc.abstractmethod
    def _carry_out(self, message: Any, reply: Reply) -> None:
        """Begins an operation: sets ``_operation``, or refuses, or answers at once."""

    @handles(say.Init, say.Join, say.Leave, say.Unlock)
    def reconfigure(self, message: Any) -> None:
        """Begins at once if nothing is under way, else waits its turn."""
        reply = self.defer()
        if self._operation is None:
            self._begin(message, reply)
        else:
            self._waiting.append((message, reply))

    def _begin(self, message: Any, reply: Reply) -> None:
        try:
            self._carry_out(message, reply)
        except Refused as refused:
            reply.fail(refused)
            self._next()

    def _finish(self, value: Any = None, error: BaseException | None = None) -> None:
        operation, self._operation = self._operation, None
        self._not_overdue()
        if operation is not None:
            if error is None:
                operation.reply.set(value)
            else:
                operation.reply.fail(error)
        self._next()

    def _next(self) -> None:
        if self._operation is None and self._waiting:
            self._begin(*self._waiting.popleft())

    def _answer_within(self, seconds: float, kind: str, text: str) -> None:
        """After so long whoever asked for the operation is told ``text``, and it goes on without them."""
        self._not_overdue()
        self._overdue = self.after(seconds, _Overdue(kind, text))

    def _not_overdue(self) -> None:
        """Nobody is told that it takes too long: what comes of the operation is known."""
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    @handles(_Overdue)
    def overdue(self, message: _Overdue) -> None:
        """The caller is told, and the node goes on starting."""
        if self._operation is not None and self._operation.kind == message.kind:
            self._finish(error=ClusterError("unavailable", message.text))

    def _operation_name(self) -> str:
        return self._operation.kind if self._operation is not None else ""
