"""Makes a swarm hold exactly the services of a stack: what to create, what to update, what to remove.

Rules it owns: a stack's services are those that carry its label; a service whose spec is as asked is not touched, so a
second deployment of the same file restarts nothing; one that left the file is removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runtime.wire.pb import control_pb2, objects_pb2, specs_pb2
from swarmlet import deployed_networks, deployed_payloads
from swarmlet.compose_service import NAMESPACE

if TYPE_CHECKING:
    from swarmlet.compose import Stack
    from swarmlet.node import Node


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to be done, each in the order of names."""

    create: tuple[specs_pb2.ServiceSpec, ...]
    update: tuple[tuple[objects_pb2.Service, specs_pb2.ServiceSpec], ...]
    remove: tuple[objects_pb2.Service, ...]


def plan(wanted: Sequence[specs_pb2.ServiceSpec], present: Sequence[objects_pb2.Service]) -> Plan:
    """What turns ``present`` (all services of the stack) into ``wanted``."""
    by_name = {service.spec.annotations.name: service for service in present}
    names = {spec.annotations.name for spec in wanted}
    ordered = sorted(wanted, key=lambda spec: spec.annotations.name)
    return Plan(
        create=tuple(spec for spec in ordered if spec.annotations.name not in by_name),
        update=tuple(
            (service, spec)
            for spec in ordered
            if (service := by_name.get(spec.annotations.name)) is not None and service.spec != spec
        ),
        remove=tuple(by_name[name] for name in sorted(by_name) if name not in names),
    )


def stack_services(node: Node, stack: str) -> list[objects_pb2.Service]:
    """The services that carry the stack's label."""
    answer = node.control("ListServices", control_pb2.ListServicesRequest(), control_pb2.ListServicesResponse)
    return [service for service in answer.services if service.spec.annotations.labels.get(NAMESPACE) == stack]


def deploy(node: Node, stack: Stack) -> list[str]:
    """Carries out the plan; a line for each thing done. Raises Refused with the manager's reason.

    Secrets, configs and networks are there before the services that want them, and go when no service needs them.
    """
    names, done = deployed_payloads.ensure(node, stack.name, stack.payloads)
    ids, made = deployed_networks.ensure(node, stack.networks)
    done += made
    wanted = [deployed_networks.resolved(deployed_payloads.resolved(spec, names), ids) for spec in stack.services]
    steps = plan(wanted, stack_services(node, stack.name))
    for service in steps.remove:
        node.control(
            "RemoveService",
            control_pb2.RemoveServiceRequest(service_id=service.id),
            control_pb2.RemoveServiceResponse,
        )
        done.append(f"removed service {service.spec.annotations.name}")
    for service, spec in steps.update:
        request = control_pb2.UpdateServiceRequest(
            service_id=service.id, service_version=service.meta.version, spec=spec
        )
        node.control("UpdateService", request, control_pb2.UpdateServiceResponse)
        done.append(f"updated service {spec.annotations.name}")
    for spec in steps.create:
        node.control("CreateService", control_pb2.CreateServiceRequest(spec=spec), control_pb2.CreateServiceResponse)
        done.append(f"created service {spec.annotations.name}")
    done += deployed_payloads.clear(node, stack.name, names, stack_services(node, stack.name))
    return done + deployed_networks.clear(node, stack.name, ids)
