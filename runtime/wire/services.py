"""Every method that SwarmKit speaks, and those of our own: path, messages and streaming from the protobuf descriptors,
and who may call it from the one table below (as SwarmKit's authorisation annotations; the local socket asks for
none)."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import message_factory
from google.protobuf.message import Message

from runtime.wire.pb import (
    access_pb2,
    ca_pb2,
    control_pb2,
    dispatcher_pb2,
    health_pb2,
    logs_pb2,
    raft_pb2,
    resource_pb2,
    watch_pb2,
)
from runtime.wire.port import MANAGER, WORKER, Handler, Route

OWN_PACKAGE = "swarmlet.v1"
"""Of the services that nodes of other kinds do not know: they answer UNIMPLEMENTED."""
MANAGERS = frozenset({MANAGER})
MEMBERS = frozenset({MANAGER, WORKER})

# Service, or service and method, to the roles that may call it; None is anyone. The more exact name counts.
ROLES: Mapping[str, frozenset[str] | None] = {
    "CA/GetRootCACertificate": None,
    "CA/GetUnlockKey": MANAGERS,
    "NodeCA": None,
    "Dispatcher": MEMBERS,
    "LogBroker": MEMBERS,
    "ResourceAllocator": MEMBERS,
    "RaftMembership": MANAGERS,
    "Raft": MANAGERS,
    "Control": MANAGERS,
    "Watch": MANAGERS,
    "Logs": MANAGERS,
    "Health": MANAGERS,
    "TaskAccess": MANAGERS,
    "TaskAccessBroker": MEMBERS,
}

_FILES = (access_pb2, ca_pb2, control_pb2, dispatcher_pb2, health_pb2, logs_pb2, raft_pb2, resource_pb2, watch_pb2)


@dataclasses.dataclass(frozen=True, slots=True)
class Method:
    """One method of the wire. ``roles`` None is anyone."""

    path: str
    service: str
    name: str
    request: type[Message]
    response: type[Message]
    client_streaming: bool
    server_streaming: bool
    roles: frozenset[str] | None


def _roles(service: str, name: str) -> frozenset[str] | None:
    exact = f"{service}/{name}"
    return ROLES[exact] if exact in ROLES else ROLES[service]


def _method(service: str, descriptor: Any) -> Method:
    return Method(
        path=f"/{descriptor.containing_service.full_name}/{descriptor.name}",
        service=service,
        name=descriptor.name,
        request=message_factory.GetMessageClass(descriptor.input_type),
        response=message_factory.GetMessageClass(descriptor.output_type),
        client_streaming=descriptor.client_streaming,
        server_streaming=descriptor.server_streaming,
        roles=_roles(service, descriptor.name),
    )


def _methods() -> Iterable[Method]:
    for file in _FILES:
        for service, descriptor in file.DESCRIPTOR.services_by_name.items():
            for method in descriptor.methods:
                yield _method(service, method)


METHODS: Mapping[str, Method] = types.MappingProxyType({method.path: method for method in _methods()})
_PATHS: Mapping[tuple[str, str], str] = {(method.service, method.name): method.path for method in METHODS.values()}


def path(service: str, name: str) -> str:
    """The path of a method: ``path("Dispatcher", "Session")``. KeyError if there is none."""
    return _PATHS[service, name]


def routes(handlers: Mapping[str, Handler]) -> dict[str, Route]:
    """Routes for handlers by path, each with the roles of the table above. KeyError names an unknown path."""
    return {name: Route(handler, METHODS[name].roles) for name, handler in handlers.items()}
