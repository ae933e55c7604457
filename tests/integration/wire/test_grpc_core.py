"""The server over gRPC's core, called by gRPC's own synchronous client: ends, refusals, callbacks that fail."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from runtime.errors import Code
from runtime.wire.authorise import Peer
from runtime.wire.grpc_core import CoreCall, CoreServer
from runtime.wire.grpc_server import OPTIONS, Service
from runtime.wire.pb import dispatcher_pb2
from runtime.wire.port import DEFAULT_LIMITS, MANAGER, Access, Call, Identity
from runtime.wire.services import path, routes
from tests.unit.wire.authority import CLUSTER

HEARTBEAT = path("Dispatcher", "Heartbeat")
LIMIT = 60.0


class Served:
    """A server at a unix socket, a channel to it, and the calls that it was given."""

    def __init__(self, socket: Path) -> None:
        self.calls: list[CoreCall] = []
        self.arrived = threading.Semaphore(0)
        self.over = threading.Event()
        self.fails = False
        self.server = CoreServer(OPTIONS, self.begin)
        assert self.server.listen(str(socket))
        self.server.start()
        self.channel = grpc.insecure_channel(f"unix:{socket}")

    def begin(self, call: CoreCall) -> None:
        if self.fails:
            self.fails = False
            self.raise_bug(call)
        call.on_close(lambda: None)
        self.calls.append(call)
        self.arrived.release()

    def raise_bug(self, _: Any) -> None:
        raise ValueError("a bug")

    def ask(self, method: str = "/x/y") -> Any:
        return self.channel.unary_unary(method).future(b"question", timeout=LIMIT)

    def stop(self) -> None:
        self.server.stop(self.over.set)
        self.server.cancel_calls()
        assert self.over.wait(LIMIT)
        self.server.join()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path / "s")
    yield made
    if not made.over.is_set():
        made.stop()
    made.channel.close()


def test_a_call_is_received_and_answered(served: Served) -> None:
    answer = served.ask()
    assert served.arrived.acquire(timeout=LIMIT)
    call = served.calls[0]
    assert (call.method, call.peer.split(":")[0]) == ("/x/y", "unix")
    call.receive(lambda payload: call.end(payload, int(Code.OK)))
    assert answer.result() == b"question"


def test_a_refusal_has_its_code_and_its_text(served: Served) -> None:
    answer = served.ask()
    assert served.arrived.acquire(timeout=LIMIT)
    served.calls[0].end(None, int(Code.NOT_FOUND), "no such töwn")
    error = answer.exception()
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such töwn")


def test_messages_of_a_stream_go_out_one_behind_the_other(served: Served) -> None:
    items = served.channel.unary_stream("/x/y")(b"", timeout=LIMIT)
    assert served.arrived.acquire(timeout=LIMIT)
    call = served.calls[0]
    left = [b"%d" % number for number in range(100)]

    def next_(event: Any) -> None:
        if left:
            call.send(left.pop(0), next_)
        else:
            call.end(None, int(Code.OK))

    call.send(left.pop(0), next_)
    assert list(items) == [b"%d" % number for number in range(100)]


def test_a_bug_ends_neither_the_thread_nor_other_calls(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    served.fails = True
    assert served.ask().exception().code() is grpc.StatusCode.INTERNAL
    answer = served.ask()
    assert served.arrived.acquire(timeout=LIMIT)
    call = served.calls[0]
    call.send_metadata(served.raise_bug)
    with pytest.raises(RuntimeError, match="gRPC takes no such operations now"):
        call.on_close(lambda: None)  # a second time
    call.end(b"answer", int(Code.OK))
    assert answer.result() == b"answer"
    served.stop()  # everything was reported
    assert "a call of /x/y could not be begun" in caplog.text
    assert "a callback of a gRPC server failed" in caplog.text


def test_an_end_waits_for_calls_and_cancels_them_when_told_to(served: Served) -> None:
    answer = served.ask()
    assert served.arrived.acquire(timeout=LIMIT)
    served.server.stop(served.over.set)
    assert not served.over.wait(0.05)
    served.server.cancel_calls()
    assert served.over.wait(LIMIT)
    served.server.join()
    assert answer.exception().code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)


def test_nothing_is_started_once_the_server_is_over(served: Served) -> None:
    answer = served.ask()
    assert served.arrived.acquire(timeout=LIMIT)
    served.stop()
    told: list[Any] = []
    call = served.calls[0]
    call.receive(told.append)
    call.send(b"late", told.append)
    call.end(b"late", int(Code.OK))
    served.server.cancel_calls()
    assert told == []
    assert answer.exception().code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)


def test_calls_are_answered_from_any_thread(served: Served) -> None:
    answers = [served.ask() for _ in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for number in range(200):
            assert served.arrived.acquire(timeout=LIMIT)
            pool.submit(served.calls[number].end, b"%d" % number, int(Code.OK))
    assert sorted(int(answer.result()) for answer in answers) == list(range(200))


def test_a_caller_that_ends_without_its_request_is_refused(tmp_path: Path) -> None:
    seen: list[Call] = []
    local = Identity("n", MANAGER, CLUSTER, local=True)
    service = Service(
        routes({HEARTBEAT: seen.append}),
        lambda: Access(CLUSTER, local=local),
        DEFAULT_LIMITS,
        lambda _: Peer(None, "", local=True),
    )
    server, over = CoreServer(OPTIONS, service.begin), threading.Event()
    assert server.listen(str(tmp_path / "s"))
    server.start()
    with grpc.insecure_channel(f"unix:{tmp_path / 's'}") as channel:
        with pytest.raises(grpc.RpcError) as error:
            channel.stream_unary(HEARTBEAT)(iter(()), timeout=LIMIT)
        assert error.value.code() is grpc.StatusCode.INTERNAL
        request = dispatcher_pb2.HeartbeatRequest(session_id="s").SerializeToString()
        asked = channel.unary_unary(HEARTBEAT).future(request, timeout=LIMIT)
        while not seen:
            assert not asked.done()
        seen[0].reply(dispatcher_pb2.HeartbeatResponse())
        assert asked.result() == b""
    server.stop(over.set)
    assert over.wait(LIMIT)
    server.join()
    assert (len(seen), service.open_calls) == (1, 0)
