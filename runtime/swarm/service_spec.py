"""What a service spec says, read in one place, and how the versions of specs move.

Rules owned here: which networks, ports and references count; what an update and a manual rollback do to a service's
spec, previous spec, spec version, update status and job iteration (SwarmKit's UpdateService). A service's spec version
is the object version that the update was based on; tasks carry the one they were made from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from google.protobuf import timestamp_pb2 as timestamp

from runtime.errors import precondition
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

MANUAL_ROLLBACK: Final = "manually requested rollback"


def to_timestamp(now: float) -> timestamp.Timestamp:
    """Seconds since the epoch as a protobuf timestamp, to the nanosecond that a float can tell."""
    whole, rest = divmod(round(now * 1_000_000_000), 1_000_000_000)
    return timestamp.Timestamp(seconds=whole, nanos=rest)


def is_job(spec: specs.ServiceSpec) -> bool:
    """Whether the service runs to completion."""
    return spec.WhichOneof("mode") in ("replicated_job", "global_job")


def networks(spec: specs.ServiceSpec) -> Sequence[types.NetworkAttachmentConfig]:
    """The networks of a service: its task's, else those of the deprecated place."""
    return spec.task.networks or spec.networks


def secret_references(spec: specs.ServiceSpec) -> Sequence[types.SecretReference]:
    """The secrets that a service's containers get."""
    return spec.task.container.secrets if spec.task.HasField("container") else ()


def config_references(spec: specs.ServiceSpec) -> Sequence[types.ConfigReference]:
    """The configs that a service's containers get."""
    return spec.task.container.configs if spec.task.HasField("container") else ()


def published(ports: Sequence[types.PortConfig]) -> Iterator[tuple[int, types.PortConfig.Protocol, bool]]:
    """Number, protocol and whether by the ingress network, of each port with a number of its own."""
    for port in ports:
        if port.published_port:
            yield port.published_port, port.protocol, port.publish_mode == types.PortConfig.INGRESS


def needs_ingress(spec: specs.ServiceSpec) -> bool:
    """Whether the service publishes a port by the ingress network, which only virtual IPs allow."""
    if spec.endpoint.mode != specs.EndpointSpec.VIP:
        return False
    return any(port.publish_mode == types.PortConfig.INGRESS for port in spec.endpoint.ports)


def created(service_id: str, spec: specs.ServiceSpec, now: float) -> objects.Service:
    """A new service: spec version 0; a job carries the time of its first run."""
    service = objects.Service(id=service_id, spec=spec, spec_version=types.Version())
    if is_job(spec):
        service.job_status.last_execution.CopyFrom(to_timestamp(now))
    return service


def updated(service: objects.Service, spec: specs.ServiceSpec, base: types.Version, now: float) -> objects.Service:
    """A copy of a service with a new spec, based on the object version that the user read."""
    new = _copy(service)
    new.previous_spec.CopyFrom(service.spec)
    _set_version(new.previous_spec_version, service, "spec_version")
    new.spec.CopyFrom(spec)
    new.spec_version.CopyFrom(base)
    new.ClearField("update_status")
    next_iteration(new, now)
    return new


def rolled_back(service: objects.Service, now: float) -> objects.Service:
    """A copy of a service with current and previous spec exchanged, by hand; there must be a previous one.

    Versions travel with their specs, so tasks of the previous spec are recognised as up to date.
    """
    if not service.HasField("previous_spec"):
        raise precondition(f"service {service.id} does not have a previous spec")
    new = _copy(service)
    new.spec.CopyFrom(service.previous_spec)
    _set_version(new.spec_version, service, "previous_spec_version")
    new.previous_spec.CopyFrom(service.spec)
    _set_version(new.previous_spec_version, service, "spec_version")
    new.update_status.CopyFrom(
        types.UpdateStatus(
            state=types.UpdateStatus.ROLLBACK_STARTED, message=MANUAL_ROLLBACK, started_at=to_timestamp(now)
        )
    )
    next_iteration(new, now)
    return new


def _copy(service: objects.Service) -> objects.Service:
    new = objects.Service()
    new.CopyFrom(service)
    return new


def _set_version(target: types.Version, service: objects.Service, field: str) -> None:
    target.SetInParent()
    target.CopyFrom(getattr(service, field))


def next_iteration(service: objects.Service, now: float) -> None:
    """A job, in place, is to run anew."""
    if is_job(service.spec):
        service.job_status.job_iteration.index += 1
        service.job_status.last_execution.CopyFrom(to_timestamp(now))
