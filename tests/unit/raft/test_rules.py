"""Raft's rules that recorded scenarios do not show, one test a rule; sections are the thesis's."""

from __future__ import annotations

import dataclasses
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.raft import codec
from runtime.raft.confchange import Changer, ChangeRefused, ChangeType, ConfChange, Config, Transition, restore
from runtime.raft.log import RaftLog
from runtime.raft.node import LocalMessage
from runtime.raft.progress import Inflights, Progress, ProgressState
from runtime.raft.quorum import Vote, joint_committed, joint_vote, majority_committed, majority_vote
from runtime.raft.read_only import ReadOnlyOption
from runtime.raft.storage import MemoryStorage
from runtime.raft.types import (
    Compacted,
    ConfState,
    Entry,
    EntryType,
    Message,
    MessageType,
    PeerNotFound,
    ProposalDropped,
    Role,
    Snapshot,
    entry_size,
    limit_size,
)
from tests.unit.raft.network import Member, Network

T = MessageType


def vote_from(network: Network, to: int, of: int, term: int, index: int = 1, log_term: int = 1) -> bool:
    """Asks ``to`` for its vote; True if granted."""
    network[to].node.step(Message(T.VOTE, to=to, from_=of, term=term, index=index, log_term=log_term))
    answers = [message for message in network[to].carry_out() if message.type is T.VOTE_RESP]
    return not answers[-1].reject


# Elections (3.4, 3.6.1)


def test_a_vote_is_given_once_a_term_and_again_to_the_same() -> None:
    network = Network()
    assert vote_from(network, 1, of=2, term=5)
    assert not vote_from(network, 1, of=3, term=5)
    assert vote_from(network, 1, of=2, term=5)
    assert vote_from(network, 1, of=3, term=6)


def test_a_vote_lasts_through_a_restart() -> None:
    network = Network()
    assert vote_from(network, 1, of=2, term=5)
    network[1].restart()
    assert not vote_from(network, 1, of=3, term=5)


def test_no_vote_for_an_older_log() -> None:
    network = Network(check_quorum=False)
    network.elect(1)
    network.propose(1, b"a")
    assert not vote_from(network, 2, of=3, term=9, index=1, log_term=1)
    assert vote_from(network, 2, of=3, term=20, index=99, log_term=9)


def test_votes_are_counted_once_each() -> None:
    network = Network(5, check_quorum=False)
    network[1].node.campaign()
    network[1].carry_out()
    for _ in range(3):
        network[1].node.step(Message(T.VOTE_RESP, to=1, from_=2, term=network[1].node.raft.term))
    assert network[1].role is Role.CANDIDATE


def test_a_candidate_follows_a_leader_of_its_own_term() -> None:
    network = Network()
    network[1].node.campaign()
    network[1].node.step(Message(T.HEARTBEAT, to=1, from_=2, term=network[1].node.raft.term))
    assert (network[1].role, network[1].node.raft.lead) == (Role.FOLLOWER, 2)


def test_the_only_voter_leads_and_commits_alone() -> None:
    network = Network(1)
    network.elect(1)
    network.propose(1, b"a", b"b")
    assert network.data(1) == [b"a", b"b"]


def test_a_learner_never_stands_for_election() -> None:
    network = Network(2, voters=(1,))
    network[2].node.campaign()
    assert network[2].role is Role.FOLLOWER


def test_a_node_with_an_unapplied_membership_change_does_not_stand() -> None:
    network = Network()
    network.elect(1)
    network[1].node.propose_conf_change(ConfChange(((ChangeType.ADD_NODE, 4),), v1=True))
    member = network[2]
    kind, data = codec.encode_change(ConfChange(((ChangeType.ADD_NODE, 4),), v1=True))
    entry = Entry(member.node.raft.term, member.node.raft.log.last_index() + 1, kind, data)
    raft = member.node.raft
    member.node.step(
        Message(
            T.APP, to=2, from_=1, term=raft.term, index=entry.index - 1, log_term=raft.log.last_term(),
            entries=[entry], commit=entry.index,
        )
    )  # fmt: skip
    member.node.campaign()
    assert member.role is Role.FOLLOWER


