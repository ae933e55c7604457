"""Tasks whose services publish ports in ingress mode, as real processes."""

from __future__ import annotations

import pytest

from runtime.executor import process_controller
from runtime.executor.port import Already, Done, Failed
from runtime.wire.pb import objects_pb2, types_pb2
from tests.integration.executor.conftest import Answer, Bench, processes_of, task
from tests.waiting import until


def publishing(identity: str, *command: str) -> objects_pb2.Task:
    made = task(identity, *command)
    made.endpoint.ports.add(target_port=18080, published_port=8080)
    return made


def told(outcome: Done | Already) -> list[tuple[int, int]]:
    assert outcome.port_status is not None
    return [(port.target_port, port.published_port) for port in outcome.port_status.ports]


def test_each_task_is_given_a_port_of_its_own_and_keeps_it_through_a_restart_of_the_daemon(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_controller, "DRAIN_S", 0.0)
    show = 'echo "$PORT $SWARMLET_PORT_18080"; exec sleep 60'
    controllers = [bench.controller(publishing(name, "sh", "-c", show)) for name in ("a", "b")]
    ports = [told(bench.do(each.start))[0][1] for each in controllers]
    assert len(set(ports)) == 2
    bench.close()
    bench.boot()
    again = [bench.controller(publishing(name, "sh", "-c", show)) for name in ("a", "b")]
    outcomes = [bench.do(each.start) for each in again]
    assert all(isinstance(each, Already) for each in outcomes)
    assert [told(each) for each in outcomes] == [[(18080, port)] for port in ports]
    third = told(bench.do(bench.controller(publishing("c", "sleep", "60")).start))[0][1]
    assert third not in ports
    for controller, port in zip(again, ports, strict=True):
        until(lambda controller=controller: bench.lines(controller), "it has begun")  # type: ignore[misc]
        bench.do(controller.shutdown)
        assert [line.data for line in bench.lines(controller)] == [f"{port} {port}\n".encode()]


def test_a_target_of_tcp_and_udp_is_one_number_that_is_not_the_published_one(bench: Bench) -> None:
    made = task("t", "sh", "-c", 'echo "$PORT"; exec sleep 60')
    for protocol in (types_pb2.PortConfig.TCP, types_pb2.PortConfig.UDP):
        made.endpoint.ports.add(target_port=18081, published_port=18081, protocol=protocol)
    outcome = bench.do(bench.controller(made).start)
    assert outcome.port_status is not None
    tcp, udp = outcome.port_status.ports
    assert (tcp.protocol, udp.protocol) == (types_pb2.PortConfig.TCP, types_pb2.PortConfig.UDP)
    assert tcp.published_port == udp.published_port != 18081


def test_a_published_task_goes_on_for_a_while_before_it_is_stopped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_controller, "DRAIN_S", 1000.0)
    controller = bench.started(publishing("t", "sleep", "60"))
    answer = Answer()
    operation = controller.shutdown(answer)
    bench.do(controller.prepare)  # the keeper has answered whatever the shutdown asked it before
    assert len(processes_of("t")) == 1
    operation.cancel()
    assert answer.get() == Failed("cancelled", cancelled=True)
    monkeypatch.setattr(process_controller, "DRAIN_S", 0.0)
    assert bench.do(controller.shutdown).container_status.exit_code == 143
    monkeypatch.setattr(process_controller, "DRAIN_S", 1000.0)
    assert bench.do(controller.shutdown).container_status.exit_code == 143  # a second time there is nothing to wait for
