"""AllocatorActor over a real store: endpoints, tasks that may be scheduled, what waits and why."""

from __future__ import annotations

from typing import Any

import pytest

from actors import allocator_actor
from actors.allocator_actor import AllocatorActor
from runtime.protocol.explain import AskWaits
from runtime.protocol.store import Write
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.messages.part_bench import PartBench
from tests.unit.swarm_orchestration.placing import attach, given, ingress, network, node, port, service, task


def bench(*made: Any, **more: Any) -> PartBench:
    return PartBench(AllocatorActor, ingress(), *made, **more)


def new(id: str, service: str = "web", **more: Any) -> objects.Task:
    made = task(id, service, state=types.NEW, **more)
    made.status.message = "created"
    return made


def pending(one: PartBench, id: str) -> bool:
    return one.task(id).status.state == types.PENDING


def ports(one: PartBench, id: str = "web") -> list[int]:
    return [each.published_port for each in one.service(id).endpoint.ports]


def test_what_waits_when_it_starts_is_allocated() -> None:
    one = bench(service(ports=[port(80)]), new("t"))
    one.wait(lambda: pending(one, "t"))
    assert ports(one) == [30000]
    assert one.task("t").endpoint == one.service().endpoint
    assert one.task("t").status.message == "pending task scheduling"


def test_a_service_and_its_tasks_take_one_transaction() -> None:
    one = bench()
    one.simulator.run_for(1)
    before = one.index
    one.put(service(ports=[port(80)]), new("a"), new("b", slot=2))
    one.wait(lambda: pending(one, "a") and pending(one, "b"))
    assert one.index == before + 2


def test_a_task_is_pending_as_soon_as_it_is_created() -> None:
    one = bench(service())
    one.simulator.run_for(1)
    one.put(new("t"))
    since = one.simulator.time
    one.wait(lambda: pending(one, "t"))
    assert one.simulator.time - since < 0.02


def test_an_update_of_ports_reaches_the_endpoint_and_new_tasks() -> None:
    one = bench(service(ports=[port(80), port(81)]))
    one.wait(lambda: ports(one) == [30000, 30001])
    one.edit(objects.Service, "web", lambda new: new.spec.endpoint.ports.pop(0))
    one.put(new("t"))
    one.wait(lambda: pending(one, "t"))
    assert ports(one) == [30001]
    assert [each.published_port for each in one.task("t").endpoint.ports] == [30001]


def test_a_port_that_is_taken_makes_tasks_wait_until_it_is_free() -> None:
    one = bench(service("a", [port(80, 8080)]))
    one.wait(lambda: ports(one, "a") == [8080])
    one.put(service("b", [port(80, 8080)]), new("t", "b"))
    one.wait(lambda: one.task("t").status.err != "")
    status = one.task("t").status
    assert (status.state, status.message, status.err) == (types.NEW, "created", "port 8080/tcp is already published")
    one.remove(objects.Service, "a")
    one.wait(lambda: pending(one, "t"))
    assert ports(one, "b") == [8080]
    assert one.task("t").status.err == ""


def test_the_same_reason_is_written_once() -> None:
    one = bench(service("a", [port(80, 8080)]), service("b", [port(80, 8080)]), new("t", "b"))
    one.wait(lambda: one.task("t").status.err != "")
    before = one.published.view.version
    one.simulator.run_for(700)
    assert one.published.view.version == before


def test_a_service_without_ports_tries_again_every_five_minutes() -> None:
    one = bench(service("a", [port(80, 8080)]), service("b", [port(80, 8080)]))
    one.wait(lambda: one.actor.allocator.blocked == 1)
    since = one.simulator.time
    retried: list[float] = []
    retry = one.actor.allocator.retry
    AllocatorSpy.install(one, lambda: (retried.append(one.simulator.time - since), retry()))
    one.simulator.run_for(901)
    assert [round(at) for at in retried] == [300, 600, 900]


class AllocatorSpy:
    """Stands before an allocator and hears of retries."""

    def __init__(self, allocator: Any, retry: Any) -> None:
        self._allocator = allocator
        self.retry = retry

    def __getattr__(self, name: str) -> Any:
        return getattr(self._allocator, name)

    @classmethod
    def install(cls, one: PartBench, retry: Any) -> None:
        one.actor.allocator = cls(one.actor.allocator, retry)


