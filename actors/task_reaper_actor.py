"""TaskReaperActor forgets tasks: those of histories that grew too long, and those that are removed and done.

It looks 250 ms after the first change that may matter, or at once when a thousand places wait; the rules are those of
``runtime/swarm/reaper``. One batch is on its way at a time.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from actors.store_watcher import StoreWatcher, results_of
from runtime.protocol.manager import LeaderContext
from runtime.protocol.store import Step
from runtime.stage import Answer, GiveUp, Policy, Timer, handles
from runtime.store.changes import Action
from runtime.store.events import Commit, WatchFilter
from runtime.store.transaction import Transaction
from runtime.store.view import View
from runtime.swarm.reaper import FLUSH_AFTER_S, FLUSH_AT, PlaceKey, Reaper, reap_place, reap_task
from runtime.wire.pb import objects_pb2 as objects


class _Flush:
    """Time to look at what was collected."""


class TaskReaperActor(StoreWatcher):
    """Lives below the leader."""

    policy = Policy(give_up=GiveUp.NEVER)
    watched = WatchFilter.kinds(objects.Task)

    def __init__(self, context: LeaderContext) -> None:
        super().__init__(context)
        self.reaper = Reaper()
        self._writing = False
        self._timer: Timer | None = None

    def snapshot(self) -> dict[str, Any]:
        return {"to look at": len(self.reaper), "writing": self._writing}

    def begin(self, view: View) -> None:
        self.reaper.begin(view)
        self._go_on()

    def commit(self, commit: Commit) -> None:
        for event in commit.events:
            if event.action is Action.CREATE:
                self.reaper.task_created(event.object)
            elif event.action is Action.UPDATE:
                self.reaper.task_updated(event.object)
            else:
                self.reaper.task_deleted(event.object.id)
        self._go_on()

    @handles(_Flush)
    def flush(self, message: _Flush) -> None:
        """Looks at everything collected, each in a step of its own."""
        self._timer = None
        places, done = self.reaper.take()
        steps: list[Step] = [partial(_reap_task, task_id) for task_id in done]
        steps += [partial(_reap_place, place) for place in places]
        if steps:
            self._writing = True
            self.write_batch(steps, self._written)

    def _go_on(self) -> None:
        if self._writing or not len(self.reaper):
            return
        if self._timer is None:
            self._timer = self.after(FLUSH_AFTER_S, _Flush())
        elif len(self.reaper) > FLUSH_AT:
            self._timer.cancel()
            self.flush(_Flush())

    def _written(self, answer: Answer) -> None:
        self._writing = False
        results_of(answer)
        self._go_on()


def _reap_task(task_id: str, tx: Transaction) -> int:
    return reap_task(tx, task_id)


def _reap_place(place: PlaceKey, tx: Transaction) -> int:
    return reap_place(tx, place)
