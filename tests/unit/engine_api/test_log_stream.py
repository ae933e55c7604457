"""A subscription as an iterator: order, ends, slow readers, and the call that is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from runtime.engine_api import log_stream
from runtime.engine_api.questions import Landing
from runtime.errors import Code, Refused
from runtime.wire.grpc_transport import GrpcTransport
from runtime.wire.loop import IoLoop
from runtime.wire.pb import logs_pb2
from runtime.wire.port import Access, Call, Channel
from runtime.wire.services import routes

REQUEST = logs_pb2.SubscribeLogsRequest(selector=logs_pb2.LogSelector(service_ids=["s"]))


def batch(data: bytes) -> logs_pb2.SubscribeLogsMessage:
    return logs_pb2.SubscribeLogsMessage(messages=[logs_pb2.LogMessage(data=data)])


def data_of(message: logs_pb2.SubscribeLogsMessage) -> bytes:
    return message.messages[0].data


class FakeChannel:
    """One stream that the test feeds."""

    def __init__(self) -> None:
        self.method = ""
        self.request: Any = None
        self.on_item: Any = None
        self.on_end: Any = None
        self.cancelled = 0

    def stream(self, method: str, request: Any, *, on_item: Any, on_end: Any, metadata: Any = ()) -> Callable[[], None]:
        self.method, self.request, self.on_item, self.on_end = method, request, on_item, on_end

        def cancel() -> None:
            self.cancelled += 1

        return cancel


def with_a_channel(talk: Callable[[Any, Landing], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        await asyncio.wait_for(talk(FakeChannel(), Landing(asyncio.get_running_loop())), 10)

    asyncio.run(run())


async def everything(batches: Any) -> list[bytes]:
    return [data_of(message) async for message in batches]


def test_batches_come_in_order_and_the_end_ends_the_iterator() -> None:
    async def talk(channel: Any, landing: Landing) -> None:
        reading = asyncio.ensure_future(everything(log_stream.subscribe(channel, landing, REQUEST)))
        await asyncio.sleep(0)
        assert (channel.method, channel.request) == ("/docker.swarmkit.v1.Logs/SubscribeLogs", REQUEST)
        for data in (b"1", b"2", b"3"):
            channel.on_item(batch(data))
        channel.on_end(None)
        assert await reading == [b"1", b"2", b"3"]
        assert channel.cancelled == 1

    with_a_channel(talk)


def test_what_came_before_a_refusal_is_read_before_it_is_raised() -> None:
    async def talk(channel: Any, landing: Landing) -> None:
        batches: Any = log_stream.subscribe(channel, landing, REQUEST)
        first = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        channel.on_item(batch(b"1"))
        channel.on_end(Refused(Code.UNAVAILABLE, "the broker stopped"))
        assert data_of(await first) == b"1"
        with pytest.raises(Refused, match="the broker stopped"):
            await anext(batches)

    with_a_channel(talk)


def test_whoever_stops_reading_cancels_the_call_once() -> None:
    async def talk(channel: Any, landing: Landing) -> None:
        batches: Any = log_stream.subscribe(channel, landing, REQUEST)
        first = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        channel.on_item(batch(b"1"))
        await first
        await batches.aclose()
        assert channel.cancelled == 1
        channel.on_item(batch(b"late"))
        channel.on_end(Refused(Code.CANCELLED, "cancelled"))
        await asyncio.sleep(0)

    with_a_channel(talk)


def test_a_reader_that_is_cancelled_while_it_waits_cancels_the_call() -> None:
    async def talk(channel: Any, landing: Landing) -> None:
        reading = asyncio.ensure_future(everything(log_stream.subscribe(channel, landing, REQUEST)))
        await asyncio.sleep(0)
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        assert channel.cancelled == 1

    with_a_channel(talk)


def test_what_waits_for_a_slow_reader_is_bounded_and_the_reader_is_told() -> None:
    async def talk(channel: Any, landing: Landing) -> None:
        batches: Any = log_stream.subscribe(channel, landing, REQUEST, bytes_max=100)
        first = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        for number in range(5):
            channel.on_item(batch(bytes([number]) * 60))
        read = [data_of(await first)[0]]
        read.append(data_of(await anext(batches))[0])
        with pytest.raises(Refused) as caught:
            await anext(batches)
        assert read == [0, 1]
        assert caught.value.code is Code.RESOURCE_EXHAUSTED
        assert caught.value.text == "more than 100 bytes of logs wait for a slow reader"
        assert channel.cancelled == 1

    with_a_channel(talk)


def test_a_reader_that_keeps_up_may_read_any_amount() -> None:
    async def talk(channel: Any, landing: Landing) -> None:
        batches: Any = log_stream.subscribe(channel, landing, REQUEST, bytes_max=100)
        for number in range(50):
            coming = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0)
            channel.on_item(batch(bytes([number]) * 90))
            assert data_of(await coming)[0] == number
        await batches.aclose()

    with_a_channel(talk)


class Broker:
    """The Logs service of a manager, over a real control socket."""

    def __init__(self, follows: bool) -> None:
        self.follows = follows
        self.gone = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def __call__(self, call: Call) -> None:
        call.on_cancel(self._cancelled)
        for number in range(3):
            call.send(batch(b"line %d\n" % number))
        if not self.follows:
            call.fail(Refused(Code.INTERNAL, "warning: incomplete log stream"))

    def _cancelled(self) -> None:
        self.loop.call_soon_threadsafe(self.gone.set)


@pytest.mark.parametrize("follows", [False, True])
def test_logs_come_over_a_control_socket(tmp_path: pathlib.Path, follows: bool) -> None:
    async def talk(channel: Channel, broker: Broker) -> None:
        batches: Any = log_stream.subscribe(channel, Landing(asyncio.get_running_loop()), REQUEST)
        assert [data_of(await anext(batches)) for _ in range(3)] == [b"line 0\n", b"line 1\n", b"line 2\n"]
        if follows:
            await batches.aclose()
            await broker.gone.wait()
        else:
            with pytest.raises(Refused, match="incomplete log stream"):
                await anext(batches)

    async def run() -> None:
        broker = Broker(follows)
        with IoLoop("test-logs") as io:
            transport = GrpcTransport(io)
            address = f"unix:{tmp_path}/control.sock"
            server = transport.serve(address, routes({log_stream.SUBSCRIBE: broker}), access=Access)
            channel = transport.connect(address, None)
            await asyncio.wait_for(talk(channel, broker), 10)
            channel.close()
            server.close(0.0)
            await asyncio.to_thread(transport.close)

    asyncio.run(run())
