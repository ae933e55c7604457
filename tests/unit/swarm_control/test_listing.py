"""Lists: every filter against a model that looks at everything."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runtime.swarm.control.listing import labels_match
from runtime.swarm.naming import runtime_name
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_control.fakes import Swarm, name_of

IDS = ["a1", "a2", "b1", "b2", "c1"]
NAMES = st.sampled_from(["web", "Web", "webby", "api", "x"])
LABELS = st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from(["", "1", "2"]), max_size=2)
RUNTIMES: dict[str, specs.TaskSpec] = {
    "container": specs.TaskSpec(container=specs.ContainerSpec(image="i")),
    "attachment": specs.TaskSpec(attachment=specs.NetworkAttachmentSpec()),
    "actor": specs.TaskSpec(generic=specs.GenericRuntimeSpec(kind="Actor")),
    "": specs.TaskSpec(),
}


def some(*values: Any) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(values), max_size=2, unique=True)


COMMON = {
    "names": some("web", "Web", "nope", "web.1.a1"),
    "name_prefixes": some("we", "W", "a", "web.1"),
    "id_prefixes": some("a", "b1", "z"),
    "labels": LABELS,
}


@st.composite
def nodes(draw: st.DrawFn) -> list[objects.Node]:
    made = []
    for id in draw(st.lists(st.sampled_from(IDS), unique=True)):
        node = objects.Node(id=id, role=draw(st.sampled_from([types.WORKER, types.MANAGER])))
        node.description.hostname = draw(NAMES)
        node.description.engine.labels.update(draw(LABELS))
        node.spec.annotations.labels.update(draw(LABELS))
        node.spec.membership = draw(st.sampled_from([specs.NodeSpec.PENDING, specs.NodeSpec.ACCEPTED]))
        made.append(node)
    return made


@st.composite
def tasks(draw: st.DrawFn) -> list[objects.Task]:
    made = []
    for id in draw(st.lists(st.sampled_from(IDS), unique=True)):
        task = objects.Task(id=id, slot=draw(st.integers(0, 1)), spec=RUNTIMES[draw(st.sampled_from(sorted(RUNTIMES)))])
        task.service_id = draw(st.sampled_from(["s1", "s2"]))
        task.node_id = draw(st.sampled_from(["", "n1"]))
        task.desired_state = draw(st.sampled_from([types.RUNNING, types.SHUTDOWN]))
        task.service_annotations.name = draw(NAMES)
        task.service_annotations.labels.update(draw(LABELS))
        made.append(task)
    return made


@st.composite
def named_objects(draw: st.DrawFn, kind: Any) -> list[Any]:
    """Objects of a kind with unique names; a spec with annotations, and whatever the kind's filters look at."""
    names = draw(st.lists(NAMES, unique_by=str.lower, max_size=4))
    made = []
    for id, name in zip(IDS, names, strict=False):
        obj = kind(id=id)
        annotations = obj.annotations if kind is objects.Resource else obj.spec.annotations
        annotations.name = name
        annotations.labels.update(draw(LABELS))
        if kind is objects.Service:
            obj.spec.task.CopyFrom(RUNTIMES[draw(st.sampled_from(sorted(RUNTIMES)))])
        if kind is objects.Resource:
            obj.kind = draw(st.sampled_from(["A", "B"]))
        if kind is objects.Secret:
            obj.internal = draw(st.booleans())
        if kind is objects.Volume:
            obj.spec.group = draw(st.sampled_from(["", "g"]))
            obj.spec.driver.name = draw(st.sampled_from(["csi", "nfs"]))
        made.append(obj)
    return made


def wanted_labels(labels: Any, wanted: dict[str, str]) -> bool:
    for key, value in wanted.items():
        if key not in labels:
            return False
        if value and labels[key] != value:
            return False
    return True


def all_of(obj: Any, filters: dict[str, Any]) -> bool:
    """The rule of most kinds: each given filter holds."""
    name = name_of(obj)
    return (
        (not filters["names"] or name in filters["names"])
        and (not filters["name_prefixes"] or any(name.startswith(prefix) for prefix in filters["name_prefixes"]))
        and (not filters["id_prefixes"] or any(obj.id.startswith(prefix) for prefix in filters["id_prefixes"]))
    )


def any_of(obj: Any, filters: dict[str, Any]) -> bool:
    """The rule of secrets, configs and resources: one value of any filter holds, in any case of letters."""
    name = name_of(obj).lower()
    checks = [name == wanted.lower() for wanted in filters["names"]]
    checks += [name.startswith(prefix.lower()) for prefix in filters["name_prefixes"]]
    checks += [obj.id.startswith(prefix) for prefix in filters["id_prefixes"]]
    return any(checks) or not checks


def listed(held: list[Any], method: str, field: str, filters: dict[str, Any]) -> list[str]:
    swarm = Swarm()
    for obj in held:
        swarm.put(obj)
    return [obj.id for obj in getattr(swarm.call(method, filters=filters), field)]


def ids(held: list[Any], passes: Any) -> list[str]:
    return sorted(obj.id for obj in held if passes(obj))