def test_election_timeouts_are_drawn_between_one_and_two_election_ticks() -> None:
    network = Network()
    raft = network[1].node.raft
    drawn = set()
    for _ in range(300):
        raft.draw_election_timeout()
        drawn.add(raft.election_timeout)
    assert drawn == set(range(10, 20))


def test_pre_vote_changes_neither_term_nor_vote_of_anybody() -> None:
    network = Network(pre_vote=True)
    network.elect(1)
    term = network[1].node.raft.term
    network.cut(3)
    network.tick(3, 60)
    network.heal()
    network.tick(1, 3)
    assert (network[1].role, network[1].node.raft.term) == (Role.LEADER, term)


def answers(member: Member, message: Message) -> list[tuple[MessageType, int, int, bool]]:
    """What a core says to one message: kind, receiver, term, whether it is a no."""
    member.node.step(message)
    return [(each.type, each.to, each.term, each.reject) for each in member.carry_out()]


def test_an_unknown_candidate_of_an_older_term_hears_of_ours_and_a_known_one_is_asked_itself() -> None:
    network = Network()
    member = network[2]
    for _ in range(3):
        member.node.campaign()
        member.carry_out()
    asked = Message(T.VOTE, to=2, from_=9, term=2, index=99, log_term=2)
    assert answers(member, asked) == [(T.VOTE_RESP, 9, 4, True)]
    assert member.node.raft.vote == 2
    assert answers(member, dataclasses.replace(asked, from_=3)) == []


def test_a_voter_elects_a_candidate_that_its_configuration_does_not_have_and_follows_it() -> None:
    """Thesis 4.1: the others that knew both are gone."""
    network = Network(4, voters=(1, 2, 3))
    network.elect(1)
    network.lost = lambda message: 3 in (message.to, message.from_)
    network[1].node.propose_conf_change(ConfChange(((ChangeType.ADD_NODE, 4),), v1=True))
    network.settle()
    network.tick(1, 3)
    network.propose(1, b"acknowledged")
    assert network.data(4) == [b"acknowledged"]
    assert 4 not in network[3].node.raft.progress
    network.lost = lambda message: 1 in (message.to, message.from_)
    network.tick(3, 25)
    network[2].node.forget_leader()
    network[4].node.campaign()
    network.settle()
    assert network[4].node.raft.term == network[3].node.raft.term, "it has heard how far that one's term is"
    network.elect(4)
    network.propose(4, b"by the new one")
    network.tick(4, 3)
    assert network.data(3) == [b"acknowledged", b"by the new one"]
    assert 4 in network[3].node.raft.progress


def test_a_lease_keeps_a_disturber_from_being_elected() -> None:
    network = Network()
    network.elect(1)
    network[2].node.step(Message(T.VOTE, to=2, from_=3, term=9, index=99, log_term=9))
    assert network[2].node.raft.term < 9


def test_a_leader_without_a_quorum_steps_down_within_two_election_timeouts() -> None:
    network = Network()
    network.elect(1)
    network.cut(1)
    network.tick(1, 20)
    assert network[1].role is Role.FOLLOWER


# Log and commitment (3.5, 3.6.2)


def test_only_entries_of_the_own_term_are_committed_by_counting() -> None:
    """The figure 3.7 of the thesis: an entry of an older term on a majority is not committed by that alone."""
    network = Network(3, check_quorum=False)
    network.elect(1)
    network.lost = lambda message: message.type is T.APP
    network[1].node.propose(b"old")
    network.settle()
    network.cut(1)
    network.heal()
    raft = network[1].node.raft
    raft.become_follower(raft.term, 0)
    network.lost = lambda message: message.type is T.APP
    network[1].node.campaign()
    network.settle()
    assert network[1].role is Role.LEADER
    old = raft.log.last_index() - 1
    raft.progress[2].acknowledged(old)
    assert not raft.maybe_commit()
    raft.progress[2].acknowledged(old + 1)
    assert raft.maybe_commit()


