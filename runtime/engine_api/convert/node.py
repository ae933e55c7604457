"""Nodes: their spec, and what is shown of them.

Rules: role and availability are read in any case and must be there; the parts of a description are objects even
when nothing is known of them; a manager's status is there for managers alone.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final

from runtime.engine_api.convert import common, fields, task_spec
from runtime.engine_api.errors import bad
from runtime.wire.pb import specs_pb2, types_pb2

if TYPE_CHECKING:
    from runtime.engine_api.jsonio import JsonObject
    from runtime.wire.pb.objects_pb2 import Node

ROLES: Final[dict[str, Any]] = {"worker": 0, "manager": 1}
ROLE_NAMES: Final = {0: "worker", 1: "manager"}
AVAILABILITIES: Final[dict[str, Any]] = {"active": 0, "pause": 1, "drain": 2}
AVAILABILITY_NAMES: Final = {0: "active", 1: "pause", 2: "drain"}
STATE_NAMES: Final = {number: name.lower() for name, number in types_pb2.NodeStatus.State.items()}
REACHABILITY_NAMES: Final = {number: name.lower() for name, number in types_pb2.RaftMemberStatus.Reachability.items()}


def spec_from_json(obj: JsonObject) -> specs_pb2.NodeSpec:
    """A complete node spec. Raises ApiError 400 for a missing or unknown role or availability.

    Membership is accepted: the Engine API has no field for it, and no node is ever put back to pending by it.
    """
    role, availability = fields.text(obj, "Role", ""), fields.text(obj, "Availability", "")
    spec = specs_pb2.NodeSpec(membership=specs_pb2.NodeSpec.Membership.ACCEPTED)
    common.set_annotations(spec.annotations, obj, "")
    if role.lower() not in ROLES:
        raise bad(f'invalid Role: "{role}"')
    if availability.lower() not in AVAILABILITIES:
        raise bad(f'invalid Availability: "{availability}"')
    spec.desired_role = ROLES[role.lower()]
    spec.availability = AVAILABILITIES[availability.lower()]
    return spec


def node_to_json(node: Node) -> JsonObject:
    """A node as the engine shows it. ``Spec.Role`` is the desired role."""
    out = common.meta_to_json(node.id, node.meta)
    out["Spec"] = {
        **common.annotations_to_json(node.spec.annotations),
        "Role": ROLE_NAMES.get(node.spec.desired_role, ""),
        "Availability": AVAILABILITY_NAMES.get(node.spec.availability, ""),
    }
    out["Description"] = description_to_json(node.description)
    status: JsonObject = {"State": STATE_NAMES.get(node.status.state, "unknown")}
    common.keep(status, Message=node.status.message, Addr=node.status.addr)
    out["Status"] = status
    if node.HasField("manager_status"):
        out["ManagerStatus"] = manager_status_to_json(node.manager_status)
    return out


def description_to_json(description: Any) -> JsonObject:
    """What a node says of itself."""
    out: JsonObject = {}
    common.keep(out, Hostname=description.hostname)
    out["Platform"] = task_spec.platform_to_json(description.platform)
    out["Resources"] = task_spec.amounts_to_json(description.resources)
    out["Engine"] = engine_to_json(description.engine)
    out["TLSInfo"] = tls_info_to_json(
        description.tls_info.trust_root,
        description.tls_info.cert_issuer_subject,
        description.tls_info.cert_issuer_public_key,
    )
    if description.csi_info:
        out["CSIInfo"] = [csi_to_json(info) for info in description.csi_info]
    return out


def engine_to_json(engine: types_pb2.EngineDescription) -> JsonObject:
    """The engine's version, labels and plugins."""
    out: JsonObject = {}
    common.keep(out, EngineVersion=engine.engine_version, Labels=common.map_to_json(engine.labels))
    plugins: list[JsonObject] = []
    for plugin in engine.plugins:
        item: JsonObject = {}
        common.keep(item, Type=plugin.type, Name=plugin.name)
        plugins.append(item)
    common.keep(out, Plugins=plugins)
    return out


def tls_info_to_json(trust_root: bytes, subject: bytes, public_key: bytes) -> JsonObject:
    """A root: its certificate in PEM, and the DER of its subject and key in base64, each if known."""
    out: JsonObject = {}
    common.keep(
        out,
        TrustRoot=trust_root.decode("utf-8", "replace"),
        CertIssuerSubject=base64.b64encode(subject).decode(),
        CertIssuerPublicKey=base64.b64encode(public_key).decode(),
    )
    return out


def csi_to_json(info: types_pb2.NodeCSIInfo) -> JsonObject:
    """What one CSI plugin says of the node."""
    out: JsonObject = {}
    common.keep(out, PluginName=info.plugin_name, NodeID=info.node_id, MaxVolumesPerNode=info.max_volumes_per_node)
    if info.HasField("accessible_topology"):
        topology: JsonObject = {}
        common.keep(topology, Segments=common.map_to_json(info.accessible_topology.segments))
        out["AccessibleTopology"] = topology
    return out


def manager_status_to_json(status: types_pb2.ManagerStatus) -> JsonObject:
    """A manager's part in raft; ``Leader`` only where it is true."""
    out: JsonObject = {}
    common.keep(out, Leader=status.leader)
    out["Reachability"] = REACHABILITY_NAMES.get(status.reachability, "unknown")
    common.keep(out, Addr=status.addr)
    return out
