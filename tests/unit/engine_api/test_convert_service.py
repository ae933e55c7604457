"""Service specs in and out: row by row what is kept, filled in, dropped and refused."""

from __future__ import annotations

import copy
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.engine_api.convert import service
from runtime.engine_api.errors import ApiError
from runtime.wire.pb import control_pb2
from runtime.wire.pb.objects_pb2 import Service
from runtime.wire.pb.specs_pb2 import ServiceSpec
from tests.unit.engine_api import recorded


def shown(sent: dict[str, Any]) -> dict[str, Any]:
    """A spec sent and read back, through the bytes of the wire."""
    stored = service.spec_from_json(copy.deepcopy(sent)).SerializeToString(deterministic=True)
    return service.spec_to_json(ServiceSpec.FromString(stored))


def with_container(**fields: Any) -> dict[str, Any]:
    return {"TaskTemplate": {"ContainerSpec": {"Image": "b", **fields}}}


def with_task(**fields: Any) -> dict[str, Any]:
    return {"TaskTemplate": {"ContainerSpec": {"Image": "b"}, **fields}}


def with_spec(**fields: Any) -> dict[str, Any]:
    return {"TaskTemplate": {"ContainerSpec": {"Image": "b"}}, **fields}


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (recorded.RICH_SENT, recorded.RICH_SHOWN),
        (recorded.GLOBAL_SENT, recorded.GLOBAL_SHOWN),
        (recorded.CLI_CREATE, recorded.CLI_SHOWN),
        (recorded.MINIMAL_SENT, recorded.MINIMAL_SHOWN),
    ],
    ids=["rich", "global", "cli", "minimal"],
)
def test_a_recorded_spec_is_shown_as_the_engine_showed_it(sent: dict[str, Any], expected: dict[str, Any]) -> None:
    assert shown(sent) == expected


def test_the_fields_come_in_the_engines_order() -> None:
    def order(value: Any) -> Any:
        if isinstance(value, dict):
            return [(key, order(item)) for key, item in value.items()]
        return [order(item) for item in value] if isinstance(value, list) else None

    assert order(shown(recorded.RICH_SENT)) == order(recorded.RICH_SHOWN)


@pytest.mark.parametrize(
    "spec", [recorded.RICH_SHOWN, recorded.GLOBAL_SHOWN, recorded.CLI_SHOWN, recorded.MINIMAL_SHOWN]
)
def test_what_is_shown_can_be_sent_again_and_changes_nothing(spec: dict[str, Any]) -> None:
    assert shown(spec) == spec


