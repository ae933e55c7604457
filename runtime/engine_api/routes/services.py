"""``/services``.

Rules: of a create or an update, the networks' names are resolved first, then the spec is converted, then (for an
update) the service is looked up, and only then is anything asked of the cluster that changes it.
Pull credentials are stored as they came and never shown; an update without new ones keeps those it names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runtime.engine_api import filters, resolve
from runtime.engine_api.call import EMPTY, Answer, Call, answer
from runtime.engine_api.convert import adjust, fields, service
from runtime.engine_api.errors import ApiError, plain
from runtime.swarm import actor_spec, process_spec
from runtime.swarm.generic import named_requests
from runtime.swarm.network_pools import driver_of
from runtime.wire.pb import control_pb2 as pb
from runtime.wire.pb.types_pb2 import Version

if TYPE_CHECKING:
    from runtime.engine_api.backend import Backend
    from runtime.engine_api.jsonio import JsonObject
    from runtime.wire.pb.objects_pb2 import Network, Service
    from runtime.wire.pb.specs_pb2 import ServiceSpec

FILTERS: Final = ("id", "label", "mode", "name", "runtime")
MODE_NAMES: Final = {
    "replicated": "replicated",
    "global": "global",
    "replicated-job": "replicated_job",
    "global-job": "global_job",
}
ROLLBACKS: Final = {"": pb.UpdateServiceRequest.NONE, "none": pb.UpdateServiceRequest.NONE}
DIGEST_FIRST_LEFT_TO_CLIENTS: Final = (1, 30)
"""From this version on clients pin images to digests by themselves; for older ones the daemon would."""


async def listing(call: Call) -> Answer:
    """``GET /services``; with ``status`` each service says how many tasks it has and should have."""
    given = filters.parse(call.query("filters"), FILTERS)
    with_status = call.version >= (1, 41) and call.strict("status")
    request = pb.ListServicesRequest(
        filters=pb.ListServicesRequest.Filters(
            id_prefixes=given.get("id", []),
            name_prefixes=given.get("name", []),
            labels=filters.labels(given.get("label", [])),
            runtimes=given.get("runtime") or ["container"],
        )
    )
    found: Any = await call.backend.control("ListServices", request)
    modes = {MODE_NAMES.get(value) for value in given.get("mode", [])}
    chosen = [item for item in found.services if not modes or item.spec.WhichOneof("mode") in modes]
    shown = [service.service_to_json(item) for item in chosen]
    if with_status and shown:
        await _add_statuses(call.backend, shown)
    return answer(shown)


async def _add_statuses(backend: Backend, shown: list[JsonObject]) -> None:
    request = pb.ListServiceStatusesRequest(services=[item["ID"] for item in shown])
    found: Any = await backend.control("ListServiceStatuses", request)
    statuses = {status.service_id: status for status in found.statuses}
    for item in shown:
        status = statuses.get(item["ID"])
        if status is not None:
            job = item.pop("JobStatus", None)
            item["ServiceStatus"] = service.status_to_json(status)
            if job is not None:
                item["JobStatus"] = job


async def inspect(call: Call) -> Answer:
    """``GET /services/{id}``; ``insertDefaults`` shows what the service leaves to defaults."""
    options = {"insert_defaults": True} if call.strict("insertDefaults") else {}
    return answer(service.service_to_json(await resolve.find(call.backend, resolve.SERVICE, call.target, **options)))


async def create(call: Call) -> Answer:
    """``POST /services/create``."""
    body = call.json()
    adjust.adjust_service_spec(body, call.version)
    of_nodes = await _resolve_networks(call.backend, body)
    spec = service.spec_from_json(body)
    if auth := call.header("X-Registry-Auth"):
        spec.task.container.pull_options.registry_auth = auth
    made: Any = await call.backend.control("CreateService", pb.CreateServiceRequest(spec=spec))
    out: JsonObject = {"ID": made.service.id}
    if warnings := [*_digest_warnings(call, spec), *_spec_warnings(spec, of_nodes)]:
        out["Warnings"] = warnings
    return answer(out, 201)


async def update(call: Call) -> Answer:
    """``POST /services/{id}/update``: the body is the complete new spec, also for a rollback, which ignores it."""
    body = call.json()
    version = call.object_version("service")
    adjust.adjust_service_spec(body, call.version)
    of_nodes = await _resolve_networks(call.backend, body)
    spec = service.spec_from_json(body)
    current: Service = await resolve.find(call.backend, resolve.SERVICE, call.target)
    _registry_auth(call, spec, current)
    request = pb.UpdateServiceRequest(
        service_id=current.id, service_version=Version(index=version), spec=spec, rollback=_rollback(call)
    )
    await call.backend.control("UpdateService", request)
    return answer({"Warnings": [*_digest_warnings(call, spec), *_spec_warnings(spec, of_nodes)] or None})


def _spec_warnings(spec: ServiceSpec, of_nodes: list[str]) -> list[str]:
    return [*named_requests(spec.task), *process_spec.warnings(spec, of_nodes), *actor_spec.warnings(spec)]


def _rollback(call: Call) -> pb.UpdateServiceRequest.Rollback:
    asked = call.query("rollback")
    if asked == "previous":
        return pb.UpdateServiceRequest.PREVIOUS
    if asked not in ROLLBACKS:
        raise plain(f"unrecognized rollback option {asked}")
    return ROLLBACKS[asked]


def _registry_auth(call: Call, spec: ServiceSpec, current: Service) -> None:
    """Take the credentials of the request, or keep those of the present or the previous spec."""
    if auth := call.header("X-Registry-Auth"):
        spec.task.container.pull_options.registry_auth = auth
        return
    source = call.query("registryAuthFrom")
    if source not in ("", "spec", "previous-spec"):
        raise plain("unsupported registryAuthFrom value")
    if source == "previous-spec":
        if not current.HasField("previous_spec"):
            raise plain("service does not have a previous spec")
        kept = current.previous_spec.task
    else:
        kept = current.spec.task
    if not kept.HasField("container"):
        raise plain("service does not use container tasks")
    if kept.container.HasField("pull_options"):
        spec.task.container.pull_options.CopyFrom(kept.container.pull_options)


async def _resolve_networks(backend: Backend, body: JsonObject) -> list[str]:
    """Replace each network's target, an id, name or prefix, by its id, in the freshly parsed body. The ids of those
    that are the nodes' own network."""
    task = fields.child(body, "TaskTemplate", "")
    if not task or not task.get("Networks"):
        return []
    of_nodes = []
    for index, network in enumerate(fields.children(task, "Networks", "TaskTemplate.")):
        term = fields.text(network, "Target", f"TaskTemplate.Networks[{index}].")
        found = await _network(backend, term)
        network["Target"] = found.id
        if driver_of(found) == "host":
            of_nodes.append(found.id)
    return of_nodes


