"""Figures of the wire: ``python -m bench.bench_wire``. Prints, asserts nothing.

Measured through the whole way: client, outbound splice, mutual TLS on loopback, front, server, handler, and back,
both ends in one process on one I/O loop; so a request costs here what two processes would share.
"""

from __future__ import annotations

import os
import resource
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from runtime.errors import Refused
from runtime.wire.grpc_transport import GrpcTransport
from runtime.wire.loop import IoLoop
from runtime.wire.pb import dispatcher_pb2
from runtime.wire.port import Access, Call, Channel
from runtime.wire.services import path, routes
from tests.unit.wire.authority import CLUSTER, authority
from tests.unit.wire.worlds import MemoryWorld

HEARTBEAT, SESSION = path("Dispatcher", "Heartbeat"), path("Dispatcher", "Session")
UNARY_CALLS = 2000
PARALLEL = 64
PARALLEL_CALLS = 6000
IDLE_STREAMS = 500
STREAM_ITEMS = 20_000


def beat(call: Call) -> None:
    """The cheapest handler there is."""
    call.reply(dispatcher_pb2.HeartbeatResponse())


def rss_mb() -> float:
    """Resident memory of this process now, in MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def cpu() -> float:
    """CPU seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def good(result: Message | Refused | None) -> None:
    """Figures over failed calls would be none."""
    if isinstance(result, Refused):
        raise SystemExit(f"a call failed: {result}")


def one_at_a_time(channel: Channel) -> list[float]:
    """Latencies in seconds, of one call after the other."""
    times = []
    for _ in range(UNARY_CALLS):
        answered = threading.Event()

        def done(result: Message | Refused, answered: threading.Event = answered) -> None:
            good(result)
            answered.set()

        start = time.perf_counter()
        channel.unary(HEARTBEAT, dispatcher_pb2.HeartbeatRequest(), timeout=10.0, done=done)
        answered.wait()
        times.append(time.perf_counter() - start)
    return times


def many_at_a_time(channel: Channel) -> float:
    """Calls a second with ``PARALLEL`` under way."""
    room, left, finished = threading.Semaphore(PARALLEL), [PARALLEL_CALLS], threading.Event()

    def done(result: Message | Refused) -> None:
        good(result)
        left[0] -= 1
        room.release()
        if not left[0]:
            finished.set()

    start = time.perf_counter()
    for _ in range(PARALLEL_CALLS):
        room.acquire()
        channel.unary(HEARTBEAT, dispatcher_pb2.HeartbeatRequest(), timeout=30.0, done=done)
    finished.wait()
    return PARALLEL_CALLS / (time.perf_counter() - start)


def latencies(label: str, times: list[float]) -> None:
    """One line of figures."""
    cuts = statistics.quantiles(times, n=100)
    print(f"{label:<44} p50 {cuts[49] * 1e3:6.2f} ms   p99 {cuts[98] * 1e3:6.2f} ms")


def stream_items(channel: Channel, sessions: list[Call]) -> float:
    """Items a second over one stream, sent as fast as the reader lets."""
    known, got, finished = len(sessions), [0], threading.Event()

    def item(_: Message) -> None:
        got[0] += 1
        if got[0] == STREAM_ITEMS:
            finished.set()

    channel.stream(SESSION, dispatcher_pb2.SessionRequest(), on_item=item, on_end=lambda _: None)
    wait_for(lambda: len(sessions) > known)
    message = dispatcher_pb2.SessionMessage(session_id="s" * 25)
    start = time.perf_counter()
    for number in range(STREAM_ITEMS):
        while number - got[0] > 2000:
            time.sleep(0.0005)
        sessions[known].send(message)
    finished.wait()
    return STREAM_ITEMS / (time.perf_counter() - start)


def wait_for(condition: Callable[[], bool]) -> None:
    """Until a condition holds."""
    while not condition():
        time.sleep(0.005)


def sockets() -> None:
    """The figures over TLS."""
    sessions: list[Call] = []
    credentials = authority().manager()
    with IoLoop() as io:
        transport = GrpcTransport(io)
        handlers = routes({HEARTBEAT: beat, SESSION: sessions.append})
        server = transport.serve("127.0.0.1:0", handlers, access=lambda: Access(CLUSTER), credentials=credentials)

        def connect() -> Channel:
            return transport.connect(server.address, authority().worker())

        channel = connect()
        one_at_a_time(channel)
        latencies("unary, one at a time", one_at_a_time(channel))
        before = cpu()
        rate = many_at_a_time(channel)
        each = (cpu() - before) / PARALLEL_CALLS
        label = f"unary, {PARALLEL} at a time on one connection"
        print(f"{label:<44} {rate:7.0f} a second, {each * 1e6:.0f} us CPU each")
        print(f"{'items of one stream':<44} {stream_items(channel, sessions):7.0f} a second")
        idle(connect, channel, sessions)
        start = time.perf_counter()
        transport.close()
        print(f"{'closing all of it':<44} {time.perf_counter() - start:7.2f} s")


def idle(connect: Callable[[], Channel], busy: Channel, sessions: list[Call]) -> None:
    """Streams that say nothing, each on a TLS connection of its own."""
    known, memory, start = len(sessions), rss_mb(), time.perf_counter()
    for _ in range(IDLE_STREAMS):
        connect().stream(SESSION, dispatcher_pb2.SessionRequest(), on_item=_nothing, on_end=_nothing)
    wait_for(lambda: len(sessions) >= known + IDLE_STREAMS)
    seconds, grown = time.perf_counter() - start, rss_mb() - memory
    label = f"{IDLE_STREAMS} idle streams, a connection each"
    print(f"{label:<44} {seconds:7.2f} s to open, {grown:.0f} MiB for both ends, {threading.active_count()} threads")
    latencies("unary beside them", one_at_a_time(busy))


def _nothing(_: Any) -> None:
    """An item that nobody sends, an end that is wanted."""


def memory() -> None:
    """The in-memory twin: what a simulation can do."""
    world = MemoryWorld()
    channel = world.connect(world.serve({HEARTBEAT: beat}), authority().worker())
    world.ask(channel, HEARTBEAT, dispatcher_pb2.HeartbeatRequest())
    start, calls = time.perf_counter(), 20_000
    for _ in range(calls):
        channel.unary(HEARTBEAT, dispatcher_pb2.HeartbeatRequest(), timeout=5.0, done=good)
    world.time.run(10.0)
    print(f"{'unary in memory, under virtual time':<44} {calls / (time.perf_counter() - start):7.0f} a second")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    sockets()
    memory()
