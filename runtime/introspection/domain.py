"""Views of the swarm itself, made of a manager's newest committed state and of what an agent says: which tasks wait and
why, and where a node's agent and its manager are of different minds.

Pure functions. A task *waits* when it is wanted and does not run: it has no node, its node is not done with it, or it
is about to be replaced. Why it waits is what the scheduler wrote into its status, or whose turn it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from runtime.store.view import View
from runtime.swarm.explaining import SubjectKind, explain, find, whose_turn
from runtime.swarm.explaining_past import how_it_ended
from runtime.swarm.filters import NO_SUITABLE_NODE
from runtime.swarm.naming import task_name
from runtime.swarm.planning import Action
from runtime.swarm.planning import plan as plan_node
from runtime.swarm.start_order import STARTS_AFTER
from runtime.swarm.task_model import ended
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

WAITING_SHOWN: Final = 200
TASKS_SHOWN: Final = 1000
TASKS_LISTED: Final = 500
_STATE: Final = types.TaskState.Name


def waiting_tasks(view: View) -> list[tuple[objects.Task, str, str]]:
    """Every task that waits, with who acts next and why, in the order of ids. Looks at no task that runs as it is
    wanted to, nor at history."""
    found = []
    for desired in (types.READY, types.RUNNING, types.COMPLETE):
        for task in view.find(objects.Task, "desired_state", desired):
            if task.status.state == types.RUNNING or (ended(task) and task.status.state == types.COMPLETE):
                continue
            who, why = whose_turn(view, task)
            if why:
                found.append((task, who, why))
    return sorted(found, key=lambda each: each[0].id)


def waiting(view: View, now: float, limit: int = WAITING_SHOWN) -> dict[str, Any]:
    """The tasks that wait, those that wait longest first: at most ``limit`` of them, their number, and how many wait
    for the same reason."""
    found = waiting_tasks(view)
    rows: list[dict[str, Any]] = [
        {
            "id": task.id,
            "name": f"{task.service_annotations.name}.{task.slot or hostname(view, task.node_id)}",
            "service": task.service_annotations.name,
            "state": _STATE(task.status.state).lower(),
            "node": hostname(view, task.node_id),
            "since_s": max(0.0, now - _since(task)),
            "who": who,
            "why": f"{why}; {how_it_ended(task)}" if ended(task) else why,
        }
        for task, who, why in found
    ]
    reasons = Counter((who, why) for _, who, why in found)
    rows.sort(key=lambda row: (-row["since_s"], row["name"], row["id"]))
    return {
        "count": len(rows),
        "tasks": rows[:limit],
        "reasons": [{"who": who, "why": why, "count": count} for (who, why), count in reasons.most_common(limit)],
    }


def tasks(view: View, limit: int = TASKS_LISTED, text: str = "") -> dict[str, Any]:
    """The first ``limit`` tasks that hold ``text`` in a cell (any case), by service and slot, of each service those
    that are to run first; ``count`` is how many there are in all, ``found`` how many hold the text. Without a text no
    more than the first are looked at."""
    rows: list[dict[str, str]] = []
    found, wanted = 0, text.lower()
    for task in _in_order(view):
        if not wanted and len(rows) == limit:
            break
        row = _task_row(view, task)
        if wanted and wanted not in " ".join(row.values()).lower():
            continue
        found += 1
        if len(rows) < limit:
            rows.append(row)
    count = view.count(objects.Task)
    return {"count": count, "found": found if wanted else count, "tasks": rows}


def _in_order(view: View) -> Iterator[objects.Task]:
    services = sorted(view.all(objects.Service), key=lambda service: (service.spec.annotations.name, service.id))
    for service in services:
        found = view.find(objects.Task, "service", service.id)
        yield from sorted(found, key=lambda task: (task.desired_state > types.COMPLETE, task.slot, task.id))
    if sum(view.count_found(objects.Task, "service", service.id) for service in services) < view.count(objects.Task):
        yield from (task for task in view.all(objects.Task) if view.get(objects.Service, task.service_id) is None)


def _task_row(view: View, task: objects.Task) -> dict[str, str]:
    return {
        "id": task.id,
        "name": f"{task.service_annotations.name}.{task.slot or hostname(view, task.node_id)}",
        "state": _STATE(task.status.state).lower(),
        "desired": _STATE(task.desired_state).lower(),
        "node": hostname(view, task.node_id),
        "why": task.status.err or task.status.message,
    }


def _since(task: objects.Task) -> float:
    """When it came to its present state."""
    at = task.status.timestamp if task.status.HasField("timestamp") else task.meta.created_at
    return float(at.seconds) + at.nanos / 1e9


def hostname(view: View, node_id: str) -> str:
    """How a node's machine is called, or its id where nobody knows."""
    node = view.get(objects.Node, node_id) if node_id else None
    return node.description.hostname or node_id if node is not None else node_id


