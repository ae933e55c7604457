"""A task as a container: what the engine is told, and what is refused before."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.executor.container_config import hosts, labels, port_bindings
from runtime.executor.container_plan import PayloadFile, Plan, PlanSettings, make_plan
from runtime.executor.port import Rejected
from runtime.wire.pb import objects_pb2, specs_pb2, types_pb2
from tests.unit.executor.builders import context, task

HOST = types_pb2.PortConfig.HOST
Mount = types_pb2.Mount
Change = Callable[[objects_pb2.Task], Any]
SETTINGS = PlanSettings("owner", "/files")


def a_task(change: Change = lambda made: None) -> objects_pb2.Task:
    made = task("t1", "sleep", "1", image="busybox")
    made.service_annotations.name, made.service_id, made.node_id = "web", "s1", "n1"
    change(made)
    return made


def plan(change: Change = lambda made: None, settings: PlanSettings = SETTINGS) -> Plan:
    return make_plan(a_task(change), context(), settings)


def container(**fields: Any) -> Change:
    return lambda made: made.spec.container.MergeFrom(specs_pb2.ContainerSpec(**fields))


def told(change: Change = lambda made: None) -> dict[str, Any]:
    """All that the engine is told, without what is not said."""
    made = plan(change).create
    body = {**{key: value for key, value in made.items() if key != "HostConfig"}, **made["HostConfig"]}
    return {key: value for key, value in body.items() if value not in (None, "", False, 0, [], {})}


PLAIN = told()


def added(change: Change) -> dict[str, Any]:
    """What a change adds to what the engine is told."""
    return {key: value for key, value in told(change).items() if PLAIN.get(key) != value}


def test_the_plainest_task_says_what_it_is_and_whose() -> None:
    made = plan()
    assert made.name == "web.1.t1"
    assert PLAIN == {
        "Image": "busybox:latest",
        "Entrypoint": ["sleep", "1"],
        "StopTimeout": 10,
        "Isolation": "default",
        "Labels": {
            "com.docker.swarm.task": "",
            "com.docker.swarm.task.id": "t1",
            "com.docker.swarm.task.name": "web.1.t1",
            "com.docker.swarm.node.id": "n1",
            "com.docker.swarm.service.id": "s1",
            "com.docker.swarm.service.name": "web",
            "swarmlet.owner": "owner",
        },
    }


def test_a_task_without_a_slot_is_named_after_its_node() -> None:
    assert plan(lambda made: made.ClearField("slot")).name == "web.n1.t1"


SETTERS: dict[str, tuple[Change, dict[str, Any]]] = {
    "hostname": (container(hostname="h-{{.Node.Hostname}}"), {"Hostname": "h-box"}),
    "env": (container(env=["A={{.Node.Hostname}}", "B"]), {"Env": ["A=box", "B"]}),
    "args alone": (
        lambda made: (made.spec.container.ClearField("command"), made.spec.container.args.append("x")),
        {"Cmd": ["x"]},
    ),
    "dir": (container(dir="/srv"), {"WorkingDir": "/srv"}),
    "user": (container(user="1:2"), {"User": "1:2"}),
    "groups": (container(groups=["g"]), {"GroupAdd": ["g"]}),
    "tty": (container(tty=True), {"Tty": True}),
    "stdin": (container(open_stdin=True), {"OpenStdin": True}),
    "read only": (container(read_only=True), {"ReadonlyRootfs": True}),
    "stop signal": (container(stop_signal="SIGINT"), {"StopSignal": "SIGINT"}),
    "grace": (lambda made: made.spec.container.stop_grace_period.FromMilliseconds(2500), {"StopTimeout": 2}),
    "init": (lambda made: setattr(made.spec.container.init, "value", True), {"Init": True}),
    "isolation": (container(isolation=2), {"Isolation": "hyperv"}),
    "sysctls": (container(sysctls={"net.x": "1"}), {"Sysctls": {"net.x": "1"}}),
    "capabilities": (
        container(capability_add=["CAP_NET_ADMIN"], capability_drop=["ALL"]),
        {"CapAdd": ["CAP_NET_ADMIN"], "CapDrop": ["ALL"]},
    ),
    "ulimits": (
        container(ulimits=[{"name": "nofile", "soft": 1, "hard": -1}]),
        {"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": -1}]},
    ),
    "oom": (container(oom_score_adj=-5), {"OomScoreAdj": -5}),
    "pids": (container(pidsLimit=9), {"PidsLimit": 9}),
    "hosts": (container(hosts=["1.2.3.4 a b", "alone"]), {"ExtraHosts": ["a:1.2.3.4"]}),
    "dns": (
        container(dns_config={"nameservers": ["1.1.1.1"], "search": ["x"], "options": ["ndots:2"]}),
        {"Dns": ["1.1.1.1"], "DnsSearch": ["x"], "DnsOptions": ["ndots:2"]},
    ),
    "security": (
        lambda made: made.spec.container.privileges.MergeFrom(
            types_pb2.Privileges(
                no_new_privileges=True,
                selinux_context={"disable": True, "user": "u", "role": "r", "type": "t", "level": "l"},
                seccomp={"mode": "UNCONFINED"},
                apparmor={"mode": "DISABLED"},
            )
        ),
        {
            "SecurityOpt": [
                "label=disable", "label=user:u", "label=role:r", "label=type:t", "label=level:l",
                "seccomp=unconfined", "apparmor=unconfined", "no-new-privileges=true",
            ]
        },
    ),
    "seccomp profile": (
        container(privileges={"seccomp": {"mode": "CUSTOM", "profile": b'{"a":1}'}}),
        {"SecurityOpt": ['seccomp={"a":1}']},
    ),
    "limits": (
        lambda made: made.spec.resources.limits.MergeFrom(types_pb2.Resources(nano_cpus=5, memory_bytes=6)),
        {"NanoCpus": 5, "Memory": 6},
    ),
    "reservations": (
        lambda made: made.spec.resources.reservations.MergeFrom(types_pb2.Resources(nano_cpus=5, memory_bytes=6)),
        {},
    ),
    "swap": (
        lambda made: (
            setattr(made.spec.resources.limits, "memory_bytes", 100),
            setattr(made.spec.resources.swap_bytes, "value", 20),
            setattr(made.spec.resources.memory_swappiness, "value", 30),
        ),
        {"Memory": 100, "MemorySwap": 120, "MemorySwappiness": 30},
    ),
    "unlimited swap": (lambda made: setattr(made.spec.resources.swap_bytes, "value", -1), {"MemorySwap": -1}),
    "log driver": (
        lambda made: made.spec.log_driver.MergeFrom(types_pb2.Driver(name="local", options={"max-size": "1m"})),
        {"LogConfig": {"Type": "local", "Config": {"max-size": "1m"}}},
    ),
    "the cluster's log driver": (
        lambda made: (
            made.spec.log_driver.MergeFrom(types_pb2.Driver(name="local")),
            made.log_driver.MergeFrom(types_pb2.Driver(name="none")),
        ),
        {"LogConfig": {"Type": "none", "Config": {}}},
    ),
    "generic resources": (
        lambda made: made.assigned_generic_resources.add().named_resource_spec.MergeFrom(
            types_pb2.NamedGenericResource(kind="gpu", value="u1")
        ),
        {"Env": ["DOCKER_RESOURCE_GPU=u1"]},
    ),
    "health": (
        lambda made: (
            made.spec.container.healthcheck.test.extend(["CMD", "true"]),
            made.spec.container.healthcheck.interval.FromSeconds(1),
            made.spec.container.healthcheck.start_interval.FromSeconds(2),
            setattr(made.spec.container.healthcheck, "retries", 4),
        ),
        {
            "Healthcheck": {
                "Test": ["CMD", "true"], "Interval": 10**9, "Timeout": 0, "StartPeriod": 0, "Retries": 4,
                "StartInterval": 2 * 10**9,
            }
        },
    ),
    "host network": (
        lambda made: made.networks.add().network.spec.annotations.MergeFrom(
            annotated("host", {"com.docker.swarm.predefined": "true"})
        ),
        {"NetworkMode": "host"},
    ),
    "ingress network": (lambda made: setattr(made.networks.add().network.spec, "ingress", True), {}),
    "ports": (
        lambda made: (
            made.endpoint.ports.add(target_port=80, published_port=8080),
            made.endpoint.ports.add(target_port=81, published_port=8081, publish_mode=HOST),
            made.endpoint.ports.add(target_port=82, publish_mode=HOST, protocol=types_pb2.PortConfig.UDP),
        ),
        {
            "ExposedPorts": {"80/tcp": {}, "81/tcp": {}, "82/udp": {}},
            "PortBindings": {
                "80/tcp": [{"HostPort": ""}], "81/tcp": [{"HostPort": "8081"}], "82/udp": [{"HostPort": ""}],
            },
        },
    ),
}  # fmt: skip


def annotated(name: str, own: dict[str, str]) -> types_pb2.Annotations:
    return types_pb2.Annotations(name=name, labels=own)


@pytest.mark.parametrize("name", sorted(SETTERS))
def test_a_field_reaches_the_engine_under_its_name_there(name: str) -> None:
    change, expected = SETTERS[name]
    assert added(change) == expected


def test_every_field_of_a_container_is_looked_at() -> None:
    """A field that a later version adds must not be left out without a word."""
    seen = {
        "image", "labels", "command", "args", "hostname", "env", "dir", "user", "groups", "privileges", "init", "tty",
        "open_stdin", "read_only", "stop_signal", "mounts", "stop_grace_period", "pull_options", "secrets", "configs",
        "hosts", "dns_config", "healthcheck", "isolation", "pidsLimit", "sysctls", "capability_add", "capability_drop",
        "ulimits", "oom_score_adj",
    }  # fmt: skip
    assert {field.name for field in specs_pb2.ContainerSpec.DESCRIPTOR.fields} == seen


MOUNTS: list[tuple[types_pb2.Mount, dict[str, Any]]] = [
    (
        Mount(type=Mount.BIND, source="/a", target="/b", readonly=True, bind_options={"propagation": "RSLAVE"}),
        {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True, "BindOptions": {"Propagation": "rslave"}},
    ),
    (
        Mount(type=Mount.BIND, source="/a", target="/b", bind_options={"nonrecursive": True}),
        {
            "Type": "bind", "Source": "/a", "Target": "/b",
            "BindOptions": {"Propagation": "rprivate", "NonRecursive": True},
        },
    ),
    (Mount(type=Mount.VOLUME, target="/b"), {"Type": "volume", "Target": "/b"}),
    (
        Mount(
            type=Mount.VOLUME,
            source="v-{{.Node.Hostname}}",
            target="/{{.Node.Hostname}}",
            volume_options={
                "nocopy": True, "labels": {"l": "{{.Node.Hostname}}"}, "subpath": "s",
                "driver_config": {"name": "d", "options": {"o": "{{.Node.Hostname}}"}},
            },
        ),
        {
            "Type": "volume", "Source": "v-box", "Target": "/box",
            "VolumeOptions": {
                "NoCopy": True, "Labels": {"l": "box"}, "Subpath": "s",
                "DriverConfig": {"Name": "d", "Options": {"o": "box"}},
            },
        },
    ),
    (
        Mount(
            type=Mount.TMPFS,
            target="/b",
            tmpfs_options={"size_bytes": 5, "mode": 0o700, "options": json.dumps([["noexec"]])},
        ),
        {"Type": "tmpfs", "Target": "/b", "TmpfsOptions": {"SizeBytes": 5, "Mode": 0o700, "Options": [["noexec"]]}},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("mount", "expected"), MOUNTS)
def test_a_mount_is_told_as_the_engine_knows_it(mount: types_pb2.Mount, expected: dict[str, Any]) -> None:
    assert added(container(mounts=[mount])) == {"Mounts": [expected]}


@pytest.mark.parametrize(
    ("mount", "text"),
    [
        (Mount(type=Mount.BIND, source="/a", target="b"), "invalid mount target, must be an absolute path: b"),
        (Mount(type=Mount.BIND, source="a", target="/b"), "invalid bind mount source, must be an absolute path: a"),
        (
            Mount(type=Mount.VOLUME, source="/a", target="/b"),
            "invalid volume mount source, must not be an absolute path: /a",
        ),
        (Mount(type=Mount.TMPFS, source="a", target="/b"), "invalid tmpfs source, source must be empty"),
        (Mount(type=Mount.NPIPE, target="/b"), "invalid npipe source, source must not be empty"),
        (Mount(type=Mount.NPIPE, source="x", target="/b"), "invalid mount type: npipe"),
        (Mount(type=Mount.CLUSTER, source="x", target="/b"), "invalid mount type: cluster"),
        (Mount(type=Mount.TMPFS, target="/b", tmpfs_options={"options": "{"}), "invalid tmpfs options: {"),
    ],
)
def test_a_mount_that_can_never_be_is_refused_in_the_engines_words(mount: types_pb2.Mount, text: str) -> None:
    with pytest.raises(Rejected) as caught:
        plan(container(mounts=[mount]))
    assert caught.value.text == text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda made: made.spec.ClearField("container"), "runs containers only"),
        (container(image="host"), 'image "host" is that of no container'),
        (container(image="host:1"), "is that of no container"),
        (container(image="actor/x"), "is that of no container"),
        (container(env=["A={{bad}}"]), 'expanding env failed: expanding env "A={{bad}}": template: bad'),
        (container(hostname="{{bad}}"), "expanding hostname failed: template: bad"),
        (container(mounts=[Mount(target="/{{bad}}")]), "expanding mounts failed: expanding mount target"),
        (container(privileges={"credential_spec": {"file": "x"}}), "credential specs are for containers on Windows"),
        (container(secrets=[{"secret_id": "s", "file": {}}]), "a secret needs a file in the container"),
        (container(configs=[{"config_id": "c", "file": {"name": ".."}}]), "a config needs a file in the container"),
        (container(secrets=[{"secret_id": "s", "file": {"name": "x", "uid": "me"}}]), "by numbers, not me:0"),
        (
            lambda made: made.networks.add().network.spec.annotations.MergeFrom(annotated("net", {})),
            "cannot attach a container to the network net",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_by_its_name(change: Change, text: str) -> None:
    with pytest.raises(Rejected) as caught:
        plan(change)
    assert text in caught.value.text


def test_a_container_on_the_hosts_network_is_on_no_other() -> None:
    def change(made: objects_pb2.Task) -> None:
        SETTERS["host network"][0](made)
        made.networks.add().network.spec.annotations.name = "net"

    settings = PlanSettings("owner", "/files", local_networks=True)
    with pytest.raises(Rejected, match="on the network host cannot be on the network net too"):
        plan(change, settings)


def test_a_network_of_the_swarm_has_a_name_of_its_own_at_the_engine() -> None:
    def change(made: objects_pb2.Task) -> None:
        made.networks.add().network.id = "n1"

    made = plan(change, PlanSettings("owner", "/files", local_networks=True))
    assert [(each.name, each.aliases) for each in made.networks] == [("swarmlet-owner-n1", ("web", "tasks.web"))]
    assert made.create["HostConfig"]["NetworkMode"] == "swarmlet-owner-n1"


def test_only_root_can_give_files_to_others() -> None:
    change = container(secrets=[{"secret_id": "s", "file": {"name": "x", "uid": "5"}}])
    assert plan(change).files[0].uid == 5
    with pytest.raises(Rejected, match="only root can give the secret x to the user 5:0"):
        plan(change, PlanSettings("owner", "/files", is_root=False))


def test_secrets_and_configs_are_files_of_the_node_mounted_one_by_one() -> None:
    made = plan(
        container(
            secrets=[
                {"secret_id": "s", "file": {"name": "a/b", "uid": "1", "gid": "2", "mode": 0o440}},
                {"secret_id": "no-file"},
            ],
            configs=[{"config_id": "c", "file": {"name": "/etc/c"}}, {"config_id": "r", "runtime": {}}],
        )
    )
    assert made.files == (
        PayloadFile("secret", "s", "/files/t1/secret-0", "/run/secrets/a/b", 1, 2, 0o440),
        PayloadFile("config", "c", "/files/t1/config-1", "/etc/c", 0, 0, 0),
    )
    assert made.create["HostConfig"]["Mounts"] == [
        {"Type": "bind", "Source": each.source, "Target": each.target, "ReadOnly": True} for each in made.files
    ]


def test_credentials_of_a_registry_and_the_environment_are_in_no_repr() -> None:
    made = plan(container(pull_options={"registry_auth": "hush"}, env=["PASSWORD=hush"]))
    assert (made.registry_auth, made.create["Env"]) == ("hush", ["PASSWORD=hush"])
    assert "hush" not in repr(made)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="{"), max_size=8)


@given(st.dictionaries(TEXT, TEXT), st.lists(TEXT), st.lists(TEXT), st.lists(TEXT), TEXT)
def test_texts_of_any_kind_reach_the_engine_as_they_are(
    own: dict[str, str], command: list[str], args: list[str], env: list[str], user: str
) -> None:
    def change(made: objects_pb2.Task) -> None:
        spec = made.spec.container
        spec.ClearField("command")
        spec.command.extend(command)
        spec.args.extend(args)
        spec.env.extend(env)
        spec.labels.update(own)
        spec.user = user

    body = json.loads(json.dumps(plan(change).create))
    assert body.get("Entrypoint", []) == command
    assert body.get("Cmd", []) == args
    assert body["Env"] == env
    assert body["User"] == user
    expected = {**own, **labels(a_task(change)), "swarmlet.owner": "owner"}
    assert body["Labels"] == expected


PORTS = st.builds(
    types_pb2.PortConfig,
    protocol=st.sampled_from([0, 1, 2]),
    target_port=st.integers(1, 65535),
    published_port=st.integers(0, 65535),
    publish_mode=st.sampled_from([0, 1]),
)


@given(st.lists(PORTS, max_size=6))
def test_every_port_has_one_binding_and_ingress_never_the_published_number(ports: list[types_pb2.PortConfig]) -> None:
    bindings = port_bindings(ports)
    assert sum(map(len, bindings.values())) == len(ports)
    at_host = [str(port.published_port) for port in ports if port.publish_mode == HOST and port.published_port]
    told_ = [each["HostPort"] for bound in bindings.values() for each in bound if each["HostPort"]]
    assert sorted(told_) == sorted(at_host)


@given(st.lists(st.text(max_size=20)))
def test_hosts_are_told_only_where_there_is_an_address_and_a_name(entries: list[str]) -> None:
    assert len(hosts(entries)) == sum(len(entry.split()) > 1 for entry in entries)
