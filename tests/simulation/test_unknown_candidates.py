"""A manager that was away is asked for its vote by others that joined meanwhile: it may be the one that is missing."""

from __future__ import annotations

from typing import Any

import pytest

from actors.raft_peer import PACE, PLACE
from runtime.errors import Code, Refused
from runtime.protocol.raft import TransferLeadership
from runtime.raft.codec import message_to_pb
from runtime.raft.types import Message, MessageType, Role
from runtime.swarm.membership import MEMBER_REMOVED
from runtime.wire.pb import raft_pb2
from runtime.wire.services import path
from tests.simulation.cluster import Host, Swarm, manager_token, wait
from tests.simulation.managers import leader_of, managers, names, raft_of, until_written
from tests.simulation.test_hostile import own_credentials
from tests.simulation.test_learners import another_kind
from tests.simulation.test_quorum import force
from tests.simulation.test_roles import W, want

FAST_WITHIN, SLOW_WITHIN = 12.0, 120.0
"""Six longest election timeouts at ten ticks of 0.1 s and of 1 s: some, in which nobody can tell who stands first."""


def raft_id(host: Host) -> int:
    return int(raft_of(host).node.raft.id)


def votes(leader: Host) -> int:
    return sum(each.votes for each in raft_of(leader).member_statuses().values())


def fast(swarm: Swarm, hosts: list[Host]) -> None:
    """Runs until they tick fast, and so ask with PreVote."""
    wait(swarm, lambda: all(raft_of(host).pace.fast for host in hosts))


def held(host: Host) -> list[str]:
    """The services in this manager's store; nothing before it is served."""
    try:
        return names(host)
    except Refused:
        return []


def two_that_one_does_not_know(
    seed: int, how: str, *, slow: bool = False, away_for: float = 0.0
) -> tuple[Swarm, list[Host], Host]:
    """A group of five of which one was away when two joined, and the other two are lost by now. Gives the two that
    joined, which have everything that was acknowledged, and the one that was away, which is so still."""
    swarm = Swarm(seed, hosts=5)
    first, second, away, *joining = swarm.boot()
    first.init()
    for host in (second, away):
        host.join(first, manager_token(first))
    leader = leader_of(swarm)
    if away is leader:
        first, away = away, first
    fast(swarm, [first, second, away])
    if slow:
        another_kind(swarm, leader)
        wait(swarm, lambda: not any(raft_of(host).pace.fast for host in (first, second, away)))
    until_written(leader, "before")
    if how == "down":
        away.crash()
    else:
        swarm.network.isolate(away.ip)
    for host in joining:
        host.join(leader, manager_token(leader))
    wait(swarm, lambda: votes(leader) == 5)
    until_written(leader, "after")
    wait(swarm, lambda: all("after-0" in held(host) for host in joining))
    swarm.simulator.run_for(away_for)
    for host in (first, second):
        host.crash(lose_all=True)
    return swarm, joining, away


def back(swarm: Swarm, away: Host) -> None:
    if away.stage is None:
        away.boot()
    swarm.network.heal()


@pytest.mark.parametrize(("seed", "how"), [(1, "down"), (2, "cut off"), (3, "down"), (4, "cut off")])
def test_the_vote_of_a_manager_that_was_away_elects_one_that_it_does_not_know(seed: int, how: str) -> None:
    swarm, joined, away = two_that_one_does_not_know(seed, how)
    back(swarm, away)
    unknown = {raft_id(host) for host in joined}
    assert how == "down" or not unknown & set(raft_of(away).members)
    swarm.simulator.run_until(lambda: any(host.leads() for host in joined), FAST_WITHIN)
    leader = leader_of(swarm, joined)
    until_written(leader, "led-by-one-that-joined")
    wait(swarm, lambda: held(away) == names(leader), 10.0)
    assert {"before-0", "after-0"} <= set(names(away))
    assert unknown <= set(raft_of(away).members)


