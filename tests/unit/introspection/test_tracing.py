"""Traces: what they take in, what ends them, and that nobody pays for them who does not look."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.introspection.tracing import BUFFER, TRACES_MAX, BadFilter, TraceRequest, checked
from tests.unit.introspection.chain import Chain, Pass, QuietTick

ALL = TraceRequest(everything=True)


def test_a_message_is_traced_along_its_whole_way_under_one_id() -> None:
    chain = Chain()
    trace = chain.trace(ALL)
    chain.send(1)
    records = trace.take()
    assert [(each[4], each[5], each[6], each[7]) for each in records] == [
        ("", "/first", "Pass", "ok"),
        ("/first", "/middle", "Pass", "ok"),
        ("/middle", "/last", "Pass", "ok"),
    ]
    assert len({each[3] for each in records}) == 1
    assert all(told <= begun and took >= 0 for told, begun, took, *_ in records)
    assert all(each[8] is None for each in records), "bodies are not kept unless asked for"


def test_failures_and_refusals_are_told_apart() -> None:
    chain = Chain()
    trace = chain.trace(TraceRequest(paths=("/last",), bodies=True))
    chain.last.ask(Pass(12))
    chain.last.tell(Pass(13))
    chain.simulator.settle()
    assert [(each[7], each[8]) for each in trace.take()] == [("refused", Pass(12)), ("failed", Pass(13))]


@pytest.mark.parametrize(
    ("request_", "receivers"),
    [
        (TraceRequest(paths=("/middle",)), ["/middle", "/last"]),
        (TraceRequest(paths=("/m*", "/f*")), ["/first", "/middle", "/last"]),
        (TraceRequest(paths=("/nobody",)), []),
        (TraceRequest(types=("Pass",)), ["/first", "/middle", "/last"]),
        (TraceRequest(types=("P?ss",), paths=("/first",)), ["/first", "/middle"]),
        (TraceRequest(types=("Other",)), []),
    ],
)
def test_a_filter_takes_senders_and_receivers_and_types(request_: TraceRequest, receivers: list[str]) -> None:
    chain = Chain()
    trace = chain.trace(request_)
    chain.send(1)
    assert [each[5] for each in trace.take()] == receivers


def test_ticks_are_left_out_unless_they_are_named() -> None:
    chain = Chain()
    quiet, named = chain.trace(ALL), chain.trace(TraceRequest(types=("QuietTick",)))
    chain.first.tell(QuietTick())
    chain.simulator.settle()
    assert (quiet.take(), len(named.take())) == ([], 1)


def test_a_trace_ends_at_its_number_of_messages_and_says_so() -> None:
    chain = Chain()
    trace = chain.trace(TraceRequest(everything=True, count=4))
    chain.send(1, 2, 3)
    assert len(trace.take()) == 4
    assert trace.ended == "4 messages were traced"


def test_a_trace_ends_when_more_comes_in_a_second_than_it_may() -> None:
    chain = Chain()
    trace = chain.trace(TraceRequest(paths=("/first",), rate=3))
    for _ in range(4):
        chain.first.tell(Pass(1))
        chain.simulator.run_for(1.1)
    assert not trace.ended, "a steady trickle is within the rate"
    chain.send(1, 2, 3, 4)
    assert trace.ended == "more than 3 messages in a second"


def test_a_trace_ends_after_its_time() -> None:
    chain = Chain()
    trace = chain.trace(TraceRequest(everything=True, seconds=5))
    chain.simulator.run_for(6)
    chain.send(1)
    assert trace.ended == "5 s are over"
    assert trace.take() == []


def test_what_nobody_takes_is_dropped_and_counted_and_blocks_nobody() -> None:
    chain = Chain()
    trace = chain.trace(TraceRequest(paths=("/last",), count=100_000, rate=50_000))
    for number in range(BUFFER + 50):
        chain.last.tell(Pass(number if number not in (12, 13) else 0))
    chain.simulator.settle()
    assert trace.dropped == 50
    assert len(trace.take()) == BUFFER
    assert not trace.ended


def test_a_viewer_is_woken_once_for_many_messages() -> None:
    chain = Chain()
    trace = chain.trace(ALL)
    chain.send(1, 2, 3)
    assert chain.woken == 1
    trace.take()
    chain.send(4)
    assert chain.woken == 2


def test_the_tracer_is_there_only_while_somebody_looks() -> None:
    chain = Chain()
    assert chain.stage.tracer is None
    one, two = chain.trace(ALL), chain.trace(ALL)
    chain.tracing.finish(one)
    assert chain.stage.tracer is not None
    chain.tracing.finish(two)
    assert chain.stage.tracer is None
    chain.send(1)
    assert one.take() == two.take() == []
    assert one.ended == "its viewer is gone"


def test_clear_ends_every_trace() -> None:
    chain = Chain()
    traces = [chain.trace(ALL) for _ in range(3)]
    assert chain.tracing.clear() == 3
    assert {each.ended for each in traces} == {"all traces were cleared"}
    assert chain.stage.tracer is None


def test_only_so_many_may_look_at_once() -> None:
    chain = Chain()
    for _ in range(TRACES_MAX):
        chain.trace(ALL)
    with pytest.raises(BadFilter, match="under way already"):
        chain.trace(ALL)


@pytest.mark.parametrize(
    ("wanted", "because"),
    [
        ({}, "would trace everything"),
        ({"paths": ["*"]}, "would trace everything"),
        ({"paths": ["/**"], "types": ["*"]}, "would trace everything"),
        ({"paths": "/a"}, "a list of patterns"),
        ({"paths": [""]}, "a list of patterns"),
        ({"types": [3]}, "a list of patterns"),
        ({"paths": ["/a"], "count": 0}, "count is a number above 0"),
        ({"paths": ["/a"], "count": 10**9}, "at most 100000"),
        ({"paths": ["/a"], "rate": True}, "rate is a number"),
        ({"paths": ["/a"], "seconds": "1"}, "seconds is a number"),
        ({"paths": ["/a"], "seconds": float("nan")}, "seconds is a number"),
    ],
)
def test_a_trace_without_limits_or_filters_is_refused(wanted: dict[str, Any], because: str) -> None:
    with pytest.raises(BadFilter, match=because):
        checked(**wanted)


def test_everything_may_be_asked_for() -> None:
    assert checked(everything=True, count=5) == TraceRequest(everything=True, count=5)


def test_a_trace_that_follows_takes_everything_that_came_of_what_fits() -> None:
    chain = Chain()
    trace = chain.trace(TraceRequest(paths=("/middle",), types=("Pass",), follow=True))
    chain.middle.tell(Pass(1))
    chain.last.tell(Pass(2))
    chain.simulator.settle()
    assert [(each[4], each[5]) for each in trace.take()] == [("", "/middle"), ("/middle", "/last")]


def test_what_was_handled_a_moment_before_belongs_to_it_too() -> None:
    chain = Chain()
    trace = chain.trace(TraceRequest(paths=("/last",), follow=True))
    chain.send(7)
    chain.first.tell(QuietTick())
    chain.simulator.settle()
    records = trace.take()
    assert [each[5] for each in records] == ["/first", "/middle", "/last"]
    assert len({each[3] for each in records}) == 1


def test_what_is_followed_counts_for_the_limits() -> None:
    chain = Chain()
    trace = chain.trace(TraceRequest(paths=("/last",), follow=True, count=2))
    chain.send(1, 2, 3)
    assert len(trace.take()) == 2
    assert trace.ended == "2 messages were traced"


def test_only_so_many_requests_are_followed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.introspection.tracing.FOLLOWED_MAX", 3)
    chain = Chain()
    trace = chain.trace(TraceRequest(paths=("/last",), follow=True, count=1000))
    chain.send(*range(20, 40))
    assert len(trace._followed) == 3
    assert {each[5] for each in trace.take()} == {"/first", "/middle", "/last"}


def test_a_trace_that_follows_goes_on_where_another_trace_continues_it() -> None:
    chain = Chain()
    trace = chain.trace(TraceRequest(paths=("/middle",), types=("Pass",), follow=True))
    chain.middle.tell(Pass(1), trace=501)
    chain.simulator.settle()
    assert chain.stage.linker is not None
    chain.stage.linker(501, 502)
    chain.last.tell(Pass(2), trace=502)
    chain.last.tell(Pass(3), trace=503)
    chain.simulator.settle()
    assert [each[3] for each in trace.take()] == [501, 501, 502]


def test_what_continues_it_is_found_too_when_it_fits_only_later() -> None:
    """501 went on in 502, and 502 in 503, before anything of 501 fitted."""
    chain = Chain()
    trace = chain.trace(TraceRequest(paths=("/middle",), follow=True))
    assert chain.stage.linker is not None
    chain.stage.linker(501, 502)
    chain.last.tell(Pass(2), trace=503)
    chain.stage.linker(502, 503)
    chain.stage.linker(503, 501)  # in a circle: it must end
    chain.simulator.settle()
    assert trace.take() == []
    chain.middle.tell(Pass(1), trace=501)
    chain.simulator.settle()
    assert sorted(each[3] for each in trace.take()) == [501, 501, 503]


def test_nobody_hears_of_what_continues_what_unless_a_trace_follows() -> None:
    chain = Chain()
    chain.stage.linker = None
    looking = chain.trace(ALL)
    assert chain.stage.linker is None
    following = chain.trace(TraceRequest(paths=("/middle",), follow=True))
    assert chain.stage.linker is not None
    following.end("enough")
    chain.stage.linker(1, 2)
    chain.tracing.finish(following)
    assert chain.stage.linker is None
    chain.tracing.finish(looking)


def test_who_looks_at_several_nodes_is_told_where_traces_go_on_and_no_more_than_fits_the_buffer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("runtime.introspection.tracing.BUFFER", 2)
    chain = Chain()
    trace = chain.trace(checked(everything=True, links=True))
    at = chain.stage.read_clock()
    assert chain.stage.linker is not None
    for effect in (2, 3, 4):
        chain.stage.linker(1, effect)
    assert trace.take_links() == [(1, 2, at), (1, 3, at)]
    assert (trace.dropped, trace.taken) == (1, 0)
    trace.end("enough")
    chain.stage.linker(1, 5)
    assert trace.take_links() == []
    chain.tracing.finish(trace)
    assert chain.stage.linker is None
