"""StoreActor: transactions in flight, outcomes, versions, watches; a probe stands for the consensus."""

from __future__ import annotations

from typing import Any

import pytest

from actors.store_actor import StoreActor
from runtime.errors import Code, Refused
from runtime.protocol.store import (
    AwaitView,
    Commits,
    Entries,
    Leading,
    NotLeading,
    ProposalRefused,
    Propose,
    Restore,
    Watch,
    Watching,
    Write,
    WriteBatch,
)
from runtime.stage.answers import Future
from runtime.stage.probe import Probe
from runtime.stage.simulator import Simulator
from runtime.store.changes import encode_request
from runtime.store.events import WatchFilter
from runtime.store.snapshot import dump
from runtime.store.transaction import NameConflict, OutOfSequence, Transaction
from runtime.store.view import Published
from runtime.swarm.membership import NO_QUORUM, OUTCOME_UNKNOWN
from runtime.wire.pb import objects_pb2 as pb


def create(id: str, name: str = "") -> Any:
    def run(tx: Transaction) -> str:
        obj = pb.Service(id=id)
        obj.spec.annotations.name = name or id
        tx.create(obj)
        return id

    return run


def rename(id: str, name: str) -> Any:
    def run(tx: Transaction) -> int:
        obj = pb.Service()
        stored = tx.get(pb.Service, id)
        assert stored is not None
        obj.CopyFrom(stored)
        obj.spec.annotations.name = name
        return int(tx.update(obj).meta.version.index)

    return run


class Bench:
    """A store that leads from index 8 on, and a consensus that commits when told."""

    def __init__(self, leading: bool = True) -> None:
        self.simulator = Simulator(5)
        self.stage = self.simulator.node("n1")
        self.consensus = Probe(self.simulator, self.stage, "raft")
        self.published = Published()
        self.store = self.stage.mount("store", StoreActor, self.consensus.address, self.published)
        self.index = 8
        if leading:
            self.store.tell(Leading(2, 8))
            self.simulator.settle()

    def write(self, *steps: Any) -> list[Future]:
        futures = [self.store.ask(Write(step)) for step in steps]
        self.simulator.settle()
        return futures

    def commit(self) -> None:
        """Everything proposed so far is committed, in one go."""
        entries = []
        while any(isinstance(message, Propose) for message in self.consensus.messages):
            proposal = self.consensus.expect(Propose)
            self.index += 1
            entries.append((self.index, proposal.number, proposal.data))
        self.store.tell(Entries(tuple(entries)))
        self.simulator.settle()

    def names(self) -> list[str]:
        return [obj.spec.annotations.name for obj in self.published.view.all(pb.Service)]


def test_a_write_waits_for_its_commit_however_long_that_takes() -> None:
    bench = Bench()
    (future,) = bench.write(create("a"))
    bench.simulator.run_for(86_400)
    assert not future.done
    bench.commit()
    assert future.result(0) == "a"


def large(id: str, size: int) -> Any:
    def run(tx: Transaction) -> str:
        obj = pb.Service(id=id)
        obj.spec.annotations.name = id
        obj.spec.task.container.env.append("X=" + "x" * size)
        tx.create(obj)
        return id

    return run


@pytest.mark.parametrize("batch", [False, True])
def test_a_write_that_no_entry_holds_is_refused_and_harms_nobody(batch: bool) -> None:
    bench = Bench()
    (before,) = bench.write(create("before"))
    if batch:
        question = bench.store.ask(WriteBatch((create("a"), large("b", 2_000_000), create("c"))))
        bench.simulator.settle()
        bench.commit()
        first, refused, last = question.result(0)
        assert (first, last) == ("a", "c")
    else:
        (question,) = bench.write(large("b", 2_000_000))
        bench.commit()
        with pytest.raises(Refused) as raised:
            question.result(0)
        refused = raised.value
    assert refused.code is Code.INVALID_ARGUMENT
    assert "too large" in refused.text
    (after,) = bench.write(create("after"))
    bench.commit()
    assert (before.result(0), after.result(0)) == ("before", "after")
    assert "b" not in bench.names()
    cell = bench.store.resolve()
    assert cell is not None
    assert cell.failures.total == 0


def test_a_write_is_answered_once_it_is_committed_and_applied() -> None:
    bench = Bench()
    (future,) = bench.write(create("a"))
    assert not future.done
    assert bench.names() == []
    bench.commit()
    assert future.result(0) == "a"
    assert bench.names() == ["a"]
    assert bench.published.view.version == 9


