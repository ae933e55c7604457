"""The rolling update of one service: which place is taken when, what is waited for, and when it went wrong.

Rules owned here (SwarmKit's updater): at most ``parallelism`` places are under way, each from its replacement until
``delay`` after that came up; a task of this update that ends before it ran for ``monitor`` is a failure, and too many
of those end the update by its failure action; after the last place the tasks are watched for one more ``monitor``.

It does nothing itself: `take` gives the orders that are due, whoever carries them out (`update_steps`) tells what came
of a `Replace` with `replaced`, and of tasks that changed with `task_changed`. All it needs is in the store, so that an
update goes on wherever the last life of its owner left it: replacements that have not come up yet are waited for, and
the delays of those that have are sat out, before further places are taken; places done already count among those of
the update, and so does a failure among them of a task that cannot have outlived ``monitor``. A task of the new spec
that somebody else put into a dirty place meanwhile (the restart supervisor, say) counts as the update's own.

One difference: a task that is given up before it came up (its node was lost or drained) is not waited for; its place is
looked at again, and whatever took that task's place there is waited for instead.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from runtime.swarm.defaults import UPDATE_MONITOR_S, seconds, update_config
from runtime.swarm.dirty import is_dirty
from runtime.swarm.ports import View
from runtime.swarm.slots import WouldRestart, is_dirty_place, may_be_updated, split
from runtime.swarm.task_model import SlotKey, by_place, node_of, time_of, wanted
from runtime.swarm.update_steps import FINISHED, PAUSED_STATES, Basis, Replaced
from runtime.swarm.waits import Wait
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

UpdateConfig = types.UpdateConfig


@dataclass(frozen=True, slots=True)
class Begin:
    """Order: note that the update began."""


@dataclass(frozen=True, slots=True)
class Replace:
    """Order: bring a place up to date."""

    place: SlotKey


@dataclass(frozen=True, slots=True)
class ShutDownOthers:
    """Order: the new task of a place runs, its old ones may go."""

    place: SlotKey
    keep: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Order: the task's failure was one too many; stop here."""

    task_id: str


@dataclass(frozen=True, slots=True)
class RollBack:
    """Order: the task's failure was one too many; go back."""

    task_id: str


@dataclass(frozen=True, slots=True)
class Complete:
    """Order: note that the update is over."""


Order = Begin | Replace | ShutDownOthers | Pause | RollBack | Complete


class Phase(enum.Enum):
    """How far an update is: places are to be replaced, the last ones are watched, it is over."""

    ROLLING = "rolling"
    MONITORING = "monitoring"
    ENDED = "ended"


@dataclass(slots=True)
class _Place:
    """A place under way: the task that it waits for, then when its delay is over."""

    task_id: str | None = None
    free_at: float | None = None


@dataclass(slots=True)
class _Made:
    """A task of this update: when it was seen running, and whether its failure was counted."""

    up_at: float | None = None
    failed: bool = field(default=False)


def config_of(service: objects.Service) -> types.UpdateConfig:
    """How the service is to be updated, or rolled back if that is what goes on."""
    name = "rollback" if Basis.of(service).rolling_back else "update"
    return getattr(service.spec, name) if service.spec.HasField(name) else update_config()


def starts_first(service: objects.Service) -> bool:
    """Whether an update is under way that ends old tasks only when new ones run."""
    under_way = service.update_status.state in FINISHED
    return under_way and config_of(service).order == UpdateConfig.START_FIRST


def needs_update(view: View, service: objects.Service, places: Sequence[Sequence[objects.Task]]) -> bool:
    """Whether an updater has anything to do for a service with these updatable tasks in its places."""
    state = service.update_status.state
    if state in PAUSED_STATES:
        return False
    return state in FINISHED or any(is_dirty_place(view, service, tasks) for tasks in places)


