"""JobsActor brings every job to completion, slot by slot or node by node; see ``actors/node_orchestrator``.

What is its own: nothing is updated in place, a changed job runs anew; the end of a task makes room for the next; a node
that became ready gets the global jobs that it lacks in a step that looks at that node alone.
"""

from __future__ import annotations

from actors.node_orchestrator import NodeOrchestratorActor
from runtime.store.changes import Action
from runtime.store.events import Event
from runtime.store.transaction import Transaction
from runtime.swarm import jobs, ports
from runtime.swarm.global_service import matters
from runtime.swarm.replicated import NewId, Round
from runtime.swarm.slots import WouldRestart
from runtime.swarm.task_changes import Change
from runtime.swarm.task_model import ended, is_invalid
from runtime.wire.pb import objects_pb2 as objects


class JobsActor(NodeOrchestratorActor):
    """Lives below the leader; it has no updaters."""

    def is_mine(self, service: objects.Service | None) -> bool:
        return jobs.is_job_service(service)

    def is_alive(self, task: objects.Task) -> bool:
        return jobs.is_alive(task)

    def needs_restart(self, view: ports.View, task: objects.Task) -> bool:
        return jobs.needs_restart(view, task)

    def decide(self, view: ports.View, task: objects.Task) -> Change | bool:
        return jobs.restart_or_shut_down(view, task)

    def reconcile(self, tx: Transaction, service_id: str, ids: NewId, would_restart: WouldRestart, limit: int) -> Round:
        return jobs.reconcile(tx, service_id, ids, would_restart, tx.now, limit)

    def task_event(self, event: Event) -> None:
        """A task that ended makes room, whatever it was to do."""
        if ended(event.object):
            self.mark_service(event.object.service_id)

    def node_event(self, event: Event) -> None:
        """A node gives up its tasks, or gets what it lacks."""
        if event.action is Action.UPDATE and event.old is not None and not matters(event.old, event.object):
            return
        node_id = event.object.id
        self.mark_node(node_id)
        if event.action is Action.REMOVE or is_invalid(event.object):
            for task in self.view.find(objects.Task, "node", node_id):
                mine = self.is_mine(self.view.get(objects.Service, task.service_id))
                if mine and self.needs_restart(self.view, task):
                    self.mark_restart(task.id)

    def reconcile_node(self, tx: Transaction, node_id: str, ids: NewId, would_restart: WouldRestart) -> Round:
        return jobs.reconcile_node(tx, node_id, ids, would_restart, tx.now)
