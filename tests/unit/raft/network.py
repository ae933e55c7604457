"""Cores wired together in memory: messages are carried by hand, lost, held back or turned round as a test says."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

from runtime.raft.codec import decode_change
from runtime.raft.config import RaftConfig
from runtime.raft.node import RawNode
from runtime.raft.storage import MemoryStorage
from runtime.raft.types import (
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    PeerNotFound,
    ReadState,
    Role,
    Snapshot,
)

T = MessageType


class Member:
    """One core with its storage and what it applied."""

    def __init__(self, id: int, voters: tuple[int, ...], options: dict[str, Any]) -> None:
        self.storage = MemoryStorage()
        self.storage.apply_snapshot(Snapshot(index=1, term=1, conf_state=ConfState(voters)))
        self.storage.hard_state = HardState(term=1, commit=1)
        self.applied: list[Entry] = []
        self.reads: list[ReadState] = []
        self.options = {"election_tick": 10, "heartbeat_tick": 1, "max_size_per_msg": 2**40, **options}
        self.id = id
        self.node = self._start(1)

    def _start(self, applied: int) -> RawNode:
        return RawNode(
            RaftConfig(id=self.id, storage=self.storage, applied=applied, random=random.Random(self.id), **self.options)
        )

    def restart(self) -> None:
        """Comes back from its storage."""
        self.node = self._start(self.applied[-1].index if self.applied else 1)

    def carry_out(self) -> list[Message]:
        """Keeps, applies and advances one Ready; returns what is to be sent."""
        ready = self.node.ready()
        if ready.hard_state is not None:
            self.storage.hard_state = ready.hard_state
        if ready.snapshot is not None:
            self.storage.apply_snapshot(ready.snapshot)
        self.storage.append(ready.entries)
        for entry in ready.committed_entries:
            self.applied.append(entry)
            if entry.type is not EntryType.NORMAL:
                self.storage.conf_state = self.node.apply_conf_change(decode_change(entry))
        self.reads += ready.read_states
        self.node.advance()
        return list(ready.messages)

    @property
    def role(self) -> Role:
        return self.node.raft.role


class Network:
    """Members 1 to n, all of them voters unless ``voters`` says otherwise."""

    def __init__(self, size: int = 3, voters: tuple[int, ...] | None = None, **options: Any) -> None:
        ids = tuple(range(1, size + 1))
        self.members = {id: Member(id, voters or ids, options) for id in ids}
        self.lost: Callable[[Message], bool] = lambda message: False
        self.waiting: list[Message] = []

    def __getitem__(self, id: int) -> Member:
        return self.members[id]

    def settle(self, rounds: int = 200) -> None:
        """Carries out every Ready and delivers every message that is not lost, until nothing is left."""
        for _ in range(rounds):
            for member in self.members.values():
                while member.node.has_ready():
                    self.waiting += member.carry_out()
            if not self.waiting:
                return
            messages, self.waiting = self.waiting, []
            for message in messages:
                self.deliver(message)
        raise AssertionError("the cores do not come to rest")

    def deliver(self, message: Message) -> None:
        """One message, unless it is lost; a copy, since cores own what they are given."""
        if self.lost(message) or message.to not in self.members:
            return
        entries = [Entry(each.term, each.index, each.type, each.data) for each in message.entries]
        try:
            self[message.to].node.step(dataclasses.replace(message, entries=entries))
        except PeerNotFound:
            return

    def elect(self, id: int) -> None:
        """Makes a member leader."""
        self[id].node.campaign()
        self.settle()
        assert self[id].role is Role.LEADER

    def propose(self, id: int, *datas: bytes) -> None:
        """Proposes and lets it settle."""
        for data in datas:
            self[id].node.propose(data)
        self.settle()

    def cut(self, *ids: int) -> None:
        """Nothing reaches or leaves these members any more."""
        self.lost = lambda message: (message.to in ids) != (message.from_ in ids)

    def heal(self) -> None:
        """Everything is delivered again."""
        self.lost = lambda message: False

    def tick(self, id: int, times: int = 1) -> None:
        """Ticks of one member, each settled."""
        for _ in range(times):
            self[id].node.tick()
            self.settle()

    def data(self, id: int) -> list[bytes]:
        """What a member applied, without empty entries."""
        return [entry.data for entry in self[id].applied if entry.data and entry.type is EntryType.NORMAL]
