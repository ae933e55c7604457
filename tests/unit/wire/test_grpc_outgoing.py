"""Calls that go out, over a core that does what the test says: orders that sockets show once in a thousand runs."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.message import Message

from runtime.errors import Code, NotSent, Refused
from runtime.wire.grpc_core_client import Status
from runtime.wire.grpc_outgoing import Items, Outgoing, Request
from runtime.wire.grpc_upload import Pour, Queued
from runtime.wire.pb import dispatcher_pb2, logs_pb2
from runtime.wire.port import DEFAULT_LIMITS
from runtime.wire.services import path

HEARTBEAT = path("Dispatcher", "Heartbeat")
SESSION = path("Dispatcher", "Session")
PUBLISH = path("LogBroker", "PublishLogs")
Beat = dispatcher_pb2.HeartbeatRequest
Item = logs_pb2.PublishLogsMessage
GOOD = Status(Code.OK, "")
BROKEN_OFF = Status(Code.CANCELLED, "broken off")
UNREADABLE = b"\xff\xff"


class FakeCall:
    """A call of gRPC's core, which reports when the test says so."""

    def __init__(self, path: str, timeout: float | None) -> None:
        self.path, self.timeout = path, timeout
        self.over: Callable[..., None]
        self.receiving: list[Callable[[bytes | None], None]] = []
        self.sending: list[Callable[[bool], None]] = []
        self.sent: list[bytes] = []
        self.metadata: Any = None
        self.finished = 0
        self.cancelled = 0

    def ask(self, request: bytes, metadata: Any, over: Callable[..., None]) -> None:
        self.sent.append(request)
        self.metadata, self.over = metadata, over

    request = ask

    def upload(self, metadata: Any, over: Callable[..., None]) -> None:
        self.metadata, self.over = metadata, over

    def receive(self, done: Callable[[bytes | None], None]) -> None:
        assert not self.receiving, "a second receive while one is under way"
        self.receiving.append(done)

    def send(self, message: bytes, done: Callable[[bool], None]) -> None:
        assert not self.sending, "a second send while one is under way"
        assert not self.finished, "a send behind the end"
        self.sent.append(message)
        self.sending.append(done)

    def finish(self) -> None:
        self.finished += 1

    def cancel(self) -> None:
        self.cancelled += 1

    def deliver(self, payload: bytes | None) -> None:
        self.receiving.pop()(payload)

    def let_go(self, good: bool = True) -> None:
        self.sending.pop()(good)


class FakeChannel:
    """Makes one call."""

    def __init__(self, error: Exception | None = None) -> None:
        self.made: list[FakeCall] = []
        self._error = error

    def call(self, path: str, timeout: float | None) -> Any:
        if self._error is not None:
            raise self._error
        self.made.append(FakeCall(path, timeout))
        return self.made[-1]


class Begun:
    """A call that has begun, its core and what it reported."""

    def __init__(self, call: Outgoing, reports: list[Any], error: Exception | None = None) -> None:
        self.call, self.reports = call, reports
        self.gone: list[Outgoing] = []
        call.explain = lambda status, reason: reason or Refused(status.code, status.details)
        call.gone = self.gone.append
        channel: Any = FakeChannel(error)
        call.begin(channel)
        self.core: FakeCall = channel.made[0] if channel.made else FakeCall("", None)

    @property
    def outcome(self) -> Any:
        (outcome,) = self.reports
        assert self.gone == [self.call]
        assert self.call.over
        return outcome


def request(error: Exception | None = None) -> Begun:
    reports: list[Any] = []
    return Begun(Request(HEARTBEAT, Beat(session_id="s"), 5.0, (("k", "v"),), reports.append), reports, error)


def items(got: list[Message], on_item: Callable[[Message], None] | None = None) -> Begun:
    reports: list[Any] = []
    call = Items(SESSION, dispatcher_pb2.SessionRequest(), (), on_item or got.append, reports.append)
    return Begun(call, reports)


def queued(*put: Item) -> tuple[Queued, Begun]:
    reports: list[Any] = []
    call = Queued(PUBLISH, None, (), reports.append)
    for item in put:
        assert call.put(item)
    return call, Begun(call, reports)


def named(name: str) -> Item:
    return Item(subscription_id=name)


def session(name: str) -> bytes:
    return dispatcher_pb2.SessionMessage(session_id=name).SerializeToString()


def test_a_request_is_asked_whole_and_its_answer_reported_once() -> None:
    begun = request()
    assert (begun.core.path, begun.core.timeout, begun.core.metadata) == (HEARTBEAT, 5.0, (("k", "v"),))
    assert begun.core.sent == [Beat(session_id="s").SerializeToString()]
    begun.core.over(b"", GOOD)
    begun.core.over(b"", GOOD)
    assert begun.outcome == dispatcher_pb2.HeartbeatResponse()


