"""The small files of a node: what it was asked to be, whom it knows, and its certificates.

Rules owned here: names, formats and permissions of these files (dockerd's and SwarmKit's), and the order in which a
new certificate and key replace the old ones, such that a crash at any point leaves a pair that fits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from runtime.disk.errors import StateDamaged
from runtime.disk.port import Files
from runtime.failpoints import failpoint

DOCKER_STATE = "docker-state.json"
REMOTES = "state.json"
CERTIFICATES = "certificates"
ROOT_CERT = "certificates/swarm-root-ca.crt"
ROOT_KEY = "certificates/swarm-root-ca.key"
FOUNDING_KEY = "certificates/.founding-root-ca.key"
NODE_CERT = "certificates/swarm-node.crt"
NODE_KEY = "certificates/swarm-node.key"
NEW_NODE_CERT = "certificates/.swarm-node.crt"

PRIVATE, PUBLIC = 0o600, 0o644
_DIRECTORY = 0o755

Pair = tuple[bytes, bytes]
"""A node's certificate and key file."""


@dataclass(frozen=True, slots=True)
class DockerState:
    """How this node entered its swarm; what dockerd keeps in ``docker-state.json``."""

    local_addr: str = ""
    remote_addr: str = ""
    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    default_address_pool: tuple[str, ...] | None = None
    subnet_size: int = 0
    data_path_port: int = 0
    join_in_progress: bool = False


@dataclass(frozen=True, slots=True)
class Remote:
    """A manager that this node knows."""

    node_id: str
    addr: str


_NAMES = {field.name: "".join(word.capitalize() for word in field.name.split("_")) for field in fields(DockerState)}
_KINDS: dict[str, type] = {"subnet_size": int, "data_path_port": int, "join_in_progress": bool}


def encode_docker_state(state: DockerState) -> bytes:
    """The file's bytes, field by field in dockerd's order, without blanks."""
    return json.dumps({name: getattr(state, field) for field, name in _NAMES.items()}, separators=(",", ":")).encode()


def decode_docker_state(data: bytes) -> DockerState:
    """Reads the file; ``StateDamaged`` when it is malformed or says something that is not understood."""
    content = _parse(DOCKER_STATE, data)
    if not isinstance(content, dict):
        raise StateDamaged(f"{DOCKER_STATE} is malformed: it is not an object")
    unknown = sorted(set(content) - set(_NAMES.values()))
    if unknown:
        raise StateDamaged(f"{DOCKER_STATE} has fields that are not understood: {', '.join(unknown)}")
    return DockerState(**{field: _value(field, content[name]) for field, name in _NAMES.items() if name in content})


def _value(field: str, value: Any) -> Any:
    if field == "default_address_pool":
        if value is None:
            return None
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
    elif type(value) is _KINDS.get(field, str):
        return value
    raise StateDamaged(f"{DOCKER_STATE} is malformed: {_NAMES[field]} cannot be {value!r}")


def encode_remotes(remotes: Sequence[Remote]) -> bytes:
    """The file's bytes: managers sorted by node id, empty fields left out."""
    ordered = sorted(remotes, key=lambda remote: (remote.node_id, remote.addr))
    pairs = [{"node_id": remote.node_id, "addr": remote.addr} for remote in ordered]
    content = [{name: value for name, value in pair.items() if value} for pair in pairs]
    return json.dumps(content, separators=(",", ":")).encode()


def decode_remotes(data: bytes) -> list[Remote]:
    """Reads the file; ``StateDamaged`` when it is malformed."""
    content = _parse(REMOTES, data)
    if content is None:  # what Go writes for no list at all
        return []
    if not isinstance(content, list):
        raise StateDamaged(f"{REMOTES} is malformed: it is not a list")
    return [_remote(item) for item in content]


def _remote(item: Any) -> Remote:
    if not isinstance(item, dict) or not set(item) <= {"node_id", "addr"}:
        raise StateDamaged(f"{REMOTES} has an entry that is not understood")
    node_id, addr = item.get("node_id", ""), item.get("addr", "")
    if not isinstance(node_id, str) or not isinstance(addr, str):
        raise StateDamaged(f"{REMOTES} is malformed: node_id and addr are texts")
    return Remote(node_id, addr)


