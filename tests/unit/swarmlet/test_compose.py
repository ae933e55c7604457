"""Compose files become service specs; what cannot be honoured is named with its place."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.wire.pb import specs_pb2, types_pb2
from swarmlet import compose
from swarmlet.compose_service import LEFT_OUT, REFUSED
from swarmlet.compose_values import ComposeError

ROOT = pathlib.Path(__file__).resolve().parents[3]


def load(text: str, **environ: str) -> compose.Stack:
    return compose.load(text, "st", environ)


def one(fields: dict[str, Any], **environ: str) -> specs_pb2.ServiceSpec:
    stack = load(yaml.safe_dump({"services": {"web": {"image": "host", "command": "run", **fields}}}), **environ)
    return stack.services[0]


def faults(fields: dict[str, Any]) -> list[str]:
    with pytest.raises(ComposeError) as refused:
        one(fields)
    return refused.value.faults


def warnings(fields: dict[str, Any]) -> tuple[str, ...]:
    return load(yaml.safe_dump({"services": {"web": {"image": "host", "command": "run", **fields}}})).warnings


def test_names_and_labels_are_those_of_a_stack() -> None:
    spec = one({"labels": {"a": "b"}, "deploy": {"labels": ["c=d"]}})
    assert spec.annotations.name == "st_web"
    assert dict(spec.annotations.labels) == {
        "com.docker.stack.namespace": "st", "com.docker.stack.image": "host", "c": "d",
    }  # fmt: skip
    assert dict(spec.task.container.labels) == {"com.docker.stack.namespace": "st", "a": "b"}


def test_a_service_without_further_words_has_one_replica_and_no_sections() -> None:
    spec = one({})
    assert spec.replicated.replicas == 1
    for absent in ("restart", "resources", "placement"):
        assert not spec.task.HasField(absent), absent
    assert not spec.HasField("update")
    assert not spec.HasField("rollback")


def test_command_and_entrypoint_are_args_and_command() -> None:
    spec = one({"entrypoint": "python3 -u", "command": "-c 'print(1)'"}).task.container
    assert list(spec.command) == ["python3", "-u"]
    assert list(spec.args) == ["-c", "print(1)"]
    assert list(one({"command": ["a b", "c"]}).task.container.args) == ["a b", "c"]


def test_the_environment_is_sorted_and_takes_values_from_outside() -> None:
    assert list(one({"environment": {"B": 1, "A": None, "C": None}}, A="out").task.container.env) == ["A=out", "B=1"]


def test_environment_files_come_first_and_are_read_beside_the_file() -> None:
    files = {"one.env": "A=1\nB=1\n", "two.env": "B=2\nOUT\n"}
    text = yaml.safe_dump(
        {
            "services": {
                "web": {"image": "host", "command": "run", "env_file": ["one.env", "two.env"], "environment": ["C=3"]}
            }
        }
    )
    stack = compose.load(text, "st", {"OUT": "o"}, lambda path: files[path].encode())
    assert list(stack.services[0].task.container.env) == ["A=1", "B=2", "C=3", "OUT=o"]


def test_a_missing_environment_file_is_a_fault_unless_it_is_not_required() -> None:
    assert faults({"env_file": "no.env"}) == ["services.web.env_file: there is no file 'no.env'"]
    assert list(one({"env_file": [{"path": "no.env", "required": False}]}).task.container.env) == []


def test_everything_a_process_can_honour_reaches_the_spec() -> None:
    spec = one(
        {
            "working_dir": "/srv",
            "user": "1000:100",
            "group_add": ["audio"],
            "stop_signal": "SIGINT",
            "stop_grace_period": "1m30s",
            "init": True,
            "security_opt": ["no-new-privileges:true"],
            "logging": {"driver": "json-file", "options": {"max-size": "1m", "max-file": 2}},
            "ulimits": {"nofile": {"soft": 10, "hard": 20}, "nproc": 5},
        }
    )
    container = spec.task.container
    assert (container.dir, container.user, list(container.groups)) == ("/srv", "1000:100", ["audio"])
    assert (container.stop_signal, container.stop_grace_period.seconds) == ("SIGINT", 90)
    assert (container.init.value, container.privileges.no_new_privileges) == (True, True)
    assert (spec.task.log_driver.name, dict(spec.task.log_driver.options)) == (
        "json-file", {"max-size": "1m", "max-file": "2"},
    )  # fmt: skip
    assert [(each.name, each.soft, each.hard) for each in container.ulimits] == [("nofile", 10, 20), ("nproc", 5, 5)]


def test_the_deploy_section_reaches_the_spec() -> None:
    spec = one(
        {
            "deploy": {
                "replicas": 5,
                "restart_policy": {"condition": "on-failure", "delay": "2s", "max_attempts": 3, "window": "1m"},
                "resources": {
                    "limits": {"cpus": "0.5", "memory": "50M", "pids": 10},
                    "reservations": {
                        "cpus": 0.25,
                        "memory": "20m",
                        "generic_resources": [{"discrete_resource_spec": {"kind": "gpu", "value": 2}}],
                    },
                },
                "placement": {
                    "constraints": ["node.role == worker"],
                    "preferences": [{"spread": "node.labels.zone"}],
                    "max_replicas_per_node": 2,
                },
                "update_config": {
                    "parallelism": 2,
                    "delay": "10s",
                    "order": "start-first",
                    "failure_action": "rollback",
                },
                "rollback_config": {"parallelism": 0, "monitor": "3s", "max_failure_ratio": 0.5},
                "endpoint_mode": "dnsrr",
            }
        }
    )
    assert spec.replicated.replicas == 5
    restart = spec.task.restart
    assert (restart.condition, restart.delay.seconds, restart.max_attempts, restart.window.seconds) == (
        types_pb2.RestartPolicy.ON_FAILURE, 2, 3, 60,
    )  # fmt: skip
    limits, reserved = spec.task.resources.limits, spec.task.resources.reservations
    assert (limits.nano_cpus, limits.memory_bytes, spec.task.container.pidsLimit) == (500_000_000, 50 << 20, 10)
    assert (reserved.nano_cpus, reserved.memory_bytes) == (250_000_000, 20 << 20)
    assert reserved.generic[0].discrete_resource_spec.kind == "gpu"
    assert reserved.generic[0].discrete_resource_spec.value == 2
    assert list(spec.task.placement.constraints) == ["node.role == worker"]
    assert spec.task.placement.preferences[0].spread.spread_descriptor == "node.labels.zone"
    assert spec.task.placement.max_replicas == 2
    assert (spec.update.parallelism, spec.update.delay.seconds) == (2, 10)
    assert spec.update.order == types_pb2.UpdateConfig.START_FIRST
    assert spec.update.failure_action == types_pb2.UpdateConfig.ROLLBACK
    assert (spec.rollback.parallelism, spec.rollback.monitor.seconds, spec.rollback.max_failure_ratio) == (0, 3, 0.5)
    assert spec.endpoint.mode == specs_pb2.EndpointSpec.DNSRR


@pytest.mark.parametrize(
    ("text", "condition", "attempts"),
    [
        ("no", types_pb2.RestartPolicy.NONE, 0),
        ("always", types_pb2.RestartPolicy.ANY, 0),
        ("unless-stopped", types_pb2.RestartPolicy.ANY, 0),
        ("on-failure", types_pb2.RestartPolicy.ON_FAILURE, 0),
        ("on-failure:4", types_pb2.RestartPolicy.ON_FAILURE, 4),
        (False, types_pb2.RestartPolicy.NONE, 0),
    ],
)
def test_plain_restart_counts_where_deploy_says_nothing(text: object, condition: int, attempts: int) -> None:
    restart = one({"restart": text}).task.restart
    assert (restart.condition, restart.max_attempts) == (condition, attempts)


def test_the_deploy_section_wins_over_plain_restart() -> None:
    spec = one({"restart": "no", "deploy": {"restart_policy": {"condition": "any"}}})
    assert spec.task.restart.condition == types_pb2.RestartPolicy.ANY


@pytest.mark.parametrize("text", ["sometimes", "always:3", "on-failure:x"])
def test_an_unknown_restart_is_a_fault(text: str) -> None:
    assert faults({"restart": text})[0].startswith("services.web.restart: must be")


@pytest.mark.parametrize(
    ("section", "test"),
    [
        ({"test": "curl x"}, ["CMD-SHELL", "curl x"]),
        ({"test": ["CMD", "curl", "x"]}, ["CMD", "curl", "x"]),
        ({"disable": True}, ["NONE"]),
        ({"test": ["NONE"]}, ["NONE"]),
    ],
)
def test_health_checks_have_three_forms(section: dict[str, Any], test: list[str]) -> None:
    health = one({"healthcheck": section}).task.container.healthcheck
    assert list(health.test) == test


def test_times_of_a_health_check_reach_the_spec() -> None:
    section = {
        "test": "x",
        "interval": "1m",
        "timeout": "5s",
        "retries": 2,
        "start_period": "3s",
        "start_interval": "1s",
    }
    health = one({"healthcheck": section}).task.container.healthcheck
    assert (health.interval.seconds, health.timeout.seconds, health.retries) == (60, 5, 2)
    assert (health.start_period.seconds, health.start_interval.seconds) == (3, 1)


@pytest.mark.parametrize("section", [{"test": ["curl"]}, {"test": []}, {"disable": True, "test": "x"}])
def test_a_health_check_that_means_nothing_is_a_fault(section: dict[str, Any]) -> None:
    assert faults({"healthcheck": section})[0].startswith("services.web.healthcheck.test")


def ports(spec: specs_pb2.ServiceSpec) -> list[tuple[int, int, int, int]]:
    return [(p.published_port, p.target_port, p.protocol, p.publish_mode) for p in spec.endpoint.ports]


HOST = types_pb2.PortConfig.HOST


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ("8080:8080", [(8080, 8080, 0, HOST)]),
        ("8080", [(8080, 8080, 0, HOST)]),
        (8080, [(8080, 8080, 0, HOST)]),
        ("53:53/udp", [(53, 53, 1, HOST)]),
        ("53:53/SCTP", [(53, 53, 2, HOST)]),
        ("9000-9001:9000-9001", [(9000, 9000, 0, HOST), (9001, 9001, 0, HOST)]),
        ("127.0.0.1:80:80", [(80, 80, 0, HOST)]),
        ("[::1]:80:80", [(80, 80, 0, HOST)]),
        ({"target": 80, "published": 80, "mode": "host"}, [(80, 80, 0, HOST)]),
        ({"target": 80, "published": "80", "protocol": "udp", "mode": "host"}, [(80, 80, 1, HOST)]),
        ({"target": 80}, [(80, 80, 0, HOST)]),
    ],
)
def test_ports_are_published_on_the_host(port: object, expected: list[tuple[int, int, int, int]]) -> None:
    assert ports(one({"ports": [port]})) == expected


@pytest.mark.parametrize(
    "port",
    [
        "8080:80",
        "x",
        "1:2:3:4",
        "70000:70000",
        "0",
        "5-4",
        "1-3:1-2",
        "80:80/icmp",
        {"published": 80},
        {"target": 53, "published": 53, "mode": "ingress", "protocol": "sctp"},
        {"target": 80, "published": 81, "mode": "host"},
        {"target": 80, "mode": "other"},
        {"target": 80, "hostport": 1},
        ["80"],
    ],
)
def test_a_port_that_a_process_cannot_have_is_a_fault_with_its_place(port: object) -> None:
    found = faults({"ports": ["1:1", port]})
    assert found
    assert all(fault.startswith("services.web.ports[1]") for fault in found)


def test_another_image_may_publish_another_port() -> None:
    spec = one({"image": "nginx", "ports": [{"target": 80, "published": 8080, "mode": "host"}]})
    assert ports(spec) == [(8080, 80, 0, HOST)]


def test_a_port_that_would_go_through_the_mesh_by_default_is_warned_about() -> None:
    assert warnings({"ports": ["80:80"]}) == (
        "services.web.ports[0]: is published on the host of each task; for all nodes to take connections say "
        "mode: ingress (long form)",
    )
    assert warnings({"ports": [{"target": 80, "published": 80, "mode": "host"}]}) == ()


@pytest.mark.parametrize("protocol", [types_pb2.PortConfig.TCP, types_pb2.PortConfig.UDP])
def test_a_port_in_ingress_mode_may_have_another_number_than_its_target(protocol: int) -> None:
    name = types_pb2.PortConfig.Protocol.Name(protocol).lower()
    fields = {"ports": [{"target": 80, "published": 8080, "mode": "ingress", "protocol": name}]}
    assert ports(one(fields)) == [(8080, 80, protocol, types_pb2.PortConfig.INGRESS)]
    assert warnings(fields) == ()


@pytest.mark.parametrize("field", sorted(REFUSED))
def test_a_field_that_would_change_the_service_is_refused_by_name(field: str) -> None:
    found = faults({field: ["x"]})
    assert f"services.web.{field}: {REFUSED[field]}" in found


@pytest.mark.parametrize("field", sorted(LEFT_OUT))
def test_a_field_without_meaning_for_a_process_is_warned_about(field: str) -> None:
    assert warnings({field: "x"}) == (f"services.web.{field}: is left out: {LEFT_OUT[field]}",)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"command": None}, "services.web: needs a command: the image host has none of its own"),
        ({"command": []}, "services.web: needs a command: the image host has none of its own"),
        ({"working_dir": "here"}, "services.web.working_dir: must be an absolute path, not 'here'"),
        (
            {"security_opt": ["seccomp:unconfined"]},
            "services.web.security_opt[0]: security options of containers do not apply to a process, "
            "but for no-new-privileges",
        ),
    ],
)
def test_what_the_process_executor_would_reject_is_refused_before(fields: dict[str, Any], fault: str) -> None:
    assert faults(fields) == [fault]


CONTAINER = {
    "image": "busybox", "hostname": "h", "read_only": True, "tty": True, "stdin_open": True, "cap_add": ["A"],
    "cap_drop": ["B"], "dns": "1.1.1.1", "dns_search": ["x"], "dns_opt": ["ndots:1"], "sysctls": {"k": 1},
    "extra_hosts": ["a:1.2.3.4", "b=[::1]"], "logging": {"driver": "syslog"},
}  # fmt: skip


def test_a_container_is_given_what_a_process_is_refused() -> None:
    assert warnings(CONTAINER) == ()
    spec = one(CONTAINER)
    found = spec.task.container
    assert (found.hostname, found.read_only, found.tty, found.open_stdin) == ("h", True, True, True)
    assert (list(found.capability_add), list(found.capability_drop)) == (["A"], ["B"])
    dns = found.dns_config
    assert (list(dns.nameservers), list(dns.search), list(dns.options)) == (["1.1.1.1"], ["x"], ["ndots:1"])
    assert (dict(found.sysctls), list(found.hosts)) == ({"k": "1"}, ["1.2.3.4 a", "::1 b"])
    assert spec.task.log_driver.name == "syslog"
    assert not one({"image": "busybox"}).task.container.HasField("dns_config")


@pytest.mark.parametrize("field", ["volumes_from", "devices", "network_mode", "privileged"])
def test_what_is_not_honoured_for_containers_is_a_fault_that_says_so(field: str) -> None:
    value = "host" if field == "network_mode" else ["x"]
    assert any("is not honoured for containers by swarmlet up" in each for each in faults({"image": "b", field: value}))


def test_a_host_without_its_address_is_a_fault() -> None:
    (fault,) = faults({"image": "busybox", "extra_hosts": ["alone"]})
    assert fault == "services.web.extra_hosts[0]: must be HOST:IP, not 'alone'"


def test_another_log_driver_is_warned_about() -> None:
    (warning,) = warnings({"logging": {"driver": "syslog"}})
    assert warning.startswith("services.web.logging: is left out")


@pytest.mark.parametrize("field", ["privileged", "read_only", "volumes"])
def test_a_refused_field_that_asks_for_nothing_is_fine(field: str) -> None:
    assert warnings({field: False}) == ()
    assert warnings({field: None}) == ()


@pytest.mark.parametrize("field", ["network_mode", "pid", "ipc"])
def test_only_the_hosts_namespaces_are_possible(field: str) -> None:
    assert warnings({field: "host"}) == ()
    assert faults({field: "none"}) == [
        f"services.web.{field}: a process shares this machine's namespaces; only host is possible"
    ]


@pytest.mark.parametrize("networks", [["back"], {"back": None}, ["default", "back"]])
def test_networks_of_ones_own_are_refused(networks: object) -> None:
    (fault,) = faults({"networks": networks})
    assert "processes are on this machine's network" in fault


def test_the_default_network_and_unused_sections_do_no_harm() -> None:
    assert warnings({"networks": ["default"]}) == ()
    text = "networks: {default: {}, back: {}}\nvolumes: {data: {}}\nx-mine: {a: $}\n"
    text += "services: {web: {image: host, command: run}}"
    assert load(text).warnings == (
        "volumes: is left out: processes have no volumes of their own",
        "networks: is left out: processes have no networks of their own",
    )


def test_all_faults_are_told_at_once_with_their_places() -> None:
    found = faults({"replicas": 3, "deploy": {"replicas": -1, "resources": {"limits": {"memory": "x"}}}, "command": 5})
    assert [fault.split(": ")[0] for fault in found] == [
        "services.web.replicas",
        "services.web.command",
        "services.web",
        "services.web.deploy.replicas",
        "services.web.deploy.resources.limits.memory",
    ]


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("", "must be a mapping"),
        ("- a", "must be a mapping"),
        ("services: [", "no valid YAML"),
        ("services: {}", "services: the file has none"),
        ("version: '2'\nservices: {web: {image: host, command: run}}", "version: must be 3.x"),
        ("services: {web: {image: host, command: run, image: x}}", "stands twice"),
        ("services: {web: host}", "services.web: must be a mapping"),
        ("services: {web: {}}", "services.web: needs an image"),
        ("services: {-web: {image: host, command: run}}", "a service's name"),
        ("name: Big\nservices: {web: {image: host, command: run}}", "name: 'Big'"),
        ("service: {}\nservices: {web: {image: host, command: run}}", "service: is no field"),
        ("services: {web: {image: '${IMAGE:?which?}'}}", "services.web.image: required variable IMAGE"),
        ("services: {web: !!python/object/apply:os.getcwd []}", "no valid YAML"),
        ("services: {1: {image: host, command: run}}", "the key 1 must be a text"),
    ],
)
def test_a_file_that_makes_no_sense_says_so(text: str, because: str) -> None:
    with pytest.raises(ComposeError) as refused:
        load(text)
    assert any(because in fault for fault in refused.value.faults), refused.value.faults


def test_aliases_that_unfold_without_bound_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(ComposeError, match="unfolds to more than"):
        load("\n".join(lines) + "\nservices: {web: {image: host, command: run}}")


def test_merge_keys_and_anchors_work() -> None:
    stack = load(
        "x-base: &base {image: host, command: run, user: me}\nservices: {web: {<<: *base, user: you}, db: {<<: *base}}"
    )
    assert [each.task.container.user for each in stack.services] == ["you", "me"]


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "22:22", "0o17", "007", "1_000", "null_", "1e"])
def test_words_that_old_yaml_takes_for_something_else_stay_words(word: str) -> None:
    stack = load(f"services: {{web: {{image: host, command: run, environment: {{A: {word}}}}}}}")
    assert list(stack.services[0].task.container.env) == [f"A={word}"]


def test_an_unquoted_port_is_no_number_to_the_base_of_sixty() -> None:
    stack = load("services: {web: {image: host, command: run, ports: [22:22]}}")
    assert ports(stack.services[0]) == [(22, 22, 0, HOST)]


def test_variables_are_replaced_in_values_and_named_when_they_are_missing() -> None:
    stack = load("services: {web: {image: host, command: 'a $ONE', deploy: {replicas: '${N}'}}}", N="4")
    assert stack.services[0].replicated.replicas == 4
    assert stack.warnings == ("the variable ONE is not set and is empty",)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/srv/hello.yml", "hello"),
        ("/srv/My App/docker-compose.yml", "myapp"),
        ("/srv/compose.yaml", "srv"),
        ("/compose.yaml", "stack"),
        ("/srv/--.yml", "stack"),
    ],
)
def test_a_stack_is_named_after_its_file_or_directory(path: str, name: str) -> None:
    assert compose.stack_name(pathlib.PurePath(path)) == name


def example(name: str) -> compose.Stack:
    folder = ROOT / "examples"
    text = (folder / f"{name}.yml").read_text(encoding="utf-8")
    return compose.load(text, name, {}, lambda path: (folder / path).read_bytes())


def test_the_examples_are_deployable_without_a_warning() -> None:
    hello, shop = example("hello"), example("shop")
    assert hello.warnings == shop.warnings == ()
    assert [(spec.annotations.name, spec.replicated.replicas) for spec in hello.services] == [("hello_hello", 3)]
    modes = {spec.annotations.name: spec.WhichOneof("mode") for spec in shop.services}
    assert modes == {"shop_prepare": "replicated_job", "shop_web": "replicated", "shop_watcher": "global"}
    assert [payload.name for payload in shop.payloads] == ["shop_key", "shop_greeting"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted(
    {"deploy", "ports", "healthcheck", "environment", "command", "ulimits", "labels", "networks", "restart"}
)


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_whatever_a_file_holds_the_answer_is_a_stack_or_faults(fields: dict[str, Any]) -> None:
    try:
        stack = load(yaml.safe_dump({"services": {"web": {"image": "host", "command": "run", **fields}}}))
    except ComposeError as refused:
        assert refused.faults
    else:
        assert len(stack.services) == 1


def test_the_same_file_gives_the_same_bytes() -> None:
    text = yaml.safe_dump(
        {"services": {"web": {"image": "host", "command": "run", "labels": {str(n): str(n) for n in range(50)}}}}
    )
    first, second = (load(text).services[0].SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
