"""Uploads whose items are fetched while they are sent, over both transports: order, backpressure, limits, ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtime.errors import Code, Refused
from runtime.wire.pb import logs_pb2
from runtime.wire.port import Call
from runtime.wire.services import path
from tests.unit.wire.authority import authority
from tests.unit.wire.worlds import MemoryWorld, Outcome, Recorder, SocketWorld, World

PUBLISH = path("LogBroker", "PublishLogs")
Item = logs_pb2.PublishLogsMessage
WITHIN = 5.0


@pytest.fixture(params=["memory", "sockets"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made: World = MemoryWorld() if request.param == "memory" else SocketWorld()
    yield made
    made.close()


def sized(size: int) -> Item:
    item = Item()
    item.messages.add(data=bytes(size))
    return item


class Source:
    """Items of one size, and how many of them were fetched."""

    def __init__(self, count: int, size: int = 10) -> None:
        self.count, self.size, self.fetched = count, size, 0

    def __iter__(self) -> Iterator[Item]:
        for _ in range(self.count):
            self.fetched += 1
            yield sized(self.size)


class Sink:
    """Takes an upload and answers it."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.ends: list[Refused | None] = []

    def __call__(self, call: Call) -> None:
        def end(refused: Refused | None) -> None:
            self.ends.append(refused)
            call.reply(logs_pb2.PublishLogsResponse())

        call.receive(lambda item: self.got.append(item.ByteSize()), end)


def begin(world: World, handler: object, source: Iterator[Item], within: float = WITHIN) -> Outcome:
    outcome = Outcome()
    channel = world.connect(world.serve({PUBLISH: handler}), authority().worker())  # type: ignore[dict-item]
    channel.upload_items(PUBLISH, source, item_timeout=within, done=outcome.done)
    return outcome


@pytest.mark.parametrize("count", [0, 1, 100])
def test_all_items_arrive_and_the_answer_comes_back(world: World, count: int) -> None:
    sink = Sink()
    outcome = begin(world, sink, iter(Source(count)))
    world.wait(lambda: outcome.over)
    assert outcome.result == logs_pb2.PublishLogsResponse()
    assert (len(sink.got), sink.ends) == (count, [None])


def test_more_than_any_queue_holds_arrives(world: World) -> None:
    sink, source = Sink(), Source(40, 2 << 20)
    outcome = begin(world, sink, iter(source))
    world.wait(lambda: outcome.over, 60.0)
    assert outcome.result == logs_pb2.PublishLogsResponse()
    assert len(sink.got) == 40
    assert min(sink.got) > 2 << 20


def test_items_are_not_fetched_before_the_receiver_takes_those_that_came(world: World) -> None:
    recorder, source = Recorder(), Source(1000, 1 << 20)
    outcome = begin(world, recorder, iter(source), 60.0)
    world.wait(lambda: bool(recorder.calls))
    world.settle()
    assert source.fetched < 20  # what sockets and windows hold
    sink = Sink()
    sink(recorder.calls[0])
    world.wait(lambda: source.fetched > 100, 60.0)
    recorder.calls[0].fail(Refused(Code.ABORTED, "enough"))
    world.wait(lambda: outcome.over)
    assert outcome.result.code is Code.ABORTED
    world.wait(lambda: bool(sink.ends))
    assert source.fetched < 1000


def test_a_receiver_that_takes_nothing_is_given_up_after_the_time_of_one_item(world: World) -> None:
    recorder, source = Recorder(), Source(1000, 1 << 20)
    outcome = begin(world, recorder, iter(source), 0.5)
    world.wait(lambda: outcome.over, 60.0)
    assert outcome.result.code is Code.DEADLINE_EXCEEDED
    assert source.fetched < 20
    world.wait(lambda: bool(recorder.calls))


def test_an_answer_may_take_as_long_as_all_items_were_allowed_and_no_longer(world: World) -> None:
    ends: list[Refused | None] = []
    outcome = begin(world, lambda call: call.receive(lambda item: None, ends.append), iter(Source(3)), 0.3)
    world.wait(lambda: bool(ends))
    assert ends == [None]
    world.wait(lambda: outcome.over, 60.0)
    assert outcome.result.code is Code.DEADLINE_EXCEEDED


def test_an_upload_that_is_cancelled_fetches_nothing_more_and_ends_for_the_receiver(world: World) -> None:
    sink, source, outcome = Sink(), Source(10_000, 1 << 16), Outcome()
    channel = world.connect(world.serve({PUBLISH: sink}), authority().worker())
    cancel = channel.upload_items(PUBLISH, iter(source), item_timeout=WITHIN, done=outcome.done)
    world.wait(lambda: len(sink.got) > 2)
    cancel()
    world.wait(lambda: outcome.over and bool(sink.ends))
    assert outcome.result.code is Code.CANCELLED
    assert sink.ends[0] is not None
    fetched = source.fetched
    world.settle()
    assert source.fetched == fetched < 10_000


def test_a_refusal_of_the_source_is_the_outcome_and_the_receiver_never_takes_it_for_an_end(world: World) -> None:
    def source() -> Iterator[Item]:
        yield sized(1)
        raise Refused(Code.DATA_LOSS, "half of it is gone")

    sink = Sink()
    outcome = begin(world, sink, source())
    world.wait(lambda: outcome.over and bool(sink.ends))
    assert outcome.result.code is Code.DATA_LOSS
    assert sink.ends[0] is not None


def test_who_cannot_be_reached_is_unavailable_and_nothing_was_fetched_for_it(world: World) -> None:
    server = world.serve({PUBLISH: Sink()})
    channel = world.connect(server, authority().worker())
    server.close(0.0)
    world.settle()
    outcome, source = Outcome(), Source(50, 1 << 20)
    channel.upload_items(PUBLISH, iter(source), item_timeout=WITHIN, done=outcome.done)
    world.wait(lambda: outcome.over, 60.0)
    assert outcome.result.code is Code.UNAVAILABLE
    assert source.fetched <= 1
