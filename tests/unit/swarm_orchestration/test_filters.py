"""The filters one by one, and the texts that say why a task waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from runtime.swarm import generic
from runtime.swarm.filters import Pipeline, fixed_key
from runtime.swarm.node_info import Held, NodeInfo
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.placing import GIB, HOST, INGRESS, UDP, node, port, task

PROCESS = {"swarmlet.executor": "process"}


def info(made: objects.Node, *tasks: objects.Task) -> NodeInfo:
    """A node's books with tasks on it."""
    books = NodeInfo(made)
    for each in tasks:
        books.add(each.id, Held.of(each))
    return books


def passes(asked: objects.Task, made: objects.Node, *tasks: objects.Task) -> bool:
    return Pipeline(asked).passes(info(made, *tasks))


def explain(asked: objects.Task, *infos: NodeInfo) -> str:
    return Pipeline(asked).explain(infos)


@pytest.mark.parametrize("state", [types.NodeStatus.UNKNOWN, types.NodeStatus.DOWN, types.NodeStatus.DISCONNECTED])
def test_only_ready_nodes_take_tasks(state: types.NodeStatus.State) -> None:
    assert not passes(task("t"), node("n", state=state))
    assert passes(task("t"), node("n"))


@pytest.mark.parametrize("availability", [specs.NodeSpec.PAUSE, specs.NodeSpec.DRAIN])
def test_only_active_nodes_take_tasks(availability: specs.NodeSpec.Availability) -> None:
    assert not passes(task("t"), node("n", availability=availability))


def test_host_processes_and_containers_go_where_they_can_run() -> None:
    container, process = node("a"), node("b", engine_labels=PROCESS)
    assert passes(task("t", image="nginx"), container)
    assert not passes(task("t", image="nginx"), process)
    assert passes(task("t", image="host"), process)
    assert passes(task("t", image="host:any"), process)
    assert not passes(task("t", image="host"), container)
    assert not passes(task("t", image="hostile"), process)


ACTORS = {"swarmlet.executor": "actor", "swarmlet.actors": "counter,echo:v2"}
BOTH = {**ACTORS, **PROCESS}


def test_actors_go_where_they_are_registered_and_nothing_else_goes_to_nodes_of_actors() -> None:
    assert passes(task("t", image="actor/counter"), node("a", engine_labels=ACTORS))
    assert passes(task("t", image="actor/counter:latest"), node("a", engine_labels=BOTH))
    assert passes(task("t", image="actor/echo:v2"), node("a", engine_labels=ACTORS))
    assert not passes(task("t", image="actor/echo"), node("a", engine_labels=ACTORS))
    assert not passes(task("t", image="actor/counter"), node("a", engine_labels=PROCESS))
    assert not passes(task("t", image="actor/counter"), node("a"))
    assert not passes(task("t", image="nginx"), node("a", engine_labels=ACTORS))
    assert not passes(task("t", image="host"), node("a", engine_labels=ACTORS))
    assert passes(task("t", image="host"), node("a", engine_labels=BOTH))
    assert not passes(task("t", image="nginx"), node("a", engine_labels=BOTH))


def test_the_explanation_names_the_actor() -> None:
    assert explain(task("t", image="actor/x"), info(node("a", engine_labels=ACTORS)), info(node("b"))) == (
        'no suitable node (image "actor/x" needs the actor x, which is not registered on 2 nodes)'
    )


@pytest.mark.parametrize("other", ["actor/echo", "actor/counter:v2", "host", "nginx"])
def test_tasks_of_different_actors_are_never_taken_for_alike(other: str) -> None:
    assert fixed_key(task("t", image="actor/counter")) != fixed_key(task("t", image=other))


def test_the_explanation_names_the_executor() -> None:
    assert explain(task("t"), info(node("a", engine_labels=PROCESS)), info(node("b", engine_labels=PROCESS))) == (
        'no suitable node (image "nginx" needs a container executor on 2 nodes)'
    )
    assert explain(task("t", image="host"), info(node("a"))) == (
        'no suitable node (image "host" needs the process executor on 1 node)'
    )


def test_reservations_have_to_be_free() -> None:
    made = node("n", cpus=2, memory=4 * GIB)
    assert passes(task("t", cpus=2, memory=4 * GIB), made)
    assert not passes(task("t", cpus=2.1), made)
    assert not passes(task("t", memory=4 * GIB + 1), made)
    assert not passes(task("t", cpus=1), made, task("other", cpus=1.5))
    assert passes(task("t"), made, task("other", cpus=2))


