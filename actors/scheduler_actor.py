"""SchedulerActor places waiting tasks on nodes.

Who talks to it: the store, with every change of nodes, tasks and services. Whom it talks to: the store. It decides
nothing: ``runtime/swarm/scheduling`` does; here is when it is asked, and how its decisions reach the store.

1. A run comes 20 ms after the first change that it might act on. While tasks wait that fit nowhere, which each run
   looks at again, runs rest as long as the last one took, a second at most.
2. Decisions are written before the next run begins, a slice at a time, so that others' writes come in between.
   Each is checked again in its transaction; the refused ones go back into the scheduler.
3. A life that begins after a failure waits until what the last one proposed is committed or given up: nodes' books are
   read from committed views, and must hold every task that was placed.
4. An outcome that is unknown as a whole fails this life. The next begins with what the store holds.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from actors.store_watcher import StoreWatcher
from runtime.errors import Refused
from runtime.protocol.explain import AskWaits, Waits
from runtime.protocol.manager import LeaderContext
from runtime.stage import Answer, handles
from runtime.stage.observe import Causes
from runtime.store.changes import Action
from runtime.store.events import Commit, WatchFilter
from runtime.store.transaction import Transaction
from runtime.store.view import Published, View
from runtime.swarm import schedules
from runtime.swarm.scheduling import GATHER_S, REST_MAX_S, Decision, Scheduler
from runtime.swarm.scheduling import commit as carry_out
from runtime.swarm.start_order import Hold, hold
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

log = logging.getLogger("swarmlet.scheduler")

SLICE: Final = 1000
"""So many decisions are sent to the store at once."""


class _Due:
    """The time of a run may have come."""


class SchedulerActor(StoreWatcher):
    """Lives below the leader, as long as this manager leads."""

    watched = WatchFilter.kinds(objects.Node, objects.Task, objects.Service)

    def __init__(self, context: LeaderContext) -> None:
        super().__init__(context)
        self.scheduler = Scheduler(hold_of=self._hold)
        self._settled = False
        self._unwritten: deque[Decision] = deque()
        self._in_flight: list[Decision] = []
        self._armed = False
        self._rest_until = 0.0
        self._causes = Causes()

    def snapshot(self) -> dict[str, Any]:
        return {
            "waiting": self.scheduler.waiting,
            "in flight": len(self._in_flight),
            "unwritten": len(self._unwritten),
        }

    def _hold(self, service: objects.Service) -> Hold | None:
        return schedules.hold(service, self.now()) or hold(self.view, service)

    def begin(self, view: View) -> None:
        """Reads all nodes and tasks."""
        self.scheduler.load(view.all(objects.Node), view.all(objects.Task), self.monotonic())
        self.after(0.0, _Due())  # asked behind the watch, so that every commit up to the answer has come before it

    def commit(self, commit: Commit) -> None:
        """Feeds changes to the scheduler."""
        for change in commit.events:
            gone = change.action is Action.REMOVE
            if change.kind is objects.Node:
                if gone:
                    self.scheduler.remove_node(change.object.id)
                else:
                    self.scheduler.put_node(change.object)
            elif change.kind is objects.Service:
                self.scheduler.service_changed()
            elif gone:
                self.scheduler.remove_task(change.object.id, change.object.node_id)
            else:
                self.scheduler.put_task(change.object, self.monotonic(), of_status=change.of_status)
                if change.object.status.state in (types.RUNNING, types.COMPLETE):
                    self.scheduler.came_up(change.object.service_id)
        self._changed()

    @handles(AskWaits)
    def waits(self, message: AskWaits) -> Waits:
        """What of a service waits for a node, or on one, and what of it is on the way to the store."""
        of_service = self.scheduler.waits(message.service_id) if message.service_id else []
        return Waits(tuple(of_service))

    # What an earlier life left on the way

    def _ask_settled(self) -> None:
        self.write(partial(_is_settled, self.context.published), self._settled_or_not)

    def _settled_or_not(self, answer: Answer) -> None:
        self._settled = answer.get()
        if self._settled:
            self._changed()
        else:
            self.after(GATHER_S, _Due())

    # When to run

    def _changed(self) -> None:
        if self.scheduler.due:
            self._causes.add(self.trace)
        if self._may_run() and not self._armed:
            self._armed = True
            self.after(max(GATHER_S, self._rest_until - self.monotonic()), _Due())

    def _may_run(self) -> bool:
        return self._settled and not self._in_flight and self.scheduler.due

    @handles(_Due)
    def due(self, message: _Due) -> None:
        """Runs, if there is still something to decide."""
        if not self._settled:
            self._ask_settled()
            return
        self._armed = False
        if self._may_run():
            self._run()
            self._write_next()

    def _run(self) -> None:
        self.continues(*self._causes.take())
        view, begun = self.view, self.monotonic()
        self._unwritten.extend(self.scheduler.run(begun, lambda id: view.get(objects.Service, id)))
        if self.scheduler.waiting:
            ended = self.monotonic()
            self._rest_until = ended + min(ended - begun, REST_MAX_S)

    # Writing

    def _write_next(self) -> None:
        self._in_flight = [self._unwritten.popleft() for _ in range(min(SLICE, len(self._unwritten)))]
        if self._in_flight:
            self.write_batch([partial(carry_out, decision=decision) for decision in self._in_flight], self._written)
        else:
            self._changed()

    def _written(self, answer: Answer) -> None:
        results = answer.get()
        if log.isEnabledFor(logging.DEBUG):
            self._log_decisions(results)
        pairs = zip(self._in_flight, results, strict=True)
        self.scheduler.commit_failed(
            decision.task_id for decision, done in pairs if isinstance(done, Refused) or not done
        )
        self._write_next()

    def _log_decisions(self, results: Sequence[Any]) -> None:
        for decision, done in zip(self._in_flight, results, strict=True):
            what = f"goes to node {decision.node_id}" if decision.node_id else f"waits: {decision.err}"
            taken = "" if done and not isinstance(done, Refused) else " (the store knew better)"
            about = self.about(task_id=decision.task_id, node_id=decision.node_id or "")
            log.debug("task %s %s%s", decision.task_id, what, taken, extra=about)


def _is_settled(published: Published, tx: Transaction) -> bool:
    """Whether no task is on its way from PENDING to a node: proposed by an earlier life, and not yet committed."""
    for task in published.view.find(objects.Task, "task_state", types.PENDING):
        proposed = tx.get(objects.Task, task.id)
        if proposed is not None and proposed.status.state >= types.ASSIGNED:
            return False
    return True