async def _network(backend: Backend, term: str) -> Network:
    """The swarm network ``term``; a network of this node alone is refused, an unknown one too."""
    try:
        found: Network = await resolve.find(backend, resolve.NETWORK, term)
    except ApiError as error:
        if error.status != 404:
            raise
        local = await backend.local_network(term)
        if local is not None:
            raise ApiError(
                403,
                f"The network {local} cannot be used with services. Only networks scoped to the swarm can be used, "
                "such as those created with the overlay driver.",
            ) from None
        raise plain(error.text) from None
    return found


def _digest_warnings(call: Call, spec: ServiceSpec) -> list[str]:
    image = spec.task.container.image
    if call.version >= DIGEST_FIRST_LEFT_TO_CLIENTS or "@sha256:" in image or actor_spec.in_no_registry(image):
        return []
    return [
        f"image {image} could not be accessed on a registry to record\nits digest. "
        f"Each node will access {image} independently,\n"
        "possibly leading to different nodes running different\nversions of the image.\n"
    ]


async def remove(call: Call) -> Answer:
    """``DELETE /services/{id}``."""
    found = await resolve.find(call.backend, resolve.SERVICE, call.target)
    await call.backend.control("RemoveService", pb.RemoveServiceRequest(service_id=found.id))
    return EMPTY


ROUTES = {
    "GET /services": listing,
    "POST /services/create": create,
    "GET /services/*": inspect,
    "DELETE /services/*": remove,
    "POST /services/*/update": update,
}
