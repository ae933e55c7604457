"""Moving one task of a service to another node, whoever leads: what the service's spec becomes, and back.

Rules owned here: there are two means (`runtime.swarm.rebalancing` says which is whose). A constraint against the node
makes the one task there out of date, and the leader replaces it as the service's update config says; without the
constraint nothing is out of date again. One replica more and one less (start-first), or one less and one more, takes
the task from the fullest node. What is to be taken back is a label of the service for as long as it takes, so whoever
comes after a command that died can do it; what others changed meanwhile stays.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from runtime.operations.reading import Json, has_ended, is_wanted, not_up, replicas_of
from runtime.swarm.labels import REBALANCE

MONITOR_S: Final = 5.0
_STOPPED: Final = ("paused", "rollback_started", "rollback_paused", "rollback_completed")


def start_first(spec: Json) -> bool:
    """Whether the new task is to run before the old one ends."""
    return bool((spec.get("UpdateConfig") or {}).get("Order") == "start-first")


def delay_s(spec: Json) -> float:
    """The seconds between two moves of a service."""
    return float((spec.get("UpdateConfig") or {}).get("Delay") or 0) / 1e9


def monitor_s(spec: Json) -> float:
    """The seconds for which a new task is watched before it counts."""
    return float((spec.get("UpdateConfig") or {}).get("Monitor") or 0) / 1e9 or MONITOR_S


def begun(spec: Json, move: Json) -> dict[str, Any] | None:
    """The spec with which a move begins; None if the service is not any more as it was when the move was planned."""
    labels = spec.get("Labels") or {}
    if REBALANCE in labels or replicas_of(spec) != move["replicas"]:
        return None
    new = copy.deepcopy(dict(spec))
    if move["means"] == "constraint":
        new["Labels"] = {**labels, REBALANCE: f"away {move['from_id']}"}
        template = new["TaskTemplate"]
        place = template["Placement"] = template.get("Placement") or {}
        place["Constraints"] = [*(place.get("Constraints") or []), _against(move["from_id"])]
    else:
        new["Labels"] = {**labels, REBALANCE: f"replicas {move['replicas']}"}
        new["Mode"] = {"Replicated": {"Replicas": move["replicas"] + (1 if start_first(spec) else -1)}}
    return new


def taken_back(spec: Json) -> dict[str, Any] | None:
    """The spec with which a move ends, whether it came to pass or not; None if none was begun."""
    labels = dict(spec.get("Labels") or {})
    what, _, value = labels.pop(REBALANCE, "").partition(" ")
    if not what:
        return None
    new = copy.deepcopy(dict(spec))
    new["Labels"] = labels
    if what == "away":
        place = new["TaskTemplate"].get("Placement") or {}
        place["Constraints"] = [each for each in place.get("Constraints") or [] if each != _against(value)]
        new["TaskTemplate"]["Placement"] = place
    elif value.isascii() and value.isdecimal() and abs(replicas_of(spec) - int(value)) == 1:
        new["Mode"] = {"Replicated": {"Replicas": int(value)}}
    return new


def _against(node_id: str) -> str:
    return f"node.id!={node_id}"


def stuck(service: Json) -> str:
    """Why a move that was begun does not come to pass; empty as long as it may."""
    status = service.get("UpdateStatus") or {}
    if status.get("State") in _STOPPED:
        return f"its update is {status['State']}: {status.get('Message', '')}"
    return "" if REBALANCE in (service["Spec"].get("Labels") or {}) else "somebody changed it meanwhile"


def missing(service: Json, tasks: Sequence[Json], move: Json) -> str:
    """What is still to come until a move that was begun may end; empty when it may. With one replica less: until the
    task that was taken has ended."""
    if move["means"] == "constraint":
        here = [task for task in tasks if is_wanted(task) and task.get("NodeID") == move["from_id"]]
        if here:
            return f"its task on {move['from']} is to be replaced"
        if (service.get("UpdateStatus") or {}).get("State") == "updating":
            return "; ".join(filter(None, ["its update is not over", not_up(service, tasks)]))
        return not_up(service, tasks)
    if replicas_of(service["Spec"]) > move["replicas"]:
        return not_up(service, tasks)
    going = [task for task in tasks if not is_wanted(task) and not has_ended(task)]
    return unsettled(service, tasks) or (f"{len(going)} of its tasks are to end" if going else "")


def unsettled(service: Json, tasks: Sequence[Json]) -> str:
    """What is missing until a service has just the tasks that it is to have; empty when it has."""
    number, replicas = sum(map(is_wanted, tasks)), replicas_of(service["Spec"])
    return f"it has {number} tasks of {replicas}" if number != replicas else not_up(service, tasks)


def where_tasks_are(tasks: Sequence[Json]) -> Counter[str]:
    """How many tasks that are wanted each node has, by its id."""
    return Counter(task.get("NodeID", "") for task in tasks if is_wanted(task))
