"""The pure parts of introspection: redaction, frames of the protocol, the drawn tree."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.introspection import lines, protocol, redact, render


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
        "ACTOR", "STATE", "DEPTH", "MOST", "HANDLED", "FAILS", "LAST", "ERROR",
    ]  # fmt: skip


def test_who_is_at_one_message_for_a_second_is_stuck() -> None:
    for seconds, stands in ((0.9, "running (Tick)"), (1.0, "stuck (Tick)")):
        text = render.tree({"stage": TOTALS, "actors": [row("/a", handling="Tick", handling_s=seconds)]})
        assert stands in text
    assert render.state(row("/a", state="suspended", handling="Tick", handling_s=5.0)) == "suspended"


def test_a_terminal_without_lines_gets_them_in_ascii() -> None:
    drawn = "├─ b\n└─ é"
    assert lines.plain(drawn, "utf-8") == drawn
    assert lines.plain(drawn, "latin-1") == "|- b\n`- é"
    for encoding in ("ascii", None):
        assert lines.plain(drawn, encoding) == "|- b\n`- \\xe9"


@given(st.text(), st.sampled_from(["ascii", "latin-1", "cp437", "utf-8", "no such encoding"]))
def test_any_text_can_be_printed_anywhere(text: str, encoding: str) -> None:
    shown = lines.plain(text, encoding)
    shown.encode("ascii" if encoding == "no such encoding" else encoding)


def test_figures_of_a_window_are_differences() -> None:
    before = {"handled": 5, "busy_s": 1.0, "depth": 0, "restarts": 0, "clock": 10.0}
    after = {**row("/a", depth=2), "handled": 25, "busy_s": 1.5, "clock": 12.0, "handling_s": 0.5}
    assert render.actor_window(before, after) == {"seconds": 2.0, "rate": 10.0, "busy": 0.5}
    figures = render.with_rates(
        [{"type": "A", "count": 3}], [{"type": "A", "count": 7}, {"type": "B", "count": 1}], 2.0
    )
    assert [each["rate"] for each in figures] == [2.0, 0.5]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 日本\n\tx", "plain é 日本\n\tx"),
        ("\x1b[1;31mred\x1b[m", "red"),
        ("\x1b]0;title\x07", "^[]0;title^G"),
        ("\x9b2J\x7f\r", "\\u009b2J^?^M"),
        ("\u202eabc", "\\u202eabc"),
    ],
)
def test_what_would_command_a_terminal_is_shown_instead(text: str, shown: str) -> None:
    assert lines.harmless(text) == shown


@given(st.text())
def test_nothing_that_is_shown_is_a_control_character(text: str) -> None:
    shown = lines.harmless(text)
    assert not [each for each in shown if each not in "\n\t" and (ord(each) < 32 or 127 <= ord(each) < 160)]
