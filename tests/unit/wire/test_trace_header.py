"""The metadatum by which a call goes on with its caller's trace id."""

from __future__ import annotations

import pytest

from runtime.wire.to_actor import TRACE, trace_header, trace_of


@pytest.mark.parametrize("trace", [1, 0xABCDE << 32 | 7, (1 << 52) - 1])
def test_a_trace_id_comes_back(trace: int) -> None:
    ((key, value),) = trace_header(trace)
    assert trace_of({key: (value,)}) == trace


def test_a_call_that_has_one_keeps_it() -> None:
    assert trace_header(7, {TRACE: ("1",)}) == ()


@pytest.mark.parametrize(
    "values", [(), ("1", "2"), ("",), ("-1",), ("0x1",), ("g",), ("1" * 14,), (" 1",), ("1\n",), ("F",)]
)
def test_what_cannot_be_one_counts_as_none(values: tuple[str, ...]) -> None:
    assert trace_of({TRACE: values}) == 0
