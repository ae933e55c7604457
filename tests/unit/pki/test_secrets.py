"""Tokens, unlock keys, sealed values and the key file."""

from __future__ import annotations

import base64
import hashlib
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import Code, Refused
from runtime.pki import secretbox
from runtime.pki.errors import CannotDecrypt, InvalidKey, InvalidUnlockKey
from runtime.pki.identity import demands_fips, from_base36, new_cluster_id, new_id, to_base36
from runtime.pki.join_tokens import check_bundle, match_role, new_join_token, parse_join_token
from runtime.pki.key_file import DataKeys, KeyFile, change_kek, decode_key_file, encode_key_file, is_encrypted
from runtime.pki.keys import PrivateKey, new_key, public_der
from runtime.pki.sealed_record import open_record, seal_record
from runtime.pki.unlock_key import format_unlock_key, new_unlock_key, parse_unlock_key
from runtime.wire.pb import types_pb2
from tests.seeded import entropy

from .support import a_root

BUNDLE = a_root().bundle
TOKEN = new_join_token(BUNDLE, entropy(11))
KEK = bytes(range(32))


def same_key(left: PrivateKey, right: PrivateKey) -> bool:
    return public_der(left.public_key()) == public_der(right.public_key())


@given(st.integers(0, 2**300))
def test_base_36_goes_both_ways(number: int) -> None:
    assert from_base36(to_base36(number)) == number
    assert int(to_base36(number), 36) == number


@pytest.mark.parametrize("text", ["", "A", "-1", " 1", "1_0", "é"])
def test_base_36_takes_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match="base-36"):
        from_base36(text)


@given(st.binary(min_size=17, max_size=17))
def test_an_id_has_25_characters_whatever_the_entropy(raw: bytes) -> None:
    made = new_id(lambda size: raw[:size])
    assert len(made) == 25
    number = int.from_bytes(bytes([raw[0] | 0x80]) + raw[1:], "big")
    assert to_base36(number)[1:26] == made


def test_a_fips_cluster_says_so_in_its_id() -> None:
    assert demands_fips(new_cluster_id(entropy(), fips=True))
    assert not demands_fips(new_cluster_id(entropy()))
    assert new_cluster_id(entropy(), fips=True)[5:] == new_cluster_id(entropy())


def test_a_token_carries_the_digest_of_the_bundle() -> None:
    parts = TOKEN.split("-")
    assert parts[:2] == ["SWMTKN", "1"]
    assert [len(part) for part in parts[2:]] == [50, 25]
    parsed = parse_join_token(TOKEN)
    assert parsed.digest == hashlib.sha256(BUNDLE).digest()
    assert (parsed.version, parsed.fips, parsed.secret) == (1, False, parts[3])
    assert parts[3] not in repr(parsed)


def test_a_fips_token_has_the_second_form() -> None:
    token = new_join_token(BUNDLE, entropy(), fips=True)
    assert token.startswith("SWMTKN-2-1-")
    parsed = parse_join_token(token)
    assert (parsed.version, parsed.fips) == (2, True)
    assert not parse_join_token(token.replace("-2-1-", "-2-0-")).fips