def test_an_answer_that_crosses_a_cancel_is_the_outcome_and_a_refusal_is_not() -> None:
    for status, crossed in ((GOOD, True), (Status(Code.NOT_FOUND, "gone"), False), (BROKEN_OFF, False)):
        begun = request()
        begun.call.cancel()
        begun.call.cancel()
        assert begun.reports == []
        begun.core.over(b"", status)
        if crossed:
            assert begun.outcome == dispatcher_pb2.HeartbeatResponse()
        else:
            assert begun.outcome.code is Code.CANCELLED
        begun.call.cancel()
        assert begun.core.cancelled == 2
        assert len(begun.reports) == 1


@pytest.mark.parametrize(("payload", "words"), [(UNREADABLE, "not a valid message"), (None, "without an answer")])
def test_a_good_end_with_no_answer_that_can_be_read_is_an_error(payload: bytes | None, words: str) -> None:
    begun = request()
    begun.core.over(payload, GOOD)
    assert begun.outcome.code is Code.INTERNAL
    assert words in begun.outcome.text


def test_what_cannot_be_begun_is_reported_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    begun = request(ValueError("a secret"))
    assert (begun.outcome.code, "a secret" in begun.outcome.text) == (Code.INTERNAL, False)
    assert f"a call of {HEARTBEAT} failed" in caplog.text


def test_a_call_that_is_cancelled_before_it_sets_out_was_not_sent() -> None:
    reports: list[Any] = []
    call = Request(HEARTBEAT, Beat(), 5.0, (), reports.append)
    call.cancel()
    assert (type(reports[0]), reports[0].code) == (NotSent, Code.CANCELLED)


def test_the_end_of_a_stream_is_reported_behind_its_items_in_whatever_order_they_are_told() -> None:
    got: list[Message] = []
    begun = items(got)
    begun.core.over(GOOD)
    begun.core.deliver(session("1"))
    begun.core.deliver(session("2"))
    assert begun.reports == []
    begun.core.deliver(None)
    assert begun.outcome is None
    assert got == [dispatcher_pb2.SessionMessage(session_id=name) for name in "12"]

    begun = items(got)
    begun.core.deliver(None)
    assert begun.reports == []
    begun.core.over(Status(Code.ABORTED, "stopping"))
    assert begun.outcome.code is Code.ABORTED


def test_of_a_stream_that_was_cancelled_no_item_is_delivered() -> None:
    got: list[Message] = []
    begun = items(got)
    begun.call.cancel()
    begun.core.deliver(session("late"))
    begun.core.over(GOOD)
    assert begun.outcome.code is Code.CANCELLED
    assert (got, begun.core.receiving) == ([], [])


def test_an_item_that_cannot_be_read_ends_its_stream_even_if_the_peer_ended_it_well() -> None:
    got: list[Message] = []
    begun = items(got)
    begun.core.deliver(UNREADABLE)
    assert begun.core.cancelled == 1
    begun.core.deliver(session("behind it"))
    begun.core.over(GOOD)
    assert begun.outcome.code is Code.INTERNAL
    assert got == []


def test_a_bug_of_whoever_takes_items_ends_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Message) -> None:
        raise KeyError("a secret")

    begun = items([], fail)
    begun.core.deliver(session("1"))
    begun.core.deliver(None)
    begun.core.over(BROKEN_OFF)
    assert (begun.outcome.code, begun.outcome.text) == (Code.INTERNAL, f"the call of {SESSION} failed with KeyError")
    assert f"a call of {SESSION} failed" in caplog.text


def test_queued_items_go_out_one_behind_the_other_and_then_the_end() -> None:
    call, begun = queued(named("1"), named("2"))
    assert len(begun.core.sent) == 1
    call.look()
    assert len(begun.core.sent) == 1
    begun.core.let_go()
    assert call.put(named("3"))
    call.finish()
    assert not call.put(named("4"))
    call.look()
    begun.core.let_go()
    assert (len(begun.core.sent), begun.core.finished) == (3, 0)
    begun.core.let_go()
    call.look()
    assert begun.core.sent == [named(name).SerializeToString() for name in "123"]
    assert begun.core.finished == 1
    begun.core.over(None, GOOD)
    assert begun.outcome == logs_pb2.PublishLogsResponse()
    assert not call.put(named("5"))