class Updater:
    """One update; ``now`` is everywhere in seconds of a clock that only grows, ``today`` in seconds since the epoch."""

    def __init__(
        self, view: View, service: objects.Service, would_restart: WouldRestart, now: float = 0.0, today: float = 0.0
    ) -> None:
        config = config_of(service)
        self.basis = Basis.of(service)
        self.order = config.order
        self.action = config.failure_action
        self.max_failure_ratio = config.max_failure_ratio
        self.delay = seconds(config.delay)
        self.monitor = seconds(config.monitor) if config.HasField("monitor") else UPDATE_MONITOR_S
        self.phase = Phase.ROLLING
        self.failures = 0
        self._begun = False
        self._urgent: list[Order] = []
        self._under_way: dict[SlotKey, _Place] = {}
        self._waiting: dict[str, SlotKey] = {}
        self._made: dict[str, _Made] = {}
        self._monitor_until = 0.0
        self._now = now
        self._since = now - today  # added to a time of day it is one on the other clock
        self._done = 0
        self._last_done = float("-inf")  # when the delay of the last place of an earlier life was over
        self._last_failed = ""
        dirty: list[SlotKey] = []
        if service.update_status.state in PAUSED_STATES:
            self.phase = Phase.ENDED
        else:
            dirty = self._survey(view, service, would_restart)
        self._queue = deque(dirty)
        self.total = len(dirty) + len(self._under_way) + self._done
        self.parallelism = config.parallelism or self.total
        if self.phase is Phase.ROLLING:
            self._judge(self._last_failed)

    def _survey(self, view: View, service: objects.Service, would_restart: WouldRestart) -> list[SlotKey]:
        """The dirty places in order; those that an earlier life of this update is not done with are under way."""
        tasks = view.find(objects.Task, "service", service.id)
        held = by_place(tasks, service)
        updatable = split(tasks, service, would_restart).updatable
        dirty: list[SlotKey] = []
        for place in sorted(updatable, key=lambda each: (str(type(each)), each)):
            if is_dirty_place(view, service, updatable[place]):
                dirty.extend([place] if may_be_updated(view, service, place) else ())
            elif service.update_status.state in FINISHED:
                old = [each for each in held[place] if is_dirty(each, service, node_of(view, each))]
                if old:
                    self._resume(place, updatable[place][0], [each for each in held[place] if each not in old])
        return dirty

    def _resume(self, place: SlotKey, task: objects.Task, new: Sequence[objects.Task]) -> None:
        """A place that an earlier life took: ``task`` is in it, ``new`` are all of this update that were in it."""
        if wanted(task) and task.status.state < types.RUNNING:
            self._wait(place, task.id)
        else:
            self._resume_running(place, task)
        failed = [each for each in new if self.action != UpdateConfig.CONTINUE and self._failed_early(each)]
        if failed:
            self.failures += 1
            self._last_failed = failed[-1].id
            if task.id in self._made:
                self._made[task.id].failed = True  # a place counts once; its restarts are not the update's

    def _resume_running(self, place: SlotKey, task: objects.Task) -> None:
        at = time_of(task)
        up_at = min(self._now, self._since + at) if at is not None else self._now
        if task.status.state == types.RUNNING:
            self._made[task.id] = _Made(up_at)
        if up_at + self.delay > self._now:
            self._under_way[place] = _Place(None, up_at + self.delay)
        else:
            self._done += 1
            self._last_done = max(self._last_done, up_at + self.delay)

    def _failed_early(self, task: objects.Task) -> bool:
        """Whether a task that ended badly had less time than ``monitor`` between its making and its end."""
        if task.status.state not in (types.FAILED, types.REJECTED):
            return False
        end, made = time_of(task), task.meta.created_at
        return end is not None and end - (made.seconds + made.nanos / 1e9) <= self.monitor

    def _wait(self, place: SlotKey, task_id: str) -> None:
        self._under_way[place] = _Place(task_id)
        self._waiting[task_id] = place
        self._made[task_id] = _Made()

    # Orders

    def take(self, now: float) -> list[Order]:
        """The orders that are due, each given once."""
        if self.phase is Phase.ENDED:
            return []
        orders, self._urgent = self._urgent, []
        if any(isinstance(order, (Pause, RollBack)) for order in orders):
            self.phase = Phase.ENDED
            return orders
        if not self._begun and self.total:
            orders.append(Begin())
        self._begun = True
        self._free_places(now)
        while self._queue and len(self._under_way) < self.parallelism:
            place = self._queue.popleft()
            self._under_way[place] = _Place()
            orders.append(Replace(place))
        return orders + self._finish(now)

    def _free_places(self, now: float) -> None:
        for place, each in list(self._under_way.items()):
            if each.free_at is not None and each.free_at <= now:
                del self._under_way[place]

    def _finish(self, now: float) -> list[Order]:
        if self._queue or self._under_way:
            return []
        if self.phase is Phase.ROLLING:
            self.phase = Phase.MONITORING
            since = self._last_done if self._done == self.total else now
            self._monitor_until = since + self._monitoring() if self.total else now
        if now < self._monitor_until:
            return []
        self.phase = Phase.ENDED
        return [Complete()]

    def _monitoring(self) -> float:
        return self.monitor if self.delay < self.monitor else self.delay + 1.0

    def next_at(self) -> float | None:
        """When `take` has to be asked at the latest, if nothing else happens."""
        if self.phase is Phase.MONITORING:
            return self._monitor_until
        if self.phase is Phase.ENDED:
            return None
        return min((each.free_at for each in self._under_way.values() if each.free_at is not None), default=None)

    def waits(self, now: float) -> list[Wait]:
        """What goes on, in a sentence: places left, those under way, the watching at the end."""
        if self.phase is Phase.ENDED:
            return []
        at = self.next_at()
        seconds = None if at is None else max(0.0, at - now)
        what = "rollback" if self.basis.rolling_back else "update"
        if self.phase is Phase.MONITORING:
            why = f"the {what} replaced everything and watches for failures"
        else:
            delayed = sum(each.free_at is not None for each in self._under_way.values())
            why = f"the {what} has {len(self._queue)} of {self.total} places left; {len(self._waiting)} come up"
            why += f", {delayed} sit out the delay" if delayed else ""
        failed = f"; {self.failures} failed" if self.failures else ""
        return [Wait(self.basis.service_id, "updater", why + failed, seconds)]

    # What happened

    def replaced(self, place: SlotKey, outcome: Replaced) -> None:
        """A `Replace` was carried out; the state of the task that it waits for is to be told next."""
        if outcome.task_id is None:
            del self._under_way[place]
        else:
            self._wait(place, outcome.task_id)

    def task_changed(self, task: objects.Task, now: float) -> None:
        """A task of the service changed."""
        state = task.status.state
        made = self._made.get(task.id)
        if made is not None:
            self._watch(task, made, now)
        place = self._waiting.get(task.id)
        if place is None:
            return
        if state < types.RUNNING:
            if not wanted(task):
                self._look_again(task.id, place)
            return
        self._came_up(task.id, place, now)
        if self.order == UpdateConfig.START_FIRST and state == types.RUNNING:
            self._urgent.append(ShutDownOthers(place, task.id))

    def task_gone(self, task_id: str, now: float) -> None:
        """A task of the service was deleted: nobody waits for it any longer."""
        self._made.pop(task_id, None)
        place = self._waiting.get(task_id)
        if place is not None:
            self._look_again(task_id, place)

    def _look_again(self, task_id: str, place: SlotKey) -> None:
        del self._waiting[task_id]
        self._made.pop(task_id, None)
        self._urgent.append(Replace(place))

    def _came_up(self, task_id: str, place: SlotKey, now: float) -> None:
        del self._waiting[task_id]
        self._under_way[place].free_at = now + self.delay

    def _watch(self, task: objects.Task, made: _Made, now: float) -> None:
        if task.status.state == types.RUNNING and made.up_at is None:
            made.up_at = now
        if task.status.state <= types.RUNNING or made.failed or self.action == UpdateConfig.CONTINUE:
            return
        if made.up_at is not None and now - made.up_at > self.monitor:
            return
        made.failed = True
        self.failures += 1
        self._judge(task.id)

    def _judge(self, task_id: str) -> None:
        """Whether the failures counted are too many; ``task_id`` is the last of them."""
        if self.failures and self.failures / self.total > self.max_failure_ratio:
            rolls_back = self.action == UpdateConfig.ROLLBACK
            self._urgent.append(RollBack(task_id) if rolls_back else Pause(task_id))
