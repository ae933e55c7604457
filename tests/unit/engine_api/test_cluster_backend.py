"""The backend over a ClusterActor's address: what each call says, what comes back, and what failures look like."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import aiohttp
import pytest

from actors.cluster_actor import ClusterActor, ClusterSettings
from runtime.engine_api.backend import SystemInfo
from runtime.engine_api.cluster_backend import RESTARTING, ClusterBackend
from runtime.engine_api.server import EngineServer
from runtime.errors import Code, Refused
from runtime.executor.port import LogLine, Stream
from runtime.protocol import cluster as say
from runtime.protocol.cluster import ClusterError, InitRequest, JoinRequest, SwarmInfo
from runtime.stage import Actor, ActorUnavailable, AskTimeout, GiveUp, Policy, Stage, handles
from runtime.stage.answers import Reply
from runtime.wire.pb import control_pb2, logs_pb2, objects_pb2, specs_pb2
from tests.messages.cluster_fakes import CARD, Behaviour, MemoryState, fake_node
from tests.unit.engine_api import recorded
from tests.unit.engine_api.test_log_stream import FakeChannel, batch

SYSTEM = SystemInfo(name="vm", ncpu=2, mem_total=1 << 30, server_version="1", root_dir="/r", executor="process")
INIT = InitRequest(
    listen_addr="0.0.0.0:2377", advertise_addr="", data_path_addr="", data_path_port=0, force_new_cluster=False,
    spec=specs_pb2.ClusterSpec(), auto_lock_managers=False, availability="", default_addr_pool=None, subnet_size=0,
)  # fmt: skip
JOIN = JoinRequest("0.0.0.0:2377", "", "", ("10.0.0.1:2377",), "", "token")
CLUSTER = objects_pb2.Cluster(id="c")


class Address:
    """Answers every message with ``answer``: a value, an exception, or a function of the message."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer
        self.messages: list[Any] = []

    def send(self, message: Any, sender: Any, reply: Reply, trace: int) -> None:
        self.messages.append(message)
        answer = self.answer(message) if callable(self.answer) else self.answer
        if isinstance(answer, BaseException):
            reply.fail(answer)
        else:
            reply.set(answer)


class Transport:
    """Connects to one fake channel and remembers where to."""

    def __init__(self) -> None:
        self.channel: Any = FakeChannel()
        self.targets: list[Any] = []
        self.closed = 0

    def connect(self, target: str, credentials: Any) -> Any:
        self.targets.append((target, credentials))
        self.channel.close = self._close
        return self.channel

    def _close(self) -> None:
        self.closed += 1


def over(address: Any, talk: Callable[[ClusterBackend], Coroutine[Any, Any, Any]], transport: Any = None) -> Any:
    async def run() -> Any:
        backend = ClusterBackend(address, transport, "/run/control.sock", lambda: SYSTEM)
        try:
            return await asyncio.wait_for(talk(backend), 10)
        finally:
            backend.close()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("call", "message", "answer", "value"),
    [
        (lambda b: b.control("ListNodes", control_pb2.ListNodesRequest()),
         say.Control("ListNodes", control_pb2.ListNodesRequest()),
         control_pb2.ListNodesResponse(), control_pb2.ListNodesResponse()),
        (lambda b: b.swarm_init(INIT), say.Init(INIT), "node", "node"),
        (lambda b: b.swarm_join(JOIN), say.Join(JOIN), None, None),
        (lambda b: b.swarm_leave(True), say.Leave(True), None, None),
        (lambda b: b.swarm_update(7, specs_pb2.ClusterSpec(), control_pb2.KeyRotation()),
         say.Update(7, specs_pb2.ClusterSpec(), control_pb2.KeyRotation()), None, None),
        (lambda b: b.swarm_inspect(), say.Inspect(), CLUSTER, CLUSTER),
        (lambda b: b.swarm_unlock("SWMKEY-1-x"), say.Unlock("SWMKEY-1-x"), None, None),
        (lambda b: b.swarm_unlock_key(), say.UnlockKey(), "SWMKEY-1-x", "SWMKEY-1-x"),
        (lambda b: b.swarm_info(), say.Info(), SwarmInfo("active"), SwarmInfo("active")),
    ],
)  # fmt: skip
def test_each_call_is_one_message_and_its_answer(call: Any, message: Any, answer: Any, value: Any) -> None:
    address = Address(answer)
    assert over(address, call) == value
    assert address.messages == [message]