def test_a_task_that_asks_for_a_network_waits_and_says_why() -> None:
    asking = new("t")
    asking.spec.networks.add(target="backend")
    one = bench(service(), asking)
    one.wait(lambda: one.task("t").status.err != "")
    assert (one.task("t").status.state, one.task("t").status.err) == (types.NEW, "network backend not found")
    one.edit(objects.Task, "t", lambda made: setattr(made, "desired_state", types.REMOVE))
    one.wait(lambda: pending(one, "t"))


def test_a_service_that_changes_before_the_transaction_is_decided_about_anew() -> None:
    one = bench(service(), new("first"))
    one.wait(lambda: pending(one, "first"))
    one.held = True

    def add(number: int) -> Any:
        def step(tx: Any) -> None:
            made = objects.Service()
            made.CopyFrom(tx.get(objects.Service, "web"))
            made.spec.endpoint.ports.append(port(number))
            tx.update(made)

        return step

    one.store.ask(Write(add(80)))
    one.simulator.settle()
    one.commit_up_to(one.proposed[-1].number)
    one.store.ask(Write(add(81)))
    one.store.ask(Write(lambda tx: tx.create(new("t"))))
    one.simulator.run_for(0.2)
    one.release()
    one.wait(lambda: pending(one, "t"))
    assert sorted(ports(one)) == [30000, 30001]
    assert len(one.task("t").endpoint.ports) == 2


def test_many_tasks_are_written_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator_actor, "SLICE", 100)
    one = bench(service())
    one.simulator.run_for(1)
    one.held = True
    one.store.ask(
        Write(lambda tx: [tx.create(new(f"t{number:03}", slot=number + 1)) for number in range(150)] and None)
    )
    one.store.ask(
        Write(lambda tx: [tx.create(new(f"u{number:03}", slot=number + 1)) for number in range(150)] and None)
    )
    one.simulator.settle()
    one.commit_up_to(one.proposed[-1].number)
    one.simulator.settle()
    shot = one.actor.snapshot()
    assert (shot["in flight"], shot["waiting"]) == (100, 300)
    one.release()
    one.wait(lambda: all(each.status.state == types.PENDING for each in one.published.view.all(objects.Task)))
    one.simulator.run_for(0.1)
    assert one.actor.snapshot() == {"waiting": 0, "without room": 0, "in flight": 0, "unwritten": 0, "put aside": 0}


def test_a_proposal_that_is_refused_is_tried_again() -> None:
    one = bench()
    one.simulator.run_for(1)
    one.put(service(ports=[port(80)]))
    one.held = True
    one.wait(lambda: bool(one.proposed))
    one.refuse()
    one.held = False
    life = one.actor
    one.wait(lambda: ports(one) != [])
    assert ports(one) == [30000]
    assert one.actor is life


def test_what_no_log_entry_holds_is_put_aside_with_its_reason_and_holds_up_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fat = [given(network(id, f"10.0.{number}.0/24")) for number, id in enumerate(("fat1", "fat2"), 1)]
    one = bench(service())
    for each in fat:
        each.spec.annotations.labels["x"] = "y" * 900_000
        one.put(each)
    one.put(attach(new("large"), "fat1", "fat2"))
    one.wait(lambda: one.actor.snapshot()["put aside"] == 1)
    before = one.index
    one.simulator.run_for(100)
    assert one.index == before
    assert one.task("large").status.state == types.NEW
    (wait,) = one.simulator.ask(one.part, AskWaits("web")).waits
    assert (wait.subject, wait.who, "too large" in wait.why) == ("large", "allocator", True)
    assert [record.message for record in caplog.records if "large" in record.message] != []
    one.put(attach(new("small", slot=2), "fat1"))
    one.wait(lambda: pending(one, "small"))
    one.edit(objects.Network, "fat2", lambda it: it.spec.annotations.labels.clear())
    one.simulator.run_for(300)
    one.wait(lambda: pending(one, "large"))
    assert one.actor.snapshot()["put aside"] == 0