def test_small_numbers_are_padded() -> None:
    token = new_join_token(BUNDLE, lambda size: bytes(size))
    assert token.endswith("-" + "0" * 25)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "SWMTKN",
        "SWMTKN-1",
        TOKEN[:-1],
        TOKEN + "x",
        TOKEN + "-x",
        TOKEN.lower(),
        TOKEN.replace("SWMTKN-1", "SWMTKN-3"),
        TOKEN.replace("SWMTKN-1", "SWMTKN-2"),
        TOKEN.replace("SWMTKN-1", "SWMTKN-2-2"),
        "SWMTKN-1-" + "z" * 50 + "-" + "0" * 25,
        "SWMTKN-1-" + "A" * 50 + "-" + "0" * 25,
    ],
)
def test_a_malformed_token_is_refused_with_the_engines_text(token: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_join_token(token)
    assert refused.value.text == "invalid join token"


def test_a_bundle_that_the_token_does_not_know_is_refused_with_the_expected_digest() -> None:
    token = parse_join_token(TOKEN)
    check_bundle(token, BUNDLE)
    with pytest.raises(Refused) as refused:
        check_bundle(token, BUNDLE + b"\n")
    digest = hashlib.sha256(BUNDLE).hexdigest()
    assert refused.value.text == f"remote CA does not match fingerprint. Expected: {digest}"


def test_a_role_depends_on_which_token_matches() -> None:
    worker = new_join_token(BUNDLE, entropy(12))
    assert match_role(TOKEN, manager=TOKEN, worker=worker) == "swarm-manager"
    assert match_role(worker, manager=TOKEN, worker=worker) == "swarm-worker"
    assert match_role(TOKEN, manager=TOKEN, worker=TOKEN) == "swarm-manager"


@pytest.mark.parametrize("token", ["", "é", TOKEN[:-1], TOKEN + " ", TOKEN.upper()])
def test_a_token_that_matches_neither_is_refused(token: str) -> None:
    with pytest.raises(Refused) as refused:
        match_role(token, manager=TOKEN, worker="")
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert refused.value.text == "A valid join token is necessary to join this cluster"


@given(st.binary(min_size=1, max_size=40))
def test_an_unlock_key_goes_both_ways(key: bytes) -> None:
    text = format_unlock_key(key)
    assert text.startswith("SWMKEY-1-")
    assert "=" not in text
    assert parse_unlock_key(text) == key


def test_an_unlocked_cluster_shows_the_bare_prefix() -> None:
    assert format_unlock_key(b"") == "SWMKEY-1-"
    assert parse_unlock_key("SWMKEY-1-") == b""
    assert len(new_unlock_key(entropy())) == 32


GOOD = format_unlock_key(KEK)


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD[9:],
        GOOD + "=",
        GOOD + "\n",
        GOOD[:-1] + "9",
        "swmkey" + GOOD[6:],
        GOOD[:12] + "-" + GOOD[13:],
        "SWMKEY-1-A",
    ],
)
def test_anything_else_is_no_unlock_key(text: str) -> None:
    with pytest.raises(Refused, match="invalid key string"):
        parse_unlock_key(text)


# The vector of the NaCl distribution (tests/secretbox.c).
NACL_KEY = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
NACL_NONCE = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
NACL_MESSAGE = bytes.fromhex(
    "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c6129"
    "6cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde"
    "048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705"
)
NACL_SEALED = bytes.fromhex(
    "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186a"
    "c0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae"
    "90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74"
    "e355a5"
)


def test_the_published_vector_of_secretbox_holds() -> None:
    assert secretbox.seal(NACL_KEY, NACL_NONCE, NACL_MESSAGE) == NACL_SEALED
    assert secretbox.unseal(NACL_KEY, NACL_NONCE, NACL_SEALED) == NACL_MESSAGE


def test_hsalsa20_gives_the_published_subkeys() -> None:
    # tests/core1.c and core2.c of the NaCl distribution.
    shared = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert secretbox._hsalsa20(shared, bytes(16)) == NACL_KEY
    second = bytes.fromhex("dc908dda0b9344a953629b733820778880f3ceb421bb61b91cbd4c3e66256ce4")
    assert secretbox._hsalsa20(NACL_KEY, NACL_NONCE[:16]) == second


@settings(max_examples=25)
@given(st.binary(max_size=200), st.integers(0, 2**32))
def test_a_sealed_value_opens_unless_a_bit_is_wrong(message: bytes, seed: int) -> None:
    rng = random.Random(seed)
    key, nonce = rng.randbytes(32), rng.randbytes(24)
    sealed = secretbox.seal(key, nonce, message)
    assert secretbox.unseal(key, nonce, sealed) == message
    wrong = bytearray(sealed)
    wrong[rng.randrange(len(wrong))] ^= 1 << rng.randrange(8)
    with pytest.raises(CannotDecrypt):
        secretbox.unseal(key, nonce, bytes(wrong))


