"""Rules that show only in a corner: each test here turns red over a bug that nothing else notices."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.raft.confchange import Changer, ConfChange, Config, restore
from runtime.raft.confchange import ChangeType as C
from runtime.raft.config import RaftConfig
from runtime.raft.log import RaftLog
from runtime.raft.progress import Inflights, Progress, ProgressState
from runtime.raft.quorum import Vote, majority_vote
from runtime.raft.read_only import ReadOnly, ReadOnlyOption
from runtime.raft.storage import MemoryStorage
from runtime.raft.types import (
    NO_LIMIT,
    ConfState,
    Entry,
    EntryType,
    Message,
    MessageType,
    ProposalDropped,
    Role,
    Snapshot,
    entry_size,
)
from tests.unit.raft.network import Network

T = MessageType


def change(kind: C, id: int) -> ConfChange:
    return ConfChange(((kind, id),), v1=True)


def a_log(*sizes: int, limit: int = NO_LIMIT) -> RaftLog:
    """Entries of term 1 with so many bytes of data each, all committed and durable."""
    storage = MemoryStorage()
    storage.append([Entry(1, index, data=bytes(size)) for index, size in enumerate(sizes, 1)])
    log = RaftLog(storage, limit)
    log.commit_to(len(sizes))
    return log


# Elections


def test_who_follows_a_leader_of_this_term_votes_for_nobody_else_in_it() -> None:
    member = Network(check_quorum=False)[1]
    member.node.step(Message(T.HEARTBEAT, to=1, from_=2, term=5))
    member.node.step(Message(T.VOTE, to=1, from_=3, term=5, index=9, log_term=4))
    answers = [message for message in member.carry_out() if message.type is T.VOTE_RESP]
    assert [answer.reject for answer in answers] == [True]


def test_a_lease_ends_with_an_election_timeout_of_silence() -> None:
    network = Network()
    network.elect(1)
    raft = network[2].node.raft
    raft.election_timeout = 19
    for _ in range(9):
        network[2].node.tick()
    network[2].node.step(Message(T.VOTE, to=2, from_=3, term=8, index=99, log_term=8))
    assert raft.term < 8
    network[2].node.tick()
    network[2].node.step(Message(T.VOTE, to=2, from_=3, term=8, index=99, log_term=8))
    assert raft.term == 8


def test_a_voter_that_changes_its_mind_is_not_heard() -> None:
    member = Network(check_quorum=False)[1]
    member.node.campaign()
    member.carry_out()
    term = member.node.raft.term
    member.node.step(Message(T.VOTE_RESP, to=1, from_=2, term=term, reject=True))
    member.node.step(Message(T.VOTE_RESP, to=1, from_=2, term=term))
    assert member.role is Role.CANDIDATE


def test_nobody_stands_for_election_while_a_snapshot_is_on_its_way_to_the_disk() -> None:
    member = Network()[2]
    snapshot = Snapshot(50, 4, ConfState((1, 2, 3)), b"s")
    member.node.step(Message(T.SNAP, to=2, from_=1, term=4, snapshot=snapshot))
    member.node.campaign()
    assert (member.role, member.node.raft.promotable) == (Role.FOLLOWER, False)
    member.carry_out()
    assert member.node.raft.promotable


@pytest.mark.parametrize(
    ("votes", "stands"),
    [
        ({1: False, 2: False}, Vote.LOST),
        ({1: False}, Vote.PENDING),
        ({1: True, 2: False}, Vote.PENDING),
        ({1: True, 3: True}, Vote.WON),
    ],
)
def test_an_election_is_lost_once_it_cannot_be_won(votes: dict[int, bool], stands: Vote) -> None:
    assert majority_vote((1, 2, 3), votes) is stands


# Log


def test_an_append_commits_no_further_than_what_it_made_sure_of() -> None:
    log = RaftLog(MemoryStorage())
    log.append([Entry(1, 1), Entry(1, 2), Entry(1, 3)])
    assert log.maybe_append(1, 1, 3, ()) == 1
    assert log.committed == 1


def test_nothing_more_is_handed_out_to_be_applied_while_the_budget_is_used_up() -> None:
    size = entry_size(Entry(1, 1, data=bytes(50)))
    log = a_log(50, 50, 50, limit=size)
    assert [entry.index for entry in log.next_committed(True)] == [1]
    log.accept_applying(1, size, True)
    assert (list(log.next_committed(True)), log.has_next_committed(True)) == ([], False)
    log.applied_to(1, size)
    assert [entry.index for entry in log.next_committed(True)] == [2]


def test_a_small_entry_does_not_slip_by_behind_one_that_did_not_fit() -> None:
    log = a_log(60, 60, 1, limit=100)
    first = log.next_committed(True)
    assert [entry.index for entry in first] == [1]
    log.accept_applying(1, sum(map(entry_size, first)), True)
    assert log.applying_paused


def test_only_the_snapshot_that_waits_is_made_durable_by_an_answer() -> None:
    log = RaftLog(MemoryStorage())
    log.restore(Snapshot(10, 2))
    log.stable_snapshot_to(5)
    assert log.pending_snapshot == Snapshot(10, 2)
    log.stable_snapshot_to(10)
    assert log.pending_snapshot is None


def test_what_was_uncommitted_does_not_count_once_it_is_applied() -> None:
    network = Network(1, max_uncommitted_size=10)
    network.elect(1)
    for letter in (b"x", b"y", b"z"):
        network.propose(1, letter * 8)
    assert len(network.data(1)) == 3


def test_proposals_are_not_forwarded_where_that_is_switched_off() -> None:
    network = Network(disable_proposal_forwarding=True)
    network.elect(1)
    with pytest.raises(ProposalDropped):
        network[2].node.propose(b"a")


# Flow control


def test_a_rejection_never_takes_next_back_to_what_is_known_to_match() -> None:
    progress = Progress(9, Inflights(4), learner=False)
    progress.match = 5
    assert progress.rejected(8, 2)
    assert (progress.match, progress.next) == (5, 6)


def test_appends_under_way_are_bounded_by_their_bytes_too() -> None:
    inflights = Inflights(10, max_bytes=100)
    inflights.add(1, 60)
    assert not inflights.full
    inflights.add(2, 60)
    assert inflights.full
    inflights.free_to(1)
    assert not inflights.full


def far_behind(network: Network) -> None:
    """Member 3 is cut off and what it lacks is no longer in the leader's log."""
    network.elect(1)
    network.cut(3)
    network.propose(1, b"a", b"b", b"c")
    storage = network[1].storage
    last = storage.last_index()
    storage.keep_snapshot(Snapshot(last, storage.term(last), storage.conf_state, b"state"))
    storage.compact(last)


