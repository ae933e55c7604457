"""A container engine that is none: a real HTTP server over a unix socket, with the answers of a real one, that keeps a
table of containers and fails as it is told.

Its containers outlive it (``down`` and ``up`` are a restart of the engine that leaves them be). What a container does
is the test's to say: ``exit``, ``health``, ``write``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import struct
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from runtime.wire.loop import IoLoop

STAMP = "2026-01-02T03:04:{:02d}.{:09d}Z"


@dataclass
class Trouble:
    """What befalls requests whose method and path hold ``where``: a status, a cut connection, or a wait."""

    where: str
    times: int
    status: int = 0
    text: str = ""
    hold: threading.Event | None = None
    after: bool = False  # the request was carried out, only its answer is lost
    met: threading.Event = field(default_factory=threading.Event)


@dataclass
class Container:
    """One of the table."""

    id: str
    name: str
    body: dict[str, Any]
    status: str = "created"
    exit_code: int = 0
    error: str = ""
    health: str = ""
    starts: int = 0
    signals: list[str] = field(default_factory=list)
    joined: dict[str, Any] = field(default_factory=dict)
    lines: list[tuple[int, str, bytes]] = field(default_factory=list)
    ports: dict[str, Any] = field(default_factory=dict)

    @property
    def networks(self) -> set[str]:
        return {str(self.body["HostConfig"].get("NetworkMode")), *self.joined}

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.body.get("Labels") or {})


class FakeEngine:
    """``images``: the names that are here; ``registry``: those that can be pulled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images = {"busybox:latest"}
        self.registry: set[str] = set()
        self.containers: dict[str, Container] = {}
        self.requests: list[str] = []
        self.auth: list[str] = []
        self.info: dict[str, Any] = {"Architecture": "x86_64", "OSType": "linux", "NCPU": 4, "MemTotal": 8 << 30}
        self.info["Plugins"] = {"Volume": ["local"], "Network": ["bridge", "host"], "Log": ["json-file"]}
        self.version: dict[str, Any] = {"Version": "99.1", "Components": [{"Name": "Engine"}]}
        self.api = "1.41"
        self.followers = 0
        self.podman_finds = "healthy"
        self.networks: dict[str, dict[str, Any]] = {}
        self._troubles: list[Trouble] = []
        self._numbers = itertools.count(1)
        self._ports = itertools.count(49153)
        self._loop = IoLoop("fake-engine").start()
        self._listeners: set[asyncio.Queue[dict[str, Any] | None]] = set()
        self._wakes: set[asyncio.Event] = set()
        self._runner: web.AppRunner | None = None
        self.is_down = False
        self.run(self._listen())

    # The engine's life

    def up(self) -> None:
        """It answers again."""
        self.is_down = False

    def down(self) -> None:
        """Every connection is cut, and each new one once something is asked; its containers run on. (It goes on
        listening: asyncio forgets, and does not close, a connection that is taken while its server is closed.)"""
        self.is_down = True
        self.run(self._cut_all())

    async def _cut_all(self) -> None:
        assert self._runner is not None
        assert self._runner.server is not None
        for listener in self._listeners:
            listener.put_nowait(None)
        for wake in self._wakes:
            wake.set()
        for connection in self._runner.server.connections:
            connection.force_close()
            if connection.transport is not None:
                connection.transport.abort()

    async def _listen(self) -> None:
        app = web.Application(middlewares=[self._middleware])
        for method, path, handler in (
            ("GET", "/_ping", self._ping), ("GET", "/info", self._info), ("GET", "/version", self._version),
            ("GET", "/plugins", self._plugins), ("GET", "/events", self._events),
            ("GET", "/containers/json", self._list), ("POST", "/containers/create", self._create),
            ("GET", "/containers/{id}/json", self._inspect), ("POST", "/containers/{id}/start", self._start),
            ("POST", "/containers/{id}/stop", self._stop), ("POST", "/containers/{id}/kill", self._kill),
            ("GET", "/containers/{id}/top", self._top), ("GET", "/containers/{id}/stats", self._stats),
            ("DELETE", "/containers/{id}", self._remove), ("GET", "/containers/{id}/logs", self._logs),
            ("GET", "/libpod/containers/{id}/healthcheck", self._check),
            ("POST", "/networks/create", self._make_network), ("GET", "/networks/{id}", self._network),
            ("POST", "/networks/{id}/connect", self._connect), ("DELETE", "/networks/{id}", self._remove_network),
            ("GET", "/images/{name}/json", self._image), ("POST", "/images/create", self._pull),
        ):  # fmt: skip
            app.router.add_route(method, path, handler)
            app.router.add_route(method, "/v{version}" + path, handler)
        self._runner = web.AppRunner(app, shutdown_timeout=0.0)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.path)).start()

    def close(self) -> None:
        """It is gone."""
        for trouble in self._troubles:
            if trouble.hold is not None:
                trouble.hold.set()
        self.run(self._close())
        self._loop.stop()

    async def _close(self) -> None:
        self.is_down = True
        await self._cut_all()
        assert self._runner is not None
        await self._runner.cleanup()

    def run(self, work: Any) -> Any:
        """A coroutine on the engine's own loop."""
        return self.run_on(self._loop, work)

    @staticmethod
    def run_on(loop: IoLoop, work: Any) -> Any:
        """What a coroutine returns, or raises, on a loop."""
        told: list[Any] = []
        over = threading.Event()

        def ended(result: Any) -> None:
            told.append(result)
            over.set()

        loop.submit(work, ended)
        assert over.wait(60)
        if isinstance(told[0], BaseException):
            raise told[0]
        return told[0]

    # What a test says

    def fail(self, where: str, status: int, text: str, times: int = 1) -> Trouble:
        """The next requests are refused."""
        return self._trouble(Trouble(where, times, status, text))

    def cut(self, where: str, times: int = 1, *, after: bool = False) -> Trouble:
        """The connections of the next requests are cut; with ``after``, they were carried out."""
        return self._trouble(Trouble(where, times, after=after))

    def hold(self, where: str, times: int = 1, *, after: bool = False) -> Trouble:
        """The next requests wait until their ``hold`` is set."""
        return self._trouble(Trouble(where, times, hold=threading.Event(), after=after))

    def _trouble(self, trouble: Trouble) -> Trouble:
        self._troubles.append(trouble)
        return trouble

    def of(self, task_id: str) -> Container:
        """The container of a task."""
        (found,) = [each for each in self.containers.values() if each.labels.get("com.docker.swarm.task.id") == task_id]
        return found

    def count(self, text: str) -> int:
        """How many requests there were whose method and path end so."""
        return sum(request.endswith(text) for request in self.requests)

    def looks(self, task_id: str) -> int:
        """How often a task's container was inspected."""
        return self.count(f"/{self.of(task_id).id}/json")

    def exit(self, task_id: str, code: int = 0) -> None:
        """A container ends by itself."""
        self.run(self._exit(self.of(task_id), code))

    async def _exit(self, container: Container, code: int) -> None:
        container.status, container.exit_code = "exited", code
        self._say(container, "die")
        self._wake()

    def health(self, task_id: str, status: str) -> None:
        """Its health is found to be another."""

        async def change() -> None:
            container = self.of(task_id)
            container.health = status
            self._say(container, f"health_status: {status}")

        self.run(change())

    def write(self, task_id: str, text: str, stream: int = 1, stamp: str = "") -> None:
        """A container writes a piece."""

        async def add() -> None:
            lines = self.of(task_id).lines
            lines.append((stream, stamp or STAMP.format(len(lines) // 60, len(lines)), text.encode()))
            self._wake()

        self.run(add())

    def _wake(self) -> None:
        for wake in self._wakes:
            wake.set()

    def _say(self, container: Container, action: str) -> None:
        attributes = {**container.labels, "name": container.name}
        event = {"Type": "container", "Action": action, "Actor": {"ID": container.id, "Attributes": attributes}}
        for listener in self._listeners:
            listener.put_nowait(event)

    # What it answers

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        path = (
            request.path.partition("/v1")[2].partition("/")[2] if request.path.startswith("/v1") else request.path[1:]
        )
        asked = f"{request.method} /{path}"
        if self.is_down:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        self.requests.append(asked)
        trouble = next((each for each in self._troubles if each.where in asked and each.times), None)
        if trouble is None:
            return await handler(request)  # type: ignore[no-any-return]
        trouble.times -= 1
        answer = await handler(request) if trouble.after else None
        trouble.met.set()
        if trouble.status:
            return web.json_response({"message": trouble.text}, status=trouble.status)
        if trouble.hold is not None:
            await asyncio.get_running_loop().run_in_executor(None, trouble.hold.wait, 20)
            return answer or await handler(request)
        assert request.transport is not None
        request.transport.abort()
        return answer or web.Response()

    async def _ping(self, request: web.Request) -> web.Response:
        return web.Response(text="OK", headers={"Api-Version": self.api})

    async def _info(self, request: web.Request) -> web.Response:
        return web.json_response(self.info)

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response(self.version)

    async def _plugins(self, request: web.Request) -> web.Response:
        return web.json_response([])

    async def _events(self, request: web.Request) -> web.StreamResponse:
        filters = json.loads(request.query["filters"])
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        response = web.StreamResponse()
        await response.prepare(request)
        self._listeners.add(queue)
        self.followers += 1
        try:
            with contextlib.suppress(ConnectionError):
                while (event := await queue.get()) is not None:
                    if _labelled(event["Actor"]["Attributes"], filters.get("label", ())):
                        await response.write(json.dumps(event).encode() + b"\n")
        finally:
            self._listeners.discard(queue)
            self.followers -= 1
        return response

    async def _list(self, request: web.Request) -> web.Response:
        filters = json.loads(request.query.get("filters", "{}"))
        wanted, networks = filters.get("label", ()), filters.get("network")
        return web.json_response(
            [
                {"Id": each.id, "Names": [f"/{each.name}"], "State": each.status, "Labels": each.labels}
                for each in self.containers.values()
                if _labelled(each.labels, wanted) and (networks is None or each.networks.intersection(networks))
            ]
        )

    async def _create(self, request: web.Request) -> web.Response:
        name, body = request.query["name"], await request.json()
        if body["Image"] not in self.images:
            return web.json_response({"message": f"No such image: {body['Image']}"}, status=404)
        other = next((each for each in self.containers.values() if each.name == name), None)
        if other is not None:
            text = f'Conflict. The container name "/{name}" is already in use by container "{other.id}".'
            return web.json_response({"message": text}, status=409)
        for mount in body["HostConfig"].get("Mounts") or ():
            if mount["Type"] == "bind" and not os.path.exists(mount["Source"]):  # noqa: ASYNC240 - a fake may block
                text = f'invalid mount config for type "bind": bind source path does not exist: {mount["Source"]}'
                return web.json_response({"message": text}, status=400)
        identity = hashlib.sha256(str(next(self._numbers)).encode()).hexdigest()
        container = self.containers[identity] = Container(identity, name, body)
        for key, bound in (body["HostConfig"].get("PortBindings") or {}).items():
            container.ports[key] = [
                {"HostIp": host, "HostPort": number}
                for number in [each["HostPort"] or str(next(self._ports)) for each in bound]
                for host in ("0.0.0.0", "::")
            ]
        self._say(container, "create")
        return web.json_response({"Id": identity, "Warnings": []}, status=201)

    def _find(self, request: web.Request) -> Container:
        term = request.match_info["id"]
        for each in self.containers.values():
            if term in (each.id, each.name):
                return each
        raise web.HTTPNotFound(text=json.dumps({"message": f"No such container: {term}"}))

    async def _inspect(self, request: web.Request) -> web.Response:
        each = self._find(request)
        running = each.status == "running"
        state: dict[str, Any] = {"Status": each.status, "Running": running, "Pid": 4711 if running else 0}
        state.update(ExitCode=each.exit_code, Error=each.error)
        if each.health:
            state["Health"] = {"Status": each.health}
        ports = each.ports if running else {}
        config = {key: value for key, value in each.body.items() if key != "HostConfig"}
        found = {"Id": each.id, "Name": f"/{each.name}", "State": state, "Config": config}
        return web.json_response({**found, "NetworkSettings": {"Ports": ports}})

    async def _start(self, request: web.Request) -> web.Response:
        container = self._find(request)
        if container.status == "running":
            return web.Response(status=304)
        if (container.body.get("Entrypoint") or container.body.get("Cmd") or [""])[0] == "missing":
            container.exit_code = 127
            return web.json_response({"message": 'exec: "missing": executable file not found in $PATH'}, status=400)
        container.starts += 1
        container.status, container.exit_code = "running", 0
        if container.body.get("Healthcheck"):
            container.health = "starting"
        self._say(container, "start")
        self._wake()
        return web.Response(status=204)

    async def _stop(self, request: web.Request) -> web.Response:
        container = self._find(request)
        if container.status != "running":
            return web.Response(status=304)
        self._say(container, "kill")
        await self._exit(container, 143)
        return web.Response(status=204)

    async def _kill(self, request: web.Request) -> web.Response:
        container = self._find(request)
        if container.status != "running":
            return web.json_response({"message": f"Container {container.id} is not running"}, status=409)
        signal = request.query.get("signal", "KILL")
        if signal in ("KILL", "9"):
            await self._exit(container, 137)
        else:
            container.signals.append(signal)
        return web.Response(status=204)

    async def _top(self, request: web.Request) -> web.Response:
        container = self._find(request)
        if container.status != "running":
            return web.json_response({"message": f"Container {container.id} is not running"}, status=409)
        if "bad" in request.query["ps_args"]:
            return web.json_response({"message": "ps: exit status 1"}, status=500)
        return web.json_response({"Titles": ["PID", "CMD"], "Processes": [["1", request.query["ps_args"]]]})

    async def _check(self, request: web.Request) -> web.Response:
        container = self._find(request)
        container.health = self.podman_finds
        return web.json_response({"Status": container.health})

    async def _stats(self, request: web.Request) -> web.Response:
        self._find(request)
        return web.json_response({"read": "now", "cpu_stats": {"x": 1}, "precpu_stats": {}, "name": "/web"})

    async def _remove(self, request: web.Request) -> web.Response:
        container = self._find(request)
        del self.containers[container.id]
        self._say(container, "destroy")
        self._wake()
        return web.Response(status=204)

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        container, query = self._find(request), request.query
        follow, since = query.get("follow") == "1", _since(query.get("since", "0"))
        wanted = [stream for stream, name in ((1, "stdout"), (2, "stderr")) if query.get(name) == "1"]
        response, wake = web.StreamResponse(), asyncio.Event()
        await response.prepare(request)
        position = len(container.lines)
        chosen = [each for each in container.lines if each[0] in wanted and _nanoseconds(each[1]) >= since]
        tail = query.get("tail", "all")
        chosen = chosen[max(0, len(chosen) - int(tail)) :] if tail != "all" else chosen
        self._wakes.add(wake)
        try:
            while True:
                for stream, stamp, data in chosen:
                    payload = f"{stamp} ".encode() + data
                    head = b"" if container.body.get("Tty") else struct.pack(">B3xI", stream, len(payload))
                    await response.write(head + payload)
                alive = container.id in self.containers and container.status == "running"
                if not follow or not alive or self.is_down:
                    return response
                await wake.wait()
                wake.clear()
                chosen = [each for each in container.lines[position:] if each[0] in wanted]
                position = len(container.lines)
        finally:
            self._wakes.discard(wake)

    async def _make_network(self, request: web.Request) -> web.Response:
        body = await request.json()
        if body["Name"] in self.networks:
            return web.json_response({"message": f"network with name {body['Name']} already exists"}, status=409)
        self.networks[body["Name"]] = body
        return web.json_response({"Id": body["Name"]}, status=201)

    async def _network(self, request: web.Request) -> web.Response:
        found = self.networks.get(request.match_info["id"])
        return web.json_response(found or {"message": "network not found"}, status=200 if found else 404)

    async def _connect(self, request: web.Request) -> web.Response:
        name, body = request.match_info["id"], await request.json()
        container = self.containers[body["Container"]]
        if name in container.joined:
            return web.json_response({"message": f"endpoint already exists in network {name}"}, status=403)
        container.joined[name] = body["EndpointConfig"]
        return web.Response()

    async def _remove_network(self, request: web.Request) -> web.Response:
        self.networks.pop(request.match_info["id"], None)
        return web.Response(status=204)

    async def _image(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        known = name in self.images
        return web.json_response({"Id": name} if known else {"message": "No such image"}, status=200 if known else 404)

    async def _pull(self, request: web.Request) -> web.StreamResponse:
        name, tag = request.query["fromImage"], request.query["tag"]
        reference = f"{name}@{tag}" if ":" in tag else f"{name}:{tag}"
        self.auth.append(request.headers.get("X-Registry-Auth", ""))
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"status":"Pulling"}\r\n')
        if reference in self.registry:
            self.images.add(reference)
            await response.write(b'{"status":"Downloaded"}\r\n')
        else:
            error = f"pull access denied for {name}"
            await response.write(json.dumps({"errorDetail": {"message": error}, "error": error}).encode() + b"\r\n")
        return response


def _labelled(labels: dict[str, str], wanted: Any) -> bool:
    return all(labels.get(key) == value for key, _, value in (each.partition("=") for each in wanted))


def _nanoseconds(stamp: str) -> int:
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp()) * 10**9 + int(fraction)


def _since(text: str) -> int:
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 10**9 + int((fraction or "0").ljust(9, "0"))
