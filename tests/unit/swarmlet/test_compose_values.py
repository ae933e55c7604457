"""Durations, sizes, CPUs, variables and environment files as compose files write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarmlet.compose_values import Notes, Place, parse_duration, parse_nano_cpus, parse_size
from swarmlet.compose_variables import BadVariable, parse_env_file, substitute

ENVIRON = {"NAME": "web", "EMPTY": "", "OTHER": "x"}


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("10s", 10_000_000_000),
        ("1m30s", 90_000_000_000),
        ("1h5m30s20ms", 3_930_020_000_000),
        ("1.5s", 1_500_000_000),
        ("0", 0),
        ("0s", 0),
        ("250us", 250_000),
        ("7ns", 7),
    ],
)
def test_a_duration_is_the_sum_of_its_parts(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "10", "s", "-1s", "1d", "1s ", "1 s", "ten", "9999999999h", "1s5"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (1024, 1024),
        ("1024", 1024),
        ("2b", 2),
        ("1k", 1024),
        ("1kb", 1024),
        ("50M", 50 << 20),
        ("1.5g", 3 << 29),
        ("1GiB", 1 << 30),
        ("2t", 2 << 40),
    ],
)
def test_sizes_are_powers_of_1024(value: object, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize("value", ["", "x", "-1", "1z", "1i", "1.5.5m", None, True, 1.5, "99999999t"])
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(value)


@pytest.mark.parametrize(("value", "nano"), [("0.5", 500_000_000), (2, 2_000_000_000), (0.001, 1_000_000), ("1e-9", 1)])
def test_cpus_are_billionths(value: object, nano: int) -> None:
    assert parse_nano_cpus(value) == nano


@pytest.mark.parametrize("value", ["x", "-1", "nan", "inf", "0.0000000001", True, None, []])
def test_what_is_no_number_of_cpus_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="number of CPUs"):
        parse_nano_cpus(value)


@given(st.integers(0, 10**9), st.sampled_from(["ns", "us", "ms", "s"]))
def test_a_duration_of_one_part_is_exact(count: int, unit: str) -> None:
    assert parse_duration(f"{count}{unit}") == count * {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}[unit]


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("$NAME", "web"),
        ("${NAME}", "web"),
        ("a${NAME}b$OTHER-c", "awebbx-c"),
        ("$$NAME and $$", "$NAME and $"),
        ("${NONE:-d}", "d"),
        ("${NONE-d}", "d"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY-d}", ""),
        ("${NAME:-d}", "web"),
        ("${NAME:+there}", "there"),
        ("${EMPTY:+there}", ""),
        ("${EMPTY+there}", "there"),
        ("${NONE+there}", ""),
        ("${NONE:-${NAME}-1}", "web-1"),
        ("${NONE:-${ALSO_NONE:-deep}}", "deep"),
        ("${NAME:?must be set}", "web"),
        ("${EMPTY?must be set}", ""),
    ],
)
def test_variables_are_replaced(text: str, result: str) -> None:
    missing: list[str] = []
    assert substitute(text, ENVIRON, missing.append) == result
    assert missing == []


def test_a_variable_without_value_is_empty_and_named() -> None:
    missing: list[str] = []
    assert substitute("<$NONE${NONE_EITHER}>", ENVIRON, missing.append) == "<>"
    assert missing == ["NONE", "NONE_EITHER"]


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("$", "written as"),
        ("5$ each", "written as"),
        ("${", "not closed"),
        ("${NAME", "not closed"),
        ("${}", "names no variable"),
        ("${1}", "names no variable"),
        ("${NAME!x}", "invalid interpolation"),
        ("${NONE:?set it}", "required variable NONE is missing a value: set it"),
        ("${EMPTY:?}", "required variable EMPTY is missing a value"),
        ("${NONE?}", "required variable NONE"),
    ],
)
def test_what_is_no_variable_is_refused_and_says_why(text: str, because: str) -> None:
    with pytest.raises(BadVariable, match=because):
        substitute(text, ENVIRON, lambda _name: None)


def test_defaults_inside_defaults_have_a_limit() -> None:
    with pytest.raises(BadVariable, match="deeply"):
        substitute("${A:-" * 30 + "x" + "}" * 30, {}, lambda _name: None)


@given(st.text())
def test_substitution_ends_with_a_text_or_a_refusal_whatever_comes(text: str) -> None:
    try:
        result = substitute(text, ENVIRON, lambda _name: None)
    except BadVariable:
        assert "$" in text
    else:
        assert "$" in text or result == text


def test_an_environment_file_has_comments_quotes_and_names_without_values() -> None:
    text = "# c\n\nA=1\nexport B=two words\nC='single # $X'\nD=\"line\\nend\"\nE=v # comment\nF\nG=\n"
    assert parse_env_file(text) == {
        "A": "1", "B": "two words", "C": "single # $X", "D": "line\nend", "E": "v", "F": None, "G": "",
    }  # fmt: skip


@pytest.mark.parametrize(("text", "because"), [("1A=x", "line 1"), ("A=1\nB='x", "line 2: a quote"), ("=x", "no name")])
def test_a_bad_line_of_an_environment_file_is_named(text: str, because: str) -> None:
    with pytest.raises(ValueError, match=because):
        parse_env_file(text)


def place(value: object) -> tuple[Place, Notes]:
    notes = Notes()
    return Place(value, "services.web.x", notes), notes


@pytest.mark.parametrize(
    ("read", "value"),
    [
        ("text", True),
        ("text", ["a"]),
        ("texts", "a"),
        ("texts", {"a": 1}),
        ("command", "a 'b"),
        ("flag", "perhaps"),
        ("flag", 2),
        ("number", -1),
        ("number", "1.5"),
        ("number", True),
        ("fraction", 1.5),
        ("fraction", "x"),
        ("duration_ns", "5"),
        ("size", []),
        ("nano_cpus", "many"),
        ("pairs", "A=1"),
    ],
)
def test_a_value_of_a_wrong_type_is_a_fault_with_its_place_and_reads_as_empty(read: str, value: object) -> None:
    at, notes = place(value)
    assert not getattr(at, read)()
    assert len(notes.faults) == 1
    assert notes.faults[0].startswith("services.web.x")


def test_values_that_a_variable_left_as_texts_are_read_as_what_they_mean() -> None:
    assert place("5")[0].number() == 5
    assert place("true")[0].flag() is True
    assert place("0.25")[0].fraction() == 0.25
    assert place(8080)[0].text() == "8080"


def test_pairs_may_be_a_mapping_or_a_list() -> None:
    wanted = {"A": "1", "B": None, "C": "true", "D": ""}
    assert place({"A": 1, "B": None, "C": True, "D": ""})[0].pairs() == wanted
    assert place(["A=1", "B", "C=true", "D="])[0].pairs() == wanted


def test_a_fault_is_told_once_and_all_are_told() -> None:
    notes = Notes()
    notes.fault("a", "x")
    notes.fault("a", "x")
    notes.fault("b", "y")
    notes.warn("", "z")
    assert (notes.faults, notes.warnings) == (["a: x", "b: y"], ["z"])
