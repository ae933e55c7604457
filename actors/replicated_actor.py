"""ReplicatedActor keeps every replicated service at its number of tasks; see ``actors/orchestrator``."""

from __future__ import annotations

from actors.orchestrator import OrchestratorActor
from runtime.store.changes import Action
from runtime.store.events import Event
from runtime.store.transaction import Transaction
from runtime.swarm import ports, replicated
from runtime.swarm.replicated import NewId, Round
from runtime.swarm.slots import WouldRestart
from runtime.swarm.task_model import is_invalid
from runtime.wire.pb import objects_pb2 as objects


class ReplicatedActor(OrchestratorActor):
    """Lives below the leader; its children are the updaters of services under way."""

    def is_mine(self, service: objects.Service | None) -> bool:
        return replicated.is_replicated(service)

    def needs_restart(self, view: ports.View, task: objects.Task) -> bool:
        return replicated.needs_restart(view, task)

    def reconcile(self, tx: Transaction, service_id: str, ids: NewId, would_restart: WouldRestart, limit: int) -> Round:
        return replicated.reconcile(tx, service_id, ids, would_restart, tx.now, limit)

    def node_event(self, event: Event) -> None:
        """A node that went down, is drained or gone gives up its tasks."""
        if event.action is Action.REMOVE or is_invalid(event.object):
            for task in replicated.tasks_to_restart(self.view, event.object.id):
                self.mark_restart(task.id)
