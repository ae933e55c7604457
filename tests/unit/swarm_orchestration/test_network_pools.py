"""What networks are given: subnets, gateways, VXLAN numbers; and who holds which address."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from runtime.errors import Code, Refused
from runtime.swarm.address_space import AddressSpace, Owner
from runtime.swarm.network_pools import (
    EXHAUSTED,
    OVERLAP,
    VXLAN_IDS,
    IPNetwork,
    allocated,
    free_subnet,
    is_allocated,
    is_ingress,
    subnets_of,
    vxlan_ids,
)
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.placing import Store, given, ingress, network

A: Owner = ("task", "a")
B: Owner = ("service", "b")


def gateways(made: objects.Network) -> list[str]:
    return [each.gateway for each in made.ipam.configs]


def texts(made: objects.Network) -> list[str]:
    return [str(each) for each in subnets_of(made)]


def test_a_network_that_asks_for_nothing_gets_the_next_subnet_and_vxlan_number() -> None:
    store = Store()
    for number in range(3):
        store.put(allocated(store.view, network(f"n{number}")))
    made = store.view.all(objects.Network)
    assert [texts(each) for each in made] == [["10.0.0.0/24"], ["10.0.1.0/24"], ["10.0.2.0/24"]]
    assert [gateways(each) for each in made] == [["10.0.0.1"], ["10.0.1.1"], ["10.0.2.1"]]
    assert [vxlan_ids(each) for each in made] == [[4096], [4097], [4098]]
    assert {each.driver_state.name for each in made} == {"overlay"}
    assert {each.ipam.driver.name for each in made} == {"default"}
    assert {each.ipam.configs[0].family for each in made} == {types.IPAMConfig.IPV4}
    assert all(map(is_allocated, made))


def test_what_a_removed_network_had_is_free_again() -> None:
    store = Store(given(network("a")))
    store.put(allocated(store.view, network("b")))
    store.delete(network("a"))
    assert texts(allocated(store.view, network("c"))) == ["10.0.0.0/24"]
    assert vxlan_ids(allocated(store.view, network("c"))) == [4096]


def test_a_network_takes_the_subnet_and_the_gateway_that_it_asks_for() -> None:
    asking = network("n", "10.9.0.0/16")
    asking.spec.ipam.configs[0].gateway = "10.9.9.9"
    asking.spec.driver_config.options["encrypted"] = ""
    made = given(asking)
    assert (texts(made), gateways(made)) == (["10.9.0.0/16"], ["10.9.9.9"])
    assert dict(made.driver_state.options) == {"encrypted": "", VXLAN_IDS: "4096"}


def test_the_gateway_is_of_the_range_and_no_reserved_address() -> None:
    asking = network("n", "10.9.0.0/16", range="10.9.4.0/24")
    asking.spec.ipam.configs[0].reserved["router"] = "10.9.4.0"
    asking.spec.ipam.configs[0].reserved["printer"] = "10.9.4.1"
    assert gateways(given(asking)) == ["10.9.4.2"]


def test_each_ipv4_subnet_has_a_vxlan_number_and_ipv6_has_none() -> None:
    made = given(network("n", "10.1.0.0/24", "fd00::/64", "10.2.0.0/24"))
    assert vxlan_ids(made) == [4096, 4097]
    assert gateways(made) == ["10.1.0.1", "fd00::1", "10.2.0.1"]


def test_vxlan_numbers_that_are_asked_for_are_honoured_if_free() -> None:
    asking = network("n")
    asking.spec.driver_config.options[VXLAN_IDS] = "5000"
    first = given(asking)
    assert vxlan_ids(first) == [5000]
    again = network("m")
    again.spec.driver_config.options[VXLAN_IDS] = "5000"
    with pytest.raises(Refused, match="vxlan id 5000 is already in use"):
        given(again, first)
    again.spec.driver_config.options[VXLAN_IDS] = "many"
    with pytest.raises(Refused, match="invalid vxlan id value 'many'"):
        given(again)


def test_a_subnet_that_overlaps_another_networks_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        given(network("n", "10.0.0.0/16"), given(network("first")))
    assert (refused.value.code, refused.value.text) == (Code.FAILED_PRECONDITION, OVERLAP)
    with pytest.raises(Refused) as refused:
        given(network("n", "10.1.0.0/16", "10.1.2.0/24"))
    assert refused.value.text == OVERLAP


def test_pools_and_sizes_are_the_clusters() -> None:
    cluster = objects.Cluster(id="c", defaultAddressPool=["172.30.0.0/25", "172.31.0.0/26"], subnetSize=26)
    cluster.spec.annotations.name = "default"
    store = Store(cluster)
    for number in range(3):
        store.put(allocated(store.view, network(f"n{number}")))
    found = [texts(each)[0] for each in store.view.all(objects.Network)]
    assert found == ["172.30.0.0/26", "172.30.0.64/26", "172.31.0.0/26"]
    with pytest.raises(Refused) as refused:
        allocated(store.view, network("more"))
    assert (refused.value.code, refused.value.text) == (Code.FAILED_PRECONDITION, EXHAUSTED)


def test_default_subnets_stay_away_from_this_machines_own() -> None:
    avoid = [ipaddress.ip_network("10.0.0.7/32"), ipaddress.ip_network("10.0.1.0/25"), ipaddress.ip_network("fe80::1")]
    assert texts(allocated(Store().view, network("n"), avoid)) == ["10.0.2.0/24"]


def test_networks_of_single_nodes_get_their_name_alone() -> None:
    made = given(network("host", driver="host"))
    assert (made.driver_state.name, made.HasField("ipam"), len(made.ipam.configs)) == ("host", True, 0)
    assert is_allocated(made)
    assert not is_allocated(network("host", driver="host"))


def test_the_ingress_network_is_known_by_its_mark_or_by_its_old_name() -> None:
    assert is_ingress(ingress())
    old = network("ingress")
    assert not is_ingress(old)
    old.spec.annotations.labels["com.docker.swarm.internal"] = "true"
    assert is_ingress(old)


@pytest.mark.parametrize("what", ["gateway", "reserved"])
def test_addresses_outside_of_the_subnet_are_refused(what: str) -> None:
    asking = network("n", "10.9.0.0/24")
    if what == "gateway":
        asking.spec.ipam.configs[0].gateway = "10.8.0.1"
    else:
        asking.spec.ipam.configs[0].reserved["x"] = "10.8.0.1"
    with pytest.raises(Refused, match=r"10.8.0.1 is not in subnet 10.9.0.0/24"):
        given(asking)


def test_a_small_subnet_may_be_all_gateway() -> None:
    assert gateways(given(network("n", "10.9.0.0/30"))) == ["10.9.0.1"]
    assert gateways(given(network("n", "10.9.0.4/31"))) == ["10.9.0.4"]


SUBNETS = st.builds(
    lambda base, size: ipaddress.ip_network((base << 8, size), strict=False),
    st.integers(0x0A0000, 0x0A00FF),
    st.integers(18, 30),
)


@for_all(st.lists(SUBNETS, max_size=40), st.integers(20, 28))
def test_a_free_subnet_overlaps_nothing_and_is_the_lowest(taken: list[IPNetwork], size: int) -> None:
    pool = ipaddress.ip_network("10.0.0.0/17")
    found = free_subnet([str(pool)], size, taken)
    candidates = (each for each in pool.subnets(new_prefix=size))
    free = next((each for each in candidates if not any(each.overlaps(one) for one in taken)), None)  # type: ignore[arg-type]
    assert found == free


# Who holds which address


def space(*networks: objects.Network) -> AddressSpace:
    made = AddressSpace()
    for each in networks:
        made.put_network(each)
    return made


def test_addresses_are_given_in_turn_and_the_gateway_to_nobody() -> None:
    one = space(given(network("n", "10.0.1.0/29")))
    assert [one.take(A, "n") for _ in range(6)] == [f"10.0.1.{number}/29" for number in range(2, 7)] + [None]
    one.replace(A, [("n", "10.0.1.5/29")])
    assert one.freed == {"n": 4}
    assert [one.take(B, "n") for _ in range(5)] == [*(f"10.0.1.{number}/29" for number in (2, 3, 4, 6)), None]


def test_a_freed_address_is_not_given_again_at_once() -> None:
    one = space(given(network("n", "10.0.1.0/24")))
    first = one.take(A, "n")
    assert first == "10.0.1.2/24"
    one.replace(A, ())
    assert one.take(B, "n") == "10.0.1.3/24"


def test_an_address_that_is_asked_for_is_given_if_it_is_free() -> None:
    one = space(given(network("n", "10.0.1.0/24")))
    assert one.take(A, "n", ["10.0.1.77"]) == "10.0.1.77/24"
    assert one.take(B, "n", ["10.0.1.77", "10.0.1.78/24"]) == "10.0.1.78/24"
    assert one.take(B, "n", ["10.0.1.1"]) is None
    assert one.take(B, "n", ["10.7.1.1", "nonsense"]) is None


def test_what_is_anothers_or_nobodys_cannot_be_booked() -> None:
    one = space(given(network("n", "10.0.1.0/24")))
    assert one.replace(A, [("n", "10.0.1.2/24")])
    assert not one.replace(B, [("n", "10.0.1.2/24"), ("n", "10.0.1.3/24")])
    assert one.held(B) == [("n", "10.0.1.3/24")]
    assert not one.replace(B, [("gone", "10.0.1.4/24")])
    assert not one.holds(B)


def test_what_was_taken_only_just_now_does_not_count_as_freed() -> None:
    one = space(given(network("n", "10.0.1.0/24")))
    one.take(A, "n")
    one.replace(A, (), quietly=True)
    assert one.freed == {}


def test_the_addresses_of_a_removed_network_bother_nobody() -> None:
    one = space(given(network("n", "10.0.1.0/24")))
    one.take(A, "n")
    one.remove_network("n")
    assert one.take(B, "n") is None
    one.replace(A, ())
    assert one.freed == {}


STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "ask", "drop", "keep"]), st.integers(0, 4), st.integers(0, 7)), max_size=60
)


@for_all(STEPS)
def test_no_two_ever_hold_an_address_and_all_that_is_given_back_can_be_given_again(
    steps: list[tuple[str, int, int]],
) -> None:
    one = space(given(network("n", "10.0.1.0/29")))
    owners: list[Owner] = [("task", str(number)) for number in range(5)]
    for what, who, number in steps:
        owner = owners[who]
        if what == "take":
            one.take(owner, "n")
        elif what == "ask":
            one.take(owner, "n", [f"10.0.1.{number}"])
        else:
            held = one.held(owner)
            one.replace(owner, held[1:] if what == "keep" else ())
        all_held = [held for each in owners for held in one.held(each)]
        assert len(all_held) == len(set(all_held))
        assert ("n", "10.0.1.1/29") not in all_held
    for owner in owners:
        one.replace(owner, ())
    assert len({one.take(A, "n") for _ in range(5)} - {None}) == 5
