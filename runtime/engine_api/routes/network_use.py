"""Who uses a network of the swarm: pruning, the filter ``dangling``, the services of a verbose view.

Rules: it is used by the services that name it, by tasks that are on it by themselves, and the ingress network by
services that publish ports in its mode. Pruning leaves out what is used, does nothing where no manager answers, and
stops at any other trouble.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from runtime.engine_api import filters
from runtime.engine_api.call import Answer, Call, answer
from runtime.engine_api.convert import network
from runtime.engine_api.errors import bad, plain
from runtime.errors import Code, Refused
from runtime.protocol.cluster import ClusterError
from runtime.wire.pb import control_pb2 as pb
from runtime.wire.pb import types_pb2

if TYPE_CHECKING:
    from runtime.engine_api.backend import Backend
    from runtime.engine_api.jsonio import JsonObject
    from runtime.wire.pb.objects_pb2 import Network, Service

PREDEFINED: Final = "com.docker.swarm.predefined"
PRUNE_FILTERS: Final = ("label", "label!", "until")
PASSED_OVER: Final = (Code.FAILED_PRECONDITION, Code.NOT_FOUND)  # in use, or gone meanwhile
BOTH: Final = 'got more than one value for filter key "dangling"'
NO_FLAG: Final = 'invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")'
_FLAGS: Final = {"true": True, "1": True, "false": False, "0": False}
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ns|us|µs|ms|s|m|h)")
_UNIX: Final = re.compile(r"\d{1,12}(\.\d{1,9})?")


# The filter


def dangling(given: filters.Filters) -> bool | None:
    """What the filter ``dangling`` says, None if nothing. Raises ApiError 400 for several values or none of its own."""
    values = given.get("dangling")
    if not values:
        return None
    if len(values) > 1:
        raise bad(BOTH)
    flag = _FLAGS.get(values[0])
    if flag is None:
        raise bad(NO_FLAG)
    return flag


async def used(backend: Backend) -> frozenset[str]:
    """The ids of networks that services name or tasks are on by themselves. Empty names are of no network."""
    services: Any = await backend.control("ListServices", pb.ListServicesRequest())
    wanted = pb.ListTasksRequest.Filters(runtimes=["attachment"])
    tasks: Any = await backend.control("ListTasks", pb.ListTasksRequest(filters=wanted))
    named = {target for each in services.services for target in _targets(each)}
    attached = {each.network.id for task in tasks.tasks for each in task.networks}
    return frozenset(named | attached)


def _targets(service: Service) -> set[str]:
    """By what is asked for, and by what was allotted: so the ingress network is there as well."""
    spec = service.spec
    asked = {each.target for each in spec.task.networks or spec.networks}
    return asked | {each.network_id for each in service.endpoint.virtual_ips}


# Pruning


async def prune(call: Call) -> Answer:
    """``POST /networks/prune``."""
    given = filters.parse(call.query("filters"), PRUNE_FILTERS)
    until = until_of(given.get("until", []), time.time())
    request = pb.ListNetworksRequest()
    try:
        found: Any = await call.backend.control("ListNetworks", request)
    except ClusterError:
        return answer({"NetworksDeleted": None})
    chosen = [each for each in found.networks if _prunable(each, given, until)]
    return answer({"NetworksDeleted": await _removed(call.backend, chosen) or None})


def until_of(values: list[str], now: float) -> float | None:
    """The time in unix seconds before which networks must have been made; None if it does not matter.

    A duration back from ``now`` (``1h30m``), a unix time, or an RFC 3339 time or date. Raises ApiError 500 otherwise.
    """
    if not values:
        return None
    if len(values) > 1:
        raise plain("more than one until filter specified")
    (text,) = values
    if _UNIX.fullmatch(text):
        return float(text)
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return now - sum(float(number) * _UNITS[unit] for number, unit in parts)
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise plain(f'failed to parse value as time or duration: "{text}"') from None


def _prunable(item: Network, given: filters.Filters, until: float | None) -> bool:
    labels = dict(item.spec.annotations.labels)
    if item.spec.ingress or PREDEFINED in labels:
        return False
    if until is not None and item.meta.created_at.ToNanoseconds() / 1e9 > until:
        return False
    unwanted = given.get("label!", [])
    return _labelled(labels, given.get("label", [])) and not (unwanted and _labelled(labels, unwanted))


def _labelled(labels: dict[str, str], wanted: Collection[str]) -> bool:
    """Whether each of ``key`` and ``key=value`` holds."""
    for each in wanted:
        key, equals, value = each.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


async def _removed(backend: Backend, chosen: list[Network]) -> list[str]:
    names = []
    for item in chosen:
        try:
            await backend.control("RemoveNetwork", pb.RemoveNetworkRequest(network_id=item.id))
        except ClusterError:
            raise
        except Refused as refused:
            if refused.code not in PASSED_OVER:
                raise
        else:
            names.append(item.spec.annotations.name)
    return names


# A verbose view


async def services_of(backend: Backend, item: Network) -> JsonObject:
    """The services on a network by name, with their address on it and their running tasks."""
    found: Any = await backend.control("ListServices", pb.ListServicesRequest())
    on_it = [each for each in found.services if item.id in _targets(each)]
    if not on_it:
        return {}
    wanted = pb.ListTasksRequest.Filters(service_ids=[each.id for each in on_it])
    tasks: Any = await backend.control("ListTasks", pb.ListTasksRequest(filters=wanted))
    nodes: Any = await backend.control("ListNodes", pb.ListNodesRequest())
    running = [each for each in tasks.tasks if each.status.state == types_pb2.RUNNING]
    addresses = {node.id: node.status.addr for node in nodes.nodes}
    return {
        each.spec.annotations.name: network.service_on_network(
            each, item, [task for task in running if task.service_id == each.id], addresses
        )
        for each in sorted(on_it, key=lambda each: str(each.spec.annotations.name))
    }
