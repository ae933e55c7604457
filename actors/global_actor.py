"""GlobalActor keeps every global service on every node that fits; see ``actors/node_orchestrator``.

What is its own: its services are updated in place, and a node counts as changed only where that matters to them.
"""

from __future__ import annotations

from actors.node_orchestrator import NodeOrchestratorActor
from runtime.store.changes import Action
from runtime.store.events import Event
from runtime.store.transaction import Transaction
from runtime.swarm import global_service, ports
from runtime.swarm.replicated import NewId, Round
from runtime.swarm.slots import WouldRestart
from runtime.swarm.task_changes import Change
from runtime.swarm.task_model import ended, wanted
from runtime.wire.pb import objects_pb2 as objects


class GlobalActor(NodeOrchestratorActor):
    """Lives below the leader; its children are the updaters of services under way."""

    def is_mine(self, service: objects.Service | None) -> bool:
        return global_service.is_global(service)

    def needs_restart(self, view: ports.View, task: objects.Task) -> bool:
        return wanted(task) and ended(task)

    def decide(self, view: ports.View, task: objects.Task) -> Change | bool:
        return global_service.restart_or_shut_down(view, task)

    def reconcile(self, tx: Transaction, service_id: str, ids: NewId, would_restart: WouldRestart, limit: int) -> Round:
        return global_service.reconcile(tx, service_id, ids, would_restart, tx.now, limit)

    def node_event(self, event: Event) -> None:
        """A node may have to get tasks, or to lose them."""
        if event.action is not Action.UPDATE or event.old is None or global_service.matters(event.old, event.object):
            self.mark_node(event.object.id)

    def reconcile_node(self, tx: Transaction, node_id: str, ids: NewId, would_restart: WouldRestart) -> Round:
        return global_service.reconcile_node(tx, node_id, ids, would_restart, tx.now)
