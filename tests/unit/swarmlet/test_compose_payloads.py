"""Secrets, configs and jobs of compose files: what they mean, and every fault with its place."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from runtime.swarm.control.secrets import SECRET_SIZE_LIMIT
from runtime.wire.pb import specs_pb2
from swarmlet import compose
from swarmlet.compose_payloads import Payload
from swarmlet.compose_values import ComposeError

FILES = {"key.pem": b"\x00\xffkey", "empty": b"", "large": bytes(SECRET_SIZE_LIMIT)}


def load(top: dict[str, Any], web: dict[str, Any] | None = None, **environ: str) -> compose.Stack:
    service = {"image": "host", "command": "run", **(web or {})}
    return compose.load(yaml.safe_dump({"services": {"web": service}, **top}), "st", environ, read)


def read(path: str) -> bytes:
    if path == "forbidden":
        raise PermissionError(13, "Permission denied")
    if path not in FILES:
        raise FileNotFoundError(path)
    return FILES[path]


def faults(top: dict[str, Any], web: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(ComposeError) as refused:
        load(top, web)
    return refused.value.faults


def deployed(deploy: dict[str, Any]) -> specs_pb2.ServiceSpec:
    return load({}, {"deploy": deploy}).services[0]


def test_data_comes_from_a_file_the_environment_or_the_file_itself() -> None:
    stack = load(
        {
            "secrets": {"key": {"file": "key.pem", "labels": {"a": "b"}}, "token": {"environment": "TOKEN"}},
            "configs": {
                "app": {"content": "level=${LEVEL}", "template_driver": "golang"},
                "x": {"environment": "TOKEN"},
            },
        },
        TOKEN="t0k",
        LEVEL="3",
    )
    assert stack.payloads == (
        Payload("secret", "key", "st_key", b"\x00\xffkey", {"a": "b"}),
        Payload("secret", "token", "st_token", b"t0k", {}),
        Payload("config", "app", "st_app", b"level=3", {}, "golang"),
        Payload("config", "x", "st_x", b"t0k", {}),
    )
    assert "t0k" not in repr(stack)
    assert stack.warnings == ()


def test_external_ones_keep_their_names_in_both_forms() -> None:
    stack = load(
        {
            "secrets": {
                "a": {"external": True},
                "b": {"external": True, "name": "bee"},
                "c": {"external": {"name": "sea"}},
            },
            "configs": {"d": {"file": "key.pem", "external": False, "name": "mine"}},
        }
    )
    assert [(each.name, each.data is None) for each in stack.payloads] == [
        ("a", True), ("bee", True), ("sea", True), ("mine", False),
    ]  # fmt: skip


def test_services_refer_to_them_by_name_in_both_forms() -> None:
    top = {"secrets": {"key": {"file": "key.pem"}}, "configs": {"app": {"content": "x"}}}
    long = {"source": "app", "target": "app.conf", "uid": "7", "gid": 8, "mode": "0440"}
    (spec,) = load(top, {"secrets": ["key"], "configs": [long, "app"]}).services
    (secret,), (first, second) = spec.task.container.secrets, spec.task.container.configs
    assert (secret.secret_id, secret.secret_name, secret.file.name, secret.file.mode) == ("", "key", "key", 0o444)
    assert (secret.file.uid, secret.file.gid) == ("0", "0")
    assert (first.config_name, first.file.name, first.file.uid, first.file.gid) == ("app", "app.conf", "7", "8")
    assert (first.file.mode, second.file.name) == (0o440, "app")


@pytest.mark.parametrize(
    ("mode", "expected"), [("0440", 0o440), ("0o440", 0o440), ("400", 0o400), ("0", 0), ("288", 288)]
)
def test_a_mode_is_octal_as_a_text_and_what_it_is_as_a_number(mode: str, expected: int) -> None:
    written = mode if mode in ("288", "0440", "0") else f'"{mode}"'
    services = f"services: {{web: {{image: host, command: run, secrets: [{{source: k, mode: {written}}}]}}}}\n"
    text = services + "secrets: {k: {file: key.pem}}\n"
    (spec,) = compose.load(text, "st", {}, read).services
    assert spec.task.container.secrets[0].file.mode == expected


def test_a_container_finds_configs_at_the_root() -> None:
    (spec,) = load({"configs": {"app": {"content": "x"}}}, {"image": "nginx", "configs": ["app"]}).services
    assert spec.task.container.configs[0].file.name == "/app"


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"secrets": {"k": {}}}, "secrets.k: needs one of file, environment, external"),
        (
            {"secrets": {"k": {"file": "key.pem", "external": True}}},
            "secrets.k: needs one of file, environment, external, not file and external",
        ),
        ({"secrets": {"k": {"content": "x"}}}, "secrets.k.content: is no field that compose files have here"),
        ({"secrets": {"k": {"file": "no.pem"}}}, "secrets.k.file: there is no file 'no.pem'"),
        (
            {"secrets": {"k": {"file": "forbidden"}}},
            "secrets.k.file: 'forbidden' cannot be read: [Errno 13] Permission denied",
        ),
        ({"secrets": {"k": {"environment": "NO"}}}, "secrets.k.environment: the variable 'NO' is not set"),
        (
            {"secrets": {"k": {"file": "empty"}}},
            f"secrets.k: secret data must be larger than 0 and less than {SECRET_SIZE_LIMIT} bytes",
        ),
        (
            {"secrets": {"k": {"file": "large"}}},
            f"secrets.k: secret data must be larger than 0 and less than {SECRET_SIZE_LIMIT} bytes",
        ),
        (
            {"secrets": {"k": {"external": True, "driver": "vault"}}},
            "secrets.k.driver: drivers of secrets are plugins of an engine; use file, environment or external",
        ),
        (
            {"configs": {"k": {"content": "x", "template_driver": "jinja"}}},
            "configs.k.template_driver: must be one of golang, not 'jinja'",
        ),
        ({"configs": {"k": {"content": "x", "zz": 1}}}, "configs.k.zz: is no field that compose files have here"),
    ],
)
def test_a_section_that_makes_no_sense_is_a_fault_with_its_place(section: dict[str, Any], told: str) -> None:
    assert told in faults(section)


def test_a_name_that_the_swarm_would_not_take_is_a_fault() -> None:
    (told,) = faults({"secrets": {"k": {"external": True, "name": "-x"}}})
    assert told.startswith("secrets.k: '-x': invalid name")


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (["nosuch"], "services.web.secrets[0]: the file's section secrets has no 'nosuch'"),
        (["k", "k"], "services.web.secrets[1]: another secret has the target 'k'"),
        ([{"source": "k", "zz": 1}], "services.web.secrets[0].zz: is no field that compose files have here"),
        ([{"source": "k", "mode": "rw"}], "services.web.secrets[0].mode: must be a whole number from 0 to 4095"),
        ("k", "services.web.secrets: must be a list"),
        *(
            (
                [{"source": "k", "target": target}],
                "services.web.secrets[0].target: a process finds its files below a directory of its own: "
                "name a file, not a path",
            )
            for target in ("/etc/k", "../k")
        ),
    ],
)
def test_a_reference_that_makes_no_sense_is_a_fault_with_its_place(wanted: Any, told: str) -> None:
    assert told in faults({"secrets": {"k": {"file": "key.pem"}}}, {"secrets": wanted})


# Jobs


def test_the_modes_of_deploy() -> None:
    assert deployed({"mode": "replicated-job", "replicas": 3}).replicated_job == specs_pb2.ReplicatedJob(
        max_concurrent=3, total_completions=3
    )
    assert deployed({"mode": "replicated-job"}).replicated_job.total_completions == 1
    assert deployed({"mode": "global-job"}).WhichOneof("mode") == "global_job"
    assert deployed({"mode": "global"}).WhichOneof("mode") == "global"
    assert deployed({"replicas": 0}).WhichOneof("mode") == "replicated"


@pytest.mark.parametrize(
    ("deploy", "told"),
    [
        (
            {"mode": "global-job", "replicas": 2},
            "replicas: there is no number of replicas in the mode global-job: it runs on every node",
        ),
        (
            {"mode": "global", "replicas": 2},
            "replicas: there is no number of replicas in the mode global: it runs on every node",
        ),
        (
            {"mode": "replicated-job", "update_config": {"order": "start-first"}},
            "update_config: a job is not updated task by task: each change runs it anew",
        ),
    ],
)
def test_what_a_mode_cannot_have_is_a_fault(deploy: dict[str, Any], told: str) -> None:
    assert faults({}, {"deploy": deploy}) == [f"services.web.deploy.{told}"]