def test_what_cannot_be_sent_is_the_last_that_is_tried_and_the_peer_tells_why() -> None:
    call, begun = queued(named("1"), named("2"))
    begun.core.let_go(False)
    call.look()
    assert (len(begun.core.sent), begun.reports) == (1, [])
    begun.core.over(None, Status(Code.NOT_FOUND, "raft: member was removed"))
    assert begun.outcome.text == "raft: member was removed"
    call.look()  # it is over: nothing


def test_a_call_that_is_over_keeps_nothing_of_what_it_was_to_send() -> None:
    asked, (call, sent) = request(), queued(named("1"), named("2"))
    asked.core.over(b"", GOOD)
    sent.core.over(b"", GOOD)
    assert (asked.call._payload, len(call._queue)) == (b"", 0)  # type: ignore[attr-defined]

    def run() -> None:
        class Source:
            def __iter__(self) -> Source:
                return self

            def __next__(self) -> Item:
                return named("again")

        source = Source()
        poured, gone = Poured(source), weakref.ref(source)
        del source
        poured.begun.core.over(b"", GOOD)
        assert gone() is None

    on_a_loop(run)


@pytest.mark.parametrize("size", [0, DEFAULT_LIMITS.bytes_max // 4])
def test_a_queue_that_is_too_long_or_too_heavy_fails_though_an_item_is_stuck(size: int) -> None:
    call, begun = queued(named("stuck"))
    item = Item()
    item.messages.add(data=bytes(size))
    taken = 0
    while call.put(item):
        taken += 1
    assert taken == (DEFAULT_LIMITS.items_max if not size else 3)
    assert not call.put(Item())
    call.look()
    assert begun.core.cancelled == 1
    begun.core.over(None, BROKEN_OFF)
    assert begun.outcome.code is Code.RESOURCE_EXHAUSTED


class Poured:
    """A pour on a loop of the test's own, whose time stands still: what is late is said by ``late``."""

    def __init__(self, source: Iterator[Item]) -> None:
        self.reports: list[Any] = []
        self.call = Pour(PUBLISH, source, 2.0, (), self.reports.append)
        self.begun = Begun(self.call, self.reports)

    def limit(self) -> float:
        """Seconds that the next step has."""
        timer = self.call._timer
        assert timer is not None
        return timer.when() - asyncio.get_running_loop().time()


def on_a_loop(test: Callable[[], None]) -> None:
    async def run() -> None:
        test()

    asyncio.run(run())


def test_an_item_is_fetched_when_the_one_before_it_is_on_its_way() -> None:
    fetched: list[str] = []

    def source() -> Iterator[Item]:
        for name in "123":
            fetched.append(name)
            yield named(name)

    def run() -> None:
        poured = Poured(source())
        for count in (1, 2, 3):
            assert len(fetched) == count
            assert 1.0 < poured.limit() <= 2.0
            poured.begun.core.let_go()
        assert poured.begun.core.finished == 1
        assert 5.0 < poured.limit() <= 6.0  # as long as all items were allowed
        poured.begun.core.over(b"", GOOD)
        assert poured.begun.outcome == logs_pb2.PublishLogsResponse()
        assert poured.call._timer is None

    on_a_loop(run)


def test_a_step_that_is_late_is_past_its_deadline() -> None:
    def run() -> None:
        poured = Poured(iter([named("1"), named("2")]))
        poured.call._late()
        assert poured.begun.core.cancelled == 1
        poured.begun.core.let_go(False)
        poured.begun.core.over(None, BROKEN_OFF)
        assert poured.begun.outcome.code is Code.DEADLINE_EXCEEDED
        assert len(poured.begun.core.sent) == 1

    on_a_loop(run)


@pytest.mark.parametrize(
    ("error", "code"), [(Refused(Code.DATA_LOSS, "half of it"), Code.DATA_LOSS), (OSError("disk"), Code.INTERNAL)]
)
def test_a_source_that_fails_breaks_the_call_off(error: Exception, code: Code) -> None:
    def source() -> Iterator[Item]:
        yield named("1")
        raise error

    def run() -> None:
        poured = Poured(source())
        poured.begun.core.let_go()
        assert (poured.begun.core.cancelled, poured.begun.core.finished) == (1, 0)
        poured.begun.core.over(None, BROKEN_OFF)
        assert poured.begun.outcome.code is code

    on_a_loop(run)


def test_nothing_is_fetched_after_a_cancel_or_an_early_answer() -> None:
    def run() -> None:
        for early in (True, False):
            source = iter([named("1"), named("2")])
            poured = Poured(source)
            if early:
                poured.begun.core.over(b"", GOOD)
            else:
                poured.call.cancel()
            poured.begun.core.let_go()
            assert next(source) == named("2")
            assert len(poured.begun.core.sent) == 1

    on_a_loop(run)
