"""Control requests about services.

Rules owned here: the order of the checks of a create and an update (the spec by itself, then networks, ports, ingress,
references, the name); what may not change (name, kind of mode, networks in the deprecated place); how desired,
running and completed tasks are counted. Removing a service deletes it at once; its tasks follow later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from runtime.errors import invalid, precondition
from runtime.swarm import service_spec
from runtime.swarm.control.checks import (
    check_size,
    copy_of,
    exists,
    find_or_refuse,
    refuse_taken,
    require,
    require_field,
    stored,
    unimplemented,
)
from runtime.swarm.control.checks import named as find_named
from runtime.swarm.control.context import Context
from runtime.swarm.control.listing import by_id_prefix, by_index, by_name, by_name_prefix, labels_match, select
from runtime.swarm.control.networks import ingress_network
from runtime.swarm.control.service_validation import check_service_spec
from runtime.swarm.defaults import insert_defaults
from runtime.swarm.endpoint_ports import is_ingress as is_ingress_port
from runtime.swarm.naming import random_name, runtime_name
from runtime.swarm.network_pools import is_ingress
from runtime.swarm.offered import check_mounts
from runtime.swarm.ports import Tx, View
from runtime.swarm.start_order import check_no_circle
from runtime.wire.pb import control_pb2 as control
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

NAME_CANDIDATES: Final = 16
"""How many random names are drawn ahead for a service without one: drawn once, tried against the store in order."""

Status = control.ListServiceStatusesResponse.ServiceStatus


def service_name(service: objects.Service) -> str:
    """The name in a service's spec."""
    return service.spec.annotations.name


def get_service(view: View, request: control.GetServiceRequest, ctx: Context) -> control.GetServiceResponse:
    """One service, on request with the defaults filled into the copy that is shown."""
    require(request.service_id)
    response = control.GetServiceResponse(service=find_or_refuse(view, objects.Service, request.service_id))
    if request.insert_defaults:
        response.service.spec.CopyFrom(insert_defaults(response.service.spec))
    return response


def list_services(view: View, request: control.ListServicesRequest, ctx: Context) -> control.ListServicesResponse:
    """The services that pass the filters."""
    wanted = request.filters
    filters = [
        by_name(objects.Service, wanted.names, service_name),
        by_name_prefix(objects.Service, wanted.name_prefixes, service_name),
        by_id_prefix(objects.Service, wanted.id_prefixes),
        by_index(objects.Service, "runtime", wanted.runtimes, lambda service: runtime_name(service.spec.task)),
    ]
    found = select(
        view,
        objects.Service,
        filters,
        lambda service: labels_match(service.spec.annotations.labels, wanted.labels),
    )
    return control.ListServicesResponse(services=found)


def create_service(
    request: control.CreateServiceRequest, ctx: Context
) -> Callable[[Tx], control.CreateServiceResponse]:
    """Validates a spec and makes a service of it; a spec without a name gets one of two random words."""
    require_field(request, "spec")
    given = request.spec.annotations.name
    candidates = [given] if given else [random_name(ctx.rng) for _ in range(NAME_CANDIDATES)]
    check_service_spec(_with_name(request.spec, candidates[0]), ctx.parse_constraints)
    check_mounts(request.spec)
    service_id = ctx.new_id()

    def run(tx: Tx) -> control.CreateServiceResponse:
        name = _free_name(tx, candidates)
        spec = _with_name(request.spec, name)
        _check_against_store(tx, spec, service_id)
        taken = exists(f"name conflicts with an existing object: service {name} already exists")
        refuse_taken(tx, objects.Service, name, taken)
        _check_task_room(tx, spec)
        tx.create(with_plain_endpoint(service_spec.created(service_id, spec, tx.now)))
        return control.CreateServiceResponse(service=stored(tx, objects.Service, service_id))

    return run


def with_plain_endpoint(service: objects.Service) -> objects.Service:
    """Gives a new service its endpoint if nothing has to be allocated for it: its version does not move later."""
    spec = service.spec
    if (
        spec.HasField("endpoint")
        and not service_spec.networks(spec)
        and not any(map(is_ingress_port, spec.endpoint.ports))
    ):
        service.endpoint.spec.CopyFrom(spec.endpoint)
        service.endpoint.ports.extend(spec.endpoint.ports)
    return service


