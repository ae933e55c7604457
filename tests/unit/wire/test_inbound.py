"""The server's side of a call: one ending, bounds, and who hears of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import Code, Refused
from runtime.wire.inbound import Ending, InboundCall
from runtime.wire.pb import dispatcher_pb2, logs_pb2
from runtime.wire.port import Identity, StreamLimits
from runtime.wire.services import METHODS, path

HEARTBEAT, SESSION, PUBLISH = (
    path("Dispatcher", "Heartbeat"),
    path("Dispatcher", "Session"),
    path("LogBroker", "PublishLogs"),
)
Item = dispatcher_pb2.SessionMessage


def make(method: str, limits: StreamLimits | None = None) -> tuple[InboundCall, list[bool]]:
    wakes: list[bool] = []
    known = METHODS[method]
    request = None if known.client_streaming else known.request()
    call = InboundCall(known, request, Identity(), {}, limits or StreamLimits(), lambda: wakes.append(True))
    return call, wakes


def drain(call: InboundCall) -> list[Any]:
    """Everything that waits for the caller, the ending once."""
    pieces: list[Any] = []
    while (piece := call.take()) is not None:
        pieces.append(piece)
        if isinstance(piece, Ending):
            break
    return pieces


def test_a_reply_is_the_message_and_a_good_end() -> None:
    call, wakes = make(HEARTBEAT)
    answer = dispatcher_pb2.HeartbeatResponse()
    answer.period.seconds = 5
    assert call.reply(answer)
    assert wakes == [True]
    assert drain(call) == [answer.SerializeToString(), Ending(None)]
    assert drain(call) == [Ending(None)]


def test_a_refusal_drops_nothing_that_was_sent() -> None:
    call, _ = make(SESSION)
    assert call.send(Item(session_id="a"))
    refused = Refused(Code.ABORTED, "stop")
    assert call.fail(refused)
    assert drain(call) == [Item(session_id="a").SerializeToString(), Ending(refused)]


def test_a_cancel_drops_what_waits_and_is_told_once() -> None:
    call, _ = make(SESSION)
    told: list[str] = []
    call.on_cancel(lambda: told.append("one"))
    call.on_cancel(lambda: told.append("two"))
    call.send(Item())
    call.cancelled()
    call.cancelled()
    assert told == ["one", "two"]
    (ending,) = drain(call)
    assert ending.refused.code is Code.CANCELLED
    assert not call.send(Item())
    assert not call.end()
    assert not call.fail(Refused(Code.ABORTED, ""))


def test_a_call_that_was_answered_is_not_cancelled_any_more() -> None:
    call, _ = make(HEARTBEAT)
    told: list[bool] = []
    call.on_cancel(lambda: told.append(True))
    call.reply(dispatcher_pb2.HeartbeatResponse())
    call.cancelled()
    call.on_cancel(lambda: told.append(True))
    assert told == []
    assert call.over


def test_items_beyond_the_bound_end_the_stream() -> None:
    call, _ = make(SESSION, StreamLimits(items_max=3, bytes_max=1 << 20))
    told: list[bool] = []
    call.on_cancel(lambda: told.append(True))
    assert [call.send(Item()) for _ in range(5)] == [True, True, True, False, False]
    (ending,) = drain(call)
    assert ending.refused.code is Code.RESOURCE_EXHAUSTED
    assert "3 messages wait" in ending.refused.text
    assert told == [True]


def test_bytes_beyond_the_bound_end_the_stream_but_one_large_item_always_fits() -> None:
    call, _ = make(SESSION, StreamLimits(items_max=100, bytes_max=1000))
    assert call.send(Item(RootCA=b"x" * 5000))
    assert isinstance(call.take(), bytes)
    assert call.send(Item(RootCA=b"x" * 600))
    assert not call.send(Item(RootCA=b"x" * 600))


@given(st.lists(st.one_of(st.integers(0, 400), st.none()), max_size=60))
def test_what_waits_never_passes_the_bounds(steps: list[int | None]) -> None:
    """A size is a send, None a take."""
    limits = StreamLimits(items_max=5, bytes_max=800)
    call, _ = make(SESSION, limits)
    waiting: list[int] = []
    for step in steps:
        if step is None:
            piece = call.take()
            if isinstance(piece, bytes):
                assert len(piece) == waiting.pop(0)
            continue
        item = Item(RootCA=b"x" * step)
        size = item.ByteSize()
        fits = not waiting or (len(waiting) < 5 and sum(waiting) + size <= 800)
        if call.over:
            fits, waiting = False, []
        assert call.send(item) == fits
        waiting = [*waiting, size] if fits else []


def test_pushing_from_many_threads_loses_nothing() -> None:
    call, _ = make(SESSION, StreamLimits(items_max=10_000))
    threads = [threading.Thread(target=lambda: [call.send(Item(session_id="x")) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    call.end()
    assert len(drain(call)) == 2001


def test_each_kind_of_call_has_its_own_answers() -> None:
    unary, _ = make(HEARTBEAT)
    stream, _ = make(SESSION)
    upload, _ = make(PUBLISH)
    for wrong in (lambda: unary.send(Item()), unary.end, lambda: stream.reply(Item())):
        with pytest.raises(RuntimeError, match="Dispatcher"):
            wrong()
    with pytest.raises(RuntimeError, match="no upload"):
        unary.receive(lambda _: None, lambda _: None)
    with pytest.raises(RuntimeError, match="by receive"):
        _ = upload.request


def test_a_receiver_that_crashes_fails_the_call_and_gives_nothing_away(caplog: pytest.LogCaptureFixture) -> None:
    call, _ = make(PUBLISH)
    ends: list[Refused | None] = []

    def crash(_: object) -> None:
        raise ValueError("secret")

    call.receive(crash, ends.append)
    assert call.receiver is not None
    call.receiver.item(logs_pb2.PublishLogsMessage())
    (ending,) = drain(call)
    assert ending.refused.code is Code.INTERNAL
    assert "ValueError" in ending.refused.text
    assert "secret" not in ending.refused.text
    call.receiver.end(None)
    call.receiver.end(ending.refused)
    call.receiver.item(logs_pb2.PublishLogsMessage())
    assert ends == [None]
    assert caplog.records
