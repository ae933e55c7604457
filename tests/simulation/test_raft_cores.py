"""The consensus simulation: seeds that hold, checks that notice, figures that add up."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from runtime.raft.types import Entry, HardState, Message, MessageType
from tests.simulation import simulate
from tests.simulation.plan import Planned, draw, without
from tests.simulation.raft_cores import SECONDS, Core, RaftSimulation
from tests.simulation.raft_invariants import Chain, Invariants, Violation
from tests.simulation.raft_plan import KINDS


@pytest.mark.parametrize("block", range(4))
def test_a_hundred_seeds_hold_and_every_kind_of_fault_strikes_in_a_tenth_of_them(block: int) -> None:
    totals, _seconds = simulate.many("raft", range(block * 25, block * 25 + 25), jobs=1)
    assert [(each.seed, each.error) for each in totals.failed] == []
    assert totals.rare() == []
    assert totals.checked["histories"] == 75
    assert totals.checked["operations"] > 2500


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("block", range(10))
def test_many_more_seeds_hold(block: int) -> None:
    totals, _seconds = simulate.many("raft", range(1000 + block * 200, 1200 + block * 200), jobs=1)
    assert [(each.seed, each.error) for each in totals.failed] == []


def test_a_seed_is_one_run() -> None:
    one, other = RaftSimulation(3), RaftSimulation(3)
    one.run()
    other.run()
    assert list(one.last) == list(other.last)
    assert (one.deliveries, one.time, one.injected) == (other.deliveries, other.time, other.injected)
    assert list(RaftSimulation(4).run().last) != list(one.last)


def broken(seeds: range, faults: list[Planned] | None = None) -> Iterator[str]:
    """What is found in these seeds, one after the other."""
    for seed in seeds:
        try:
            RaftSimulation(seed, faults).run()
        except (Violation, AssertionError, RuntimeError, LookupError) as error:
            yield str(error)


def test_disks_that_lie_are_noticed() -> None:
    found = []
    for seed in range(12):
        simulation = RaftSimulation(seed, lying=5)
        try:
            simulation.run()
        except (AssertionError, RuntimeError, LookupError) as error:
            found.append(str(error))
    assert len(found) >= 6
    assert any("durability" in text or "completeness" in text or "election safety" in text for text in found)


def test_a_promise_made_before_the_disk_has_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Core._write

    def hasty(self: Core, entries: Any, snapshot: Any, responses: list[Any]) -> None:
        early = [each for each in responses if each.to != self.id]
        for each in early:
            self.send(each)
        original(self, entries, snapshot, [each for each in responses if each.to == self.id])

    monkeypatch.setattr(Core, "_write", hasty)
    rng = random.Random(1)
    faults = [
        Planned(number, number * 0.3, "crash", 0.3, {"member": rng.randrange(5), "mode": "lost"})
        for number in range(190)
    ]
    slow = [Planned(200 + n, 0.0, "slow disk", 60.0, {"member": n, "sync": 0.2}) for n in range(5)]
    assert any(broken(range(5), [*slow, *faults]))


def test_a_forgotten_vote_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Core.start

    def forgets(self: Core) -> None:
        state = self.image.hard_state
        if state.vote and self.life:
            self.image.hard_state = HardState(state.term, 0, state.commit)
        original(self)

    monkeypatch.setattr(Core, "start", forgets)
    assert any("vote durability" in text for text in broken(range(10)))


def test_an_acknowledgement_without_a_quorum_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Core.put

    def answers_at_once(self: Core, request: Any) -> None:
        original(self, request)
        if request.write and not request.refused:
            self.simulation.finish(request, request.number)

    monkeypatch.setattr(Core, "put", answers_at_once)
    assert any("durability" in text or "linearizable" in text for text in broken(range(12)))


def test_a_read_from_the_state_at_hand_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Core.put

    def reads_here(self: Core, request: Any) -> None:
        if request.write:
            original(self, request)
        else:
            self.simulation.finish(request, self.state.get(request.key))

    monkeypatch.setattr(Core, "put", reads_here)
    assert any("not linearizable" in text for text in broken(range(30)))


def test_a_message_type_that_never_arrives_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = RaftSimulation.send

    def loses(self: RaftSimulation, message: Any) -> None:
        if message.type is not MessageType.APP_RESP:
            original(self, message)

    monkeypatch.setattr(RaftSimulation, "send", loses)
    assert any("liveness" in text for text in broken(range(2)))


# The invariants by themselves


def log(*terms: int) -> tuple[Invariants, Chain]:
    invariants, chain = Invariants(), Chain()
    invariants.appended(1, chain, [Entry(term, index) for index, term in enumerate(terms, 1)], leads=False)
    return invariants, chain


def test_two_leaders_in_a_term_violate_election_safety() -> None:
    invariants, chain = log(1)
    invariants.elected(1, 2, chain, 1)
    invariants.elected(1, 2, chain, 1)
    with pytest.raises(Violation, match="election safety: 1 and 2 both lead in term 2"):
        invariants.elected(2, 2, chain, 1)


def test_a_leader_without_what_was_applied_violates_completeness() -> None:
    invariants, chain = log(1, 1)
    invariants.apply(1, Entry(1, 2), chain)
    with pytest.raises(Violation, match="leader completeness"):
        invariants.elected(2, 3, Chain(), 0)


def test_equal_places_with_other_histories_violate_log_matching() -> None:
    invariants, _ = log(1, 1)
    with pytest.raises(Violation, match=r"log matching: entry \(2, 1\)"):
        invariants.appended(2, Chain(0, [0, 7]), [Entry(1, 2)], leads=False)


def test_a_leader_that_overwrites_and_a_hole_are_violations() -> None:
    invariants, chain = log(1, 1)
    with pytest.raises(Violation, match="append-only"):
        invariants.appended(1, chain, [Entry(2, 2)], leads=True)
    with pytest.raises(Violation, match="appends 9"):
        invariants.appended(1, chain, [Entry(2, 9)], leads=False)
    invariants.appended(1, chain, [Entry(2, 2)], leads=False)
    assert chain.last == 2


def test_other_entries_applied_elsewhere_violate_state_machine_safety() -> None:
    invariants, chain = log(1)
    invariants.apply(1, Entry(1, 1), chain)
    other = Chain(0, [0, 99])
    with pytest.raises(Violation, match="state-machine safety"):
        invariants.apply(2, Entry(1, 1), other)
    with pytest.raises(Violation, match="not in its log"):
        invariants.apply(2, Entry(1, 5), other)


def test_votes_and_terms_that_go_back_are_violations() -> None:
    invariants = Invariants()
    invariants.voted(1, 3, 2)
    with pytest.raises(Violation, match="votes for"):
        invariants.voted(1, 3, 1)
    invariants.kept(1, HardState(3, 2, 0))
    for worse in (HardState(2, 0, 0), HardState(3, 1, 0), HardState(3, 0, 0)):
        with pytest.raises(Violation, match="vote durability"):
            invariants.kept(1, worse)
    with pytest.raises(Violation, match="came back"):
        invariants.loaded(1, HardState(2, 0, 0))
    invariants.loaded(1, HardState(4, 0, 0))


# Plans


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_has_enough_faults_of_enough_kinds_and_leaving_some_out_changes_no_other(seed: int) -> None:
    plan = draw(random.Random(seed), KINDS, SECONDS)
    assert len(plan) >= 15
    assert len({fault.kind for fault in plan}) >= 4
    assert [fault.at for fault in plan] == sorted(fault.at for fault in plan)
    assert all(0 <= fault.at <= SECONDS for fault in plan)
    less = without(plan, frozenset((0, 3)))
    assert less == [fault for fault in plan if fault.number not in (0, 3)]
    assert plan == draw(random.Random(seed), KINDS, SECONDS)


def test_figures_add_up_and_a_rare_kind_is_named() -> None:
    totals = simulate.Totals(("a", "b"))
    for seed in range(20):
        injected = Counter({"a": 2, **({"b": 1} if seed == 0 else {})})
        totals.add(simulate.Outcome(seed, injected, 10, Counter(histories=3), "x" if seed == 5 else "", 0.5))
    assert totals.rare() == ["b"]
    text = totals.text("raft", 10.0)
    assert "20 seeds in 10.0 s, 120 a minute; 0.50 s of processor time, 10 deliveries and 2.0 faults a seed" in text
    assert "; 1 failed" in text
    assert "checked: 60 histories" in text


def test_a_failing_seed_is_explained_with_the_faults_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    original = RaftSimulation._inject

    def inject(self: RaftSimulation, fault: Any) -> None:
        original(self, fault)
        if fault.kind == "crash":
            raise Violation("planted")

    monkeypatch.setattr(RaftSimulation, "_inject", inject)
    seed = next(s for s in range(20) if any(fault.kind == "crash" for fault in RaftSimulation(s).faults))
    text = simulate.explain("raft", seed)
    assert f"raft seed {seed}: Violation: planted" in text
    assert "faults that it takes (1 of " in text
    assert f"run it again: python -m tests.simulation.simulate raft --seed {seed}" in text
    monkeypatch.undo()
    assert simulate.explain("raft", seed) == f"raft seed {seed} does not fail"


def test_the_command_prints_figures_and_says_by_its_exit_code_whether_all_held(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert simulate.main(["raft", "3", "--jobs", "1"]) == 0
    assert "raft: 3 seeds in " in capsys.readouterr().out
    assert simulate.main(["raft", "--seed", "2"]) == 0


def test_a_member_that_counts_its_own_vote_and_gives_it_away_is_noticed() -> None:
    """Its own vote is one when the disk has it, and so when the core is told; before that it may be lost."""
    simulation = RaftSimulation(3, [])
    core = simulation.cores[1]
    core.start()
    term = core.node.raft.term
    granted = Message(MessageType.VOTE_RESP, to=1, from_=1, term=term)
    core._answer([replace(granted, reject=True)])
    assert (1, term) not in simulation.invariants.votes
    core._answer([granted])
    assert simulation.invariants.votes[1, term] == 1
    with pytest.raises(Violation, match=f"1 votes for 2 and 1 in term {term}"):
        core.send(replace(granted, to=2))