NODE_FILTERS = st.fixed_dictionaries(
    COMMON
    | {
        "node_labels": LABELS,
        "roles": some(types.WORKER, types.MANAGER),
        "memberships": some(specs.NodeSpec.PENDING, specs.NodeSpec.ACCEPTED),
    }
)


@given(nodes(), NODE_FILTERS)
def test_nodes_equal_the_model(held: list[objects.Node], filters: dict[str, Any]) -> None:
    def passes(node: objects.Node) -> bool:
        return (
            all_of(node, filters)
            and wanted_labels(node.description.engine.labels, filters["labels"])
            and wanted_labels(node.spec.annotations.labels, filters["node_labels"])
            and (not filters["roles"] or node.role in filters["roles"])
            and (not filters["memberships"] or node.spec.membership in filters["memberships"])
        )

    assert listed(held, "ListNodes", "nodes", filters) == ids(held, passes)


TASK_FILTERS = st.fixed_dictionaries(
    COMMON
    | {
        "service_ids": some("s1", "gone"),
        "node_ids": some("n1", "n2"),
        "desired_states": some(types.RUNNING, types.SHUTDOWN),
        "runtimes": some("container", "actor", ""),
    }
)


@given(tasks(), TASK_FILTERS)
def test_tasks_equal_the_model(held: list[objects.Task], filters: dict[str, Any]) -> None:
    def passes(task: objects.Task) -> bool:
        return (
            all_of(task, filters)
            and wanted_labels(task.service_annotations.labels, filters["labels"])
            and (not filters["service_ids"] or task.service_id in filters["service_ids"])
            and (not filters["node_ids"] or task.node_id in filters["node_ids"])
            and (not filters["desired_states"] or task.desired_state in filters["desired_states"])
            and (not filters["runtimes"] or runtime_name(task.spec) in filters["runtimes"])
        )

    assert listed(held, "ListTasks", "tasks", filters) == ids(held, passes)


@given(named_objects(objects.Service), st.fixed_dictionaries(COMMON | {"runtimes": some("container", "actor", "")}))
def test_services_equal_the_model(held: list[objects.Service], filters: dict[str, Any]) -> None:
    def passes(service: objects.Service) -> bool:
        return (
            all_of(service, filters)
            and wanted_labels(service.spec.annotations.labels, filters["labels"])
            and (not filters["runtimes"] or runtime_name(service.spec.task) in filters["runtimes"])
        )

    assert listed(held, "ListServices", "services", filters) == ids(held, passes)


@given(
    named_objects(objects.Volume),
    st.fixed_dictionaries(COMMON | {"groups": some("g", "h"), "drivers": some("csi", "nfs")}),
)
def test_volumes_equal_the_model(held: list[objects.Volume], filters: dict[str, Any]) -> None:
    def passes(volume: objects.Volume) -> bool:
        return (
            all_of(volume, filters)
            and wanted_labels(volume.spec.annotations.labels, filters["labels"])
            and (not filters["groups"] or volume.spec.group in filters["groups"])
            and (not filters["drivers"] or volume.spec.driver.name in filters["drivers"])
        )

    assert listed(held, "ListVolumes", "volumes", filters) == ids(held, passes)


@given(named_objects(objects.Network), named_objects(objects.Cluster), st.fixed_dictionaries(COMMON))
def test_networks_and_clusters_equal_the_model(
    networks: list[objects.Network], clusters: list[objects.Cluster], filters: dict[str, Any]
) -> None:
    def passes(obj: Any) -> bool:
        return all_of(obj, filters) and wanted_labels(obj.spec.annotations.labels, filters["labels"])

    assert listed(networks, "ListNetworks", "networks", filters) == ids(networks, passes)
    assert listed(clusters, "ListClusters", "clusters", filters) == ids(clusters, passes)


@given(named_objects(objects.Secret), named_objects(objects.Config), st.fixed_dictionaries(COMMON))
def test_secrets_and_configs_equal_the_model(
    secrets: list[objects.Secret], configs: list[objects.Config], filters: dict[str, Any]
) -> None:
    def passes(obj: Any) -> bool:
        internal = isinstance(obj, objects.Secret) and obj.internal
        return not internal and any_of(obj, filters) and wanted_labels(obj.spec.annotations.labels, filters["labels"])

    assert listed(secrets, "ListSecrets", "secrets", filters) == ids(secrets, passes)
    assert listed(configs, "ListConfigs", "configs", filters) == ids(configs, passes)


@given(
    named_objects(objects.Resource),
    st.fixed_dictionaries(COMMON | {"kind": st.sampled_from(["", "A", "C"])}),
)
def test_resources_equal_the_model(held: list[objects.Resource], filters: dict[str, Any]) -> None:
    def passes(resource: objects.Resource) -> bool:
        return (
            any_of(resource, filters)
            and wanted_labels(resource.annotations.labels, filters["labels"])
            and filters["kind"] in ("", resource.kind)
        )

    assert listed(held, "ListResources", "resources", filters) == ids(held, passes)


def test_a_label_without_a_value_asks_for_the_key_alone() -> None:
    assert labels_match({"k": "v"}, {"k": ""})
    assert labels_match({"k": "v"}, {"k": "v"})
    assert labels_match({}, {})
    assert not labels_match({"k": "v"}, {"k": "w"})
    assert not labels_match({"l": "v"}, {"k": ""})
