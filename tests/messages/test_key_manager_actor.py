"""KeyManagerActor: keys that are missing, the rotation, a store that refuses, a new life."""

from __future__ import annotations

from actors.key_manager_actor import TRY_AGAIN, KeyManagerActor
from runtime.swarm.bootstrap_keys import ROTATE_EVERY_S, has_keys, make_keys
from runtime.wire.pb import objects_pb2 as objects
from tests.messages.part_bench import PartBench
from tests.seeded import entropy


def a_cluster(*, keys: bool) -> objects.Cluster:
    cluster = objects.Cluster(id="cluster")
    cluster.spec.annotations.name = "default"
    if keys:
        make_keys(cluster, entropy(1))
    return cluster


def stored(bench: PartBench) -> objects.Cluster:
    cluster = bench.published.view.get(objects.Cluster, "cluster")
    assert cluster is not None
    return cluster


def test_a_cluster_without_keys_gets_them_at_once() -> None:
    bench = PartBench(KeyManagerActor, a_cluster(keys=False))
    bench.wait(lambda: has_keys(stored(bench)))


def test_keys_that_are_there_are_not_touched_for_twelve_hours() -> None:
    bench = PartBench(KeyManagerActor, a_cluster(keys=True))
    before = stored(bench).meta.version.index
    bench.simulator.run_for(ROTATE_EVERY_S - 1)
    assert stored(bench).meta.version.index == before
    clock = stored(bench).encryption_key_lamport_clock
    bench.wait(lambda: stored(bench).encryption_key_lamport_clock == clock + 2)
    bench.simulator.run_for(ROTATE_EVERY_S)
    assert stored(bench).encryption_key_lamport_clock == clock + 4
    assert bench.actor.snapshot()["rotations"] == 2


def test_a_rotation_that_the_store_refuses_is_tried_again() -> None:
    bench = PartBench(KeyManagerActor, a_cluster(keys=True))
    clock = stored(bench).encryption_key_lamport_clock
    bench.held = True
    bench.simulator.run_for(ROTATE_EVERY_S + 0.5)
    bench.refuse()
    assert "disk is full" in bench.actor.snapshot()["trouble"]
    bench.held = False
    bench.wait(lambda: stored(bench).encryption_key_lamport_clock == clock + 2, TRY_AGAIN + 1)
    bench.simulator.run_for(0.1)
    assert bench.actor.snapshot()["trouble"] == ""


def test_a_new_life_does_not_rotate_what_it_finds() -> None:
    bench = PartBench(KeyManagerActor, a_cluster(keys=True))
    before = stored(bench)
    bench.crash()
    bench.simulator.run_for(60)
    assert stored(bench) == before
