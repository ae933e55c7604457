"""Keys of overlay networks: how many, numbered how, which one goes."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runtime.swarm.bootstrap_keys import (
    KEY_BYTES,
    KEYS_EACH,
    SUBSYSTEMS,
    changing_keys,
    has_keys,
    make_keys,
    rotate_keys,
)
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.seeded import entropy


def times(cluster: objects.Cluster, subsystem: str) -> list[int]:
    return [key.lamport_time for key in cluster.network_bootstrap_keys if key.subsystem == subsystem]


def made(seed: int = 1) -> objects.Cluster:
    cluster = objects.Cluster(id="c1")
    make_keys(cluster, entropy(seed))
    return cluster


def test_a_new_cluster_has_three_keys_for_each_subsystem_numbered_in_their_order() -> None:
    cluster = made()
    start = int.from_bytes(entropy()(2), "big")
    assert [times(cluster, subsystem) for subsystem in SUBSYSTEMS] == [
        [start + 1, start + 2, start + 3],
        [start + 4, start + 5, start + 6],
    ]
    assert cluster.encryption_key_lamport_clock == start + 6
    assert {len(key.key) for key in cluster.network_bootstrap_keys} == {KEY_BYTES}
    assert {key.algorithm for key in cluster.network_bootstrap_keys} == {types.EncryptionKey.AES_128_GCM}
    assert len({key.key for key in cluster.network_bootstrap_keys}) == 6


def test_a_rotation_drops_the_oldest_whichever_place_it_stands_in() -> None:
    cluster = made()
    keys = list(cluster.network_bootstrap_keys)
    random.Random(4).shuffle(keys)
    del cluster.network_bootstrap_keys[:]
    cluster.network_bootstrap_keys.extend(keys)
    before = {subsystem: sorted(times(cluster, subsystem)) for subsystem in SUBSYSTEMS}
    clock = cluster.encryption_key_lamport_clock
    rotate_keys(cluster, entropy(2))
    for number, subsystem in enumerate(SUBSYSTEMS, 1):
        assert times(cluster, subsystem) == [*before[subsystem][1:], clock + number]


@given(st.integers(0, 20), st.integers(0, 1000))
def test_the_clock_only_grows_and_the_set_stays_full(rotations: int, seed: int) -> None:
    cluster, source = made(seed), entropy(seed)
    last = cluster.encryption_key_lamport_clock
    for _ in range(rotations):
        rotate_keys(cluster, source)
        assert cluster.encryption_key_lamport_clock == last + len(SUBSYSTEMS)
        last = cluster.encryption_key_lamport_clock
    assert has_keys(cluster)
    assert len(cluster.network_bootstrap_keys) == KEYS_EACH * len(SUBSYSTEMS)


def test_what_is_missing_is_added_and_what_is_there_stays() -> None:
    cluster = made()
    del cluster.network_bootstrap_keys[4:]
    kept = [key.key for key in cluster.network_bootstrap_keys]
    assert not has_keys(cluster)
    make_keys(cluster, entropy(3))
    assert has_keys(cluster)
    assert [key.key for key in cluster.network_bootstrap_keys][:4] == kept


class Store:
    def __init__(self, cluster: objects.Cluster | None) -> None:
        self.cluster = cluster
        self.writes = 0

    def get(self, kind: Any, id: str) -> Any:
        return self.cluster

    def update(self, obj: Any) -> None:
        self.cluster = obj
        self.writes += 1


def run(step: Any, store: Any) -> bool:
    return bool(step(store))


def test_a_step_does_the_same_at_every_run_and_nothing_where_nothing_is_to_do() -> None:
    step = changing_keys("c1", entropy(), rotate=False)
    one, other, full, none = Store(objects.Cluster()), Store(objects.Cluster()), Store(made()), Store(None)
    assert [run(step, store) for store in (one, other, full, none)] == [True, True, False, False]
    assert one.cluster == other.cluster
    assert (full.writes, none.writes) == (0, 0)
    assert one.cluster is not None
    assert has_keys(one.cluster)


def test_a_rotating_step_replaces_keys_once() -> None:
    store = Store(made())
    assert store.cluster is not None
    clock = store.cluster.encryption_key_lamport_clock
    assert run(changing_keys("c1", entropy(2), rotate=True), store)
    assert store.cluster.encryption_key_lamport_clock == clock + len(SUBSYSTEMS)
