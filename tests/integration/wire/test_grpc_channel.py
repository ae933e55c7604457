"""The channel over gRPC's core, against a peer that answers with any bytes: ends of channels and loops, strange
answers, bugs of callbacks, and what it costs in tasks and threads."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import Code, NotSent, Refused
from runtime.wire.grpc_client import options
from runtime.wire.grpc_core import CoreCall, CoreServer
from runtime.wire.grpc_core_client import CoreChannel, CoreClientCall, Status
from runtime.wire.grpc_server import OPTIONS
from runtime.wire.grpc_transport import GrpcTransport
from runtime.wire.loop import IoLoop
from runtime.wire.originate import Originator
from runtime.wire.pb import dispatcher_pb2, logs_pb2
from runtime.wire.port import Channel
from runtime.wire.services import path
from tests.unit.wire.authority import authority
from tests.unit.wire.worlds import Outcome, Recorder, SocketWorld

HEARTBEAT = path("Dispatcher", "Heartbeat")
SESSION = path("Dispatcher", "Session")
PUBLISH = path("LogBroker", "PublishLogs")
Beat = dispatcher_pb2.HeartbeatRequest
LIMIT = 60.0


class Peer:
    """A server that does with each call what the test says, below the port; and a loop with a core's channel to it."""

    def __init__(self, directory: Path) -> None:
        self.serve: Callable[[CoreCall], None] = lambda call: call.receive(lambda _: call.end(b"", int(Code.OK)))
        self.calls: list[CoreCall] = []
        self.closed = threading.Semaphore(0)
        self.address = f"unix:{directory}/peer"
        self.server = CoreServer(OPTIONS, self._begin)
        assert self.server.listen(f"{directory}/peer")
        self.server.start()

    def _begin(self, call: CoreCall) -> None:
        call.on_close(self.closed.release)
        self.calls.append(call)
        self.serve(call)

    def answers(self, payload: bytes | None, code: int = 0, text: str = "") -> None:
        """What each call is answered with from now on."""
        self.serve = lambda call: call.receive(lambda _: call.end(payload, code, text))

    def stop(self) -> None:
        over = threading.Event()
        self.server.stop(over.set)
        self.server.cancel_calls()
        assert over.wait(LIMIT)
        self.server.join()


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    made = Peer(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def channel(world: SocketWorld, peer: Peer) -> Channel:
    return world.transport("client").connect(peer.address, None)


def ask(world: SocketWorld, channel: Channel) -> Any:
    return world.ask(channel, HEARTBEAT, Beat(), timeout=LIMIT)


def stream(channel: Channel, outcome: Outcome) -> Callable[[], None]:
    return channel.stream(SESSION, dispatcher_pb2.SessionRequest(), on_item=outcome.item, on_end=outcome.done)


def on_loop(world: SocketWorld, work: Callable[[], Any]) -> Any:
    """What ``work`` returns on the loop's thread."""
    done, result = threading.Event(), []

    def run() -> None:
        result.append(work())
        done.set()

    world.io.call_soon(run)
    assert done.wait(LIMIT)
    return result[0]


def test_an_answer_that_is_no_message_is_an_error_and_the_next_call_is_answered(
    world: SocketWorld, peer: Peer, channel: Channel
) -> None:
    peer.answers(b"\xff\xff")
    refused = ask(world, channel)
    assert (refused.code, "not a valid message" in refused.text) == (Code.INTERNAL, True)
    peer.answers(None)
    assert ask(world, channel).code in (Code.INTERNAL, Code.UNIMPLEMENTED)  # newer cores refuse it themselves
    peer.answers(b"")
    assert ask(world, channel) == dispatcher_pb2.HeartbeatResponse()


def test_an_item_that_is_no_message_ends_the_stream_for_both(world: SocketWorld, peer: Peer, channel: Channel) -> None:
    outcome = Outcome()
    peer.serve = lambda call: call.receive(lambda _: call.send(b"\xff\xff", lambda _: None))
    stream(channel, outcome)
    world.wait(lambda: outcome.over)
    assert outcome.result.code is Code.INTERNAL
    assert peer.closed.acquire(timeout=LIMIT)


def test_a_code_that_there_is_not_is_unknown(world: SocketWorld, peer: Peer, channel: Channel) -> None:
    peer.answers(None, 99, "strange")
    assert (ask(world, channel).code, ask(world, channel).text) == (Code.UNKNOWN, "strange")


def test_a_refusal_without_words_is_named_by_its_code(world: SocketWorld, peer: Peer, channel: Channel) -> None:
    peer.answers(None, int(Code.NOT_FOUND))
    assert ask(world, channel).text == Code.NOT_FOUND.title


@pytest.mark.parametrize("metadata", [(("UPPER", "x"),), (("key", "line\nbreak"),)])
def test_metadata_that_no_header_can_hold_fails_its_call_alone(
    world: SocketWorld, channel: Channel, metadata: tuple[tuple[str, str]]
) -> None:
    asked, streamed, uploaded, poured = outcomes = [Outcome() for _ in range(4)]
    items = iter([logs_pb2.PublishLogsMessage()] * 3)
    channel.unary(HEARTBEAT, Beat(), timeout=LIMIT, done=asked.done, metadata=metadata)
    channel.stream(
        SESSION, dispatcher_pb2.SessionRequest(), on_item=streamed.item, on_end=streamed.done, metadata=metadata
    )
    channel.upload(PUBLISH, done=uploaded.done, metadata=metadata).send(logs_pb2.PublishLogsMessage())
    channel.upload_items(PUBLISH, items, item_timeout=LIMIT, done=poured.done, metadata=metadata)
    world.wait(lambda: all(outcome.over for outcome in outcomes))
    assert {outcome.result.code for outcome in outcomes} == {Code.INTERNAL}
    assert ask(world, channel) == dispatcher_pb2.HeartbeatResponse()


def test_metadata_that_are_no_text_fail_their_call_alone(
    world: SocketWorld, channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    refused = world.ask(channel, HEARTBEAT, Beat(), metadata=((1, "x"),))
    assert (refused.code, f"the call of {HEARTBEAT} failed with" in refused.text) == (Code.INTERNAL, True)
    assert f"a call of {HEARTBEAT} failed" in caplog.text
    assert ask(world, channel) == dispatcher_pb2.HeartbeatResponse()


def test_a_bug_of_who_is_told_ends_neither_the_channel_nor_the_loop(
    world: SocketWorld, channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    told = threading.Event()

    def fail(_: object) -> None:
        told.set()
        raise ValueError("a bug")

    channel.unary(HEARTBEAT, Beat(), timeout=LIMIT, done=fail)
    assert told.wait(LIMIT)
    assert ask(world, channel) == dispatcher_pb2.HeartbeatResponse()
    assert "a callback of a gRPC call failed" in caplog.text


def test_calls_are_no_tasks_and_neither_calls_nor_channels_have_threads(world: SocketWorld, peer: Peer) -> None:
    peer.serve = lambda call: None
    transport = world.transport("client")
    first = Outcome()
    stream(transport.connect(peer.address, None), first)
    world.wait(lambda: len(peer.calls) == 1)
    threads = set(threading.enumerate())
    outcomes = [Outcome() for _ in range(100)]
    channels = [transport.connect(peer.address, None) for _ in range(10)]
    for number, outcome in enumerate(outcomes):
        stream(channels[number % 10], outcome)
    world.wait(lambda: len(peer.calls) == 101)
    assert [each.name for each in threading.enumerate() if each not in threads] == []
    tasks = on_loop(world, lambda: len(asyncio.all_tasks()))
    assert tasks == 11  # a channel's life each
    for each in channels:
        each.close()
    world.wait(lambda: all(outcome.over for outcome in outcomes))
    assert {outcome.result.code for outcome in outcomes} == {Code.CANCELLED}
    world.wait(lambda: on_loop(world, lambda: len(asyncio.all_tasks())) == 1)
    assert not first.over


def test_calls_come_from_any_thread(world: SocketWorld, channel: Channel) -> None:
    outcomes = [Outcome() for _ in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for outcome in outcomes:
            pool.submit(channel.unary, HEARTBEAT, Beat(), timeout=LIMIT, done=outcome.done)
    world.wait(lambda: all(outcome.over for outcome in outcomes), LIMIT)
    assert all(outcome.result == dispatcher_pb2.HeartbeatResponse() for outcome in outcomes)


def test_a_call_that_is_cancelled_while_the_channel_opens_was_not_sent(world: SocketWorld) -> None:
    asked, streamed = Outcome(), Outcome()
    server = world.serve({HEARTBEAT: Recorder()})
    channel = world.connect(server, authority().worker())
    hold, held = threading.Event(), threading.Event()

    def rest() -> None:
        held.set()
        hold.wait(LIMIT)

    world.io.call_soon(rest)
    assert held.wait(LIMIT)  # all that follows is one turn of the loop
    channel.unary(HEARTBEAT, Beat(), timeout=LIMIT, done=asked.done)()
    stream(channel, streamed)()
    hold.set()
    world.wait(lambda: asked.over and streamed.over)
    assert [(type(each.result), each.result.code) for each in (asked, streamed)] == [(NotSent, Code.CANCELLED)] * 2


def test_a_channel_that_cannot_be_opened_says_so_and_opens_when_it_can(
    world: SocketWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    channel = world.connect(world.serve({HEARTBEAT: Recorder()}), authority().worker())

    async def fail(_: Originator) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(Originator, "start", fail)
        refused = world.ask(channel, HEARTBEAT, Beat())
    assert (type(refused), refused.code) == (NotSent, Code.INTERNAL)
    assert refused.text == "no channel could be opened: Too many open files"
    assert "no channel could be opened" in caplog.text
    outcome = Outcome()
    channel.unary(HEARTBEAT, Beat(), timeout=0.2, done=outcome.done)
    world.wait(lambda: outcome.over)
    assert outcome.result.code is Code.DEADLINE_EXCEEDED  # it has arrived: nobody answers there


def test_a_channel_may_be_closed_before_it_was_used_and_from_a_callback_of_its_own(
    world: SocketWorld, peer: Peer, channel: Channel
) -> None:
    unused = world.transport("client").connect(peer.address, None)
    unused.close()
    assert ask(world, unused).code is Code.CANCELLED
    told = threading.Event()

    def close(_: object) -> None:
        channel.close()
        told.set()

    channel.unary(HEARTBEAT, Beat(), timeout=LIMIT, done=close)
    assert told.wait(LIMIT)
    world.wait(lambda: ask(world, channel).code is Code.CANCELLED)


def test_the_end_of_a_loop_ends_what_is_under_way_and_what_comes_later_hears_of_it(peer: Peer) -> None:
    peer.serve = lambda call: None
    io = IoLoop("ending").start()
    channel = GrpcTransport(io).connect(peer.address, None)
    outcomes = [Outcome() for _ in range(4)]
    stream(channel, outcomes[0])
    channel.unary(HEARTBEAT, Beat(), timeout=LIMIT, done=outcomes[1].done)
    channel.upload(PUBLISH, done=outcomes[2].done).send(logs_pb2.PublishLogsMessage())
    items = iter([logs_pb2.PublishLogsMessage()])
    channel.upload_items(PUBLISH, items, item_timeout=LIMIT, done=outcomes[3].done)
    for _ in range(4):
        while len(peer.calls) < 4:
            assert not any(outcome.over for outcome in outcomes)
    io.stop()
    assert {outcome.result.code for outcome in outcomes} == {Code.CANCELLED}
    late = Outcome()
    cancel = channel.unary(HEARTBEAT, Beat(), timeout=LIMIT, done=late.done)
    assert (late.result.code, late.result.text) == (Code.CANCELLED, "the I/O loop has stopped")
    cancel()
    channel.close()


def core_call(world: SocketWorld, peer: Peer) -> tuple[CoreChannel, CoreClientCall]:
    def make() -> tuple[CoreChannel, CoreClientCall]:
        made = CoreChannel(peer.address, options("localhost"))
        return made, made.call(PUBLISH, LIMIT)

    made: tuple[CoreChannel, CoreClientCall] = on_loop(world, make)
    return made


def test_what_is_sent_behind_the_end_of_a_call_is_reported_as_not_sent(world: SocketWorld, peer: Peer) -> None:
    peer.serve = lambda call: call.end(b"early", int(Code.OK))
    core, call = core_call(world, peer)
    told: list[Any] = []
    on_loop(world, lambda: call.upload((), lambda answer, status: told.append((answer, status))))
    world.wait(lambda: bool(told))
    assert told == [(b"early", Status(Code.OK, ""))]
    on_loop(world, lambda: call.send(b"late", told.append))
    on_loop(world, lambda: call.receive(told.append))
    world.wait(lambda: len(told) == 3)
    assert told[1:] == [False, None]
    on_loop(world, call.cancel)
    on_loop(world, core.close)


def test_a_call_that_nobody_holds_any_more_is_still_reported(world: SocketWorld, peer: Peer) -> None:
    peer.serve = lambda call: None
    core, call = core_call(world, peer)
    told: list[Any] = []

    on_loop(world, functools.partial(call.ask, b"", (), lambda answer, status: told.append((answer, status.code))))
    world.wait(lambda: len(peer.calls) == 1)
    del call
    gc.collect()
    peer.calls.pop().end(b"answer", int(Code.OK))
    world.wait(lambda: bool(told))
    assert told == [(b"answer", Code.OK)]
    on_loop(world, core.close)


def test_channels_log_nothing_where_nothing_is_wrong(
    world: SocketWorld, channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        outcome = Outcome()
        upload = channel.upload(PUBLISH, done=outcome.done)
        upload.finish()
        upload.finish()
        world.wait(lambda: outcome.over)
        assert outcome.result == logs_pb2.PublishLogsResponse()
        assert not upload.send(logs_pb2.PublishLogsMessage())
        upload.cancel()
        channel.close()
        world.settle()
    assert isinstance(ask(world, channel), Refused)
    assert [record for record in caplog.records if record.name == "swarmlet.wire"] == []
