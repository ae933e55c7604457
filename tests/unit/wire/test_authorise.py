"""Who may call what: the whole matrix, and the headers of forwarding."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import Code, Refused
from runtime.wire.authorise import (
    FORWARDED,
    FORWARDED_CN,
    FORWARDED_ORG,
    FORWARDED_OU,
    FORWARDING_KEYS,
    REDIRECT,
    REMOTE_ADDR,
    Peer,
    Subject,
    authorise,
    check_redirect,
    forward_headers,
    metadata_of,
    visible,
)
from runtime.wire.port import MANAGER, WORKER, Access, Identity

ORG = "cluster"
ACCESS = Access(ORG, blacklist=frozenset({"gone"}))
MANAGERS, MEMBERS = frozenset({MANAGER}), frozenset({MANAGER, WORKER})
ADDRESS = "10.0.0.9:4321"
NO_CERTIFICATE = "no client certificates in request"

CALLERS = {
    "manager": Subject("m", ORG, (MANAGER,)),
    "worker": Subject("w", ORG, (WORKER,)),
    "both": Subject("b", ORG, ("other", WORKER, MANAGER)),
    "foreign": Subject("f", "elsewhere", (MANAGER,)),
    "removed": Subject("gone", ORG, (MANAGER,)),
    "removed worker": Subject("gone", ORG, (WORKER,)),
    "roleless": Subject("x", ORG, ()),
    "nameless": Subject("", ORG, (MANAGER,)),
    "orgless": Subject("x", "", (MANAGER,)),
    "nobody": None,
}


def verdict(peer: Peer, roles: frozenset[str] | None, metadata: dict[str, tuple[str, ...]] | None = None) -> str:
    """The role under which a call passes, or the refusal's text."""
    try:
        return authorise(peer, metadata or {}, roles, ACCESS).role
    except Refused as refused:
        return refused.text if refused.code is Code.PERMISSION_DENIED else f"{refused.code} is the wrong code"


def denied(text: str, kind: str = "peer") -> str:
    again = "" if text == NO_CERTIFICATE else "Permission denied: "
    return f"Permission denied: unauthorized {kind} role: rpc error: code = PermissionDenied desc = {again}{text}"


@pytest.mark.parametrize(
    ("caller", "roles", "expected"),
    [
        ("manager", MANAGERS, MANAGER),
        ("manager", MEMBERS, MANAGER),
        ("worker", MEMBERS, WORKER),
        ("worker", MANAGERS, denied("remote certificate not part of OUs: [swarm-manager]")),
        ("both", MEMBERS, WORKER),
        ("both", MANAGERS, MANAGER),
        ("foreign", MANAGERS, denied("remote certificate not part of organization: cluster")),
        ("removed", MANAGERS, denied("node gone was removed from swarm")),
        ("removed worker", MEMBERS, denied("node gone was removed from swarm")),
        ("removed worker", MANAGERS, denied("remote certificate not part of OUs: [swarm-manager]")),
        ("roleless", MEMBERS, denied("remote certificate not part of OUs: [swarm-worker swarm-manager]")),
        ("nameless", MANAGERS, denied("remote certificate not part of organization: cluster")),
        ("orgless", MANAGERS, denied("remote certificate not part of organization: cluster")),
        ("nobody", MEMBERS, denied(NO_CERTIFICATE)),
    ],
)
def test_a_direct_caller(caller: str, roles: frozenset[str], expected: str) -> None:
    assert verdict(Peer(CALLERS[caller], ADDRESS), roles) == expected


@pytest.mark.parametrize("caller", sorted(CALLERS))
def test_a_method_for_anyone_serves_members_as_themselves_and_others_as_nobody(caller: str) -> None:
    subject = CALLERS[caller]
    identity = authorise(Peer(subject, ADDRESS), {}, None, ACCESS)
    if caller in ("manager", "worker", "both"):
        assert subject is not None
        assert (identity.node_id, identity.organization) == (subject.cn, ORG)
    else:
        assert identity == Identity(remote_addr=ADDRESS)


def forwarded(cn: str = "w", org: str = ORG, ou: str = WORKER, addr: str = "1.2.3.4:5") -> dict[str, tuple[str, ...]]:
    return {
        FORWARDED: ("true",),
        FORWARDED_CN: (cn,),
        FORWARDED_ORG: (org,),
        FORWARDED_OU: (ou,),
        REMOTE_ADDR: (addr,),
    }


@pytest.mark.parametrize(
    ("forwarder", "headers", "roles", "expected"),
    [
        ("manager", forwarded(), MEMBERS, WORKER),
        ("manager", forwarded(cn="m2", ou=MANAGER), MANAGERS, MANAGER),
        (
            "manager",
            forwarded(),
            MANAGERS,
            denied("remote certificate not part of OUs: [swarm-manager]", "forwarded"),
        ),
        (
            "manager",
            forwarded(org="elsewhere"),
            MEMBERS,
            denied("remote certificate not part of organization: cluster", "forwarded"),
        ),
        ("manager", forwarded(cn="gone"), MEMBERS, denied("node gone was removed from swarm", "forwarded")),
        (
            "worker",
            forwarded(),
            MEMBERS,
            denied("remote certificate not part of OUs: [swarm-manager]", "forwarder"),
        ),
        ("nobody", forwarded(), MEMBERS, denied(NO_CERTIFICATE, "forwarder")),
        ("removed", forwarded(), MEMBERS, denied("node gone was removed from swarm", "forwarder")),
    ],
)
def test_a_forwarded_caller(
    forwarder: str, headers: dict[str, tuple[str, ...]], roles: frozenset[str], expected: str
) -> None:
    assert verdict(Peer(CALLERS[forwarder], ADDRESS), roles, headers) == expected


