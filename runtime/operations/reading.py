"""How services, tasks and nodes are read as the Engine API shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

Json = Mapping[str, Any]

ENDED: Final = frozenset(("complete", "failed", "rejected", "shutdown", "remove", "orphaned"))
"""States of tasks of which nothing runs any more."""
REASONS_MAX: Final = 3
_MODES: Final = {
    "Replicated": "replicated", "Global": "global", "ReplicatedJob": "replicated-job", "GlobalJob": "global-job",
}  # fmt: skip


def name_of(thing: Json) -> str:
    """The name in the spec of a service, a secret or a config."""
    return str(thing["Spec"]["Name"])


def mode_of(spec: Json) -> str:
    """The mode of a service, as ``docker service create --mode`` says it."""
    found = [shown for key, shown in _MODES.items() if (spec.get("Mode") or {}).get(key) is not None]
    return found[0] if found else "replicated"


def is_job(spec: Json) -> bool:
    """Whether a service runs to completion; any update of one runs it anew."""
    return mode_of(spec).endswith("-job")


def replicas_of(spec: Json) -> int:
    """How many tasks a replicated service wants."""
    return int((spec["Mode"].get("Replicated") or {}).get("Replicas", 1))


def state_of(task: Json) -> str:
    """The state that was last heard of a task."""
    return str(task["Status"]["State"])


def has_ended(task: Json) -> bool:
    """Whether nothing of a task runs any more."""
    return state_of(task) in ENDED


def is_wanted(task: Json) -> bool:
    """Whether a task is to run, now or once its turn comes."""
    return task.get("DesiredState") not in ENDED


def runs(task: Json) -> bool:
    """Whether a task runs and is to."""
    return is_wanted(task) and state_of(task) == "running"


def down_nodes(nodes: Iterable[Json]) -> frozenset[str]:
    """The ids of nodes from which nothing is heard."""
    return frozenset(node["ID"] for node in nodes if node["Status"]["State"] == "down")


def hostname(node: Json) -> str:
    """How people know a node."""
    return str((node.get("Description") or {}).get("Hostname") or node["ID"])


def task_names(services: Iterable[Json]) -> dict[str, str]:
    """Names of services by id, for `task_name`."""
    return {service["ID"]: name_of(service) for service in services}


def task_name(task: Json, names: Mapping[str, str]) -> str:
    """``web.2``, or ``web.NODE`` for what runs once on each node."""
    service = task.get("ServiceID", "")
    return f"{names.get(service, service)}.{task.get('Slot') or task.get('NodeID') or 0}"


def said(task: Json) -> str:
    """The state of a task, with what it says of itself."""
    text = task["Status"].get("Err") or task["Status"].get("Message") or ""
    return f"{state_of(task)} ({text})" if text else state_of(task)


def why(tasks: Iterable[Json]) -> list[str]:
    """What tasks that are wanted and do not run say of themselves, the most frequent first."""
    counted = Counter(said(task) for task in tasks if is_wanted(task) and state_of(task) != "running")
    ordered = sorted(counted.items(), key=lambda each: (-each[1], each[0]))
    return [f"{number} {text}" for text, number in ordered[:REASONS_MAX]]


def wanted_number(service: Json) -> int:
    """How many tasks a service is to have at this moment: as ``ServiceStatus`` says, where it was asked for."""
    status = service.get("ServiceStatus")
    if status is not None:
        return int(status["DesiredTasks"])
    return replicas_of(service["Spec"]) if mode_of(service["Spec"]) == "replicated" else 0


def not_up(service: Json, tasks: Sequence[Json]) -> str:
    """Why a service is not up yet; empty if as many tasks run as it wants."""
    running, wanted = sum(map(runs, tasks)), wanted_number(service)
    if running >= wanted:
        return ""
    return "; ".join([f"{running} of {wanted} tasks run", *why(tasks)])


def still_there(tasks: Iterable[Json], unheard: Collection[str]) -> list[Json]:
    """The tasks that may still run, without those on nodes from which nothing is heard."""
    return [task for task in tasks if not has_ended(task) and task.get("NodeID", "") not in unheard]
