"""NodeReaperActor removes workers that are down for as long as their label allows; see ``runtime/swarm/node_reaper``.

It looks at a node when it changes and when its time is over, and once more in the transaction that removes it.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Final

from actors.store_watcher import StoreWatcher
from runtime.pki.certificates import certificate_expiry
from runtime.protocol.explain import AskWaits, Waits
from runtime.protocol.manager import LeaderContext
from runtime.stage import Answer, GiveUp, Policy, Timer, handles
from runtime.store.changes import Action
from runtime.store.events import Commit, WatchFilter
from runtime.store.transaction import Transaction
from runtime.store.view import View
from runtime.swarm.control.nodes import take_out
from runtime.swarm.labels import REMOVE_AFTER
from runtime.swarm.node_reaper import NodeReaper, patience
from runtime.swarm.waits import Wait
from runtime.wire.pb import objects_pb2 as objects

log = logging.getLogger("swarmlet.node_reaper")

AGAIN_S: Final = 5.0
"""Seconds before what the store did not take is tried again."""


class _Due:
    """The time of a node may be over."""


class NodeReaperActor(StoreWatcher):
    """Lives below the leader."""

    policy = Policy(give_up=GiveUp.NEVER)
    watched = WatchFilter.kinds(objects.Node)

    def __init__(self, context: LeaderContext) -> None:
        super().__init__(context)
        self.reaper = NodeReaper()
        self._timer: Timer | None = None

    def snapshot(self) -> dict[str, Any]:
        return {"to be removed": len(self.reaper)}

    def begin(self, view: View) -> None:
        now = self.monotonic()
        for node in view.all(objects.Node):
            self.reaper.node_changed(node, now)
        self._arm()

    def commit(self, commit: Commit) -> None:
        now = self.monotonic()
        for event in commit.events:
            if event.action is Action.REMOVE:
                self.reaper.node_gone(event.object.id)
            else:
                self.reaper.node_changed(event.object, now)
        self._arm()

    @handles(_Due)
    def due(self, message: _Due) -> None:
        """Removes the nodes whose time is over, each in a step of its own."""
        self._timer = None
        due = self.reaper.take_due(self.monotonic())
        if due:
            self.write_batch([partial(_remove, node_id) for node_id in due], partial(self._removed, due))
        self._arm()

    def _removed(self, due: list[str], answer: Answer) -> None:
        for node_id, result in zip(due, answer.value or [answer.error] * len(due), strict=True):
            about = self.about(node_id=node_id)
            if isinstance(result, Exception):
                log.warning("node %s is down, and could not be removed: %s", node_id, result, extra=about)
                self.reaper.put_off(node_id, self.monotonic() + AGAIN_S)
            elif result:
                log.info("node %s was removed: it has been down as long as its label allows", node_id, extra=about)
        self._arm()

    @handles(AskWaits)
    def waits(self, message: AskWaits) -> Waits:
        """When a node is removed."""
        at = self.reaper.due_at(message.node_id)
        if at is None:
            return Waits()
        why = f"it is down, and is removed then unless it comes back: label {REMOVE_AFTER}"
        return Waits((Wait(message.node_id, "node_reaper", why, max(0.0, at - self.monotonic())),))

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.reaper.next_at
        if at is not None:
            self._timer = self.after(max(0.0, at - self.monotonic()), _Due())


def _remove(node_id: str, tx: Transaction) -> bool:
    """In the store's turn: whether the node was still to be removed."""
    node = tx.get(objects.Node, node_id)
    if node is None or patience(node) is None:
        return False
    take_out(tx, node, certificate_expiry)
    return True
