"""UpdaterActor carries out the rolling update of one service.

Its orchestrator starts it when tasks of the service are out of date, and stops it when it says that it is done. Which
place is taken when is decided in ``runtime/swarm/updater``, what a step writes in ``runtime/swarm/update_steps``.

1. It remembers nothing that the store does not say: a life that begins after a failure, or after the service changed,
   surveys the service anew and goes on from there.
2. One batch of orders is on its way at a time; what comes of it for an update that was given up is not looked at.
3. It starts no task that is held at READY: that is its orchestrator's, who sees it made.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from actors.store_watcher import StoreWatcher, results_of
from runtime.protocol.explain import AskWaits, Waits
from runtime.protocol.manager import LeaderContext
from runtime.protocol.store import Step
from runtime.stage import Answer, GiveUp, Policy, Timer, handles
from runtime.store.changes import Action
from runtime.store.events import Commit, Event, Select, WatchFilter
from runtime.store.view import View
from runtime.swarm import update_steps
from runtime.swarm.identity import new_id
from runtime.swarm.restart import RestartSupervisor
from runtime.swarm.task_init import rebuild_history
from runtime.swarm.update_steps import STALE, Basis, Replaced
from runtime.swarm.updater import Begin, Complete, Order, Pause, Phase, Replace, RollBack, ShutDownOthers, Updater
from runtime.wire.pb import objects_pb2 as objects

log = logging.getLogger("swarmlet.updater")

LOOK_AGAIN_S: Final = 1.0
"""A step found a newer service, or a newer task, than this life knows of; should no commit tell of it, it looks by
itself. (What a step finds may be proposed and not committed yet: asked again at once, it would find the same.)"""


@dataclass(frozen=True, slots=True)
class UpdateEnded:
    """Told to the orchestrator: nothing is left to do for what the service wanted; ``basis`` is None if it is gone."""

    service_id: str
    basis: Basis | None


class _Due:
    """Time to look for orders, or for the service."""


@dataclass(frozen=True, slots=True)
class _Unseen:
    """The task that a place waits for was not in the committed view when its step was answered: it may be gone."""

    task_id: str


class UpdaterActor(StoreWatcher):
    """A child of the orchestrator of the service's mode."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, context: LeaderContext, service_id: str) -> None:
        super().__init__(context)
        self.service_id = service_id
        self.updater: Updater | None = None
        self._would_restart = _never
        self._writing = False
        self._ended = False
        self._timer: Timer | None = None

    def started(self) -> None:
        mine = (Select(objects.Service, id=self.service_id), Select(objects.Task, service_id=self.service_id))
        self._start_watch(WatchFilter(mine))

    def snapshot(self) -> dict[str, Any]:
        if self.updater is None:
            return {"service": self.service_id}
        phase = self.updater.phase.value
        return {"service": self.service_id, "phase": phase, "failures": self.updater.failures}

    def begin(self, view: View) -> None:
        self._survey()

    def commit(self, commit: Commit) -> None:
        for event in commit.events:
            if event.kind is objects.Service:
                self._service_changed()
            elif self.updater is not None:
                self._task_event(self.updater, event)
        self._go_on()

    @handles(_Due)
    def due(self, message: _Due) -> None:
        """A delay or the time of watching is over."""
        self._timer = None
        if self.updater is None and not self._ended:
            self._survey()
        self._go_on()

    @handles(AskWaits)
    def waits(self, message: AskWaits) -> Waits:
        """How far the update is, and what it waits for."""
        if self.updater is None or message.service_id != self.service_id:
            return Waits()
        return Waits(tuple(self.updater.waits(self.monotonic())))

    def _service_changed(self) -> None:
        service = self.view.get(objects.Service, self.service_id)
        if self.updater is None or not self.updater.basis.holds(service):
            self._survey()

    def _task_event(self, updater: Updater, event: Event) -> None:
        if event.action is Action.REMOVE:
            updater.task_gone(event.object.id, self.monotonic())
        else:
            updater.task_changed(event.object, self.monotonic())

    def _survey(self) -> None:
        """Begins the update of what the service wants now, wherever the store says that it stands."""
        if self._ended:
            return
        view, now = self.view, self.now()
        service = view.get(objects.Service, self.service_id)
        if service is None:
            self._end(None)
            return
        supervisor = RestartSupervisor()
        rebuild_history(supervisor, view, service)
        # Read in the store's turns too, so it must not change from here on.
        self._would_restart = lambda task: supervisor.should_restart(task, service, now)
        self.updater = Updater(view, service, self._would_restart, self.monotonic(), now)
        self._go_on()

    def _end(self, basis: Basis | None) -> None:
        self._ended = True
        self.updater = None
        if self.parent is not None:
            self.tell(self.parent, UpdateEnded(self.service_id, basis))

    def _go_on(self) -> None:
        updater = self.updater
        if updater is None or self._writing:
            return
        orders = updater.take(self.monotonic())
        if orders:
            self._writing = True
            self.write_batch([self._step(updater, order) for order in orders], partial(self._written, updater, orders))
        elif updater.phase is Phase.ENDED:
            self._end(updater.basis)
        else:
            self._arm(updater.next_at())

    def _step(self, updater: Updater, order: Order) -> Step:
        basis = updater.basis
        match order:
            case Begin():
                return lambda tx: update_steps.begin(tx, basis)
            case Replace(place):
                id, would_restart = new_id(self.world.entropy), self._would_restart
                return lambda tx: update_steps.replace(tx, basis, place, updater.order, id, would_restart)
            case ShutDownOthers(place, keep):
                return lambda tx: update_steps.shut_down_others(tx, basis, place, keep)
            case Pause(task_id):
                return lambda tx: update_steps.pause(tx, basis, task_id)
            case RollBack(task_id):
                return lambda tx: update_steps.roll_back(tx, basis, task_id)
            case Complete():
                return lambda tx: update_steps.complete(tx, basis)

    def _written(self, updater: Updater, orders: Sequence[Order], answer: Answer) -> None:
        self._writing = False
        results = results_of(answer)
        self._log(orders, results)
        if updater is self.updater:
            if STALE in results:
                self.updater = None
                self._arm(self.monotonic() + LOOK_AGAIN_S)
            else:
                self._carried_out(updater, orders, results)
        self._go_on()

    def _carried_out(self, updater: Updater, orders: Sequence[Order], results: Sequence[Any]) -> None:
        now = self.monotonic()
        for order, result in zip(orders, results, strict=True):
            if not isinstance(order, Replace):
                continue
            assert isinstance(result, Replaced), f"a replacement came to {result!r}"
            updater.replaced(order.place, result)
            if result.task_id is None:
                continue
            task = self.view.get(objects.Task, result.task_id)
            if task is None:
                self.after(LOOK_AGAIN_S, _Unseen(result.task_id))
            else:
                updater.task_changed(task, now)

    @handles(_Unseen)
    def unseen(self, message: _Unseen) -> None:
        """No commit told of a task that a place waits for, if it is still not there."""
        if self.updater is not None and self.view.get(objects.Task, message.task_id) is None:
            self.updater.task_gone(message.task_id, self.monotonic())
            self._go_on()

    def _log(self, orders: Sequence[Order], results: Sequence[Any]) -> None:
        service = self.view.get(objects.Service, self.service_id)
        for order, result in zip(orders, results, strict=True):
            over = isinstance(order, Complete) and result is True
            if service is None or result is STALE or not (over or isinstance(order, (Pause, RollBack))):
                continue
            level = logging.INFO if over else logging.WARNING
            text, about = service.update_status.message, self.about(service_id=service.id)
            log.log(level, "service %s: %s", service.spec.annotations.name, text, extra=about)

    def _arm(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else self.after(max(0.0, at - self.monotonic()), _Due())


def _never(task: objects.Task) -> bool:
    return False