def test_a_leader_counts_itself_only_once_its_disk_has_the_entry() -> None:
    network = Network(1)
    network.elect(1)
    network[1].node.propose(b"a")
    ready = network[1].node.ready()
    assert [entry.data for entry in ready.entries] == [b"a"]
    assert ready.committed_entries == ()
    network[1].storage.append(ready.entries)
    network[1].node.advance()
    assert [entry.data for entry in network[1].node.ready().committed_entries] == [b"a"]


def test_a_conflicting_tail_is_replaced_and_a_matching_one_kept() -> None:
    network = Network()
    network.elect(1)
    network.cut(1)
    network[1].node.propose(b"lost")
    network.settle()
    network.lost = lambda message: 1 in (message.to, message.from_)
    network[2].node.raft.lead = network[3].node.raft.lead = 0
    network[2].node.campaign()
    network.settle()
    network.propose(2, b"kept")
    network.heal()
    network.tick(2, 2)
    assert network.data(1) == network.data(2) == network.data(3) == [b"kept"]


def test_a_late_append_never_shortens_the_log() -> None:
    network = Network()
    network.elect(1)
    held: list[Message] = []

    def hold(message: Message) -> bool:
        if message.type is T.APP and message.to == 2 and len(held) < 1:
            held.append(message)
            return True
        return False

    network.lost = hold
    network.propose(1, b"a")
    network.tick(1, 2)
    network.propose(1, b"b", b"c")
    network.deliver(held[0])
    network.settle()
    assert network.data(2) == [b"a", b"b", b"c"]


@settings(max_examples=30)
@given(st.integers(0, 2**32))
def test_lost_doubled_and_reordered_messages_never_break_agreement(seed: int) -> None:
    random = Random(seed)
    network = Network()
    network.elect(1)

    def lost(message: Message) -> bool:
        if random.random() < 0.1:
            network.waiting.append(message)
        return random.random() < 0.2

    network.lost = lost
    for number in range(8):
        for member in network.members.values():
            if member.role is Role.LEADER:
                try:
                    member.node.propose(b"%d" % number)
                except ProposalDropped:
                    continue
        network.settle()
        network.tick(1 + number % 3, 2)
    network.heal()
    for _ in range(80):
        for id in network.members:
            network.tick(id)
    logs = [network.data(id) for id in network.members]
    assert logs[0] == logs[1] == logs[2]
    assert len(set(logs[0])) == len(logs[0])


def test_proposals_go_to_the_leader_and_are_dropped_without_one() -> None:
    network = Network()
    with pytest.raises(ProposalDropped):
        network[2].node.propose(b"a")
    network.elect(1)
    network.propose(2, b"a")
    assert network.data(3) == [b"a"]


def test_too_much_uncommitted_is_refused_but_never_the_first() -> None:
    network = Network(max_uncommitted_size=10)
    network.elect(1)
    network.cut(1)
    network[1].node.propose(b"x" * 100)
    with pytest.raises(ProposalDropped):
        network[1].node.propose(b"y")


# Flow control


def test_appends_stop_at_the_inflight_limit_and_go_on_with_answers() -> None:
    network = Network(2, max_inflight_msgs=3, max_size_per_msg=1)
    network.elect(1)
    network.lost = lambda message: message.type is T.APP_RESP
    for number in range(10):
        network[1].node.propose(b"%d" % number)
    network.settle()
    progress = network[1].node.raft.progress[2]
    assert (len(progress.inflights), progress.paused) == (3, True)
    network.heal()
    network.tick(1, 2)
    assert len(network.data(2)) == 10


def test_an_unreachable_follower_is_probed() -> None:
    network = Network()
    network.elect(1)
    network.propose(1, b"a")
    assert network[1].node.raft.progress[2].state is ProgressState.REPLICATE
    network[1].node.report_unreachable(2)
    assert network[1].node.raft.progress[2].state is ProgressState.PROBE


