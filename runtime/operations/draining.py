"""How far a node's draining is: what is still there, and what runs nowhere else yet, each with the reason.

Rules owned here: a node is empty when all its tasks have ended; a task of a replicated service or job has moved when
the task that is wanted in its slot runs (or is complete) on another node; a slot that nothing is wanted in any more is
nothing to wait for, and neither is a global service's place. Nobody can say of a node that is down whether its tasks
have ended: they are not waited for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from runtime.operations.reading import Json, has_ended, hostname, is_wanted, mode_of, said, state_of, task_name

Place = tuple[str, int]
"""Service id and slot."""
SHOWN_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Draining:
    """The tasks that hold it up, each as a sentence."""

    leaving: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def text(self) -> str:
        """What is still to come; empty when it is done."""
        parts = []
        if self.leaving:
            parts.append(f"{_count(self.leaving)} not ended: {_first(self.leaving)}")
        if self.missing:
            parts.append(f"{_count(self.missing)} not running elsewhere: {_first(self.missing)}")
        return "; ".join(parts)


def drained(node: Json, availability: str = "drain") -> dict[str, Any] | None:
    """The spec of the node with another availability; None if it has that already."""
    spec = node["Spec"]
    return None if spec["Availability"] == availability else {**spec, "Availability": availability}


def is_down(node: Json) -> bool:
    """Whether nothing is heard of the node."""
    return bool(node["Status"]["State"] == "down")


def places(node_id: str, tasks: Iterable[Json], services: Iterable[Json]) -> set[Place]:
    """The slots whose tasks have to leave the node, or have just left it and do not run elsewhere yet."""
    with_slots = {each["ID"] for each in services if mode_of(each["Spec"]).startswith("replicated")}
    by_place: dict[Place, list[Json]] = {}
    for task in tasks:
        if task["ServiceID"] in with_slots:
            by_place.setdefault(_place(task), []).append(task)
    return {place for place, held in by_place.items() if _is_leaving(node_id, held)}


def _place(task: Json) -> Place:
    return task["ServiceID"], task.get("Slot", 0)


def _is_leaving(node_id: str, held: Sequence[Json]) -> bool:
    if any(task.get("NodeID") == node_id and not has_ended(task) for task in held):
        return True
    newest = max((task for task in held if not is_wanted(task)), key=_created, default=None)
    came_from_here = newest is not None and newest.get("NodeID") == node_id
    return came_from_here and any(is_wanted(task) and _is_missing(task) for task in held)


def _created(task: Json) -> tuple[str, str, str]:
    """The API cuts zeros off the end of a time, and the point with them."""
    text = str(task.get("CreatedAt", "")).removesuffix("Z")
    whole, _, fraction = text.partition(".")
    return whole, fraction, task["ID"]


def progress(node: Json, tasks: Sequence[Json], moving: Collection[Place], names: Mapping[str, str]) -> Draining:
    """How far it is; ``moving`` are the slots that `places` has named since the draining began."""
    here = [task for task in tasks if task.get("NodeID") == node["ID"] and not has_ended(task)]
    elsewhere = [
        task for task in tasks if _place(task) in moving and is_wanted(task) and task.get("NodeID") != node["ID"]
    ]
    leaving = [] if is_down(node) else [f"{task_name(task, names)} {_why_here(task)}" for task in here]
    missing = [f"{task_name(task, names)} is {_why_missing(task)}" for task in elsewhere if _is_missing(task)]
    return Draining(tuple(sorted(leaving)), tuple(sorted(missing)))


def unheard(node: Json, tasks: Iterable[Json]) -> str:
    """What has to be said of a node that is down; empty for any other."""
    number = sum(task.get("NodeID") == node["ID"] and not has_ended(task) for task in tasks)
    if not is_down(node) or not number:
        return ""
    noun = "task still runs" if number == 1 else "tasks still run"
    return f"{hostname(node)} is down: nobody can say whether {number} {noun} there"


def _is_missing(task: Json) -> bool:
    return state_of(task) not in ("running", "complete")


def _why_here(task: Json) -> str:
    if is_wanted(task):
        return f"is {said(task)} and was not told to stop yet"
    grace = ((task.get("Spec") or {}).get("ContainerSpec") or {}).get("StopGracePeriod")
    time = f", in {grace / 1e9:g} s" if grace else ""
    return f"is {state_of(task)} and was told to stop{time}"


def _why_missing(task: Json) -> str:
    if state_of(task) == task.get("DesiredState") == "ready":
        return "ready, and held until the old task has stopped"
    return said(task)


def _count(sentences: Sequence[str]) -> str:
    return f"{len(sentences)} task{'' if len(sentences) == 1 else 's'}"


def _first(sentences: Sequence[str]) -> str:
    more = len(sentences) - SHOWN_MAX
    return "; ".join(sentences[:SHOWN_MAX]) + (f"; and {more} more" if more > 0 else "")
