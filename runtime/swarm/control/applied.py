"""When a view holds what a Control method did: how a manager that does not lead answers a write only after its own
store has it, and any manager one of a service only after that has its ports and addresses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from runtime.swarm import service_spec
from runtime.swarm.allocation_steps import ports_are_allocated
from runtime.swarm.network_pools import is_node_local
from runtime.swarm.ports import View
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs

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


def settled(response: Message, view: View) -> Callable[[View], bool] | None:
    """A test for views: true once what the allocator gives the answered service has moved its version, which whoever
    reads it to write it back would stumble over. None if there is nothing to wait for."""
    service = getattr(response, "service", None)
    if not isinstance(service, objects.Service) or not service.id or _has_endpoint(service, view):
        return None
    return _present(objects.Service, service.id, service.meta.version.index + 1)


def _has_endpoint(service: objects.Service, view: View) -> bool:
    spec = service.spec
    if not ports_are_allocated(service):
        return False
    present = [each.network_id for each in service.endpoint.virtual_ips]
    if spec.endpoint.mode == specs.EndpointSpec.DNSRR:
        return not present
    known = [view.get(objects.Network, each.target) for each in service_spec.networks(spec)]
    wanted = dict.fromkeys(each.id for each in known if each is not None and not is_node_local(each))
    first = 1 if service_spec.needs_ingress(spec) else 0  # the address on the ingress network
    return len(present) >= first and present[first:] == list(wanted)


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
