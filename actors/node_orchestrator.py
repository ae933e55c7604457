"""Base of the orchestrators whose services have tasks on every node that fits; see ``actors/orchestrator``.

A node that came up or changed gets what it lacks at once, in a step that looks at that node alone.
"""

from __future__ import annotations

from functools import partial

from actors.orchestrator import OrchestratorActor, Work
from runtime.protocol.manager import LeaderContext
from runtime.store.transaction import Transaction
from runtime.swarm.identity import new_id
from runtime.swarm.replicated import NewId, Round
from runtime.swarm.slots import WouldRestart
from runtime.swarm.task_changes import apply
from runtime.wire.pb import objects_pb2 as objects


class NodeOrchestratorActor(OrchestratorActor):
    """Each mode says when a node is to be looked at (`mark_node`), and what it lacks (`reconcile_node`)."""

    def __init__(self, context: LeaderContext) -> None:
        super().__init__(context)
        self._nodes: dict[str, None] = {}

    def reconcile_node(self, tx: Transaction, node_id: str, ids: NewId, would_restart: WouldRestart) -> Round:
        """What a node lacks or has too much of, in one transaction's changes."""
        raise NotImplementedError

    def mark_node(self, node_id: str) -> None:
        """The node is looked at in the next batch."""
        self._nodes[node_id] = None

    def more_work(self) -> list[Work]:
        nodes = list(self._nodes)
        self._nodes.clear()
        return [self._look_at(node_id) for node_id in nodes]

    def _look_at(self, node_id: str) -> Work:
        def step(tx: Transaction) -> Round:
            def would_restart(task: objects.Task) -> bool:
                service = tx.get(objects.Service, task.service_id)
                return service is not None and self.supervisor.should_restart(task, service, tx.now)

            round = self.reconcile_node(tx, node_id, partial(new_id, self.world.entropy), would_restart)
            apply(tx, round.changes)
            return round

        def done(round: Round) -> None:
            if round.more:
                self.mark_node(node_id)

        return Work(step, done)