def test_no_snapshot_is_sent_to_who_has_not_been_heard_of() -> None:
    network = Network()
    far_behind(network)
    network.tick(1, 20)
    network[1].node.report_unreachable(3)
    network.propose(1, b"d")
    progress = network[1].node.raft.progress[3]
    assert (progress.recent_active, progress.state) == (False, ProgressState.PROBE)


def test_a_late_answer_does_not_end_the_wait_for_a_snapshot() -> None:
    network = Network()
    far_behind(network)
    network.lost = lambda message: message.type is T.SNAP
    network.tick(1, 3)
    progress = network[1].node.raft.progress[3]
    assert progress.state is ProgressState.SNAPSHOT
    late = progress.match + 1
    assert late + 1 < network[1].storage.first_index()
    network[1].node.step(Message(T.APP_RESP, to=1, from_=3, term=network[1].node.raft.term, index=late))
    assert (progress.match, progress.state) == (late, ProgressState.SNAPSHOT)
    assert not any(message.type is T.SNAP for message in network[1].node.raft.messages), "it was sent again"


# Membership


def test_a_change_that_is_committed_and_not_yet_applied_keeps_the_next_one_out() -> None:
    network = Network(1)
    network.elect(1)
    member = network[1]
    member.node.propose_conf_change(change(C.ADD_LEARNER, 2))
    ready = member.node.ready()
    member.storage.append(ready.entries)
    member.node.advance()
    log = member.node.raft.log
    assert log.committed == log.last_index() > log.applied
    member.node.propose_conf_change(change(C.ADD_LEARNER, 3))
    (entry,) = log.next_tail()
    assert (entry.type, entry.data) == (EntryType.NORMAL, b"")


