"""Which statuses a manager has still to hear: the newest of each task, in the order in which tasks began to wait.

As SwarmKit's reliable reporter: an update that says nothing new, or of an earlier state than one that waits, is left
out; what could not be sent waits again unless something newer does. Unlike it, many go in one call.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from runtime.wire.pb import types_pb2 as types

BATCH_MAX: Final = 1000
BATCH_BYTES_MAX: Final = 1 << 20  # far below the 4 MiB that a manager takes in one message

Update = tuple[str, types.TaskStatus]


class StatusReports:
    """Statuses that wait to be sent, by task."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[str, types.TaskStatus] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def note(self, task_id: str, status: types.TaskStatus) -> bool:
        """Something to report; False if something newer waits, or the same."""
        waiting = self._waiting.get(task_id)
        if waiting is not None and (status.state < waiting.state or status == waiting):
            return False
        self._waiting[task_id] = status
        return True

    def forget(self, task_id: str) -> None:
        """Nobody need hear of that task any more."""
        self._waiting.pop(task_id, None)

    def take(self) -> tuple[Update, ...]:
        """What goes into the next call; it no longer waits. At least one, if any waits at all."""
        taken: list[Update] = []
        size = 0
        for task_id, status in self._waiting.items():
            size += status.ByteSize() + len(task_id)
            if taken and (len(taken) == BATCH_MAX or size > BATCH_BYTES_MAX):
                break
            taken.append((task_id, status))
        for task_id, _ in taken:
            del self._waiting[task_id]
        return tuple(taken)

    def put_back(self, updates: Iterable[Update]) -> None:
        """These could not be sent."""
        for task_id, status in updates:
            self._waiting.setdefault(task_id, status)