@pytest.mark.parametrize("sizes", [(31, 24, 20), (32, 23, 20), (32, 24, 15)])
def test_a_sealed_value_of_the_wrong_form_does_not_open(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(CannotDecrypt):
        secretbox.unseal(bytes(sizes[0]), bytes(sizes[1]), bytes(sizes[2]))


@pytest.mark.parametrize("key", [b"", KEK, b"short", bytes(40)])
def test_a_record_opens_with_its_key(key: bytes) -> None:
    record = seal_record(b"data", key, entropy())
    assert open_record(record, key) == b"data"
    algorithm = types_pb2.MaybeEncryptedRecord.FromString(record).algorithm
    assert algorithm == (
        types_pb2.MaybeEncryptedRecord.SECRETBOX_SALSA20_POLY1305 if key else types_pb2.MaybeEncryptedRecord.NONE
    )


def test_short_keys_are_padded_and_long_ones_cut() -> None:
    assert open_record(seal_record(b"x", b"short", entropy()), b"short" + bytes(27)) == b"x"
    assert open_record(seal_record(b"x", KEK + b"more", entropy()), KEK) == b"x"


def test_a_fernet_record_is_read() -> None:
    token = Fernet(base64.urlsafe_b64encode(KEK)).encrypt(b"data")
    record = types_pb2.MaybeEncryptedRecord(algorithm=types_pb2.MaybeEncryptedRecord.FERNET_AES_128_CBC, data=token)
    assert open_record(record.SerializeToString(), KEK) == b"data"
    with pytest.raises(CannotDecrypt):
        open_record(record.SerializeToString(), bytes(32))


def test_a_record_does_not_open_without_its_key() -> None:
    sealed = seal_record(b"data", KEK, entropy())
    for key in (b"", bytes(32)):
        with pytest.raises(CannotDecrypt):
            open_record(sealed, key)
    with pytest.raises(CannotDecrypt):
        open_record(b"\xff\xff", KEK)


KEY = new_key(entropy(21))
DATA_KEYS = DataKeys(b"c" * 32, b"p" * 32, needs_rotation=True)


@pytest.mark.parametrize("kek", [b"", KEK])
@pytest.mark.parametrize("data_keys", [None, DataKeys(b"c" * 32), DATA_KEYS])
def test_a_key_file_gives_back_what_was_written(kek: bytes, data_keys: DataKeys | None) -> None:
    text = encode_key_file(KeyFile(KEY, 42, data_keys), kek, entropy())
    assert is_encrypted(text) == bool(kek)
    read = decode_key_file(text, kek)
    assert same_key(read.key, KEY)
    assert (read.kek_version, read.data_keys) == (42, data_keys)


def test_the_layout_of_a_key_file() -> None:
    lines = encode_key_file(KeyFile(KEY, 7, DATA_KEYS), KEK, entropy()).decode().splitlines()
    assert lines[0] == "-----BEGIN ENCRYPTED PRIVATE KEY-----"
    assert [line.partition(": ")[0] for line in lines[1:5]] == [
        "kek-version",
        "raft-dek",
        "raft-dek-needs-rotation",
        "raft-dek-pending",
    ]
    assert lines[1] == "kek-version: 7"
    assert lines[3] == "raft-dek-needs-rotation: true"
    assert lines[5] == ""
    assert max(len(line) for line in lines[6:]) == 64
    plain = encode_key_file(KeyFile(KEY), b"", entropy()).decode().splitlines()
    assert plain[:3] == ["-----BEGIN PRIVATE KEY-----", "kek-version: 0", ""]


def test_openssl_opens_an_encrypted_key(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl program here")
    password = b"a password without noughts"
    text = encode_key_file(KeyFile(KEY), password, entropy())
    body = [line for line in text.decode().splitlines() if ":" not in line and line]
    (tmp_path / "key.pem").write_text("\n".join(body) + "\n")
    command = [
        openssl,
        "pkcs8",
        "-in",
        "key.pem",
        "-passin",
        f"pass:{password.decode()}",
        "-outform",
        "DER",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        [openssl, "asn1parse", "-in", "key.pem"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert "PBES2" in shown
    assert "aes-256-cbc" in shown
    assert ":0800" in shown
    assert "hmac" not in shown.lower()


@pytest.mark.parametrize("kek", [b"", bytes(32)])
def test_a_locked_key_file_does_not_open_without_its_key(kek: bytes) -> None:
    for content in (KeyFile(KEY), KeyFile(KEY, 1, DATA_KEYS)):
        with pytest.raises(InvalidUnlockKey):
            decode_key_file(encode_key_file(content, KEK, entropy()), kek)


def test_an_unlock_key_for_an_unlocked_file_is_not_needed_and_not_refused() -> None:
    text = encode_key_file(KeyFile(KEY, 3, DATA_KEYS), b"", entropy())
    assert decode_key_file(text, KEK).data_keys == DATA_KEYS


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"kek-version: 1", b"kek-version: one"),
        (b"raft-dek: ", b"raft-dek: !"),
        (b"PRIVATE KEY", b"PUBLIC KEY"),
        (b"-----BEGIN", b"-----BEG"),
    ],
)
def test_a_malformed_key_file_is_refused(old: bytes, new: bytes) -> None:
    text = encode_key_file(KeyFile(KEY, 1, DataKeys(b"c" * 32)), b"", entropy())
    assert old in text
    with pytest.raises(InvalidKey):
        decode_key_file(text.replace(old, new), b"")


def test_a_pending_data_key_without_a_current_one_is_refused() -> None:
    text = encode_key_file(KeyFile(KEY, 1, DATA_KEYS), b"", entropy())
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith(b"raft-dek:")]
    with pytest.raises(InvalidKey, match="pending"):
        decode_key_file(b"".join(lines), b"")


