"""Templates in service specs, secrets and configs: which fields are expanded, and what a template can see.

Rules owned here: in a container spec the values of the environment (right of the first ``=``), the hostname, and of
each mount the source, target, volume labels and driver options are templates; they see service, node and task.
The payloads of secrets and configs are templates only where their spec says so (driver ``golang``); they see also the
task's secrets, configs and environment. A result that used a secret is sensitive and must not be written to a disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Final

from runtime.swarm.naming import task_name
from runtime.swarm.template_eval import Function, FunctionError, Record, Value, evaluate, join, quoted, type_name
from runtime.swarm.template_syntax import TemplateError, parse
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

__all__ = ["DUMMY", "PayloadContext", "TemplateContext", "TemplateError", "expand", "expand_payload", "expand_text"]

TEMPLATING_DRIVER: Final = "golang"


@dataclass(frozen=True, slots=True)
class TemplateContext:
    """What the templates of one task see."""

    service_id: str = ""
    service_name: str = ""
    service_labels: Mapping[str, str] = field(default_factory=dict)
    node_id: str = ""
    node_hostname: str = ""
    node_architecture: str = ""
    node_os: str = ""
    task_id: str = ""
    task_name: str = ""
    task_slot: str = ""

    @classmethod
    def of(cls, task: objects.Task, node: types.NodeDescription | None = None) -> TemplateContext:
        """The context of a task on the node that runs it; a task without a slot shows its node's id as slot."""
        description = node if node is not None else types.NodeDescription()
        return cls(
            service_id=task.service_id,
            service_name=task.service_annotations.name,
            service_labels=dict(task.service_annotations.labels),
            node_id=task.node_id,
            node_hostname=description.hostname,
            node_architecture=description.platform.architecture,
            node_os=description.platform.os,
            task_id=task.id,
            task_name=task_name(task),
            task_slot=str(task.slot) if task.slot else task.node_id,
        )

    def record(self) -> Record:
        """The value of dot: ``.Service``, ``.Node`` and ``.Task``."""
        service: dict[str, Value] = {"ID": self.service_id, "Name": self.service_name, "Labels": self.service_labels}
        platform: dict[str, Value] = {"Architecture": self.node_architecture, "OS": self.node_os}
        node: dict[str, Value] = {
            "ID": self.node_id,
            "Hostname": self.node_hostname,
            "Platform": Record("template.Platform", platform),
        }
        task: dict[str, Value] = {"ID": self.task_id, "Name": self.task_name, "Slot": self.task_slot}
        return Record(
            "*template.Context",
            {
                "Service": Record("struct { ID string; Name string; Labels map[string]string }", service),
                "Node": Record("struct { ID string; Hostname string; Platform template.Platform }", node),
                "Task": Record("struct { ID string; Name string; Slot string }", task),
            },
        )


DUMMY: Final = TemplateContext(
    service_id="serviceid",
    service_name="servicename",
    node_id="nodeid",
    node_hostname="nodehostname",
    node_architecture="architecture",
    node_os="os",
    task_id="taskid",
    task_name="taskname",
    task_slot="1",
)
"""The context against which a spec's templates are tried before the spec is accepted. It has no labels."""

_FUNCTIONS: Final[Mapping[str, Function]] = {"join": join}


def expand_text(text: str, context: TemplateContext) -> str:
    """One template expanded; text without a template comes back as it is. Raises `TemplateError`."""
    return _expand(text, context, _FUNCTIONS)


def _expand(text: str, context: TemplateContext, functions: Mapping[str, Function]) -> str:
    if "{{" not in text:
        return text
    return evaluate(text, parse(text), context.record(), functions)


def expand(container: specs.ContainerSpec, context: TemplateContext) -> specs.ContainerSpec:
    """A copy of a container spec with every template in it expanded.

    Raises `TemplateError` that names the field: ``expanding env failed: expanding env "X={{.Nope}}": template: ...``.
    """
    full = specs.ContainerSpec()
    full.CopyFrom(container)
    with _failing("expanding mounts failed"):
        for mount in full.mounts:
            _expand_mount(mount, context)
    with _failing("expanding env failed"):
        for number, line in enumerate(full.env):
            full.env[number] = _expand_env(line, context)
    with _failing("expanding hostname failed"):
        full.hostname = expand_text(full.hostname, context)
    return full


