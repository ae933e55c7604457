"""What is asked of the swarm by labels, because no field of the wire says it.

Rules owned here: the names of these labels, how their values are read, and that a value which cannot be read is refused
when a spec is written. A manager of another kind keeps such labels and does nothing about them, and may have let a bad
value in: it counts as absent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from runtime.errors import invalid
from runtime.swarm.durations import parse_duration

START_AFTER: Final = "swarmlet.start-after"
"""Of services: names of services, between commas, that are to be up before its first task starts."""
SCHEDULE: Final = "swarmlet.schedule"
"""Of jobs: when they run, as `schedules` reads it."""
LOST_AFTER: Final = "swarmlet.lost-after"
"""Of nodes: how long one that is out of touch keeps its tasks before it counts as down."""
REMOVE_AFTER: Final = "swarmlet.remove-after"
"""Of nodes: how long a worker is down before it is removed from the swarm."""
STOPPED: Final = "swarmlet.stopped"
"""Of services that ``swarmlet stop`` stopped: how many replicas it had, or ``global``. No manager has to know it."""
NOWHERE: Final = "node.id==swarmlet.stopped"
"""The constraint of a global service that is stopped: no node has an id like this."""
REBALANCE: Final = "swarmlet.rebalance"
"""Of services while ``swarmlet rebalance`` moves one of their tasks: what is to be taken back then."""
FAMILY: Final = "swarmlet.family"
"""Of secrets and configs that ``swarmlet rotate`` made: the name that all versions are known by."""
VERSION: Final = "swarmlet.version"
"""Of these: the number of the version. The one with the family's own name and without labels is the first."""
LONGEST_S: Final = 30 * 24 * 3600.0

Labels = Mapping[str, str]


def starts_after(labels: Labels) -> tuple[str, ...]:
    """The names of the services that have to be up first, each once."""
    names = (name.strip() for name in labels.get(START_AFTER, "").split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def seconds_of(labels: Labels, key: str) -> float | None:
    """The duration that a label gives; None where it gives none."""
    text = labels.get(key)  # never labels[key]: a map of a message would take the key in
    try:
        return None if text is None else _seconds(text)
    except ValueError:
        return None


def check_service_labels(labels: Labels) -> None:
    """``Refused`` if a label of a service asks for what cannot be read."""
    if START_AFTER in labels and not starts_after(labels):
        raise invalid(f"label {START_AFTER}: names no service; give names of services, between commas")


def check_node_labels(labels: Labels) -> None:
    """``Refused`` if a label of a node asks for what cannot be read."""
    for key in (LOST_AFTER, REMOVE_AFTER):
        try:
            if key in labels:
                _seconds(labels[key])
        except ValueError as error:
            raise invalid(f"label {key}: {error}") from None


def _seconds(text: str) -> float:
    seconds = parse_duration(text) / 1e9
    if seconds > LONGEST_S:
        raise ValueError(f"{text} is longer than 30 days")
    return seconds
