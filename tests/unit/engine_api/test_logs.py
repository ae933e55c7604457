"""Logs: what is asked of the cluster, and the bytes that come back."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from runtime.engine_api import frames, router
from runtime.engine_api.call import Call, Stream
from runtime.engine_api.errors import ApiError
from runtime.engine_api.routes import logs
from runtime.errors import Code, Refused
from runtime.wire.pb import logs_pb2
from tests.unit.engine_api.fake import FakeBackend
from tests.unit.engine_api.support import ask


def a_line(data: bytes = b"hello\n", stream: int = 1) -> logs_pb2.LogMessage:
    message = logs_pb2.LogMessage(data=data, stream=stream)  # type: ignore[arg-type]
    message.context.service_id, message.context.node_id, message.context.task_id = "s1", "n1", "t1"
    message.timestamp.seconds, message.timestamp.nanos = 1_795_487_427, 5
    message.attrs.add(key="z", value="a b&c")
    message.attrs.add(key="a", value="1")
    return message


def stream_of(backend: FakeBackend, path: str) -> tuple[str, bytes]:
    """Content type and all bytes of a log request."""

    async def run() -> tuple[str, bytes]:
        raw, _, query = path.partition("?")
        version, parts = router.split(raw)
        stream = await router.route("GET", parts)(Call(backend, "GET", parts, query, version=version))
        assert isinstance(stream, Stream)
        return stream.content_type, b"".join([piece async for piece in stream.pieces])

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("text", "tail"), [("", 0), ("all", 0), ("0", -1), ("1", -2), ("100", -101), ("-0", -1), ("9" * 18, -(1 << 31))]
)
def test_a_tail_of_n_lines_is_minus_n_plus_one(text: str, tail: int) -> None:
    assert logs.tail_of(text) == tail


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("zz", 'tail value must be a positive integer or "all"'),
        ("1.5", 'tail value must be a positive integer or "all"'),
        ("-", 'tail value must be a positive integer or "all"'),
        ("²", 'tail value must be a positive integer or "all"'),
        ("9" * 19, 'tail value must be a positive integer or "all"'),
        ("-1", "negative tail values not supported"),
    ],
)
def test_another_tail_is_refused_in_the_engines_words(text: str, sentence: str) -> None:
    with pytest.raises(ApiError) as caught:
        logs.tail_of(text)
    assert (caught.value.status, caught.value.text) == (500, sentence)


@pytest.mark.parametrize(
    ("text", "seconds", "nanos"),
    [("5", 5, 0), ("5.25", 5, 250_000_000), ("1795487427.000000005", 1795487427, 5), ("5.", 5, 0), ("-5", -5, 0),
     ("7.1234567899", 7, 123456789)],
)  # fmt: skip
def test_since_is_unix_seconds_with_a_fraction(text: str, seconds: int, nanos: int) -> None:
    target = Timestamp()
    logs.set_since(target, text)
    assert (target.seconds, target.nanos) == (seconds, nanos)


@pytest.mark.parametrize("text", ["zz", ".5", "-", "1.x", "9" * 13, "1e5", "2026-01-01T00:00:00Z"])
def test_another_since_is_refused(text: str) -> None:
    with pytest.raises(ApiError, match='invalid value for "since": '):
        logs.set_since(Timestamp(), text)


@given(st.text(max_size=12))
def test_any_tail_and_since_are_read_or_refused(text: str) -> None:
    for read in (lambda: logs.tail_of(text), lambda: logs.set_since(Timestamp(), text)):
        try:
            read()
        except ApiError as error:
            assert error.status in (400, 500)


def test_a_frame_is_stream_three_zeros_length_payload() -> None:
    assert frames.frame(2, b"abc") == b"\x02\0\0\0\0\0\0\x03abc"


def test_a_payload_is_timestamp_details_line() -> None:
    stamp = b"2026-11-24T02:30:27.000000005Z"
    details = b"a=1,com.docker.swarm.node.id=n1,com.docker.swarm.service.id=s1,com.docker.swarm.task.id=t1,z=a+b%26c"
    assert frames.payload(a_line(), False, False) == b"hello\n"
    assert frames.payload(a_line(), True, False) == stamp + b" hello\n"
    assert frames.payload(a_line(), False, True) == details + b" hello\n"
    assert frames.payload(a_line(), True, True) == stamp + b" " + details + b" hello\n"


def test_the_cluster_is_asked_for_what_the_query_says() -> None:
    backend = FakeBackend()
    web = backend.add_service("web")
    stream_of(backend, "/services/web/logs?stdout=1&stderr=1&follow=1&tail=10&since=5.5")
    (request,) = backend.log_requests
    assert list(request.selector.service_ids) == [web.id]
    options = request.options
    assert list(options.streams) == [1, 2]
    assert (options.follow, options.tail, options.since.seconds, options.since.nanos) == (True, -11, 5, 500_000_000)


def test_a_tasks_logs_are_asked_for_by_its_id_and_one_stream_alone() -> None:
    backend = FakeBackend()
    made = backend.add_task(backend.add_service("web"))
    stream_of(backend, f"/tasks/{made.id}/logs?stderr=1")
    (request,) = backend.log_requests
    assert (list(request.selector.task_ids), list(request.options.streams)) == ([made.id], [2])
    assert not request.options.HasField("since")


@pytest.mark.parametrize(
    ("version", "tty", "content_type"),
    [
        ("", False, "application/vnd.docker.multiplexed-stream"),
        ("/v1.42", False, "application/vnd.docker.multiplexed-stream"),
        ("/v1.41", False, "application/vnd.docker.raw-stream"),
        ("/v1.42", True, "application/vnd.docker.raw-stream"),
    ],
)
def test_the_content_type_says_whether_there_are_frames(version: str, tty: bool, content_type: str) -> None:
    backend = FakeBackend()
    backend.add_service("web").spec.task.container.tty = tty
    backend.log_batches = [logs_pb2.SubscribeLogsMessage(messages=[a_line(), a_line(b"oops\n", 2)])]
    shown, octets = stream_of(backend, f"{version}/services/web/logs?stdout=1")
    assert shown == content_type
    framed = frames.frame(1, b"hello\n") + frames.frame(2, b"oops\n")
    assert octets == (b"hello\noops\n" if tty else framed)


@pytest.mark.parametrize("tty", [False, True])
def test_a_refusal_within_the_stream_is_told_on_the_daemons_own_stream(tty: bool) -> None:
    backend = FakeBackend()
    backend.add_service("web").spec.task.container.tty = tty
    backend.log_batches = [logs_pb2.SubscribeLogsMessage(messages=[a_line()])]
    backend.log_error = Refused(Code.UNAVAILABLE, "no leader")
    _, octets = stream_of(backend, "/services/web/logs?stdout=1")
    text = b"Error grabbing logs: rpc error: code = Unavailable desc = no leader\n"
    assert octets.endswith(text if tty else struct.pack(">B3xI", 3, len(text)) + text)


def test_the_subscription_is_closed_when_the_reader_stops_early() -> None:
    backend = FakeBackend()
    backend.add_service("web")
    backend.log_batches = [logs_pb2.SubscribeLogsMessage(messages=[a_line()])]
    backend.log_follows = True

    async def run() -> None:
        parts = ["services", "web", "logs"]
        stream: Any = await router.route("GET", parts)(Call(backend, "GET", parts, "stdout=1&follow=1"))
        assert await anext(stream.pieces) == frames.frame(1, b"hello\n")
        await stream.pieces.aclose()
        assert backend.logs_closed.is_set()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/services/web/logs", 400, "must specify at least one of 'stdout' or 'stderr'"),
        ("/services/web/logs?stdout=0&stderr=false", 400, "must specify at least one of 'stdout' or 'stderr'"),
        ("/services/web/logs?stdout=1&tail=zz", 500, 'tail value must be a positive integer or "all"'),
        ("/services/nosuch/logs?stdout=1", 404, "service nosuch not found"),
        ("/tasks/nosuch/logs?stdout=1", 404, "task nosuch not found"),
    ],
)
def test_what_can_be_refused_is_refused_before_the_stream(path: str, status: int, text: str) -> None:
    backend = FakeBackend()
    backend.add_service("web")
    assert ask(backend, "GET", path) == (status, text)
    assert backend.log_requests == []