def test_a_follower_behind_the_log_gets_a_snapshot() -> None:
    network = Network()
    network.elect(1)
    network.cut(3)
    network.propose(1, b"a", b"b", b"c")
    leader = network[1]
    last = leader.storage.last_index()
    leader.storage.last_snapshot = Snapshot(last, leader.storage.term(last), leader.storage.conf_state, b"state")
    leader.storage.compact(last)
    network.heal()
    network.tick(1, 3)
    assert network[3].storage.last_snapshot.data == b"state"
    network.propose(1, b"d")
    assert network.data(3) == [b"d"]


# Hand-over (3.10)


def test_a_hand_over_makes_the_other_leader_at_once() -> None:
    network = Network()
    network.elect(1)
    network[1].node.transfer_leader(2)
    network.settle()
    assert (network[1].role, network[2].role) == (Role.FOLLOWER, Role.LEADER)


def test_a_hand_over_waits_until_the_other_has_everything_and_takes_no_proposals_meanwhile() -> None:
    network = Network()
    network.elect(1)
    network.cut(3)
    network.propose(1, b"a")
    network[1].node.transfer_leader(3)
    network.settle()
    with pytest.raises(ProposalDropped):
        network[1].node.propose(b"b")
    network.heal()
    network.tick(1, 2)
    assert network[3].role is Role.LEADER


def test_a_hand_over_is_given_up_after_an_election_timeout() -> None:
    network = Network()
    network.elect(1)
    network.cut(3)
    network.propose(1, b"x")
    network[1].node.transfer_leader(3)
    network.tick(1, 10)
    network.propose(1, b"a")
    assert network.data(2) == [b"x", b"a"]


# Reads (6.4)


def test_a_safe_read_waits_for_a_quorum_of_heartbeats() -> None:
    network = Network()
    network.elect(1)
    network.cut(1)
    network[1].node.read_index(b"r")
    network.settle()
    assert network[1].reads == []
    network.heal()
    network.tick(1, 1)
    assert [(read.context, read.index) for read in network[1].reads] == [(b"r", network[1].node.raft.log.committed)]


def test_a_read_waits_until_the_term_has_a_committed_entry() -> None:
    network = Network()
    network.lost = lambda message: message.type is T.APP
    network.elect(1)
    network[1].node.read_index(b"r")
    network.settle()
    assert network[1].reads == []
    network.heal()
    network.tick(1, 2)
    assert [read.context for read in network[1].reads] == [b"r"]


def test_a_follower_asks_its_leader_and_gets_the_index() -> None:
    network = Network()
    network.elect(1)
    network[2].node.read_index(b"q")
    network.settle()
    assert [read.context for read in network[2].reads] == [b"q"]


def test_a_lease_answers_reads_without_a_round() -> None:
    network = Network(read_only=ReadOnlyOption.LEASE_BASED)
    network.elect(1)
    network.cut(1)
    network[1].node.read_index(b"r")
    network.settle()
    assert [read.context for read in network[1].reads] == [b"r"]


# Membership (4)


def test_only_one_membership_change_is_under_way() -> None:
    network = Network()
    network.elect(1)
    for id in (4, 5):
        network[1].node.propose_conf_change(ConfChange(((ChangeType.ADD_NODE, id),), v1=True))
    network.settle()
    assert network[1].storage.conf_state.voters == (1, 2, 3, 4)


def test_a_removed_leader_steps_down_where_asked() -> None:
    network = Network(step_down_on_removal=True)
    network.elect(1)
    network[1].node.propose_conf_change(ConfChange(((ChangeType.REMOVE_NODE, 1),), v1=True))
    network.settle()
    assert network[1].role is Role.FOLLOWER
    assert network[2].storage.conf_state.voters == (2, 3)


CHANGES = st.lists(st.tuples(st.sampled_from(list(ChangeType)), st.integers(1, 6)), min_size=1, max_size=4)


@given(st.lists(CHANGES, max_size=8))
def test_any_sequence_of_changes_keeps_a_sound_membership(rounds: list[list[tuple[ChangeType, int]]]) -> None:
    changer = Changer(Config(), {}, 10, lambda: Inflights(4))
    restore(changer, ConfState((1, 2, 3)))
    for changes in rounds:
        following = Changer(changer.config, changer.progress, 10, lambda: Inflights(4))
        try:
            following.enter_joint(True, changes)
        except ChangeRefused:
            continue
        check_membership(following)
        again = Changer(Config(), {}, 10, lambda: Inflights(4))
        restore(again, following.config.state())
        assert again.config.state() == following.config.state()
        following.leave_joint()
        check_membership(following)
        changer = following


