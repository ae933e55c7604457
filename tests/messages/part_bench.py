"""One part of a leader over a real store, above a consensus that commits after a while or when it is told to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, cast

from actors.store_actor import StoreActor
from actors.store_watcher import StoreWatcher
from runtime.protocol.manager import LeaderContext
from runtime.protocol.store import Entries, Leading, ProposalRefused, Propose, Write
from runtime.stage import Actor, Address, GiveUp, Policy, handles
from runtime.stage.simulator import Simulator
from runtime.store.events import Commit
from runtime.store.transaction import Transaction
from runtime.store.view import Published
from runtime.wire.pb import objects_pb2 as objects


class Consensus(Actor):
    """Commits entries in order, ``delay`` seconds after each was proposed, unless ``held``."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, bench: PartBench) -> None:
        super().__init__()
        self.bench = bench

    @handles(Propose)
    def propose(self, message: Propose) -> None:
        self.bench.proposed.append(message)
        if not self.bench.held:
            self.after(self.bench.delay, message.number)

    @handles(int)
    def commit(self, number: int) -> None:
        self.bench.commit_up_to(number)


class PartBench:
    """``part`` lives at /leader/part below a leader that never gives up."""

    def __init__(self, part: type[StoreWatcher], *made: Any, seed: int = 5) -> None:
        self.part_class = part
        self.delay = 0.002
        self.held = False
        self.proposed: deque[Propose] = deque()
        self.index = 8
        self.commits: list[Commit] = []
        self.simulator = Simulator(seed)
        self.stage = self.simulator.node("n1")
        self.published = Published()
        consensus = self.stage.mount("raft", Consensus, self)
        self.store: Address = self.stage.mount("store", StoreActor, consensus, self.published)
        self.store.tell(Leading(2, self.index))
        self.simulator.settle()
        if made:
            self.put(*made)
        self.context = LeaderContext("n1", "cluster", self.store, self.published, cast(Any, None))
        self.part: Address = self.stage.mount("part", part, self.context)
        self.simulator.settle()

    # The consensus

    def commit_up_to(self, number: int) -> None:
        """Commits what was proposed, up to this proposal."""
        entries = []
        while self.proposed and self.proposed[0].number <= number:
            proposal = self.proposed.popleft()
            self.index += 1
            entries.append((self.index, proposal.number, proposal.data))
        self.store.tell(Entries(tuple(entries)))

    def release(self) -> None:
        """Commits all that was held, and whatever comes from now on."""
        self.held = False
        if self.proposed:
            self.commit_up_to(self.proposed[-1].number)
        self.simulator.settle()

    def refuse(self, reason: str = "the disk is full") -> None:
        """Refuses all that was held."""
        first, *_ = self.proposed
        self.proposed.clear()
        self.store.tell(ProposalRefused(first.number, reason))
        self.simulator.settle()

    # The store

    def run(self, step: Callable[[Transaction], Any], within: float = 5.0) -> Any:
        """One transaction of somebody else, until it is committed."""
        return self.simulator.ask(self.store, Write(step), within)

    def put(self, *made: Any) -> None:
        """Creates or replaces objects; their versions are those of the store."""

        def step(tx: Transaction) -> None:
            for obj in made:
                stored = tx.get(type(obj), obj.id)
                if stored is None:
                    tx.create(obj)
                    continue
                new = type(obj)()
                new.CopyFrom(obj)
                new.meta.CopyFrom(stored.meta)
                tx.update(new)

        self.run(step)

    def edit(self, kind: type[Any], id: str, edit: Callable[[Any], object]) -> None:
        """Changes an object that is there."""

        def step(tx: Transaction) -> None:
            new = kind()
            new.CopyFrom(tx.get(kind, id))
            edit(new)
            tx.update(new)

        self.run(step)

    def remove(self, kind: type[Any], id: str) -> None:
        """Removes an object."""
        self.run(lambda tx: tx.delete(kind, id))

    def task(self, id: str) -> objects.Task:
        """A task as committed."""
        found = self.published.view.get(objects.Task, id)
        assert found is not None, id
        return found

    def service(self, id: str = "web") -> objects.Service:
        """A service as committed."""
        found = self.published.view.get(objects.Service, id)
        assert found is not None, id
        return found

    def wait(self, condition: Callable[[], bool], within: float = 5.0) -> None:
        """Runs until a condition holds."""
        self.simulator.run_until(condition, within)

    # The part

    @property
    def actor(self) -> Any:
        """The part itself, in its present life."""
        cell = self.part.resolve()
        assert cell is not None
        return cell.instance

    def crash(self) -> None:
        """The part fails at once; its next life begins by its policy."""
        cell = self.part.resolve()
        assert cell is not None
        cell.control(lambda: cell.failed(ValueError("a fault of the test"), None))
        self.simulator.settle()
