"""The ports that tasks are given of their node."""

from __future__ import annotations

import socket

import pytest

from runtime.executor import task_ports
from runtime.executor.task_ports import TaskPorts, as_record, environment, from_record
from swarmlet.host import free_port


def test_the_first_task_has_the_target_port_itself_and_the_next_another() -> None:
    one, target = TaskPorts(), free_port("0.0.0.0")
    assert one.assign("a", [target]) == {target: target}
    (other,) = one.assign("b", [target]).values()
    assert other != target


def test_a_port_that_somebody_listens_on_is_not_given() -> None:
    with socket.create_server(("", 0)) as listener:
        target = listener.getsockname()[1]
        assert TaskPorts().assign("a", [target])[target] != target


def test_what_an_ended_task_had_can_be_given_again() -> None:
    one, target = TaskPorts(), free_port("0.0.0.0")
    one.assign("a", [target])
    one.release("a")
    assert one.assign("b", [target]) == {target: target}


def test_a_task_that_runs_already_keeps_its_port() -> None:
    one, target = TaskPorts(), free_port("0.0.0.0")
    one.restore("old", [target])
    assert one.assign("new", [target])[target] != target


def test_two_targets_of_one_task_have_two_ports() -> None:
    given = TaskPorts().assign("a", [0x1, 0x2])
    assert len(set(given.values())) == 2


def test_a_target_of_tcp_and_udp_has_one_port_that_is_free_for_both() -> None:
    assert list(TaskPorts().assign("a", [0x1, 0x1])) == [0x1]
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("", 0))
        target = taken.getsockname()[1]
        given = TaskPorts().assign("a", [target])[target]
    assert given != target


def test_a_number_that_the_service_publishes_is_its_nodes() -> None:
    one, target = TaskPorts(), free_port("0.0.0.0")
    given = one.assign("a", [target], {target})[target]
    assert given != target
    assert one.assign("b", [target]) == {target: target}


def test_a_number_that_the_service_publishes_is_not_chosen_either(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = iter([7001, 7002, 7003])
    monkeypatch.setattr(task_ports, "_bound", lambda port: port or next(offered))
    one = TaskPorts()
    one.restore("old", [7002])
    assert one.assign("a", [7001], {7001})[7001] == 7003


def test_a_machine_without_free_ports_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_ports, "_bound", lambda port: 0)
    with pytest.raises(OSError, match="no port is free"):
        TaskPorts().assign("a", [80])


def test_a_task_finds_its_ports_in_its_environment() -> None:
    assert environment({80: 9000}, {}) == {"SWARMLET_PORT_80": "9000", "PORT": "9000"}
    assert environment({80: 9000}, {"PORT": "1"}) == {"SWARMLET_PORT_80": "9000"}
    assert environment({80: 9000, 81: 9001}, {}) == {"SWARMLET_PORT_80": "9000", "SWARMLET_PORT_81": "9001"}
    assert environment({}, {}) == {}


def test_what_the_keeper_keeps_comes_back() -> None:
    assert from_record(as_record({80: 9000, 81: 9001})) == {80: 9000, 81: 9001}