def check_membership(changer: Changer) -> None:
    config = changer.config
    assert config.voters
    assert not config.voters & (config.learners | config.learners_next)
    assert config.learners_next <= config.outgoing
    assert set(changer.progress) == config.voters | config.outgoing | config.learners
    assert all(changer.progress[id].learner == (id in config.learners) for id in changer.progress)


def test_a_simple_change_moves_at_most_one_voter() -> None:
    changer = Changer(Config(), {}, 10, lambda: Inflights(4))
    restore(changer, ConfState((1, 2, 3)))
    with pytest.raises(ChangeRefused, match="more than one voter"):
        changer.simple([(ChangeType.ADD_NODE, 4), (ChangeType.ADD_NODE, 5)])


def test_no_change_leaves_a_group_in_which_nobody_votes() -> None:
    alone = Changer(Config(), {}, 10, lambda: Inflights(4))
    restore(alone, ConfState((1,)))
    with pytest.raises(ChangeRefused, match="removed all voters"):
        alone.simple([(ChangeType.REMOVE_NODE, 1)])
    three = Changer(Config(), {}, 10, lambda: Inflights(4))
    restore(three, ConfState((1, 2, 3)))
    with pytest.raises(ChangeRefused, match="removed all voters"):
        three.enter_joint(True, [(ChangeType.REMOVE_NODE, id) for id in (1, 2)] + [(ChangeType.ADD_LEARNER, 3)])


@pytest.mark.parametrize(
    ("change", "enters", "leaves"),
    [
        (ConfChange(((ChangeType.ADD_NODE, 1),)), None, False),
        (ConfChange(((ChangeType.ADD_NODE, 1), (ChangeType.ADD_NODE, 2))), True, False),
        (ConfChange(((ChangeType.ADD_NODE, 1),), Transition.JOINT_IMPLICIT), True, False),
        (ConfChange(((ChangeType.ADD_NODE, 1),), Transition.JOINT_EXPLICIT), False, False),
        (ConfChange(), None, True),
    ],
)
def test_how_a_change_goes_through_a_joint_configuration(change: ConfChange, enters: bool | None, leaves: bool) -> None:
    assert (change.enters_joint(), change.leaves_joint) == (enters, leaves)
    kind, data = codec.encode_change(change)
    assert codec.decode_change(Entry(type=kind, data=data)) == change


# Quorums


@given(st.dictionaries(st.integers(1, 7), st.integers(0, 20), min_size=1))
def test_a_majority_has_what_it_is_said_to_have_committed(acked: dict[int, int]) -> None:
    index = majority_committed(acked, acked.__getitem__)
    assert index is not None
    needed = len(acked) // 2 + 1
    assert sum(value >= index for value in acked.values()) >= needed
    assert sum(value >= index + 1 for value in acked.values()) < needed


@given(st.sets(st.integers(1, 5)), st.sets(st.integers(1, 5)), st.dictionaries(st.integers(1, 5), st.booleans()))
def test_a_joint_vote_is_won_when_both_halves_win(one: set[int], other: set[int], votes: dict[int, bool]) -> None:
    results = [majority_vote(one, votes), majority_vote(other, votes)]
    assert (joint_vote(one, other, votes) is Vote.WON) == (results == [Vote.WON, Vote.WON])
    assert (joint_vote(one, other, votes) is Vote.LOST) == (Vote.LOST in results)
    acked = {id: id for id in range(1, 6)}
    both = [half for half in (one, other) if half]
    expected = min((majority_committed(half, acked.__getitem__) or 0 for half in both), default=0)
    assert joint_committed(one, other, acked.__getitem__) == expected


# Guards


