"""Replies: the first answer counts, wherever it came from."""

from __future__ import annotations

import pytest

from actors.store_watcher import results_of
from runtime.errors import Code, Refused
from runtime.stage import Answer
from runtime.stage.answers import Reply


@pytest.mark.parametrize("answer", [Answer("done"), Answer(None, Refused(Code.NOT_FOUND, "no such thing"))])
def test_what_was_answered_elsewhere_is_passed_on_as_it_is(answer: Answer) -> None:
    came: list[Answer] = []
    reply = Reply(came.append)
    reply.pass_on(answer)
    assert came == [answer]
    assert not reply.open


def test_the_first_answer_counts() -> None:
    came: list[Answer] = []
    reply = Reply(came.append)
    reply.set(1)
    reply.pass_on(Answer(2))
    reply.fail(ValueError())
    assert came == [Answer(1)]


def test_a_batch_of_which_a_step_was_refused_is_a_failure() -> None:
    refused = Refused(Code.INVALID_ARGUMENT, "not so")
    assert results_of(Answer([1, None])) == [1, None]
    with pytest.raises(Refused) as raised:
        results_of(Answer([1, refused, 2]))
    assert raised.value is refused
