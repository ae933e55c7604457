"""When a view holds what a Control method did elsewhere: how a manager that does not lead answers a write only after
its own store has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from runtime.swarm.ports import View
from runtime.wire.pb import objects_pb2 as objects

_VERBS = ("Create", "Update", "Remove", "Attach", "Detach", "Promote", "Demote")


def applied(method: str, request: Message, response: Message) -> Callable[[View], bool]:
    """A test for views: true once they hold the answered object in that version or a newer one, or no longer hold the
    one that was removed. Objects that were removed meanwhile count as seen."""
    for _field, value in response.ListFields():
        if type(value).__name__ in _KINDS and value.meta.version.index:
            return _present(type(value), value.id, value.meta.version.index)
    kind = _KINDS.get(_kind_of(method))
    removed = getattr(request, f"{_kind_of(method).lower()}_id", "")
    if method.startswith("Remove") and kind is not None and removed:
        return lambda view: view.get(kind, removed) is None
    return lambda view: True


def _present(kind: Any, id: str, version: int) -> Callable[[View], bool]:
    def holds(view: View) -> bool:
        known = view.get(kind, id)
        if known is not None:
            return int(known.meta.version.index) >= version
        return view.version > version  # it came and went

    return holds


def _kind_of(method: str) -> str:
    for verb in _VERBS:
        if method.startswith(verb):
            return method[len(verb) :]
    return method


_KINDS: dict[str, Any] = {
    name: getattr(objects, name)
    for name in ("Node", "Service", "Task", "Network", "Cluster", "Secret", "Config", "Volume", "Resource", "Extension")
}
