"""Control requests about the cluster object, of which there is one.

Rules owned here: no private key of any sort leaves the store by these requests; join tokens do, for whoever may ask. A
rotation replaces exactly the keys that were asked for. What a node cannot do (rotate its root CA, lock its managers) is
refused before anything changes, never accepted and ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from runtime.errors import invalid
from runtime.swarm.control.checks import based_on, find_or_refuse, require, require_field, stored, unimplemented
from runtime.swarm.control.context import Context
from runtime.swarm.control.listing import by_id_prefix, by_name, by_name_prefix, labels_match, select
from runtime.swarm.control.nodes import expire_blacklist
from runtime.swarm.defaults import ADDRESS_POOL, CLUSTER_NAME, SUBNET_SIZE, VXLAN_PORT, nanoseconds
from runtime.swarm.identity import draw, new_join_token
from runtime.swarm.ports import Tx, View
from runtime.wire.pb import control_pb2 as control
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

NODE_CERT_EXPIRY_MIN_NS: Final = 3600 * 1_000_000_000
UNLOCK_SUBSYSTEM: Final = "swarm-manager"
UNLOCK_KEY_BYTES: Final = 32


def cluster_name(cluster: objects.Cluster) -> str:
    """The name in a cluster's spec."""
    return cluster.spec.annotations.name


def redacted(cluster: objects.Cluster) -> objects.Cluster:
    """A copy with the public fields alone; an unset address pool, subnet size and VXLAN port show their defaults."""
    shown = objects.Cluster(
        id=cluster.id,
        meta=cluster.meta,
        spec=cluster.spec,
        root_ca=cluster.root_ca,
        blacklisted_certificates=cluster.blacklisted_certificates,
        fips=cluster.fips,
        defaultAddressPool=cluster.defaultAddressPool or ADDRESS_POOL,
        subnetSize=cluster.subnetSize or SUBNET_SIZE,
        VXLANUDPPort=cluster.VXLANUDPPort or VXLAN_PORT,
    )
    for field in ("signing_ca_cert", "signing_ca_key"):
        shown.spec.ca_config.ClearField(field)
    shown.root_ca.ClearField("ca_key")
    if shown.root_ca.HasField("root_rotation"):
        shown.root_ca.root_rotation.ClearField("ca_key")
    return shown


def get_cluster(view: View, request: control.GetClusterRequest, ctx: Context) -> control.GetClusterResponse:
    """The cluster, without its keys."""
    require(request.cluster_id)
    return control.GetClusterResponse(cluster=redacted(find_or_refuse(view, objects.Cluster, request.cluster_id)))


def list_clusters(view: View, request: control.ListClustersRequest, ctx: Context) -> control.ListClustersResponse:
    """The clusters that pass the filters, without their keys."""
    wanted = request.filters
    filters = [
        by_name(objects.Cluster, wanted.names, cluster_name),
        by_name_prefix(objects.Cluster, wanted.name_prefixes, cluster_name),
        by_id_prefix(objects.Cluster, wanted.id_prefixes),
    ]
    found = select(
        view,
        objects.Cluster,
        filters,
        lambda cluster: labels_match(cluster.spec.annotations.labels, wanted.labels),
    )
    return control.ListClustersResponse(clusters=[redacted(cluster) for cluster in found])


def check_cluster_spec(spec: specs.ClusterSpec) -> None:
    """Refuses a cluster spec that can never be right."""
    if spec.ca_config.HasField("node_cert_expiry"):
        expiry = nanoseconds(spec.ca_config.node_cert_expiry)
        if expiry < NODE_CERT_EXPIRY_MIN_NS:
            raise invalid("minimum certificate expiry time is: 1h0m0s")
    for policy in spec.acceptance_policy.policies:
        if policy.HasField("secret") and policy.secret.alg.lower() != "bcrypt":
            raise invalid(f"hashing algorithm is not supported: {policy.secret.alg}")
    if nanoseconds(spec.dispatcher.heartbeat_period) < 0:
        raise invalid("heartbeat time period cannot be a negative duration")
    if spec.annotations.name != CLUSTER_NAME:
        raise invalid("modification of cluster name is not allowed")


def update_cluster(
    request: control.UpdateClusterRequest, ctx: Context
) -> Callable[[Tx], control.UpdateClusterResponse]:
    """Replaces the cluster's spec and rotates what was asked for, in one transaction."""
    require(request.cluster_id)
    require_field(request, "cluster_version", "spec")
    check_cluster_spec(request.spec)
    spec, rotation = request.spec, request.rotation
    drawn = _Drawn(ctx)

    def run(tx: Tx) -> control.UpdateClusterResponse:
        cluster = find_or_refuse(tx, objects.Cluster, request.cluster_id)
        new = based_on(cluster, request.cluster_version)
        new.spec.CopyFrom(spec)
        expire_blacklist(new, tx.now)
        _apply_root_ca(new, cluster, spec, ctx)
        _rotate_tokens(new, rotation, drawn)
        _apply_autolock(new, spec, rotation, drawn, ctx)
        tx.update(new)
        return control.UpdateClusterResponse(cluster=redacted(stored(tx, objects.Cluster, cluster.id)))

    return run


class _Drawn:
    """Entropy of one request, drawn before its transaction: each use reads the same bytes at every run."""

    def __init__(self, ctx: Context) -> None:
        self.worker = draw(ctx.entropy, 16)
        self.manager = draw(ctx.entropy, 16)
        self.unlock_key = draw(ctx.entropy, UNLOCK_KEY_BYTES)


def _apply_root_ca(new: objects.Cluster, cluster: objects.Cluster, spec: specs.ClusterSpec, ctx: Context) -> None:
    """Hands the root CA to the rotation's decision, where there is one to be had."""
    if ctx.rotate_ca is not None:
        new.root_ca.CopyFrom(ctx.rotate_ca(cluster, spec))
        return
    ca = spec.ca_config
    if ca.signing_ca_cert or ca.signing_ca_key or ca.force_rotate != cluster.root_ca.last_forced_rotation:
        raise unimplemented("root CA rotation is not available on this manager")


def _rotate_tokens(new: objects.Cluster, rotation: control.KeyRotation, drawn: _Drawn) -> None:
    tokens, root = new.root_ca.join_tokens, new.root_ca.ca_cert
    if rotation.worker_join_token:
        tokens.worker = new_join_token(root, lambda size: drawn.worker[:size], fips=new.fips)
    if rotation.manager_join_token:
        tokens.manager = new_join_token(root, lambda size: drawn.manager[:size], fips=new.fips)


def _apply_autolock(
    new: objects.Cluster,
    spec: specs.ClusterSpec,
    rotation: control.KeyRotation,
    drawn: _Drawn,
    ctx: Context,
) -> None:
    """Keeps, makes, replaces or drops the managers' unlock key. Rotating while unlocked makes no key."""
    others = [key for key in new.unlock_keys if key.subsystem != UNLOCK_SUBSYSTEM]
    present = [key for key in new.unlock_keys if key.subsystem == UNLOCK_SUBSYSTEM]
    if not spec.encryption_config.auto_lock_managers:
        present = []
    else:
        if not ctx.autolock:
            raise unimplemented("locking managers is not available on this manager")
        if not present or rotation.manager_unlock_key:
            present = [types.EncryptionKey(subsystem=UNLOCK_SUBSYSTEM, key=drawn.unlock_key)]
    new.ClearField("unlock_keys")
    new.unlock_keys.extend((*others, *present))
