"""A store over a consensus of one, on a disk in memory, under virtual time."""

from __future__ import annotations

import random
from typing import Any

from actors.raft_actor import RaftActor
from actors.store_actor import StoreActor
from runtime.disk.memory import MemoryDisk
from runtime.protocol.raft import RaftSetup, RaftStatus
from runtime.protocol.store import Write
from runtime.stage import Actor, Address, Policy, handles
from runtime.stage.answers import Future
from runtime.stage.simulator import Simulator
from runtime.store.transaction import Transaction
from runtime.store.view import Published
from runtime.wire.pb import objects_pb2 as pb

KEY = bytes(range(32))


class Above(Actor):
    """Stands where the manager will: starts both, keeps what it is told."""

    policy = Policy(max_restarts=1000)

    def __init__(self, bench: Bench, setup: RaftSetup, told: list[RaftStatus]) -> None:
        super().__init__()
        self.bench, self.setup, self.told = bench, setup, told

    def started(self) -> None:
        self.published = self.bench.published = Published()
        store = self.spawn(
            "store", StoreActor, self.below("raft"), self.published, policy=Policy(escalates=(Exception,))
        )
        self.spawn("raft", RaftActor, self.setup, store, self.published)

    @handles(RaftStatus)
    def status(self, message: RaftStatus) -> None:
        self.told.append(message)


class Bench:
    """One life of a node after the other, on the same disk."""

    def __init__(self, seed: int = 1, keys: tuple[bytes, ...] = (KEY,)) -> None:
        self.simulator = Simulator(seed)
        self.disk = MemoryDisk()
        self.keys = keys
        self.addr = "10.0.0.1:2377"
        self.lives = 0
        self.published = Published()
        self.boot()

    def boot(self) -> None:
        """Starts the node (again)."""
        self.lives += 1
        self.stage = self.simulator.node(f"n{self.lives}", disk=self.disk)
        self.told: list[RaftStatus] = []
        setup = RaftSetup("node-1", self.addr, self.keys)
        self.above = self.stage.mount("manager", Above, self, setup, self.told)

    @property
    def store(self) -> Address:
        return self.stage.at("/manager/store")

    @property
    def raft(self) -> Any:
        cell = self.stage.at("/manager/raft").resolve()
        assert cell is not None
        return cell.instance

    def lead(self) -> None:
        """Runs until this node leads."""
        self.simulator.run_until(lambda: bool(self.told) and self.told[-1].leading, 30)
        self.simulator.settle()

    def kill(self) -> None:
        """The process is gone at once; what it wrote stays."""
        self.simulator.crash(self.stage)
        self.disk.kill()

    def cut_power(self, seed: int) -> None:
        """The machine is gone at once; what was not synced may be lost."""
        self.simulator.crash(self.stage)
        self.disk.crash(random.Random(seed))

    def write(self, *ids: str) -> list[Future]:
        return [self.store.ask(Write(create(id))) for id in ids]

    def ids(self) -> list[str]:
        return [obj.id for obj in self.published.view.all(pb.Service)]


def create(id: str) -> Any:
    def run(tx: Transaction) -> int:
        obj = pb.Service(id=id)
        obj.spec.annotations.name = id
        return int(tx.create(obj).meta.version.index)

    return run
