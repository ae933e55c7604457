"""Published ports that nodes cannot listen on: what a label says, and who hears of it."""

from __future__ import annotations

import pytest

from runtime.swarm import ingress_blocked, troubles
from runtime.swarm.explaining import explain, find
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.little_store import LittleStore, node_of_id, service_of

BUSY = {"53/udp": "Permission denied", "8080/tcp": "Address already in use"}


def store_with(blocked: dict[str, str]) -> LittleStore:
    store, service = LittleStore(), service_of(replicas=0)
    for number, mode in ((8080, types.PortConfig.INGRESS), (9000, types.PortConfig.HOST)):
        service.endpoint.ports.add(target_port=80, published_port=number, publish_mode=mode)
    nodes = [node_of_id("n1"), node_of_id("n2")]
    for node in nodes:
        node.description.hostname = f"host-{node.id}"
    if blocked:
        nodes[1].description.engine.labels[ingress_blocked.LABEL] = ingress_blocked.to_label(blocked)
    store.put(service, *nodes)
    return store


def waits(store: LittleStore, name: str) -> list[tuple[str, list[str]]]:
    value = explain(store.view, find(store.view, "", name), ())
    return [(each["why"], each["subjects"]) for each in value["waits"]]


@pytest.mark.parametrize("blocked", [{}, {"8080/tcp": "Address already in use"}, BUSY])
def test_a_label_says_what_was_put_into_it(blocked: dict[str, str]) -> None:
    node = objects.Node()
    node.description.engine.labels[ingress_blocked.LABEL] = ingress_blocked.to_label(blocked)
    assert ingress_blocked.blocked_on(node) == blocked


def test_a_label_is_bounded_and_says_how_many_ports_it_leaves_out() -> None:
    many = {f"{port}/tcp": "x" * 500 for port in range(10_000, 30_000)}
    node = node_of_id("n1")
    node.description.engine.labels[ingress_blocked.LABEL] = label = ingress_blocked.to_label(many)
    assert len(label) < 5_000
    blocked = ingress_blocked.blocked_on(node)
    assert len(blocked) == ingress_blocked.PORTS_MAX + 1
    left = len(many) - ingress_blocked.PORTS_MAX
    assert [wait.why for wait in ingress_blocked.node_waits(node)][-1] == (
        f"{left} more published ports cannot be listened on there; they are tried again every 5 s"
    )
    exactly = dict(list(many.items())[: ingress_blocked.PORTS_MAX])
    assert ingress_blocked.REST not in ingress_blocked.to_label(exactly)


def test_a_node_explains_each_of_its_ports_and_a_service_those_that_it_publishes_in_ingress_mode() -> None:
    store = store_with({**BUSY, "9000/tcp": "Address already in use"})
    text = "published port 8080/tcp cannot be listened on there (Address already in use); it is tried again every 5 s"
    assert waits(store, "web") == [(text, ["node host-n2 (n2)"])]
    assert [why.split()[2] for why, _ in waits(store, "n2")] == ["53/udp", "8080/tcp", "9000/tcp"]
    assert waits(store, "n1") == []


def test_info_warns_of_each_such_node() -> None:
    assert troubles.warnings(store_with({}).view) == []
    store = store_with(BUSY)
    (told,) = troubles.warnings(store.view)
    ports = "53/udp: Permission denied; 8080/tcp: Address already in use"
    assert told == f"WARNING: Node host-n2 cannot listen on published ports: {ports}"
    twin = node_of_id("n3")
    twin.description.CopyFrom(store.view.get(objects.Node, "n2").description)  # type: ignore[union-attr]
    store.put(twin)
    assert troubles.warnings(store.view) == [told, told]