def explanation(view: View, kind: SubjectKind, name: str) -> dict[str, Any]:
    """What a service, a task or a node waits for, as far as the store says. Refused if there is none of that name."""
    return explain(view, find(view, kind, name), ())


def plan(view: View, action: Action, name: str, now: float) -> dict[str, Any]:
    """What would happen without a node. Refused if there is none of that name."""
    node = find(view, "node", name)
    assert isinstance(node, objects.Node)
    return plan_node(view, node, action, now)


def reason_class(why: str, who: str) -> str:
    """What a metric may be labelled with: the reason that stops most nodes, without numbers and names, so that there
    are only a few; who acts next where that is not the scheduler."""
    if who == "scheduler" and why.startswith(STARTS_AFTER):
        return OTHERS_FIRST
    if who != "scheduler" or not why.startswith(NO_SUITABLE_NODE):
        return who
    first = why[len(NO_SUITABLE_NODE) :].lstrip(" (").split(";", 1)[0]
    return next((reason for reason in REASONS if reason in first), NO_SUITABLE_NODE)


OTHERS_FIRST: Final = "starts after other services"
REASONS: Final = (
    "insufficient resources", "scheduling constraints not satisfied", "unsupported platform",
    "host-mode port already in use", "max replicas per node limit exceed", "missing plugin",
    "not available for new tasks", "cannot fulfill requested CSI volume mounts",
)  # fmt: skip


# What the agent believes, and what the manager does


def agent_task(task: objects.Task, status: types.TaskStatus) -> dict[str, Any]:
    """A task as its node's agent has it."""
    return {
        "id": task.id,
        "name": task_name(task),
        "state": _STATE(status.state).lower(),
        "desired": _STATE(task.desired_state).lower(),
    }


def node_tasks(view: View, node_id: str) -> list[dict[str, Any]]:
    """The tasks that a node is to have, as the manager's store has them."""
    return [agent_task(task, task.status) for task in view.find(objects.Task, "node", node_id)]


def disagreements(agent: Sequence[Mapping[str, Any]], manager: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each task that both do not tell the same of: ``agent`` and ``manager`` are state and desired state, empty where
    one does not know it. Tasks of the past are the manager's alone: an agent forgets what it was told to remove."""
    told, known = {each["id"]: each for each in agent}, {each["id"]: each for each in manager}
    found = []
    for id in sorted(told | known):
        ours, theirs = _belief(told.get(id)), _belief(known.get(id))
        if ours == theirs or (not ours and known[id]["state"] in _PAST):
            continue
        name = str((told.get(id) or known[id])["name"])
        found.append({"id": id, "name": name, "agent": ours, "manager": theirs, "means": _meaning(ours, theirs)})
    return found


def _belief(row: Mapping[str, Any] | None) -> str:
    return f"{row['state']}, to be {row['desired']}" if row is not None else ""


def _meaning(agent: str, manager: str) -> str:
    if not agent:
        return "the agent was not told of it yet, or has lost it"
    if not manager:
        return "the manager forgot it: the agent removes it with its next assignments"
    if agent.split(",")[0] != manager.split(",")[0]:
        return "the agent's report is on its way"
    return "the manager's order is on its way"


_PAST: Final = frozenset({"complete", "failed", "shutdown", "rejected", "orphaned", "remove"})


def beliefs(
    node_id: str, agent: Sequence[Mapping[str, Any]] | None, manager: Sequence[Mapping[str, Any]] | None
) -> dict[str, Any]:
    """What both sides say of a node's tasks; a side that is not in this process is None, and nothing is compared."""
    compared = agent is not None and manager is not None
    return {
        "node": node_id,
        "agent": _cut(agent),
        "manager": _cut(manager),
        "differ": disagreements(agent or (), manager or ()) if compared else None,
    }


def _cut(rows: Iterable[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    return [dict(row) for row in rows][:TASKS_SHOWN] if rows is not None else None