class _failing:  # noqa: N801 - used as a statement
    """Puts what was being done in front of a template's error."""

    def __init__(self, doing: str) -> None:
        self.doing = doing

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TemplateError):
            raise TemplateError(f"{self.doing}: {error}") from None


def _expand_env(line: str, context: TemplateContext) -> str:
    name, sign, value = line.partition("=")
    with _failing(f"expanding env {quoted(line)}"):
        return name + sign + expand_text(value, context)


def _expand_mount(mount: types.Mount, context: TemplateContext) -> None:
    with _failing(f"expanding mount source {quoted(mount.source)}"):
        mount.source = expand_text(mount.source, context)
    with _failing(f"expanding mount target {quoted(mount.target)}"):
        mount.target = expand_text(mount.target, context)
    if not mount.HasField("volume_options"):
        return
    with _failing("expanding volume labels"):
        _expand_map(mount.volume_options.labels, context)
    if mount.volume_options.HasField("driver_config"):
        with _failing("expanding volume driver options"):
            _expand_map(mount.volume_options.driver_config.options, context)


def _expand_map(values: MutableMapping[str, str], context: TemplateContext) -> None:
    for key in sorted(values):
        values[key] = expand_text(values[key], context)


@dataclass(frozen=True, slots=True)
class PayloadContext:
    """What the payload of a secret or config sees: the task, and what the task was given, by file target name."""

    context: TemplateContext
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    configs: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        task: objects.Task,
        node: types.NodeDescription | None,
        read_secret: Callable[[str], bytes | None],
        read_config: Callable[[str], bytes | None],
    ) -> PayloadContext:
        """The context of a task; ``read_secret`` and ``read_config`` give an object's data by its id."""
        container = task.spec.container
        secrets = {ref.file.name: read_secret(ref.secret_id) for ref in container.secrets if ref.HasField("file")}
        configs = {ref.file.name: read_config(ref.config_id) for ref in container.configs if ref.HasField("file")}
        return cls(
            context=TemplateContext.of(task, node),
            secrets={name: data for name, data in secrets.items() if data is not None},
            configs={name: data for name, data in configs.items() if data is not None},
            env=dict(line.split("=", 1) for line in container.env if "=" in line),
        )


def expand_payload(
    data: bytes, templating: types.Driver | None, context: PayloadContext, *, secret: bool
) -> tuple[bytes, bool]:
    """The payload of a secret or config as one task gets it, and whether it is sensitive.

    Bytes that are not UTF-8 pass through unchanged. ``secret`` says that the payload itself is secret: it is sensitive
    whatever it uses, and errors then tell only the place. Raises `TemplateError`.
    """
    if templating is None:
        return data, secret
    if templating.name != TEMPLATING_DRIVER:
        raise TemplateError("unrecognized template type")
    functions, used_secret = _payload_functions(context)
    try:
        text = _expand(_text(data), context.context, functions)
    except TemplateError as error:
        if not secret:
            raise
        raise TemplateError(": ".join(str(error).split(": ", 2)[:2]) + ": the payload cannot be expanded") from None
    return text.encode(errors="surrogateescape"), secret or bool(used_secret)


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _payload_functions(context: PayloadContext) -> tuple[Mapping[str, Function], list[str]]:
    """The functions of payloads, and a list that fills with the names of the secrets that were read."""
    used: list[str] = []

    def read_secret(name: Value) -> str:
        found = _lookup("secret", context.secrets, name)
        used.append(str(name))
        return found

    def read_config(name: Value) -> str:
        return _lookup("config", context.configs, name)

    def read_env(name: Value) -> str:
        return context.env.get(_argument(name), "")

    return {"join": join, "secret": read_secret, "config": read_config, "env": read_env}, used


def _argument(name: Value) -> str:
    if not isinstance(name, str):
        raise FunctionError(f"wrong type for value; expected string; got {type_name(name)}")
    return name


def _lookup(kind: str, payloads: Mapping[str, bytes], name: Value) -> str:
    data = payloads.get(_argument(name))
    if data is None:
        raise FunctionError(f"error calling {kind}: {kind} target {name} not found")
    return _text(data)
