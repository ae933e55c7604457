"""ConstraintEnforcerActor rejects tasks whose node does not fit any more, whenever a node changed.

The rules are those of ``runtime/swarm/enforcer``; tasks are looked at in the transaction that rejects them, through the
index of their node.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from actors.store_watcher import StoreWatcher, results_of
from runtime.protocol.manager import LeaderContext
from runtime.stage import Answer, GiveUp, Policy
from runtime.store.changes import Action
from runtime.store.events import Commit, WatchFilter
from runtime.store.transaction import Transaction
from runtime.store.view import View
from runtime.swarm.enforcer import enforce, matters
from runtime.wire.pb import objects_pb2 as objects


class ConstraintEnforcerActor(StoreWatcher):
    """Lives below the leader."""

    policy = Policy(give_up=GiveUp.NEVER)
    watched = WatchFilter.kinds(objects.Node)

    def __init__(self, context: LeaderContext) -> None:
        super().__init__(context)
        self._nodes: dict[str, None] = {}
        self._writing = False

    def snapshot(self) -> dict[str, Any]:
        return {"to look at": len(self._nodes), "writing": self._writing}

    def begin(self, view: View) -> None:
        self._nodes.update((node.id, None) for node in view.all(objects.Node) if matters(None, node))
        self._go_on()

    def commit(self, commit: Commit) -> None:
        for event in commit.events:
            if event.action is not Action.REMOVE and matters(event.old, event.object):
                self._nodes[event.object.id] = None
        self._go_on()

    def _go_on(self) -> None:
        if self._nodes and not self._writing:
            self._writing = True
            steps = [partial(_enforce, node_id) for node_id in self._nodes]
            self._nodes.clear()
            self.write_batch(steps, self._written)

    def _written(self, answer: Answer) -> None:
        self._writing = False
        results_of(answer)
        self._go_on()


def _enforce(node_id: str, tx: Transaction) -> int:
    return enforce(tx, node_id)
