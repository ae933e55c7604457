"""The restart supervisor: whether a task that ended is replaced, when, and by what.

Rules owned here (SwarmKit's orchestrator/restart): the conditions, attempts and window of the restart policy; a
replacement is made at once but held at READY until the delay is over and the old task has stopped; a task whose own
start is still delayed is restarted only after that start.

The supervisor decides without changing itself (`plan`), so that a transaction may ask more than once; what was carried
out is told with `committed`. Its memory is lost with its leader and rebuilt by ``task_init``.

Two clocks: attempts are counted in seconds since the epoch, as tasks carry them; delays are measured on whatever clock
``now`` of `committed`, `delay_start`, `task_changed`, `node_changed`, `fire` and `next_at` is, best one that only
grows.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from runtime.swarm.defaults import restart_condition, restart_delay, seconds
from runtime.swarm.ports import View
from runtime.swarm.task_changes import Change, Create, Desire, Start
from runtime.swarm.task_model import (
    SlotKey,
    ended,
    generation_of,
    is_job_task,
    is_per_node,
    new_task,
    place_of,
    time_of,
)
from runtime.swarm.waits import Wait
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

OLD_TASK_TIMEOUT_S: Final = 60.0

HistoryKey = tuple[str, SlotKey]


@dataclass(slots=True)
class History:
    """Restarts of one place in one generation of its tasks; ``stamps`` only where the policy has a window."""

    generation: tuple[int, int | None]
    count: int = 0
    stamps: deque[float] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class RestartPlan:
    """What restarting a task comes to; ``new_task`` is None when the policy says that it was enough."""

    old: objects.Task
    new_task: objects.Task | None
    place: SlotKey
    delay: float
    wait_for_old: bool

    @property
    def changes(self) -> tuple[Change, ...]:
        """The old task is to shut down, the new one is made."""
        shutdown = Desire(self.old.id, types.SHUTDOWN)
        return (shutdown,) if self.new_task is None else (shutdown, Create(self.new_task))


@dataclass(slots=True)
class _Delayed:
    due: float
    deadline: float
    old_id: str
    node_id: str
    serial: int


def has_stopped(view: View, task_id: str) -> bool:
    """Whether nothing of a task can be running any more, as far as the managers can tell."""
    task = view.get(objects.Task, task_id)
    if task is None or ended(task) or not task.node_id:
        return True
    node = view.get(objects.Node, task.node_id)
    return node is None or node.status.state == types.NodeStatus.DOWN


class RestartSupervisor:
    """History of restarts and delayed starts of one leader's orchestrator."""

    def __init__(self) -> None:
        self._history: dict[str, dict[SlotKey, History]] = {}
        self._delayed: dict[str, _Delayed] = {}
        self._by_old: dict[str, str] = {}
        self._by_node: dict[str, dict[str, None]] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._serial = 0

    # Deciding

    def should_restart(self, task: objects.Task, service: objects.Service, now: float) -> bool:
        """Whether the policy replaces a task that ended, or that has to leave its node."""
        complete = task.status.state == types.COMPLETE
        match restart_condition(task.spec):
            case types.RestartPolicy.NONE:
                return False
            case types.RestartPolicy.ON_FAILURE if complete:
                return False
            case types.RestartPolicy.ANY if complete and is_job_task(task):
                return False
        return self._attempts_left(task, place_of(task, service), now)

    def _attempts_left(self, task: objects.Task, place: SlotKey, now: float) -> bool:
        policy = task.spec.restart
        history = self._history.get(task.service_id, {}).get(place)
        if not policy.max_attempts or history is None or history.generation != generation_of(task):
            return True
        if not policy.HasField("window") or not seconds(policy.window):
            return history.count < policy.max_attempts
        at = time_of(task)
        end = now if at is None else at
        begin = end - seconds(policy.window)
        return sum(begin < stamp < end for stamp in history.stamps) < policy.max_attempts

    def is_delayed(self, task_id: str) -> bool:
        """Whether the task is a replacement whose own start is still to come."""
        return task_id in self._delayed

    def plan(
        self,
        task: objects.Task,
        service: objects.Service,
        node: objects.Node | None,
        cluster: objects.Cluster | None,
        now: float,
        new_id: str,
    ) -> RestartPlan | None:
        """How to restart ``task``; None when it is shut down already or its own start is still delayed.

        ``node`` is the task's, None when it has none or it is gone. ``now`` is in seconds since the epoch.
        """
        if task.desired_state > types.COMPLETE or self.is_delayed(task.id):
            return None
        if not self.should_restart(task, service, now):
            return RestartPlan(task, None, place_of(task, service), 0.0, False)
        drained = node is not None and node.spec.availability == specs.NodeSpec.DRAIN
        gone = node is None or node.status.state == types.NodeStatus.DOWN
        delay = 0.0 if drained else restart_delay(task.spec)
        new = _replacement(task, service, cluster, now, new_id)
        return RestartPlan(task, new, place_of(task, service), delay, not (gone or ended(task)))

    # Keeping books

    def committed(self, plan: RestartPlan, now: float) -> None:
        """A plan was carried out: its restart counts, and the start of the new task is awaited from ``now`` on."""
        self.cancel(plan.old.id)
        if plan.new_task is None:
            return
        made = time_of(plan.new_task)
        assert made is not None, f"replacement {plan.new_task.id} has no time"
        self.record(plan.new_task, plan.place, made)
        old = plan.old if plan.wait_for_old else None
        self.delay_start(plan.new_task.id, now, plan.delay, old)

    def record(self, new: objects.Task, place: SlotKey, at: float) -> None:
        """A replacement was made at ``at``; counted only where the policy limits attempts."""
        policy = new.spec.restart
        if not policy.max_attempts:
            return
        places = self._history.setdefault(new.service_id, {})
        history = places.get(place)
        if history is None or history.generation != generation_of(new):
            history = places[place] = History(generation_of(new))
        history.count += 1
        if not policy.HasField("window"):
            return
        history.stamps.append(at)
        while history.stamps[0] < at - seconds(policy.window) or len(history.stamps) > policy.max_attempts:
            history.stamps.popleft()

    def delay_start(self, task_id: str, now: float, delay: float, old: objects.Task | None = None) -> None:
        """The task starts after ``delay``, and after ``old`` stopped, or at the latest a minute from now.

        Replaces an older delayed start of the same task.
        """
        self._drop(task_id)
        self._serial += 1
        old_id, node_id = (old.id, old.node_id) if old is not None else ("", "")
        entry = _Delayed(now + delay, now + max(delay, OLD_TASK_TIMEOUT_S), old_id, node_id, self._serial)
        self._delayed[task_id] = entry
        heapq.heappush(self._heap, (entry.due, entry.serial, task_id))
        if old is not None:
            self._by_old[old.id] = task_id
            self._by_node.setdefault(old.node_id, {})[task_id] = None

    def cancel(self, task_id: str) -> None:
        """The task is gone or shut down; its start, if one is awaited, will not come."""
        self._drop(task_id)

    def forget(self, service_id: str) -> None:
        """The service is gone, and with it its history."""
        self._history.pop(service_id, None)

    def _drop(self, task_id: str) -> _Delayed | None:
        entry = self._delayed.pop(task_id, None)
        if entry is not None and entry.old_id:
            self._by_old.pop(entry.old_id, None)
            waiting = self._by_node[entry.node_id]
            del waiting[task_id]
            if not waiting:
                del self._by_node[entry.node_id]
        return entry

    def waits(self, view: View, service_id: str, now: float) -> list[Wait]:
        """The starts of a service's tasks that are held: for how long, and for which old task."""
        waits = []
        for task_id, entry in self._delayed.items():
            task = view.get(objects.Task, task_id)
            if task is None or task.service_id != service_id:
                continue
            if now < entry.due:
                why, at = "it is held until its restart delay is over", entry.due
            else:
                why, at = f"it is held until the old task {entry.old_id} stopped, for a minute at most", entry.deadline
            waits.append(Wait(task_id, "orchestrator", why, max(0.0, at - now)))
        return waits

    # Time and events

    def next_at(self) -> float | None:
        """When `fire` has something to do at the latest, in the seconds of ``now``."""
        while self._heap and not self._is_current(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _is_current(self, item: tuple[float, int, str]) -> bool:
        entry = self._delayed.get(item[2])
        return entry is not None and entry.serial == item[1]

    def task_changed(self, task_id: str, now: float) -> None:
        """A task changed or was deleted: if a start waits for it, it is looked at again in `fire`."""
        waiting = self._by_old.get(task_id)
        if waiting is not None:
            self._look_again(waiting, now)

    def node_changed(self, node_id: str, now: float) -> None:
        """A node changed or was deleted: starts that wait for a task on it are looked at again in `fire`."""
        for task_id in self._by_node.get(node_id, ()):
            self._look_again(task_id, now)

    def _look_again(self, task_id: str, now: float) -> None:
        entry = self._delayed[task_id]
        if now >= entry.due:
            self._serial += 1
            entry.serial = self._serial
            heapq.heappush(self._heap, (now, entry.serial, task_id))

    def fire(self, view: View, now: float) -> list[Start]:
        """The starts that are due at ``now``: delay over, old task stopped or out of its minute."""
        starts: list[Start] = []
        while (at := self.next_at()) is not None and at <= now:
            _, serial, task_id = heapq.heappop(self._heap)
            entry = self._delayed[task_id]
            if entry.old_id and now < entry.deadline and not has_stopped(view, entry.old_id):
                heapq.heappush(self._heap, (entry.deadline, serial, task_id))
                continue
            self._drop(task_id)
            starts.append(Start(task_id))
        return starts


def _replacement(
    task: objects.Task, service: objects.Service, cluster: objects.Cluster | None, now: float, new_id: str
) -> objects.Task:
    """A task of the service's present spec for the same place, held at READY."""
    node_id = task.node_id if is_per_node(service) else ""
    new = new_task(new_id, service, cluster, now, slot=task.slot, node_id=node_id, desired=types.READY)
    if is_job_task(task):
        new.job_iteration.CopyFrom(task.job_iteration)
    return new
