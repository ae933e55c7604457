"""Reading fields: null and absent are zero, a wrong type is named with its path."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine_api.convert import fields
from runtime.engine_api.errors import ApiError

READERS: list[tuple[Callable[..., Any], Any, Any]] = [
    (fields.text, "", "x"),
    (fields.flag, False, True),
    (fields.integer, 0, -7),
    (fields.unsigned, 0, 7),
    (fields.u32, 0, 7),
    (fields.number, 0.0, 0.5),
    (fields.child, None, {"a": 1}),
    (fields.listing, [], [1]),
    (fields.texts, [], ["a"]),
    (fields.children, [], [{"a": 1}]),
    (fields.mapping, {}, {"a": "b"}),
    (fields.octets, b"", "eA=="),
    (fields.maybe_integer, None, 3),
]


@pytest.mark.parametrize(("reader", "zero", "_value"), READERS)
def test_absent_and_null_are_the_zero_value(reader: Any, zero: Any, _value: Any) -> None:
    assert reader({}, "K", "P.") == zero
    assert reader({"K": None}, "K", "P.") == zero


@pytest.mark.parametrize(("reader", "_zero", "value"), READERS)
def test_a_value_of_the_right_type_is_read(reader: Any, _zero: Any, value: Any) -> None:
    assert reader({"K": value}, "K", "P.") == (b"x" if reader is fields.octets else value)


WRONG: list[tuple[Callable[..., Any], Any, str]] = [
    (fields.text, 5, "P.K must be a string, got an integer"),
    (fields.text, ["x"], "P.K must be a string, got an array"),
    (fields.flag, 1, "P.K must be a boolean, got an integer"),
    (fields.flag, "true", "P.K must be a boolean, got a string"),
    (fields.integer, True, "P.K must be an integer, got a boolean"),
    (fields.integer, 1.0, "P.K must be an integer, got a fraction"),
    (fields.integer, "1", "P.K must be an integer, got a string"),
    (fields.number, "1", "P.K must be a number, got a string"),
    (fields.number, True, "P.K must be a number, got a boolean"),
    (fields.child, [], "P.K must be an object, got an array"),
    (fields.listing, {}, "P.K must be an array, got an object"),
    (fields.texts, ["a", 1], "P.K[1] must be a string, got an integer"),
    (fields.texts, [None, 1], "P.K[1] must be a string, got an integer"),
    (fields.children, [{}, 1], "P.K[1] must be an object, got an integer"),
    (fields.mapping, {"a": 1}, "P.K.a must be a string, got an integer"),
    (fields.mapping, {"n": None, "a": []}, "P.K.a must be a string, got an array"),
    (fields.octets, "!!", "P.K is not base64"),
    (fields.octets, "eA", "P.K is not base64"),
    (fields.octets, "é", "P.K is not base64"),
    (fields.number, 1e39, "P.K is out of range"),
]


@pytest.mark.parametrize(("reader", "value", "sentence"), WRONG)
def test_a_wrong_type_is_refused_with_the_path(reader: Any, value: Any, sentence: str) -> None:
    with pytest.raises(ApiError) as caught:
        reader({"K": value}, "K", "P.")
    assert caught.value.status == 400
    assert caught.value.text == f"invalid JSON: {sentence}"


@pytest.mark.parametrize(
    ("reader", "low", "high"),
    [
        (fields.integer, -(1 << 63), (1 << 63) - 1),
        (fields.unsigned, 0, (1 << 64) - 1),
        (fields.u32, 0, (1 << 32) - 1),
    ],
)
def test_integers_keep_to_the_range_of_their_go_type(reader: Any, low: int, high: int) -> None:
    assert reader({"K": low}, "K", "") == low
    assert reader({"K": high}, "K", "") == high
    for outside in (low - 1, high + 1):
        with pytest.raises(ApiError, match=f"K must be from {low} to {high}"):
            reader({"K": outside}, "K", "")


def test_nulls_inside_arrays_and_objects_are_zero_values() -> None:
    assert fields.texts({"K": ["a", None]}, "K", "") == ["a", ""]
    assert fields.children({"K": [None, {"a": 1}]}, "K", "") == [{}, {"a": 1}]
    assert fields.mapping({"K": {"a": None, "b": "c"}}, "K", "") == {"a": "", "b": "c"}


@given(st.binary(max_size=200))
def test_base64_of_any_bytes_is_read_back_even_broken_into_lines(data: bytes) -> None:
    assert fields.octets({"K": base64.encodebytes(data).decode()}, "K", "") == data
