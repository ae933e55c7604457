"""The numbers of ports published by the ingress network."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.swarm.endpoint_ports import DYNAMIC_MAX, DYNAMIC_MIN, PortSpace, assign, ingress_ports, ports_fit
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.placing import HOST, INGRESS, TCP, UDP, port


def assigned(
    space: PortSpace, owner: str, wanted: Sequence[types.PortConfig], before: Sequence[types.PortConfig] = ()
) -> list[types.PortConfig]:
    ports = assign(space, owner, wanted, before)
    assert not isinstance(ports, str), ports
    return ports


def numbers(ports: Sequence[types.PortConfig]) -> list[int]:
    return [each.published_port for each in ports]


def test_a_port_without_a_number_gets_the_next_dynamic_one() -> None:
    space = PortSpace()
    assert numbers(assigned(space, "a", [port(80), port(81)])) == [30000, 30001]
    assert numbers(assigned(space, "b", [port(80)])) == [30002]


def test_protocols_have_numbers_of_their_own() -> None:
    space = PortSpace()
    assert numbers(assigned(space, "a", [port(53), port(53, protocol=UDP)])) == [30000, 30000]
    assert numbers(assigned(space, "b", [port(53, 8053, protocol=UDP)])) == [8053]
    assert numbers(assigned(space, "c", [port(53, 8053)])) == [8053]


def test_a_number_that_is_another_services_is_refused_and_nothing_is_taken() -> None:
    space = PortSpace()
    assigned(space, "a", [port(80, 8080)])
    assert assign(space, "b", [port(79), port(80, 8080)], []) == "port 8080/tcp is already published"
    assert space.owner((TCP, DYNAMIC_MIN)) is None


def test_the_same_number_twice_is_refused() -> None:
    assert assign(PortSpace(), "a", [port(80, 8080), port(81, 8080)], []) == "port 8080/tcp is already published"


def test_a_number_named_from_the_dynamic_range_is_not_given_out() -> None:
    space = PortSpace()
    assigned(space, "a", [port(80, 30000), port(81, 30001)])
    assert numbers(assigned(space, "b", [port(80)])) == [30002]


def test_a_number_that_the_spec_names_wins_within_a_service() -> None:
    assert numbers(assigned(PortSpace(), "a", [port(80), port(81, 30000)])) == [30001, 30000]


def test_ports_of_hosts_are_copied_and_take_nothing() -> None:
    space = PortSpace()
    wanted = [port(80, 8080, HOST), port(81, 0, HOST)]
    assert assigned(space, "a", wanted) == wanted
    assert numbers(assigned(space, "b", [port(80, 8080, INGRESS)])) == [8080]


def test_a_port_keeps_its_number_while_name_protocol_and_target_stay() -> None:
    space = PortSpace()
    before = assigned(space, "a", [port(80, name="web"), port(81), port(53, protocol=UDP)])
    assigned(space, "b", [port(80)])
    again = assigned(space, "a", [port(53, protocol=UDP), port(80, name="web"), port(81)], before)
    assert numbers(again) == [30000, 30000, 30001]
    assert numbers(assigned(space, "a", [port(80, name="other"), port(81)], before)) == [30003, 30001]


def test_a_number_that_was_named_is_kept_when_it_is_not_named_any_more() -> None:
    space = PortSpace()
    before = assigned(space, "a", [port(80, 8080)])
    assert numbers(assigned(space, "a", [port(80)], before)) == [8080]


def test_several_alike_ports_keep_their_numbers_in_turn() -> None:
    space = PortSpace()
    before = assigned(space, "a", [port(80), port(80)])
    assert numbers(assigned(space, "a", [port(80), port(80), port(80)], before)) == [30000, 30001, 30002]


def test_an_earlier_number_that_the_spec_now_names_elsewhere_is_not_kept() -> None:
    space = PortSpace()
    before = assigned(space, "a", [port(80)])
    assert numbers(assigned(space, "a", [port(80), port(81, 30000)], before)) == [30001, 30000]


def test_numbers_go_round_and_a_full_range_refuses() -> None:
    space = PortSpace()
    space.add("all", [(TCP, number) for number in range(DYNAMIC_MIN, DYNAMIC_MAX + 1)])
    assert assign(space, "a", [port(80)], []) == "no free tcp port from 30000 to 32767"
    space.replace("all", [(TCP, number) for number in range(DYNAMIC_MIN, DYNAMIC_MAX + 1) if number != 30007])
    assert space.freed
    assert numbers(assigned(space, "a", [port(80)])) == [30007]
    space.replace("all", [])
    assert numbers(assigned(space, "b", [port(80)])) == [30008]


def test_a_number_that_became_free_is_not_the_next_one() -> None:
    space = PortSpace()
    assigned(space, "a", [port(80)])
    space.replace("a", [])
    assert numbers(assigned(space, "b", [port(80)])) == [30001]


def test_replacing_holds_exactly_these_and_says_when_one_is_anothers() -> None:
    space = PortSpace()
    assert space.replace("a", [(TCP, 1), (TCP, 2)])
    assert not space.freed
    assert space.replace("a", [(TCP, 2), (TCP, 3)])
    assert space.freed
    assert [space.owner((TCP, number)) for number in (1, 2, 3)] == [None, "a", "a"]
    assert not space.replace("b", [(TCP, 3), (TCP, 4)])
    assert [space.owner((TCP, number)) for number in (3, 4)] == ["a", "b"]
    assert space.replace("b", [])
    assert space.owner((TCP, 4)) is None


@pytest.mark.parametrize(
    ("wanted", "ports", "expected"),
    [
        ([], [], True),
        ([port(80)], [port(80, 30000)], True),
        ([port(80)], [port(80)], False),
        ([port(80)], [], False),
        ([port(80, 8080)], [port(80, 8080)], True),
        ([port(80, 8080)], [port(80, 30000)], False),
        ([port(80)], [port(81, 30000)], False),
        ([port(80)], [port(80, 30000, protocol=UDP)], False),
        ([port(80)], [port(80, 30000, HOST)], False),
        ([port(80, 0, HOST)], [port(80, 0, HOST)], True),
        ([port(80, 0, HOST)], [port(80, 8080, HOST)], False),
        ([port(80, name="a")], [port(80, 30000, name="b")], False),
    ],
)
def test_which_ports_are_what_a_spec_asks_for(
    wanted: list[types.PortConfig], ports: list[types.PortConfig], expected: bool
) -> None:
    assert ports_fit(wanted, ports) is expected


PORTS = st.lists(
    st.builds(
        port,
        st.integers(80, 83),
        st.sampled_from([0, 0, 0, 8080, 8081, 30000, 30001]),
        st.sampled_from([INGRESS, INGRESS, HOST]),
        st.sampled_from([TCP, UDP]),
    ),
    max_size=4,
)


@given(st.lists(st.tuples(st.sampled_from("abc"), PORTS), max_size=12))
def test_no_two_services_ever_have_the_same_port(steps: list[tuple[str, list[types.PortConfig]]]) -> None:
    space = PortSpace()
    have: dict[str, list[types.PortConfig]] = {}
    for owner, wanted in steps:
        before = have.get(owner, [])
        ports = assign(space, owner, wanted, before)
        if isinstance(ports, str):
            continue
        assert ports_fit(wanted, ports)
        have[owner] = ports
        assert space.replace(owner, ingress_ports(ports))
        taken = [each for held in have.values() for each in ingress_ports(held)]
        assert len(taken) == len(set(taken))
        for each in taken:
            assert space.owner(each) is not None
