"""IngressActor: tables become routes of the edge, what cannot be listened on is tried again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from actors.ingress_actor import IngressActor
from runtime.protocol.agent import IngressBlocked, IngressLife, IngressTablesAre
from runtime.stage.probe import Probe
from runtime.stage.simulator import Simulator
from runtime.swarm.ingress_tables import Backend, PublishedPort, Routes, encode

PORT = PublishedPort(8080)
WEB = encode([(PORT, 80)], [("t1", "10.0.0.1", {("tcp", 80): 9000})])
BAD_UDP = b'{"ports": [], "tasks": [], "udp": {"ports": [[53, 53]]}}'
ROUTES = {PORT: (Backend("10.0.0.1", 9000, "t1"),)}


class Edge:
    """``busy``: ports that somebody else listens on."""

    def __init__(self) -> None:
        self.applied: list[Routes] = []
        self.busy: dict[PublishedPort, str] = {}

    def apply(self, routes: Routes, done: Callable[[Mapping[PublishedPort, str]], None]) -> None:
        self.applied.append(dict(routes))
        done({port: text for port, text in self.busy.items() if port in routes})


class Bench:
    def __init__(self, **world: Any) -> None:
        self.edge = Edge()
        self.simulator = Simulator(3)
        self.stage = self.simulator.node("n1", **{"ingress": self.edge, **world})
        self.agent = Probe(self.simulator, self.stage, "agent")
        self.ingress = self.stage.mount("ingress", IngressActor, self.agent.address)
        self.agent.expect(IngressLife)

    def tell(self, *tables: bytes) -> None:
        self.ingress.tell(IngressTablesAre(tables))
        self.simulator.settle()

    @property
    def shot(self) -> dict[str, Any]:
        cell = self.ingress.resolve()
        assert cell is not None
        assert cell.instance is not None
        return dict(cell.instance.snapshot())


def test_tables_are_applied_once_for_each_change() -> None:
    bench = Bench()
    bench.tell(WEB)
    bench.tell(WEB)
    assert bench.edge.applied == [ROUTES]
    bench.tell()
    assert bench.edge.applied == [ROUTES, {}]


def test_tcp_and_udp_of_one_number_are_two_ports_to_the_edge() -> None:
    bench = Bench()
    dns = PublishedPort(5353, "udp"), PublishedPort(5353, "tcp")
    bench.edge.busy = {dns[1]: "address already in use"}
    bench.tell(encode([(each, 53) for each in dns], [("t1", "10.0.0.1", {("udp", 53): 9000, ("tcp", 53): 9000})]))
    assert bench.edge.applied == [{each: (Backend("10.0.0.1", 9000, "t1"),) for each in dns}]
    assert bench.shot == {
        "ports": {"5353/udp": 1, "5353/tcp": 1},
        "cannot listen": {"5353/tcp": "address already in use"},
    }


def test_the_agent_is_told_of_blocked_ports_once_and_of_their_end() -> None:
    bench = Bench()
    bench.edge.busy = {PORT: "Address already in use"}
    bench.tell(WEB)
    assert bench.agent.expect(IngressBlocked) == IngressBlocked((("8080/tcp", "Address already in use"),))
    bench.agent.expect_none(IngressBlocked, during=11)
    assert len(bench.edge.applied) == 3
    bench.edge.busy = {}
    assert bench.agent.expect(IngressBlocked) == IngressBlocked()


def test_a_table_that_cannot_be_read_changes_nothing() -> None:
    bench = Bench()
    bench.tell(WEB)
    for bad in (b"{", b"[]", b'{"ports": [[1]], "tasks": []}', b'{"ports": [], "tasks": [["t"]]}', BAD_UDP):
        bench.tell(WEB, bad)
    assert bench.edge.applied == [ROUTES]
    assert bench.shot == {"ports": {"8080/tcp": 1}, "cannot listen": {}}


def test_a_port_that_is_somebody_elses_is_tried_again_until_it_is_free() -> None:
    bench = Bench()
    bench.edge.busy = {PORT: "address already in use"}
    bench.tell(WEB)
    assert bench.shot["cannot listen"] == {"8080/tcp": "address already in use"}
    bench.simulator.run_for(5.1)
    assert len(bench.edge.applied) == 2
    bench.edge.busy = {}
    bench.simulator.run_for(5.1)
    assert bench.shot["cannot listen"] == {}
    bench.simulator.run_for(60)
    assert len(bench.edge.applied) == 3


def test_a_node_that_ends_listens_no_more() -> None:
    bench = Bench()
    bench.tell(WEB)
    cell = bench.ingress.resolve()
    assert cell is not None
    cell.request_stop()
    bench.simulator.settle()
    assert bench.edge.applied[-1] == {}


def test_a_node_without_an_edge_takes_no_connections() -> None:
    bench = Bench(ingress=None)
    bench.tell(WEB)
    assert bench.shot["ports"] == {"8080/tcp": 1}
    assert bench.edge.applied == []
