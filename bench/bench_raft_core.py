"""Proposals a second through three cores in memory, in batches of 64, on one processor."""

from __future__ import annotations

import random
import time

from runtime.raft.config import RaftConfig
from runtime.raft.node import RawNode
from runtime.raft.storage import MemoryStorage
from runtime.raft.types import ConfState, Message, Role, Snapshot

BATCH, COUNT = 64, 60_000


class Member:
    def __init__(self, id: int) -> None:
        self.storage = MemoryStorage()
        self.storage.apply_snapshot(Snapshot(1, 1, ConfState((1, 2, 3))))
        config = RaftConfig(id=id, storage=self.storage, applied=1, random=random.Random(id), max_size_per_msg=1 << 20)
        self.node = RawNode(config)
        self.applied = 0

    def carry_out(self) -> list[Message]:
        ready = self.node.ready()
        if ready.hard_state is not None:
            self.storage.hard_state = ready.hard_state
        self.storage.append(ready.entries)
        self.applied += len(ready.committed_entries)
        self.node.advance()
        return list(ready.messages)


def settle(members: dict[int, Member]) -> None:
    waiting: list[Message] = []
    while True:
        for member in members.values():
            while member.node.has_ready():
                waiting += member.carry_out()
        if not waiting:
            return
        for message in waiting:
            members[message.to].node.step(message)
        waiting = []


def main() -> None:
    members = {id: Member(id) for id in (1, 2, 3)}
    members[1].node.campaign()
    settle(members)
    assert members[1].node.raft.role is Role.LEADER
    data = [b"x" * 300] * BATCH
    begun = time.perf_counter()
    for _ in range(COUNT // BATCH):
        members[1].node.propose_many(data)
        settle(members)
    took = time.perf_counter() - begun
    assert members[3].applied > COUNT - BATCH
    print(f"{COUNT / took:,.0f} proposals/s (300 bytes, batches of {BATCH}, three cores, {took:.2f} s)")


if __name__ == "__main__":
    main()
