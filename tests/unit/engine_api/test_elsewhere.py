"""Containers of other nodes at a manager: how they are named, looked at, and have commands run beside them."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import pytest

from runtime.engine_api import hijack
from runtime.engine_api.call import Call
from runtime.engine_api.convert.local import Container
from runtime.engine_api.frames import frame
from runtime.engine_api.routes import containers
from runtime.errors import Code, Refused
from runtime.executor.inspection import NotBegun, Processes, SendSignal, Top
from runtime.protocol.cluster import ClusterError
from runtime.wire.pb import logs_pb2
from runtime.wire.pb import types_pb2 as types
from tests.unit.engine_api.fake import a_node
from tests.unit.engine_api.support import ask
from tests.unit.engine_api.test_containers import Local
from tests.unit.engine_api.test_execs import FakeSession, Pipe, ends, piped, turned

OTHER = f"{0xABC:064x}"


class Swarm(Local):
    """A manager without tasks of its own; ``web.1`` runs on the node w1."""

    def __init__(self) -> None:
        super().__init__()
        self.service = self.add_service("web")
        self.nodes["w1"] = a_node("w1", "far")
        self.far = self.add(OTHER)
        self.elsewhere: list[tuple[str, Any]] = []
        self.closed: list[FakeSession] = []

    def add(self, container: str, state: int = types.RUNNING, slot: int = 1) -> Any:
        task = self.add_task(self.service, slot)
        task.node_id, task.service_annotations.name = "w1", "web"
        task.status.state = state  # type: ignore[assignment]
        task.status.container.container_id = container
        task.meta.created_at.seconds = len(self.tasks)
        return task

    async def look_elsewhere(self, task: Any, question: Any) -> Any:
        self.elsewhere.append((task.id, question))
        return await self.look(task, question)


@pytest.fixture
def swarm() -> Swarm:
    return Swarm()


def as_backend(swarm: Swarm) -> Any:
    return swarm


def name_of(swarm: Swarm) -> str:
    return f"web.1.{swarm.far.id}"


@pytest.mark.parametrize("term", ["id", "prefix", "name", "/name", "slot"])
def test_a_container_of_another_node_is_found_by_what_people_type(swarm: Swarm, term: str) -> None:
    names = {
        "id": OTHER, "prefix": OTHER[:61], "name": name_of(swarm), "/name": f"%2F{name_of(swarm)}", "slot": "web.1",
    }  # fmt: skip
    status, found = ask(swarm, "GET", f"/containers/{names[term]}/json")
    assert (status, found["Id"], found["Name"]) == (200, OTHER, f"/{name_of(swarm)}")
    assert found["State"]["Running"]


@pytest.mark.parametrize("term", ["web", "web.2", "web.", "nothing", "fff", "db.1", "web.1.nonsense", "x" * 25])
def test_what_names_none_is_not_found(swarm: Swarm, term: str) -> None:
    assert ask(swarm, "GET", f"/containers/{term}/json") == (404, f"No such container: {term}")


def test_the_bare_id_of_a_task_names_no_container_but_says_which_does(swarm: Swarm) -> None:
    status, text = ask(swarm, "GET", f"/containers/{swarm.far.id}/json")
    assert status == 404
    assert text == (
        f"No such container: {swarm.far.id} (that is a task; the name of its container is {name_of(swarm)})"
    )


def test_a_prefix_of_several_is_refused_and_a_whole_id_is_one_of_them(swarm: Swarm) -> None:
    swarm.add(f"{0xABD:064x}", slot=2)
    assert ask(swarm, "GET", f"/containers/{OTHER[:62]}/json")[0] == 400
    assert ask(swarm, "GET", f"/containers/{OTHER}/json")[1]["Id"] == OTHER


def test_of_a_slot_the_newest_that_runs_is_meant(swarm: Swarm) -> None:
    newer = swarm.add(f"{0xDEF:064x}")
    swarm.add(f"{0xFFF:064x}", types.PENDING)
    assert ask(swarm, "GET", "/containers/web.1/json")[1]["Name"] == f"/web.1.{newer.id}"


def test_on_a_worker_there_are_none(swarm: Swarm) -> None:
    for method in ("ListTasks", "ListServices", "GetTask"):
        swarm.refusals[method] = ClusterError("unavailable", "This node is not a swarm manager.")
    for term in (OTHER, "web.1", name_of(swarm), swarm.far.id):
        assert ask(swarm, "GET", f"/containers/{term}/json")[0] == 404


def test_on_a_worker_a_slot_means_the_nodes_own_task_in_it() -> None:
    swarm = Swarm()
    swarm.only = swarm.task(1, types.RUNNING)
    for method in ("ListTasks", "ListServices", "GetTask"):
        swarm.refusals[method] = ClusterError("unavailable", "This node is not a swarm manager.")
    slot = Container(swarm.only, swarm.only.status).name.rpartition(".")[0]
    assert ask(swarm, "GET", f"/containers/{slot}/json")[1]["Id"] == swarm.only.status.container.container_id
    assert ask(swarm, "GET", f"/containers/{slot}1/json")[0] == 404
    swarm.only.status.state = types.COMPLETE
    assert ask(swarm, "GET", f"/containers/{slot}/json")[0] == 404


def test_a_container_of_this_node_is_meant_first() -> None:
    swarm = Swarm()
    swarm.only = swarm.task(1, types.RUNNING)
    swarm.far.status.container.container_id = swarm.only.status.container.container_id
    swarm.answers.append(Processes(("PID",), ()))
    assert ask(swarm, "GET", f"/containers/{swarm.only.status.container.container_id}/top")[0] == 200
    assert swarm.elsewhere == []


def test_lists_are_of_this_node_alone(swarm: Swarm) -> None:
    assert ask(swarm, "GET", "/containers/json?all=1") == (200, [])


def test_it_can_be_looked_at_and_signalled(swarm: Swarm) -> None:
    swarm.answers += [Processes(("PID",), (("7",),)), None]
    assert ask(swarm, "GET", "/containers/web.1/top?ps_args=aux")[1]["Processes"] == [["7"]]
    assert ask(swarm, "POST", "/containers/web.1/kill?signal=TERM")[0] == 204
    assert swarm.elsewhere == [(swarm.far.id, Top("aux")), (swarm.far.id, SendSignal(15))]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Code.UNIMPLEMENTED, 501),
        (Code.UNAVAILABLE, 503),
        (Code.RESOURCE_EXHAUSTED, 500),
        (Code.DEADLINE_EXCEEDED, 500),
        (Code.INTERNAL, 500),
    ],
)
def test_what_is_in_the_way_is_said_in_its_own_words(swarm: Swarm, code: Code, status: int) -> None:
    swarm.answers += [Refused(code, "a sentence"), Refused(code, "a sentence")]
    assert ask(swarm, "GET", "/containers/web.1/top") == (status, "a sentence")
    assert ask(swarm, "POST", "/containers/web.1/exec", {"Cmd": ["sh"]}) == (status, "a sentence")


def test_its_end_is_waited_for_at_its_node(swarm: Swarm) -> None:
    status, text = ask(swarm, "POST", "/containers/web.1/wait")
    assert status == 501
    assert "wait at that node" in text


def test_a_command_is_made_when_the_node_can_be_reached_and_runs_there(swarm: Swarm) -> None:
    swarm.answers.append(None)
    status, made = ask(swarm, "POST", "/containers/web.1/exec", {"Cmd": ["sh"], "AttachStdout": True})
    assert status == 201
    assert swarm.elsewhere == [(swarm.far.id, None)]

    def begin(question: Any) -> FakeSession:
        session = FakeSession(question)
        ends(3, b"out")(session)
        return session

    swarm.answers.append(begin)
    assert ask(swarm, "POST", f"/exec/{made['Id']}/start", {"Detach": True}) == (200, None)
    assert swarm.elsewhere[1][1].argv == ("sh",)
    found = ask(swarm, "GET", f"/exec/{made['Id']}/json")[1]
    assert (found["ExitCode"], found["ContainerID"]) == (3, OTHER)


def test_one_that_cannot_begin_there_says_so(swarm: Swarm) -> None:
    swarm.answers.append(None)
    made = ask(swarm, "POST", "/containers/web.1/exec", {"Cmd": ["sh"]})[1]["Id"]
    swarm.answers.append(NotBegun("exec failed: no such file", 127))
    assert ask(swarm, "POST", f"/exec/{made}/start", {"Detach": True}) == (400, "exec failed: no such file")


@pytest.mark.parametrize("how", ["goes", "leaves by its keys"])
def test_a_client_that_goes_ends_a_command_at_another_node_and_one_that_leaves_by_its_keys_does_not(
    swarm: Swarm, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(hijack, "LOOK_S", 0.01)
    swarm.answers.append(None)
    body = {"Cmd": ["sh"], "AttachStdin": True, "AttachStdout": True, "Tty": True}
    made = ask(swarm, "POST", "/containers/web.1/exec", body)[1]["Id"]
    sessions: list[FakeSession] = []

    def begin(question: Any) -> FakeSession:
        sessions.append(FakeSession(question))
        return sessions[-1]

    swarm.answers.append(begin)
    instance: Any = swarm.execs.get(made)

    async def talk(pipe: Pipe) -> None:
        await pipe.ask(f"/exec/{made}/start", {"Tty": True})
        await turned(lambda: instance.session is not None)
        if how == "goes":
            pipe.writer.transport.abort()
        else:
            pipe.writer.write(b"\x10\x11")
            assert await pipe.reader.read() == b""
        await turned(lambda: sessions[0].input_ended and not instance._read)

    piped(tmp_path, as_backend(swarm), talk)
    assert sessions[0].closed is (how == "goes")


def test_its_log_is_the_swarms(swarm: Swarm) -> None:
    async def read() -> list[bytes]:
        call = Call(as_backend(swarm), "GET", ["containers", "web.1", "logs"], "stdout=1")
        return [piece async for piece in (await containers.container_logs(call)).pieces]

    swarm.log_batches.append(logs_pb2.SubscribeLogsMessage(messages=[logs_pb2.LogMessage(stream=1, data=b"line")]))
    assert asyncio.run(read()) == [frame(1, b"line")]
    assert [list(each.selector.task_ids) for each in swarm.log_requests] == [[swarm.far.id]]
