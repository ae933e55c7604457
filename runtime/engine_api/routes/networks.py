"""``/networks``: the networks of the swarm. This daemon makes none on its node alone.

Rules: what is listed is what the cluster holds, and a node that cannot ask it says so; the swarm's own predefined
networks are found by name but not listed; a name in a filter is a part of the name, ``^`` and ``$`` tie it to an end
(whole patterns are not run: one could hold up the daemon).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runtime.engine_api import filters, resolve
from runtime.engine_api.call import Answer, Call, answer
from runtime.engine_api.convert import fields, network
from runtime.engine_api.errors import ApiError, bad, plain
from runtime.wire.pb import control_pb2 as pb

if TYPE_CHECKING:
    from runtime.engine_api.backend import Backend
    from runtime.wire.pb.objects_pb2 import Network

FILTERS: Final = ("dangling", "driver", "id", "label", "name", "scope", "type")
TYPES: Final = ("builtin", "custom")
BUILTIN: Final = ("bridge", "host", "none", "default")
PREDEFINED: Final = "com.docker.swarm.predefined"
SWARM_DRIVER: Final = "overlay"
LOCAL_DRIVERS: Final = ("", "bridge", "host", "ipvlan", "macvlan", "null")


async def listing(call: Call) -> Answer:
    """``GET /networks``."""
    given = filters.parse(call.query("filters"), FILTERS)
    for value in given.get("type", []):
        if value not in TYPES:
            raise bad(f"invalid filter 'type=[{value}]'")
    if "dangling" in given:
        raise ApiError(501, "the filter dangling is not offered by this version of the daemon")
    request = pb.ListNetworksRequest(
        filters=pb.ListNetworksRequest.Filters(labels=filters.labels(given.get("label", [])))
    )
    found: Any = await call.backend.control("ListNetworks", request)
    shown = [item for item in found.networks if PREDEFINED not in item.spec.annotations.labels and _wanted(item, given)]
    return answer([network.network_to_json(item) for item in shown])


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
    call.strict("verbose")
    if call.query("scope") not in ("", "swarm"):
        raise resolve.not_found(resolve.NETWORK, call.target)
    return answer(network.network_to_json(await _find(call.backend, call.target)))


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
    if driver not in (*LOCAL_DRIVERS, SWARM_DRIVER):
        raise ApiError(404, f'plugin "{driver}" not found')
    if await resolve.listed(call.backend, resolve.NETWORK, pb.ListNetworksRequest.Filters(names=[name])):
        raise ApiError(409, f"network with name {name} already exists")
    made: Any = await call.backend.control("CreateNetwork", pb.CreateNetworkRequest(spec=spec))
    return answer({"Id": made.network.id, "Warning": ""}, 201)


async def remove(call: Call) -> Answer:
    """``DELETE /networks/{id}``."""
    found = await _find(call.backend, call.target)
    await call.backend.control("RemoveNetwork", pb.RemoveNetworkRequest(network_id=found.id))
    return Answer(204)


ROUTES = {
    "GET /networks": listing,
    "GET /networks/*": inspect,
    "POST /networks/create": create,
    "DELETE /networks/*": remove,
}