def test_the_version_is_the_last_index_when_it_was_proposed_and_grows_with_what_is_in_flight() -> None:
    bench = Bench()
    bench.write(create("a"), create("b"), create("c"))
    bench.commit()
    versions = [obj.meta.version.index for obj in bench.published.view.all(pb.Service)]
    assert versions == [8, 9, 10]
    bench.write(create("d"))
    bench.commit()
    stored = bench.published.view.get(pb.Service, "d")
    assert stored is not None
    assert stored.meta.version.index == 11


def test_transactions_see_what_is_in_flight_before_them() -> None:
    bench = Bench()
    first, second, third = bench.write(create("a", "web"), rename("a", "db"), create("b", "web"))
    bench.commit()
    assert (first.result(0), third.result(0)) == ("a", "b")
    assert bench.names() == ["db", "web"]
    assert second.result(0) == 9


def test_a_refused_transaction_is_answered_at_once_and_proposes_nothing() -> None:
    bench = Bench()
    _, second = bench.write(create("a", "web"), create("b", "web"))
    with pytest.raises(NameConflict):
        second.result(0)
    bench.commit()
    assert bench.names() == ["web"]


def test_a_stale_update_is_out_of_sequence() -> None:
    bench = Bench()
    bench.write(create("a"))
    bench.commit()
    stale = pb.Service()
    stored = bench.published.view.get(pb.Service, "a")
    assert stored is not None
    stale.CopyFrom(stored)
    bench.write(rename("a", "x"))
    bench.commit()
    (future,) = bench.write(lambda tx: tx.update(stale))
    with pytest.raises(OutOfSequence):
        future.result(0)


def test_a_transaction_that_changes_nothing_needs_no_entry() -> None:
    bench = Bench()
    (future,) = bench.write(lambda tx: tx.count(pb.Service))
    assert future.result(0) == 0
    bench.consensus.expect_none(Propose)


def test_a_refused_proposal_fails_everything_built_on_it_and_nothing_before() -> None:
    bench = Bench()
    first, second, third = bench.write(create("a"), create("b"), rename("b", "c"))
    proposals = [bench.consensus.expect(Propose) for _ in range(3)]
    bench.store.tell(ProposalRefused(proposals[1].number, "the disk is full"))
    bench.store.tell(Entries(((9, proposals[0].number, proposals[0].data),)))
    bench.simulator.settle()
    assert first.result(0) == "a"
    for future in (second, third):
        with pytest.raises(Refused, match="the disk is full"):
            future.result(0)
    bench.index = 9
    bench.write(create("b", "again"))
    bench.commit()
    assert bench.names() == ["a", "again"]


def test_without_leadership_writes_are_refused_in_the_engines_words() -> None:
    bench = Bench(leading=False)
    (future,) = bench.write(create("a"))
    with pytest.raises(Refused) as refused:
        future.result(0)
    assert refused.value.text == NO_QUORUM


def test_leadership_that_is_lost_leaves_outcomes_unknown_and_later_entries_still_count() -> None:
    bench = Bench()
    (future,) = bench.write(create("a"))
    proposal = bench.consensus.expect(Propose)
    bench.store.tell(NotLeading())
    bench.simulator.settle()
    with pytest.raises(Refused, match=OUTCOME_UNKNOWN):
        future.result(0)
    bench.store.tell(Entries(((9, proposal.number, proposal.data), (10, 0, b""))))
    bench.simulator.settle()
    assert bench.names() == ["a"]
    assert bench.published.view.version == 10


def test_a_failure_of_the_store_answers_what_was_in_flight() -> None:
    bench = Bench()
    (future,) = bench.write(create("a"))
    cell = bench.stage.cells["/store"]
    cell.control(lambda: cell.failed(ValueError("bug"), None))
    bench.simulator.settle()
    with pytest.raises(Refused, match=OUTCOME_UNKNOWN):
        future.result(0)


def test_a_batch_is_cut_into_entries_and_answered_step_by_step() -> None:
    bench = Bench()
    steps = [create(f"s{number:03}") for number in range(450)] + [create("dup", "s000")]
    future = bench.store.ask(WriteBatch(steps))
    bench.simulator.settle()
    assert len([each for each in bench.consensus.messages if isinstance(each, Propose)]) == 3
    bench.commit()
    results = future.result(0)
    assert results[:450] == [f"s{number:03}" for number in range(450)]
    assert isinstance(results[450], NameConflict)
    assert len(bench.names()) == 450


def watch(bench: Bench, watcher: Probe, since: int | None = None) -> Any:
    future = Future("store")
    bench.store.send(Watch(WatchFilter.kinds(pb.Service), since), watcher.address, future.reply, 0)
    bench.simulator.settle()
    return future.result(0)


