"""The allocator: endpoints of services, and tasks on their way from NEW to PENDING."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.swarm.allocation import (
    Allocation,
    Allocator,
    ServiceAllocation,
    TaskAllocation,
    commit,
    ports_are_allocated,
)
from runtime.swarm.endpoint_ports import ingress_ports
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.placing import HOST, Store, changed, ingress, port, service, task


def new(id: str, service: str = "web", **more: Any) -> objects.Task:
    made = task(id, service, state=types.NEW, **more)
    made.status.message = "created"
    return made


class Bench:
    """An allocator over a store that tells it of every change."""

    def __init__(self, *made: Any) -> None:
        self.store = Store()
        self.allocator = Allocator()
        self.put(ingress(), *made)

    def put(self, *made: Any) -> None:
        self.store.put(*made)
        for each in made:
            self.tell(each)

    def tell(self, made: Any) -> None:
        stored = self.store.view.get(type(made), made.id)
        if isinstance(stored, objects.Network):
            self.allocator.put_network(stored)
        elif isinstance(stored, objects.Service):
            self.allocator.put_service(stored)
        elif isinstance(stored, objects.Task):
            self.allocator.put_task(stored)

    def edit(self, id: str, edit: Any) -> None:
        self.put(changed(self.store.service(id), edit))

    def remove(self, id: str) -> None:
        self.store.delete(self.store.service(id))
        self.allocator.remove_service(id)

    def write(self, decisions: Iterable[Allocation]) -> list[Allocation]:
        failed = []
        for decision in decisions:
            if not self.store.run(lambda tx, decision=decision: commit(tx, decision)):  # type: ignore[misc]
                failed.append(decision)
            elif isinstance(decision, ServiceAllocation):
                self.tell(objects.Service(id=decision.service_id))
            else:
                self.tell(objects.Task(id=decision.task_id))
        self.allocator.commit_failed(failed)
        return failed

    def run(self) -> list[Allocation]:
        decisions = self.allocator.run()
        self.write(decisions)
        return decisions

    def ports(self, id: str = "web") -> list[int]:
        return [each.published_port for each in self.store.service(id).endpoint.ports]


def test_a_service_gets_its_endpoint_and_its_task_a_copy() -> None:
    bench = Bench(service(ports=[port(80), port(81, 8081), port(82, 0, HOST)]), new("t"))
    assert [type(each) for each in bench.run()] == [ServiceAllocation, TaskAllocation]
    stored = bench.store.service()
    assert stored.endpoint.spec == stored.spec.endpoint
    assert bench.ports() == [30000, 8081, 0]
    made = bench.store.task("t")
    assert made.endpoint == stored.endpoint
    assert (made.status.state, made.status.message) == (types.PENDING, "pending task scheduling")
    assert made.status.timestamp.seconds == 1_700_000_000
    assert not bench.allocator.due
    assert bench.allocator.waiting == 0


def test_a_service_that_is_allocated_is_left_alone() -> None:
    bench = Bench(service(ports=[port(80)]))
    bench.run()
    bench.edit("web", lambda new: setattr(new.update_status, "message", "x"))
    assert not bench.allocator.due
    assert bench.run() == []


def test_a_service_without_an_endpoint_spec_has_no_endpoint() -> None:
    bench = Bench(service(endpoint=False), new("t"))
    assert bench.run() == [TaskAllocation("t", "")]
    assert not bench.store.service().HasField("endpoint")
    assert not bench.store.task("t").HasField("endpoint")
    bench.put(service("other", [port(80)]))
    bench.run()
    bench.edit("other", lambda new: new.spec.ClearField("endpoint"))
    bench.run()
    assert not bench.store.service("other").HasField("endpoint")
    bench.put(service("third", [port(80, 30000)]))
    bench.run()
    assert bench.ports("third") == [30000]


def test_a_task_without_a_service_needs_nothing() -> None:
    bench = Bench(new("t", service=""))
    bench.run()
    assert bench.store.task("t").status.state == types.PENDING


def test_an_update_keeps_numbers_and_frees_those_that_are_not_used() -> None:
    bench = Bench(service(ports=[port(80), port(81)]))
    bench.run()
    bench.edit("web", lambda new: new.spec.endpoint.ports.pop(0))
    bench.run()
    assert bench.ports() == [30001]
    bench.put(service("db", [port(80, 30000)]))
    bench.run()
    assert bench.ports("db") == [30000]


def test_a_change_of_host_ports_alone_updates_the_endpoint() -> None:
    bench = Bench(service(ports=[port(80), port(81, 81, HOST)]))
    bench.run()
    bench.edit("web", lambda new: setattr(new.spec.endpoint.ports[1], "published_port", 82))
    bench.run()
    assert bench.ports() == [30000, 82]


def test_a_service_without_free_ports_waits_and_its_tasks_say_why_once() -> None:
    bench = Bench(service("a", [port(80, 8080)]))
    bench.run()
    bench.put(service("b", [port(80, 8080)]), new("t", "b"))
    assert bench.run() == [TaskAllocation("t", "port 8080/tcp is already published")]
    waiting = bench.store.task("t").status
    assert (waiting.state, waiting.message, waiting.err) == (
        types.NEW,
        "created",
        "port 8080/tcp is already published",
    )
    assert bench.allocator.blocked == 1
    assert bench.run() == []
    assert not bench.allocator.due
    bench.remove("a")
    assert bench.allocator.due
    bench.run()
    assert bench.ports("b") == [8080]
    made = bench.store.task("t").status
    assert (made.state, made.err) == (types.PENDING, "")


def test_tasks_of_a_blocked_service_that_come_later_say_why_too() -> None:
    bench = Bench(service("a", [port(80, 8080)]))
    bench.run()
    bench.put(service("b", [port(80, 8080)]))
    bench.run()
    bench.put(new("t", "b"))
    bench.run()
    assert bench.store.task("t").status.err == "port 8080/tcp is already published"


def test_a_blocked_service_tries_again_when_it_changes_or_is_told_to() -> None:
    bench = Bench(service("a", [port(80, 8080)]))
    bench.run()
    bench.put(service("b", [port(80, 8080)]))
    bench.run()
    assert not bench.allocator.due
    bench.allocator.retry()
    assert bench.allocator.due
    bench.run()
    assert bench.allocator.blocked == 1
    bench.edit("b", lambda new: setattr(new.spec.endpoint.ports[0], "published_port", 8081))
    bench.run()
    assert bench.ports("b") == [8081]
    assert bench.allocator.blocked == 0


def test_tasks_that_ask_for_networks_wait_and_say_why() -> None:
    by_task, by_service = new("t"), new("u", "net")
    by_task.spec.networks.add(target="backend")
    networked = service("net")
    networked.spec.networks.add(target="backend")
    bench = Bench(service(), networked, by_task, by_service, new("v"))
    bench.run()
    for id in ("t", "u"):
        status = bench.store.task(id).status
        assert (status.state, status.err) == (types.NEW, "network backend not found")
    assert bench.store.task("v").status.state == types.PENDING


def test_a_task_that_is_not_wanted_need_not_wait() -> None:
    bench = Bench(service("a", [port(80, 8080)]))
    bench.run()
    blocked = new("t", "b", desired=types.SHUTDOWN)
    networked = new("u", "a", desired=types.REMOVE)
    networked.spec.networks.add(target="backend")
    bench.put(service("b", [port(80, 8080)]), blocked, networked, new("v", "gone", desired=types.REMOVE))
    bench.run()
    assert [bench.store.task(id).status.state for id in "tuv"] == [types.PENDING] * 3


def test_a_task_whose_service_is_unknown_waits_for_it() -> None:
    bench = Bench(new("t"))
    assert bench.run() == []
    assert bench.allocator.waiting == 1
    bench.put(service())
    bench.run()
    assert bench.store.task("t").status.state == types.PENDING


def test_a_service_that_changed_meanwhile_is_decided_about_anew() -> None:
    bench = Bench(service(ports=[port(80)]), new("t"))
    decisions = bench.allocator.run()
    bench.store.put(changed(bench.store.service(), lambda new: new.spec.endpoint.ports.append(port(81))))
    assert bench.write(decisions) == decisions
    bench.tell(bench.store.service())
    bench.run()
    assert len(bench.ports()) == 2
    assert bench.store.task("t").endpoint == bench.store.service().endpoint


def test_a_decision_that_is_taken_again_gives_the_same_numbers() -> None:
    bench = Bench(service(ports=[port(80), port(81)]))
    for _ in range(3):
        decisions = bench.allocator.run()
        bench.allocator.commit_failed(decisions)
    bench.run()
    assert bench.ports() == [30000, 30001]


def test_numbers_of_a_decision_that_failed_are_free_once_another_is_stored() -> None:
    bench = Bench(service(ports=[port(80)]))
    decisions = bench.allocator.run()
    bench.store.put(changed(bench.store.service(), lambda new: new.spec.endpoint.ClearField("ports")))
    bench.write(decisions)
    bench.tell(bench.store.service())
    bench.run()
    bench.put(service("b", [port(80, 30000)]))
    bench.run()
    assert bench.ports("b") == [30000]


def test_ports_that_the_store_still_shows_are_not_given_away() -> None:
    bench = Bench(service("a", [port(80, 8080)]))
    bench.run()
    bench.edit("a", lambda new: setattr(new.spec.endpoint.ports[0], "published_port", 8081))
    bench.put(service("b", [port(80, 8080)]))
    first = bench.allocator.run()
    assert [each.service_id for each in first if isinstance(each, ServiceAllocation)] == ["a"]
    bench.write(first)
    bench.run()
    assert (bench.ports("a"), bench.ports("b")) == ([8081], [8080])


def test_what_is_gone_is_no_failure() -> None:
    bench = Bench(service(ports=[port(80)]), new("t"))
    decisions = bench.allocator.run()
    bench.store.delete(bench.store.task("t"))
    bench.remove("web")
    bench.allocator.remove_task("t")
    assert bench.write(decisions) == []
    assert not bench.allocator.due


def test_a_task_that_moved_on_is_left_alone() -> None:
    bench = Bench(service(), new("t"))
    decisions = bench.allocator.run()
    bench.store.put(task("t", state=types.ASSIGNED, node_id="n"))
    assert bench.write(decisions) == []
    assert bench.store.task("t").status.state == types.ASSIGNED


def test_a_new_allocator_goes_on_with_the_ports_that_are_stored() -> None:
    bench = Bench(service("b", [port(80)]), service("c", [port(80), port(81)]))
    bench.run()
    bench.put(service("a", [port(80)]), new("t", "a"))
    heir = Allocator()
    view = bench.store.view
    heir.load(view.all(objects.Service), view.all(objects.Task), view.all(objects.Network))
    first, second = heir.run()
    assert isinstance(first, ServiceAllocation)
    assert first.endpoint is not None
    assert [each.published_port for each in first.endpoint.ports] == [30003]
    assert isinstance(second, TaskAllocation)
    assert (second.task_id, second.err, second.endpoint) == ("t", "", first.endpoint)


def test_a_port_that_two_services_have_stays_with_the_first() -> None:
    twins = [service("a", [port(80)]), service("b", [port(80)])]
    for each in twins:
        each.endpoint.spec.CopyFrom(each.spec.endpoint)
        each.endpoint.ports.append(port(80, 30000))
    bench = Bench()
    bench.store.put(*twins)
    bench.allocator.load(bench.store.view.all(objects.Service), [])
    bench.run()
    assert (bench.ports("a"), bench.ports("b")) == ([30000], [30001])


IDS = st.sampled_from("abc")
SPECS = st.lists(st.builds(port, st.integers(80, 82), st.sampled_from([0, 0, 8080, 8081, 30000])), max_size=3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), IDS, SPECS),
        st.tuples(st.just("remove"), IDS, st.none()),
        st.tuples(st.just("task"), IDS, st.none()),
        st.tuples(st.just("lose"), IDS, st.none()),
        st.tuples(st.just("restart"), IDS, st.none()),
    ),
    max_size=14,
)


@given(STEPS)
@settings(max_examples=80)
def test_whatever_happens_ports_are_unique_and_waiting_has_a_reason(steps: list[tuple[str, str, Any]]) -> None:
    bench = Bench()
    for number, (kind, id, ports) in enumerate(steps):
        stored = bench.store.view.get(objects.Service, id)
        if kind == "put" and stored is None:
            bench.put(service(id, ports))
        elif kind == "put":
            bench.edit(id, lambda new, ports=ports: new.spec.CopyFrom(service(new.id, ports).spec))  # type: ignore[misc]
        elif kind == "remove" and stored is not None:
            bench.remove(id)
        elif kind == "task" and stored is not None:
            bench.put(new(f"t{number}", id))
        elif kind == "lose":
            bench.allocator.commit_failed(bench.allocator.run())
        elif kind == "restart":
            bench.allocator = Allocator()
            view = bench.store.view
            bench.allocator.load(view.all(objects.Service), view.all(objects.Task), view.all(objects.Network))
        bench.run()
        bench.run()
        services = bench.store.view.all(objects.Service)
        taken = [each for one in services for each in ingress_ports(one.endpoint.ports)]
        assert len(taken) == len(set(taken))
        unallocated = [one.id for one in services if not ports_are_allocated(one)]
        assert len(unallocated) == bench.allocator.blocked
        for each in bench.store.view.all(objects.Task):
            waits = each.status.state == types.NEW
            there = bench.store.view.get(objects.Service, each.service_id) is not None
            assert not (waits and there) or (each.service_id in unallocated and each.status.err)
