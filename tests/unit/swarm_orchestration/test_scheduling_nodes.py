"""A node's books: what is taken, what is given back, which failures count."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from runtime.swarm import generic
from runtime.swarm.node_info import FAILURE_WINDOW_S, FAILURES_MAX, Held, NodeInfo, host_ports
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.placing import CPU, GIB, HOST, INGRESS, TCP, changed, node, port, task

KEY = ("web", 1)
GENERIC = [generic.discrete("ssd", 4), generic.named("gpu", "a"), generic.named("gpu", "b"), generic.named("gpu", "c")]


def holding(id: str, *assigned: types.GenericResource, **more: object) -> objects.Task:
    made = task(id, **more)  # type: ignore[arg-type]
    made.assigned_generic_resources.extend(assigned)
    return made


def books(info: NodeInfo) -> tuple[object, ...]:
    free = sorted(each.SerializeToString(deterministic=True) for each in info.generic)
    ports = {port: count for port, count in info.ports.items() if count}
    return info.nano_cpus, info.memory_bytes, info.active, dict(info.by_service), ports, free


TASKS = [
    holding("a", generic.discrete("ssd", 1), cpus=1),
    holding("b", generic.named("gpu", "a"), memory=GIB, ports=[port(80, 80, HOST)]),
    holding("c", generic.named("gpu", "c"), generic.discrete("ssd", 2), service="db"),
    holding("d", service="db", cpus=0.5, desired=types.SHUTDOWN, ports=[port(80, 80, HOST)]),
]


@given(st.permutations(range(4)), st.permutations(range(4)), st.integers(0, 4))
def test_books_do_not_depend_on_the_order_in_which_tasks_came_and_went(
    order: Sequence[int], other: Sequence[int], gone: int
) -> None:
    one, two = NodeInfo(node("n", generic=GENERIC)), NodeInfo(node("n", generic=GENERIC))
    for index in order:
        one.add(TASKS[index].id, Held.of(TASKS[index]))
    for index in other:
        two.add(TASKS[index].id, Held.of(TASKS[index]))
    assert books(one) == books(two)
    leaving = [TASKS[index].id for index in order[:gone]]
    for id in leaving:
        assert one.remove(id)
    for id in reversed(leaving):
        assert two.remove(id)
    assert books(one) == books(two)
    if gone == 4:
        assert books(one) == books(NodeInfo(node("n", generic=GENERIC)))


def test_a_task_that_is_added_again_counts_once() -> None:
    info = NodeInfo(node("n"))
    for _ in range(3):
        info.add("a", Held.of(task("a", cpus=1)))
    assert (info.nano_cpus, info.active) == (3 * CPU, 1)
    info.add("a", Held.of(task("a", cpus=1, desired=types.SHUTDOWN)))
    assert (info.nano_cpus, info.active, dict(info.by_service)) == (3 * CPU, 0, {})
    assert info.remove("a")
    assert not info.remove("a")
    assert info.nano_cpus == 4 * CPU


def test_a_task_is_active_up_to_the_desired_state_complete() -> None:
    states = [types.READY, types.RUNNING, types.COMPLETE, types.SHUTDOWN, types.REMOVE]
    active = [Held.of(task("a", desired=state)).active for state in states]
    assert active == [True, True, True, False, False]


def test_a_changed_node_is_counted_anew_with_the_tasks_that_it_has() -> None:
    info = NodeInfo(node("n", generic=GENERIC))
    info.add("a", Held.of(holding("a", generic.named("gpu", "b"), cpus=1, memory=GIB)))
    info.replace(node("n", cpus=2, memory=GIB, generic=[generic.named("gpu", "b"), generic.named("gpu", "z")]))
    assert (info.nano_cpus, info.memory_bytes) == (1 * CPU, 0)
    assert list(info.generic) == [generic.named("gpu", "z")]


def test_what_is_owed_by_a_node_that_shrank_is_not_given_out_twice() -> None:
    info = NodeInfo(node("n", generic=[generic.discrete("ssd", 4)]))
    info.add("a", Held.of(holding("a", generic.discrete("ssd", 2))))
    info.add("b", Held.of(holding("b", generic.discrete("ssd", 2))))
    info.replace(node("n", generic=[generic.discrete("ssd", 2)]))
    assert list(info.generic) == []
    info.remove("a")
    assert list(info.generic) == []
    info.remove("b")
    assert list(info.generic) == [generic.discrete("ssd", 2)]


def test_a_claim_takes_numbers_and_the_first_names() -> None:
    info = NodeInfo(node("n", generic=GENERIC))
    asked = task("t", cpus=1, generic=[generic.discrete("gpu", 2), generic.discrete("ssd", 3)])
    assigned = info.claim(asked)
    assert list(assigned) == [generic.named("gpu", "a"), generic.named("gpu", "b"), generic.discrete("ssd", 3)]
    left = sorted(map(str, info.generic))
    assert left == sorted(map(str, [generic.discrete("ssd", 1), generic.named("gpu", "c")]))
    info.remove("t")
    assert books(info) == books(NodeInfo(node("n", generic=GENERIC)))


def test_ports_of_the_host_are_those_allocated_else_those_of_the_spec() -> None:
    made = task("t", ports=[port(80, 8080, HOST), port(81, 8081, INGRESS), port(82, 0, HOST)])
    assert host_ports(made) == ((TCP, 8080),)
    bare = changed(made, lambda new: new.endpoint.ClearField("ports"))
    bare.endpoint.spec.ports.append(port(90, 9090, HOST))
    assert host_ports(bare) == ((TCP, 9090),)


def test_a_port_is_held_as_long_as_somebody_holds_it() -> None:
    info = NodeInfo(node("n"))
    for id in ("a", "b"):
        info.add(id, Held.of(task(id, ports=[port(80, 8080, HOST)])))
    info.remove("a")
    assert info.ports[TCP, 8080] == 1
    info.remove("b")
    assert info.ports[TCP, 8080] == 0


def test_failures_count_for_five_minutes() -> None:
    info = NodeInfo(node("n"))
    info.failed(task("a"), 10.0)
    info.failed(task("b"), 20.0)
    assert info.recent_failures(KEY, 20.0) == 2
    assert info.recent_failures(("web", 2), 20.0) == 0
    assert info.recent_failures(KEY, 10.0 + FAILURE_WINDOW_S) == 1
    assert info.recent_failures(KEY, 20.0 + FAILURE_WINDOW_S) == 0
    assert info.failures == {}


def test_old_failures_of_services_nobody_asks_about_are_forgotten() -> None:
    info = NodeInfo(node("n"))
    info.failed(task("a", service="gone"), 0.0)
    info.failed(task("b"), 200.0)
    info.prune(FAILURE_WINDOW_S)
    assert list(info.failures) == [KEY]


def test_a_node_is_better_with_fewer_failures_if_many_then_own_tasks_then_all_tasks() -> None:
    failing, own, busy, idle = (NodeInfo(node(id)) for id in ("failing", "own", "busy", "idle"))
    for _ in range(FAILURES_MAX):
        failing.failed(task("f"), 1.0)
    for _ in range(FAILURES_MAX - 1):
        idle.failed(task("f"), 1.0)
    own.add("x", Held.of(task("x")))
    for id in ("p", "q", "r"):
        busy.add(id, Held.of(task(id, service="db")))
    assert sorted([failing, own, busy, idle], key=lambda info: info.rank(KEY, 2.0)) == [idle, busy, own, failing]
    assert failing.rank(("web", 2), 2.0) < own.rank(("web", 2), 2.0)
