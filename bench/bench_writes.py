"""Writes a second through store, consensus and LevelDB on this machine's disk, with a number of writers at a time.

python bench/bench_writes.py [SECONDS] [WRITERS] [DIRECTORY]
"""

from __future__ import annotations

import pathlib
import sys
import tempfile
import threading
import time
from typing import Any

from actors.raft_actor import RaftActor
from actors.store_actor import StoreActor
from runtime.disk.real import RealDisk
from runtime.protocol.raft import RaftSetup, RaftStatus
from runtime.protocol.store import Write
from runtime.stage import Actor, Stage, World, handles
from runtime.stage.answers import Answer, Reply
from runtime.store.view import Published
from runtime.wire.pb import objects_pb2 as pb


class Above(Actor):
    """Starts store and consensus and says when they lead."""

    def __init__(self, published: Published, leads: threading.Event) -> None:
        super().__init__()
        self.published, self.leads = published, leads

    def started(self) -> None:
        store = self.spawn("store", StoreActor, self.below("raft"), self.published)
        self.spawn("raft", RaftActor, RaftSetup("n", "127.0.0.1:2377", (bytes(32),)), store, self.published)

    @handles(RaftStatus)
    def status(self, message: RaftStatus) -> None:
        """Sets the event once this node leads."""
        if message.leading:
            self.leads.set()


def creating(number: int) -> Any:
    """A transaction that makes one service."""

    def run(tx: Any) -> None:
        service = pb.Service(id=f"s{number:09}")
        service.spec.annotations.name = service.id
        service.spec.task.container.image = "host"
        tx.create(service)

    return run


def main(seconds: float, writers: int, directory: str) -> None:
    """Keeps ``writers`` writes under way for ``seconds`` and prints what came of it."""
    published, leads = Published(), threading.Event()
    stage = Stage(World("bench", disk=RealDisk(pathlib.Path(directory))))
    stage.mount("manager", Above, published, leads)
    leads.wait(30)
    store = stage.at("/manager/store")
    count, latencies, stop = [0], [], time.perf_counter() + seconds
    done = threading.Semaphore(0)

    def start() -> None:
        count[0] += 1
        begun = time.perf_counter()

        def answered(answer: Answer) -> None:
            answer.get()
            now = time.perf_counter()
            latencies.append(now - begun)
            if now < stop:
                start()
            else:
                done.release()

        store.send(Write(creating(count[0])), None, Reply(answered), 0)

    begun = time.perf_counter()
    for _ in range(writers):
        start()
    for _ in range(writers):
        done.acquire()
    took = time.perf_counter() - begun
    latencies.sort()
    middle, high = latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100]
    rate = len(latencies) / took
    print(f"{rate:,.0f} writes/s with {writers} at a time; p50 {middle * 1e3:.2f} ms, p99 {high * 1e3:.2f} ms")
    stage.close()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory(dir=arguments[2] if len(arguments) > 2 else None) as scratch:
        main(float(arguments[0]) if arguments else 5.0, int(arguments[1]) if len(arguments) > 1 else 64, scratch)
