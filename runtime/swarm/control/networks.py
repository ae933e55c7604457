"""Control requests about networks.

Rules owned here: there is at most one ingress network; predefined networks belong to the swarm; a network is removed
only when no service names it and no task that still runs, or will, is attached to it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Final

from runtime.errors import Code, Refused, invalid, not_found, precondition
from runtime.swarm.control.checks import exists, find_or_refuse, refuse_taken, require, require_field, stored
from runtime.swarm.control.checks import named as find_named
from runtime.swarm.control.context import Context
from runtime.swarm.control.listing import by_id_prefix, by_name, by_name_prefix, labels_match, select
from runtime.swarm.naming import check_name
from runtime.swarm.network_pools import PREDEFINED_LABEL, allocated, is_ingress, network_name
from runtime.swarm.ports import Tx, View
from runtime.swarm.service_spec import needs_ingress
from runtime.wire.pb import control_pb2 as control
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

INGRESS_DRIVER: Final = "overlay"


def ingress_network(view: View) -> objects.Network | None:
    """The ingress network, if there is one: it can be removed, and made again under another name."""
    return next((network for network in view.all(objects.Network) if is_ingress(network)), None)


def get_network(view: View, request: control.GetNetworkRequest, ctx: Context) -> control.GetNetworkResponse:
    """One network, by its id or else its name. ``appdata`` is for a host's own use and changes nothing here."""
    require(request.network_id or request.name)
    if request.network_id:
        return control.GetNetworkResponse(network=find_or_refuse(view, objects.Network, request.network_id))
    found = find_named(view, objects.Network, request.name)
    if not found:
        raise not_found(f"network {request.name} not found")
    return control.GetNetworkResponse(network=found[0])


def list_networks(view: View, request: control.ListNetworksRequest, ctx: Context) -> control.ListNetworksResponse:
    """The networks that pass the filters."""
    wanted = request.filters
    filters = [
        by_name(objects.Network, wanted.names, network_name),
        by_name_prefix(objects.Network, wanted.name_prefixes, network_name),
        by_id_prefix(objects.Network, wanted.id_prefixes),
    ]
    found = select(
        view,
        objects.Network,
        filters,
        lambda network: labels_match(network.spec.annotations.labels, wanted.labels),
    )
    return control.ListNetworksResponse(networks=found)


def create_network(
    request: control.CreateNetworkRequest, ctx: Context
) -> Callable[[Tx], control.CreateNetworkResponse]:
    """Validates a spec and makes a network of it, with its subnets; refused where there is no room for them."""
    require_field(request, "spec")
    spec = request.spec
    check_network_spec(spec, ctx)
    network_id, avoid = ctx.new_id(), ctx.host_subnets()

    def run(tx: Tx) -> control.CreateNetworkResponse:
        present = ingress_network(tx) if spec.ingress else None
        if present is not None:
            raise exists(f"ingress network ({present.id}) is already present")
        conflict = Refused(Code.UNKNOWN, "name conflicts with an existing object")
        refuse_taken(tx, objects.Network, spec.annotations.name, conflict)
        tx.create(allocated(tx, objects.Network(id=network_id, spec=spec), avoid))
        return control.CreateNetworkResponse(network=stored(tx, objects.Network, network_id))

    return run


def check_network_spec(spec: specs.NetworkSpec, ctx: Context) -> None:
    """Refuses a network spec that can never be right."""
    if spec.ingress and spec.attachable:
        raise invalid("ingress network cannot be attachable")
    check_name(spec.annotations.name)
    if PREDEFINED_LABEL in spec.annotations.labels:
        text = f"label {PREDEFINED_LABEL} is for internally created predefined networks and cannot be applied by users"
        raise Refused(Code.PERMISSION_DENIED, text)
    if spec.HasField("driver_config"):
        _check_driver(spec, ctx)
    if spec.HasField("ipam"):
        _check_ipam(spec.ipam, ctx)


def _check_driver(spec: specs.NetworkSpec, ctx: Context) -> None:
    name = spec.driver_config.name
    if spec.ingress and name not in ("", INGRESS_DRIVER):
        raise Refused(Code.UNIMPLEMENTED, f"ingress network driver {name} is not supported")
    if not name:
        raise invalid("driver name: if driver is specified name is required")
    if name not in ctx.network_drivers:
        raise invalid(f"plugin {name} not found")


def _check_ipam(ipam: types.IPAMOptions, ctx: Context) -> None:
    if ipam.HasField("driver"):
        if not ipam.driver.name:
            raise invalid("driver name: if driver is specified name is required")
        if ipam.driver.name not in ctx.ipam_drivers:
            raise invalid(f"plugin {ipam.driver.name} not found")
    for config in ipam.configs:
        _check_ipam_config(config)


def _check_ipam_config(config: types.IPAMConfig) -> None:
    """The subnet must be a CIDR; the base of the range and the gateway must lie in it."""
    subnet = _cidr(config.subnet, "subnet")
    inside = {"gateway": config.gateway, "range": config.range.partition("/")[0]}
    if config.range:
        _cidr(config.range, "range")
    for what, text in sorted(inside.items()):
        if text and _address(text, what) not in subnet:
            raise invalid(f"ipam configuration: {what} {text} is not in subnet {config.subnet}")


def _cidr(text: str, what: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        if "/" not in text:
            raise ValueError("no prefix length")
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise invalid(f"ipam configuration: invalid {what} {text}") from None


def _address(text: str, what: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise invalid(f"ipam configuration: invalid {what} {text}") from None


def remove_network(
    request: control.RemoveNetworkRequest, ctx: Context
) -> Callable[[Tx], control.RemoveNetworkResponse]:
    """Removes a network that nothing needs any more."""
    require(request.network_id or request.name)

    def run(tx: Tx) -> control.RemoveNetworkResponse:
        found = find_named(tx, objects.Network, request.name) if not request.network_id else ()
        network = found[0] if found else find_or_refuse(tx, objects.Network, request.network_id or request.name)
        if PREDEFINED_LABEL in network.spec.annotations.labels:
            text = f"{network_name(network)} ({network.id}) is a swarm predefined network and cannot be removed"
            raise precondition(text)
        if is_ingress(network):
            _check_ingress_unused(tx)
        else:
            _check_unused(tx, network)
        tx.delete(objects.Network, network.id)
        return control.RemoveNetworkResponse()

    return run


def _check_ingress_unused(tx: Tx) -> None:
    for service in tx.all(objects.Service):
        if needs_ingress(service.spec):
            raise precondition(f"ingress network cannot be removed because service {service.id} depends on it")


def _check_unused(tx: Tx, network: objects.Network) -> None:
    for service in tx.find(objects.Service, "network", network.id):
        raise precondition(f"network {network.id} is in use by service {service.id}")
    for task in tx.find(objects.Task, "network", network.id):
        if task.desired_state <= types.RUNNING and task.status.state <= types.RUNNING:
            raise precondition(f"network {network.id} is in use by task {task.id}")
