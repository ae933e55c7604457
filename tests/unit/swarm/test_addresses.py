"""The engine's address rules, row by row."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import Code, Refused
from runtime.swarm import addresses
from runtime.swarm.addresses import Interface
from runtime.wire import netlink


def card(name: str, *texts: str, **more: bool) -> Interface:
    return Interface(name, tuple(ipaddress.ip_address(text) for text in texts), **more)


LO = card("lo", "127.0.0.1", "::1", loopback=True)
ETH0 = card("eth0", "10.0.0.5", "fe80::1")
ETH1 = card("eth1", "192.168.7.2")
BRIDGE = card("docker0", "172.17.0.1", device=False)
VETH = card("veth0", "10.77.0.1", device=False)


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("10.0.0.1:4000", "10.0.0.1:4000"),
        ("10.0.0.1", "10.0.0.1:2377"),
        ("tcp://10.0.0.1:1", "10.0.0.1:1"),
        (":3000", "0.0.0.0:3000"),
        ("eth0", "eth0:2377"),
        ("eth0:99", "eth0:99"),
        ("::1", "[::1]:2377"),
        ("[::1]:5", "[::1]:5"),
        ("a:b:c", "a:b:c"),
    ],
)
def test_an_address_is_filled_in_with_defaults(given_text: str, expected: str) -> None:
    assert addresses.parse_tcp_address(given_text) == expected


def test_an_empty_address_is_refused() -> None:
    with pytest.raises(Refused, match="invalid empty address"):
        addresses.parse_tcp_address("")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.0.0.0:2377", ("0.0.0.0", "2377")), ("eth0:5", ("10.0.0.5", "5")), ("[::]:7", ("::", "7"))],
)
def test_a_listen_address_may_be_an_interface_or_unspecified(text: str, expected: tuple[str, str]) -> None:
    assert addresses.resolve_listen(text, [LO, ETH0]) == expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("nowhere:1", addresses.BAD_LISTEN),
        ("a:b:c", 'could not parse listen address "a:b:c"'),
    ],
)
def test_a_bad_listen_address_is_refused_in_the_engines_words(text: str, error: str) -> None:
    with pytest.raises(Refused) as refused:
        addresses.resolve_listen(text, [LO, ETH0])
    assert (refused.value.code, refused.value.text) == (Code.INVALID_ARGUMENT, error)


@pytest.mark.parametrize(
    ("text", "default", "expected"),
    [
        ("10.9.9.9", "", ("10.9.9.9", "2377")),
        ("10.9.9.9:99x", "", ("10.9.9.9", "99x")),
        ("eth1", "", ("192.168.7.2", "2377")),
        ("eth1:5", "", ("192.168.7.2", "5")),
        ("", "eth1", ("192.168.7.2", "2377")),
        ("", "10.1.1.1", ("10.1.1.1", "2377")),
        ("", "", ("10.0.0.5", "2377")),
    ],
)
def test_the_request_comes_before_the_default_and_that_before_the_system(
    text: str, default: str, expected: tuple[str, str]
) -> None:
    interfaces = [LO, ETH0, BRIDGE] if not (text or default) else [LO, ETH0, ETH1]
    assert addresses.resolve_advertise(text, "2377", default, interfaces) == expected


@pytest.mark.parametrize(
    ("text", "default", "error"),
    [
        ("0.0.0.0", "", addresses.BAD_ADVERTISE),
        ("nowhere", "", addresses.BAD_ADVERTISE),
        ("", "0.0.0.0", addresses.BAD_DEFAULT_ADVERTISE),
        ("", "nowhere", addresses.BAD_DEFAULT_ADVERTISE),
    ],
)
def test_a_bad_advertise_address_is_refused_in_the_engines_words(text: str, default: str, error: str) -> None:
    with pytest.raises(Refused) as refused:
        addresses.resolve_advertise(text, "2377", default, [LO, ETH0])
    assert refused.value.text == error


def test_a_data_path_address_has_no_port_and_is_not_zero() -> None:
    assert addresses.resolve_data_path("", [ETH0]) == ""
    assert addresses.resolve_data_path("eth0", [ETH0]) == "10.0.0.5"
    for bad in ("10.0.0.1:80", "0.0.0.0", "nowhere"):
        with pytest.raises(Refused, match="data path address must be a non-zero IP address"):
            addresses.resolve_data_path(bad, [ETH0])


def test_two_cards_with_addresses_are_ambiguous() -> None:
    with pytest.raises(Refused) as refused:
        addresses.system_address([LO, ETH0, ETH1])
    assert refused.value.text == (
        "could not choose an IP address to advertise since this system has multiple addresses on different "
        "interfaces (10.0.0.5 on eth0 and 192.168.7.2 on eth1)"
    )


def test_two_addresses_of_one_card_are_ambiguous() -> None:
    with pytest.raises(Refused) as refused:
        addresses.system_address([LO, card("eth0", "10.0.0.5", "10.0.0.6")])
    assert refused.value.text.endswith("multiple addresses on interface eth0 (10.0.0.5 and 10.0.0.6)")


def test_virtual_links_count_only_where_no_card_has_an_address() -> None:
    assert str(addresses.system_address([LO, ETH0, VETH])) == "10.0.0.5"
    assert str(addresses.system_address([LO, VETH])) == "10.77.0.1"


def test_managed_subnets_do_not_count() -> None:
    managed = [ipaddress.ip_network("172.17.0.0/16")]
    assert str(addresses.system_address([LO, VETH, BRIDGE], managed)) == "10.77.0.1"


def test_without_any_address_there_is_nothing_to_advertise() -> None:
    with pytest.raises(Refused, match="could not find the system's IP address"):
        addresses.system_address([LO, card("eth0", "169.254.1.1"), card("eth1", "10.0.0.1", up=False)])


def test_ipv4_wins_over_ipv6_on_one_interface() -> None:
    both = card("eth0", "2001:db8::5", "10.0.0.5")
    assert str(addresses.system_address([both])) == "10.0.0.5"
    assert addresses.resolve_listen("eth0:1", [both]) == ("10.0.0.5", "1")


@pytest.mark.parametrize(
    ("interface", "error"),
    [
        (card("eth0", "10.0.0.1", "10.0.0.2"), "interface eth0 has more than one IPv4 address (10.0.0.1 and 10.0.0.2)"),
        (
            card("eth0", "2001:db8::1", "2001:db8::2"),
            "interface eth0 has more than one IPv6 address (2001:db8::1 and 2001:db8::2)",
        ),
        (card("eth0"), "interface eth0 has no usable IPv4 or IPv6 address"),
    ],
)
def test_an_interface_must_have_one_usable_address(interface: Interface, error: str) -> None:
    with pytest.raises(Refused) as refused:
        addresses.resolve_data_path("eth0", [interface])
    assert refused.value.text == error


def test_the_local_address_is_the_listen_host_or_the_advertised_one_if_it_is_ours() -> None:
    assert addresses.local_address("10.3.3.3", "10.9.9.9", [ETH0]) == "10.3.3.3"
    assert addresses.local_address("0.0.0.0", "192.168.7.2", [ETH0, ETH1]) == "192.168.7.2"
    assert addresses.local_address("0.0.0.0", "8.8.8.8", [ETH0]) == "10.0.0.5"
    with pytest.raises(Refused) as refused:
        addresses.local_address("0.0.0.0", "8.8.8.8", [ETH0, ETH1])
    assert refused.value.text == addresses.MUST_SPECIFY_LISTEN


@pytest.mark.parametrize(
    ("pools", "size", "expected"),
    [((), 0, 24), ((), 30, 30), (("10.0.0.0/8",), 0, 24), (("10.0.0.0/24",), 24, 24), (("10.0.0.0/8",), 29, 29)],
)
def test_an_address_pool_that_fits(pools: tuple[str, ...], size: int, expected: int) -> None:
    assert addresses.check_address_pool(pools, size) == expected


@pytest.mark.parametrize(
    ("pools", "size", "error"),
    [
        (("10.0.0.0/8",), 30, "subnet size is out of range: 30"),
        (("10.0.0.0/26",), 24, 'invalid CIDR: "10.0.0.0/26". Subnet size is too small for pool: 24'),
    ],
)
def test_an_address_pool_that_does_not_fit_is_a_plain_error(pools: tuple[str, ...], size: int, error: str) -> None:
    with pytest.raises(Refused) as refused:
        addresses.check_address_pool(pools, size)
    assert (refused.value.code, refused.value.text) == (Code.UNKNOWN, error)


@pytest.mark.parametrize(("port", "expected"), [(0, 4789), (1024, 1024), (49151, 49151)])
def test_a_data_path_port_in_range(port: int, expected: int) -> None:
    assert addresses.check_data_path_port(port) == expected


@pytest.mark.parametrize("port", [80, 1023, 49152, -1])
def test_a_data_path_port_out_of_range(port: int) -> None:
    with pytest.raises(Refused) as refused:
        addresses.check_data_path_port(port)
    assert refused.value.text == f"Datapath port number is not in valid range (1024-49151) : {port}"


def answer_or_refusal(resolve: Callable[[], object]) -> str:
    try:
        return f"resolved to {resolve()}"
    except Refused as refused:
        return refused.text


@given(st.text(max_size=30))
def test_any_text_is_resolved_or_refused(text: str) -> None:
    for resolve in (
        lambda: addresses.resolve_listen(addresses.parse_tcp_address(text), [LO, ETH0]),
        lambda: addresses.resolve_advertise(text, "1", "", [LO, ETH0]),
        lambda: addresses.resolve_data_path(text, [LO, ETH0]),
        lambda: addresses.check_address_pool([text], 24),
    ):
        assert answer_or_refusal(resolve)


def test_the_kernel_lists_this_machines_loopback() -> None:
    found = {interface.name: interface for interface in netlink.interfaces()}
    assert found["lo"].loopback
    assert ipaddress.ip_address("127.0.0.1") in found["lo"].addresses