def test_generic_resources_have_to_be_free() -> None:
    made = node("n", generic=[generic.discrete("ssd", 2), generic.named("gpu", "a"), generic.named("gpu", "b")])
    assert passes(task("t", generic=[generic.discrete("ssd", 2), generic.discrete("gpu", 2)]), made)
    assert not passes(task("t", generic=[generic.discrete("gpu", 3)]), made)
    assert not passes(task("t", generic=[generic.discrete("fpga", 1)]), made)
    assert not passes(task("t", generic=[generic.named("gpu", "a")]), made)
    holder = task("other")
    holder.assigned_generic_resources.extend([generic.named("gpu", "a")])
    assert not passes(task("t", generic=[generic.discrete("gpu", 2)]), made, holder)


def with_plugins(*plugins: tuple[str, str]) -> objects.Node:
    made = node("n")
    made.description.engine.SetInParent()
    for kind, name in plugins:
        made.description.engine.plugins.add(type=kind, name=name)
    return made


def with_volume(driver: str) -> objects.Task:
    asked = task("t")
    mount = asked.spec.container.mounts.add(type=types.Mount.VOLUME)
    mount.volume_options.driver_config.name = driver
    return asked


def with_log(driver: str) -> objects.Task:
    asked = task("t")
    asked.spec.log_driver.name = driver
    return asked


@pytest.mark.parametrize(
    ("asked", "plugins", "expected"),
    [
        (with_volume("nfs"), [("Volume", "nfs")], True),
        (with_volume("nfs"), [("Volume", "nfs:latest")], True),
        (with_volume("nfs"), [("Network", "nfs")], False),
        (with_volume("local"), [], True),
        (with_volume(""), [], True),
        (with_log("syslog"), [("Log", "syslog")], True),
        (with_log("syslog"), [("Log", "json-file")], False),
        (with_log("syslog"), [("Volume", "local")], True),
        (with_log("none"), [("Log", "json-file")], True),
        (with_log(""), [("Log", "json-file")], True),
    ],
)
def test_plugins_that_a_task_needs(asked: objects.Task, plugins: Sequence[tuple[str, str]], expected: bool) -> None:
    assert passes(asked, with_plugins(*plugins)) is expected


def test_a_node_that_says_nothing_of_its_engine_has_every_plugin() -> None:
    assert passes(with_volume("nfs"), node("n"))


def test_a_missing_plugin_is_explained() -> None:
    assert explain(with_volume("nfs"), info(with_plugins())) == "no suitable node (missing plugin on 1 node)"


def test_constraints_hold() -> None:
    asked = task("t", constraints=["node.labels.zone == east"])
    assert passes(asked, node("n", labels={"zone": "east"}))
    assert not passes(asked, node("n", labels={"zone": "west"}))
    assert passes(task("t", constraints=["nonsense"]), node("n"))


@pytest.mark.parametrize(
    ("os", "architecture", "expected"),
    [
        ("linux", "amd64", True),
        ("linux", "x86_64", True),
        ("", "amd64", True),
        ("linux", "", True),
        ("windows", "amd64", False),
        ("linux", "aarch64", False),
        ("linux", "arm64", False),
    ],
)
def test_platforms(os: str, architecture: str, expected: bool) -> None:
    asked = task("t")
    asked.spec.placement.platforms.add(os=os, architecture=architecture)
    assert passes(asked, node("n")) is expected


def test_one_of_several_platforms_is_enough_and_no_platform_is_none() -> None:
    asked = task("t")
    asked.spec.placement.platforms.add(os="linux", architecture="arm64")
    asked.spec.placement.platforms.add(os="linux", architecture="amd64")
    assert passes(asked, node("n"))
    blank = node("n")
    blank.description.ClearField("platform")
    assert not passes(asked, blank)
    assert explain(asked, info(blank)) == "no suitable node (unsupported platform on 1 node)"


def test_host_ports_are_free_on_the_node() -> None:
    asked = task("t", ports=[port(80, 8080, HOST)])
    assert passes(asked, node("n"))
    assert not passes(asked, node("n"), task("other", ports=[port(90, 8080, HOST)]))
    assert passes(asked, node("n"), task("other", ports=[port(90, 8080, HOST, UDP)]))
    assert passes(asked, node("n"), task("other", ports=[port(90, 8080, INGRESS)]))
    assert passes(task("t", ports=[port(80, 0, HOST)]), node("n"), task("other", ports=[port(80, 0, HOST)]))


def test_replicas_of_a_service_on_a_node_are_limited() -> None:
    asked = task("t", max_replicas=2)
    assert passes(asked, node("n"), task("a"), task("b", service="other"))
    assert not passes(asked, node("n"), task("a"), task("b"))
    assert passes(asked, node("n"), task("a"), task("b", desired=types.SHUTDOWN))