def _with_name(spec: specs.ServiceSpec, name: str) -> specs.ServiceSpec:
    named = copy_of(spec)
    named.annotations.name = name
    return named


def _free_name(tx: Tx, candidates: Sequence[str]) -> str:
    """The first candidate that no service has; with all taken the last, for which the create is then refused."""
    for name in candidates:
        if not find_named(tx, objects.Service, name):
            return name
    return candidates[-1]


def _check_against_store(tx: Tx, spec: specs.ServiceSpec, own_id: str) -> None:
    """What a new spec must fit to: networks, ports, the ingress network, secrets, configs, the services before it."""
    _check_networks(tx, service_spec.networks(spec))
    check_port_conflicts(tx, spec.endpoint, own_id)
    _check_ingress(tx, spec)
    _check_references(tx, spec)
    check_no_circle(tx, spec)


def _check_networks(tx: Tx, attachments: Sequence[types.NetworkAttachmentConfig]) -> None:
    for attachment in attachments:
        network = tx.get(objects.Network, attachment.target)
        if network is not None and is_ingress(network):
            name = network.spec.annotations.name
            raise invalid(f'Service cannot be explicitly attached to the ingress network "{name}"')


def _check_ingress(tx: Tx, spec: specs.ServiceSpec) -> None:
    if service_spec.needs_ingress(spec) and ingress_network(tx) is None:
        raise precondition("service needs ingress network, but no ingress network is present")


def check_port_conflicts(view: View, endpoint: specs.EndpointSpec, own_id: str) -> None:
    """Refuses published ports that another service has in its spec or got allocated.

    A port of the ingress network is taken on every node, so it conflicts with both kinds; two host ports may coexist,
    on different nodes.
    """
    wanted = {(port, protocol): ingress for port, protocol, ingress in service_spec.published(endpoint.ports)}
    if not wanted:
        return
    for service in view.all(objects.Service):
        if service.id == own_id:
            continue
        taken = (*service.spec.endpoint.ports, *service.endpoint.ports)
        for port, protocol, by_ingress in service_spec.published(taken):
            if (by_ingress or wanted.get((port, protocol))) and (port, protocol) in wanted:
                how = "an ingress port" if by_ingress else "a host-published port"
                name = service_name(service)
                raise invalid(f"port '{port}' is already in use by service '{name}' ({service.id}) as {how}")


def _check_task_room(tx: Tx, spec: specs.ServiceSpec) -> None:
    """Each task bears its spec and whole copies of its networks, which do not change any more: together they have to
    fit into a log entry, or the tasks would wait for their addresses for ever."""
    attached = [tx.get(objects.Network, each.target) for each in service_spec.networks(spec)]
    networks = sum(network.ByteSize() for network in attached if network is not None)
    check_size(networks + spec.task.ByteSize() + spec.annotations.ByteSize())


def _check_references(tx: Tx, spec: specs.ServiceSpec) -> None:
    """Every secret and config must be there, and still have the name it is referred to by."""
    missing = []
    for ref in service_spec.secret_references(spec):
        secret = tx.get(objects.Secret, ref.secret_id)
        if secret is None or secret.spec.annotations.name != ref.secret_name:
            missing.append(ref.secret_name)
    _refuse_missing("secret", missing)
    for config_ref in service_spec.config_references(spec):
        config = tx.get(objects.Config, config_ref.config_id)
        if config is None or config.spec.annotations.name != config_ref.config_name:
            missing.append(config_ref.config_name)
    _refuse_missing("config", missing)


def _refuse_missing(kind: str, names: Sequence[str]) -> None:
    if names:
        plural = "" if len(names) == 1 else "s"
        raise invalid(f"{kind}{plural} not found: {', '.join(names)}")


