"""The cluster object and the requests that make, join and change it.

Rules: an update's spec is taken from scratch, so what it leaves out becomes zero; signing certificate and key go in
and never come out; the log driver of TaskDefaults is accepted and not stored; join tokens are shown to
inspection alone.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from runtime.engine_api.convert import common, fields, node
from runtime.engine_api.errors import bad
from runtime.protocol.cluster import InitRequest, JoinRequest
from runtime.wire.pb import specs_pb2, types_pb2

if TYPE_CHECKING:
    from runtime.engine_api.jsonio import JsonObject
    from runtime.wire.pb.objects_pb2 import Cluster

DEFAULT_DATA_PATH_PORT: Final = 4789
EXTERNAL_CA_PROTOCOLS: Final = ("", "cfssl")


def spec_from_json(obj: JsonObject, path: str) -> specs_pb2.ClusterSpec:
    """A swarm spec; durations of zero count as not given, as the engine stores them."""
    spec = specs_pb2.ClusterSpec()
    common.set_annotations(spec.annotations, obj, path)
    orchestration = fields.child(obj, "Orchestration", path) or {}
    limit = fields.integer(orchestration, "TaskHistoryRetentionLimit", path + "Orchestration.")
    spec.orchestration.task_history_retention_limit = limit
    _raft_from_json(spec.raft, fields.child(obj, "Raft", path) or {}, path + "Raft.")
    dispatcher = fields.child(obj, "Dispatcher", path) or {}
    period = fields.integer(dispatcher, "HeartbeatPeriod", path + "Dispatcher.")
    if period:
        common.set_duration(spec.dispatcher.heartbeat_period, period)
    _ca_from_json(spec.ca_config, fields.child(obj, "CAConfig", path) or {}, path + "CAConfig.")
    encryption = fields.child(obj, "EncryptionConfig", path) or {}
    autolock = fields.flag(encryption, "AutoLockManagers", path + "EncryptionConfig.")
    spec.encryption_config.auto_lock_managers = autolock
    return spec


def _raft_from_json(target: types_pb2.RaftConfig, obj: JsonObject, path: str) -> None:
    target.snapshot_interval = fields.unsigned(obj, "SnapshotInterval", path)
    target.keep_old_snapshots = fields.unsigned(obj, "KeepOldSnapshots", path)
    target.log_entries_for_slow_followers = fields.unsigned(obj, "LogEntriesForSlowFollowers", path)
    target.election_tick = fields.integer(obj, "ElectionTick", path, 0, fields.U32_MAX)
    target.heartbeat_tick = fields.integer(obj, "HeartbeatTick", path, 0, fields.U32_MAX)


def _ca_from_json(target: types_pb2.CAConfig, obj: JsonObject, path: str) -> None:
    expiry = fields.integer(obj, "NodeCertExpiry", path)
    if expiry:
        common.set_duration(target.node_cert_expiry, expiry)
    for index, ca in enumerate(fields.children(obj, "ExternalCAs", path)):
        inner = f"{path}ExternalCAs[{index}]."
        protocol = fields.text(ca, "Protocol", inner)
        if protocol.lower() not in EXTERNAL_CA_PROTOCOLS:
            raise bad(f'invalid protocol: "{protocol}"')
        target.external_cas.add(
            url=fields.text(ca, "URL", inner),
            options=fields.mapping(ca, "Options", inner),
            ca_cert=fields.text(ca, "CACert", inner).encode(),
        )
    target.signing_ca_cert = fields.text(obj, "SigningCACert", path).encode()
    target.signing_ca_key = fields.text(obj, "SigningCAKey", path).encode()
    target.force_rotate = fields.unsigned(obj, "ForceRotate", path)


def init_from_json(obj: JsonObject) -> InitRequest:
    """``POST /swarm/init``. Autolock counts from either of the two places where clients say it."""
    asked = fields.child(obj, "Spec", "") or {}
    spec = spec_from_json(asked, "Spec.")
    pool = None if obj.get("DefaultAddrPool") is None else tuple(fields.texts(obj, "DefaultAddrPool", ""))
    raft, orchestration = asked.get("Raft") or {}, asked.get("Orchestration") or {}
    return InitRequest(
        listen_addr=fields.text(obj, "ListenAddr", ""),
        advertise_addr=fields.text(obj, "AdvertiseAddr", ""),
        data_path_addr=fields.text(obj, "DataPathAddr", ""),
        data_path_port=fields.u32(obj, "DataPathPort", ""),
        force_new_cluster=fields.flag(obj, "ForceNewCluster", ""),
        spec=spec,
        auto_lock_managers=fields.flag(obj, "AutoLockManagers", ""),
        availability=fields.text(obj, "Availability", ""),
        default_addr_pool=pool,
        subnet_size=fields.u32(obj, "SubnetSize", ""),
        history_limit=orchestration.get("TaskHistoryRetentionLimit"),
        keep_old_snapshots=raft.get("KeepOldSnapshots"),
    )


def join_from_json(obj: JsonObject) -> JoinRequest:
    """``POST /swarm/join``."""
    return JoinRequest(
        listen_addr=fields.text(obj, "ListenAddr", ""),
        advertise_addr=fields.text(obj, "AdvertiseAddr", ""),
        data_path_addr=fields.text(obj, "DataPathAddr", ""),
        remote_addrs=tuple(fields.texts(obj, "RemoteAddrs", "")),
        availability=fields.text(obj, "Availability", ""),
        join_token=fields.text(obj, "JoinToken", ""),
    )


def spec_to_json(spec: specs_pb2.ClusterSpec) -> JsonObject:
    """A swarm spec without its signing certificate and key."""
    out = common.annotations_to_json(spec.annotations)
    out["Orchestration"] = {"TaskHistoryRetentionLimit": spec.orchestration.task_history_retention_limit}
    raft: JsonObject = {}
    common.keep(raft, SnapshotInterval=spec.raft.snapshot_interval)
    raft["KeepOldSnapshots"] = spec.raft.keep_old_snapshots
    common.keep(raft, LogEntriesForSlowFollowers=spec.raft.log_entries_for_slow_followers)
    raft["ElectionTick"] = spec.raft.election_tick
    raft["HeartbeatTick"] = spec.raft.heartbeat_tick
    out["Raft"] = raft
    dispatcher: JsonObject = {}
    common.keep(dispatcher, HeartbeatPeriod=common.duration_to_json(spec.dispatcher.heartbeat_period))
    out["Dispatcher"] = dispatcher
    out["CAConfig"] = _ca_to_json(spec.ca_config)
    out["TaskDefaults"] = {}
    out["EncryptionConfig"] = {"AutoLockManagers": spec.encryption_config.auto_lock_managers}
    return out


def _ca_to_json(config: types_pb2.CAConfig) -> JsonObject:
    out: JsonObject = {}
    common.keep(out, NodeCertExpiry=common.duration_to_json(config.node_cert_expiry))
    cas: list[JsonObject] = []
    for ca in config.external_cas:
        item: JsonObject = {"Protocol": "cfssl", "URL": ca.url}
        common.keep(item, Options=common.map_to_json(ca.options))
        item["CACert"] = ca.ca_cert.decode("utf-8", "replace")
        cas.append(item)
    common.keep(out, ExternalCAs=cas, ForceRotate=config.force_rotate)
    return out


def cluster_to_json(cluster: Cluster) -> JsonObject:
    """The cluster without its join tokens, as ``/info`` shows it."""
    out = common.meta_to_json(cluster.id, cluster.meta)
    out["Spec"] = spec_to_json(cluster.spec)
    out["TLSInfo"] = _tls_info_to_json(cluster.root_ca)
    out["RootRotationInProgress"] = cluster.root_ca.HasField("root_rotation")
    out["DefaultAddrPool"] = list(cluster.defaultAddressPool) or None
    out["SubnetSize"] = cluster.subnetSize
    out["DataPathPort"] = cluster.VXLANUDPPort or DEFAULT_DATA_PATH_PORT
    return out


def swarm_to_json(cluster: Cluster) -> JsonObject:
    """The cluster with its join tokens, as ``GET /swarm`` shows it."""
    out = cluster_to_json(cluster)
    tokens = cluster.root_ca.join_tokens
    out["JoinTokens"] = {"Worker": tokens.worker, "Manager": tokens.manager}
    return out


def _tls_info_to_json(root: types_pb2.RootCA) -> JsonObject:
    """What a node shows that has moved: while another root is coming, that one is the issuer. Clients compare."""
    if not root.ca_cert:
        return {}
    coming = root.root_rotation.ca_cert
    subject, public_key = _issuer(coming or root.ca_cert)
    return node.tls_info_to_json(root.ca_cert, subject, public_key)


@functools.lru_cache(maxsize=8)
def _issuer(certificate: bytes) -> tuple[bytes, bytes]:
    """The DER of subject and public key of the first certificate in a PEM bundle; empty if it cannot be read.

    Kept for the few bundles a cluster has in its life, because parsing costs more than the rest of the answer.
    """
    try:
        first = x509.load_pem_x509_certificates(certificate)[0]
    except ValueError:
        return b"", b""
    key = first.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return first.subject.public_bytes(), key
