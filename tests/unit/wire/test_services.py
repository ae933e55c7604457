"""The table of methods, the credentials, and certificates as the transports read them."""

from __future__ import annotations

import csv
import dataclasses
import pathlib
import time

import pytest

from runtime.errors import Refused
from runtime.wire.certificates import DEPTH_MAX, parse_chain, subject_of_der, verify
from runtime.wire.port import CA_NAME, MANAGER, WORKER, Credentials, Identity, Material
from runtime.wire.services import MANAGERS, MEMBERS, METHODS, OWN_PACKAGE, path, routes
from tests.unit.wire.authority import CLUSTER, Authority, authority, stranger

TABLE = pathlib.Path(__file__).parents[3].parent / "shared" / "wire" / "swarmkit-services.csv"


def test_every_method_is_as_swarmkit_has_it() -> None:
    if not TABLE.exists():
        pytest.skip(f"{TABLE.name} is not beside the repository")
    rows = list(csv.DictReader(TABLE.open()))
    assert len(rows) == len([path for path in METHODS if not path.startswith(f"/{OWN_PACKAGE}.")])
    for row in rows:
        method = METHODS[f"/{row['service']}/{row['method']}"]
        assert method.request.DESCRIPTOR.full_name == row["request"]
        assert method.response.DESCRIPTOR.full_name == row["response"]
        assert method.client_streaming == (row["request_stream"] == "true")
        assert method.server_streaming == (row["response_stream"] == "true")
        roles = row["authorised_roles"]
        assert method.roles == (None if roles == "insecure" else frozenset(roles.split()))


@pytest.mark.parametrize(
    ("service", "name", "roles"),
    [
        ("CA", "GetRootCACertificate", None),
        ("CA", "GetUnlockKey", MANAGERS),
        ("NodeCA", "NodeCertificateStatus", None),
        ("Dispatcher", "Session", MEMBERS),
        ("Raft", "StreamRaftMessage", MANAGERS),
        ("Control", "CreateService", MANAGERS),
        ("Health", "Check", MANAGERS),
        ("LogBroker", "PublishLogs", MEMBERS),
        ("TaskAccess", "Ask", MANAGERS),
        ("TaskAccess", "Say", MANAGERS),
        ("TaskAccessBroker", "Listen", MEMBERS),
        ("TaskAccessBroker", "Answer", MEMBERS),
    ],
)
def test_roles_of_a_method(service: str, name: str, roles: frozenset[str] | None) -> None:
    assert METHODS[path(service, name)].roles == roles


def test_only_certificate_methods_are_open_to_anyone() -> None:
    open_methods = sorted(method.path.rpartition(".")[2] for method in METHODS.values() if method.roles is None)
    assert open_methods == [
        "CA/GetRootCACertificate",
        "NodeCA/IssueNodeCertificate",
        "NodeCA/NodeCertificateStatus",
    ]


def test_unknown_paths_are_refused_when_routes_are_made() -> None:
    with pytest.raises(KeyError):
        path("Dispatcher", "Nothing")
    with pytest.raises(KeyError):
        routes({"/x/y": lambda call: None})


def test_credentials_are_replaced_as_a_whole_and_show_no_key() -> None:
    credentials = Credentials(b"roots", b"cert", b"very secret")
    before = credentials.material
    assert credentials.replace(roots=b"r2", certificate=b"c2", key=b"also secret") == credentials.version == 2
    assert (before.roots, before.certificate) == (b"roots", b"cert")
    assert credentials.material == Material(2, b"r2", b"c2", b"also secret")
    assert "secret" not in repr(credentials) + repr(credentials.material) + repr(before)
    with pytest.raises(ValueError, match="go together"):
        credentials.replace(roots=b"r", certificate=b"c")
    assert credentials.version == 2


def test_an_identity_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Identity().role = MANAGER  # type: ignore[misc]


def test_a_chain_is_read_and_verified() -> None:
    pem, _ = authority().issue("node1", MANAGER)
    chain = verify(pem, authority().pem, time.time(), MANAGER)
    assert (chain.subject.cn, chain.subject.org, chain.subject.ous) == ("node1", CLUSTER, (MANAGER,))
    assert chain.names == {MANAGER, CA_NAME, "node1"}
    assert subject_of_der(chain.der) == chain.subject
    assert verify(pem, stranger().pem + authority().pem, time.time()).subject == chain.subject


@pytest.mark.parametrize(
    ("roots", "name", "offset", "text"),
    [
        ("stranger", None, 0.0, "unknown authority"),
        ("none", None, 0.0, "unknown authority"),
        ("own", "swarm-ca", 0.0, "is valid for node1, swarm-worker, not swarm-ca"),
        ("own", None, 100 * 86400.0, "has expired"),
        ("own", None, -10 * 86400.0, "is not yet valid"),
        ("own", None, 3660 * 86400.0, "has expired"),
    ],
)
def test_a_chain_that_does_not_hold_is_refused_with_the_reason(
    roots: str, name: str | None, offset: float, text: str
) -> None:
    pem, _ = authority().issue("node1", WORKER)
    bundle = {"own": authority().pem, "stranger": stranger().pem, "none": b""}[roots]
    with pytest.raises(Refused, match=text):
        verify(pem, bundle, time.time() + offset, name)


def test_a_leaf_is_no_authority() -> None:
    leaf, _ = authority().issue("node1", MANAGER)
    with pytest.raises(Refused, match="unknown authority"):
        verify(leaf, leaf, time.time())


def test_bytes_that_are_no_certificate_are_an_error() -> None:
    with pytest.raises(ValueError, match="PEM"):
        parse_chain(b"nothing")


def test_a_chain_may_go_through_intermediates_in_any_order_but_not_over_gaps() -> None:
    first = Authority(authority(), "first")
    second = Authority(first, "second")
    leaf, _ = second.issue("node1", MANAGER)
    now = time.time()
    for chain in (leaf + second.pem + first.pem, leaf + first.pem + second.pem):
        assert verify(chain, authority().pem, now).subject.cn == "node1"
    for gap in (leaf, leaf + second.pem, leaf + first.pem):
        with pytest.raises(Refused, match="unknown authority"):
            verify(gap, authority().pem, now)
    assert verify(leaf + second.pem, first.pem, now).subject.cn == "node1"


def test_a_chain_that_is_too_deep_or_goes_in_circles_is_refused() -> None:
    links = [Authority(authority(), "link0")]
    for number in range(1, DEPTH_MAX + 2):
        links.append(Authority(links[-1], f"link{number}"))
    leaf, _ = links[-1].issue("node1", MANAGER)
    with pytest.raises(Refused, match="unknown authority"):
        verify(leaf + b"".join(link.pem for link in links), authority().pem, time.time())
    own, _ = stranger().issue("node1", MANAGER)
    with pytest.raises(Refused, match="unknown authority"):
        verify(own + stranger().pem * 3, authority().pem, time.time())
