"""Nodes, the cluster, tasks, networks, secrets and configs; times; and what older API versions lose."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine_api.convert import adjust, common, network, node, secret, service, swarm, task
from runtime.engine_api.errors import ApiError
from runtime.engine_api.versions import NEWEST
from runtime.wire.pb.objects_pb2 import Cluster, Config, Network, NetworkAttachment, Node, Secret, Task
from tests.unit.engine_api import recorded
from tests.unit.engine_api.fake import PEM, PEM_KEY, PEM_SUBJECT, a_cluster, a_node


@pytest.mark.parametrize(
    ("seconds", "nanos", "text"),
    [
        (0, 0, "1970-01-01T00:00:00Z"),
        (1_795_487_427, 615_011_169, "2026-11-24T02:30:27.615011169Z"),
        (1_795_487_427, 500_000_000, "2026-11-24T02:30:27.5Z"),
        (1_795_487_427, 10, "2026-11-24T02:30:27.00000001Z"),
        (-62135596800, 0, "0001-01-01T00:00:00Z"),
        (-(1 << 62), 0, "0001-01-01T00:00:00Z"),
        (1 << 62, 0, "9999-12-31T23:59:59Z"),
    ],
)
def test_times_are_rfc_3339_with_nanoseconds_trimmed(seconds: int, nanos: int, text: str) -> None:
    assert common.time_to_json(Timestamp(seconds=seconds, nanos=nanos)) == text


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_duration_comes_back_as_it_went_in(nanoseconds: int) -> None:
    target = Timestamp()  # the same two fields
    common.set_duration(target, nanoseconds)  # type: ignore[arg-type]
    assert common.duration_to_json(target) == nanoseconds  # type: ignore[arg-type]
    assert target.seconds * target.nanos >= 0


def test_maps_are_written_in_order_of_their_keys() -> None:
    assert list(common.map_to_json({"b": "1", "a": "2"})) == ["a", "b"]


# Nodes


def test_a_node_is_shown_whole() -> None:
    shown = a_node()
    shown.description.engine.engine_version = "1.0"
    shown.description.engine.plugins.add(type="Log", name="json-file")
    shown.description.tls_info.trust_root = b"PEM"
    shown.description.tls_info.cert_issuer_subject = b"s"
    shown.description.tls_info.cert_issuer_public_key = b"k"
    out = node.node_to_json(shown)
    assert out == {
        "ID": shown.id,
        "Version": {"Index": 9},
        "CreatedAt": "2027-01-15T08:00:00Z",
        "UpdatedAt": "2027-01-15T08:00:01Z",
        "Spec": {"Labels": {}, "Role": "manager", "Availability": "active"},
        "Description": {
            "Hostname": "vm",
            "Platform": {"Architecture": "x86_64", "OS": "linux"},
            "Resources": {"NanoCPUs": 2000000000, "MemoryBytes": 1 << 30},
            "Engine": {"EngineVersion": "1.0", "Plugins": [{"Type": "Log", "Name": "json-file"}]},
            "TLSInfo": {"TrustRoot": "PEM", "CertIssuerSubject": "cw==", "CertIssuerPublicKey": "aw=="},
        },
        "Status": {"State": "ready", "Addr": "127.0.0.1"},
        "ManagerStatus": {"Leader": True, "Reachability": "reachable", "Addr": "127.0.0.1:2377"},
    }


def test_of_an_unknown_node_the_parts_are_there_and_empty() -> None:
    out = node.node_to_json(Node(id="x"))
    assert out["Description"] == {"Platform": {}, "Resources": {}, "Engine": {}, "TLSInfo": {}}
    assert out["Status"] == {"State": "unknown"}
    assert out["Version"] == {}
    assert "ManagerStatus" not in out


def test_a_follower_does_not_say_that_it_leads() -> None:
    shown = a_node()
    shown.manager_status.leader = False
    shown.manager_status.reachability = 1  # type: ignore[assignment]
    assert node.node_to_json(shown)["ManagerStatus"] == {"Reachability": "unreachable", "Addr": "127.0.0.1:2377"}


def test_a_nodes_csi_plugins_and_generic_resources_are_shown() -> None:
    shown = a_node()
    shown.description.csi_info.add(plugin_name="p", node_id="n", max_volumes_per_node=3)
    shown.description.csi_info[0].accessible_topology.segments["zone"] = "z"
    shown.description.resources.generic.add().named_resource_spec.kind = "gpu"
    out = node.node_to_json(shown)["Description"]
    assert out["CSIInfo"] == [
        {"PluginName": "p", "NodeID": "n", "MaxVolumesPerNode": 3, "AccessibleTopology": {"Segments": {"zone": "z"}}}
    ]
    assert out["Resources"]["GenericResources"] == [{"NamedResourceSpec": {"Kind": "gpu"}}]


@pytest.mark.parametrize("role", ["worker", "manager"])
@pytest.mark.parametrize("availability", ["active", "pause", "drain"])
def test_a_node_spec_comes_back_as_it_went_in(role: str, availability: str) -> None:
    sent = {"Name": "n", "Labels": {"a": "b"}, "Role": role, "Availability": availability}
    spec = node.spec_from_json(sent)
    assert node.node_to_json(Node(spec=spec))["Spec"] == sent
    assert spec.membership == 1
    assert node.spec_from_json({"Role": role.upper(), "Availability": availability.title()}).desired_role == (
        spec.desired_role
    )


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ({}, 'invalid Role: ""'),
        ({"Role": "zz", "Availability": "active"}, 'invalid Role: "zz"'),
        ({"Role": "manager"}, 'invalid Availability: ""'),
        ({"Role": "manager", "Availability": "bogus"}, 'invalid Availability: "bogus"'),
        ({"Role": 1}, "invalid JSON: Role must be a string, got an integer"),
    ],
)
def test_a_node_spec_needs_role_and_availability(sent: dict[str, Any], text: str) -> None:
    with pytest.raises(ApiError) as caught:
        node.spec_from_json(sent)
    assert (caught.value.status, caught.value.text) == (400, text)


# The cluster

CLUSTER_SPEC: dict[str, Any] = {
    "Name": "default",
    "Labels": {"a": "b"},
    "Orchestration": {"TaskHistoryRetentionLimit": 5},
    "Raft": {
        "SnapshotInterval": 10000, "KeepOldSnapshots": 0, "LogEntriesForSlowFollowers": 500, "ElectionTick": 10,
        "HeartbeatTick": 1,
    },
    "Dispatcher": {"HeartbeatPeriod": 5000000000},
    "CAConfig": {
        "NodeCertExpiry": 7776000000000000,
        "ExternalCAs": [{"Protocol": "cfssl", "URL": "https://x/", "Options": {"a": "b"}, "CACert": "zz"}],
        "ForceRotate": 2,
    },
    "TaskDefaults": {},
    "EncryptionConfig": {"AutoLockManagers": True},
}  # fmt: skip


def test_a_swarm_spec_comes_back_as_it_went_in() -> None:
    assert swarm.spec_to_json(swarm.spec_from_json(copy.deepcopy(CLUSTER_SPEC), "")) == CLUSTER_SPEC


def test_an_empty_swarm_spec_is_all_zeros_as_the_engine_shows_them() -> None:
    spec = swarm.spec_from_json({}, "")
    assert swarm.spec_to_json(spec) == {
        "Labels": {},
        "Orchestration": {"TaskHistoryRetentionLimit": 0},
        "Raft": {"KeepOldSnapshots": 0, "ElectionTick": 0, "HeartbeatTick": 0},
        "Dispatcher": {},
        "CAConfig": {},
        "TaskDefaults": {},
        "EncryptionConfig": {"AutoLockManagers": False},
    }
    assert not spec.ca_config.HasField("node_cert_expiry")
    assert not spec.dispatcher.HasField("heartbeat_period")


def test_signing_certificate_and_key_go_in_and_never_come_out() -> None:
    spec = swarm.spec_from_json({"CAConfig": {"SigningCACert": "CERT", "SigningCAKey": "KEY"}}, "")
    assert (spec.ca_config.signing_ca_cert, spec.ca_config.signing_ca_key) == (b"CERT", b"KEY")
    assert swarm.spec_to_json(spec)["CAConfig"] == {}


def test_the_log_driver_of_task_defaults_is_accepted_and_not_stored() -> None:
    spec = swarm.spec_from_json({"TaskDefaults": {"LogDriver": {"Name": "x"}}}, "")
    assert not spec.HasField("task_defaults")


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ({"CAConfig": {"ExternalCAs": [{"Protocol": "ccc"}]}}, 'invalid protocol: "ccc"'),
        ({"Raft": {"ElectionTick": -1}}, "invalid JSON: Raft.ElectionTick must be from 0 to 4294967295, got -1"),
        ({"Raft": 1}, "invalid JSON: Raft must be an object, got an integer"),
        ({"EncryptionConfig": {"AutoLockManagers": 1}},
         "invalid JSON: EncryptionConfig.AutoLockManagers must be a boolean, got an integer"),
    ],
)  # fmt: skip
def test_a_swarm_spec_of_wrong_types_is_refused(sent: dict[str, Any], text: str) -> None:
    with pytest.raises(ApiError) as caught:
        swarm.spec_from_json(sent, "")
    assert (caught.value.status, caught.value.text) == (400, text)


def test_the_swarm_is_shown_with_tokens_and_without_any_key() -> None:
    out = swarm.swarm_to_json(a_cluster())
    assert out["JoinTokens"] == {"Worker": "SWMTKN-1-w", "Manager": "SWMTKN-1-m"}
    assert out["TLSInfo"] == {
        "TrustRoot": PEM.decode(),
        "CertIssuerSubject": PEM_SUBJECT,
        "CertIssuerPublicKey": PEM_KEY,
    }
    assert (out["DefaultAddrPool"], out["SubnetSize"], out["DataPathPort"]) == (["10.0.0.0/8"], 24, 4789)
    assert out["RootRotationInProgress"] is False
    for hidden in ("root key", "signing"):
        assert hidden not in str(out)


def test_the_cluster_in_info_has_no_tokens() -> None:
    assert "JoinTokens" not in swarm.cluster_to_json(a_cluster())


def test_while_another_root_is_coming_nodes_are_to_show_that_one_as_their_issuer() -> None:
    cluster = a_cluster()
    cluster.root_ca.root_rotation.ca_cert = cluster.root_ca.ca_cert
    cluster.root_ca.ca_cert = b"the present root"
    out = swarm.cluster_to_json(cluster)
    assert out["TLSInfo"] == {
        "TrustRoot": "the present root",
        "CertIssuerSubject": PEM_SUBJECT,
        "CertIssuerPublicKey": PEM_KEY,
    }


def test_a_rotation_in_progress_and_an_empty_pool_are_told() -> None:
    cluster = a_cluster()
    cluster.root_ca.root_rotation.SetInParent()
    del cluster.defaultAddressPool[:]
    cluster.VXLANUDPPort = 7777
    out = swarm.cluster_to_json(cluster)
    assert (out["RootRotationInProgress"], out["DefaultAddrPool"], out["DataPathPort"]) == (True, None, 7777)


@pytest.mark.parametrize("certificate", [b"", b"no certificate"])
def test_a_cluster_without_a_readable_root_is_shown_all_the_same(certificate: bytes) -> None:
    cluster = Cluster()
    cluster.root_ca.ca_cert = certificate
    shown = {"TrustRoot": "no certificate"} if certificate else {}
    assert swarm.cluster_to_json(cluster)["TLSInfo"] == shown


CLI_INIT: dict[str, Any] = {
    "ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": "10.77.0.1", "DataPathAddr": "", "DataPathPort": 0,
    "ForceNewCluster": False,
    "Spec": {"Labels": None, "Orchestration": {}, "Raft": {"ElectionTick": 0, "HeartbeatTick": 0}, "Dispatcher": {},
             "CAConfig": {}, "TaskDefaults": {}, "EncryptionConfig": {"AutoLockManagers": False}},
    "AutoLockManagers": False, "Availability": "", "DefaultAddrPool": [], "SubnetSize": 24,
}  # fmt: skip


def test_an_init_from_the_command_line_is_read_as_it_is() -> None:
    request = swarm.init_from_json(copy.deepcopy(CLI_INIT))
    assert (request.listen_addr, request.advertise_addr, request.subnet_size) == ("0.0.0.0:2377", "10.77.0.1", 24)
    assert request.default_addr_pool == ()
    assert (request.history_limit, request.keep_old_snapshots) == (None, None)


def test_an_init_tells_zero_from_absent_where_it_matters() -> None:
    request = swarm.init_from_json(
        {"Spec": {"Orchestration": {"TaskHistoryRetentionLimit": 0}, "Raft": {"KeepOldSnapshots": 0}}}
    )
    assert (request.history_limit, request.keep_old_snapshots) == (0, 0)
    assert request.default_addr_pool is None


def test_a_join_is_read_and_keeps_its_token_out_of_its_repr() -> None:
    request = swarm.join_from_json(
        {"ListenAddr": "l", "RemoteAddrs": ["a", "b"], "JoinToken": "SWMTKN-secret", "Availability": "active"}
    )
    assert (request.remote_addrs, request.join_token, request.availability) == (("a", "b"), "SWMTKN-secret", "active")
    assert "secret" not in repr(request)


@pytest.mark.parametrize(
    "sent", [{"DefaultAddrPool": "x"}, {"DataPathPort": -1}, {"Spec": []}, {"SubnetSize": 1 << 32}, {"ListenAddr": 1}]
)
def test_an_init_of_wrong_types_is_refused(sent: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match="invalid JSON: "):
        swarm.init_from_json(sent)


# Tasks and networks


def a_task() -> Task:
    shown = Task(id="t", service_id="s", slot=1, node_id="n", desired_state=640)  # type: ignore[arg-type]
    shown.meta.version.index = 21
    shown.spec.container.image = "busybox"
    shown.status.timestamp.seconds = 5
    shown.status.state = 768  # type: ignore[assignment]
    shown.status.message = "preparing"
    shown.status.err = "No such image: busybox:latest"
    shown.status.container.SetInParent()
    return shown


def test_a_task_is_shown_as_the_engine_shows_it() -> None:
    assert task.task_to_json(a_task()) == {
        "ID": "t",
        "Version": {"Index": 21},
        "CreatedAt": "0001-01-01T00:00:00Z",
        "UpdatedAt": "0001-01-01T00:00:00Z",
        "Labels": {},
        "Spec": {"ContainerSpec": {"Image": "busybox", "Isolation": "default"}, "ForceUpdate": 0},
        "ServiceID": "s",
        "Slot": 1,
        "NodeID": "n",
        "Status": {
            "Timestamp": "1970-01-01T00:00:05Z",
            "State": "rejected",
            "Message": "preparing",
            "Err": "No such image: busybox:latest",
            "ContainerStatus": {"ContainerID": "", "PID": 0, "ExitCode": 0},
            "PortStatus": {},
        },
        "DesiredState": "shutdown",
    }


def test_slot_zero_is_absent_and_a_jobs_first_iteration_is_there() -> None:
    shown = a_task()
    shown.slot = 0
    shown.job_iteration.SetInParent()
    shown.status.ClearField("container")
    shown.status.port_status.ports.add(target_port=80, published_port=81, publish_mode=1)
    shown.assigned_generic_resources.add().discrete_resource_spec.value = 2
    shown.volumes.add(id="v", source="s", target="t")
    out = task.task_to_json(shown)
    assert "Slot" not in out
    assert "ContainerStatus" not in out["Status"]
    assert out["JobIteration"] == {}
    assert out["GenericResources"] == [{"DiscreteResourceSpec": {"Value": 2}}]
    assert out["Volumes"] == [{"ID": "v", "Source": "s", "Target": "t"}]
    assert out["Status"]["PortStatus"] == {
        "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 81, "PublishMode": "host"}]
    }


def test_a_network_attachment_task_is_shown_by_its_container() -> None:
    shown = Task()
    shown.spec.attachment.container_id = "c"
    assert task.task_to_json(shown)["Spec"] == {"NetworkAttachmentSpec": {"ContainerID": "c"}, "ForceUpdate": 0}


@pytest.mark.parametrize(
    ("number", "name"),
    [(0, "new"), (64, "pending"), (192, "assigned"), (256, "accepted"), (320, "preparing"), (384, "ready"),
     (448, "starting"), (512, "running"), (576, "complete"), (640, "shutdown"), (704, "failed"), (768, "rejected"),
     (800, "remove"), (832, "orphaned")],
)  # fmt: skip
def test_task_states_have_their_names(number: Any, name: str) -> None:
    shown = Task(desired_state=number)
    shown.status.state = number
    out = task.task_to_json(shown)
    assert (out["Status"]["State"], out["DesiredState"]) == (name, name)


def an_overlay() -> Network:
    overlay = Network(id="ze58")
    overlay.meta.version.index = 869
    overlay.meta.created_at.seconds = 1
    overlay.spec.annotations.name = "ov"
    overlay.spec.annotations.labels["k"] = "v"
    overlay.spec.driver_config.name = "overlay"
    overlay.spec.attachable = True
    overlay.driver_state.name = "overlay"
    overlay.driver_state.options["com.docker.network.driver.overlay.vxlanid_list"] = "4097"
    overlay.ipam.driver.name = "default"
    overlay.ipam.configs.add(subnet="10.0.1.0/24", gateway="10.0.1.1")
    return overlay


def test_a_tasks_attachment_carries_the_whole_network() -> None:
    attachment = NetworkAttachment(network=an_overlay(), addresses=["10.0.1.5/24"])
    assert network.attachment_to_json(attachment) == {
        "Network": {
            "ID": "ze58",
            "Version": {"Index": 869},
            "CreatedAt": "1970-01-01T00:00:01Z",
            "UpdatedAt": "0001-01-01T00:00:00Z",
            "Spec": {
                "Name": "ov",
                "Labels": {"k": "v"},
                "DriverConfiguration": {"Name": "overlay"},
                "Attachable": True,
                "Scope": "swarm",
            },
            "DriverState": {
                "Name": "overlay",
                "Options": {"com.docker.network.driver.overlay.vxlanid_list": "4097"},
            },
            "IPAMOptions": {
                "Driver": {"Name": "default"},
                "Configs": [{"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1"}],
            },
        },
        "Addresses": ["10.0.1.5/24"],
    }


def test_a_network_is_shown_as_recorded() -> None:
    assert network.network_to_json(an_overlay()) == {
        "Name": "ov",
        "Id": "ze58",
        "Created": "1970-01-01T00:00:01Z",
        "Scope": "swarm",
        "Driver": "overlay",
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": [{"Subnet": "10.0.1.0/24", "Gateway": "10.0.1.1"}]},
        "Internal": False,
        "Attachable": True,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": None,
        "Options": {"com.docker.network.driver.overlay.vxlanid_list": "4097"},
        "Labels": {"k": "v"},
    }


def test_a_network_spec_is_read_whole() -> None:
    spec = network.spec_from_json(
        {
            "Name": "n", "Driver": "overlay", "EnableIPv6": True, "Internal": True, "Attachable": True, "Ingress": True,
            "IPAM": {"Driver": "", "Options": {"o": "p"},
                     "Config": [{"Subnet": "s", "IPRange": "r", "Gateway": "g", "AuxiliaryAddresses": {"h": "a"}}]},
            "ConfigFrom": {"Network": "cf"}, "Options": {"x": "y"}, "Labels": {"l": "m"}, "CheckDuplicate": True,
        }
    )  # fmt: skip
    assert (spec.annotations.name, spec.driver_config.name, dict(spec.driver_config.options)) == (
        "n", "overlay", {"x": "y"},
    )  # fmt: skip
    assert (spec.ipv6_enabled, spec.internal, spec.attachable, spec.ingress) == (True, True, True, True)
    assert spec.ipam.driver.name == "default"
    config = spec.ipam.configs[0]
    assert (config.subnet, config.range, config.gateway, dict(config.reserved)) == ("s", "r", "g", {"h": "a"})
    assert spec.network == "cf"


def test_a_network_spec_from_the_command_line_asks_no_addresses() -> None:
    spec = network.spec_from_json({"Name": "n", "Driver": "overlay", "IPAM": None, "ConfigFrom": None, "Options": None})
    assert not spec.HasField("ipam")
    assert not spec.HasField("config_from")


# Secrets and configs


def test_a_secrets_data_goes_in_and_never_comes_out() -> None:
    sent = {
        "Name": "s",
        "Labels": {"a": "b"},
        "Data": "aGk=",
        "Driver": {"Name": "d"},
        "Templating": {"Name": "golang"},
    }
    spec = secret.secret_spec_from_json(sent)
    assert spec.data == b"hi"
    shown = secret.secret_to_json(Secret(id="x", spec=spec))["Spec"]
    assert shown == {key: value for key, value in sent.items() if key != "Data"}


def test_a_configs_data_comes_back() -> None:
    sent = {"Name": "c", "Labels": {}, "Data": "aGk=", "Templating": {"Name": "golang"}}
    spec = secret.config_spec_from_json(sent)
    assert secret.config_to_json(Config(id="x", spec=spec))["Spec"] == sent


def test_data_that_is_no_base64_is_refused() -> None:
    for read in (secret.secret_spec_from_json, secret.config_spec_from_json):
        with pytest.raises(ApiError, match="invalid JSON: Data is not base64"):
            read({"Name": "s", "Data": "!!"})


# Older API versions

FULL: dict[str, Any] = {
    "Networks": [{"Target": "old"}],
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "b", "Sysctls": {"a": "b"}, "CapabilityAdd": ["A"], "CapabilityDrop": ["B"],
            "Ulimits": [{"Name": "n", "Soft": 1, "Hard": 2}], "OomScoreAdj": 5,
            "Privileges": {"NoNewPrivileges": True, "Seccomp": {"Mode": "unconfined"}, "AppArmor": {"Mode": "disabled"},
                           "SELinuxContext": {"Disable": True}},
            "Healthcheck": {"Test": ["x"], "StartInterval": 7},
            "Mounts": [{"Type": "tmpfs", "TmpfsOptions": {"Mode": 1, "Options": [["exec"]]}}],
        },
        "Resources": {"Limits": {"Pids": 3, "NanoCPUs": 1, "MemoryBytes": 9}, "SwapBytes": 1, "MemorySwappiness": 2},
        "Placement": {"MaxReplicas": 2, "Constraints": ["x"]},
    },
    "Mode": {"ReplicatedJob": {}},
}  # fmt: skip


def seen(version: tuple[int, int]) -> dict[str, Any]:
    body = copy.deepcopy(FULL)
    adjust.adjust_service_spec(body, version)
    return service.spec_to_json(service.spec_from_json(body))


def test_the_newest_version_drops_only_what_is_newer_than_itself() -> None:
    out = seen(NEWEST)["TaskTemplate"]
    assert "OomScoreAdj" not in out["ContainerSpec"]
    assert out["ContainerSpec"]["Mounts"] == [{"Type": "tmpfs", "TmpfsOptions": {"Mode": 1}}]
    assert out["Resources"] == {"Limits": {"Pids": 3, "NanoCPUs": 1, "MemoryBytes": 9}}
    assert out["ContainerSpec"]["Privileges"]["Seccomp"] == {"Mode": "unconfined"}
    assert "Networks" not in out


def test_a_version_after_all_of_them_drops_nothing() -> None:
    out = seen((1, 52))["TaskTemplate"]
    assert out["ContainerSpec"]["OomScoreAdj"] == 5
    assert out["ContainerSpec"]["Mounts"] == [{"Type": "tmpfs", "TmpfsOptions": {"Mode": 1, "Options": [["exec"]]}}]
    assert out["Resources"]["SwapBytes"] == 1


def test_below_1_44_old_networks_count_and_new_protections_are_dropped() -> None:
    out = seen((1, 43))["TaskTemplate"]
    assert out["Networks"] == [{"Target": "old"}]
    assert out["ContainerSpec"]["Privileges"] == {
        "CredentialSpec": None,
        "SELinuxContext": {"Disable": True, "User": "", "Role": "", "Type": "", "Level": ""},
        "NoNewPrivileges": False,
    }
    assert out["ContainerSpec"]["Healthcheck"] == {"Test": ["x"]}
    assert out["ContainerSpec"]["Ulimits"] == [{"Name": "n", "Hard": 2, "Soft": 1}]


def test_below_1_44_a_task_templates_own_networks_win() -> None:
    body = {"Networks": [{"Target": "old"}], "TaskTemplate": {"Networks": [{"Target": "new"}]}}
    adjust.adjust_service_spec(body, (1, 43))
    assert body["TaskTemplate"] == {"Networks": [{"Target": "new"}]}


def test_below_1_41_jobs_become_replicated_and_capabilities_are_dropped() -> None:
    assert seen((1, 41))["Mode"] == {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}}
    out = seen((1, 40))
    assert out["Mode"] == {"Replicated": {"Replicas": 1}}
    assert out["TaskTemplate"]["Resources"] == {"Limits": {"NanoCPUs": 1, "MemoryBytes": 9}}
    for gone in ("CapabilityAdd", "CapabilityDrop", "Ulimits"):
        assert gone not in out["TaskTemplate"]["ContainerSpec"]
    assert out["TaskTemplate"]["ContainerSpec"]["Sysctls"] == {"a": "b"}


def test_below_1_40_sysctls_and_max_replicas_are_dropped() -> None:
    out = seen((1, 39))["TaskTemplate"]
    assert "Sysctls" not in out["ContainerSpec"]
    assert out["Placement"] == {"Constraints": ["x"]}


def test_below_1_40_credentials_from_configs_and_runtime_configs_are_dropped() -> None:
    body: dict[str, Any] = {
        "TaskTemplate": {
            "ContainerSpec": {
                "Privileges": {"CredentialSpec": {"Config": "x", "File": "f"}},
                "Configs": [{"ConfigID": "c", "Runtime": {}}, None],
            }
        }
    }
    adjust.adjust_service_spec(body, (1, 39))
    container = body["TaskTemplate"]["ContainerSpec"]
    assert container["Privileges"] == {"CredentialSpec": {"File": "f"}}
    assert container["Configs"] == [{"ConfigID": "c"}, None]


@pytest.mark.parametrize(
    "body",
    [{}, {"TaskTemplate": None}, {"TaskTemplate": 5, "Networks": [1]}, {"Mode": []},
     {"TaskTemplate": {"ContainerSpec": "x", "Resources": 1, "Placement": None}},
     {"TaskTemplate": {"ContainerSpec": {"Mounts": {"a": 1}, "Configs": 7, "Privileges": [], "Healthcheck": "x"}}}],
)  # fmt: skip
def test_wrong_types_are_left_for_the_conversion_to_refuse(body: dict[str, Any]) -> None:
    before = copy.deepcopy(body)
    adjust.adjust_service_spec(body, (1, 24))
    assert body == before


def test_an_adjusted_recorded_spec_is_still_the_recorded_one() -> None:
    body = copy.deepcopy(recorded.RICH_SENT)
    adjust.adjust_service_spec(body, (1, 41))
    shown = service.spec_to_json(service.spec_from_json(body))
    assert shown == recorded.RICH_SHOWN
