"""The keys with which nodes protect the gossip and the traffic of overlay networks (SwarmKit's key manager).

Rules owned here: three AES-128 keys for each of two subsystems, numbered by one Lamport clock that starts at a random
16-bit number and only grows; a rotation drops the oldest key of each subsystem and appends a new one, so that nodes
that are one rotation behind still understand the others. Keys live in the cluster object, and reach nodes with their
sessions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from runtime.swarm.identity import Entropy, draw
from runtime.swarm.ports import Tx
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

SUBSYSTEMS: Final = ("networking:gossip", "networking:ipsec")
KEYS_EACH: Final = 3
KEY_BYTES: Final = 16
ROTATE_EVERY_S: Final = 12 * 3600.0


def has_keys(cluster: objects.Cluster) -> bool:
    """Whether the cluster has a full set."""
    return all(len(_of(cluster, subsystem)) >= KEYS_EACH for subsystem in SUBSYSTEMS)


def make_keys(cluster: objects.Cluster, entropy: Entropy) -> None:
    """Gives a cluster, in place, the keys that it lacks."""
    if not cluster.encryption_key_lamport_clock:
        cluster.encryption_key_lamport_clock = int.from_bytes(draw(entropy, 2), "big")
    for subsystem in SUBSYSTEMS:
        for _ in range(KEYS_EACH - len(_of(cluster, subsystem))):
            _append(cluster, subsystem, draw(entropy, KEY_BYTES))


def rotate_keys(cluster: objects.Cluster, entropy: Entropy) -> None:
    """Replaces, in place, the oldest key of each subsystem by a new one."""
    for subsystem in SUBSYSTEMS:
        kept = sorted(_of(cluster, subsystem), key=lambda key: key.lamport_time)[-(KEYS_EACH - 1) :]
        others = [key for key in cluster.network_bootstrap_keys if key.subsystem != subsystem]
        del cluster.network_bootstrap_keys[:]
        cluster.network_bootstrap_keys.extend((*others, *kept))
        _append(cluster, subsystem, draw(entropy, KEY_BYTES))


def _of(cluster: objects.Cluster, subsystem: str) -> list[types.EncryptionKey]:
    return [key for key in cluster.network_bootstrap_keys if key.subsystem == subsystem]


def _append(cluster: objects.Cluster, subsystem: str, key: bytes) -> None:
    cluster.encryption_key_lamport_clock += 1
    cluster.network_bootstrap_keys.add(
        subsystem=subsystem,
        algorithm=types.EncryptionKey.AES_128_GCM,
        key=key,
        lamport_time=cluster.encryption_key_lamport_clock,
    )


def changing_keys(cluster_id: str, entropy: Entropy, *, rotate: bool) -> Callable[[Tx], bool]:
    """The transaction that makes missing keys, or (with ``rotate``) replaces the oldest; False if nothing was to do."""
    drawn = draw(entropy, 2 + KEY_BYTES * KEYS_EACH * len(SUBSYSTEMS))

    def run(tx: Tx) -> bool:
        stored = tx.get(objects.Cluster, cluster_id)
        if stored is None or (has_keys(stored) and not rotate):
            return False
        cluster = objects.Cluster()
        cluster.CopyFrom(stored)
        source = _reader(drawn)
        if has_keys(stored):
            rotate_keys(cluster, source)
        else:
            make_keys(cluster, source)
        tx.update(cluster)
        return True

    return run


def _reader(data: bytes) -> Entropy:
    """Hands out one piece after the other: the same at each run of a transaction."""
    rest = [data]

    def read(size: int) -> bytes:
        piece, rest[0] = rest[0][:size], rest[0][size:]
        return piece

    return read