def test_a_new_life_waits_for_the_ports_that_the_last_one_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator_actor, "SLICE", 1)
    one = bench(service("first", [port(80)]))
    one.wait(lambda: ports(one, "first") == [30000])
    one.remove(objects.Service, "first")
    one.held = True
    one.store.ask(Write(lambda tx: [tx.create(service(id, [port(80)])) for id in "ab"] and None))
    one.simulator.settle()
    one.commit_up_to(one.proposed[-1].number)
    one.simulator.settle()
    assert len(one.proposed) == 1  # the next number for a, while b has to wait
    one.crash()
    one.simulator.run_for(2)
    assert len(one.proposed) == 1
    one.release()
    one.wait(lambda: ports(one, "b") != [])
    assert (ports(one, "a"), ports(one, "b")) == ([30001], [30000])


@pytest.mark.parametrize("seed", range(4))
def test_crashes_in_the_middle_never_give_a_port_twice(seed: int) -> None:
    one = bench(seed=seed)
    for number in range(6):
        one.put(service(f"s{number}", [port(80), port(81)]), new(f"t{number}", f"s{number}"))
        one.simulator.run_for(0.0005 * (seed + 1))
        one.crash()
    one.simulator.run_for(30)
    numbers = [each for number in range(6) for each in ports(one, f"s{number}")]
    assert sorted(numbers) == sorted(set(numbers))
    assert len(numbers) == 12
    assert all(pending(one, f"t{number}") for number in range(6))


def back() -> objects.Network:
    return given(network("back", "10.0.1.0/24"))


def test_a_service_on_a_network_and_its_task_and_node_get_addresses() -> None:
    one = bench(back(), node("n"))
    one.wait(lambda: len(attachments(one, "n")) == 1)
    one.put(attach(service(), "back"), new("t", node_id="n"))
    one.wait(lambda: pending(one, "t") and len(attachments(one, "n")) == 2)
    assert [each.addr for each in one.service().endpoint.virtual_ips] == ["10.0.1.2/24"]
    assert [list(each.addresses) for each in one.task("t").networks] == [["10.0.1.3/24"]]
    assert attachments(one, "n") == [("ingress", "10.0.0.2/24"), ("back", "10.0.1.4/24")]


def attachments(one: PartBench, id: str) -> list[tuple[str, str]]:
    found = one.published.view.get(objects.Node, id)
    assert found is not None
    return [(each.network.id, each.addresses[0]) for each in found.attachments]


def test_a_network_that_was_left_without_subnets_gets_them() -> None:
    one = bench(network("back"))

    def subnets() -> list[str]:
        found = one.published.view.get(objects.Network, "back")
        assert found is not None
        return [each.subnet for each in found.ipam.configs]

    one.wait(lambda: subnets() == ["10.0.1.0/24"])


def test_an_ended_tasks_address_goes_to_the_next_that_waits() -> None:
    one = bench(given(network("back", "10.0.1.0/30")), attach(new("a", ""), "back"), attach(new("b", ""), "back"))
    one.wait(lambda: pending(one, "a") and one.task("b").status.err != "")
    assert one.task("b").status.err == "no address is free on network back (10.0.1.0/30)"
    one.edit(objects.Task, "a", lambda made: setattr(made.status, "state", types.FAILED))
    one.wait(lambda: pending(one, "b"))
    assert list(one.task("b").networks[0].addresses) == ["10.0.1.2/30"]


def test_a_life_after_a_failure_gives_no_address_twice() -> None:
    one = bench(back(), attach(service("a"), "back"))
    one.wait(lambda: len(one.service("a").endpoint.virtual_ips) == 1)
    one.held = True
    one.store.ask(Write(lambda tx: tx.create(attach(service("b"), "back")) and None))
    one.simulator.settle()
    one.commit_up_to(one.proposed[-1].number)
    one.simulator.settle()  # what b gets is proposed, and not committed
    one.crash()
    one.simulator.run_for(0.2)
    one.release()
    one.put(attach(service("c"), "back"), attach(new("t", ""), "back"))
    one.wait(lambda: pending(one, "t") and len(one.service("c").endpoint.virtual_ips) == 1)
    found = [one.service(id).endpoint.virtual_ips[0].addr for id in "abc"] + list(one.task("t").networks[0].addresses)
    assert len(set(found)) == 4