def test_local_messages_and_answers_of_strangers_do_not_come_in() -> None:
    network = Network()
    with pytest.raises(LocalMessage):
        network[1].node.step(Message(T.HUP, to=1, from_=2))
    with pytest.raises(PeerNotFound):
        network[1].node.step(Message(T.APP_RESP, to=1, from_=9, term=1))


def test_a_damaged_hard_state_is_not_started_from() -> None:
    network = Network()
    from runtime.raft.types import HardState

    network[1].storage.hard_state = HardState(5, 0, 99)
    with pytest.raises(RuntimeError, match="commit 99"):
        network[1].restart()


# The log


def entries(*terms: int, start: int = 1) -> list[Entry]:
    return [Entry(term, index) for index, term in enumerate(terms, start)]


def test_an_answer_about_an_overwritten_tail_does_not_count() -> None:
    log = RaftLog(MemoryStorage())
    log.append(entries(1, 1, 1))
    log.accept_tail()
    log.append(entries(2, start=3))
    log.stable_to(3, 1)
    assert log.offset == 1
    log.stable_to(2, 1)
    assert log.offset == 3
    assert [entry.term for entry in log.next_tail()] == [2]


def test_committed_entries_are_never_overwritten() -> None:
    log = RaftLog(MemoryStorage())
    log.append(entries(1, 1))
    log.commit_to(2)
    with pytest.raises(AssertionError, match="would overwrite committed"):
        log.append(entries(2, start=2))


def test_a_commit_beyond_the_log_is_damage() -> None:
    log = RaftLog(MemoryStorage())
    with pytest.raises(AssertionError, match="was it damaged or lost"):
        log.commit_to(1)


def test_the_conflict_hint_skips_whole_terms() -> None:
    log = RaftLog(MemoryStorage())
    log.append(entries(1, 1, 3, 3, 5))
    assert log.conflict_by_term(5, 4) == (4, 3)
    assert log.conflict_by_term(5, 2) == (2, 1)
    assert log.conflict_by_term(5, 0) == (0, 0)


def test_what_is_compacted_cannot_be_read() -> None:
    storage = MemoryStorage()
    storage.append(entries(1, 1, 1))
    storage.compact(2)
    with pytest.raises(Compacted):
        RaftLog(storage).slice(2, 4)
    assert RaftLog(storage).term(2) == 1


@given(st.lists(st.integers(0, 40), min_size=1, max_size=10), st.integers(0, 200))
def test_a_limit_gives_at_least_one_entry_and_no_more_than_fit(sizes: list[int], limit: int) -> None:
    some = [Entry(1, index, data=bytes(size)) for index, size in enumerate(sizes, 1)]
    got = limit_size(some, limit)
    assert 1 <= len(got) <= len(some)
    assert len(got) == 1 or sum(map(entry_size, got)) <= limit
    assert len(got) == len(some) or sum(map(entry_size, some[: len(got) + 1])) > limit


@given(st.binary(max_size=300), st.integers(0, 2**63), st.integers(0, 2**63))
def test_an_entrys_size_is_that_of_its_encoding(data: bytes, term: int, index: int) -> None:
    entry = Entry(term, index, EntryType.NORMAL, data)
    assert entry_size(entry) in (codec.entry_to_pb(entry).ByteSize(), codec.entry_to_pb(entry).ByteSize() + 1)


def test_a_message_survives_the_wire() -> None:
    message = Message(
        T.SNAP, to=2, from_=1, term=3, log_term=2, index=7, entries=[Entry(3, 8, EntryType.NORMAL, b"x")], commit=6,
        snapshot=Snapshot(5, 2, ConfState((1, 2), (1,), (3,), (), True), b"s"), reject=True, reject_hint=4,
        context=b"c",
    )  # fmt: skip
    assert codec.message_from_pb(codec.message_to_pb(message)) == message


def test_progress_keeps_match_before_next() -> None:
    progress = Progress(10, Inflights(2), learner=False)
    assert not progress.rejected(3, 1)
    assert progress.rejected(9, 4)
    assert (progress.match, progress.next) == (0, 5)
    progress.become_snapshot(20)
    progress.become_probe()
    assert progress.next == 21
