"""GlobalActor keeps every global service on every node that fits; see ``actors/orchestrator``.

What is its own: a node that came up or changed gets what it lacks at once, in a step that looks at that node alone.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from actors.orchestrator import OrchestratorActor, Work
from runtime.protocol.manager import LeaderContext
from runtime.store.changes import Action
from runtime.store.events import Event
from runtime.store.transaction import Transaction
from runtime.swarm import global_service
from runtime.swarm.identity import new_id
from runtime.swarm.replicated import NewId, Round
from runtime.swarm.slots import WouldRestart
from runtime.swarm.task_changes import Change, apply
from runtime.swarm.task_model import ended, wanted
from runtime.wire.pb import objects_pb2 as objects


class GlobalActor(OrchestratorActor):
    """Lives below the leader; its children are the updaters of services under way."""

    def __init__(self, context: LeaderContext) -> None:
        super().__init__(context)
        self._nodes: dict[str, None] = {}

    def is_mine(self, service: objects.Service | None) -> bool:
        return global_service.is_global(service)

    def needs_restart(self, view: Any, task: objects.Task) -> bool:
        return wanted(task) and ended(task)

    def decide(self, view: Any, task: objects.Task) -> Change | bool:
        return global_service.restart_or_shut_down(view, task)

    def reconcile(self, tx: Transaction, service_id: str, ids: NewId, would_restart: WouldRestart, limit: int) -> Round:
        return global_service.reconcile(tx, service_id, ids, would_restart, tx.now, limit)

    def node_event(self, event: Event) -> None:
        """A node may have to get tasks, or to lose them."""
        if event.action is not Action.UPDATE or event.old is None or global_service.matters(event.old, event.object):
            self._nodes[event.object.id] = None

    def more_work(self) -> list[Work]:
        nodes = list(self._nodes)
        self._nodes.clear()
        return [self._look_at(node_id) for node_id in nodes]

    def _look_at(self, node_id: str) -> Work:
        def step(tx: Transaction) -> Round:
            def would_restart(task: objects.Task) -> bool:
                service = tx.get(objects.Service, task.service_id)
                return service is not None and self.supervisor.should_restart(task, service, tx.now)

            ids = partial(new_id, self.world.entropy)
            round = global_service.reconcile_node(tx, node_id, ids, would_restart, tx.now)
            apply(tx, round.changes)
            return round

        def done(round: Round) -> None:
            if round.more:
                self._nodes[node_id] = None

        return Work(step, done)
