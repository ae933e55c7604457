"""JobScheduleActor runs jobs by the clock, as their label says; see ``runtime/swarm/schedules``.

It marks each service by when its next run is due, and begins a run in a transaction that looks once more. Timers run on
a clock that only grows and schedules on the time of day, so it looks at that at least once a minute, and reckons anew
when it went back.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from actors.store_watcher import StoreWatcher
from runtime.protocol.explain import AskWaits, Waits
from runtime.protocol.manager import LeaderContext
from runtime.stage import Answer, GiveUp, Policy, Timer, handles
from runtime.store.changes import Action
from runtime.store.events import Commit, WatchFilter
from runtime.store.transaction import Transaction
from runtime.store.view import View
from runtime.swarm.labels import SCHEDULE
from runtime.swarm.schedules import Due, Schedules, run
from runtime.swarm.waits import Wait
from runtime.wire.pb import objects_pb2 as objects

log = logging.getLogger("swarmlet.job_schedule")

LOOK_S: Final = 60.0
"""So often the time of day is looked at while there are schedules."""
AGAIN_S: Final = 5.0
"""Seconds before what the store did not take is tried again."""


class _Look:
    """A job may be due, or the time of day another."""


class JobScheduleActor(StoreWatcher):
    """Lives below the leader."""

    policy = Policy(give_up=GiveUp.NEVER)
    watched = WatchFilter.kinds(objects.Service)

    def __init__(self, context: LeaderContext) -> None:
        super().__init__(context)
        self.schedules = Schedules()
        self._time_of_day = float("-inf")
        self._timer: Timer | None = None

    def snapshot(self) -> dict[str, Any]:
        return {"jobs": len(self.schedules)}

    def begin(self, view: View) -> None:
        self._reckon(view)
        self._arm()

    def _reckon(self, view: View) -> None:
        self._time_of_day = self.now()
        for service in view.all(objects.Service):
            self.schedules.put(service, self._time_of_day)

    def commit(self, commit: Commit) -> None:
        for event in commit.events:
            if event.action is Action.REMOVE:
                self.schedules.remove(event.object.id)
            else:
                self.schedules.put(event.object, self.now())
        self._arm()

    @handles(_Look)
    def look(self, message: _Look) -> None:
        """Begins what is due."""
        self._timer = None
        now = self.now()
        if now < self._time_of_day:
            log.warning("the time of day went back by %.0f s: schedules are reckoned anew", self._time_of_day - now)
            self._reckon(self.view)
        self._time_of_day = now
        due = self.schedules.take_due(now)
        if due:
            self.write_batch([partial(_run, each) for each in due], partial(self._begun, due))
        self._arm()

    def _begun(self, due: Sequence[Due], answer: Answer) -> None:
        for each, result in zip(due, answer.value or [answer.error] * len(due), strict=True):
            about = self.about(service_id=each.service_id)
            service = self.view.get(objects.Service, each.service_id)
            if isinstance(result, Exception):
                log.warning("job %s is due, and could not be run: %s", each.service_id, result, extra=about)
                self.schedules.put_off(each.service_id, self.now() + AGAIN_S)
            elif result:
                log.info("job %s runs: its time has come", each.service_id, extra=about)
            elif result is False and service is not None:
                log.warning("job %s is passed over: its last run is still going", each.service_id, extra=about)
                self.schedules.pass_over(service, self.now())
        self._arm()

    @handles(AskWaits)
    def waits(self, message: AskWaits) -> Waits:
        """When a job runs next."""
        at = self.schedules.at(message.service_id)
        if at is None:
            return Waits()
        why = f"its next run is due then: label {SCHEDULE}"
        return Waits((Wait(message.service_id, "job_schedule", why, max(0.0, at - self.now())),))

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.schedules.next_at
        if at is not None:
            self._timer = self.after(min(LOOK_S, max(0.0, at - self.now())), _Look())


def _run(due: Due, tx: Transaction) -> bool | None:
    return run(tx, due)
