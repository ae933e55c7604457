"""Nodes, tasks and the cluster object."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import duration_pb2

from runtime.errors import Code, Refused
from runtime.swarm.control.nodes import BLACKLIST_KEEP_S, expire_blacklist
from runtime.swarm.identity import token_digest
from runtime.swarm.service_spec import to_timestamp
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_control.fakes import Swarm, cluster, member, refusal, service_spec


def node(id: str, *, manager: bool = False, state: types.NodeStatus.State = types.NodeStatus.DOWN) -> objects.Node:
    role = types.MANAGER if manager else types.WORKER
    made = objects.Node(id=id, role=role, spec=specs.NodeSpec(desired_role=role, membership=specs.NodeSpec.ACCEPTED))
    made.status.state = state
    made.description.hostname = f"host-{id}"
    return made


# Nodes.


def test_raft_members_are_shown_with_their_manager_status_and_others_without() -> None:
    swarm = Swarm(members={"m": member(1, leader=True)})
    swarm.put(node("m", manager=True))
    swarm.put(node("w"))
    shown = swarm.call("GetNode", node_id="m").node.manager_status
    assert (shown.raft_id, shown.addr, shown.leader) == (1, "10.0.0.1:2377", True)
    assert shown.reachability == types.RaftMemberStatus.REACHABLE
    listed = {each.id: each.HasField("manager_status") for each in swarm.call("ListNodes").nodes}
    assert listed == {"m": True, "w": False}
    assert not swarm.store.get(objects.Node, "m").HasField("manager_status")


def update_node(swarm: Swarm, id: str, **spec: Any) -> objects.Node:
    version = swarm.store.get(objects.Node, id).meta.version
    updated: objects.Node = swarm.call("UpdateNode", node_id=id, node_version=version, spec=specs.NodeSpec(**spec)).node
    return updated


def test_an_update_replaces_the_whole_spec() -> None:
    swarm = Swarm()
    swarm.put(node("w"))
    spec: dict[str, Any] = {"availability": specs.NodeSpec.DRAIN, "annotations": types.Annotations(labels={"a": "b"})}
    updated = update_node(swarm, "w", **spec)
    assert updated.spec == specs.NodeSpec(**spec)
    assert updated.spec.membership == specs.NodeSpec.PENDING
    stale = types.Version(index=1)
    assert refusal(swarm, "UpdateNode", node_id="w", node_version=stale, spec=specs.NodeSpec()) == (
        Code.UNKNOWN,
        "update out of sequence",
    )


@pytest.mark.parametrize("key", ["swarmlet.lost-after", "swarmlet.remove-after"])
def test_a_label_of_a_node_that_cannot_be_read_is_refused_and_nothing_is_changed(key: str) -> None:
    swarm = Swarm()
    swarm.put(node("w"))
    with pytest.raises(Refused, match=f"label {key}: 'soon' is no duration"):
        update_node(swarm, "w", annotations=types.Annotations(labels={key: "soon"}))
    assert update_node(swarm, "w", annotations=types.Annotations(labels={key: "5m"})).spec.annotations.labels


def test_the_last_manager_is_not_demoted() -> None:
    swarm = Swarm(members={"m": member(1)}, can_remove=lambda raft_id: True)
    swarm.put(node("m", manager=True))
    with pytest.raises(Refused, match="attempting to demote the last manager of the swarm"):
        update_node(swarm, "m", desired_role=types.WORKER)


def test_a_demotion_asks_raft() -> None:
    quorum = {1: False, 2: True}
    swarm = Swarm(members={"m1": member(1), "m2": member(2)}, can_remove=quorum.__getitem__)
    for id in ("m1", "m2", "m3"):
        swarm.put(node(id, manager=True))
    with pytest.raises(Refused, match="this would result in a loss of quorum") as lost:
        update_node(swarm, "m1", desired_role=types.WORKER)
    assert lost.value.code is Code.FAILED_PRECONDITION
    with pytest.raises(Refused, match="can't find manager in raft memberlist") as unknown:
        update_node(swarm, "m3", desired_role=types.WORKER)
    assert unknown.value.code is Code.NOT_FOUND
    assert update_node(swarm, "m2", desired_role=types.WORKER).spec.desired_role == types.WORKER


def test_a_raft_member_is_not_removed_even_by_force() -> None:
    swarm = Swarm(members={"m": member(1)})
    swarm.put(cluster())
    swarm.put(node("m", manager=True))
    swarm.put(node("joining", manager=True))
    text = (
        "node m is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"
    )
    assert refusal(swarm, "RemoveNode", node_id="m", force=True) == (Code.FAILED_PRECONDITION, text)
    swarm.call("RemoveNode", node_id="joining")
    assert swarm.store.count(objects.Node) == 1


def test_a_node_that_is_up_is_removed_by_force_only() -> None:
    swarm = Swarm()
    swarm.put(cluster())
    swarm.put(node("w", state=types.NodeStatus.READY))
    text = "node w is not down and can't be removed"
    assert refusal(swarm, "RemoveNode", node_id="w") == (Code.FAILED_PRECONDITION, text)
    swarm.call("RemoveNode", node_id="w", force=True)
    assert swarm.store.count(objects.Node) == 0


def test_removal_blacklists_the_certificate_and_orphans_running_tasks() -> None:
    swarm = Swarm(certificate_expiry={b"pem": 2_000_000.0}.get)
    swarm.put(cluster())
    gone = node("w")
    gone.certificate.certificate = b"pem"
    swarm.put(gone)
    for id, state in (("run", types.RUNNING), ("new", types.NEW), ("done", types.COMPLETE), ("dead", types.FAILED)):
        swarm.put(objects.Task(id=id, node_id="w", status=types.TaskStatus(state=state)))
    swarm.put(objects.Task(id="elsewhere", node_id="x", status=types.TaskStatus(state=types.RUNNING)))
    swarm.call("RemoveNode", node_id="w")
    entry = swarm.store.get(objects.Cluster, "cluster1").blacklisted_certificates["w"]
    assert entry.expiry.seconds == 2_000_000
    states = {task.id: task.status.state for task in swarm.store.all(objects.Task)}
    assert states == {
        "run": types.ORPHANED,
        "new": types.ORPHANED,
        "done": types.COMPLETE,
        "dead": types.FAILED,
        "elsewhere": types.RUNNING,
    }
    assert swarm.store.get(objects.Task, "run").status.message == "Task belonged to a node that has been deleted"


def test_a_certificate_that_cannot_be_read_is_blacklisted_without_end() -> None:
    swarm = Swarm()
    swarm.put(cluster())
    gone = node("w")
    gone.certificate.certificate = b"not a certificate"
    swarm.put(gone)
    swarm.call("RemoveNode", node_id="w")
    blacklist = swarm.store.get(objects.Cluster, "cluster1").blacklisted_certificates
    assert "w" in blacklist
    assert not blacklist["w"].HasField("expiry")


def test_blacklist_entries_outlive_their_certificate_by_seven_days() -> None:
    held = cluster()
    held.blacklisted_certificates["old"].expiry.CopyFrom(to_timestamp(1000.0))
    held.blacklisted_certificates["new"].expiry.CopyFrom(to_timestamp(2000.0))
    held.blacklisted_certificates["endless"].SetInParent()
    expire_blacklist(held, 1001.0 + BLACKLIST_KEEP_S)
    assert sorted(held.blacklisted_certificates) == ["endless", "new"]


def test_a_removal_without_a_cluster_changes_nothing() -> None:
    swarm = Swarm()
    swarm.put(node("w"))
    assert refusal(swarm, "RemoveNode", node_id="w") == (Code.INTERNAL, "could not fetch cluster object")
    assert swarm.store.count(objects.Node) == 1


@pytest.mark.parametrize("method", ["GetNode", "RemoveNode"])
def test_an_unknown_node_is_not_found_and_a_missing_id_invalid(method: str) -> None:
    swarm = Swarm()
    assert refusal(swarm, method, node_id="x") == (Code.NOT_FOUND, "node x not found")
    assert refusal(swarm, method) == (Code.INVALID_ARGUMENT, "invalid argument")


# Tasks.


def test_tasks_are_read_and_removed_outright() -> None:
    swarm = Swarm()
    swarm.put(objects.Task(id="t", status=types.TaskStatus(state=types.RUNNING)))
    assert swarm.call("GetTask", task_id="t").task.id == "t"
    swarm.call("RemoveTask", task_id="t")
    assert refusal(swarm, "GetTask", task_id="t") == (Code.NOT_FOUND, "task t not found")
    assert refusal(swarm, "RemoveTask", task_id="t") == (Code.NOT_FOUND, "task t not found")


def test_up_to_date_tasks_are_those_of_the_present_spec() -> None:
    seen: list[tuple[str, str | None]] = []

    def is_dirty(task: objects.Task, service: objects.Service, held: objects.Node | None) -> bool:
        seen.append((task.id, held.id if held is not None else None))
        return task.spec != service.spec.task

    swarm = Swarm(is_dirty=is_dirty)
    service = swarm.put(objects.Service(id="s", spec=service_spec()))
    swarm.put(node("n"))
    swarm.put(objects.Task(id="clean", service_id="s", node_id="n", spec=service.spec.task))
    swarm.put(objects.Task(id="dirty", service_id="s"))
    swarm.put(objects.Task(id="lone", service_id="gone"))
    listed = swarm.call("ListTasks", filters={"up_to_date": True}).tasks
    assert [task.id for task in listed] == ["clean"]
    assert seen == [("clean", "n"), ("dirty", None)]


# The cluster.

KEYS = (b"root key", b"new key", b"signing key", b"gossip key", b"unlock key", b"signing cert")


def full_cluster() -> objects.Cluster:
    made = cluster()
    made.unlock_keys.append(types.EncryptionKey(subsystem="swarm-manager", key=b"unlock key"))
    return made


@pytest.mark.parametrize("method", ["GetCluster", "ListClusters", "UpdateCluster"])
def test_no_key_leaves_with_a_cluster(method: str) -> None:
    swarm = Swarm(rotate_ca=lambda held, spec: held.root_ca, autolock=True)
    held = swarm.put(full_cluster())
    held.spec.encryption_config.auto_lock_managers = True
    fields: dict[str, Any] = {
        "GetCluster": {"cluster_id": "cluster1"},
        "ListClusters": {},
        "UpdateCluster": {"cluster_id": "cluster1", "cluster_version": held.meta.version, "spec": held.spec},
    }[method]
    answer = swarm.call(method, **fields).SerializeToString()
    assert not [key for key in KEYS if key in answer]
    for shown in (b"SWMTKN-1-w", b"SWMTKN-1-m", b"root cert", b"crossed", b"10.0.0.0/8"):
        assert shown in answer


def test_an_unset_pool_and_port_show_their_defaults_and_set_ones_stay() -> None:
    swarm = Swarm()
    swarm.put(cluster())
    shown = swarm.call("GetCluster", cluster_id="cluster1").cluster
    assert (list(shown.defaultAddressPool), shown.subnetSize, shown.VXLANUDPPort) == (["10.0.0.0/8"], 24, 4789)
    other = Swarm()
    held = cluster(subnetSize=26, VXLANUDPPort=7777)
    held.defaultAddressPool.append("172.16.0.0/12")
    other.put(held)
    shown = other.call("ListClusters").clusters[0]
    assert (list(shown.defaultAddressPool), shown.subnetSize, shown.VXLANUDPPort) == (["172.16.0.0/12"], 26, 7777)


def plain_spec(**fields: Any) -> specs.ClusterSpec:
    return specs.ClusterSpec(**({"annotations": types.Annotations(name="default")} | fields))


def secret_policy(alg: str) -> types.AcceptancePolicy:
    policy = types.AcceptancePolicy.RoleAdmissionPolicy
    return types.AcceptancePolicy(policies=[policy(secret=policy.Secret(alg=alg))])


BAD_CLUSTERS = [
    (
        plain_spec(ca_config=types.CAConfig(node_cert_expiry=duration_pb2.Duration(seconds=3599))),
        "minimum certificate expiry time is: 1h0m0s",
    ),
    (
        plain_spec(dispatcher=types.DispatcherConfig(heartbeat_period=duration_pb2.Duration(seconds=-1))),
        "heartbeat time period cannot be a negative duration",
    ),
    (plain_spec(acceptance_policy=secret_policy("md5")), "hashing algorithm is not supported: md5"),
    (specs.ClusterSpec(), "modification of cluster name is not allowed"),
]


@pytest.mark.parametrize(("spec", "text"), BAD_CLUSTERS, ids=[text[:30] for _, text in BAD_CLUSTERS])
def test_a_bad_cluster_spec_is_refused(spec: specs.ClusterSpec, text: str) -> None:
    swarm = Swarm()
    held = swarm.put(cluster())
    fields = {"cluster_id": "cluster1", "cluster_version": held.meta.version, "spec": spec}
    assert refusal(swarm, "UpdateCluster", **fields) == (Code.INVALID_ARGUMENT, text)


def update_cluster(swarm: Swarm, spec: specs.ClusterSpec, **rotation: bool) -> objects.Cluster:
    version = swarm.store.all(objects.Cluster)[0].meta.version
    swarm.call("UpdateCluster", cluster_id="cluster1", cluster_version=version, spec=spec, rotation=rotation)
    held: objects.Cluster = swarm.store.get(objects.Cluster, "cluster1")
    return held


def test_an_update_replaces_the_spec_and_keeps_keys_and_tokens() -> None:
    swarm = Swarm()
    before = swarm.put(cluster())
    after = update_cluster(swarm, plain_spec(acceptance_policy=secret_policy("BCrypt")))
    assert after.spec == plain_spec(acceptance_policy=secret_policy("BCrypt"))
    assert after.root_ca == before.root_ca
    assert after.network_bootstrap_keys == before.network_bootstrap_keys
    fields = {"cluster_id": "cluster1", "cluster_version": before.meta.version, "spec": plain_spec()}
    assert refusal(swarm, "UpdateCluster", **fields) == (Code.UNKNOWN, "update out of sequence")


@pytest.mark.parametrize("role", ["worker", "manager"])
def test_each_join_token_rotates_alone(role: str) -> None:
    swarm = Swarm()
    before = swarm.put(cluster()).root_ca.join_tokens
    after = update_cluster(swarm, plain_spec(), **{f"{role}_join_token": True}).root_ca.join_tokens
    other = "manager" if role == "worker" else "worker"
    assert getattr(after, other) == getattr(before, other)
    assert getattr(after, role).split("-")[:3] == ["SWMTKN", "1", token_digest(b"root cert")]
    assert len(getattr(after, role).split("-")[3]) == 25


def test_both_tokens_rotated_together_differ() -> None:
    swarm = Swarm()
    swarm.put(cluster())
    tokens = update_cluster(swarm, plain_spec(), worker_join_token=True, manager_join_token=True).root_ca.join_tokens
    assert tokens.worker != tokens.manager


def unlock_keys(held: objects.Cluster) -> list[bytes]:
    return [key.key for key in held.unlock_keys if key.subsystem == "swarm-manager"]


def test_autolock_makes_keeps_replaces_and_drops_the_key() -> None:
    swarm = Swarm(autolock=True)
    swarm.put(cluster())
    locked = plain_spec(encryption_config=types.EncryptionConfig(auto_lock_managers=True))
    first = unlock_keys(update_cluster(swarm, locked))
    assert [len(key) for key in first] == [32]
    assert unlock_keys(update_cluster(swarm, locked)) == first
    second = unlock_keys(update_cluster(swarm, locked, manager_unlock_key=True))
    assert len(second) == 1
    assert second != first
    assert unlock_keys(update_cluster(swarm, plain_spec(), manager_unlock_key=True)) == []


def test_what_a_manager_cannot_do_is_refused_and_nothing_changes() -> None:
    swarm = Swarm()
    before = swarm.put(cluster())
    for spec in (
        plain_spec(encryption_config=types.EncryptionConfig(auto_lock_managers=True)),
        plain_spec(ca_config=types.CAConfig(force_rotate=1)),
        plain_spec(ca_config=types.CAConfig(signing_ca_cert=b"c")),
        plain_spec(ca_config=types.CAConfig(signing_ca_key=b"k")),
    ):
        fields = {"cluster_id": "cluster1", "cluster_version": before.meta.version, "spec": spec}
        assert refusal(swarm, "UpdateCluster", **fields)[0] is Code.UNIMPLEMENTED
    assert swarm.store.get(objects.Cluster, "cluster1") == before


def test_a_root_rotation_is_decided_elsewhere_and_tokens_follow_its_root() -> None:
    swarm = Swarm(rotate_ca=lambda held, spec: types.RootCA(ca_cert=b"next", last_forced_rotation=7))
    swarm.put(cluster())
    spec = plain_spec(ca_config=types.CAConfig(force_rotate=7))
    after = update_cluster(swarm, spec, worker_join_token=True)
    assert (after.root_ca.ca_cert, after.root_ca.last_forced_rotation) == (b"next", 7)
    assert after.root_ca.join_tokens.worker.split("-")[2] == token_digest(b"next")
    swarm.ctx = Swarm().ctx
    assert update_cluster(swarm, spec).root_ca == after.root_ca
