"""Whose logs a subscription wants: which nodes are asked, which are still awaited, and how it ends.

Rules owned here (SwarmKit's log broker): one that does not follow asks the nodes of the tasks that have run, and ends
when every node has said that it is done; what could not be had is named at the end. A node of processes is asked from
the assignment on: a task may have written while its status is still on the way here. (A container engine would hold its
answer back until the container starts.) One that follows never ends by
itself, and asks nodes as tasks come to them. Nodes that were named themselves are awaited as well.
"""

from __future__ import annotations

from typing import Final

from runtime.errors import Code, Refused, invalid
from runtime.swarm.actor_spec import offers_any
from runtime.swarm.ingress_tables import forwards
from runtime.swarm.ports import View
from runtime.wire.pb import logs_pb2 as logs
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

INCOMPLETE: Final = "warning: incomplete log stream. some logs could not be retrieved for the following reasons: "


def check_selector(selector: logs.LogSelector) -> None:
    """``Refused(INVALID_ARGUMENT)`` for a selector that selects nothing."""
    if not (selector.service_ids or selector.node_ids or selector.task_ids):
        raise invalid("log selector must be provided")


class LogSelection:
    """One subscription's nodes. ``nodes`` are all that were asked, in the order in which they were found."""

    __slots__ = ("_awaited", "_pending", "_reasons", "follow", "id", "nodes", "options", "selector")

    def __init__(self, id: str, request: logs.SubscribeLogsRequest) -> None:
        check_selector(request.selector)
        self.id = id
        self.selector = request.selector
        self.options = request.options
        self.follow = request.options.follow
        self.nodes: dict[str, None] = {}
        self._awaited: dict[str, None] = {}
        self._pending: dict[str, None] = {}
        self._reasons: list[str] = []

    def match(self, view: View) -> None:
        """Finds the nodes of a view: by index, one service or task after the other."""
        for node_id in self.selector.node_ids:
            self._ask(node_id)
        for task_id in self.selector.task_ids:
            task = view.get(objects.Task, task_id)
            if task is not None:
                self.add(task)
        for service_id in self.selector.service_ids:
            for task in view.find(objects.Task, "service", service_id):
                if self.follow or task.status.state >= types.RUNNING or _may_have_written(view, task):
                    self.add(task)

    def add(self, task: objects.Task) -> bool:
        """A task that is meant. True if its node was not asked before."""
        if task.node_id:
            return self._ask(task.node_id)
        if not self.follow:
            self._pending[task.id] = None
        return False

    def _ask(self, node_id: str) -> bool:
        if node_id in self.nodes:
            return False
        self.nodes[node_id] = None
        if not self.follow:
            self._awaited[node_id] = None
        return True

    def done(self, node_id: str, reason: str = "") -> None:
        """A node has said all, or will say no more for ``reason``; again is nothing."""
        if node_id not in self._awaited:
            return
        del self._awaited[node_id]
        if reason:
            self._reasons.append(reason)

    @property
    def awaited(self) -> tuple[str, ...]:
        """The nodes that have not said all."""
        return tuple(self._awaited)

    @property
    def complete(self) -> bool:
        """Whether nothing more is to come."""
        return not self.follow and not self._awaited

    @property
    def outcome(self) -> Refused | None:
        """How a complete one ends: well, or with the reasons why it is not whole."""
        reasons = [*self._reasons, *(f"task {id} has not been scheduled" for id in self._pending)]
        return Refused(Code.UNKNOWN, INCOMPLETE + ", ".join(reasons)) if reasons else None

    def message(self, close: bool = False) -> logs.SubscriptionMessage:
        """What nodes are told of it."""
        return logs.SubscriptionMessage(id=self.id, selector=self.selector, options=self.options, close=close)


def _may_have_written(view: View, task: objects.Task) -> bool:
    node = view.get(objects.Node, task.node_id) if task.status.state >= types.ASSIGNED else None
    return node is not None and (forwards(node.description) or offers_any(node))


def not_available(node_id: str) -> str:
    """Why a node that does not listen says nothing."""
    return f"node {node_id} is not available"


def disconnected(node_id: str) -> str:
    """Why a node that listened says no more."""
    return f"node {node_id} disconnected unexpectedly"


def is_down(node_id: str) -> str:
    """Why nothing comes of a node that the swarm takes for down."""
    return f"node {node_id} is down"


def silent(node_id: str, seconds: float) -> str:
    """Why a node that listens, but says neither anything nor that it is done, is not waited for any longer."""
    return f"node {node_id} said nothing for {seconds:g} s"


def gap_message(node_id: str, task: objects.Task, reason: str) -> logs.SubscribeLogsMessage:
    """Told to who follows, in the place of lines that do not come: a line of the task's on stderr."""
    message = logs.LogMessage(stream=logs.LOG_STREAM_STDERR, data=f"[logs are interrupted here: {reason}]\n".encode())
    message.context.node_id, message.context.service_id, message.context.task_id = node_id, task.service_id, task.id
    return logs.SubscribeLogsMessage(messages=[message])
