"""Which tasks stand in the table of a published service, and what a node reads in it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from runtime.swarm.ingress_tables import (
    PREFIX,
    Backend,
    IngressTables,
    PublishedPort,
    Routes,
    Target,
    encode,
    routes,
    takes_tables,
)
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.placing import HOST, SCTP, UDP, changed, node, port, service, task

WEB = PublishedPort(8080)


def published(*ports: types.PortConfig, id: str = "web") -> objects.Service:
    made = service(id)
    made.endpoint.ports.extend(ports or [port(80, 8080)])
    return made


def serving(id: str, node_id: str = "a", given: int = 9000, state: types.TaskState = types.RUNNING) -> objects.Task:
    made = task(id, node_id=node_id, state=state)
    made.status.port_status.ports.add(target_port=80, published_port=given, publish_mode=HOST)
    return made


def at(id: str, addr: str, state: types.NodeStatus.State = types.NodeStatus.READY) -> objects.Node:
    return changed(node(id, state=state), lambda made: setattr(made.status, "addr", addr))  # type: ignore[no-any-return]


def full() -> IngressTables:
    one = IngressTables()
    one.put_node(at("a", "10.1.1.1"))
    one.put_service(published())
    one.put_task(serving("t"))
    return one


def now(one: IngressTables) -> Routes:
    return routes(table.spec.data for table in one.all())


def test_a_running_task_stands_in_its_services_table_under_the_port_that_it_was_given() -> None:
    one = full()
    assert now(one) == {WEB: (Backend("10.1.1.1", 9000, "t"),)}
    assert list(one.take()) == [f"{PREFIX}web"]
    assert not one.changed


@pytest.mark.parametrize("state", [types.STARTING, types.READY, types.COMPLETE, types.FAILED])
def test_a_task_that_is_not_healthy_yet_or_has_ended_does_not(state: types.TaskState) -> None:
    one = full()
    one.put_task(serving("t", state=state))
    assert now(one) == {WEB: ()}


def test_a_task_that_is_to_stop_is_taken_out() -> None:
    one = full()
    one.take()
    one.put_task(changed(serving("t"), lambda made: setattr(made, "desired_state", types.SHUTDOWN)))
    assert now(one) == {WEB: ()}
    assert one.changed


@pytest.mark.parametrize("state", [types.NodeStatus.DOWN, types.NodeStatus.DISCONNECTED])
def test_tasks_of_a_lost_node_are_taken_out_and_come_back_with_it(state: types.NodeStatus.State) -> None:
    one = full()
    one.put_node(at("a", "10.1.1.1", state))
    assert now(one) == {WEB: ()}
    one.put_node(at("a", "10.1.1.2"))
    assert now(one) == {WEB: (Backend("10.1.1.2", 9000, "t"),)}
    one.remove_node("a")
    assert now(one) == {WEB: ()}


def test_what_changes_nothing_is_not_told_again() -> None:
    one = full()
    one.take()
    one.put_service(published())
    one.put_task(serving("t"))
    one.put_node(at("a", "10.1.1.1"))
    one.put_task(task("other", "another"))
    assert not one.changed


def test_a_service_without_ports_has_no_table_any_more() -> None:
    one = full()
    one.take()
    one.put_service(service())
    assert one.take() == {f"{PREFIX}web": None}
    one.remove_service("web")
    assert not one.changed
    assert one.all() == []


def test_only_tcp_and_udp_ports_in_ingress_mode_are_told() -> None:
    one = full()
    ports = port(80, 8080), port(81, 8081, HOST), port(53, 5353, protocol=UDP), port(54, 5354, protocol=SCTP), port(82)
    one.put_service(published(*ports))
    assert list(now(one)) == [PublishedPort(5353, "udp"), WEB]


def test_a_target_of_both_protocols_answers_for_each_where_it_was_given_a_port() -> None:
    one = full()
    one.put_service(published(port(80, 8080), port(80, 8080, protocol=UDP)))
    assert now(one) == {WEB: (Backend("10.1.1.1", 9000, "t"),), PublishedPort(8080, "udp"): ()}
    both = serving("t")
    both.status.port_status.ports.add(target_port=80, published_port=9000, publish_mode=HOST, protocol=UDP)
    one.put_task(both)
    assert set(now(one).values()) == {(Backend("10.1.1.1", 9000, "t"),)}


def test_a_node_that_knows_tcp_alone_reads_the_tables_of_services_with_udp() -> None:
    table = json.loads(encode([(WEB, 80), (PublishedPort(53, "udp"), 53)], [("t", "10.0.0.1", {("tcp", 80): 9000})]))
    assert table.pop("udp") == {"ports": [[53, 53]], "tasks": [["t", "10.0.0.1", []]]}
    assert table == {"ports": [[8080, 80]], "tasks": [["t", "10.0.0.1", [[80, 9000]]]]}
    assert "udp" not in json.loads(encode([(WEB, 80)], []))


def test_nothing_is_kept_of_what_is_gone() -> None:
    one = full()
    one.remove_task(serving("t"))
    one.remove_task(serving("t"))
    one.remove_service("web")
    one.remove_node("a")
    assert [getattr(one, name) for name in ("_ports", "_tasks", "_where", "_hosts")] == [{}, {}, {}, {}]


def test_nodes_of_processes_take_tables() -> None:
    assert takes_tables(node("n", engine_labels={"swarmlet.executor": "process"}))
    assert not takes_tables(node("n"))


PORTS = st.integers(1, 65535)
PROTOCOL = st.sampled_from(["tcp", "udp"])
PUBLISHED = st.builds(PublishedPort, PORTS, PROTOCOL)
GIVEN = st.dictionaries(st.tuples(PROTOCOL, PORTS), PORTS, max_size=3)
TASKS = st.lists(
    st.tuples(st.text(max_size=8), st.sampled_from(["10.0.0.1", "fd00::1"]), GIVEN),
    max_size=6,
    unique_by=lambda each: each[0],
)


@for_all(st.dictionaries(PUBLISHED, PORTS, max_size=4), TASKS)
def test_what_is_written_is_what_is_read(
    ports: dict[PublishedPort, int], tasks: list[tuple[str, str, dict[Target, int]]]
) -> None:
    found = routes([encode(ports.items(), tasks)])
    assert found == {
        each: tuple(
            sorted(
                Backend(host, given[each.protocol, target], id)
                for id, host, given in tasks
                if (each.protocol, target) in given
            )
        )
        for each, target in ports.items()
    }


@for_all(st.binary(max_size=40))
def test_anything_else_is_refused_as_a_value_error(data: bytes) -> None:
    try:
        routes([data])
    except ValueError:
        return
    assert data.startswith(b"{")
