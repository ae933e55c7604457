"""What the engine tells of the swarm's objects in ``/events``: from a committed change to an event, and who wants it.

Rules it owns:
- An event names an object and what of it changed, never its content: of a secret there is the name and nothing else.
- Only what people watch is compared: a node's availability, role, state and place among the managers; a service's
  image, replicas and update. Every other update has the object's name alone.
- A gap is an event too (``daemon``, ``gap``): it passes every filter, because nobody may miss it unknowingly.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from runtime.engine_api.convert import node
from runtime.engine_api.convert.service import UPDATE_STATES
from runtime.protocol.cluster import SwarmEvent
from runtime.store.changes import Action
from runtime.store.kinds import TABLES
from runtime.wire.pb import objects_pb2 as objects

if TYPE_CHECKING:
    from runtime.engine_api.filters import Filters
    from runtime.engine_api.jsonio import JsonObject
    from runtime.store.changes import Change

NANOS: Final = 1_000_000_000
HISTORY: Final = 256
"""How many events are kept for whoever asks with ``since``."""
KINDS: Final = (objects.Node, objects.Service, objects.Network, objects.Secret, objects.Config)
FILTERS: Final = (
    "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret",
    "service", "type", "volume",
)  # fmt: skip


def gap(node_id: str, reason: str, time_ns: int) -> SwarmEvent:
    """In the place of events that cannot be told."""
    return SwarmEvent("daemon", "gap", node_id, {"reason": reason}, time_ns, {}, "local")


def event_of(change: Change, now_ns: int) -> SwarmEvent:
    """The event of a change to one of ``KINDS``. A removal happens now; the others when the object says."""
    new, old = change.object, change.old
    kind = TABLES[change.kind].field
    stamp = {Action.CREATE: new.meta.created_at, Action.UPDATE: new.meta.updated_at}.get(change.action)
    at = now_ns if stamp is None or not stamp.seconds else stamp.seconds * NANOS + stamp.nanos
    attributes = {"name": _name(new)}
    if change.action is Action.UPDATE and old is not None:
        attributes |= _DIFFERENCES.get(kind, _nothing)(new, old)
    return SwarmEvent(kind, change.action.name.lower(), new.id, attributes, at, dict(new.spec.annotations.labels))


def _name(obj: Any) -> str:
    name = str(obj.spec.annotations.name)
    return name or (str(obj.description.hostname) if isinstance(obj, objects.Node) else "")


def _pair(key: str, old: str, new: str) -> dict[str, str]:
    return {f"{key}.new": new, f"{key}.old": old} if old != new else {}


def _nothing(_new: Any, _old: Any) -> dict[str, str]:
    return {}


def _node(new: objects.Node, old: objects.Node) -> dict[str, str]:
    names = node.AVAILABILITY_NAMES
    found = _pair("availability", names.get(old.spec.availability, ""), names.get(new.spec.availability, ""))
    found |= _pair("role", node.ROLE_NAMES.get(old.role, ""), node.ROLE_NAMES.get(new.role, ""))
    found |= _pair("state", node.STATE_NAMES[old.status.state], node.STATE_NAMES[new.status.state])
    if new.HasField("manager_status") and old.HasField("manager_status"):
        before, after = old.manager_status, new.manager_status
        found |= _pair("leader", str(before.leader).lower(), str(after.leader).lower())
        reachable = node.REACHABILITY_NAMES
        found |= _pair("reachability", reachable[before.reachability], reachable[after.reachability])
    return found


def _service(new: objects.Service, old: objects.Service) -> dict[str, str]:
    found = _pair("image", old.spec.task.container.image, new.spec.task.container.image)
    if new.spec.HasField("replicated") and old.spec.HasField("replicated"):
        found |= _pair("replicas", str(old.spec.replicated.replicas), str(new.spec.replicated.replicas))
    if new.HasField("update_status"):
        before = UPDATE_STATES.get(old.update_status.state, "") if old.HasField("update_status") else ""
        changed = _pair("updatestate", before, UPDATE_STATES.get(new.update_status.state, ""))
        found |= {key: value for key, value in changed.items() if value}
    return found


_DIFFERENCES: Final[dict[str, Callable[[Any, Any], dict[str, str]]]] = {"node": _node, "service": _service}


def event_to_json(event: SwarmEvent) -> JsonObject:
    """An event as clients read it: without the fields that only containers and images had."""
    return {
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": dict(sorted(event.attributes.items()))},
        "scope": event.scope,
        "time": event.time_ns // NANOS,
        "timeNano": event.time_ns,
    }


def wanted(event: SwarmEvent, filters: Filters) -> bool:
    """Whether an event passes: one value of each key must hold; objects are named by how their id or name begins,
    labels by key or ``key=value``, all of them."""
    if event.is_gap:
        return True
    plain = {"type": event.type, "event": event.action, "scope": event.scope}
    for key, values in filters.items():
        if key == "label":
            if not all(_labelled(event.labels, value) for value in values):
                return False
        elif key in plain:
            if plain[key] not in values:
                return False
        elif key != event.type or not _named(event, values):
            return False
    return True


def _labelled(labels: Mapping[str, str], value: str) -> bool:
    key, equals, wanted_value = value.partition("=")
    return key in labels and (not equals or labels[key] == wanted_value)


def _named(event: SwarmEvent, values: Iterable[str]) -> bool:
    begins = event.id.startswith, event.attributes.get("name", "").startswith
    return any(begin(value) for begin in begins for value in values)


class EventHistory:
    """The newest events of one publisher, and since when it is whole."""

    __slots__ = ("_events", "_lost_ns", "_lost_reason")

    def __init__(self, begin_ns: int, reason: str) -> None:
        self._events: deque[SwarmEvent] = deque(maxlen=HISTORY)
        self._lost_ns, self._lost_reason = begin_ns, reason

    def __len__(self) -> int:
        return len(self._events)

    def add(self, event: SwarmEvent) -> None:
        """Takes an event; the oldest goes when there are too many."""
        if len(self._events) == HISTORY:
            self._lost_ns = max(self._lost_ns, self._events[0].time_ns)
            self._lost_reason = f"only the last {HISTORY} events are kept"
        self._events.append(event)

    def since(self, since_ns: int, node_id: str) -> list[SwarmEvent]:
        """Everything kept from a time on; begins with a gap where the history does not reach back so far."""
        found = [event for event in self._events if event.time_ns >= since_ns]
        if since_ns < self._lost_ns:
            found.insert(0, gap(node_id, self._lost_reason, self._lost_ns))
        return found
