"""CFSSL's protocol: what is asked, and what of an answer counts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography import x509

from runtime.errors import Code, Refused
from runtime.pki.certificates import MANAGER_ROLE, Holder, create_csr, csr_public_key
from runtime.pki.cfssl import PERMANENT, authority_request, node_request, read_answer
from runtime.pki.keys import new_key, public_der
from runtime.pki.root import NoSigner, load_root
from tests.seeded import entropy
from tests.unit.pki.support import NOW, a_node, a_root

URL = "https://ca/sign"


def test_a_node_is_asked_for_by_name_whatever_its_request_says() -> None:
    csr = create_csr(new_key(entropy()))
    asked = json.loads(node_request(csr, Holder("n1", MANAGER_ROLE, "c1")))
    assert asked == {
        "certificate_request": csr.decode(),
        "subject": {"CN": "n1", "names": [{"OU": "swarm-manager", "O": "c1"}]},
        "hosts": ["swarm-manager", "n1", "swarm-ca"],
    }


def test_a_root_is_asked_for_as_an_authority_with_its_own_subject_and_key() -> None:
    root = a_root()
    asked = json.loads(authority_request(root))
    assert (asked["profile"], asked["subject"]["CN"]) == ("CA", "swarm-ca")
    key = root.certificates[0].public_key()
    assert public_der(csr_public_key(asked["certificate_request"].encode())) == public_der(key)  # type: ignore[arg-type]
    (extension,) = asked["extensions"]
    assert extension["id"] == "2.5.29.19"
    assert bytes.fromhex(extension["value"]) == x509.BasicConstraints(ca=True, path_length=None).public_bytes()


def test_a_root_without_its_key_asks_for_nothing() -> None:
    with pytest.raises(NoSigner):
        authority_request(load_root(a_root().bundle, NOW))


def answer(**content: Any) -> bytes:
    return json.dumps(content).encode()


def test_a_certificate_is_taken_out_of_its_answer_in_standard_form() -> None:
    leaf = a_node(a_root())
    said = answer(success=True, result={"certificate": leaf.decode().replace("\n", "\r\n")})
    assert read_answer(URL, 200, said) == leaf


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, answer(success=True)),
        (200, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b"\xff\xfe"),
        (200, b"[" * 100_000),
        (200, answer(success=True)),
        (200, answer(success=True, result=[])),
        (200, answer(success=True, result={"certificate": 7})),
        (200, answer(success=True, result={"certificate": "no pem"})),
        (200, answer(success=True, result={"certificate": "\u00e9"})),
    ],
)
def test_what_is_not_understood_may_be_better_another_time(status: int, body: bytes) -> None:
    refused = read_answer(URL, status, body)
    assert isinstance(refused, Refused)
    assert refused.code is Code.UNAVAILABLE
    assert URL in refused.text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"success": False, "errors": [{"code": 1, "message": "no such node"}]}, "no such node"),
        ({"success": False, "errors": "?"}, "without a reason"),
        ({"success": False, "errors": [7, {"message": ""}]}, "without a reason"),
        ({"success": "yes"}, "without a reason"),
        ({}, "without a reason"),
    ],
)
def test_a_refusal_by_the_authority_is_final_and_in_its_words(content: dict[str, Any], reason: str) -> None:
    refused = read_answer(URL, 200, answer(**content))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.text) == (PERMANENT, f"the external CA at {URL} refused: {reason}")


def test_a_long_reason_is_cut() -> None:
    refused = read_answer(URL, 200, answer(success=False, errors=[{"message": "x" * 100_000}]))
    assert isinstance(refused, Refused)
    assert len(refused.text) < 1000
