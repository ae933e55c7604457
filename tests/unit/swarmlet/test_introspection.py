"""The pure parts of introspection: redaction, frames of the protocol, the drawn tree."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.introspection import protocol, redact, render


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        ("plain", "plain"),
        (b"secret", "(6 bytes)"),
        ("x" * 1000, "x" * 500),
        ("a SWMTKN-1-abc-def b", "a (hidden) b"),
        ("-----BEGIN EC PRIVATE KEY-----\nabc", "(hidden)"),
        ((1, 2), [1, 2]),
        (object(), "(object)"),
        ({"worker_token": "x"}, {"worker_token": "(hidden)"}),
        ({"unlockKey": b"x"}, {"unlockKey": "(hidden)"}),
        (
            {"key": "x", "data keys": ["x"], "keystone": "x"},
            {"key": "(hidden)", "data keys": "(hidden)", "keystone": "x"},
        ),
        ({"token": "", "has_key": True, "keys": 3}, {"token": "", "has_key": True, "keys": 3}),
        ({"a": {"b": {"c": {"d": {}}}}}, {"a": {"b": {"c": {"d": "(...)"}}}}),
    ],
)
def test_what_may_be_shown(value: Any, shown: Any) -> None:
    assert redact.redact(value) == shown


def test_long_collections_are_cut_and_say_so() -> None:
    assert redact.redact(list(range(60)))[-1] == "(10 more)"
    assert redact.redact(dict.fromkeys(range(60), 0))["..."] == "(10 more)"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(ANYTHING)
def test_what_is_shown_goes_into_a_frame_and_into_json_and_comes_out_the_same(value: Any) -> None:
    shown = redact.redact(value)
    frame = protocol.answer(shown)
    assert protocol.frame_length(frame[:4], protocol.ANSWER_MAX) == len(frame) - 4
    answer = protocol.decode(frame[4:])
    assert answer["ok"] is True
    assert answer["value"] == shown
    assert json.loads(json.dumps(shown)) == shown


@given(st.binary(max_size=60))
def test_no_bytes_break_the_reading_of_requests(body: bytes) -> None:
    with pytest.raises(protocol.BadRequest):
        protocol.decode_request(body)


def row(path: str, **fields: Any) -> dict[str, Any]:
    empty = {
        "state": "running",
        "depth": 0,
        "highest": 0,
        "handled": 0,
        "restarts": 0,
        "last_error": "",
        "handling": "",
    }
    return {"path": path, "actor": "A", "oldest_s": 0.0, "failed": 0, **empty, **fields}


TOTALS = {"name": "n", "actors": 0, "dead_letters": 2, "late_answers": 0, "refused_full": 0, "crashes": 0}


def test_a_tree_is_drawn_with_its_branches() -> None:
    rows = [row("/a"), row("/a/b"), row("/a/b/c"), row("/a/d"), row("/e"), row("/gone/f")]
    text = render.tree({"stage": {**TOTALS, "actors": 6}, "actors": rows})
    names = [line.split("  running")[0].rstrip() for line in text.splitlines()[1:-1]]
    assert names == ["a", "├─ b", "│  └─ c", "└─ d", "e", "f"]
    assert text.splitlines()[-1] == "6 actors, 0 messages handled, 0 failures, 2 dead letters"


def test_an_error_is_one_short_line_and_work_in_hand_is_named() -> None:
    rows = [row("/a", last_error="one\ntwo " + "x" * 200, state="failed", handling="Tick", restarts=3, handled=12)]
    line = render.tree({"stage": TOTALS, "actors": rows}).splitlines()[1]
    assert "failed (Tick)" in line
    assert "one two xxx" in line
    assert line.endswith("...")
    assert len(line) < 160


def test_an_empty_tree_has_its_heads() -> None:
    assert render.tree({"stage": TOTALS, "actors": []}).splitlines()[0].split() == [
        "ACTOR", "STATE", "MAILBOX", "MOST", "HANDLED", "RESTARTS", "LAST", "ERROR",
    ]  # fmt: skip
