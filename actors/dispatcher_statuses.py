"""What nodes say, until it is written: the part of DispatcherActor that takes statuses and brings them to the store.

Rules kept here:
1. What nodes say is written every 100 ms, what others wait for 25 ms after it was said, and all at once when 10 000
   statuses wait. While statuses are being written the next ones wait for the end of that: as in SwarmKit, a busy leader
   writes larger batches, and fewer of them.
2. The furthest word about a task counts: states that are passed through meanwhile are not written.
3. What could not be written is written again, unless newer words came.
4. A node that registers has its session once it stands in the store.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from google.protobuf.message import Message

from actors.serving import Serving, serves
from actors.store_watcher import StoreWatcher
from runtime.errors import Code, Refused
from runtime.protocol.manager import LeaderContext
from runtime.protocol.store import Step
from runtime.stage import Answer, Timer, handles
from runtime.stage.observe import Causes
from runtime.swarm.node_status import (
    NodeRegistry,
    NodeUpdate,
    is_awaited,
    write_node,
    write_task_status,
    write_unpublished,
)
from runtime.wire.pb import dispatcher_pb2 as dispatcher
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from runtime.wire.port import Call

FLUSH_EVERY = 0.1
FLUSH_SOON = 0.025
FLUSH_AT = 10_000
SCHEDULING = "swarm_dispatcher_scheduling_delay_seconds"


@dataclass(slots=True)
class _Waiting:
    """What is to be written, and the sessions that begin once it is. ``passing`` are states that nobody waits for:
    they are left for the words to come until ``patience`` is over."""

    tasks: dict[str, tuple[str, types.TaskStatus]] = field(default_factory=dict)
    passing: dict[str, tuple[str, types.TaskStatus]] = field(default_factory=dict)
    patience: float = 0.0
    nodes: dict[str, NodeUpdate] = field(default_factory=dict)
    volumes: dict[tuple[str, str], None] = field(default_factory=dict)
    registering: list[Call] = field(default_factory=list)
    causes: Causes = field(default_factory=Causes)

    def __bool__(self) -> bool:
        return bool(self.tasks or self.passing or self.nodes or self.volumes)

    @property
    def statuses(self) -> int:
        """About how many tasks something was said."""
        return len(self.tasks) + len(self.passing)

    def last_word(self, task_id: str) -> tuple[str, types.TaskStatus] | None:
        """The furthest word about a task so far."""
        return self.tasks.get(task_id) or self.passing.get(task_id)

    def hear(self, task_id: str, node_id: str, status: types.TaskStatus, awaited: bool) -> None:
        """A node's word about a task. One that was lost on its way and made again may come behind a later one."""
        before = self.last_word(task_id)
        if before is not None and before[1].state > status.state:
            return
        if awaited or task_id in self.tasks:
            self.passing.pop(task_id, None)
            self.tasks[task_id] = (node_id, status)
        else:
            self.passing[task_id] = (node_id, status)

    def take(self, now: float, busy: bool) -> tuple[_Waiting, _Waiting]:
        """What is to be written now, and what goes on waiting: all statuses if others are being written (``busy``)."""
        if not busy and (self.statuses >= FLUSH_AT or self.patience <= now):
            self.tasks.update(self.passing)
            self.passing = {}
        left = _Waiting(passing=self.passing, patience=self.patience)
        self.passing = {}
        if busy:
            left.tasks, self.tasks = self.tasks, {}
        if left:
            left.causes = self.causes.copy()  # which of them are those of what is left was not noted
        return self, left

    def steps(self, manager_id: str) -> list[Step]:
        """One step for each, nodes first: they are what others wait for."""
        steps: list[Step] = [partial(write_node, node_id=id, update=update) for id, update in self.nodes.items()]
        for id, (node_id, status) in self.tasks.items():
            steps.append(partial(write_task_status, task_id=id, node_id=node_id, status=status, manager_id=manager_id))
        steps += [partial(write_unpublished, volume_id=id, node_id=node_id) for id, node_id in self.volumes]
        return steps


@dataclass(frozen=True, slots=True)
class _Flush:
    """What waits is to be written."""