def _parse(name: str, data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StateDamaged(f"{name} is malformed: {error}") from None


class StateFiles:
    """A node's small files, over the ``Files`` port."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def docker_state(self) -> DockerState | None:
        """How this node entered its swarm; None when it is in none."""
        data = self._files.read(DOCKER_STATE)
        return None if data is None else decode_docker_state(data)

    def save_docker_state(self, state: DockerState) -> None:
        """Replaces ``docker-state.json``."""
        self._files.write_atomic(DOCKER_STATE, encode_docker_state(state), PRIVATE)

    def remotes(self) -> list[Remote]:
        """Known managers; none when the file is missing."""
        data = self._files.read(REMOTES)
        return [] if data is None else decode_remotes(data)

    def save_remotes(self, remotes: Sequence[Remote]) -> bool:
        """Replaces ``state.json`` unless it says the same already; True when it was written."""
        data = encode_remotes(remotes)
        if self._files.read(REMOTES) == data:
            return False
        self._files.write_atomic(REMOTES, data, PRIVATE)
        return True

    def root_certificate(self) -> bytes | None:
        """The trusted bundle."""
        return self._files.read(ROOT_CERT)

    def root_key(self) -> bytes | None:
        """A root key that an operator put there; it is never written."""
        return self._files.read(ROOT_KEY)

    def founding_key(self) -> bytes | None:
        """The root key of a cluster whose founding did not get as far as the log."""
        return self._files.read(FOUNDING_KEY)

    def save_founding_key(self, key: bytes) -> None:
        """Keeps a new cluster's root key until the log holds it: a crash in between must not lose it."""
        self._files.make_dirs(CERTIFICATES, _DIRECTORY)
        self._files.write_atomic(FOUNDING_KEY, key, PRIVATE)

    def drop_founding_key(self) -> None:
        """The log holds the root key now."""
        if self._files.exists(FOUNDING_KEY):
            self._files.remove(FOUNDING_KEY)

    def save_root_certificate(self, bundle: bytes) -> None:
        """Replaces the trusted bundle."""
        self._files.make_dirs(CERTIFICATES, _DIRECTORY)
        self._files.write_atomic(ROOT_CERT, bundle, PUBLIC)

    def node_key(self) -> bytes | None:
        """The node's key file as it is."""
        return self._files.read(NODE_KEY)

    def save_node_key(self, key: bytes) -> None:
        """Replaces the key file alone: same key with other headers, or under another unlock key."""
        self._files.write_atomic(NODE_KEY, key, PRIVATE)

    def save_node(self, certificate: bytes, key: bytes) -> None:
        """Replaces certificate and key together.

        1. The new certificate is put beside the old one. 2. The key replaces the old key: from here on the old
        certificate fits nothing, but the new one is there to be found. 3. The certificate takes its place.
        """
        self._files.make_dirs(CERTIFICATES, _DIRECTORY)
        self._files.write_atomic(NEW_NODE_CERT, certificate, PUBLIC)
        self._files.write_atomic(NODE_KEY, key, PRIVATE)
        failpoint("node.key_written_cert_missing")
        self._files.rename(NEW_NODE_CERT, NODE_CERT)

    def load_node(self, fits: Callable[[bytes, bytes], bool]) -> Pair | None:
        """The certificate and key in force, or None when both are missing.

        ``fits(certificate, key)`` says whether they belong together; what it raises (the node is locked) passes. A new
        certificate that fits is put in place, one that does not is removed. ``StateDamaged`` when nothing fits, or
        when one is there without the other: no crash leaves that, and to begin anew would forget who this node is.
        """
        key, certificate = self._files.read(NODE_KEY), self._files.read(NODE_CERT)
        if key is None:
            if certificate is not None:
                raise StateDamaged(f"{NODE_KEY} is missing, but {NODE_CERT} is there")
            self._files.remove(NEW_NODE_CERT)
            return None
        if certificate is not None and fits(certificate, key):
            self._files.remove(NEW_NODE_CERT)
            return certificate, key
        waiting = self._files.read(NEW_NODE_CERT)
        if waiting is not None:
            if fits(waiting, key):
                self._files.rename(NEW_NODE_CERT, NODE_CERT)
                return waiting, key
            self._files.remove(NEW_NODE_CERT)
        if certificate is None:
            raise StateDamaged(f"{NODE_CERT} is missing, but {NODE_KEY} is there")
        raise StateDamaged(f"{NODE_CERT} does not belong to {NODE_KEY}")