@pytest.mark.parametrize("blank", [FORWARDED_CN, FORWARDED_ORG, FORWARDED_OU])
@pytest.mark.parametrize("how", ["blank", "absent", "twice"])
def test_an_incomplete_forwarded_caller_never_acts_as_the_manager(blank: str, how: str) -> None:
    headers = forwarded(cn="m9", ou=MANAGER)
    if how == "absent":
        del headers[blank]
    else:
        headers[blank] = ("",) if how == "blank" else (headers[blank][0], "x")
    peer = Peer(CALLERS["manager"], ADDRESS)
    if (how, blank) == ("twice", FORWARDED_OU):  # several OUs are legal
        assert verdict(peer, MANAGERS, headers) == MANAGER
        return
    assert verdict(peer, MANAGERS, headers) == "Permission denied: missing information in forwarded request"
    assert authorise(peer, headers, None, ACCESS) == Identity(remote_addr="1.2.3.4:5", forwarded=True)


def test_a_forwarded_address_is_believed_only_of_a_manager() -> None:
    for caller in ("worker", "nobody", "foreign", "removed"):
        identity = authorise(Peer(CALLERS[caller], ADDRESS), forwarded(cn=""), None, ACCESS)
        assert identity.remote_addr == ADDRESS, caller
    assert authorise(Peer(CALLERS["manager"], ADDRESS), forwarded(), MEMBERS, ACCESS).remote_addr == "1.2.3.4:5"


def test_anything_but_true_is_not_forwarded() -> None:
    for value in (("false",), ("True",), ("true", "true"), ()):
        headers = {**forwarded(), FORWARDED: value}
        assert verdict(Peer(CALLERS["worker"], ADDRESS), MEMBERS, headers) == WORKER


def test_the_control_socket_acts_as_the_node_whatever_it_says() -> None:
    access = Access(ORG, local=Identity("me", MANAGER, ORG, "127.0.0.1:0"))
    identity = authorise(Peer(None, "", local=True), forwarded(), MANAGERS, access)
    assert identity == Identity("me", MANAGER, ORG, "127.0.0.1:0", local=True)


names = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1, max_size=20).filter(
    lambda text: text != "gone"
)


@given(cn=names, role=st.sampled_from([MANAGER, WORKER]), addr=names)
def test_what_a_manager_forwards_the_leader_understands(cn: str, role: str, addr: str) -> None:
    identity = Identity(cn, role, ORG, addr)
    metadata = metadata_of(forward_headers(identity))
    got = authorise(Peer(CALLERS["manager"], ADDRESS), metadata, MEMBERS, ACCESS)
    assert got == Identity(cn, role, ORG, addr, forwarded=True)


@given(st.dictionaries(st.sampled_from(sorted(FORWARDING_KEYS | {REDIRECT, "other"})), st.tuples(names), max_size=7))
def test_what_a_client_sends_under_the_forwarding_keys_is_stripped(sent: dict[str, tuple[str, ...]]) -> None:
    added = forward_headers(Identity(remote_addr="1.1.1.1:1"), sent)
    keys = [key for key, _ in added]
    assert all(keys.count(key) == 1 for key in FORWARDING_KEYS | {REDIRECT})
    assert dict(added)[FORWARDED_CN] == ""
    assert dict(added)[REMOTE_ADDR] == "1.1.1.1:1"
    assert ("other" in keys) == ("other" in sent)


def test_a_local_call_is_forwarded_as_the_manager_itself() -> None:
    headers = forward_headers(Identity("me", MANAGER, ORG, "127.0.0.1:0", local=True), {"trace": ("1", "2")})
    assert headers == (("trace", "1"), ("trace", "2"), (REDIRECT, "127.0.0.1:0"))


def test_a_second_redirect_is_refused() -> None:
    check_redirect({"other": ("x",)})
    with pytest.raises(Refused) as caught:
        check_redirect({REDIRECT: ("10.0.0.1:99",)})
    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert caught.value.text == "more than one redirect to leader from: [10.0.0.1:99]"


def test_handlers_see_the_redirect_but_not_the_forwarding() -> None:
    metadata = {**forwarded(), REDIRECT: ("a",), "other": ("b",)}
    assert visible(metadata) == {REDIRECT: ("a",), "other": ("b",)}
    plain = {"other": ("b",)}
    assert visible(plain) is plain


def test_metadata_keys_are_lower_case_and_values_keep_their_order() -> None:
    pairs = [("A", "1"), ("b", "2"), ("a", "3"), ("c-bin", b"\x00")]
    assert metadata_of(pairs) == {"a": ("1", "3"), "b": ("2",)}


@given(
    peer=st.sampled_from(sorted(CALLERS)),
    headers=st.dictionaries(
        st.sampled_from(sorted(FORWARDING_KEYS)),
        st.lists(st.sampled_from(["", "true", "m", "w", "gone", ORG, MANAGER, WORKER]), max_size=2).map(tuple),
    ),
)
def test_nobody_but_a_manager_ever_passes_as_another(peer: str, headers: dict[str, tuple[str, ...]]) -> None:
    subject = CALLERS[peer]
    for roles in (MANAGERS, MEMBERS, None):
        try:
            identity = authorise(Peer(subject, ADDRESS), headers, roles, ACCESS)
        except Refused:
            continue
        if identity.node_id:
            assert identity.node_id != "gone"
            assert identity.organization == ORG
            assert subject is not None
            assert identity.node_id == subject.cn or MANAGER in subject.ous


def test_every_caller_and_every_set_of_roles_has_a_verdict() -> None:
    for caller, roles in itertools.product(sorted(CALLERS), (MANAGERS, MEMBERS, None)):
        assert isinstance(verdict(Peer(CALLERS[caller], ADDRESS), roles), str)
