"""ManagerKeysActor: which unlock key it tells, and a change of the data key with everything that can come between."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

from actors.manager_keys_actor import TRY_AGAIN, ManagerKeysActor
from actors.store_watcher import StoreWatcher
from runtime.errors import Code, Refused
from runtime.pki.key_file import DataKeys
from runtime.protocol.certificate import BeginDataKeyRotation, FinishDataKeyRotation, RootAgreed, UnlockKeyIs
from runtime.protocol.raft import ChangeDataKey
from runtime.stage import Actor, GiveUp, Policy, Reply, handles
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.messages.part_bench import PartBench

OLD, NEW, NEXT = b"o" * 32, b"n" * 32, b"x" * 32


class Keeper(Actor):
    """Stands where the certificate's keeper does: has data keys, and a wish for others while ``due`` says so."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench

    @handles(UnlockKeyIs)
    def unlock_key_is(self, message: UnlockKeyIs) -> bool:
        if self.bench.refusals:
            raise self.bench.refusals.popleft()
        self.bench.said.append((message.key, message.version))
        return self.bench.keys.needs_rotation

    @handles(RootAgreed)
    def root_agreed(self, message: RootAgreed) -> None:
        self.bench.roots.append(message.root_pem)

    @handles(BeginDataKeyRotation)
    def begin(self, message: BeginDataKeyRotation) -> DataKeys:
        keys = self.bench.keys
        if keys.needs_rotation and not keys.pending:
            self.bench.keys = DataKeys(keys.current, self.bench.fresh.popleft())
        return self.bench.keys

    @handles(FinishDataKeyRotation)
    def finish(self, message: FinishDataKeyRotation) -> DataKeys:
        self.bench.keys = DataKeys(self.bench.keys.pending, needs_rotation=self.bench.keys.needs_rotation)
        return self.bench.keys


class Log(Actor):
    """Stands where the consensus does: keeps the questions until the test answers them."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench

    @handles(ChangeDataKey)
    def change(self, message: ChangeDataKey) -> None:
        self.bench.changes.append((message.keys, self.defer()))


class Nothing(StoreWatcher):
    """The bench's own part, of which nothing is asked."""

    policy = Policy(give_up=GiveUp.NEVER)


class Bench(PartBench):
    def __init__(self, cluster: objects.Cluster, keys: DataKeys | None = None) -> None:
        super().__init__(Nothing, cluster)
        self.keys = keys or DataKeys(OLD)
        self.fresh = deque((NEW, NEXT))
        self.said: list[tuple[bytes, int]] = []
        self.roots: list[bytes] = []
        self.changes: list[tuple[tuple[bytes, ...], Reply]] = []
        self.refusals: deque[Refused] = deque()
        keeper = self.stage.mount("certificate", Keeper, self)
        context = replace(self.context, raft=self.stage.mount("consensus", Log, self))
        self.address = self.stage.mount("keys", ManagerKeysActor, context, keeper)
        self.simulator.settle()

    def lock(self, key: bytes) -> None:
        """The cluster object names this unlock key."""

        def edit(cluster: objects.Cluster) -> None:
            cluster.spec.encryption_config.auto_lock_managers = bool(key)
            del cluster.unlock_keys[:]
            if key:
                cluster.unlock_keys.append(types.EncryptionKey(subsystem="swarm-manager", key=key))

        self.edit(objects.Cluster, "cluster", edit)
        self.simulator.run_for(0.1)

    @property
    def version(self) -> int:
        cluster = self.published.view.get(objects.Cluster, "cluster")
        assert cluster is not None
        return int(cluster.meta.version.index)

    def answer(self, error: Refused | None = None) -> tuple[bytes, ...]:
        """The log's answer to the oldest question; what it was asked to seal with."""
        keys, reply = self.changes.pop(0)
        if error is None:
            reply.set()
        else:
            reply.fail(error)
        self.simulator.settle()
        return keys


def a_cluster() -> objects.Cluster:
    cluster = objects.Cluster(id="cluster")
    cluster.spec.annotations.name = "default"
    return cluster


def test_the_unlock_key_is_told_with_its_version_and_again_only_when_it_changes() -> None:
    bench = Bench(a_cluster())
    assert bench.said == [(b"", bench.version)]
    bench.lock(b"k" * 32)
    locked = bench.version
    bench.edit(objects.Cluster, "cluster", lambda cluster: setattr(cluster, "fips", False))
    bench.lock(b"")
    assert bench.said[1:] == [(b"k" * 32, locked), (b"", bench.version)]


def test_the_root_that_the_managers_agreed_on_is_told_when_it_changes() -> None:
    cluster = a_cluster()
    cluster.root_ca.ca_cert = b"one"
    bench = Bench(cluster)
    bench.lock(b"k" * 32)
    bench.edit(objects.Cluster, "cluster", lambda each: setattr(each.root_ca, "ca_cert", b"two"))
    bench.simulator.settle()
    assert bench.roots == [b"one", b"two"]


def test_a_key_that_the_keeper_could_not_write_is_told_again() -> None:
    bench = Bench(a_cluster())
    bench.refusals.append(Refused(Code.UNAVAILABLE, "the disk is full"))
    bench.lock(b"k" * 32)
    assert len(bench.said) == 1
    bench.simulator.run_for(TRY_AGAIN + 0.1)
    assert bench.said[-1] == (b"k" * 32, bench.version)


def test_a_change_of_the_data_key_seals_with_the_new_one_before_the_old_one_goes() -> None:
    bench = Bench(a_cluster())
    bench.keys = DataKeys(OLD, needs_rotation=True)
    bench.lock(b"k" * 32)
    assert bench.keys == DataKeys(OLD, NEW)
    assert bench.answer() == (NEW, OLD)
    assert bench.keys == DataKeys(NEW)
    assert bench.changes == []


def test_a_wish_that_comes_meanwhile_is_one_more_change() -> None:
    bench = Bench(a_cluster())
    bench.keys = DataKeys(OLD, needs_rotation=True)
    bench.lock(b"k" * 32)
    bench.keys = DataKeys(OLD, NEW, needs_rotation=True)
    bench.lock(b"l" * 32)
    bench.lock(b"m" * 32)
    assert len(bench.changes) == 1
    bench.answer()
    assert bench.answer() == (NEXT, NEW)
    assert bench.keys == DataKeys(NEXT)
    assert bench.changes == []


def test_a_change_that_a_former_life_began_goes_on() -> None:
    bench = Bench(a_cluster(), DataKeys(OLD, NEW))
    assert bench.answer() == (NEW, OLD)
    assert bench.keys == DataKeys(NEW)


def test_a_log_that_refuses_is_asked_again_and_the_old_key_stays_until_then() -> None:
    bench = Bench(a_cluster(), DataKeys(OLD, NEW))
    bench.answer(Refused(Code.UNAVAILABLE, "not now"))
    assert bench.keys == DataKeys(OLD, NEW)
    actor: Any = bench.address.resolve()
    assert "not now" in actor.instance.snapshot()["trouble"]
    bench.simulator.run_for(TRY_AGAIN + 0.1)
    bench.answer()
    assert bench.keys == DataKeys(NEW)
    assert actor.instance.snapshot()["trouble"] == ""