def test_cluster_volumes_go_nowhere_without_anybody_who_knows_them() -> None:
    asked = task("t")
    asked.spec.container.mounts.add(type=types.Mount.CLUSTER, source="group:fast", target="/data")
    asked.spec.container.mounts.add(type=types.Mount.BIND, source="/a", target="/b")
    assert explain(asked, info(node("n"))) == (
        "no suitable node (cannot fulfill requested CSI volume mounts on 1 node: "
        'this version does not offer cluster volumes ("group:fast" at /data))'
    )
    known = Pipeline(asked, lambda books: books.node.id == "n")
    assert known.passes(info(node("n")))
    assert known.explain([info(node("m"))]) == (
        "no suitable node (cannot fulfill requested CSI volume mounts on 1 node)"
    )


def test_explanations_in_the_engines_words() -> None:
    down = info(node("d", state=types.NodeStatus.DOWN))
    assert explain(task("t"), down) == "no suitable node (1 node not available for new tasks)"
    assert explain(task("t"), down, down) == "no suitable node (2 nodes not available for new tasks)"
    assert explain(task("t", constraints=["node.id == x"]), info(node("n"))) == (
        "no suitable node (scheduling constraints not satisfied on 1 node)"
    )
    assert explain(task("t", cpus=99), info(node("n"))) == "no suitable node (insufficient resources on 1 node)"
    busy = info(node("n"), task("a", ports=[port(80, 80, HOST)]))
    assert explain(task("t", ports=[port(80, 80, HOST)]), busy, busy) == (
        "no suitable node (host-mode port already in use on 2 nodes)"
    )
    assert explain(task("t", max_replicas=1), info(node("n"), task("a"))) == (
        "no suitable node (max replicas per node limit exceed)"
    )
    assert explain(task("t")) == "no suitable node"


def test_the_most_frequent_reason_comes_first_and_each_node_counts_once() -> None:
    asked = task("t", cpus=99, constraints=["node.id == x"])
    infos = [info(node("a")), info(node("b")), info(node("c", state=types.NodeStatus.DOWN))]
    assert explain(asked, *infos) == (
        "no suitable node (insufficient resources on 2 nodes; 1 node not available for new tasks)"
    )


def test_reasons_that_are_as_frequent_come_in_the_order_of_the_filters() -> None:
    asked = task("t", cpus=99)
    infos = [info(node("a")), info(node("b", state=types.NodeStatus.DOWN))]
    assert explain(asked, *infos) == (
        "no suitable node (1 node not available for new tasks; insufficient resources on 1 node)"
    )


def test_only_what_placements_change_is_asked_again() -> None:
    asked = task("t", cpus=1, constraints=["node.id == n"])
    books = info(node("n", cpus=1))
    pipeline = Pipeline(asked)
    assert pipeline.passes(books)
    books.claim(asked)
    assert not pipeline.still_passes(books)
    assert Pipeline(task("u")).still_passes(books)


def with_network(driver: str) -> objects.Task:
    asked = task("t")
    asked.networks.add().network.driver_state.name = driver
    return asked


def with_platform(os: str, architecture: str) -> objects.Task:
    asked = task("t")
    asked.spec.placement.platforms.add(os=os, architecture=architecture)
    return asked


DIFFERENT: list[Callable[[], objects.Task]] = [
    lambda: task("t"),
    lambda: task("t", image="host"),
    lambda: objects.Task(id="t", service_id="web"),
    lambda: task("t", constraints=["node.id == a"]),
    lambda: task("t", constraints=["node.id == a", "node.id != b"]),
    lambda: with_platform("linux", "amd64"),
    lambda: with_platform("linux", "arm64"),
    lambda: with_platform("windows", "amd64"),
    lambda: with_volume("nfs"),
    lambda: with_network("nfs"),
    lambda: with_log("nfs"),
]


def test_tasks_share_a_key_only_if_the_same_nodes_may_pass() -> None:
    keys = [fixed_key(make()) for make in DIFFERENT]
    assert len(set(keys)) == len(keys)
    assert [fixed_key(make()) for make in DIFFERENT] == keys


def test_what_placements_change_is_not_part_of_the_key() -> None:
    plain = fixed_key(task("t"))
    asking = task("u", service="db", version=7, cpus=1, max_replicas=2, ports=[port(80, 80, HOST)], image="redis")
    assert fixed_key(asking) == plain


def test_a_network_driver_has_to_be_there() -> None:
    assert passes(with_network("overlay"), with_plugins(("Network", "overlay")))
    assert not passes(with_network("overlay"), with_plugins(("Volume", "overlay")))
    assert passes(with_network(""), with_plugins())
