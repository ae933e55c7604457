"""StoreActor is the only writer of the replicated objects.

Who talks to it: whoever writes (control, orchestrators, scheduler, dispatcher, CA), whoever watches, and the consensus
below it. It never waits for the consensus: transactions run against the newest *proposed* view, one after the other,
and are answered as their entries come back committed. Readers never ask it: they take ``published.view``.

    proposed view  = committed view + what is in flight, in order
    committed view = what the log has said; published once a batch of entries is applied

Rules kept here:
1. One transaction is one entry. Its version is the last index appended when it was proposed: unique, growing, and
   SwarmKit's when nothing is in flight. Refused proposals make versions run ahead of the log; so a new leader begins
   behind the newest version in the store: one that came again would let a write through that was read before another.
2. An entry of ours that comes back makes the very view that was proposed; no object is decoded twice.
3. A refused proposal fails everything built on it. Leadership that is lost leaves outcomes unknown, and says so.
4. Events go to each watcher in commit order, each once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.disk.ballast import DISK_FULL, Space
from runtime.errors import Code, Refused
from runtime.failpoints import rare
from runtime.protocol.manager import DiskSpace
from runtime.protocol.store import (
    AwaitView,
    Commits,
    Entries,
    Leading,
    NotLeading,
    ProposalRefused,
    Propose,
    Restore,
    Step,
    Watch,
    Watching,
    Write,
    WriteBatch,
)
from runtime.stage import Actor, ActorDown, Address, Policy, Reply, handles
from runtime.store.changes import Change, apply, decode_request, from_actions, join_actions
from runtime.store.events import Commit, History, LostPlace, WatchFilter
from runtime.store.snapshot import restore
from runtime.store.transaction import Transaction, cut_batch
from runtime.store.view import Published, View
from runtime.swarm.membership import NO_QUORUM, OUTCOME_UNKNOWN

WRITE = "swarm_store_write_tx_latency_seconds"
BATCH = "swarm_store_batch_latency_seconds"
PROPOSAL = "swarm_raft_transaction_latency_seconds"


@dataclass(slots=True)
class _InFlight:
    """A transaction whose entry is on its way: what it leads to, and whom it answers."""

    number: int
    view: View
    changes: tuple[Change, ...]
    begun: float
    trace: int
    answer: Callable[[BaseException | None], None]


class _Overdue:
    """Somebody may have waited for a view for too long."""


class StoreActor(Actor):
    """``published`` is shared with readers; ``consensus`` is where entries go."""

    policy = Policy()

    def __init__(self, consensus: Address, published: Published, history: int = 10_000) -> None:
        super().__init__()
        self.consensus = consensus
        self.published = published
        self.proposed = published.view
        self.leading = False
        self.full = False
        self._in_flight: deque[_InFlight] = deque()
        self._number = 0
        self._epoch = 0
        self._last_version = 0
        self._history = History(published.view.version, 1 if rare("store.short_history") else history)
        self._watchers: dict[Address, WatchFilter] = {}
        self._awaited: list[tuple[AwaitView, Reply, float]] = []

    def snapshot(self) -> dict[str, Any]:
        return {
            "version": self.published.view.version,
            "leading": self.leading,
            "in flight": len(self._in_flight),
            "watchers": len(self._watchers),
            "objects": counts(self.published.view),
        }

    def stopped(self) -> None:
        self.crashed()

    def crashed(self) -> None:
        self._fail_in_flight(Refused(Code.UNKNOWN, OUTCOME_UNKNOWN))

    # Writing

    @handles(Write)
    def write(self, message: Write) -> Any:
        """One transaction. One that changes nothing is answered at once."""
        transaction = self._begin()
        value = message.run(transaction)
        if not transaction.changes:
            return value
        self._check_space()
        data = self._entry(transaction)  # a refusal is an answer as long as that is not deferred
        reply, begun = self.defer(), self.monotonic()

        def settle(error: BaseException | None) -> None:
            self.timed(WRITE, self.monotonic() - begun)
            _settle(reply, value, error)

        self._propose(transaction, data, settle)
        return None

    @handles(WriteBatch)
    def write_batch(self, message: WriteBatch) -> None:
        """Steps in as few transactions as fit, all of them in flight at once."""
        self._check_leading()
        self._check_space()
        _Batch(self, self.defer()).run(message.steps)

    def _begin(self) -> Transaction:
        self._check_leading()
        return Transaction(self.proposed, max(self._last_version + 1, self.proposed.version), self.now())

    def _check_leading(self) -> None:
        if not self.leading:
            raise Refused(Code.UNKNOWN, NO_QUORUM)

    def _check_space(self) -> None:
        if self.full:
            raise Refused(Code.RESOURCE_EXHAUSTED, DISK_FULL)

    def _entry(self, transaction: Transaction) -> bytes:
        """What the log is to hold of the next proposal; ``Refused`` if that is too much for an entry."""
        return join_actions(self._number + 1, transaction.encoded())

    def _propose(self, transaction: Transaction, data: bytes, answer: Callable[[BaseException | None], None]) -> None:
        self._number += 1
        self._last_version = max(self._last_version + 1, self.proposed.version)
        self.proposed = apply(self.proposed, transaction.changes, transaction.version + 1)
        changes = tuple(transaction.changes)
        self._in_flight.append(_InFlight(self._number, self.proposed, changes, self.monotonic(), self.trace, answer))
        self.tell(self.consensus, Propose(self._number, data, self._epoch))

    # What the consensus says

    @handles(DiskSpace)
    def disk_space(self, message: DiskSpace) -> None:
        """With nothing left to write to, nothing is proposed: no write is to fail half-way."""
        self.full = message.space is Space.NONE

    @handles(Leading)
    def lead(self, message: Leading) -> None:
        """Everything up to the last entry is applied: writes are welcome."""
        self.leading = True
        self._epoch = message.epoch
        self.proposed = self.published.view
        self._last_version = max(self._last_version, message.last_index - 1, newest_version(self.proposed))
        self.proposed = _at(self.proposed, message.last_index)

    @handles(NotLeading)
    def stop_leading(self, message: NotLeading) -> None:
        """What is in flight may or may not be committed by the next leader."""
        self.leading = False
        self._fail_in_flight(Refused(Code.UNKNOWN, OUTCOME_UNKNOWN))

    @handles(ProposalRefused)
    def proposal_refused(self, message: ProposalRefused) -> None:
        """One entry was not appended: all that were built on it stand on nothing."""
        self._epoch = message.epoch
        kept: deque[_InFlight] = deque()
        while self._in_flight and self._in_flight[0].number < message.number:
            kept.append(self._in_flight.popleft())
        self._fail_in_flight(Refused(Code.UNAVAILABLE, message.reason))
        self._in_flight = kept
        self.proposed = kept[-1].view if kept else self.published.view

    @handles(Entries)
    def apply_entries(self, message: Entries) -> None:
        """Committed entries: ours make the view that was proposed, others are decoded."""
        view, commits = self.published.view, []
        answers = []
        for index, number, data in message.entries:
            ours = self._in_flight[0] if self._in_flight and self._in_flight[0].number == number else None
            if ours is not None and self.leading:
                self._in_flight.popleft()
                self.timed(PROPOSAL, self.monotonic() - ours.begun)
                answers.append(ours.answer)
                self.continues(ours.trace)
                changes, view = ours.changes, _at(ours.view, index)
            else:
                changes = tuple(from_actions(view, decode_request(data).action)) if data else ()
                view = apply(view, changes, index)
            if changes:
                commits.append(Commit(index, changes, view))
        self._publish(view, commits)
        for answer in answers:
            answer(None)

    @handles(Restore)
    def restore_snapshot(self, message: Restore) -> None:
        """The store becomes equal to a snapshot; watchers hear of the differences as one commit."""
        view, changes = restore(self.published.view, message.objects, message.index)
        self._history.reset(self.published.view.version)
        self._publish(view, [Commit(message.index, tuple(changes), view)] if changes else [])
        self._history.reset(message.index)

    def _publish(self, view: View, commits: Sequence[Commit]) -> None:
        self.published.view = view
        if not self._in_flight:
            self.proposed = view
        for commit in commits:
            self._history.add(commit)
        self._history.advance(view.version)
        for watcher, asked in self._watchers.items():
            picked = tuple(each for each in map(asked.pick, commits) if each is not None)
            if picked:
                self.tell(watcher, Commits(picked))
        if self._awaited:
            self._look_at(view)

    def _look_at(self, view: View) -> None:
        """Answers those whose view has come, and those who waited too long."""
        awaited, self._awaited = self._awaited, []
        for message, reply, until in awaited:
            if message.holds(view):
                reply.set(view.version)
            elif self.monotonic() < until:
                self._awaited.append((message, reply, until))
            else:
                reply.fail(Refused(Code.DEADLINE_EXCEEDED, "this node's store has not caught up in time"))

    def _fail_in_flight(self, error: Refused) -> None:
        failed, self._in_flight = self._in_flight, deque()
        self.proposed = self.published.view
        for each in failed:
            each.answer(error)

    # Watching

    @handles(AwaitView)
    def await_view(self, message: AwaitView) -> int | None:
        """At once if it is there already."""
        view = self.published.view
        if message.holds(view):
            return view.version
        self._awaited.append((message, self.defer(), self.monotonic() + message.within))
        self.after(message.within, _Overdue())
        return None

    @handles(_Overdue)
    def overdue(self, message: _Overdue) -> None:
        """Without a quorum no commit comes, and nobody else would look."""
        self._look_at(self.published.view)

    @handles(Watch)
    def start_watch(self, message: Watch) -> Watching:
        """Replays what came after ``since``, then goes on; refused if that place is lost."""
        watcher = self.sender
        if watcher is None:
            raise Refused(Code.INVALID_ARGUMENT, "a watch needs a sender to tell commits to")
        since = self._history.newest if message.since is None else message.since
        try:
            commits = self._history.since(since, self.published.view)
        except LostPlace as lost:
            raise Refused(Code.OUT_OF_RANGE, str(lost)) from None
        self._watchers[watcher] = message.filter
        self.watch(watcher)
        missed = tuple(each for each in map(message.filter.pick, commits) if each is not None)
        if missed:
            self.tell(watcher, Commits(missed))
        return Watching(since)

    @handles(ActorDown)
    def watcher_down(self, message: ActorDown) -> None:
        """A watcher that failed watches anew in its next life, from the view that it reads then."""
        self._watchers = {each: asked for each, asked in self._watchers.items() if each.path != message.path}


class _Batch:
    """A batch on its way: its results are answered together when the last of its transactions is settled."""

    def __init__(self, store: StoreActor, reply: Reply) -> None:
        self._store = store
        self._reply = reply
        self._results: list[Any] = []
        self._open = 1
        self._begun = store.monotonic()

    def run(self, steps: Sequence[Step]) -> None:
        """Cuts the steps into transactions and proposes them all."""
        rest = list(steps)
        while rest:
            transaction, results = cut_batch(rest, self._store._begin)
            first = len(self._results)
            self._results += results
            rest = rest[len(results) :]
            if transaction.changes:
                self._open += 1
                data = self._store._entry(transaction)
                self._store._propose(transaction, data, self._settled(first, len(results)))
        self._close()

    def _settled(self, first: int, count: int) -> Callable[[BaseException | None], None]:
        def settle(error: BaseException | None) -> None:
            if error is not None:
                self._results[first : first + count] = [error] * count
            self._close()

        return settle

    def _close(self) -> None:
        self._open -= 1
        if self._open == 0:
            self._store.timed(BATCH, self._store.monotonic() - self._begun)
            self._reply.set(self._results)


def _settle(reply: Reply, value: Any, error: BaseException | None) -> None:
    if error is None:
        reply.set(value)
    else:
        reply.fail(error)


def counts(view: View) -> dict[str, int]:
    """How many objects there are of each kind that there are any of."""
    found = {table.table.list_field: view.count(table.table.kind) for table in view.tables()}
    return {name: count for name, count in found.items() if count}


def newest_version(view: View) -> int:
    """The highest version of any object; 0 without objects."""
    kinds = (table.table.kind for table in view.tables())
    return max((each.meta.version.index for kind in kinds for each in view.all(kind)), default=0)


def _at(view: View, index: int) -> View:
    """The same state with the index at which the log holds it."""
    return view if view.version == index else view.at(index)
