"""``/nodes``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runtime.engine_api import filters, resolve
from runtime.engine_api.call import EMPTY, Answer, Call, answer
from runtime.engine_api.convert import node
from runtime.engine_api.errors import plain
from runtime.wire.pb import control_pb2 as pb
from runtime.wire.pb.types_pb2 import Version

if TYPE_CHECKING:
    from collections.abc import Mapping

FILTERS: Final = ("id", "label", "node.label", "name", "role", "membership")
MEMBERSHIPS: Final = {"pending": 0, "accepted": 1}


async def listing(call: Call) -> Answer:
    """``GET /nodes``."""
    given = filters.parse(call.query("filters"), FILTERS)
    request = pb.ListNodesRequest(
        filters=pb.ListNodesRequest.Filters(
            id_prefixes=given.get("id", []),
            name_prefixes=given.get("name", []),
            labels=filters.labels(given.get("label", [])),
            node_labels=filters.labels(given.get("node.label", [])),
            roles=_values(given, "role", node.ROLES),
            memberships=_values(given, "membership", MEMBERSHIPS),
        )
    )
    found: Any = await call.backend.control("ListNodes", request)
    return answer([node.node_to_json(item) for item in found.nodes])


def _values(given: filters.Filters, key: str, known: Mapping[str, Any]) -> list[Any]:
    for value in given.get(key, []):
        if value.lower() not in known:
            raise plain(f"Invalid {key} filter: '{value}'")
    return [known[value.lower()] for value in given.get(key, [])]


async def inspect(call: Call) -> Answer:
    """``GET /nodes/{id}``."""
    return answer(node.node_to_json(await resolve.find(call.backend, resolve.NODE, call.target)))


async def remove(call: Call) -> Answer:
    """``DELETE /nodes/{id}``."""
    force = call.loose("force")
    found = await resolve.find(call.backend, resolve.NODE, call.target)
    await call.backend.control("RemoveNode", pb.RemoveNodeRequest(node_id=found.id, force=force))
    return EMPTY


async def update(call: Call) -> Answer:
    """``POST /nodes/{id}/update``: the body is the complete new spec."""
    body = call.json()
    version = call.object_version("node")
    spec = node.spec_from_json(body)
    found = await resolve.find(call.backend, resolve.NODE, call.target)
    request = pb.UpdateNodeRequest(node_id=found.id, node_version=Version(index=version), spec=spec)
    await call.backend.control("UpdateNode", request)
    return EMPTY


ROUTES = {
    "GET /nodes": listing,
    "GET /nodes/*": inspect,
    "DELETE /nodes/*": remove,
    "POST /nodes/*/update": update,
}