def test_a_leader_that_was_removed_and_stays_proposes_nothing() -> None:
    network = Network()
    network.elect(1)
    network[1].node.propose_conf_change(change(C.REMOVE_NODE, 1))
    network.settle()
    assert network[1].role is Role.LEADER
    with pytest.raises(ProposalDropped):
        network[1].node.propose(b"a")


def test_what_a_smaller_quorum_has_already_is_committed_when_the_change_is_applied() -> None:
    network = Network(2)
    network.elect(1)
    network.lost = lambda message: any(entry.data == b"y" for entry in message.entries)
    network[1].node.propose_conf_change(change(C.REMOVE_NODE, 2))
    network[1].node.propose(b"y")
    network.settle()
    assert network[1].storage.conf_state.voters == (1,)
    assert network.data(1) == [b"y"]


def test_a_newcomer_counts_as_heard_of() -> None:
    changer = Changer(Config(), {}, 10, lambda: Inflights(4))
    restore(changer, ConfState((1,)))
    changer.simple([(C.ADD_NODE, 2)])
    assert changer.progress[2].recent_active


# Hand-over


def test_a_hand_over_has_a_whole_election_timeout() -> None:
    network = Network()
    network.elect(1)
    network.cut(3)
    network.propose(1, b"x")
    raft = network[1].node.raft
    raft.election_elapsed = 9
    network[1].node.transfer_leader(3)
    network.tick(1, 9)
    assert raft.transferee == 3
    network.tick(1)
    assert raft.transferee == 0


def test_a_hand_over_to_a_member_that_is_removed_is_void() -> None:
    network = Network()
    network.elect(1)
    network.cut(3)
    network[1].node.propose_conf_change(change(C.REMOVE_NODE, 3))
    network[1].node.transfer_leader(3)
    assert network[1].node.raft.transferee == 3
    network.settle()
    assert network[1].node.raft.transferee == 0
    network.propose(1, b"a")
    assert network.data(2) == [b"a"]


# Reads


def test_reads_of_an_earlier_leadership_are_not_answered_in_the_next() -> None:
    network = Network(check_quorum=False)
    network.elect(1)
    network.cut(1)
    network[1].node.read_index(b"old")
    network.settle()
    network.heal()
    network.elect(2)
    network.elect(1)
    network.tick(1, 3)
    assert network[1].reads == []


def test_an_acknowledged_read_answers_all_before_it_and_keeps_the_index_it_began_with() -> None:
    reads = ReadOnly(ReadOnlyOption.SAFE)
    for index, context in ((5, b"one"), (6, b"two"), (7, b"three"), (9, b"one")):
        reads.add(index, Message(T.READ_INDEX, context=context), context)
    assert reads.last_context() == b"three"
    assert [(request.context, index) for request, index in reads.advance(b"two")] == [(b"one", 5), (b"two", 6)]
    assert reads.last_context() == b"three"
    assert reads.advance(b"two") == []


def test_a_core_is_not_set_up_with_ticks_or_reads_that_cannot_be() -> None:
    def config(**fields: Any) -> RaftConfig:
        return RaftConfig(**{"id": 1, "storage": MemoryStorage(), **fields})

    for wrong in ({"heartbeat_tick": 10, "election_tick": 10}, {"heartbeat_tick": 0}, {"id": 0}):
        with pytest.raises(ValueError, match=r"ticks|id"):
            config(**wrong)
    with pytest.raises(ValueError, match="check_quorum"):
        config(read_only=ReadOnlyOption.LEASE_BASED, check_quorum=False)
    assert config(read_only=ReadOnlyOption.LEASE_BASED, check_quorum=True).heartbeat_tick == 1
