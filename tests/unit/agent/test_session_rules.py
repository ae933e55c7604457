"""Back-off, the sequence of assignments, and the choice among managers."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from runtime.swarm.agent_remotes import BAD, GOOD, WEIGHT_MAX, Remotes
from runtime.swarm.agent_session import BACKOFF_MAX, AssignmentSequence, SessionBackoff, from_tasks
from runtime.wire.pb import dispatcher_pb2 as dispatcher
from runtime.wire.pb import objects_pb2 as objects

COMPLETE, INCREMENTAL = dispatcher.AssignmentsMessage.COMPLETE, dispatcher.AssignmentsMessage.INCREMENTAL


def message(applies_to: str, results_in: str, kind: int = INCREMENTAL) -> dispatcher.AssignmentsMessage:
    return dispatcher.AssignmentsMessage(type=kind, applies_to=applies_to, results_in=results_in)  # type: ignore[arg-type]


# Back-off


def test_the_bound_grows_from_100_ms_to_8_s() -> None:
    backoff = SessionBackoff()
    bounds = []
    for _ in range(8):
        backoff.failed()
        bounds.append(round(backoff.bound, 3))
    assert bounds == [0.1, 0.3, 0.7, 1.5, 3.1, 6.3, 8.0, 8.0]


def test_a_registration_forgets_the_errors() -> None:
    backoff = SessionBackoff()
    backoff.failed()
    backoff.succeeded()
    assert backoff.delay(random.Random(1)) == 0.0
    backoff.failed()
    assert backoff.bound == 0.1


@given(st.integers(0, 40), st.integers())
def test_the_delay_is_below_the_bound(errors: int, seed: int) -> None:
    backoff = SessionBackoff()
    for _ in range(errors):
        backoff.failed()
    delay = backoff.delay(random.Random(seed))
    assert 0.0 <= delay <= backoff.bound <= BACKOFF_MAX
    assert errors == 0 or delay < backoff.bound


# Sequence


def test_a_complete_set_and_what_follows_on_it_pass() -> None:
    sequence = AssignmentSequence()
    assert sequence.check(message("", "1", COMPLETE)) is None
    assert sequence.check(message("1", "2")) is None
    assert sequence.check(message("2", "3")) is None


def test_a_later_complete_set_in_sequence_passes() -> None:
    sequence = AssignmentSequence()
    assert sequence.check(message("", "1", COMPLETE)) is None
    assert sequence.check(message("1", "2", COMPLETE)) is None


def test_a_change_to_nothing_is_refused() -> None:
    assert "instead of a complete set" in (AssignmentSequence().check(message("", "1")) or "")


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_exactly_the_gapless_sequence_passes(numbers: list[int]) -> None:
    sequence = AssignmentSequence()
    assert sequence.check(message("", "0", COMPLETE)) is None
    last, expected = 0, True
    for number in numbers:
        expected = number == last + 1
        assert (sequence.check(message(str(number - 1), str(number))) is None) == expected
        if not expected:
            break
        last = number


def test_an_old_managers_list_is_a_complete_set() -> None:
    full = from_tasks(dispatcher.TasksMessage(tasks=[objects.Task(id="a"), objects.Task(id="b")]))
    assert full.type == COMPLETE
    assert [change.assignment.task.id for change in full.changes] == ["a", "b"]
    assert all(change.action == dispatcher.AssignmentChange.UPDATE for change in full.changes)


# Remotes

A, B, C = ("a", "a:1"), ("b", "b:1"), ("c", "c:1")


def test_an_observation_moves_a_weight_half_the_way_and_is_rounded_up() -> None:
    remotes = Remotes()
    weights = []
    for observation in (GOOD, GOOD, BAD, BAD, BAD):
        remotes.observe(A, observation)
        weights.append(remotes.weight(A))
    assert weights == [5, 8, -1, -5, -7]


@given(st.lists(st.integers(-10_000, 10_000), min_size=1, max_size=30))
def test_weights_stay_within_their_limits(observations: list[int]) -> None:
    remotes = Remotes()
    for observation in observations:
        remotes.observe(A, observation)
    assert -WEIGHT_MAX <= remotes.weight(A) <= WEIGHT_MAX


def test_only_the_known_are_observed_in_passing() -> None:
    remotes = Remotes()
    remotes.observe_if_known(A, GOOD)
    assert len(remotes) == 0
    remotes.observe(A, GOOD)
    remotes.observe_if_known(A, GOOD)
    assert remotes.weight(A) == 8


def test_a_list_keeps_what_was_experienced_and_forgets_the_rest() -> None:
    remotes = Remotes()
    remotes.told([A, B])
    remotes.observe(A, BAD)
    remotes.told([A, C])
    assert (A in remotes, B in remotes, C in remotes) == (True, False, True)
    assert (remotes.weight(A), remotes.weight(C)) == (-2, 5)


def test_nobody_known_is_nobody_chosen() -> None:
    assert Remotes().select(random.Random(1)) is None


def test_a_manager_thought_badly_of_is_chosen_rarely_and_the_good_ones_evenly() -> None:
    remotes = Remotes()
    remotes.told([A, B, C])
    for _ in range(5):
        remotes.observe(C, BAD)
    rng = random.Random(5)
    chosen = [remotes.select(rng) for _ in range(4000)]
    assert chosen.count(C) < 10
    assert abs(chosen.count(A) - chosen.count(B)) < 400


def test_the_last_resort_is_chosen() -> None:
    remotes = Remotes()
    for _ in range(9):
        remotes.observe(A, BAD)
    assert remotes.select(random.Random(1)) == A


@given(st.sets(st.sampled_from([A, B, C]), min_size=1), st.integers())
def test_the_choice_depends_on_the_seed_alone(known: set[tuple[str, str]], seed: int) -> None:
    one, other = Remotes(), Remotes()
    one.told(sorted(known))
    other.told(sorted(known, reverse=True))
    choice = one.select(random.Random(seed))
    assert choice == other.select(random.Random(seed))
    assert choice in known