@pytest.mark.parametrize(("seed", "away_for"), [(5, 0.0), (6, 600.0)])
def test_so_it_does_in_a_group_that_ticks_slowly_although_its_term_has_grown_while_it_was_alone(
    seed: int, away_for: float
) -> None:
    swarm, joined, away = two_that_one_does_not_know(seed, "cut off", slow=True, away_for=away_for)
    ahead = raft_of(away).node.raft.term - raft_of(joined[0]).node.raft.term
    assert ahead >= away_for / 20.0 - 1, "without PreVote each election of one that is alone is a term"
    back(swarm, away)
    swarm.simulator.run_until(lambda: any(host.leads() for host in joined), SLOW_WITHIN)
    leader = leader_of(swarm, joined)
    until_written(leader, "led-by-one-that-joined")
    wait(swarm, lambda: held(away) == names(leader), 60.0)


def test_a_member_that_was_removed_and_a_voter_that_has_not_heard_of_it_elect_nobody_and_disturb_nobody() -> None:
    swarm = Swarm(7, hosts=5)
    *four, gone = swarm.boot()
    four[0].init()
    for host in four[1:]:
        host.join(four[0], manager_token(four[0]))
    leader = leader_of(swarm)
    fast(swarm, four)
    away = next(host for host in four if host is not leader)
    swarm.network.isolate(away.ip)
    gone.join(leader, manager_token(leader))
    wait(swarm, lambda: votes(leader) == 5)
    fast(swarm, [gone])
    swarm.network.isolate(gone.ip)
    want(leader, gone, W)
    wait(swarm, lambda: votes(leader) == 4)
    until_written(leader, "without-it")
    term, removed = raft_of(leader).node.raft.term, raft_id(gone)
    swarm.network.heal(gone.ip, away.ip)
    voter, candidate = raft_of(away), raft_of(gone)
    swarm.simulator.run_until(lambda: candidate.node.raft.votes.get(raft_id(away)) is True, FAST_WITHIN)
    assert not {removed} & {*voter.members, *voter.removed}, "it has heard neither that it joined nor that it left"
    swarm.simulator.run_for(30.0)
    assert not gone.leads()
    swarm.network.heal()
    wait(swarm, lambda: removed in voter.removed, 30.0)
    wait(swarm, lambda: raft_of(gone) is None, 30.0)
    assert leader.leads()
    assert "without-it-0" in names(away)
    assert raft_of(leader).node.raft.term == term


class Impostor:
    """Whoever holds a manager's certificate, on a machine of its own where nobody answers, and asks for votes."""

    def __init__(self, swarm: Swarm, certified: Host) -> None:
        self.swarm = swarm
        self.transport = swarm.network.transport("10.0.0.66")
        self.credentials = own_credentials(certified)

    def ask(self, host: Host, kind: MessageType, sender: int, addr: str) -> Any:
        """What is answered to a request for a vote, for the longest log there could be."""
        raft = raft_of(host).node.raft
        message = Message(kind, to=raft.id, from_=sender, term=raft.term + 1, index=1 << 40, log_term=raft.term)
        answers: list[Any] = []
        channel = self.transport.connect(f"{host.ip}:2377", self.credentials)
        request = raft_pb2.ProcessRaftMessageRequest(message=message_to_pb(message))
        metadata = ((PACE, "fast"), (PLACE, addr))
        channel.unary(path("Raft", "ProcessRaftMessage"), request, timeout=5.0, done=answers.append, metadata=metadata)
        self.swarm.simulator.run_until(lambda: bool(answers), 10.0)
        channel.close()
        return answers[0]


@pytest.mark.parametrize("kind", [MessageType.VOTE, MessageType.PRE_VOTE])
def test_who_was_never_a_member_gets_no_vote_under_a_managers_certificate(kind: MessageType) -> None:
    swarm = managers(8, 3)
    leader = leader_of(swarm)
    fast(swarm, swarm.hosts)
    voter, other = (host for host in swarm.hosts if host is not leader)
    impostor = Impostor(swarm, other)
    places = ["10.0.0.66:2377", f"{leader.ip}:2377", f"{voter.ip}:2377", "0.0.0.0:2377", "nonsense", "10.0.9.9:1"]

    def states() -> list[tuple[int, int, int]]:
        return [(each.term, each.vote, each.lead) for each in (raft_of(host).node.raft for host in swarm.hosts)]

    before = states()
    for host in swarm.hosts:
        # Where it says the truth about whose certificate it has, there is a leader still.
        for place in (*places, f"{other.ip}:2377"):
            assert not isinstance(impostor.ask(host, kind, 99, place), Refused)
    assert states() == before
    leader.crash()
    other.crash()
    swarm.simulator.run_for(10.0)
    alone = raft_of(voter).node.raft
    before_alone = (alone.term, alone.vote)
    for place in (*places, f"{other.ip}:2377"):
        impostor.ask(voter, kind, 99, place)
        swarm.simulator.run_for(1.5)
    assert (alone.term, alone.vote) == before_alone, "nobody was found there under that certificate"


