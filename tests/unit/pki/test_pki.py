"""Root, leaves, tokens, key files: exact fields and formats, and their refusals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from runtime.errors import Code, Refused
from runtime.pki import join_tokens, key_file, secretbox
from runtime.pki.errors import CannotDecrypt, InvalidUnlockKey
from runtime.pki.key_file import DataKeys, KeyFile
from runtime.pki.keys import new_key
from runtime.pki.root import create_root
from tests.seeded import entropy

NOW = 1_700_000_000.0


def test_secretbox_gives_the_published_vector() -> None:
    key = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
    nonce = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
    message = bytes.fromhex(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f4"
        "1db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52"
        "f0a089bc76897040e082f937763848645e0705"
    )
    sealed = bytes.fromhex(
        "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b"
        "4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da"
        "99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5"
    )
    assert secretbox.seal(key, nonce, message) == sealed
    assert secretbox.unseal(key, nonce, sealed) == message
    with pytest.raises(CannotDecrypt):
        secretbox.unseal(key, nonce, sealed[:-1] + bytes([sealed[-1] ^ 1]))


def test_a_root_has_swarmkits_fields() -> None:
    root = create_root(entropy(), NOW).certificates[0]
    assert root.subject == root.issuer == x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-ca")])
    assert root.not_valid_after_utc - root.not_valid_before_utc == timedelta(seconds=630720000)
    age = datetime.fromtimestamp(NOW, UTC) - root.not_valid_before_utc
    assert timedelta(minutes=4) <= age <= timedelta(minutes=6)
    basic = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, None)
    usage = root.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)


def test_the_same_entropy_gives_the_same_root() -> None:
    assert create_root(entropy(5), NOW).bundle == create_root(entropy(5), NOW).bundle
    assert create_root(entropy(5), NOW).bundle != create_root(entropy(6), NOW).bundle


def test_extended_usages_are_for_leaves_alone() -> None:
    root = create_root(entropy(), NOW).certificates[0]
    with pytest.raises(x509.ExtensionNotFound):
        root.extensions.get_extension_for_class(x509.ExtendedKeyUsage)


def test_a_token_names_the_root_and_grants_one_role() -> None:
    bundle = create_root(entropy(), NOW).bundle
    worker, manager = (join_tokens.new_join_token(bundle, entropy(seed)) for seed in (2, 3))
    parts = worker.split("-")
    assert (parts[0], parts[1], len(parts[2]), len(parts[3])) == ("SWMTKN", "1", 50, 25)
    parsed = join_tokens.parse_join_token(worker)
    join_tokens.check_bundle(parsed, bundle)
    assert parts[3] not in repr(parsed)
    assert join_tokens.match_role(worker, manager=manager, worker=worker) == "swarm-worker"
    assert join_tokens.match_role(manager, manager=manager, worker=worker) == "swarm-manager"
    with pytest.raises(Refused) as refused:
        join_tokens.match_role(worker[:-1] + "_", manager=manager, worker=worker)
    assert refused.value.code is Code.INVALID_ARGUMENT


def test_a_token_for_another_root_does_not_fit() -> None:
    token = join_tokens.parse_join_token(join_tokens.new_join_token(create_root(entropy(), NOW).bundle, entropy()))
    with pytest.raises(Refused, match=r"remote CA does not match fingerprint\. Expected: "):
        join_tokens.check_bundle(token, create_root(entropy(9), NOW).bundle)


@pytest.mark.parametrize("text", ["", "SWMTKN", "SWMTKN-1-a-b", "SWMTKN-3-" + "0" * 50 + "-" + "0" * 25, "x" * 90])
def test_a_malformed_token_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="invalid join token"):
        join_tokens.parse_join_token(text)


@pytest.mark.parametrize("kek", [b"", b"k" * 32])
def test_a_key_file_keeps_key_version_and_data_keys(kek: bytes) -> None:
    key = new_key(entropy())
    content = KeyFile(key, 7, DataKeys(b"c" * 32, b"p" * 32, True))
    text = key_file.encode_key_file(content, kek, entropy(4))
    assert key_file.is_encrypted(text) is bool(kek)
    read = key_file.decode_key_file(text, kek)
    assert (read.kek_version, read.data_keys) == (7, content.data_keys)
    assert read.key.private_numbers() == key.private_numbers()
    assert "cccc" not in repr(read)


@pytest.mark.parametrize("wrong", [b"", b"x" * 32])
def test_an_encrypted_key_file_needs_its_unlock_key(wrong: bytes) -> None:
    text = key_file.encode_key_file(KeyFile(new_key(entropy())), b"k" * 32, entropy(4))
    with pytest.raises(InvalidUnlockKey):
        key_file.decode_key_file(text, wrong)
