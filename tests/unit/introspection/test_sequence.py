"""A trace for people: a table, a diagram in text, and Mermaid's."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.introspection import sequence


def record(sender: str, receiver: str, kind: str, told: float = 0.0, outcome: str = "ok") -> dict[str, Any]:
    return {
        "told": told, "begun": told + 0.002, "took": 0.00005, "trace": 7,
        "sender": sender, "receiver": receiver, "type": kind, "outcome": outcome,
    }  # fmt: skip


RECORDS = [
    record("", "/cluster", "Control", 1.0),
    record("/cluster", "/cluster/node/manager/control", "Control", 1.5),
    record("/cluster/node/manager/control", "/cluster/node/manager/store", "Write", 2.0, "failed"),
]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "0 us"), (0.00005, "50 us"), (0.0021, "2.1 ms"), (0.9999, "999.9 ms"), (61.26, "61.3 s")],
)
def test_durations_have_units(seconds: float, shown: str) -> None:
    assert sequence.duration(seconds) == shown


def test_names_are_as_short_as_they_can_be() -> None:
    assert sequence.names(["/a/x", "/b/x", "/c"]) == {"/a/x": "a/x", "/b/x": "b/x", "/c": "c"}
    assert sequence.names(["/a", "/x/a"]) == {"/a": "a", "/x/a": "x/a"}


def test_the_table_says_who_told_whom_what_and_how_it_went() -> None:
    lines = sequence.table(RECORDS).splitlines()
    assert lines[0].split() == ["AT", "FROM", "TO", "MESSAGE", "WAITED", "TOOK", "TRACE"]
    assert lines[1].split() == ["+0", "us", "(outside)", "/cluster", "Control", "2.0", "ms", "50", "us", "7"]
    assert "Write (FAILED)" in lines[3]
    assert "+1.0 s" in lines[3]


def test_the_diagram_has_a_column_an_actor_and_an_arrow_a_message() -> None:
    lines = sequence.text(RECORDS).splitlines()
    assert lines[0].split() == ["(outside)", "cluster", "control", "store"]
    arrows = lines[2::2]
    assert len(arrows) == 3
    assert all("▶" in arrow for arrow in arrows)
    assert arrows[0].index("▶") < arrows[1].index("▶") < arrows[2].index("▶")
    assert "Write (FAILED) 50 us" in lines[5]


def test_answers_go_back_and_messages_to_oneself_turn_round() -> None:
    back = sequence.text([record("/a", "/b", "Ask"), record("/b", "/a", "Answer"), record("/a", "/a", "Poll")])
    lines = back.splitlines()
    assert "◀" in lines[4]
    assert "◀─┘" in lines[6]


def test_mermaid_names_everybody_once_and_crosses_out_failures() -> None:
    lines = sequence.mermaid(RECORDS).splitlines()
    assert lines[0] == "sequenceDiagram"
    assert lines[1:5] == [
        "    participant p0 as (outside)",
        "    participant p1 as cluster",
        "    participant p2 as control",
        "    participant p3 as store",
    ]
    assert lines[5] == "    p0->>p1: Control (50 us)"
    assert lines[7] == "    p2-xp3: Write (FAILED) (50 us)"


def test_an_empty_trace_has_its_heads_and_no_more() -> None:
    assert sequence.table([]).startswith("AT")
    assert sequence.text([]) == ""
    assert sequence.mermaid([]) == "sequenceDiagram"