@pytest.mark.parametrize("password", [b"", KEK])
def test_the_form_of_old_nodes_is_read_except_under_fips(password: bytes) -> None:
    old = ec.generate_private_key(ec.SECP256R1())
    sealing = BestAvailableEncryption(password) if password else NoEncryption()
    text = old.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, sealing)
    text = text.replace(b"KEY-----\n", b"KEY-----\n" + (b"kek-version: 5\n" if password else b"kek-version: 5\n\n"), 1)
    assert is_encrypted(text) == bool(password)
    read = decode_key_file(text, password)
    assert same_key(read.key, old)
    assert read.kek_version == 5
    with pytest.raises(InvalidKey, match="not supported"):
        decode_key_file(text, password, fips=True)
    if password:
        for wrong in (b"", b"wrong"):
            with pytest.raises(InvalidUnlockKey):
                decode_key_file(text, wrong)


def test_secrets_do_not_show_in_reprs() -> None:
    content = KeyFile(KEY, 1, DATA_KEYS)
    assert "ccc" not in repr(content)
    assert "ppp" not in repr(content.data_keys)
    assert "PRIVATE" not in repr(a_root())


def test_a_newer_unlock_key_replaces_the_one_in_force() -> None:
    content = KeyFile(KEY, 5, DataKeys(b"c" * 32))
    changed = change_kek(content, KEK, b"n" * 32, 6)
    assert changed is not None
    assert (changed.kek_version, changed.data_keys) == (6, content.data_keys)


def test_locking_asks_for_a_new_data_key_and_unlocking_does_not() -> None:
    content = KeyFile(KEY, 5, DataKeys(b"c" * 32))
    locked = change_kek(content, b"", KEK, 6)
    assert locked is not None
    assert locked.data_keys == DataKeys(b"c" * 32, needs_rotation=True)
    unlocked = change_kek(content, KEK, b"", 6)
    assert unlocked is not None
    assert unlocked.data_keys == content.data_keys


@pytest.mark.parametrize(("candidate", "version"), [(KEK, 5), (KEK, 6), (b"n" * 32, 4)])
def test_an_old_or_equal_unlock_key_changes_nothing(candidate: bytes, version: int) -> None:
    assert change_kek(KeyFile(KEY, 5), KEK, candidate, version) is None


def test_two_unlock_keys_of_one_version_contradict() -> None:
    with pytest.raises(InvalidKey, match="same version 5"):
        change_kek(KeyFile(KEY, 5), KEK, b"n" * 32, 5)


def test_a_data_key_rotates_in_two_steps() -> None:
    begun = DataKeys(b"c" * 32, needs_rotation=True).begin_rotation(entropy())
    assert len(begun.pending) == 32
    assert not begun.needs_rotation
    asked_again = DataKeys(begun.current, begun.pending, needs_rotation=True)
    done = asked_again.finish_rotation()
    assert done == DataKeys(begun.pending, needs_rotation=True)