def seen(watcher: Probe) -> list[str]:
    return [
        event.object.id
        for message in watcher.messages
        if isinstance(message, Commits)
        for commit in message.commits
        for event in commit.events
    ]


def test_a_watcher_hears_every_change_once_in_commit_order() -> None:
    bench = Bench()
    watcher = Probe(bench.simulator, bench.stage, "watcher")
    assert watch(bench, watcher) == Watching(0)
    bench.write(create("a"), create("b"))
    bench.commit()
    bench.write(create("c"))
    bench.commit()
    assert seen(watcher) == ["a", "b", "c"]


def test_a_watcher_resumes_after_the_version_it_names_without_a_gap() -> None:
    bench = Bench()
    bench.write(create("a"), create("b"), create("c"))
    bench.commit()
    watcher = Probe(bench.simulator, bench.stage, "watcher")
    watch(bench, watcher, since=9)
    bench.write(create("d"))
    bench.commit()
    assert seen(watcher) == ["b", "c", "d"]


def test_a_watcher_whose_place_is_lost_is_told() -> None:
    bench = Bench()
    bench.write(create("a"))
    bench.commit()
    bench.store.tell(Restore(50, dump(bench.published.view)))
    bench.simulator.settle()
    watcher = Probe(bench.simulator, bench.stage, "watcher")
    with pytest.raises(Refused) as refused:
        watch(bench, watcher, since=9)
    assert refused.value.code is Code.OUT_OF_RANGE


def test_a_snapshot_makes_the_store_equal_and_tells_the_differences() -> None:
    other = Bench()
    other.write(create("b"), create("c"))
    other.commit()
    bench = Bench(leading=False)
    watcher = Probe(bench.simulator, bench.stage, "watcher")
    watch(bench, watcher)
    bench.store.tell(Restore(70, dump(other.published.view)))
    bench.simulator.settle()
    assert (bench.names(), bench.published.view.version, seen(watcher)) == (["b", "c"], 70, ["b", "c"])


def test_readers_of_an_older_view_are_not_disturbed() -> None:
    bench = Bench()
    bench.write(create("a"))
    bench.commit()
    before = bench.published.view
    bench.write(rename("a", "other"))
    bench.commit()
    old = before.get(pb.Service, "a")
    assert old is not None
    assert old.spec.annotations.name == "a"


def test_transactions_that_come_to_nothing_do_not_make_versions_run_ahead() -> None:
    bench = Bench()
    bench.write(create("a"), *[lambda _tx: None] * 20)
    bench.commit()
    (update,) = bench.write(rename("a", "b"))
    bench.commit()
    assert update.result(0) == 9


def test_a_new_leader_gives_no_version_that_was_given_before() -> None:
    """Refused proposals had made the last leader's versions run ahead of the log. A version that came again would let
    a write through that was prepared before another one."""
    bench = Bench(leading=False)
    old = pb.Service(id="a")
    old.meta.version.index = 40
    ahead = Transaction(bench.published.view, 40, 0.0)
    ahead.create(old)
    bench.store.tell(Entries(((9, 0, encode_request(7, ahead.changes)),)))
    bench.store.tell(Leading(3, 10))
    bench.simulator.settle()
    (update,) = bench.write(rename("a", "b"))
    bench.index = 10
    bench.commit()
    assert update.result(0) == 41


def test_a_view_is_waited_for_until_it_comes() -> None:
    bench = Bench()
    asked = bench.store.ask(AwaitView(lambda view: view.get(pb.Service, "a") is not None, 5.0))
    bench.simulator.settle()
    assert not asked.done
    bench.write(create("a"))
    bench.commit()
    assert asked.result(0) == bench.published.view.version
    bench.simulator.run_for(6)  # the time of one that was answered is over, and nobody hears of it
    again = bench.store.ask(AwaitView(lambda view: view.get(pb.Service, "a") is not None))
    bench.simulator.settle()
    assert again.result(0) == bench.published.view.version


def test_who_waits_for_a_view_is_told_in_time_that_it_does_not_come_although_nothing_is_committed() -> None:
    bench = Bench(leading=False)
    asked = bench.store.ask(AwaitView(lambda view: False, 5.0))
    bench.simulator.run_for(4.9)
    assert not asked.done
    bench.simulator.run_for(0.2)
    with pytest.raises(Refused, match="has not caught up in time") as refused:
        asked.result(0)
    assert refused.value.code is Code.DEADLINE_EXCEEDED