# (what is sent, the path to look at, what is there; ABSENT for a key that must not be)
ABSENT: Any = object()
ROWS: list[tuple[dict[str, Any], str, Any]] = [
    (with_spec(), "Mode", {"Replicated": {"Replicas": 1}}),
    (with_spec(Mode={}), "Mode", {"Replicated": {"Replicas": 1}}),
    (with_spec(Mode=None), "Mode", {"Replicated": {"Replicas": 1}}),
    (with_spec(Mode={"Replicated": {"Replicas": 0}}), "Mode", {"Replicated": {"Replicas": 0}}),
    (with_spec(Mode={"Replicated": {"Replicas": None}}), "Mode", {"Replicated": {"Replicas": 1}}),
    (with_spec(Mode={"ReplicatedJob": {}}), "Mode", {"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}}),
    (
        with_spec(Mode={"ReplicatedJob": {"MaxConcurrent": 3}}),
        "Mode",
        {"ReplicatedJob": {"MaxConcurrent": 3, "TotalCompletions": 3}},
    ),
    (
        with_spec(Mode={"ReplicatedJob": {"MaxConcurrent": 0, "TotalCompletions": 0}}),
        "Mode",
        {"ReplicatedJob": {"MaxConcurrent": 0, "TotalCompletions": 0}},
    ),
    (with_spec(Mode={"GlobalJob": {}}), "Mode", {"GlobalJob": {}}),
    (with_spec(), "Labels", {}),
    (with_spec(Labels=None), "Labels", {}),
    (with_spec(), "Name", ABSENT),
    (with_spec(), "EndpointSpec", ABSENT),
    (with_spec(EndpointSpec=None), "EndpointSpec", ABSENT),
    (with_spec(EndpointSpec={}), "EndpointSpec", {"Mode": "vip"}),
    (with_spec(EndpointSpec={"Mode": "dnsrr"}), "EndpointSpec", {"Mode": "dnsrr"}),
    (
        with_spec(EndpointSpec={"Ports": [{"Protocol": "bogus", "PublishMode": "bogus"}]}),
        "EndpointSpec.Ports",
        [{"Protocol": "tcp", "PublishMode": "ingress"}],
    ),
    (
        with_spec(EndpointSpec={"Ports": [{"Protocol": "sctp", "PublishMode": "host", "Name": "x"}]}),
        "EndpointSpec.Ports",
        [{"Name": "x", "Protocol": "sctp", "PublishMode": "host"}],
    ),
    (with_spec(), "UpdateConfig", ABSENT),
    (
        with_spec(UpdateConfig={}),
        "UpdateConfig",
        {"Parallelism": 0, "FailureAction": "pause", "MaxFailureRatio": 0, "Order": "stop-first"},
    ),
    (with_spec(UpdateConfig={"Monitor": 1}), "UpdateConfig.Monitor", 1),
    (with_spec(UpdateConfig={"MaxFailureRatio": 1}), "UpdateConfig.MaxFailureRatio", 1),
    (with_spec(UpdateConfig={"MaxFailureRatio": 0.3}), "UpdateConfig.MaxFailureRatio", 0.3),
    (with_spec(Networks=[{"Target": "x"}]), "Networks", ABSENT),
    (with_task(), "TaskTemplate.Runtime", "container"),
    (with_task(Runtime="container"), "TaskTemplate.Runtime", "container"),
    (with_task(PluginSpec={"Name": "x"}), "TaskTemplate.PluginSpec", ABSENT),
    (with_task(Resources={}), "TaskTemplate.Resources", {}),
    (with_task(), "TaskTemplate.Resources", ABSENT),
    (with_task(Resources={"Limits": {"Pids": 7}}), "TaskTemplate.Resources", {"Limits": {"Pids": 7}}),
    (
        with_task(Resources={"Limits": {"MemoryBytes": 9}, "SwapBytes": -1, "MemorySwappiness": 0}),
        "TaskTemplate.Resources",
        {"Limits": {"MemoryBytes": 9}, "SwapBytes": -1, "MemorySwappiness": 0},
    ),
    (
        with_task(Resources={"Reservations": {"GenericResources": [{}, None]}}),
        "TaskTemplate.Resources",
        {"Reservations": {}},
    ),
    (with_task(RestartPolicy={}), "TaskTemplate.RestartPolicy", {"Condition": "any", "MaxAttempts": 0}),
    (with_task(RestartPolicy={"Condition": "none"}), "TaskTemplate.RestartPolicy.Condition", "none"),
    (with_task(RestartPolicy={"Delay": 0}), "TaskTemplate.RestartPolicy.Delay", 0),
    (with_task(RestartPolicy={"Window": -1}), "TaskTemplate.RestartPolicy.Window", -1),
    (with_task(Placement={}), "TaskTemplate.Placement", {}),
    (with_task(Placement={"Platforms": [{"OS": "x"}]}), "TaskTemplate.Placement.Platforms", [{"OS": "x"}]),
    (with_task(LogDriver={}), "TaskTemplate.LogDriver", {}),
    (with_task(Networks=None), "TaskTemplate.Networks", ABSENT),
    (with_task(Networks=[]), "TaskTemplate.Networks", ABSENT),
    (with_task(ForceUpdate=None), "TaskTemplate.ForceUpdate", 0),
    (with_container(), "TaskTemplate.ContainerSpec", {"Image": "b", "Isolation": "default"}),
    (with_container(Isolation="default"), "TaskTemplate.ContainerSpec.Isolation", "default"),
    (with_container(Isolation="HyperV"), "TaskTemplate.ContainerSpec.Isolation", "hyperv"),
    (with_container(Isolation="zz"), "TaskTemplate.ContainerSpec.Isolation", "default"),
    (with_container(Init=None), "TaskTemplate.ContainerSpec.Init", ABSENT),
    (with_container(Init=False), "TaskTemplate.ContainerSpec.Init", False),
    (with_container(Init=True), "TaskTemplate.ContainerSpec.Init", True),
    (with_container(StopGracePeriod=None), "TaskTemplate.ContainerSpec.StopGracePeriod", ABSENT),
    (with_container(StopGracePeriod=-5), "TaskTemplate.ContainerSpec.StopGracePeriod", -5),
    (with_container(StopGracePeriod=1_500_000_000), "TaskTemplate.ContainerSpec.StopGracePeriod", 1_500_000_000),
    (with_container(DNSConfig={}), "TaskTemplate.ContainerSpec.DNSConfig", {}),
    (with_container(Healthcheck={}), "TaskTemplate.ContainerSpec.Healthcheck", {}),
    (
        with_container(Healthcheck={"StartPeriod": 1, "StartInterval": 2, "Retries": -1}),
        "TaskTemplate.ContainerSpec.Healthcheck",
        {"StartPeriod": 1, "StartInterval": 2, "Retries": -1},
    ),
    (
        with_container(Secrets=[{"SecretID": "i", "SecretName": "n"}]),
        "TaskTemplate.ContainerSpec.Secrets",
        ABSENT,
    ),
    (
        with_container(Privileges={}),
        "TaskTemplate.ContainerSpec.Privileges",
        {"CredentialSpec": None, "SELinuxContext": None, "NoNewPrivileges": False},
    ),
    (
        with_container(
            Privileges={
                "NoNewPrivileges": True,
                "Seccomp": {"Mode": "custom", "Profile": "e30="},
                "AppArmor": {"Mode": "disabled"},
                "CredentialSpec": {"Config": "x"},
            }
        ),
        "TaskTemplate.ContainerSpec.Privileges",
        {
            "CredentialSpec": {"Config": "x", "File": "", "Registry": ""},
            "SELinuxContext": None,
            "Seccomp": {"Mode": "custom", "Profile": "e30="},
            "AppArmor": {"Mode": "disabled"},
            "NoNewPrivileges": True,
        },
    ),
    (
        with_container(Privileges={"Seccomp": {}, "AppArmor": {}}),
        "TaskTemplate.ContainerSpec.Privileges",
        {
            "CredentialSpec": None,
            "SELinuxContext": None,
            "Seccomp": {"Mode": "default"},
            "AppArmor": {"Mode": "default"},
            "NoNewPrivileges": False,
        },
    ),
    (with_container(OomScoreAdj=-7), "TaskTemplate.ContainerSpec.OomScoreAdj", -7),
    (with_container(Mounts=[{}]), "TaskTemplate.ContainerSpec.Mounts", [{"Type": "bind"}]),
    (with_container(Mounts=[{"Type": "VOLUME"}]), "TaskTemplate.ContainerSpec.Mounts", [{"Type": "volume"}]),
    (with_container(Mounts=[{"Type": "npipe"}]), "TaskTemplate.ContainerSpec.Mounts", [{"Type": "npipe"}]),
    (
        with_container(Mounts=[{"BindOptions": {"Propagation": "Shared"}}]),
        "TaskTemplate.ContainerSpec.Mounts",
        [{"Type": "bind", "BindOptions": {"Propagation": "shared"}}],
    ),
    (
        with_container(Mounts=[{"BindOptions": {"Propagation": "rprivate"}}]),
        "TaskTemplate.ContainerSpec.Mounts",
        [{"Type": "bind", "BindOptions": {"Propagation": "rprivate"}}],
    ),
    (
        with_container(Mounts=[{"BindOptions": {"CreateMountpoint": True, "ReadOnlyForceRecursive": True}}]),
        "TaskTemplate.ContainerSpec.Mounts",
        [
            {
                "Type": "bind",
                "BindOptions": {"Propagation": "rprivate", "CreateMountpoint": True, "ReadOnlyForceRecursive": True},
            }
        ],
    ),
    (
        with_container(Mounts=[{"Type": "tmpfs", "TmpfsOptions": {"Options": [["exec"], ["size", "1k"]]}}]),
        "TaskTemplate.ContainerSpec.Mounts",
        [{"Type": "tmpfs", "TmpfsOptions": {"Options": [["exec"], ["size", "1k"]]}}],
    ),
    (
        with_container(Mounts=[{"Type": "cluster", "ImageOptions": {"Subpath": "x"}, "ClusterOptions": {}}]),
        "TaskTemplate.ContainerSpec.Mounts",
        [{"Type": "cluster"}],
    ),
    (
        with_container(Mounts=[{"Type": "volume", "VolumeOptions": {"Subpath": "s", "DriverConfig": {}}}]),
        "TaskTemplate.ContainerSpec.Mounts",
        [{"Type": "volume", "VolumeOptions": {"Subpath": "s", "DriverConfig": {}}}],
    ),
]


@pytest.mark.parametrize(("sent", "path", "expected"), ROWS)
def test_row_of_the_conversion_table(sent: dict[str, Any], path: str, expected: Any) -> None:
    at: Any = shown(sent)
    *parents, last = path.split(".")
    for key in parents:
        at = at[key]
    if expected is ABSENT:
        assert last not in at
    else:
        assert at[last] == expected


REFUSALS: list[tuple[dict[str, Any], int, str]] = [
    (with_spec(Mode={"Global": {}, "Replicated": {}}), 400, "must specify only one service mode"),
    (with_spec(Mode={"GlobalJob": {}, "ReplicatedJob": {}}), 400, "must specify only one service mode"),
    ({}, 400, "mismatched Runtime and *Spec fields"),
    ({"TaskTemplate": {"PluginSpec": {}}}, 400, "mismatched Runtime and *Spec fields"),
    ({"TaskTemplate": {"Runtime": "plugin"}}, 400, "mismatched Runtime and *Spec fields"),
    (with_task(Runtime="zz"), 400, "unsupported runtime"),
    ({"TaskTemplate": {"Runtime": "attachment", "NetworkAttachmentSpec": {}}}, 400, "unsupported runtime"),
    (
        {"TaskTemplate": {"Runtime": "plugin", "PluginSpec": {}}},
        500,
        'runtime type "plugin" only supported in experimental',
    ),
    (with_task(RestartPolicy={"Condition": "zz"}), 400, 'invalid RestartCondition: "zz"'),
    (with_task(RestartPolicy={"Condition": "On-Failure"}), 400, 'invalid RestartCondition: "On-Failure"'),
    (with_spec(EndpointSpec={"Mode": "zz"}), 400, 'invalid resolution mode: "zz"'),
    (with_spec(EndpointSpec={"Mode": "VIP"}), 400, 'invalid resolution mode: "VIP"'),
    (with_spec(UpdateConfig={"FailureAction": "zz"}), 400, "unrecognized update failure action zz"),
    (with_spec(UpdateConfig={"FailureAction": "Pause"}), 400, "unrecognized update failure action Pause"),
    (with_spec(RollbackConfig={"Order": "zz"}), 400, "unrecognized update order zz"),
    (with_container(Mounts=[{"Type": "zz"}]), 400, 'invalid MountType: "zz"'),
    (with_container(Mounts=[{"BindOptions": {"Propagation": "zz"}}]), 400, 'invalid MountPropagation: "zz"'),
    (
        with_task(Resources={"SwapBytes": 5}),
        400,
        "memory swap provided, but no memory-limit was set",
    ),
    (with_container(Configs=[{"ConfigID": "x"}]), 400, "invalid Config: either File or Runtime should be set"),
    (
        with_container(Configs=[{"File": {}, "Runtime": {}}]),
        400,
        "invalid Config: cannot specify both File and Runtime",
    ),
    (
        with_container(Privileges={"CredentialSpec": {}}),
        400,
        'invalid CredentialSpec: must either provide "file", "registry", or "config" for credential spec',
    ),
    (
        with_container(Privileges={"CredentialSpec": {"File": "a", "Registry": "b"}}),
        400,
        'invalid CredentialSpec: cannot specify both "file" and "registry" credential specs',
    ),
    (
        with_container(Privileges={"CredentialSpec": {"File": "a", "Config": "b"}}),
        400,
        'invalid CredentialSpec: cannot specify both "config" and "file" credential specs',
    ),
    (
        with_container(Privileges={"CredentialSpec": {"Registry": "a", "Config": "b"}}),
        400,
        'invalid CredentialSpec: cannot specify both "config" and "registry" credential specs',
    ),
    (with_container(Privileges={"Seccomp": {"Mode": "zz"}}), 400, 'invalid SeccompMode: "zz"'),
    (with_container(Privileges={"AppArmor": {"Mode": "zz"}}), 400, 'invalid AppArmorMode: "zz"'),
    ({"Name": 5}, 400, "invalid JSON: Name must be a string, got an integer"),
    ({"TaskTemplate": []}, 400, "invalid JSON: TaskTemplate must be an object, got an array"),
    (with_spec(Labels={"a": 1}), 400, "invalid JSON: Labels.a must be a string, got an integer"),
    (
        with_spec(Mode={"Replicated": {"Replicas": -1}}),
        400,
        "invalid JSON: Mode.Replicated.Replicas must be from 0 to 18446744073709551615, got -1",
    ),
    (
        with_container(Mounts=[{}, {"VolumeOptions": {"NoCopy": 1}}]),
        400,
        "invalid JSON: TaskTemplate.ContainerSpec.Mounts[1].VolumeOptions.NoCopy must be a boolean, got an integer",
    ),
    (
        with_container(Env=["A", 1]),
        400,
        "invalid JSON: TaskTemplate.ContainerSpec.Env[1] must be a string, got an integer",
    ),
    (
        with_task(Resources={"Reservations": {"GenericResources": [{"DiscreteResourceSpec": {"Value": "x"}}]}}),
        400,
        "invalid JSON: TaskTemplate.Resources.Reservations.GenericResources[0].DiscreteResourceSpec.Value "
        "must be an integer, got a string",
    ),
    (
        with_spec(EndpointSpec={"Ports": [{"TargetPort": 1 << 32}]}),
        400,
        "invalid JSON: EndpointSpec.Ports[0].TargetPort must be from 0 to 4294967295, got 4294967296",
    ),
    (
        with_container(Mounts=[{"TmpfsOptions": {"Options": ["x"]}}]),
        400,
        "invalid JSON: TaskTemplate.ContainerSpec.Mounts[0].TmpfsOptions.Options must be an array, got a string",
    ),
]


@pytest.mark.parametrize(("sent", "status", "text"), REFUSALS)
def test_a_spec_that_cannot_be_converted_is_refused_in_these_words(
    sent: dict[str, Any], status: int, text: str
) -> None:
    with pytest.raises(ApiError) as caught:
        service.spec_from_json(sent)
    assert (caught.value.status, caught.value.text) == (status, text)


def test_an_update_configs_delay_is_always_stored_and_a_monitor_only_if_it_is_not_zero() -> None:
    spec = service.spec_from_json(with_spec(UpdateConfig={"Monitor": 0}))
    assert spec.update.HasField("delay")
    assert not spec.update.HasField("monitor")


def test_pull_credentials_are_never_shown() -> None:
    spec = service.spec_from_json(with_container())
    spec.task.container.pull_options.registry_auth = "very secret"
    assert "very secret" not in str(service.spec_to_json(spec))


def test_a_negative_duration_has_seconds_and_nanos_of_one_sign() -> None:
    spec = service.spec_from_json(with_container(StopGracePeriod=-1_500_000_000))
    grace = spec.task.container.stop_grace_period
    assert (grace.seconds, grace.nanos) == (-1, -500_000_000)


@given(st.floats(min_value=0, max_value=1, width=32))
def test_a_ratio_is_shown_by_the_shortest_number_that_reads_back_the_same(value: float) -> None:
    text = service.float32_to_json(value)
    assert struct.pack("<f", text) == struct.pack("<f", value)
    assert len(f"{text:.9g}") <= len(f"{value:.9g}")


def test_a_new_service_shows_an_empty_endpoint_and_no_statuses() -> None:
    made = Service(id="x")
    made.meta.version.index = 3
    made.meta.created_at.seconds = 1
    made.meta.created_at.nanos = 120_000_000
    out = service.service_to_json(made)
    assert out["Endpoint"] == {"Spec": {}}
    assert out["Version"] == {"Index": 3}
    assert out["CreatedAt"] == "1970-01-01T00:00:01.12Z"
    assert out["UpdatedAt"] == "0001-01-01T00:00:00Z"
    assert out.keys() == {"ID", "Version", "CreatedAt", "UpdatedAt", "Spec", "Endpoint"}


def test_an_endpoint_shows_what_was_asked_and_what_was_given() -> None:
    made = Service()
    made.endpoint.spec.SetInParent()
    made.endpoint.ports.add(target_port=80, published_port=30000)
    made.endpoint.virtual_ips.add(network_id="n", addr="10.0.0.3/24")
    made.endpoint.virtual_ips.add(network_id="host")
    assert service.service_to_json(made)["Endpoint"] == {
        "Spec": {"Mode": "vip"},
        "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 30000, "PublishMode": "ingress"}],
        "VirtualIPs": [{"NetworkID": "n", "Addr": "10.0.0.3/24"}, {"NetworkID": "host"}],
    }


def test_an_update_status_leaves_out_times_that_are_not_yet() -> None:
    made = Service()
    made.update_status.state = 1  # type: ignore[assignment]
    made.update_status.started_at.seconds = 1_800_000_000
    made.update_status.completed_at.seconds = 0
    made.update_status.message = "update in progress"
    assert service.service_to_json(made)["UpdateStatus"] == {
        "State": "updating",
        "StartedAt": "2027-01-15T08:00:00Z",
        "Message": "update in progress",
    }


@pytest.mark.parametrize(
    ("number", "name"),
    [(2, "paused"), (3, "completed"), (4, "rollback_started"), (5, "rollback_paused"), (6, "rollback_completed")],
)
def test_update_states_have_the_engines_names(number: Any, name: str) -> None:
    made = Service()
    made.update_status.state = number
    assert service.service_to_json(made)["UpdateStatus"] == {"State": name}


def test_a_previous_spec_and_a_jobs_first_iteration_are_shown() -> None:
    made = Service()
    made.previous_spec.annotations.name = "old"
    made.job_status.job_iteration.SetInParent()
    out = service.service_to_json(made)
    assert out["PreviousSpec"]["Name"] == "old"
    assert out["JobStatus"] == {"JobIteration": {}, "LastExecution": "0001-01-01T00:00:00Z"}
    made.job_status.job_iteration.index = 2
    made.job_status.last_execution.seconds = 5
    assert service.service_to_json(made)["JobStatus"] == {
        "JobIteration": {"Index": 2},
        "LastExecution": "1970-01-01T00:00:05Z",
    }


def test_counts_of_tasks_are_all_there_even_when_zero() -> None:
    status = control_pb2.ListServiceStatusesResponse.ServiceStatus(desired_tasks=2)
    assert service.status_to_json(status) == {"RunningTasks": 0, "DesiredTasks": 2, "CompletedTasks": 0}


# Round trips over open inputs: what is shown once is shown the same for ever after.

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
TEXTS = st.lists(TEXT, max_size=3)
LABELS = st.dictionaries(TEXT, TEXT, max_size=3)
NANOS = st.integers(-(10**15), 10**15)
COUNT = st.integers(0, 2**64 - 1)
FILE = st.fixed_dictionaries({}, optional={"Name": TEXT, "UID": TEXT, "GID": TEXT, "Mode": st.integers(0, 0o7777)})
MOUNT = st.fixed_dictionaries(
    {},
    optional={
        "Type": st.sampled_from(["", "bind", "volume", "tmpfs"]),
        "Source": TEXT,
        "Target": TEXT,
        "ReadOnly": st.booleans(),
        "BindOptions": st.fixed_dictionaries(
            {}, optional={"Propagation": st.sampled_from(["", "slave", "rshared"]), "NonRecursive": st.booleans()}
        ),
        "VolumeOptions": st.fixed_dictionaries({}, optional={"NoCopy": st.booleans(), "Labels": LABELS}),
        "TmpfsOptions": st.fixed_dictionaries(
            {}, optional={"SizeBytes": NANOS, "Options": st.lists(TEXTS, max_size=2)}
        ),
    },
)
CONTAINER = st.fixed_dictionaries(
    {"Image": TEXT},
    optional={
        "Labels": LABELS | st.none(), "Command": TEXTS, "Args": TEXTS | st.none(), "Env": TEXTS, "Dir": TEXT,
        "TTY": st.booleans(), "Init": st.booleans() | st.none(), "StopGracePeriod": NANOS | st.none(),
        "Mounts": st.lists(MOUNT, max_size=2), "Hosts": TEXTS, "Sysctls": LABELS,
        "Healthcheck": st.fixed_dictionaries({}, optional={"Test": TEXTS, "Interval": NANOS, "Retries": st.just(2)}),
        "DNSConfig": st.fixed_dictionaries({}, optional={"Search": TEXTS}),
        "Secrets": st.lists(st.fixed_dictionaries({"SecretID": TEXT, "SecretName": TEXT, "File": FILE}), max_size=2),
        "Configs": st.lists(st.fixed_dictionaries({"ConfigID": TEXT, "File": FILE}), max_size=2),
        "Isolation": st.sampled_from(["", "default", "process"]), "OomScoreAdj": st.integers(-1000, 1000),
    },
)  # fmt: skip
UPDATE = st.fixed_dictionaries(
    {},
    optional={
        "Parallelism": COUNT, "Delay": NANOS, "Monitor": NANOS, "MaxFailureRatio": st.floats(0, 1),
        "FailureAction": st.sampled_from(["", "continue", "rollback"]), "Order": st.sampled_from(["", "start-first"]),
    },
)  # fmt: skip
TASK = st.fixed_dictionaries(
    {"ContainerSpec": CONTAINER},
    optional={
        "RestartPolicy": st.fixed_dictionaries(
            {}, optional={"Condition": st.sampled_from(["", "none", "any"]), "Delay": NANOS, "MaxAttempts": COUNT}
        ),
        "Placement": st.fixed_dictionaries({}, optional={"Constraints": TEXTS, "MaxReplicas": COUNT}),
        "Networks": st.lists(st.fixed_dictionaries({"Target": TEXT}, optional={"Aliases": TEXTS}), max_size=2),
        "Resources": st.fixed_dictionaries(
            {}, optional={"Limits": st.fixed_dictionaries({}, optional={"NanoCPUs": NANOS, "Pids": NANOS})}
        ),
        "ForceUpdate": COUNT,
    },
)
SPEC = st.fixed_dictionaries(
    {"TaskTemplate": TASK},
    optional={
        "Name": TEXT, "Labels": LABELS, "UpdateConfig": UPDATE, "RollbackConfig": UPDATE,
        "Mode": st.one_of(
            st.just({}), st.just({"Global": {}}), st.builds(lambda n: {"Replicated": {"Replicas": n}}, COUNT)
        ),
        "EndpointSpec": st.fixed_dictionaries({}, optional={"Mode": st.sampled_from(["", "vip", "dnsrr"])}),
    },
)  # fmt: skip


@settings(max_examples=150)
@given(SPEC)
def test_what_is_shown_of_any_spec_is_a_fixed_point(sent: dict[str, Any]) -> None:
    once = shown(sent)
    assert shown(once) == once


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150)
@given(st.data())
def test_a_spec_with_anything_anywhere_is_converted_or_refused_never_worse(data: st.DataObject) -> None:
    spec = copy.deepcopy(recorded.RICH_SENT)
    at: Any = spec
    while isinstance(at, dict | list) and at:
        keys = sorted(at) if isinstance(at, dict) else range(len(at))
        key = data.draw(st.sampled_from(list(keys)))
        if data.draw(st.booleans()) or not isinstance(at[key], dict | list):
            at[key] = data.draw(JSON)
            break
        at = at[key]
    try:
        shown(spec)
    except ApiError as error:
        assert error.status in (400, 500)
