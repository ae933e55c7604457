"""The allocator and networks: virtual addresses of services, addresses of tasks and nodes, what waits and is fed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from runtime.swarm.allocation import Allocation, Allocator, NetworkAllocation, commit
from runtime.swarm.control.applied import settled
from runtime.wire.pb import control_pb2 as control
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.placing import (
    HOST,
    Store,
    attach,
    changed,
    given,
    ingress,
    network,
    node,
    port,
    service,
    task,
)

Addresses = list[tuple[str, str]]


class Bench:
    """An allocator over a store that tells it of every change, as its actor does."""

    def __init__(self, *made: Any) -> None:
        self.store = Store()
        self.allocator = Allocator()
        self.put(*made)

    def put(self, *made: Any) -> None:
        """Creates or replaces objects, one after the other."""
        for each in made:
            self.change(lambda store, each=each: store.put(each))  # type: ignore[misc]

    def edit(self, made: Any, edit: Callable[[Any], object]) -> None:
        self.put(changed(self.store.view.get(type(made), made.id), edit))

    def remove(self, made: Any) -> None:
        self.change(lambda store: store.delete(made))

    def change(self, change: Callable[[Store], Any]) -> None:
        before = self.store.view
        change(self.store)
        told = self.allocator
        for kind, put, remove in (
            (objects.Network, told.put_network, told.remove_network),
            (objects.Node, told.put_node, told.remove_node),
            (objects.Service, told.put_service, told.remove_service),
            (objects.Task, told.put_task, told.remove_task),
        ):
            after = {each.id: each for each in self.store.view.all(kind)}
            for each in before.all(kind):
                if each.id not in after:
                    remove(each.id)
            for id, new in after.items():
                if before.get(kind, id) is not new:
                    put(new)  # type: ignore[arg-type]

    def run(self) -> list[Allocation]:
        """Runs until nothing more is decided; what the store refuses is decided again."""
        all_decisions = []
        for _ in range(20):
            if not self.allocator.due:
                return all_decisions
            decisions = self.allocator.run()
            all_decisions += decisions
            self.allocator.commit_failed([each for each in decisions if not self._write(each)])
        raise AssertionError("it never comes to rest")

    def _write(self, decision: Allocation) -> bool:
        done: list[bool] = []
        self.change(lambda store: done.append(store.run(lambda tx: commit(tx, decision))))
        return done[0]

    def restart(self) -> None:
        """A new allocator with what the store holds."""
        self.allocator = Allocator()
        kinds = (objects.Service, objects.Task, objects.Network, objects.Node)
        self.allocator.load(*(self.store.view.all(kind) for kind in kinds))  # type: ignore[arg-type]

    def virtual(self, id: str = "web") -> Addresses:
        return [(each.network_id, each.addr) for each in self.store.service(id).endpoint.virtual_ips]

    def addresses(self, id: str) -> Addresses:
        return [(each.network.id, each.addresses[0] if each.addresses else "") for each in self.store.task(id).networks]

    def of_node(self, id: str) -> Addresses:
        found = self.store.view.get(objects.Node, id)
        assert found is not None
        return [(each.network.id, each.addresses[0]) for each in found.attachments]

    def pending(self, id: str) -> bool:
        return self.store.task(id).status.state == types.PENDING

    def err(self, id: str) -> str:
        return self.store.task(id).status.err


def new(id: str, service: str = "web", **more: Any) -> objects.Task:
    return task(id, service, state=types.NEW, **more)


def back(subnet: str = "10.0.1.0/24") -> objects.Network:
    return given(network("back", subnet))


def end(made: objects.Task) -> None:
    made.status.state = types.SHUTDOWN


def test_a_service_has_an_address_on_ingress_first_then_on_each_of_its_networks() -> None:
    bench = Bench(ingress(), back(), attach(service(ports=[port(80, 8080)]), "back"), new("t"))
    bench.run()
    assert bench.virtual() == [("ingress", "10.0.0.2/24"), ("back", "10.0.1.2/24")]
    assert bench.addresses("t") == [("ingress", "10.0.0.3/24"), ("back", "10.0.1.3/24")]
    made = bench.store.task("t")
    assert (made.endpoint, made.status.state) == (bench.store.service().endpoint, types.PENDING)
    assert made.networks[1].network == bench.store.view.get(objects.Network, "back")


def test_without_ingress_ports_there_is_no_address_on_ingress() -> None:
    bench = Bench(ingress(), service(ports=[port(80, 8080, HOST)]), new("t"))
    bench.run()
    assert (bench.virtual(), bench.addresses("t"), bench.pending("t")) == ([], [], True)


def test_a_service_that_asks_for_dns_alone_has_no_address_and_its_tasks_have() -> None:
    made = attach(service(), "back")
    made.spec.endpoint.mode = specs.EndpointSpec.DNSRR
    bench = Bench(back(), made, new("t"))
    bench.run()
    assert (bench.virtual(), bench.addresses("t")) == ([], [("back", "10.0.1.2/24")])


def test_a_service_without_an_endpoint_spec_has_addresses_on_its_networks() -> None:
    bench = Bench(back(), attach(service(endpoint=False), "back"), new("t"))
    bench.run()
    assert bench.virtual() == [("back", "10.0.1.2/24")]
    assert bench.pending("t")
    assert not bench.allocator.due
    bench.edit(service(), lambda made: made.spec.task.ClearField("networks"))
    bench.run()
    assert not bench.store.service().HasField("endpoint")


def test_a_change_of_networks_keeps_the_addresses_that_go_on() -> None:
    front = given(network("front", "10.0.2.0/24"))
    bench = Bench(back(), front, attach(service(), "back"))
    bench.run()
    bench.edit(service(), lambda made: made.spec.task.networks.insert(0, types.NetworkAttachmentConfig(target="front")))
    bench.run()
    assert bench.virtual() == [("front", "10.0.2.2/24"), ("back", "10.0.1.2/24")]
    bench.edit(service(), lambda made: made.spec.task.networks.pop(1))
    bench.run()
    assert bench.virtual() == [("front", "10.0.2.2/24")]
    assert not bench.allocator.due


def test_aliases_options_and_wanted_addresses_reach_the_attachment() -> None:
    made = new("t", "")
    made.spec.networks.add(
        target="back", aliases=["db"], addresses=["10.0.1.50"], driver_attachment_opts={"com.example": "1"}
    )
    bench = Bench(back(), made)
    bench.run()
    (attachment,) = bench.store.task("t").networks
    assert list(attachment.addresses) == ["10.0.1.50/24"]
    assert list(attachment.aliases) == ["db"]
    assert dict(attachment.driver_attachment_opts) == {"com.example": "1"}


def test_a_network_of_the_node_gives_no_address() -> None:
    bench = Bench(given(network("host", driver="host")), attach(service(), "host"), new("t"))
    bench.run()
    assert (bench.virtual(), bench.addresses("t"), bench.pending("t")) == ([], [("host", "")], True)


def test_tasks_beyond_the_last_address_wait_and_get_what_becomes_free() -> None:
    made = attach(service(), "back")
    made.spec.endpoint.mode = specs.EndpointSpec.DNSRR
    names = [f"t{number}" for number in range(8)]
    bench = Bench(back("10.0.1.0/29"), made, *(new(name, slot=number + 1) for number, name in enumerate(names)))
    bench.run()
    assert [name for name in names if bench.pending(name)] == names[:5]
    assert bench.err("t5") == "no address is free on network back (10.0.1.0/29)"
    assert bench.allocator.blocked == 3
    bench.edit(task("t1"), end)
    bench.run()
    assert bench.addresses("t5") == [("back", "10.0.1.3/29")]
    bench.edit(task("t6"), lambda waits: setattr(waits, "desired_state", types.REMOVE))
    bench.run()
    assert bench.pending("t6")
    bench.remove(task("t0"))
    bench.run()
    assert bench.addresses("t7") == [("back", "10.0.1.2/29")]
    assert (bench.allocator.blocked, bench.allocator.waiting) == (0, 0)


def test_a_task_gets_all_addresses_or_none() -> None:
    made = attach(service(), "back", "tiny")
    made.spec.endpoint.mode = specs.EndpointSpec.DNSRR
    tiny = given(network("tiny", "10.0.9.0/30"))
    bench = Bench(back("10.0.1.0/29"), tiny, made, new("a"), new("b", slot=2))
    bench.run()
    assert [bench.pending(name) for name in "ab"] == [True, False]
    others = [attach(service(f"other{number}"), "back") for number in range(4)]
    bench.put(*others)
    bench.run()
    assert all(bench.virtual(each.id) for each in others)
    bench.remove(others[0])
    bench.run()
    bench.edit(task("a"), end)
    bench.run()
    assert bench.pending("b")


def test_a_service_beyond_the_last_address_waits_with_its_tasks() -> None:
    bench = Bench(back("10.0.1.0/30"), attach(service("a"), "back"), attach(service("b"), "back"), new("t", "b"))
    bench.run()
    assert (bench.virtual("a"), bench.virtual("b")) == ([("back", "10.0.1.2/30")], [])
    assert bench.err("t") == "no address is free on network back (10.0.1.0/30)"
    assert not bench.allocator.due
    bench.remove(service("a"))
    bench.run()
    assert bench.virtual("b") == [("back", "10.0.1.2/30")]
    assert bench.err("t") == "no address is free on network back (10.0.1.0/30)"  # the service has the last one


def test_a_service_that_needs_ingress_waits_until_there_is_one() -> None:
    bench = Bench(service(ports=[port(80)]), new("t"))
    bench.run()
    assert bench.err("t") == "service needs ingress network, but no ingress network is present"
    bench.put(ingress())
    bench.run()
    assert bench.virtual() == [("ingress", "10.0.0.2/24")]
    assert bench.pending("t")


def test_services_are_moved_to_another_ingress_network() -> None:
    bench = Bench(ingress(), node("n"), service(ports=[port(80, 8080)]))
    bench.run()
    bench.remove(ingress())
    bench.run()
    assert bench.of_node("n") == []
    bench.put(given(network("second", "10.5.0.0/24", ingress=True)))
    bench.run()
    assert [each for each, _ in bench.virtual()] == ["second"]
    assert [each for each, _ in bench.of_node("n")] == ["second"]


def test_a_network_without_a_subnet_gets_one_and_its_services_follow() -> None:
    bench = Bench(network("back"), attach(service(), "back"), new("t"))
    decisions = bench.run()
    assert decisions[0] == NetworkAllocation("back")
    assert bench.virtual() == [("back", "10.0.0.2/24")]
    assert bench.pending("t")


def test_a_network_that_finds_no_room_waits_until_another_is_removed() -> None:
    cluster = objects.Cluster(id="c", defaultAddressPool=["10.0.0.0/24"])
    cluster.spec.annotations.name = "default"
    bench = Bench(cluster, ingress(), network("back"), attach(service(), "back"), new("t"))
    bench.run()
    assert bench.err("t") == "network back has no subnet yet"
    assert bench.allocator.blocked == 2
    bench.remove(ingress())
    bench.run()
    assert bench.virtual() == [("back", "10.0.0.2/24")]
    assert bench.allocator.blocked == 0


def test_a_network_is_missed_by_name_and_its_tasks_say_so() -> None:
    bench = Bench(attach(service(), "back"), new("t"))
    bench.run()
    assert (bench.err("t"), bench.allocator.blocked) == ("network back not found", 1)
    bench.put(back())
    bench.run()
    assert bench.pending("t")


# Nodes


def test_nodes_have_an_address_on_ingress_and_on_the_networks_of_their_tasks() -> None:
    bench = Bench(ingress(), back(), node("a"), node("b"), attach(service(), "back"), new("t"))
    bench.run()
    assert [bench.of_node(each) for each in "ab"] == [[("ingress", "10.0.0.2/24")], [("ingress", "10.0.0.3/24")]]
    bench.edit(task("t"), lambda made: (setattr(made, "node_id", "a"), setattr(made.status, "state", types.ASSIGNED)))
    bench.run()
    assert bench.of_node("a") == [("ingress", "10.0.0.2/24"), ("back", "10.0.1.4/24")]
    assert [each for each, _ in bench.of_node("b")] == ["ingress"]
    bench.edit(task("t"), end)
    bench.run()
    assert bench.of_node("a") == [("ingress", "10.0.0.2/24")]


def test_a_network_stays_on_a_node_until_its_last_task_there_has_ended() -> None:
    tasks = [new(f"t{number}", slot=number + 1, node_id="a") for number in range(2)]
    bench = Bench(back(), node("a"), attach(service(), "back"), *tasks)
    bench.run()
    bench.edit(tasks[0], end)
    bench.run()
    assert [each for each, _ in bench.of_node("a")] == ["back"]
    bench.remove(tasks[1])
    bench.run()
    assert bench.of_node("a") == []


def test_a_node_that_changes_keeps_its_addresses_and_one_that_goes_frees_them() -> None:
    bench = Bench(ingress("10.0.0.0/30"), node("a"))
    bench.run()
    bench.edit(node("a"), lambda made: setattr(made.status, "message", "x"))
    assert not bench.allocator.due
    bench.put(node("b"))
    bench.run()
    assert (bench.of_node("b"), bench.allocator.blocked) == ([], 1)
    bench.remove(node("a"))
    bench.run()
    assert bench.of_node("b") == [("ingress", "10.0.0.2/30")]


def test_a_decision_about_a_node_leaves_the_rest_of_it_alone() -> None:
    bench = Bench(ingress(), node("a"))
    (decision,) = bench.allocator.run()
    bench.edit(node("a"), lambda made: setattr(made.status, "message", "meanwhile"))
    assert bench.store.run(lambda tx: commit(tx, decision))
    stored = bench.store.view.get(objects.Node, "a")
    assert stored is not None
    assert (stored.status.message, len(stored.attachments)) == ("meanwhile", 1)


# Restarts and races


def test_a_new_allocator_gives_nothing_twice_and_changes_nothing() -> None:
    bench = Bench(ingress(), back(), node("a"), attach(service(ports=[port(80)]), "back"), new("t", node_id="a"))
    bench.run()
    before = bench.store.view.version
    bench.restart()
    bench.run()
    assert bench.store.view.version == before
    bench.put(attach(service("other"), "back"), new("u", "other"))
    bench.run()
    held = [bench.virtual(), bench.virtual("other"), bench.addresses("t"), bench.addresses("u"), bench.of_node("a")]
    every = [each for some in held for each in some]
    assert len(every) == len(set(every))


def test_a_task_whose_network_is_gone_by_then_is_decided_about_anew() -> None:
    lonely = attach(new("t", ""), "back")
    bench = Bench(back(), lonely)
    (decision,) = bench.allocator.run()
    bench.store.delete(back())
    assert not bench.store.run(lambda tx: commit(tx, decision))


KINDS = st.sampled_from(
    ["service", "dns", "task", "assign", "end", "forget", "drop", "node", "leave", "lose", "restart", "port", "unnet"]
)


@settings(max_examples=150)
@for_all(st.lists(st.tuples(KINDS, st.integers(0, 3), st.integers(0, 3)), max_size=40))
def test_no_two_objects_ever_share_an_address_and_frees_are_complete(steps: list[tuple[str, int, int]]) -> None:
    bench = Bench(ingress("10.0.0.0/28"), back("10.0.1.0/28"))
    for number, (kind, which, other) in enumerate(steps):
        _step(bench, kind, f"s{which}", f"n{other}", number)
        bench.run()
        _check(bench)
    for kind in (objects.Task, objects.Service, objects.Node):
        for each in bench.store.view.all(kind):
            bench.remove(each)
    bench.run()
    probes = [attach(new(f"p{number}", ""), "back", "ingress") for number in range(13)]
    bench.put(*probes)
    bench.run()
    assert all(bench.pending(each.id) for each in probes)


def _step(bench: Bench, kind: str, service_id: str, node_id: str, number: int) -> None:
    view = bench.store.view
    present = view.get(objects.Service, service_id)
    tasks = view.find(objects.Task, "service", service_id)
    if kind in ("service", "dns", "port") and present is None:
        made = attach(service(service_id, [port(80)] if kind == "port" else []), "back")
        made.spec.endpoint.mode = specs.EndpointSpec.DNSRR if kind == "dns" else specs.EndpointSpec.VIP
        bench.put(made)
    elif kind == "unnet" and present is not None:
        bench.edit(present, lambda made: made.spec.task.ClearField("networks"))
    elif kind == "task":
        bench.put(new(f"t{number}", service_id, slot=number + 1))
    elif kind == "assign" and tasks:
        bench.edit(tasks[0], lambda made: setattr(made, "node_id", made.node_id or node_id))
    elif kind == "end" and tasks:
        bench.edit(tasks[0], end)
    elif kind == "forget" and tasks:
        bench.remove(tasks[0])
    elif kind == "drop" and present is not None:
        bench.remove(present)
    elif kind == "node" and view.get(objects.Node, node_id) is None:
        bench.put(node(node_id))
    elif kind == "leave" and (leaving := view.get(objects.Node, node_id)) is not None:
        bench.remove(leaving)
    elif kind == "lose":
        bench.allocator.commit_failed(bench.allocator.run())
    elif kind == "restart":
        bench.restart()


def _check(bench: Bench) -> None:
    view = bench.store.view
    held = [each for one in view.all(objects.Service) for each in bench.virtual(one.id)]
    live = [one for one in view.all(objects.Task) if one.status.state <= types.RUNNING]
    held += [each for one in live for each in bench.addresses(one.id)]
    held += [each for one in view.all(objects.Node) for each in bench.of_node(one.id)]
    assert len(held) == len(set(held))
    for one in live:
        if one.status.state == types.NEW and one.desired_state <= types.RUNNING:
            assert one.status.err or view.get(objects.Service, one.service_id) is None


PORTS = st.sampled_from([port(80, 8080), port(80), port(53, 53, HOST), port(81, 8081)])


@settings(max_examples=150, deadline=None)
@for_all(
    wishes=st.lists(
        st.tuples(
            st.lists(PORTS, max_size=2, unique_by=lambda each: each.target_port),
            st.lists(st.sampled_from(["net", "other", "host"]), max_size=2, unique=True),
            st.sampled_from([specs.EndpointSpec.VIP, specs.EndpointSpec.DNSRR]),
            st.booleans(),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_a_service_is_waited_for_exactly_when_its_version_will_move(wishes: list[Any]) -> None:
    """Each wish is an update of the same service; what is answered of it is what was written."""
    bench = Bench(ingress(), given(network("net")), given(network("other"), given(network("net"))))
    bench.put(network("host", driver="host"))
    bench.run()
    made = service()
    for ports, networks, mode, has_endpoint in wishes:
        wanted = attach(service(ports=ports, endpoint=has_endpoint), *networks).spec
        if has_endpoint:
            wanted.endpoint.mode = mode
        bench.put(changed(made, lambda new, wanted=wanted: new.spec.CopyFrom(wanted)))  # type: ignore[misc]
        written = bench.store.service()
        holds = settled(control.UpdateServiceResponse(service=written), bench.store.view)
        bench.run()
        made = bench.store.service()
        moved = made.meta.version.index > written.meta.version.index
        assert (holds is not None) == moved
        assert holds is None or holds(bench.store.view)
