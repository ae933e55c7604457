"""What other members may say to a core: absurd messages are refused with a reason, sound ones pass."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from runtime.raft.admission import LARGEST, TERM_LEAP, refusal
from runtime.raft.codec import encode_change
from runtime.raft.confchange import ChangeType, ConfChange
from runtime.raft.core import TRANSFER
from runtime.raft.types import (
    APPEND_THREAD,
    APPLY_THREAD,
    ConfState,
    Entry,
    EntryType,
    Message,
    MessageType,
    PeerNotFound,
    ProposalDropped,
    Role,
    Snapshot,
)
from runtime.wire.pb import raft_pb2
from tests.unit.raft.network import Member, Network

T = MessageType
WHOLE = ConfState((1, 2, 3))
REQUEST = raft_pb2.InternalRaftRequest(id=7).SerializeToString()


def leader() -> Member:
    network = Network()
    network.elect(1)
    network.propose(1, REQUEST)
    return network[1]


def why(**fields: Any) -> str:
    """The reason against a message to a follower in term 2 whose log ends at entry 2 or so."""
    network = Network()
    network.elect(1)
    return refusal(network[2].node.raft, Message(**{"to": 2, "from_": 1, "term": 2, **fields}))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"type": T.HEARTBEAT, "to": 3}, "another member"),
        ({"type": T.APP_RESP, "from_": 2}, "no other member"),
        ({"type": T.HEARTBEAT, "from_": 0}, "no other member"),
        ({"type": T.STORAGE_APPEND_RESP, "from_": APPEND_THREAD}, "no other member"),
        ({"type": T.STORAGE_APPLY_RESP, "from_": APPLY_THREAD}, "no other member"),
        *(({"type": kind}, "only a node itself") for kind in (T.HUP, T.BEAT, T.CHECK_QUORUM, T.UNREACHABLE)),
        ({"type": T.VOTE, "from_": 9, "term": 5}, "nobody known"),
        ({"type": T.PROP, "term": 0, "entries": [Entry(data=REQUEST)]}, "not forwarded"),
        ({"type": T.VOTE, "term": 0}, "a term is missing"),
        ({"type": T.VOTE, "term": 3 + TERM_LEAP}, "beyond reach"),
        ({"type": T.APP, "index": LARGEST}, "too large"),
        ({"type": T.HEARTBEAT, "commit": 99}, "was it lost"),
        ({"type": T.READ_INDEX}, "one context"),
        ({"type": T.READ_INDEX_RESP, "entries": [Entry(), Entry()]}, "one context"),
        ({"type": T.HEARTBEAT, "entries": [Entry(2, 3)]}, "carries entries"),
        ({"type": T.APP, "index": 2, "log_term": 2, "entries": [Entry(2, 5)]}, "does not follow"),
        ({"type": T.APP, "index": 2, "log_term": 2, "entries": [Entry(3, 3)]}, "does not follow"),
        ({"type": T.APP, "index": 2, "log_term": 2, "entries": [Entry(1, 3)]}, "does not follow"),
        ({"type": T.APP, "index": 2, "log_term": 2, "entries": [Entry(2, 3, data=b"\xff\xff")]}, "cannot be decoded"),
        (
            {"type": T.APP, "index": 2, "log_term": 2, "entries": [Entry(2, 3, EntryType.CONF_CHANGE, b"\x22\x05a")]},
            "cannot be decoded",
        ),
        ({"type": T.SNAP}, "snapshot is missing"),
        ({"type": T.SNAP, "snapshot": Snapshot(0, 1, WHOLE)}, "snapshot is missing"),
        ({"type": T.SNAP, "snapshot": Snapshot(9, 8, WHOLE)}, "of term 8"),
        ({"type": T.SNAP, "snapshot": Snapshot(9, 1, ConfState())}, "membership"),
        ({"type": T.SNAP, "snapshot": Snapshot(9, 1, ConfState((1, 1, 2)))}, "membership"),
        ({"type": T.SNAP, "snapshot": Snapshot(9, 1, ConfState((1, 2), learners=(2,)))}, "membership"),
        ({"type": T.SNAP, "snapshot": Snapshot(9, 1, ConfState((0,)))}, "membership"),
        ({"type": T.SNAP, "snapshot": Snapshot(9, 1, ConfState((1, 2), (1, 2, 4), (), (4, 4)))}, "membership"),
    ],
)
def test_what_no_sound_member_sends_is_refused_with_the_reason(fields: dict[str, Any], reason: str) -> None:
    assert reason in why(**fields)


def test_an_acknowledgement_of_what_was_never_sent_is_refused_by_the_leader() -> None:
    raft = leader().node.raft
    beyond = Message(T.APP_RESP, to=1, from_=2, term=raft.term, index=raft.log.last_index() + 1)
    assert "acknowledged" in refusal(raft, beyond)
    assert refusal(raft, dataclasses.replace(beyond, index=raft.log.last_index())) == ""


def test_an_answer_of_an_older_term_or_a_rejection_may_name_what_this_log_does_not_reach() -> None:
    raft = leader().node.raft
    beyond = Message(T.APP_RESP, to=1, from_=2, term=raft.term, index=raft.log.last_index() + 1)
    assert refusal(raft, dataclasses.replace(beyond, term=raft.term - 1)) == ""
    assert refusal(raft, dataclasses.replace(beyond, reject=True)) == ""


def test_a_heartbeat_commits_up_to_the_last_entry_and_not_one_further() -> None:
    raft = leader().node.raft
    last = raft.log.last_index()
    beat = Message(T.HEARTBEAT, to=1, from_=2, term=raft.term + 1, commit=last)
    assert refusal(raft, beat) == ""
    assert "was it lost" in refusal(raft, dataclasses.replace(beat, commit=last + 1))


def test_a_read_needs_no_term_and_storages_answers_travel_with_nothing_that_comes_from_others() -> None:
    raft = leader().node.raft
    assert refusal(raft, Message(T.READ_INDEX, to=1, from_=2, entries=[Entry(data=b"read")])) == ""
    carried = Message(T.HEARTBEAT, to=1, from_=2, term=raft.term, responses=[Message(T.STORAGE_APPEND_RESP)])
    assert "only a node itself" in refusal(raft, carried)


def follower(elapsed: int, **options: Any) -> Member:
    """One that has not heard its leader for so many ticks."""
    network = Network(**options)
    network.elect(1)
    network.cut(2)
    network.tick(2, elapsed)
    return network[2]


@pytest.mark.parametrize("context", [b"", TRANSFER])
@pytest.mark.parametrize("kind", [T.VOTE, T.PRE_VOTE])
def test_a_vote_for_an_unknown_member_counts_once_a_leader_was_missed_for_an_election_timeout(
    kind: MessageType, context: bytes
) -> None:
    member = follower(9, pre_vote=True)
    raft = member.node.raft
    asked = Message(kind, to=2, from_=9, term=raft.term + 1, index=99, log_term=raft.term, context=context)
    assert (raft.role, raft.election_elapsed) == (Role.FOLLOWER, 9)
    assert "there may be a leader" in refusal(raft, asked, vouched=True)
    raft.election_timeout = 19
    member.node.tick()
    assert (raft.role, raft.election_elapsed) == (Role.FOLLOWER, 10)
    assert refusal(raft, asked, vouched=True) == ""
    assert "nobody known" in refusal(raft, asked)
    for known in (dataclasses.replace(asked, from_=3), dataclasses.replace(asked, from_=1)):
        assert refusal(raft, known) == "", "whoever is in the configuration is the core's to judge"


def test_whoever_stands_for_election_itself_hears_an_unknown_member_and_a_leader_does_not() -> None:
    candidate = follower(25).node.raft
    assert candidate.role is Role.CANDIDATE
    asked = Message(T.VOTE, to=2, from_=9, term=candidate.term + 1)
    assert refusal(candidate, asked, vouched=True) == ""
    leads = leader().node.raft
    leads.election_elapsed = 99
    asked = Message(T.VOTE, to=1, from_=9, term=leads.term + 1)
    assert "there may be a leader" in refusal(leads, asked, vouched=True)


def test_whoever_has_just_started_waits_for_its_leader_before_it_hears_an_unknown_member() -> None:
    member = follower(25)
    member.restart()
    raft = member.node.raft
    asked = Message(T.VOTE, to=2, from_=9, term=raft.term + 1)
    assert "there may be a leader" in refusal(raft, asked, vouched=True)
    assert "beyond reach" in refusal(raft, dataclasses.replace(asked, from_=3, term=raft.term + TERM_LEAP + 1))


@pytest.mark.parametrize("term", [3 + TERM_LEAP, LARGEST, 0])
def test_an_unknown_member_moves_terms_no_further_than_a_known_one(term: int) -> None:
    raft = follower(25).node.raft
    asked = {sender: Message(T.VOTE, to=2, from_=sender, term=term and term + raft.term) for sender in (3, 9)}
    assert refusal(raft, asked[9], vouched=True) == refusal(raft, asked[3]) != ""


def test_who_knows_no_members_yet_hears_of_votes() -> None:
    raft = leader().node.raft
    raft.progress = {}
    assert refusal(raft, Message(T.VOTE, to=1, from_=9, term=raft.term + 1)) == ""


@pytest.mark.parametrize("seed", range(5))
def test_everything_that_cores_say_to_each_other_passes(seed: int) -> None:
    rng = random.Random(seed)
    network = Network(4, voters=(1, 2, 3))
    said: set[MessageType] = set()

    def look(message: Message) -> bool:
        if message.type is T.PROP:
            return True
        said.add(message.type)
        reason = refusal(network[message.to].node.raft, message)
        late = message.term < network[message.to].node.raft.term
        assert not reason or late, f"{message}: {reason}"
        return rng.random() < 0.1

    network.lost = look
    network.members[1].node.campaign()
    for round in range(40):
        network.settle()
        for id in (1, 2, 3):
            network.tick(id, rng.randint(1, 8))
        for member in network.members.values():
            try:
                member.node.propose(REQUEST)
                if round == 5:
                    member.node.propose_conf_change(ConfChange(((ChangeType.ADD_NODE, 4),), v1=True))
                if round == 20 and member.storage.last_index() > member.storage.first_index():
                    last = member.node.raft.log.applied
                    state = member.storage.conf_state
                    member.storage.keep_snapshot(Snapshot(last, member.storage.term(last), state, b"s"))
                    member.storage.compact(last)
            except (ProposalDropped, LookupError):
                continue
        if round % 7 == 0:
            network.members[1 + round % 3].node.transfer_leader(1 + (round + 1) % 3)
            network.members[2].node.read_index(b"%d" % round)
    assert {T.APP, T.APP_RESP, T.VOTE, T.VOTE_RESP, T.HEARTBEAT, T.HEARTBEAT_RESP} <= said


def absurd(rng: random.Random) -> Message:
    def number() -> int:
        return rng.choice((0, 1, 2, 3, 4, 5, 6, 9, 50, 2**32, 2**62, 2**63, 2**64 - 1))

    entries = []
    for _ in range(rng.choice((0, 0, 1, 3))):
        data = rng.choice((b"", REQUEST, rng.randbytes(9), encode_change(ConfChange(v1=False))[1]))
        term, index = rng.choice((1, 2, number())), rng.choice((3, 4, number()))
        entries.append(Entry(term, index, rng.choice(list(EntryType)), data))
    groups = [tuple(rng.choices((0, 1, 2, 3, 4, 2**64 - 1), k=rng.choice((0, 1, 3)))) for _ in range(4)]
    snapshot = Snapshot(number(), number(), ConfState(*groups, rng.random() < 0.5), rng.randbytes(5))
    return Message(
        type=rng.choice(list(T)), to=rng.choice((1, 1, 1, 2, number())), from_=rng.choice((2, 3, number())),
        term=rng.choice((2, 3, number())), log_term=number(), index=number(), entries=entries, commit=number(),
        vote=number(), snapshot=rng.choice((None, snapshot)), reject=rng.random() < 0.5, reject_hint=number(),
        context=rng.choice((b"", b"CampaignTransfer", rng.randbytes(3))),
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_no_absurd_message_that_passes_ends_a_core_or_takes_back_what_is_committed(seed: int) -> None:
    rng = random.Random(seed)
    network = Network()
    network.elect(1)
    network.propose(1, REQUEST)
    member = network[1]
    passed = 0
    for _ in range(1500):
        message = absurd(rng)
        before = [(entry.index, entry.term) for entry in member.applied]
        if refusal(member.node.raft, message):
            continue
        passed += 1
        try:
            member.node.step(message)
        except (PeerNotFound, ProposalDropped):
            continue
        while member.node.has_ready():
            member.carry_out()
        member.node.tick()
        assert [(entry.index, entry.term) for entry in member.applied][: len(before)] == before
    assert passed > 20
