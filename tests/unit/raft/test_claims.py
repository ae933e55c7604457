"""The book of who says to be a member, and where: what is remembered, what counts, and that it never grows."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.raft.claims import CLAIMS_MAX, KEPT, RETRY, Claim, Claims

ONE = Claim(7, "node-7", "10.0.0.7:2377")


def remembered(claims: Claims) -> list[Claim]:
    return list(claims.standing)


def prove(claims: Claims, claim: Claim, now: float = 0.0) -> None:
    claims.hear(claim, now)
    assert claims.begin(claim, now)
    assert claims.tried(claim, True)


def test_what_is_said_is_remembered_and_nothing_is_proven_by_it() -> None:
    claims = Claims()
    claims.hear(ONE, 1.0)
    claims.hear(ONE, 2.0)
    assert claims.of(7) == ONE
    assert claims.of(8) is None
    assert (claims.standing[ONE].heard, claims.standing[ONE].proven) == (2.0, False)


@pytest.mark.parametrize("other", [Claim(7, "node-7", "10.0.9.7:2377"), Claim(9, "node-7", "10.0.0.7:2377")])
def test_a_node_makes_one_claim_and_its_newest_has_to_be_proven_anew(other: Claim) -> None:
    claims = Claims()
    prove(claims, ONE)
    claims.hear(other, 5.0)
    assert remembered(claims) == [other]
    assert not claims.standing[other].proven
    assert not claims.tried(ONE, True), "what was found at the place of before says nothing of this one"
    assert not claims.standing[other].proven


def test_a_raft_id_is_whose_node_proved_it_as_long_as_that_one_is_heard() -> None:
    claims, other = Claims(), Claim(7, "node-8", "10.0.0.8:2377")
    prove(claims, ONE)
    claims.hear(other, 1.0)
    assert remembered(claims) == [ONE]
    claims.expire(KEPT)
    assert remembered(claims) == [ONE]
    claims.expire(KEPT + 0.1)
    claims.hear(other, KEPT + 0.2)
    assert remembered(claims) == [other]


def test_one_that_is_not_proven_keeps_nobody_from_a_raft_id() -> None:
    claims, other = Claims(), Claim(7, "node-8", "10.0.0.8:2377")
    claims.hear(ONE, 0.0)
    claims.hear(other, 0.0)
    assert remembered(claims) == [other]
    assert claims.of(7) == other


def test_a_claim_is_tried_once_at_a_time_and_one_that_was_proven_whenever_it_matters() -> None:
    claims = Claims()
    claims.hear(ONE, 0.0)
    assert claims.begin(ONE, 0.0)
    assert not claims.begin(ONE, RETRY / 2)
    assert claims.tried(ONE, True)
    assert claims.begin(ONE, RETRY / 2)
    assert claims.tried(ONE, True)
    assert claims.begin(ONE, RETRY / 2)


def test_a_node_is_not_called_again_at_once_after_it_was_not_found_wherever_it_says_to_be() -> None:
    claims, moved = Claims(), Claim(7, "node-7", "10.0.9.9:1")
    claims.hear(ONE, 0.0)
    assert claims.begin(ONE, 0.0)
    assert not claims.tried(ONE, False)
    assert not claims.standing[ONE].proven
    claims.hear(moved, 0.1)
    assert not claims.begin(moved, RETRY / 2)
    assert claims.begin(moved, RETRY)


def test_what_is_not_remembered_is_not_tried() -> None:
    claims = Claims()
    assert not claims.begin(ONE, 0.0)
    assert not claims.tried(ONE, True)


def test_where_there_are_too_many_an_unproven_one_goes_first_then_the_one_not_heard_for_longest() -> None:
    claims = Claims()
    many = [Claim(number, f"node-{number}", f"10.0.1.{number}:2377") for number in range(1, CLAIMS_MAX + 1)]
    for number, claim in enumerate(many):
        prove(claims, claim, float(number))
    unproven, late = Claim(100, "node-100", "10.0.2.1:1"), Claim(101, "node-101", "10.0.2.2:1")
    claims.hear(many[0], 50.0)
    claims.hear(unproven, 60.0)
    assert remembered(claims) == [many[0], *many[2:], unproven]
    claims.hear(late, 61.0)
    assert remembered(claims) == [many[0], *many[2:], late]


def test_members_that_are_known_by_now_are_forgotten() -> None:
    claims, other = Claims(), Claim(8, "node-8", "10.0.0.8:2377")
    prove(claims, ONE)
    claims.hear(other, 0.0)
    claims.forget({7, 99})
    assert remembered(claims) == [other]


@given(st.integers(0, 2**32), st.integers(1, 200))
def test_it_never_grows_and_no_two_claims_are_of_one_node_or_of_one_member(seed: int, steps: int) -> None:
    rng, claims, now = random.Random(seed), Claims(), 0.0
    for _ in range(steps):
        now += rng.choice((0.0, 0.3, 5.0, KEPT + 1))
        claim = Claim(rng.randrange(40), f"node-{rng.randrange(40)}", f"10.0.0.{rng.randrange(3)}:1")
        held = claims.of(claim.raft_id)
        kept = held is not None and claims.standing[held].proven and held.node_id != claim.node_id
        claims.hear(claim, now)
        assert claims.of(claim.raft_id) == (held if kept else claim)
        if claims.begin(claim, now):
            claims.tried(claim, rng.random() < 0.5)
        if rng.random() < 0.1:
            claims.expire(now)
            assert all(now - standing.heard <= KEPT for standing in claims.standing.values())
        found = remembered(claims)
        assert len(found) <= CLAIMS_MAX
        assert len({each.node_id for each in found}) == len({each.raft_id for each in found}) == len(found)