class DispatcherStatuses(Serving, StoreWatcher):
    """``registry`` is who is alive."""

    def __init__(self, context: LeaderContext) -> None:
        super().__init__(context)
        self.registry = NodeRegistry(self.world.random)
        self._waiting = _Waiting()
        self._writing: list[_Waiting] = []
        self._flush_timer: Timer | None = None

    @abc.abstractmethod
    def _registered(self, call: Call, stored: bool) -> None:
        """The node that calls stands in the store (``stored``), or was taken out of it meanwhile."""

    @serves("Dispatcher", "UpdateTaskStatus")
    def update_task_status(self, call: Call) -> Message:
        """Takes statuses of the node's own tasks. One of another node's refuses them all; tasks that are unknown here
        are left out."""
        node_id = call.identity.node_id
        request: Any = call.request
        self.registry.check(node_id, request.session_id)
        view, own, soon, now = self.view, [], False, self.monotonic()
        for update in request.updates:
            task = view.get(objects.Task, update.task_id) if update.HasField("status") else None
            if task is None:
                continue
            if task.node_id != node_id:
                raise Refused(Code.PERMISSION_DENIED, "cannot update a task not assigned this node")
            if task.status.state < types.RUNNING == update.status.state:
                self.timed(SCHEDULING, max(0.0, self.now() - _seconds(task.meta.created_at)))
            own.append((update, is_awaited(task, update.status)))
        waiting = self._waiting
        for update, awaited in own:
            if not waiting.passing:
                waiting.patience = now + FLUSH_EVERY
            waiting.hear(update.task_id, node_id, update.status, awaited)
            soon |= awaited
        if own:
            waiting.causes.add(self.trace)
        self._flush_in(FLUSH_SOON if soon else FLUSH_EVERY)
        return dispatcher.UpdateTaskStatusResponse()

    @serves("Dispatcher", "UpdateVolumeStatus")
    def update_volume_status(self, call: Call) -> Message:
        """Takes the news of volumes that the node uses no more."""
        node_id = call.identity.node_id
        request: Any = call.request
        self.registry.check(node_id, request.session_id)
        for update in request.updates:
            if update.unpublished:
                self._waiting.volumes[update.id, node_id] = None
        self._flush_in(FLUSH_EVERY)
        return dispatcher.UpdateVolumeStatusResponse()

    def _set_status(self, node_id: str, update: NodeUpdate) -> None:
        nodes = self._waiting.nodes
        nodes[node_id] = update.after(nodes.get(node_id))
        self._flush_in(FLUSH_EVERY)

    def _flush_in(self, seconds: float) -> None:
        if self._waiting.statuses >= FLUSH_AT:
            self._flush()
        else:
            self._flush_later(seconds)

    def _flush_later(self, seconds: float = FLUSH_EVERY) -> None:
        timer = self._flush_timer
        if not self._waiting or (timer is not None and timer.due <= self.monotonic() + seconds):
            return
        if timer is not None:
            timer.cancel()
        self._flush_timer = self.after(seconds, _Flush())

    @handles(_Flush)
    def flush(self, message: _Flush) -> None:
        """Writes what waits."""
        if self._waiting:
            self._flush()

    def _flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
            self._flush_timer = None
        busy = any(written.tasks for written in self._writing)
        written, self._waiting = self._waiting.take(self.monotonic(), busy)
        if not busy:
            self._flush_later(self._waiting.patience - self.monotonic())
        if not written:
            return
        self._writing.append(written)
        self.continues(*written.causes.take())
        self.write_batch(written.steps(self.context.node_id), partial(self._flushed, written))

    def _flushed(self, written: _Waiting, answer: Answer) -> None:
        self._writing.remove(written)
        count = len(written.nodes) + len(written.tasks) + len(written.volumes)
        results = answer.value if answer.error is None else [answer.error] * count
        nodes = dict(zip(written.nodes, results, strict=False))
        rest = results[len(written.nodes) :]
        if self._write_again(written, nodes, rest):
            self._flush_later()  # however much it is: a store that refuses is not to be asked without a pause
        elif written.tasks:
            self._flush_later(0.0 if self._waiting.tasks else self._waiting.patience - self.monotonic())
        for call in written.registering:
            result = nodes[call.identity.node_id]
            if isinstance(result, BaseException):
                call.fail(result if isinstance(result, Refused) else Refused(Code.INTERNAL, "the store failed"))
            else:
                self._registered(call, result)

    def _write_again(self, written: _Waiting, nodes: dict[str, Any], rest: list[Any]) -> bool:
        """What was not written waits once more, behind whatever was said since. Whether there is such."""
        waiting, again = self._waiting, any(map(_may_succeed, (*nodes.values(), *rest)))
        for (id, word), result in zip(written.tasks.items(), rest, strict=False):
            later = waiting.last_word(id)
            if _may_succeed(result) and (later is None or later[1].state < word[1].state):
                waiting.passing.pop(id, None)
                waiting.tasks[id] = word
        for key, result in zip(written.volumes, rest[len(written.tasks) :], strict=True):
            if _may_succeed(result):
                waiting.volumes[key] = None
        for id, update in written.nodes.items():
            if _may_succeed(nodes[id]):
                newer = waiting.nodes.get(id)
                waiting.nodes[id] = newer.after(update) if newer is not None else update
        return again


def _may_succeed(result: Any) -> bool:
    """Whether a write that came to this is worth another try: not one that can never fit."""
    if isinstance(result, Refused):
        return result.code is not Code.INVALID_ARGUMENT
    return isinstance(result, BaseException)


def _seconds(at: Any) -> float:
    return float(at.seconds + at.nanos / 1e9)
