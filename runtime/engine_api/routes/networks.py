"""``/networks``: the networks of the swarm, and the one that this machine has: ``host``, which its processes are on.

Rules: a node that is no manager knows its own network alone; the swarm's own predefined networks are found in the
scope ``swarm`` but not listed; a name in a filter is a part of the name, ``^`` and ``$`` tie it to an end (whole
patterns are not run: one could hold up the daemon). Networks are made in the swarm alone. A process is on its node's
own network and on no other, so no container is connected or disconnected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

from runtime.engine_api import filters, resolve
from runtime.engine_api.call import Answer, Call, answer
from runtime.engine_api.convert import fields, network
from runtime.engine_api.errors import ApiError, bad, plain
from runtime.engine_api.routes import containers, network_use
from runtime.engine_api.routes.network_use import PREDEFINED
from runtime.protocol.cluster import ClusterError
from runtime.wire.pb import control_pb2 as pb

if TYPE_CHECKING:
    from runtime.engine_api.backend import Backend
    from runtime.engine_api.jsonio import JsonObject
    from runtime.wire.pb.objects_pb2 import Network

FILTERS: Final = ("dangling", "driver", "id", "label", "name", "scope", "type")
TYPES: Final = ("builtin", "custom")
BUILTIN: Final = ("bridge", "host", "none", "default")
SWARM_DRIVER: Final = "overlay"
FROM_A_WORKER: Final = (
    "Cannot create a multi-host network from a worker node. Please create the network from a manager node."
)
HOST_NETWORK: Final = "container cannot be disconnected from host network or connected to host network"
PROCESS: Final = "a process is on its node's own network; it is not connected to others, nor disconnected"
LOCAL_DRIVERS: Final = ("", "bridge", "host", "ipvlan", "macvlan", "null")


async def listing(call: Call) -> Answer:
    """``GET /networks``."""
    given = filters.parse(call.query("filters"), FILTERS)
    for value in given.get("type", []):
        if value not in TYPES:
            raise bad(f"invalid filter: 'type'='{value}'")
    unused = network_use.dangling(given)
    own = await _host(call.backend)
    shown = [own] if _wanted_here(own, given, unused) else []
    request = pb.ListNetworksRequest(
        filters=pb.ListNetworksRequest.Filters(labels=filters.labels(given.get("label", [])))
    )
    try:
        found: Any = await call.backend.control("ListNetworks", request)
    except ClusterError:
        return answer(shown)
    chosen = [
        item for item in found.networks if PREDEFINED not in item.spec.annotations.labels and _wanted(item, given)
    ]
    if unused is not None:
        used = await network_use.used(call.backend)
        chosen = [item for item in chosen if (item.id not in used) is unused]
    return answer([*map(network.network_to_json, chosen), *shown])


async def _host(backend: Backend) -> JsonObject:
    return network.host_to_json((await backend.system()).daemon_id)


def _wanted_here(own: JsonObject, given: filters.Filters, unused: bool | None) -> bool:
    """As ``_wanted``, of this machine's own network; it is predefined, which counts as used."""
    return (
        unused is not True
        and not given.get("label")
        and _matches(own["Name"], given.get("name", []))
        and _matches(own["Id"], given.get("id", []))
        and own["Driver"] in (given.get("driver") or [own["Driver"]])
        and "local" in (given.get("scope") or ["local"])
        and "builtin" in (given.get("type") or ["builtin"])
    )


def _wanted(item: Network, given: filters.Filters) -> bool:
    name = item.spec.annotations.name
    kind = "builtin" if name in BUILTIN else "custom"
    return (
        _matches(name, given.get("name", []))
        and _matches(item.id, given.get("id", []))
        and _driver(item) in (given.get("driver") or [_driver(item)])
        and "swarm" in (given.get("scope") or ["swarm"])
        and kind in (given.get("type") or [kind])
    )


def _driver(item: Network) -> str:
    return item.driver_state.name or item.spec.driver_config.name


def _matches(text: str, wanted: list[str]) -> bool:
    """Whether one of ``wanted`` is a part of ``text``, at the ends that it is tied to."""
    marked = f"^{text}$"
    return not wanted or any(value in marked for value in wanted)


async def inspect(call: Call) -> Answer:
    """``GET /networks/{id}``; ``scope`` says where to look."""
    verbose = call.strict("verbose")
    found = await _either(call.backend, call.target, call.query("scope"))
    if isinstance(found, dict):
        return answer(found)
    shown = network.network_to_json(found)
    if verbose and (services := await network_use.services_of(call.backend, found)):
        shown["Services"] = services
    return answer(shown)


