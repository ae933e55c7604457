"""AllocatorActor gives networks, services, nodes and tasks what they need, and lets new tasks be scheduled.

Who talks to it: the store, with every change of networks, nodes, services and tasks. Whom it talks to: the store. It
decides nothing: ``runtime/swarm/allocation`` does; here is when it is asked, and how its decisions reach the store.

1. A run follows every change that it can act on, but not before the decisions of the last one are written; what
   changes in the meantime is decided about together.
2. Each decision is checked again in its transaction; the refused ones are due again, 50 ms later: what they
   stumbled over is committed by then.
3. What found no free port, address or subnet tries again when one becomes free, and every 5 minutes.
4. A life that begins after a failure waits until what the last one proposed is committed or given up: the ports and
   addresses that are taken are read from committed views.
5. What no log entry holds (addresses bring whole copies of their networks) is put aside, with a word in the log and an
   explanation, and tried with what found no room.
6. An outcome that is unknown as a whole fails this life. The next begins with what the store holds.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final

from actors.store_watcher import StoreWatcher
from runtime.errors import Refused
from runtime.protocol.explain import AskWaits, Waits
from runtime.protocol.manager import LeaderContext
from runtime.stage import Answer, Timer, handles
from runtime.stage.observe import Causes
from runtime.store.changes import Action, TooLarge
from runtime.store.events import Commit, WatchFilter
from runtime.store.transaction import Transaction
from runtime.store.view import Published, View
from runtime.swarm.allocation import RETRY_S, Allocation, Allocator
from runtime.swarm.allocation import commit as carry_out
from runtime.swarm.allocation_steps import id_of
from runtime.swarm.network_pools import IPNetwork
from runtime.swarm.waits import Wait
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

SLICE: Final = 1000
"""So many decisions are sent to the store at once."""

PAUSE_S: Final = 0.05
"""Before what was refused is tried again, in seconds."""


log = logging.getLogger("swarmlet.allocator")

_OWN: Final[Mapping[type[Any], Sequence[str]]] = {
    objects.Network: ("ipam", "driver_state"),
    objects.Node: ("attachments",),
    objects.Service: ("endpoint",),
    objects.Task: ("networks",),
}
"""The fields of each kind that hold what was allocated. Only a NEW task gets it."""


class _GoOn:
    """The pause after a refusal is over."""


class _RetryBlocked:
    """What waits may try again."""


class AllocatorActor(StoreWatcher):
    """Lives below the leader, as long as this manager leads."""

    watched = WatchFilter.kinds(objects.Network, objects.Node, objects.Service, objects.Task)

    def __init__(self, context: LeaderContext) -> None:
        super().__init__(context)
        self.allocator = Allocator(self._host_subnets)
        told = self.allocator
        self._told: dict[type[Any], tuple[Callable[[Any], None], Callable[[str], None]]] = {
            objects.Network: (told.put_network, told.remove_network),
            objects.Node: (told.put_node, told.remove_node),
            objects.Service: (told.put_service, told.remove_service),
            objects.Task: (told.put_task, told.remove_task),
        }
        self._settled = False
        self._pausing = True
        self._unwritten: deque[Allocation] = deque()
        self._in_flight: list[Allocation] = []
        self._aside: dict[str, tuple[Allocation, str]] = {}
        self._retry: Timer | None = None
        self._causes = Causes()

    def _host_subnets(self) -> Collection[IPNetwork]:
        return self.world.host_subnets()

    def snapshot(self) -> dict[str, Any]:
        return {
            "waiting": self.allocator.waiting,
            "without room": self.allocator.blocked,
            "in flight": len(self._in_flight),
            "unwritten": len(self._unwritten),
            "put aside": len(self._aside),
        }

    def begin(self, view: View) -> None:
        """Reads all networks, nodes, services and tasks."""
        services, tasks = view.all(objects.Service), view.all(objects.Task)
        self.allocator.load(services, tasks, view.all(objects.Network), view.all(objects.Node))
        self.after(0.0, _GoOn())  # asked behind the watch, so that every commit up to the answer has come before it

    def commit(self, commit: Commit) -> None:
        """Feeds changes to the allocator."""
        for change in commit.events:
            put, remove = self._told[change.kind]
            if change.action is Action.REMOVE:
                remove(change.object.id)
            else:
                put(change.object)
        if self.allocator.due:
            self._causes.add(self.trace)
        self._go_on()

    @handles(AskWaits)
    def waits(self, message: AskWaits) -> Waits:
        """Whether the service waits for a free port, and what of it or of the node cannot be written."""
        reason = self.allocator.blocked_by(message.service_id)
        waits = [Wait(message.service_id, "allocator", reason)] if reason else []
        for id, (_, text) in self._aside.items():
            task = self.view.get(objects.Task, id)
            asked = task.service_id == message.service_id if task is not None else False
            if asked or id in (message.service_id, message.node_id):
                waits.append(Wait(id, "allocator", f"what it was given cannot be written: {text}"))
        return Waits(tuple(waits))

    # What an earlier life left on the way

    def _ask_settled(self) -> None:
        self.write(partial(_is_settled, self.context.published), self._settled_or_not)

    def _settled_or_not(self, answer: Answer) -> None:
        self._settled = answer.get()
        if self._settled:
            self._pausing = False
            self._go_on()
        else:
            self.after(PAUSE_S, _GoOn())

    # Running and writing

    def _go_on(self) -> None:
        if not self._pausing and not self._in_flight and self.allocator.due:
            self.continues(*self._causes.take())
            self._unwritten.extend(self.allocator.run())
            self._write_next()
            self._retry_later()

    def _write_next(self) -> None:
        self._in_flight = [self._unwritten.popleft() for _ in range(min(SLICE, len(self._unwritten)))]
        if self._in_flight:
            self.write_batch([partial(carry_out, decision=decision) for decision in self._in_flight], self._written)
        else:
            self._go_on()

    def _written(self, answer: Answer) -> None:
        results = answer.get()
        failed = []
        for decision, done in zip(self._in_flight, results, strict=True):
            if isinstance(done, TooLarge):
                self._put_aside(decision, done.text)
            elif isinstance(done, Refused) or not done:
                failed.append(decision)
        if failed:
            self.allocator.commit_failed(failed)
            self._pause()
        self._write_next()

    def _put_aside(self, decision: Allocation, text: str) -> None:
        id = id_of(decision)
        log.warning("what %s was given cannot be written: %s", id, text, extra=self.about())
        self._aside[id] = decision, text
        self._retry_later()

    def _pause(self) -> None:
        if not self._pausing:
            self._pausing = True
            self.after(PAUSE_S, _GoOn())

    @handles(_GoOn)
    def go_on(self, message: _GoOn) -> None:
        """The pause is over."""
        if self._settled:
            self._pausing = False
            self._go_on()
        else:
            self._ask_settled()

    def _retry_later(self) -> None:
        if (self.allocator.blocked or self._aside) and self._retry is None:
            self._retry = self.after(RETRY_S, _RetryBlocked())

    @handles(_RetryBlocked)
    def retry_blocked(self, message: _RetryBlocked) -> None:
        """Five minutes passed since a service found no free port."""
        self._retry = None
        aside, self._aside = self._aside, {}
        self.allocator.commit_failed(decision for decision, _ in aside.values())
        self.allocator.retry()
        self._go_on()


def _is_settled(published: Published, tx: Transaction) -> bool:
    """Whether nothing of what allocators write is being written: proposed by an earlier life, and not yet committed."""
    view = published.view
    return not any(
        _is_written(tx, each, fields)
        for kind, fields in _OWN.items()
        for each in (view.find(kind, "task_state", types.NEW) if kind is objects.Task else view.all(kind))
    )


def _is_written(tx: Transaction, committed: Any, fields: Sequence[str]) -> bool:
    proposed: Any = tx.get(type(committed), committed.id)
    if proposed is None or proposed is committed:
        return False
    return any(getattr(proposed, name) != getattr(committed, name) for name in fields)