def update_service(
    request: control.UpdateServiceRequest, ctx: Context
) -> Callable[[Tx], control.UpdateServiceResponse]:
    """Replaces a service's spec, or rolls it back to the previous one; the given spec is validated in either case."""
    require(request.service_id)
    require_field(request, "service_version", "spec")
    check_service_spec(request.spec, ctx.parse_constraints)

    def run(tx: Tx) -> control.UpdateServiceResponse:
        service = find_or_refuse(tx, objects.Service, request.service_id)
        _check_update(tx, service, request.spec)
        if request.rollback == control.UpdateServiceRequest.PREVIOUS:
            new = service_spec.rolled_back(service, tx.now)
            _check_rollback(tx, new)
        else:
            new = service_spec.updated(service, request.spec, request.service_version, tx.now)
        _check_task_room(tx, new.spec)
        check_no_circle(tx, new.spec)
        new.meta.version.CopyFrom(request.service_version)
        tx.update(new)
        return control.UpdateServiceResponse(service=stored(tx, objects.Service, service.id))

    return run


def _check_update(tx: Tx, service: objects.Service, spec: specs.ServiceSpec) -> None:
    if spec.HasField("endpoint") and spec.endpoint != service.spec.endpoint:
        check_port_conflicts(tx, spec.endpoint, service.id)
    _check_networks(tx, service_spec.networks(spec))
    _check_references(tx, spec)
    if list(spec.networks) != list(service.spec.networks) and not spec.task.networks:
        raise unimplemented("networks must be migrated to TaskSpec before being changed")
    if spec.WhichOneof("mode") != service.spec.WhichOneof("mode"):
        raise unimplemented("service mode change is not allowed")
    if spec.annotations.name != service.spec.annotations.name:
        raise unimplemented("renaming services is not supported")
    check_mounts(spec, service.spec)
    _check_ingress(tx, spec)


def _check_rollback(tx: Tx, new: objects.Service) -> None:
    """The previous spec must still fit: meanwhile others may have taken its ports, or removed what it names.

    SwarmKit does not look, and leaves two services on one port.
    """
    _check_against_store(tx, new.spec, new.id)
    for attachment in service_spec.networks(new.spec):
        if tx.get(objects.Network, attachment.target) is None:
            raise precondition(f"network {attachment.target} of the previous spec does not exist any more")


def remove_service(
    request: control.RemoveServiceRequest, ctx: Context
) -> Callable[[Tx], control.RemoveServiceResponse]:
    """Deletes a service; orchestrators then remove its tasks."""
    require(request.service_id)

    def run(tx: Tx) -> control.RemoveServiceResponse:
        find_or_refuse(tx, objects.Service, request.service_id)
        tx.delete(objects.Service, request.service_id)
        return control.RemoveServiceResponse()

    return run


def list_service_statuses(
    view: View, request: control.ListServiceStatusesRequest, ctx: Context
) -> control.ListServiceStatusesResponse:
    """How many tasks each of the given services wants, runs and has completed; an unknown one wants none."""
    return control.ListServiceStatusesResponse(statuses=[service_status(view, id) for id in request.services])


def service_status(view: View, service_id: str) -> Status:
    service = view.get(objects.Service, service_id)
    tasks = view.find(objects.Task, "service", service_id)
    spec = service.spec if service is not None else specs.ServiceSpec()
    status = Status(service_id=service_id)
    status.running_tasks = sum(task.status.state == types.RUNNING for task in tasks)
    current = tasks
    if service is not None and service_spec.is_job(spec):
        iteration = service.job_status.job_iteration.index
        current = [task for task in tasks if task.job_iteration.index == iteration]
        status.completed_tasks = sum(task.status.state == types.COMPLETE for task in current)
    status.desired_tasks = _desired(spec, current)
    return status


def _desired(spec: specs.ServiceSpec, tasks: Sequence[objects.Task]) -> int:
    mode = spec.WhichOneof("mode")
    if mode == "replicated":
        return spec.replicated.replicas
    if mode == "replicated_job":
        return spec.replicated_job.max_concurrent
    if mode == "global":
        return sum(task.desired_state == types.RUNNING for task in tasks)
    if mode == "global_job":
        return sum(task.desired_state == types.COMPLETE and task.status.state != types.COMPLETE for task in tasks)
    return 0
