"""Networks: as the cluster stores them, as tasks carry them, and as ``/networks`` shows them.

Rules: a swarm network's scope is always ``swarm``; the addressing shown is what was allocated, not what was asked;
a network made of a local configuration names it in ``ConfigFrom``.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from runtime.engine_api.convert import common, fields
from runtime.store.kinds import task_name
from runtime.wire.pb import specs_pb2, types_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from runtime.engine_api.jsonio import JsonObject
    from runtime.wire.pb.objects_pb2 import Network, NetworkAttachment, Service, Task

HOST: Final = "host"


def spec_from_json(obj: JsonObject) -> specs_pb2.NetworkSpec:
    """A network spec from the body of ``POST /networks/create``."""
    spec = specs_pb2.NetworkSpec(
        ipv6_enabled=fields.flag(obj, "EnableIPv6", ""),
        internal=fields.flag(obj, "Internal", ""),
        attachable=fields.flag(obj, "Attachable", ""),
        ingress=fields.flag(obj, "Ingress", ""),
    )
    common.set_annotations(spec.annotations, obj, "")
    spec.driver_config.name = fields.text(obj, "Driver", "")
    spec.driver_config.options.update(fields.mapping(obj, "Options", ""))
    if (ipam := fields.child(obj, "IPAM", "")) is not None:
        _ipam_from_json(spec.ipam, ipam, "IPAM.")
    source = fields.child(obj, "ConfigFrom", "") or {}
    if name := fields.text(source, "Network", "ConfigFrom."):
        spec.network = name
    return spec


def _ipam_from_json(target: types_pb2.IPAMOptions, obj: JsonObject, path: str) -> None:
    target.driver.name = fields.text(obj, "Driver", path) or "default"
    target.driver.options.update(fields.mapping(obj, "Options", path))
    for index, config in enumerate(fields.children(obj, "Config", path)):
        inner = f"{path}Config[{index}]."
        target.configs.add(
            subnet=fields.text(config, "Subnet", inner),
            range=fields.text(config, "IPRange", inner),
            gateway=fields.text(config, "Gateway", inner),
            reserved=fields.mapping(config, "AuxiliaryAddresses", inner),
        )


def network_to_json(network: Network) -> JsonObject:
    """A network as ``/networks`` shows it, where it exists in the cluster alone."""
    spec = network.spec
    out: JsonObject = {
        "Name": spec.annotations.name,
        "Id": network.id,
        "Created": common.time_to_json(network.meta.created_at) if network.HasField("meta") else common.ZERO_TIME,
        "Scope": "swarm",
        "Driver": network.driver_state.name or spec.driver_config.name,
        "EnableIPv6": spec.ipv6_enabled,
        "IPAM": _ipam_to_json(network.ipam),
        "Internal": spec.internal,
        "Attachable": spec.attachable,
        "Ingress": spec.ingress,
        "ConfigFrom": {"Network": spec.network},
        "ConfigOnly": False,
        "Containers": None,
        "Options": common.map_to_json(network.driver_state.options) or None,
        "Labels": _map_or_null(spec.annotations.labels),
    }
    return out


def host_to_json(daemon_id: str) -> JsonObject:
    """This machine's own network, which the processes of this node are on. It has no time of its making."""
    return {
        "Name": HOST,
        "Id": hashlib.sha256(f"network host of {daemon_id}".encode()).hexdigest(),
        "Created": common.ZERO_TIME,
        "Scope": "local",
        "Driver": HOST,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": []},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": {},
        "Labels": {},
    }


def service_on_network(
    service: Service, network: Network, running: Iterable[Task], node_addresses: Mapping[str, str]
) -> JsonObject:
    """A service in a network's verbose view. Nothing here balances load by an index or has endpoints of its own, so
    ``LocalLBIndex`` is 0 and an ``EndpointID`` is empty; an address is the one that was allotted."""
    addresses = [each.addr for each in service.endpoint.virtual_ips if each.network_id == network.id]
    published = [each for each in service.endpoint.ports if network.spec.ingress and not each.publish_mode]
    return {
        "VIP": addresses[0].partition("/")[0] if addresses else "",
        "Ports": [f"Target: {each.target_port}, Publish: {each.published_port}" for each in published],
        "LocalLBIndex": 0,
        "Tasks": [
            {
                "Name": task_name(task),
                "EndpointID": "",
                "EndpointIP": _address_on(task, network),
                "Info": {"Host IP": node_addresses.get(task.node_id, "")},
            }
            for task in sorted(running, key=lambda each: str(each.id))
        ],
    }


def _address_on(task: Task, network: Network) -> str:
    addresses = [address for each in task.networks if each.network.id == network.id for address in each.addresses]
    return addresses[0].partition("/")[0] if addresses else ""


def _map_or_null(values: Mapping[str, str]) -> JsonObject | None:
    return dict(common.map_to_json(values)) or None


def _ipam_to_json(ipam: types_pb2.IPAMOptions) -> JsonObject:
    configs: list[JsonObject] = []
    for config in ipam.configs:
        item: JsonObject = {}
        common.keep(item, Subnet=config.subnet, IPRange=config.range, Gateway=config.gateway)
        common.keep(item, AuxiliaryAddresses=common.map_to_json(config.reserved))
        configs.append(item)
    return {
        "Driver": ipam.driver.name,
        "Options": _map_or_null(ipam.driver.options),
        "Config": configs,
    }


def attachment_to_json(attachment: NetworkAttachment) -> JsonObject:
    """One network that a task is attached to, with the whole network and the task's addresses on it."""
    out: JsonObject = {}
    if attachment.HasField("network"):
        out["Network"] = stored_to_json(attachment.network)
    common.keep_list(out, "Addresses", attachment.addresses)
    return out


def stored_to_json(network: Network) -> JsonObject:
    """A network in the form that tasks carry."""
    out = common.meta_to_json(network.id, network.meta)
    out["Spec"] = _spec_to_json(network.spec)
    if network.HasField("driver_state"):
        out["DriverState"] = common.driver_to_json(network.driver_state)
    if network.HasField("ipam"):
        out["IPAMOptions"] = _ipam_options_to_json(network.ipam)
    return out


def _spec_to_json(spec: specs_pb2.NetworkSpec) -> JsonObject:
    out = common.annotations_to_json(spec.annotations)
    if spec.HasField("driver_config"):
        out["DriverConfiguration"] = common.driver_to_json(spec.driver_config)
    common.keep(out, IPv6Enabled=spec.ipv6_enabled, Internal=spec.internal)
    common.keep(out, Attachable=spec.attachable, Ingress=spec.ingress)
    if spec.HasField("ipam"):
        out["IPAMOptions"] = _ipam_options_to_json(spec.ipam)
    if spec.network:
        out["ConfigFrom"] = {"Network": spec.network}
    out["Scope"] = "swarm"
    return out


def _ipam_options_to_json(ipam: types_pb2.IPAMOptions) -> JsonObject:
    out: JsonObject = {}
    if ipam.HasField("driver"):
        out["Driver"] = common.driver_to_json(ipam.driver)
    configs: list[JsonObject] = []
    for config in ipam.configs:
        item: JsonObject = {}
        common.keep(item, Subnet=config.subnet, Range=config.range, Gateway=config.gateway)
        configs.append(item)
    common.keep(out, Configs=configs)
    return out