async def _either(backend: Backend, term: str, scope: str) -> JsonObject | Network:
    """This machine's own network by its name or id, else one of the swarm. Raises ApiError 404 if there is neither."""
    if scope in ("", "local"):
        own = await _host(backend)
        if term in (own["Name"], own["Id"]):
            return own
    if scope not in ("", "swarm"):
        raise resolve.not_found(resolve.NETWORK, term)
    try:
        return await _find(backend, term)
    except ClusterError:
        raise resolve.not_found(resolve.NETWORK, term) from None


async def _find(backend: Backend, term: str) -> Network:
    """As ``resolve.find``, with the engine's own sentences where a network's name means several."""
    found: Network | None = await resolve.by_id(backend, resolve.NETWORK, term)
    if found is not None:
        return found
    wanted = pb.ListNetworksRequest.Filters
    for how, chosen in (("name", wanted(names=[term])), ("ID prefix", wanted(id_prefixes=[term]))):
        several = await resolve.listed(backend, resolve.NETWORK, chosen)
        if len(several) > 1:
            raise bad(f"{len(several)} matches found based on {how}: network {term} is ambiguous")
        if several:
            one: Network = several[0]
            return one
    raise resolve.not_found(resolve.NETWORK, term)


async def create(call: Call) -> Answer:
    """``POST /networks/create``: networks of the swarm alone."""
    body = call.json()
    spec = network.spec_from_json(body)
    name, driver = spec.annotations.name, spec.driver_config.name
    scope = fields.text(body, "Scope", "")
    if not name.strip():
        raise plain(f"invalid name: {name}")
    if name in BUILTIN:
        raise ApiError(403, f"{name} is a pre-defined network and cannot be created")
    if fields.flag(body, "ConfigOnly", "") or (driver in LOCAL_DRIVERS and scope != "swarm"):
        raise ApiError(501, f"networks on one node alone are not offered by this daemon, use the driver {SWARM_DRIVER}")
    if driver == SWARM_DRIVER and scope == "local":
        raise ApiError(403, f"cannot downgrade network scope for {SWARM_DRIVER} networks")
    if driver not in (*LOCAL_DRIVERS, SWARM_DRIVER):
        raise ApiError(404, f'plugin "{driver}" not found')
    try:
        taken = await resolve.listed(call.backend, resolve.NETWORK, pb.ListNetworksRequest.Filters(names=[name]))
    except ClusterError as error:
        if await call.backend.swarm_status() == "active/worker":
            raise ApiError(403, FROM_A_WORKER) from None
        raise plain(error.text) from None
    if taken:
        raise ApiError(409, f"network with name {name} already exists")
    made: Any = await call.backend.control("CreateNetwork", pb.CreateNetworkRequest(spec=spec))
    return answer({"Id": made.network.id, "Warning": ""}, 201)


async def remove(call: Call) -> Answer:
    """``DELETE /networks/{id}``."""
    found = await _either(call.backend, call.target, "")
    if isinstance(found, dict):
        raise ApiError(403, f"{found['Name']} is a pre-defined network and cannot be removed")
    await call.backend.control("RemoveNetwork", pb.RemoveNetworkRequest(network_id=found.id))
    return Answer(204)


async def connect(call: Call) -> NoReturn:
    """``POST /networks/{id}/connect``: what is wrong with the request in the engine's words, else why not."""
    await _container(call, fields.text(call.json(), "Container", ""))
    await _refuse(call)


async def disconnect(call: Call) -> NoReturn:
    """``POST /networks/{id}/disconnect``; by force the network is looked for first."""
    body = call.json()
    if fields.flag(body, "Force", ""):
        await _either(call.backend, call.target, "")
    await _container(call, fields.text(body, "Container", ""))
    await _refuse(call)


async def _container(call: Call, term: str) -> None:
    if not term:
        raise bad('invalid name or ID supplied: ""')
    await containers.find(call.backend, term)


async def _refuse(call: Call) -> NoReturn:
    found = await _either(call.backend, call.target, "")
    raise bad(HOST_NETWORK) if isinstance(found, dict) else ApiError(501, PROCESS)


ROUTES = {
    "GET /networks": listing,
    "GET /networks/*": inspect,
    "POST /networks/create": create,
    "DELETE /networks/*": remove,
    "POST /networks/prune": network_use.prune,
    "POST /networks/*/connect": connect,
    "POST /networks/*/disconnect": disconnect,
}
