"""The kinds of stored object, and under which keys each is found: SwarmKit's tables and indices.

A table is named by its protobuf class. Names are compared in lower case; a node's name is its host name; a task's is
its annotation, else ``<service>.<slot>.<id>`` with the node's id in place of slot 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from runtime.wire.pb import objects_pb2 as pb

StoreObject: TypeAlias = (
    pb.Node
    | pb.Service
    | pb.Task
    | pb.Network
    | pb.Cluster
    | pb.Secret
    | pb.Config
    | pb.Resource
    | pb.Extension
    | pb.Volume
)
Kind: TypeAlias = type[Any]
T = TypeVar("T", bound=StoreObject)
Pairs = Iterator[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Table:
    """How one kind is kept. ``field`` is its name in StoreAction, ``list_field`` in StoreSnapshot."""

    kind: Kind
    field: str
    list_field: str
    unique_name: bool
    name: Callable[[Any], str]
    keys: Callable[[Any], Pairs]
    indices: frozenset[str]


def _annotation_name(obj: Any) -> str:
    return str(obj.spec.annotations.name)


def _plain_name(obj: Any) -> str:
    return str(obj.annotations.name)


def node_name(node: pb.Node) -> str:
    """A node's name is its host name; it has none before it described itself."""
    return node.description.hostname


def task_name(task: pb.Task) -> str:
    """A task's name, or what stands for it."""
    if task.annotations.name:
        return task.annotations.name
    return f"{task.service_annotations.name}.{task.slot or task.node_id}.{task.id}"


def runtime_name(spec: Any) -> str:
    """``container``, ``attachment``, the kind of a generic runtime in lower case, or nothing."""
    runtime = spec.WhichOneof("runtime")
    if runtime == "generic":
        return str(spec.generic.kind).lower()
    return {"container": "container", "attachment": "attachment"}.get(runtime or "", "")


def _custom(indices: Iterable[Any], prefix: str = "") -> Pairs:
    for entry in indices:
        yield "custom", f"{prefix}{entry.key}|{entry.val}"


def _spec_keys(obj: Any) -> Pairs:
    yield from _custom(obj.spec.annotations.indices)


def _node_keys(node: Any) -> Pairs:
    yield "role", str(node.role)
    yield "membership", str(node.spec.membership)
    yield from _spec_keys(node)


def _references(spec: Any) -> Pairs:
    if spec.WhichOneof("runtime") == "container":
        yield from (("secret", ref.secret_id) for ref in spec.container.secrets)
        yield from (("config", ref.config_id) for ref in spec.container.configs)


def _service_keys(service: Any) -> Pairs:
    spec = service.spec
    yield "runtime", runtime_name(spec.task)
    yield from (("network", each.target) for each in spec.task.networks or spec.networks)
    yield from _references(spec.task)
    yield from _spec_keys(service)


def _task_keys(task: Any) -> Pairs:
    yield "runtime", runtime_name(task.spec)
    if task.service_id:
        yield "service", task.service_id
        yield "slot", f"{task.service_id}/{task.slot}"
    if task.node_id:
        yield "node", task.node_id
    yield "desired_state", str(task.desired_state)
    yield "task_state", str(task.status.state)
    yield from (("network", each.target) for each in task.spec.networks)
    yield from _references(task.spec)
    yield from (("volume_attachment", each.id) for each in task.volumes)
    yield from _custom(task.annotations.indices)


def _volume_keys(volume: Any) -> Pairs:
    if volume.spec.group:
        yield "volume_group", volume.spec.group
    yield "driver", volume.spec.driver.name
    yield from _spec_keys(volume)


def _resource_keys(resource: Any) -> Pairs:
    yield "kind", resource.kind
    yield from _custom(resource.annotations.indices, f"{resource.kind}|")


def _extension_keys(extension: Any) -> Pairs:
    yield from _custom(extension.annotations.indices)


def _table(
    kind: Kind,
    unique: bool,
    keys: Callable[[Any], Pairs],
    indices: str = "",
    name: Callable[[Any], str] = _annotation_name,
) -> Table:
    field = kind.DESCRIPTOR.name.lower()
    return Table(kind, field, f"{field}s", unique, name, keys, frozenset(["name", "custom", *indices.split()]))


TABLES: dict[Kind, Table] = {
    table.kind: table
    for table in (
        _table(pb.Cluster, True, _spec_keys),
        _table(pb.Config, True, _spec_keys),
        _table(pb.Extension, True, _extension_keys, name=_plain_name),
        _table(pb.Network, True, _spec_keys),
        _table(pb.Node, False, _node_keys, "role membership", node_name),
        _table(pb.Resource, True, _resource_keys, "kind", _plain_name),
        _table(pb.Secret, True, _spec_keys),
        _table(pb.Service, True, _service_keys, "runtime network secret config"),
        _table(
            pb.Task,
            False,
            _task_keys,
            "runtime service node slot desired_state task_state network secret config volume_attachment",
            task_name,
        ),
        _table(pb.Volume, True, _volume_keys, "volume_group driver"),
    )
}
BY_FIELD: dict[str, Table] = {table.field: table for table in TABLES.values()}


def moved_keys(table: Table, old: Any | None, new: Any) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """Under which keys an object stands no more, and under which it stands now besides."""
    if old is None:
        return set(), index_keys(table, new)
    if table.kind is pb.Task and _same_but_progress(old, new):
        before, after = _progress_keys(old), _progress_keys(new)
    else:
        before, after = index_keys(table, old), index_keys(table, new)
    return before - after, after - before


def moved_by_status(old: Any, new: Any) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """As ``moved_keys``, of a task that has another status and is the same otherwise."""
    before, after = old.status.state, new.status.state
    if before == after:
        return set(), set()
    return {("task_state", str(before))}, {("task_state", str(after))}


def _same_but_progress(old: Any, new: Any) -> bool:
    """Whether a task's keys are the same but for its states and its node. Most of what is written says how far a task
    is. (The name of a task without a slot holds its node.)"""
    return bool(
        (old.node_id == new.node_id or new.slot)
        and old.slot == new.slot
        and old.service_id == new.service_id
        and old.spec == new.spec
        and old.annotations == new.annotations
        and old.service_annotations.name == new.service_annotations.name
        and old.volumes == new.volumes
    )


def _progress_keys(task: Any) -> set[tuple[str, str]]:
    keys = {("desired_state", str(task.desired_state)), ("task_state", str(task.status.state))}
    if task.node_id:
        keys.add(("node", task.node_id))
    return keys


def index_keys(table: Table, obj: Any) -> set[tuple[str, str]]:
    """Every (index, key) under which an object stands."""
    keys = set(table.keys(obj))
    name = table.name(obj)
    if name:
        keys.add(("name", name.lower()))
    return keys
