"""Who the members are, as far as one manager knows: what is newer wins, and every change is seen by its version."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from actors.raft_roster import Roster
from runtime.disk.raft_records import Member

ONE, TWO, THREE = (Member(id, f"node-{id}", f"10.0.0.{id}:2377") for id in (1, 2, 3))
MOVED = Member(2, "node-2", "10.0.9.2:2377")


@pytest.mark.parametrize(
    "change",
    [
        lambda roster: roster.add(ONE),
        lambda roster: roster.remove(2),
        lambda roster: roster.restore([ONE], [9]),
        lambda roster: roster.expect({1: ONE}),
        lambda roster: roster.recall({1: ONE}),
        lambda roster: roster.mark(2, True),
        lambda roster: roster.mark(2, False),
    ],
)
def test_every_change_is_a_version_of_its_own(change: Callable[[Roster], None]) -> None:
    roster = Roster()
    roster.add(TWO)
    before = roster.version
    change(roster)
    assert roster.version > before


def test_who_is_reached_as_before_is_no_news() -> None:
    roster = Roster()
    roster.add(TWO)
    roster.mark(2, True)
    before = roster.version
    roster.mark(2, True)
    assert roster.version == before
    assert (roster.reaches(2), roster.reaches(3)) == (True, False)


def test_the_mappings_given_out_are_the_same_ones_through_every_change() -> None:
    roster = Roster()
    members, removed = roster.members, roster.removed
    roster.add(ONE)
    roster.restore([TWO, THREE], [])
    roster.remove(3)
    assert (dict(members), set(removed)) == ({2: TWO}, {3})


def test_what_is_said_of_those_to_come_is_newer_than_what_an_old_log_says() -> None:
    roster = Roster()
    assert not roster.expecting
    roster.expect({2: MOVED})
    roster.recall({1: ONE, 2: TWO})
    assert roster.expecting
    assert roster.known() == {1: ONE, 2: MOVED}


def test_members_are_reached_where_the_applied_log_says_whatever_was_said_before() -> None:
    roster = Roster()
    roster.expect({2: TWO, 3: THREE})
    roster.add(MOVED)
    assert roster.known() == {2: MOVED, 3: THREE}


def test_nobody_is_known_who_was_removed_and_no_snapshot_brings_one_back() -> None:
    roster = Roster()
    roster.expect({2: TWO, 3: THREE})
    roster.add(THREE)
    roster.remove(3)
    roster.restore([ONE], [])
    assert roster.removed == {3}
    assert roster.known() == {1: ONE, 2: TWO}
