"""Control requests about nodes.

Rules owned here: nodes that are raft members are shown with their manager status; a demotion must leave a manager and a
quorum; a node is removed only when it is no raft member, and not while it is up unless forced; its certificate is
blacklisted and its tasks are orphaned in the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from runtime.errors import Code, Refused, not_found, precondition
from runtime.swarm.control.checks import based_on, copy_of, find_or_refuse, require, require_field, stored
from runtime.swarm.control.context import Context
from runtime.swarm.control.listing import by_id_prefix, by_index, by_name, by_name_prefix, labels_match, select
from runtime.swarm.defaults import CLUSTER_NAME
from runtime.swarm.labels import check_node_labels
from runtime.swarm.ports import Tx, View
from runtime.swarm.service_spec import to_timestamp
from runtime.wire.pb import control_pb2 as control
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

BLACKLIST_KEEP_S: Final = 7 * 24 * 3600.0
"""How long an entry outlives the certificate it is about."""

ORPHANED_MESSAGE: Final = "Task belonged to a node that has been deleted"


def hostname(node: objects.Node) -> str:
    """The name of a node: its description's host name."""
    return node.description.hostname


def get_node(view: View, request: control.GetNodeRequest, ctx: Context) -> control.GetNodeResponse:
    """One node, with its manager status when it is a raft member."""
    require(request.node_id)
    node = find_or_refuse(view, objects.Node, request.node_id)
    return control.GetNodeResponse(node=_with_manager_status(node, ctx))


def list_nodes(view: View, request: control.ListNodesRequest, ctx: Context) -> control.ListNodesResponse:
    """The nodes that pass the filters; ``labels`` are the engine's, ``node_labels`` the spec's."""
    wanted = request.filters
    filters = [
        by_name(objects.Node, wanted.names, hostname),
        by_name_prefix(objects.Node, wanted.name_prefixes, hostname),
        by_id_prefix(objects.Node, wanted.id_prefixes),
        by_index(objects.Node, "role", wanted.roles, lambda node: node.role),
        by_index(objects.Node, "membership", wanted.memberships, lambda node: node.spec.membership),
    ]
    found = select(
        view,
        objects.Node,
        filters,
        lambda node: (
            labels_match(node.description.engine.labels, wanted.labels)
            and labels_match(node.spec.annotations.labels, wanted.node_labels)
        ),
    )
    return control.ListNodesResponse(nodes=[_with_manager_status(node, ctx) for node in found])


def _with_manager_status(node: objects.Node, ctx: Context) -> objects.Node:
    member = ctx.members.get(node.id)
    if member is None:
        return node
    shown = copy_of(node)
    shown.manager_status.CopyFrom(member.status())
    return shown


def update_node(request: control.UpdateNodeRequest, ctx: Context) -> Callable[[Tx], control.UpdateNodeResponse]:
    """Replaces a node's whole spec; a demotion is checked against the managers and the raft members."""
    require(request.node_id)
    require_field(request, "node_version", "spec")
    check_node_labels(request.spec.annotations.labels)

    def run(tx: Tx) -> control.UpdateNodeResponse:
        node = find_or_refuse(tx, objects.Node, request.node_id)
        if node.spec.desired_role == types.MANAGER and request.spec.desired_role == types.WORKER:
            _check_demotion(tx, node, ctx)
        new = based_on(node, request.node_version)
        new.spec.CopyFrom(request.spec)
        tx.update(new)
        return control.UpdateNodeResponse(node=stored(tx, objects.Node, node.id))

    return run


def _check_demotion(tx: Tx, node: objects.Node, ctx: Context) -> None:
    managers = tx.find(objects.Node, "role", types.MANAGER)
    if [manager.id for manager in managers] == [node.id]:
        raise precondition("attempting to demote the last manager of the swarm")
    member = ctx.members.get(node.id)
    if member is None:
        raise not_found("can't find manager in raft memberlist")
    if not ctx.can_remove(member.raft_id):
        raise precondition("can't remove member from the raft: this would result in a loss of quorum")


def remove_node(request: control.RemoveNodeRequest, ctx: Context) -> Callable[[Tx], control.RemoveNodeResponse]:
    """Removes a node that is no raft member and that is down (or forced)."""
    require(request.node_id)

    def run(tx: Tx) -> control.RemoveNodeResponse:
        node = find_or_refuse(tx, objects.Node, request.node_id)
        _check_removable(node, request.force, ctx)
        take_out(tx, node, ctx.certificate_expiry)
        return control.RemoveNodeResponse()

    return run


def take_out(tx: Tx, node: objects.Node, certificate_expiry: Callable[[bytes], float | None]) -> None:
    """Removes a node, with all that follows from it; `Context` says what ``certificate_expiry`` is."""
    _blacklist(tx, node, certificate_expiry)
    _orphan_tasks(tx, node.id)
    tx.delete(objects.Node, node.id)


def _check_removable(node: objects.Node, force: bool, ctx: Context) -> None:
    if node.spec.desired_role == types.MANAGER and node.id in ctx.members:
        raise precondition(
            f"node {node.id} is a cluster manager and is a member of the raft cluster. "
            "It must be demoted to worker before removal"
        )
    if not force and node.status.state == types.NodeStatus.READY:
        raise precondition(f"node {node.id} is not down and can't be removed")


def _blacklist(tx: Tx, node: objects.Node, certificate_expiry: Callable[[bytes], float | None]) -> None:
    clusters = tx.find(objects.Cluster, "name", CLUSTER_NAME)
    if len(clusters) != 1:
        raise Refused(Code.INTERNAL, "could not fetch cluster object")
    cluster = copy_of(clusters[0])
    entry = types.BlacklistedCertificate()
    expiry = certificate_expiry(node.certificate.certificate) if node.certificate.certificate else None
    if expiry is not None:
        entry.expiry.CopyFrom(to_timestamp(expiry))
    cluster.blacklisted_certificates[node.id].CopyFrom(entry)
    expire_blacklist(cluster, tx.now)
    tx.update(cluster)


def expire_blacklist(cluster: objects.Cluster, now: float) -> None:
    """Drops the entries, in place, whose certificates ended more than seven days ago; those without a date stay."""
    entries = cluster.blacklisted_certificates
    for name in sorted(entries):
        entry = entries[name]
        if entry.HasField("expiry") and entry.expiry.seconds + entry.expiry.nanos / 1e9 < now - BLACKLIST_KEEP_S:
            del entries[name]


def _orphan_tasks(tx: Tx, node_id: str) -> None:
    for task in tx.find(objects.Task, "node", node_id):
        if task.status.state >= types.COMPLETE:
            continue
        new = copy_of(task)
        new.status.CopyFrom(
            types.TaskStatus(timestamp=to_timestamp(tx.now), state=types.ORPHANED, message=ORPHANED_MESSAGE)
        )
        tx.update(new)
