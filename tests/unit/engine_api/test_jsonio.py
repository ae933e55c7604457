"""Bodies: what counts as JSON, what as absent, and how answers are written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine_api import jsonio
from runtime.engine_api.errors import ApiError

JSON = "application/json"


@pytest.mark.parametrize("content_type", ["", "text/plain", JSON])
def test_an_absent_body_is_the_zero_value_whatever_its_type(content_type: str) -> None:
    assert jsonio.decode(b"", content_type) == {}


def test_null_is_the_zero_value() -> None:
    assert jsonio.decode(b"null", JSON) == {}


@pytest.mark.parametrize("content_type", [JSON, "application/json; charset=utf-8", "Application/JSON"])
def test_a_json_content_type_may_have_parameters_and_any_case(content_type: str) -> None:
    assert jsonio.decode(b'{"a":1}\n', content_type) == {"a": 1}


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/jsonx"])
def test_a_body_of_another_type_is_refused(content_type: str) -> None:
    with pytest.raises(ApiError) as caught:
        jsonio.decode(b"{}", content_type)
    assert caught.value.text == f"unsupported Content-Type header ({content_type}): must be 'application/json'"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{bad", "invalid JSON: Expecting property name enclosed in double quotes at character 1"),
        (b"[]", "invalid JSON: the body must be an object, got an array"),
        (b'"x"', "invalid JSON: the body must be an object, got a string"),
        (b"true", "invalid JSON: the body must be an object, got a boolean"),
        (b"1.5", "invalid JSON: the body must be an object, got a fraction"),
        (b"{} {}", "unexpected content after JSON"),
        (b'{"a":1', "invalid JSON: got EOF while reading request body"),
        (b'{"a":"x', "invalid JSON: got EOF while reading request body"),
        (b"{", "invalid JSON: got EOF while reading request body"),
        (b"   ", "invalid JSON: got EOF while reading request body"),
        (b'{"a":NaN}', "invalid JSON: NaN is no JSON number"),
        (b'{"a":-Infinity}', "invalid JSON: -Infinity is no JSON number"),
        (b'{"a":"\xff"}', "invalid JSON: not UTF-8 at byte 6"),
        (b"\xef\xbb\xbf{}", "invalid JSON: Expecting value at character 0"),
        (b'{"a":' + b"[" * 200_000, "invalid JSON: nested too deeply"),
    ],
)
def test_what_is_no_whole_json_object_is_refused(body: bytes, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        jsonio.decode(body, JSON)
    assert (caught.value.status, caught.value.text) == (400, text)


def test_a_number_of_ten_thousand_digits_is_refused() -> None:
    with pytest.raises(ApiError, match="invalid JSON"):
        jsonio.decode(b'{"a":' + b"9" * 10_000 + b"}", JSON)


def test_lone_surrogates_become_the_replacement_character_in_keys_and_values() -> None:
    body = rb'{"\ud800":["a\udc00b", {"x":"\ud83d\ude00"}]}'
    assert jsonio.decode(body, JSON) == {"\ufffd": ["a\ufffdb", {"x": "😀"}]}


def test_answers_are_compact_end_with_a_newline_and_escape_nothing_for_html() -> None:
    assert jsonio.encode({"a": "<&>é", "b": [1, None]}) == '{"a":"<&>é","b":[1,null]}\n'.encode()


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers() | st.text() | st.none()))
def test_what_is_written_is_read_back(value: dict[str, object]) -> None:
    clean = json.loads(json.dumps(value).encode("utf-8", "replace"))
    assert jsonio.decode(json.dumps(clean).encode(), JSON).keys() == clean.keys()


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_never_worse(body: bytes) -> None:
    try:
        assert isinstance(jsonio.decode(body, JSON), dict)
    except ApiError as error:
        assert error.status == 400
