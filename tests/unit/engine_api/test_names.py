"""Field names in any case: which are put right, and which are people's own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine_api.convert import names
from tests.unit.engine_api import recorded


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ({"mode": {"replicated": {"REPLICAS": 2}}}, {"Mode": {"Replicated": {"Replicas": 2}}}),
        ({"Templating": {"name": "golang"}}, {"Templating": {"Name": "golang"}}),
        ({"Name": "a", "name": "b"}, {"Name": "a"}),
        ({"name": "b", "Name": "a"}, {"Name": "a"}),
        ({"Labels": {"name": "x", "NAME": "y"}}, {"Labels": {"name": "x", "NAME": "y"}}),
        ({"TaskTemplate": {"Networks": [{"target": "n"}]}}, {"TaskTemplate": {"Networks": [{"Target": "n"}]}}),
        ({"nosuch": 1}, {"nosuch": 1}),
    ],
)
def test_names_are_read_in_any_case(sent: Any, read: Any) -> None:
    assert names.exact(sent) == read


def test_what_is_written_exactly_stays_as_it_is() -> None:
    assert names.exact(recorded.RICH_SENT) == recorded.RICH_SENT


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["Name", "name", "NAME", "Labels", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON)
def test_a_second_reading_changes_nothing(value: Any) -> None:
    assert names.exact(names.exact(value)) == names.exact(value)