def test_a_member_that_was_removed_is_told_so_wherever_it_says_to_be() -> None:
    swarm = managers(9, 4)
    leader = leader_of(swarm)
    gone = next(host for host in swarm.hosts if host is not leader)
    impostor, removed = Impostor(swarm, gone), raft_id(gone)
    want(leader, gone, W)
    wait(swarm, lambda: removed in raft_of(leader).removed)
    answer = impostor.ask(leader, MessageType.VOTE, removed, f"{gone.ip}:2377")
    assert (answer.code, answer.text) == (Code.NOT_FOUND, MEMBER_REMOVED)


# A cluster that was made anew by force, and a member of the old one that it does not know


def hand_over(swarm: Swarm, old: Host, new: Host) -> None:
    swarm.simulator.ask(old.stage.at("/cluster/node/manager/raft"), TransferLeadership(raft_id(new)))  # type: ignore[union-attr]
    swarm.simulator.run_until(lambda: bool(new.leads()), 30.0)


def two_clusters(seed: int) -> tuple[Swarm, list[Host], Host, Host]:
    """The old cluster of three, of which one joined when another was cut off; that one was made a new cluster by force,
    and the spare host is in neither."""
    swarm = Swarm(seed, hosts=5)
    first, second, alone, joined, spare = swarm.boot()
    first.init()
    for host in (second, alone):
        host.join(first, manager_token(first))
    fast(swarm, [first, second, alone])
    until_written(first, "common")
    wait(swarm, lambda: "common-0" in held(alone))
    swarm.network.isolate(alone.ip)
    joined.join(first, manager_token(first))
    wait(swarm, lambda: votes(first) == 4)
    for _ in range(3):  # its terms are ahead of the new cluster's
        hand_over(swarm, first, joined)
        hand_over(swarm, joined, first)
    hand_over(swarm, first, joined)
    until_written(joined, "old")
    alone.ask(force(alone))
    wait(swarm, lambda: alone.leads())
    until_written(alone, "new")
    assert raft_of(alone).node.raft.term < raft_of(joined).node.raft.term
    return swarm, [first, second, joined], alone, spare


def test_a_cluster_that_was_made_anew_is_not_led_by_a_member_of_the_old_one_that_it_does_not_know() -> None:
    swarm, old, alone, _ = two_clusters(11)
    term = raft_of(alone).node.raft.term
    swarm.network.heal()
    swarm.simulator.run_for(20.0)
    assert alone.leads()
    assert raft_of(alone).node.raft.term == term
    until_written(alone, "still")
    assert {name.rpartition("-")[0] for name in names(alone)} == {"common", "new", "still"}
    assert raft_id(old[2]) not in raft_of(alone).removed


def test_a_cluster_that_was_made_anew_gives_the_old_one_no_vote_and_its_own_members_find_each_other_again() -> None:
    swarm, old, alone, spare = two_clusters(12)
    swarm.network.heal()
    for host in old[:2]:
        host.crash()
    spare.join(alone, manager_token(alone))
    wait(swarm, lambda: votes(alone) == 2)
    fast(swarm, [alone, spare])
    until_written(alone, "of-two")
    wait(swarm, lambda: "of-two-0" in held(spare))
    spare.crash()
    candidate = raft_of(old[2]).node.raft
    swarm.simulator.run_until(lambda: candidate.role is Role.PRE_CANDIDATE and raft_of(alone).node.raft.lead == 0, 60.0)
    swarm.simulator.run_for(30.0)
    assert raft_id(alone) in candidate.members.voters
    assert raft_id(alone) not in candidate.votes
    spare.boot()
    leader = leader_of(swarm, [alone, spare])
    until_written(leader, "again")
    kept = {name.rpartition("-")[0] for name in names(leader)}
    assert kept == {"common", "new", "of-two", "again"}
