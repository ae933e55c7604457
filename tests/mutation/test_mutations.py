"""The table of planted bugs fits the core as it is; ``make mutants`` plants them."""

from __future__ import annotations

import ast

import pytest

from tests.mutation.edges import EDGES
from tests.mutation.mutations import MUTATIONS, Mutation
from tests.mutation.run import ROOT, complaint_about, plant
from tests.mutation.same import SAME


@pytest.mark.parametrize("mutation", [*MUTATIONS, *EDGES, *SAME], ids=lambda each: f"{each.file}: {each.rule}")
def test_a_planted_bug_has_one_place_and_makes_a_program(mutation: Mutation) -> None:
    source = (ROOT / "runtime" / "raft" / f"{mutation.file}.py").read_text(encoding="utf-8")
    planted = plant(source, mutation)
    assert planted != source
    ast.parse(planted)


def test_a_bug_whose_place_is_gone_or_ambiguous_is_not_planted() -> None:
    with pytest.raises(ValueError, match="occurs 0 times"):
        plant("a = 1", Mutation("core", "b = 1", "", ""))
    with pytest.raises(ValueError, match="occurs 2 times"):
        plant("a = 1; a = 1", Mutation("core", "a = 1", "", ""))


def test_who_survives_unexpectedly_is_named_with_the_rule() -> None:
    bug, none = MUTATIONS[0], SAME[0]
    assert complaint_about(bug, True).startswith(f"nobody noticed: {bug.file}: ")
    assert complaint_about(bug, True).endswith(f"({bug.rule})")
    assert complaint_about(none, False).startswith("said to change nothing")
    assert (complaint_about(bug, False), complaint_about(none, True)) == ("", "")