@pytest.mark.parametrize(
    ("told", "status"), [("active/manager", "active/manager"), (ActorUnavailable("nobody is at /cluster"), "")]
)
def test_the_status_of_a_ping_is_the_cluster_layers_or_nothing(told: Any, status: str) -> None:
    address = Address(told)
    assert over(address, lambda backend: backend.swarm_status()) == status
    assert address.messages == [say.Status()]


def test_a_refusal_passes_as_it_is() -> None:
    for refusal in (Refused(Code.NOT_FOUND, "x"), ClusterError("conflict", "swarm is not locked")):
        with pytest.raises(Refused) as caught:
            over(Address(refusal), lambda backend: backend.swarm_unlock("k"))
        assert caught.value is refusal


@pytest.mark.parametrize(
    "ask",
    [
        lambda backend: backend.control("ListNodes", control_pb2.ListNodesRequest()),
        lambda backend: backend.swarm_inspect(),
        lambda backend: backend.swarm_update(1, specs_pb2.ClusterSpec(), control_pb2.KeyRotation()),
        lambda backend: backend.swarm_unlock_key(),
    ],
    ids=["control", "inspect", "update", "unlock key"],
)
def test_a_manager_that_does_not_answer_is_the_engines_503(ask: Callable[[ClusterBackend], Any]) -> None:
    with pytest.raises(ClusterError) as caught:
        over(Address(ActorUnavailable("/cluster/node/manager/control failed")), ask)
    assert (caught.value.kind, caught.value.text) == ("unavailable", say.NOT_MANAGER_STARTING)


def test_a_cluster_layer_that_does_not_answer_is_503_without_its_inner_names() -> None:
    with pytest.raises(ClusterError) as caught:
        over(Address(ActorUnavailable("nobody is at /cluster")), lambda backend: backend.swarm_init(INIT))
    assert (caught.value.kind, caught.value.text) == ("unavailable", RESTARTING)


def test_a_deadline_is_the_deadlines_error() -> None:
    class Silent(Address):
        def send(self, message: Any, sender: Any, reply: Reply, trace: int) -> None:
            self.messages.append(reply)

    def ask(backend: ClusterBackend) -> Any:
        return backend.control("ListNodes", control_pb2.ListNodesRequest(), 0.001)

    for address in (Silent(), Address(AskTimeout("/cluster/node/manager/store", 20.0))):
        with pytest.raises(Refused) as caught:
            over(address, ask)
        assert caught.value.rpc_text == "rpc error: code = DeadlineExceeded desc = context deadline exceeded"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ActorUnavailable("nobody is at /cluster"), RESTARTING),
        (AskTimeout("/cluster", 20.0), "rpc error: code = DeadlineExceeded desc = context deadline exceeded"),
    ],
)
def test_the_info_is_always_answered_and_tells_what_is_wrong(error: BaseException, text: str) -> None:
    info = over(Address(error), lambda backend: backend.swarm_info())
    assert (info.local_node_state, info.error, info.control_available) == ("error", text, False)


def test_the_host_is_asked_anew_each_time() -> None:
    asked = iter((SYSTEM, SystemInfo("other", 1, 1, "1", "/", "process")))

    async def run() -> list[str]:
        nobody: Any = Address()
        transport: Any = Transport()
        backend = ClusterBackend(nobody, transport, "", lambda: next(asked))
        return [(await backend.system()).name for _ in range(2)]

    assert asyncio.run(run()) == ["vm", "other"]


