"""Figures of the Engine API: ``python -m bench.bench_engine_api [profile]``. Prints, asserts nothing.

A server with a real ``ClusterBackend`` over an actor on a thread of its own that answers at once, and, in a process of
its own, clients that keep their connections and send the next request when the answer has come. The server's CPU time
(its event loop and the actor's thread) says what one core can do, whatever else the machine is doing.
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import pstats
import sys
import tempfile
import time
from typing import Any

from runtime.engine_api.backend import SystemInfo
from runtime.engine_api.cluster_backend import ClusterBackend
from runtime.engine_api.server import EngineServer
from runtime.protocol import cluster as say
from runtime.stage import Actor, Policy, Stage, handles
from runtime.wire.pb import control_pb2, objects_pb2
from tests.unit.engine_api import recorded

CLIENTS = 64
REQUESTS = 12_000
SERVICE = "s" * 25


class InstantCluster(Actor):
    """Answers as soon as it can."""

    policy = Policy(own_thread=True)

    def __init__(self) -> None:
        super().__init__()
        self.service = objects_pb2.Service(id=SERVICE)
        self.service.spec.annotations.name = "web"
        self.service.spec.task.container.image = "busybox:latest"
        self.service.spec.replicated.replicas = 3

    @handles(say.Control)
    def control(self, message: say.Control) -> Any:
        if message.method == "CreateService":
            return control_pb2.CreateServiceResponse(service=self.service)
        return control_pb2.GetServiceResponse(service=self.service)


def requests() -> dict[str, bytes]:
    """What is measured, as bytes on the wire."""
    body = json.dumps(recorded.CLI_CREATE).encode()
    head = "Host: api.moby.localhost\r\nUser-Agent: Docker-Client/28.2.2 (linux)\r\n"
    create = f"POST /v1.45/services/create HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n"
    return {
        "POST /services/create": create.encode() + b"Content-Type: application/json\r\n\r\n" + body,
        "GET /services/{id}": f"GET /v1.45/services/{SERVICE} HTTP/1.1\r\n{head}\r\n".encode(),
        "GET /nosuch": f"GET /nosuch HTTP/1.1\r\n{head}\r\n".encode(),
    }


async def drive(path: str, request: bytes, clients: int, count: int) -> None:
    """The clients: each sends ``count / clients`` requests, one after the other."""
    latencies: list[float] = []

    async def one() -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        for _ in range(count // clients):
            begun = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            start = head.lower().index(b"content-length:") + 15
            await reader.readexactly(int(head[start : head.index(b"\r\n", start)]))
            latencies.append(time.perf_counter() - begun)
        writer.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    latencies.sort()
    median, late = latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100]
    print(f"latency median {median * 1e3:.2f} ms, p99 {late * 1e3:.2f} ms")


async def client(path: str, name: str, clients: int, count: int) -> str:
    """Runs ``drive`` in a process of its own; what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.bench_engine_api", "drive", path, name, str(clients), str(count), stdout=-1
    )
    out, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"the clients failed: {process.returncode}")
    return out.decode().strip()


async def measure(path: str, profile: bool) -> None:
    """One line a request; with ``profile`` where the event loop's time of creates goes."""
    await client(path, "GET /nosuch", CLIENTS, 640)
    for name in requests():
        for clients in (1, CLIENTS):
            begun, cpu = time.perf_counter(), time.process_time()
            told = await client(path, name, clients, REQUESTS // (8 if clients == 1 else 1))
            count = REQUESTS // (8 if clients == 1 else 1) // clients * clients
            cpu, took = time.process_time() - cpu, time.perf_counter() - begun
            print(
                f"{name:24} {clients:3} clients: {cpu / count * 1e6:6.1f} us of CPU a request = {count / cpu:6.0f}/s "
                f"a core; {count / took:6.0f}/s with the start of the clients; {told}"
            )
    if profile:
        profiler = cProfile.Profile()
        profiler.enable()
        await client(path, "POST /services/create", CLIENTS, REQUESTS)
        profiler.disable()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(45)


async def serve(profile: bool) -> None:
    """The server's process."""
    stage = Stage()
    cluster = stage.mount("cluster", InstantCluster)
    system = SystemInfo("bench", 1, 0, "0", "/", "process")
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/api.sock"
        transport: Any = None  # logs are not measured
        server = EngineServer(ClusterBackend(cluster, transport, "", lambda: system), unix_paths=[path])
        await server.start()
        try:
            await measure(path, profile)
        finally:
            await server.stop()
    stage.close()


if __name__ == "__main__":
    if sys.argv[1:2] == ["drive"]:
        asyncio.run(drive(sys.argv[2], requests()[sys.argv[3]], int(sys.argv[4]), int(sys.argv[5])))
    else:
        asyncio.run(serve(sys.argv[1:] == ["profile"]))
