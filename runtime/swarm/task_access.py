"""Reaching a task at its node from a manager: whether that can be, how much may be under way, who broke the rules.

Rules owned here: a node is reached over a stream that it opened itself, so one that has none is named with the reason.
Each direction of a command has a window: what was sent and not yet taken by the other end costs its bytes and a little
for each piece, and never more than ``WINDOW`` in all. Both ends count alike, and so does the manager in between, which
ends what does not keep to it: so nobody can fill another's memory, nor a stream's queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from runtime.swarm.ports import View
from runtime.swarm.raft_pace import PACE_LABEL
from runtime.wire.pb import access_pb2 as access
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

WINDOW: Final = 256 << 10
PIECE_MAX: Final = 32 << 10
PIECE_COST: Final = 128  # what a piece costs beside its bytes: so at most 2048 are under way
COMMANDS_MAX: Final = 16  # of one node, asked for from elsewhere
ANSWER_MAX: Final = 20.0  # seconds until a node has answered
IDLE_MAX: Final = 4 * 3600.0  # seconds without a word in either direction
ARGV_MAX: Final = 128 << 10  # bytes of a command's words and environment
NAME_MAX: Final = 80
BROKEN: Final = "the other end did not keep to what was agreed"
SWITCHED_OFF: Final = "the node of this task lets nobody reach it from elsewhere (--no-remote-exec)"
LOST: Final = "the connection to the task's node was lost"
LEADER_GONE: Final = "another manager leads the swarm now"
ENDED_IDLE: Final = f"nothing was said for {IDLE_MAX / 3600:g} hours"

_ANSWERS: Final = frozenset({"done", "begun", "not_begun", "processes", "usage", "refused"})
_OF_COMMANDS: Final = frozenset({"output", "taken", "exit", "refused"})


def cost(data: bytes) -> int:
    """What a piece takes of a window."""
    return len(data) + PIECE_COST


def pieces(data: bytes) -> Iterator[bytes]:
    """Pieces that may be sent, in order."""
    for start in range(0, len(data), PIECE_MAX):
        yield data[start : start + PIECE_MAX]


class Window:
    """One direction: ``spend`` what is sent, ``give`` back what the other end has taken."""

    __slots__ = ("_size", "under_way")

    def __init__(self, size: int = WINDOW) -> None:
        self._size = size
        self.under_way = 0

    def has_room(self, price: int) -> bool:
        """Whether so much may be sent."""
        return self.under_way + price <= self._size

    def spend(self, price: int) -> bool:
        """So much is sent; False, and nothing changes, if there is no room for it."""
        if not self.has_room(price):
            return False
        self.under_way += price
        return True

    def give(self, price: int) -> bool:
        """So much was taken; False, and nothing changes, if not so much is under way."""
        if not 0 < price <= self.under_way:
            return False
        self.under_way -= price
        return True


class Agreement:
    """What of a command's messages the manager in between lets pass. Each method is False for what breaks the rules."""

    __slots__ = ("_input", "_output", "answered", "is_command", "over")

    def __init__(self, question: access.AccessQuestion) -> None:
        self.is_command = question.WhichOneof("what") == "run"
        self.answered = False
        self.over = False
        """Nothing follows what came last from the task."""
        self._input = Window()
        self._output = Window()

    def from_task(self, message: access.FromTask) -> bool:
        """One answer first; of a command that has begun, what it says until its end."""
        what = message.WhichOneof("what") or ""
        if self.over or what not in (_OF_COMMANDS if self.answered else _ANSWERS):
            return False
        if not self.answered:
            self.answered = True
            self.over = what != "begun"
            return self.is_command or what not in ("begun", "not_begun")
        self.over = what in ("exit", "refused")
        if what == "output":
            return message.output.stream in (1, 2) and self._output.spend(cost(message.output.data))
        return what != "taken" or self._input.give(message.taken)

    def to_task(self, message: access.ToTask) -> bool:
        """Input within the window, and what else concerns a command."""
        what = message.WhichOneof("what")
        if what == "input":
            return self._input.spend(cost(message.input))
        if what == "taken":
            return self._output.give(message.taken)
        return what in ("input_end", "size")


def find_task(view: View, task_id: str) -> tuple[objects.Task, objects.Node]:
    """A task and its node. Raises LookupError with a sentence if there is no such task, or none on a node."""
    task = view.get(objects.Task, task_id)
    if task is None:
        raise LookupError(f"task {task_id} not found")
    node = view.get(objects.Node, task.node_id) if task.node_id else None
    if node is None:
        raise LookupError(f"task {task_id} is on no node")
    return task, node


def is_down(node: objects.Node) -> bool:
    """Whether the swarm takes it for down."""
    return node.status.state == types.NodeStatus.DOWN


def is_ours(node: objects.Node) -> bool:
    """Whether it is a node that may listen; all of ours say so in their description."""
    return node.description.engine.labels.get(PACE_LABEL) is not None


def why_unreached(node: objects.Node) -> str:
    """Why a node that does not listen here cannot be asked."""
    name = node.description.hostname or node.id
    if is_down(node):
        return f"the node of this task, {name}, is down"
    if not is_ours(node):
        return f"the node of this task, {name}, is a dockerd, which is reached at itself alone: run the command there"
    return (
        f"the node of this task, {name}, does not listen at the manager that leads: it is out of touch, of an older "
        "version, or reaches the swarm by a dockerd"
    )


def is_too_large(command: access.RunCommand) -> bool:
    """Whether a command's words and environment are more than is carried."""
    return sum(len(each.encode()) + 1 for each in (*command.argv, *command.env)) > ARGV_MAX


def shown(text: str) -> str:
    """A name that somebody else made up, for a line of a log."""
    cut = text if len(text) <= NAME_MAX else f"{text[:NAME_MAX]}..."
    return ascii(cut)
