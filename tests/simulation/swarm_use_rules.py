"""What must hold at each change of the store of what people ask for besides services that run: jobs, orders of starts,
secrets in use, nodes that are waited for or removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from runtime.store.changes import Action
from runtime.swarm.labels import LOST_AFTER, REMOVE_AFTER, SCHEDULE, START_AFTER, seconds_of, starts_after
from runtime.wire.pb import types_pb2 as types
from tests.simulation.raft_invariants import Violation

SEEN_WITHIN = 10.0
"""Seconds after which whoever leads has seen a label of a node: it decides by what it sees, not in the transaction."""


class UseRules:
    """``tables`` are the reference model's. ``forgotten`` are ids of nodes that somebody removes."""

    def __init__(self, tables: Mapping[str, dict[str, Any]]) -> None:
        self.tables = tables
        self.forgotten: set[str] = set()
        self.seen: Counter[str] = Counter()
        self._ran: set[str] = set()
        self._placed: set[str] = set()
        self._patient_since: dict[str, float] = {}
        self._by_field = {"task": self._task, "service": self._service, "node": self._node}

    def changed(self, field: str, action: Action, old: Any, new: Any, time: float) -> None:
        """One change, which the tables have already; ``new`` is what was removed where it was."""
        gone = action is Action.REMOVE
        if gone and field in ("secret", "config"):
            self._not_in_use(field, new.id)
        elif field in self._by_field:
            self._by_field[field](old, None if gone else new, time)

    # Services and their tasks

    def _task(self, old: Any, new: Any, _time: float) -> None:
        if new is None:
            return
        if new.status.state == types.RUNNING:
            self._ran.add(new.service_id)
        service = self.tables["service"].get(new.service_id)
        if service is None:
            return
        if service.spec.HasField("replicated_job") and (old is None or old.desired_state != new.desired_state):
            self._job(service)
        if new.status.state >= types.ASSIGNED and new.node_id and new.service_id not in self._placed:
            self._placed.add(new.service_id)
            self._first_start(service)

    def _job(self, service: Any) -> None:
        """No more tasks of an iteration are under way than were asked for, and one in a slot at most."""
        iteration, slots = service.job_status.job_iteration.index, Counter[int]()
        for task in self.tables["task"].values():
            if task.service_id == service.id and task.job_iteration.index == iteration and _under_way(task):
                slots[task.slot] += 1
        self.seen["changes of jobs"] += 1
        most = service.spec.replicated_job.max_concurrent or service.spec.replicated_job.total_completions
        if slots.total() > most or any(count > 1 for count in slots.values()):
            raise Violation(f"job {service.id}: tasks under way by slot {dict(slots)}, at most {most} and one in each")

    def _first_start(self, service: Any) -> None:
        for name in starts_after(service.spec.annotations.labels):
            known = [each.id for each in self.tables["service"].values() if each.spec.annotations.name == name]
            self.seen["ordered starts"] += 1
            if not any(id in self._ran for id in known):
                raise Violation(f"service {service.id} starts before {name} ran: label {START_AFTER}")

    def _service(self, old: Any, new: Any, _time: float) -> None:
        """A run of a job by the clock begins when the one before is over."""
        if old is None or new is None or SCHEDULE not in old.spec.annotations.labels:
            return
        before, after = old.job_status.job_iteration.index, new.job_status.job_iteration.index
        if before == after:
            return
        tasks = [each for each in self.tables["task"].values() if each.service_id == new.id]
        going = [each.id for each in tasks if each.job_iteration.index == before and _under_way(each)]
        self.seen["runs by the clock"] += 1
        if after != before + 1 or (going and before):
            raise Violation(f"job {new.id} runs for the {after}. time after the {before}., of which {going} still go")

    def _not_in_use(self, field: str, id: str) -> None:
        self.seen["removals of secrets"] += 1
        for service in self.tables["service"].values():
            container = service.spec.task.container
            if id in [each.secret_id for each in container.secrets] + [each.config_id for each in container.configs]:
                raise Violation(f"{field} {id} is removed, and service {service.id} uses it")

    # Nodes

    def _node(self, old: Any, new: Any, time: float) -> None:
        if new is None:
            self._removed(old)
            return
        if not seconds_of(new.spec.annotations.labels, LOST_AFTER):
            self._patient_since.pop(new.id, None)
            return
        since = self._patient_since.setdefault(new.id, time)
        at_once = old is not None and old.status.state in (types.NodeStatus.READY, types.NodeStatus.UNKNOWN)
        if new.status.state == types.NodeStatus.DISCONNECTED:
            self.seen["nodes out of touch"] += 1
        if at_once and new.status.state == types.NodeStatus.DOWN and time - since > SEEN_WITHIN:
            raise Violation(f"node {new.id} is down at once: label {LOST_AFTER}")

    def _removed(self, node: Any) -> None:
        if node.id in self.forgotten:
            return
        self.seen["nodes removed"] += 1
        label = seconds_of(node.spec.annotations.labels, REMOVE_AFTER)
        manages = types.MANAGER in (node.role, node.spec.desired_role)
        if label is None or manages or node.status.state != types.NodeStatus.DOWN:
            raise Violation(f"node {node.id} is removed, and nobody asked for it")


def _under_way(task: Any) -> bool:
    return task.desired_state <= types.COMPLETE and task.status.state <= types.RUNNING
