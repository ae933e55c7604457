"""What the process executor takes and what it refuses, by name."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from runtime.executor.accounts import account_of
from runtime.executor.health import HealthRules
from runtime.executor.port import Rejected
from runtime.executor.process import describe_machine, parse_generic_resources
from runtime.executor.process_plan import LOG_BYTES, LOG_FILES, PlanSettings, make_plan, parse_signal
from runtime.swarm.process_spec import UNSUPPORTED
from runtime.wire.pb import objects_pb2, types_pb2
from tests.unit.executor.builders import context, task

HOST = types_pb2.PortConfig.PublishMode.Value("HOST")
Change = Callable[[objects_pb2.Task], Any]


def plan(change: Change = lambda made: None, settings: PlanSettings | None = None) -> Any:
    made = task("t1", "sleep", "1")
    change(made)
    return make_plan(
        made, context(), settings or PlanSettings(environment={"PATH": "/bin", "LANG": "C", "SECRET": "x"})
    )


def container(**fields: Any) -> Change:
    return lambda made: made.spec.container.MergeFrom(type(made.spec.container)(**fields))


REFUSED: dict[str, Change] = {
    "hostname": container(hostname="x"),
    "tty": container(tty=True),
    "open_stdin": container(open_stdin=True),
    "read_only": container(read_only=True),
    "mounts": container(mounts=[types_pb2.Mount(target="/x")]),
    "hosts": container(hosts=["1.2.3.4 x"]),
    "dns_config": lambda made: made.spec.container.dns_config.nameservers.append("1.1.1.1"),
    "isolation": lambda made: setattr(made.spec.container, "isolation", 1),
    "sysctls": container(sysctls={"a": "b"}),
    "capability_add": container(capability_add=["CAP_NET_ADMIN"]),
    "capability_drop": container(capability_drop=["ALL"]),
    "privileges.credential_spec": lambda made: made.spec.container.privileges.credential_spec.SetInParent(),
    "privileges.selinux_context": lambda made: made.spec.container.privileges.selinux_context.SetInParent(),
    "privileges.seccomp": lambda made: setattr(made.spec.container.privileges.seccomp, "mode", 1),
    "privileges.apparmor": lambda made: setattr(made.spec.container.privileges.apparmor, "mode", 1),
}


def test_every_unsupported_field_has_its_case() -> None:
    assert set(REFUSED) == set(UNSUPPORTED)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_field_that_a_process_cannot_honour_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(Rejected, match=f"cannot honour {name}$"):
        plan(REFUSED[name])


@pytest.mark.parametrize("image", ["nginx:latest", "hosts", "", "registry/host"])
def test_another_image_is_refused_with_the_executor_it_needs(image: str) -> None:
    with pytest.raises(Rejected, match=f'image "{image}" needs a container executor'):
        plan(lambda made: setattr(made.spec.container, "image", image))


def test_the_image_may_have_any_tag() -> None:
    assert plan(lambda made: setattr(made.spec.container, "image", "host:v2")).task_id == "t1"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda made: made.spec.container.ClearField("command"), "no command"),
        (container(args=["a\0b"]), "zero byte"),
        (container(dir="relative"), "absolute path: relative"),
        (container(env=["X={{bad}}"]), "expanding env failed: template: bad"),
        (container(env=["=x"]), "without a name"),
        (container(env=["X=a\0"]), "zero byte"),
        (container(stop_signal="SIGNONE"), "invalid stop signal: SIGNONE"),
        (container(ulimits=[{"name": "nothing", "soft": 1, "hard": 1}]), "the ulimit nothing"),
        (container(healthcheck={"test": ["EXEC", "x"]}), "invalid health check: EXEC x"),
        (container(secrets=[{"secret_id": "s", "file": {"name": "/etc/shadow"}}]), 'a secret at "/etc/shadow"'),
        (container(configs=[{"config_id": "c", "file": {"name": "../x"}}]), 'a config at "../x"'),
        (container(user="nobody-knows-me"), "unable to find user nobody-knows-me"),
        (lambda made: setattr(made.spec.log_driver, "name", "syslog"), "the log driver syslog"),
        (lambda made: made.spec.log_driver.options.update({"tag": "x"}), "the log option tag"),
        (lambda made: made.spec.log_driver.options.update({"max-size": "big"}), "invalid log options"),
        (lambda made: setattr(made.spec.resources.swap_bytes, "value", 1), "swap_bytes"),
        (lambda made: setattr(made.networks.add().network.spec, "internal", True), "inside the internal network"),
        (lambda made: made.networks.add().network.driver_state.options.update(encrypted=""), "cannot encrypt"),
        (lambda made: made.spec.generic.SetInParent(), "container tasks"),
    ],
)
def test_what_cannot_be_had_is_refused_with_its_reason(change: Change, text: str) -> None:
    with pytest.raises(Rejected) as caught:
        plan(change)
    assert text in caught.value.text


@pytest.mark.parametrize(
    ("published", "mode", "protocol", "text"),
    [(8080, HOST, 0, "cannot publish 80/tcp as 8080"), (80, 0, types_pb2.PortConfig.SCTP, "ingress port 80/sctp")],
)
def test_a_port_that_a_process_cannot_listen_on_is_refused(published: int, mode: int, protocol: int, text: str) -> None:
    def publish(made: Any) -> None:
        made.endpoint.ports.add(target_port=80, published_port=published, publish_mode=mode, protocol=protocol)

    with pytest.raises(Rejected) as caught:
        plan(publish)
    assert text in caught.value.text


def test_ports_that_nodes_publish_are_given_when_the_task_starts() -> None:
    def publish(made: Any) -> None:
        made.endpoint.ports.add(target_port=80, published_port=8080)
        made.endpoint.ports.add(target_port=53, published_port=5353, protocol=types_pb2.PortConfig.UDP)

    made = plan(publish)
    assert [port.target_port for port in made.ingress] == [80, 53]
    assert list(made.ports.ports) == []


@pytest.mark.parametrize("published", [0, 80])
def test_a_host_port_is_the_processs_own(published: int) -> None:
    made = plan(lambda each: each.endpoint.ports.add(target_port=80, published_port=published, publish_mode=HOST))
    (port,) = made.ports.ports
    assert (port.target_port, port.published_port) == (80, 80)


@pytest.mark.parametrize("name", ["host", "net1"])
def test_a_process_is_on_its_machines_network_whatever_its_service_asks_for(name: str) -> None:
    assert plan(lambda made: setattr(made.networks.add().network.spec.annotations, "name", name))


def test_the_environment_is_a_logins_minimum_with_the_specs_entries_expanded() -> None:
    def change(made: objects_pb2.Task) -> None:
        made.spec.container.env.extend(["WHERE={{.Node.Hostname}}", "LANG", "EMPTY=", "SWARMLET_TASK_ID=forged"])
        for value in ("a", "b"):
            made.assigned_generic_resources.add().named_resource_spec.MergeFrom(
                types_pb2.NamedGenericResource(kind="gpu", value=value)
            )
        made.assigned_generic_resources.add().discrete_resource_spec.MergeFrom(
            types_pb2.DiscreteGenericResource(kind="ssd", value=3)
        )

    env = plan(change).spec["env"]
    assert set(env) - {"HOME", "USER", "LOGNAME"} == {
        "PATH", "WHERE", "EMPTY", "SWARMLET_TASK_ID", "DOCKER_RESOURCE_GPU", "DOCKER_RESOURCE_SSD",
    }  # fmt: skip
    assert env["WHERE"] == "box"
    assert env["SWARMLET_TASK_ID"] == "t1"
    assert (env["DOCKER_RESOURCE_GPU"], env["DOCKER_RESOURCE_SSD"]) == ("a,b", "3")


def test_limits_are_taken_over_and_refused_only_where_they_are_required() -> None:
    def limited(made: objects_pb2.Task) -> None:
        made.spec.resources.limits.MergeFrom(types_pb2.Resources(nano_cpus=5, memory_bytes=6))
        made.spec.container.pidsLimit = 7

    assert plan(limited).spec["limits"] == {"nano_cpus": 5, "memory": 6, "pids": 7}
    assert plan(limited, PlanSettings(limits_reason="no cgroups")).spec["limits"]
    assert plan(limited, PlanSettings(require_limits=True)).spec["limits"]
    strict = PlanSettings(require_limits=True, limits_reason="no cgroups")
    with pytest.raises(Rejected, match=r"cannot enforce the limits memory, nano_cpus, pids: no cgroups"):
        plan(limited, strict)
    assert plan(settings=strict).spec["limits"] == {}


def test_the_log_driver_none_keeps_no_file_and_takes_no_options() -> None:
    assert plan(lambda made: setattr(made.spec.log_driver, "name", "none")).spec["log_files"] == 0

    def with_size(made: Any) -> None:
        made.spec.log_driver.name = "none"
        made.spec.log_driver.options["tag"] = "x"

    with pytest.raises(Rejected, match="log option tag"):
        plan(with_size)


def test_the_log_drivers_sizes_are_honoured() -> None:
    assert (plan().spec["log_bytes"], plan().spec["log_files"]) == (LOG_BYTES, LOG_FILES) == (10 << 20, 3)

    def change(made: objects_pb2.Task) -> None:
        made.spec.log_driver.name = "json-file"
        made.spec.log_driver.options.update({"max-size": "64k", "max-file": "5"})

    assert (plan(change).spec["log_bytes"], plan(change).spec["log_files"]) == (64 << 10, 5)


@pytest.mark.parametrize(
    ("text", "number"),
    [("", 15), ("SIGTERM", 15), ("int", 2), ("9", 9), ("RTMIN+3", signal.SIGRTMIN + 3), ("SIGUSR1", signal.SIGUSR1)],
)
def test_a_signal_has_a_name_or_a_number(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["0", "65", "TERM+1", "RTMIN+x", "RTMIN+99", "-1"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(Rejected):
        parse_signal(text)


# Accounts


def test_a_node_that_is_not_root_runs_tasks_as_itself_alone() -> None:
    mine = account_of("", [], None, euid=os.getuid())
    assert (mine.uid, mine.gid, mine.groups) == (None, None, None)
    with pytest.raises(Rejected, match="this node runs tasks as user 4242"):
        account_of("root", [], None, euid=4242)
    with pytest.raises(Rejected, match="additional groups"):
        account_of("", ["1"], None, euid=4242)
    assert account_of("4242", [], None, euid=4242).uid is None


def test_root_becomes_the_user_asked_for_or_the_nodes_task_user() -> None:
    assert account_of("1234:5678", [], None, euid=0).groups == [5678]
    nobody = account_of("", [], "nobody", euid=0)
    assert nobody.name == "nobody"
    assert nobody.uid not in (0, None)
    both = account_of("1234", ["7", "8"], "nobody", euid=0)
    assert (both.uid, both.gid, both.groups) == (1234, 0, [0, 7, 8])
    with pytest.raises(Rejected, match="unable to find group nowhere"):
        account_of("1234:nowhere", [], None, euid=0)


# The node


def test_the_node_says_what_it_is_and_whether_limits_are_enforced() -> None:
    described = describe_machine(parse_generic_resources(["ssd=3", "gpu=one", "gpu=two"]), "not ours")
    assert described.engine.labels["swarmlet.executor"] == "process"
    assert described.engine.labels["swarmlet.limits"] == "not enforced: not ours"
    assert described.platform.os == "linux"
    plugins = {(each.type, each.name) for each in described.engine.plugins}
    assert {("Log", "json-file"), ("Network", "overlay")} <= plugins
    assert described.engine.engine_version
    assert described.resources.nano_cpus % 10**9 == 0
    assert described.resources.memory_bytes > 1 << 20
    assert [each.WhichOneof("resource") for each in described.resources.generic] == [
        "discrete_resource_spec", "named_resource_spec", "named_resource_spec",
    ]  # fmt: skip
    assert describe_machine([], "").engine.labels["swarmlet.limits"] == "enforced"


@pytest.mark.parametrize("entry", ["", "gpu", "=1", "gpu="])
def test_a_generic_resource_needs_a_kind_and_a_value(entry: str) -> None:
    with pytest.raises(ValueError, match="could not parse GenericResource"):
        parse_generic_resources([entry])


def test_a_health_check_has_the_engines_defaults() -> None:
    rules = HealthRules(types_pb2.HealthConfig(test=["CMD-SHELL", "true"]))
    assert (rules.interval, rules.timeout, rules.start_period, rules.start_interval, rules.retries) == (30, 30, 0, 5, 3)
    assert rules.argv == ["/bin/sh", "-c", "true"]
    assert HealthRules(types_pb2.HealthConfig(test=["CMD", "a", "b"])).argv == ["a", "b"]