def test_there_are_no_networks_of_this_node_alone() -> None:
    assert over(Address(), lambda backend: backend.local_network("bridge")) is None


def test_logs_come_over_one_connection_to_the_control_socket() -> None:
    transport = Transport()

    async def talk(backend: ClusterBackend) -> None:
        for _ in range(2):
            batches: Any = backend.logs(logs_pb2.SubscribeLogsRequest())
            first = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0)
            transport.channel.on_item(batch(b"line"))
            assert (await first).messages[0].data == b"line"
            await batches.aclose()

    over(Address(), talk, transport)
    assert transport.targets == [("unix:/run/control.sock", None)]
    assert (transport.channel.cancelled, transport.closed) == (2, 1)


# Over a real server and a real ClusterActor, on threads


@contextlib.asynccontextmanager
async def a_daemon(tmp_path: pathlib.Path, cluster: type[Actor], *args: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """The Engine API over an actor that runs on threads of its own, and a client of it."""
    stage = Stage()
    transport: Any = Transport()
    backend = ClusterBackend(stage.mount("cluster", cluster, *args), transport, "", lambda: SYSTEM)
    path = str(tmp_path / "api.sock")
    server = EngineServer(backend, unix_paths=[path])
    await server.start()
    try:
        async with aiohttp.ClientSession(base_url="http://api", connector=aiohttp.UnixConnector(path)) as client:
            yield client
    finally:
        await server.stop()
        backend.close()
        assert await asyncio.to_thread(stage.close)


async def answered(client: aiohttp.ClientSession, method: str, path: str, **how: Any) -> tuple[int, Any]:
    async with client.request(method, path, **how) as answer:
        text = await answer.text()
        return answer.status, await answer.json() if text else None


@pytest.mark.parametrize("error", [None, "configured logging driver does not support reading"])
def test_a_log_of_this_node_is_read_line_by_line_and_broken_off_at_the_end(error: str | None) -> None:
    broken_off: list[bool] = []

    def read(message: Any) -> Any:
        assert isinstance(message, say.LocalLogs)
        assert (message.task_id, message.options.tail) == ("t", -3)
        message.on_line(LogLine(1_000_000_002, Stream.STDERR, b"out\n"))
        message.on_end(error)
        return lambda: broken_off.append(True)

    async def talk(backend: ClusterBackend) -> list[Any]:
        task = objects_pb2.Task(id="t", service_id="s", node_id="n")
        found = []
        try:
            async for batch in backend.local_logs(task, logs_pb2.LogSubscriptionOptions(tail=-3)):
                found += batch.messages
        except Refused as refused:
            assert refused.text == error
        return found

    (line,) = over(Address(read), talk)
    assert (line.stream, line.data, line.timestamp.seconds, line.timestamp.nanos) == (2, b"out\n", 1, 2)
    assert (line.context.task_id, line.context.service_id, line.context.node_id) == ("t", "s", "n")
    assert broken_off == [True]


def test_a_log_that_was_never_begun_is_empty() -> None:
    async def talk(backend: ClusterBackend) -> list[Any]:
        task = objects_pb2.Task(id="t")
        return [batch async for batch in backend.local_logs(task, logs_pb2.LogSubscriptionOptions())]

    assert over(Address(None), talk) == []


def test_a_node_is_made_a_manager_and_leaves_again(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        settings = ClusterSettings("n1", lambda: (CARD,))
        parts = (ClusterActor, settings, MemoryState(), fake_node(Behaviour()))
        async with a_daemon(tmp_path, *parts) as client:
            refusal = {"message": say.NOT_MANAGER_NO_NODE}
            for path in ("/nodes", "/swarm", "/services", "/tasks", "/configs", "/secrets", "/swarm/unlockkey"):
                assert await answered(client, "GET", path) == (503, refusal), path
            assert await answered(client, "POST", "/swarm/leave") == (503, {"message": say.NO_SWARM})
            assert (await answered(client, "GET", "/info"))[1]["Swarm"]["LocalNodeState"] == "inactive"
            body = {"ListenAddr": "0.0.0.0:2377", "Spec": {}}
            assert await answered(client, "POST", "/swarm/init", json=body) == (200, "node-id")
            assert (await answered(client, "POST", "/swarm/init", json=body))[1] == {"message": say.SWARM_EXISTS}
            async with client.head("/_ping") as ping:
                assert ping.headers["Swarm"] == "active/manager"
            info = (await answered(client, "GET", "/info"))[1]["Swarm"]
            assert (info["NodeID"], info["Nodes"], info["Managers"]) == ("node-id", 2, 1)
            assert (await answered(client, "GET", "/swarm"))[1]["ID"] == "cluster-id"
            assert len((await answered(client, "GET", "/nodes"))[1]) == 2
            assert (await answered(client, "POST", "/swarm/leave?force=1"))[0] == 200
            assert await answered(client, "GET", "/nodes") == (503, refusal)

    asyncio.run(asyncio.wait_for(run(), 20))


class SlowCluster(Actor):
    """Holds creates back until it is told to go on; other questions make it fail."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, held: asyncio.Event, loop: asyncio.AbstractEventLoop, made: list[str]) -> None:
        super().__init__()
        self.held, self.loop, self.made = held, loop, made
        self.waiting: list[tuple[Any, Reply]] = []

    @handles(say.Control)
    def control(self, message: say.Control) -> Any:
        if message.method != "CreateService":
            raise RuntimeError("a failure whose text nobody is to see")
        self.waiting.append((message.request, self.defer()))
        self.loop.call_soon_threadsafe(self.held.set)

    @handles(say.Info)
    def info(self, message: say.Info) -> SwarmInfo:
        """Stands for the signal to go on."""
        for request, reply in self.waiting:
            self.made.append(request.spec.annotations.name)
            reply.set(control_pb2.CreateServiceResponse())
        return SwarmInfo()


def test_a_change_that_was_sent_is_carried_out_though_its_client_hung_up(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        held, made = asyncio.Event(), list[str]()
        async with a_daemon(tmp_path, SlowCluster, held, asyncio.get_running_loop(), made) as client:
            create = asyncio.create_task(answered(client, "POST", "/services/create", json=recorded.CLI_CREATE))
            await held.wait()
            create.cancel()
            await asyncio.wait([create])
            assert made == []
            assert (await answered(client, "GET", "/info"))[0] == 200
            assert made == ["web"]

    asyncio.run(asyncio.wait_for(run(), 20))


def test_an_actor_that_fails_over_a_request_answers_503_and_lives_on(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        parts: Any = (SlowCluster, asyncio.Event(), asyncio.get_running_loop(), [])
        async with a_daemon(tmp_path, *parts) as client:
            assert await answered(client, "GET", "/nodes") == (503, {"message": say.NOT_MANAGER_STARTING})
            status, info = await answered(client, "GET", "/info")
            assert (status, info["Swarm"]["LocalNodeState"]) == (200, "inactive")

    asyncio.run(asyncio.wait_for(run(), 20))


def test_a_ping_is_answered_also_when_nobody_knows_of_the_swarm(tmp_path: pathlib.Path) -> None:
    async def run() -> None:
        nobody: Any = Address(ActorUnavailable("nobody is at /cluster"))
        transport: Any = Transport()
        backend = ClusterBackend(nobody, transport, "", lambda: SYSTEM)
        path = str(tmp_path / "api.sock")
        server = EngineServer(backend, unix_paths=[path])
        await server.start()
        async with (
            aiohttp.ClientSession(base_url="http://api", connector=aiohttp.UnixConnector(path)) as client,
            client.get("/_ping") as ping,
        ):
            assert (ping.status, await ping.text()) == (200, "OK")
            assert "Swarm" not in ping.headers
        await server.stop()

    asyncio.run(run())
