"""When an agent tries for a session again, and whether assignment messages follow on one another."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from runtime.errors import Code
from runtime.wire.pb import dispatcher_pb2 as dispatcher

if TYPE_CHECKING:
    import random

    from runtime.errors import Refused

BACKOFF_STEP: Final = 0.1
BACKOFF_MAX: Final = 8.0
RESULT: Final = re.compile(r"[0-9]+\.([0-9a-f]{1,13})")
REMOVED_PAUSE: Final = 60.0
"""Seconds between the tries of a node that was removed: only a manager that was set back would take it again."""


class SessionBackoff:
    """As SwarmKit's agent: after each error the bound is twice the last one and 100 ms more, at most 8 s; the delay
    is drawn evenly below the bound. Seconds throughout."""

    __slots__ = ("bound",)

    def __init__(self) -> None:
        self.bound = 0.0

    def failed(self) -> None:
        """One more error."""
        self.bound = min(BACKOFF_STEP + 2 * self.bound, BACKOFF_MAX)

    def succeeded(self) -> None:
        """This node is registered: the next error is the first."""
        self.bound = 0.0

    def delay(self, rng: random.Random) -> float:
        """How long to wait before the next try."""
        return rng.random() * self.bound


def says_removed(refused: Refused, node_id: str) -> bool:
    """Whether a manager refused a call because this node was removed from the swarm (SwarmKit's text)."""
    return refused.code is Code.PERMISSION_DENIED and f"node {node_id} was removed from swarm" in refused.text


class AssignmentSequence:
    """The messages of one assignment stream: a complete set, then changes, each to what the last one resulted in."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: str | None = None

    def check(self, message: dispatcher.AssignmentsMessage) -> str | None:
        """None if the message follows on the last; else what is wrong, and the stream is of no more use."""
        last = self._last if self._last is not None else ""
        if message.applies_to != last:
            return f"assignments out of sequence: a change to {message.applies_to!r} came after {last!r}"
        if self._last is None and message.type != dispatcher.AssignmentsMessage.COMPLETE:
            return "assignments began with a change instead of a complete set"
        self._last = message.results_in
        return None


def trace_in(message: dispatcher.AssignmentsMessage) -> int:
    """The id of the trace that a manager of our kind names in the message's ``results_in``; 0 if there is none."""
    found = RESULT.fullmatch(message.results_in)
    return int(found[1], 16) if found is not None else 0


def from_tasks(message: dispatcher.TasksMessage) -> dispatcher.AssignmentsMessage:
    """What an old manager's list of tasks means: the complete set, without secrets and configs."""
    full = dispatcher.AssignmentsMessage(type=dispatcher.AssignmentsMessage.COMPLETE)
    for task in message.tasks:
        full.changes.add(action=dispatcher.AssignmentChange.UPDATE).assignment.task.CopyFrom(task)
    return full
