"""Reads that share rounds: what is asked for when, who is answered with which index, who is refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.raft_reads import ASK_AGAIN, READ_WAIT, RaftReads
from runtime.errors import Code, Refused
from runtime.raft.types import ReadState
from runtime.stage import Answer, Reply

LEADER = (3, 7)


class Readers:
    """Reads of one member, each with what it was answered."""

    def __init__(self) -> None:
        self.reads = RaftReads()
        self.answers: list[list[Answer]] = []
        self._drawn = itertools.count(1)

    def add(self, now: float = 0.0) -> list[Answer]:
        answers: list[Answer] = []
        self.reads.add(Reply(answers.append), now)
        self.answers.append(answers)
        return answers

    def context(self, leader: tuple[int, int] = LEADER, now: float = 0.0) -> bytes:
        return self.reads.context(leader, now, lambda size: next(self._drawn).to_bytes(size, "big"))

    def answer(self, context: bytes, index: int) -> None:
        self.reads.answer([ReadState(index, context)])


def index_of(answers: list[Answer]) -> int:
    (answer,) = answers
    return int(answer.get())


def test_reads_that_come_together_are_one_round() -> None:
    readers = Readers()
    first, second = readers.add(), readers.add()
    context = readers.context()
    assert context
    assert not readers.context()
    readers.answer(context, 12)
    assert (index_of(first), index_of(second)) == (12, 12)
    assert readers.reads.waiting == 0


def test_one_that_comes_during_a_round_is_not_answered_by_it() -> None:
    readers = Readers()
    readers.add()
    context = readers.context()
    late = readers.add()
    readers.answer(context, 12)
    assert late == []
    second = readers.context()
    assert second not in (b"", context)
    readers.answer(second, 15)
    assert index_of(late) == 15


@pytest.mark.parametrize(("leader", "now"), [((4, 7), 0.1), ((3, 8), 0.1), (LEADER, ASK_AGAIN)])
def test_a_round_is_asked_for_again_at_another_leader_or_after_a_second(leader: tuple[int, int], now: float) -> None:
    readers = Readers()
    answers = readers.add()
    context = readers.context()
    assert not readers.context(LEADER, ASK_AGAIN / 2)
    assert readers.context(leader, now) == context
    assert not readers.context(leader, now)
    readers.answer(context, 9)
    readers.answer(context, 10)
    assert index_of(answers) == 9


def test_an_answer_to_somebody_else_or_to_a_round_that_is_over_is_nothing() -> None:
    readers = Readers()
    first = readers.add()
    context = readers.context()
    readers.answer(b"another's", 99)
    assert first == []
    readers.answer(context, 5)
    late = readers.add()
    readers.answer(context, 6)
    assert late == []


def test_one_that_waited_five_seconds_is_refused_and_those_that_came_later_go_on() -> None:
    readers = Readers()
    old = readers.add(0.0)
    context = readers.context()
    young = readers.add(3.0)
    readers.reads.expire(READ_WAIT)
    with pytest.raises(Refused) as refused:
        old[0].get()
    assert refused.value.code is Code.UNAVAILABLE
    readers.answer(context, 4)
    assert young == []
    readers.answer(readers.context(), 6)
    assert index_of(young) == 6


@given(st.lists(st.sampled_from(["add", "ask", "commit", "answer", "lose"]), max_size=60))
def test_no_read_gets_an_index_from_before_it_came(steps: list[str]) -> None:
    """A leader that takes the index when it is asked for the first time of a context, and answers in any order."""
    readers, committed, now = Readers(), 1, 0.0
    noted: dict[bytes, int] = {}
    since: list[tuple[list[Answer], int]] = []
    for step in steps:
        now += 0.2
        if step == "add":
            since.append((readers.add(now), committed))
        elif step == "commit":
            committed += 1
        elif step == "answer":
            for context, index in noted.items():
                readers.answer(context, index)
        elif step == "lose":
            noted.clear()
        context = readers.context(LEADER, now)
        if context:
            noted.setdefault(context, committed)
    for answers, at_least in since:
        assert all(int(answer.get()) >= at_least for answer in answers)
        assert len(answers) <= 1
