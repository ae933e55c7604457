"""A node in a host program: it starts, founds and joins swarms, is used, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import Refused
from runtime.introspection import client
from runtime.stage import Actor, handles
from runtime.wire.pb import control_pb2, specs_pb2, types_pb2
from swarmlet import Node, StartError, UsageError
from swarmlet.assembly import Assembly
from tests.integration.face.worlds import NOTHING, Machine, Traces, node, service
from tests.waiting import until


def tasks(at: Node) -> list[Any]:
    return list(at.control("ListTasks", control_pb2.ListTasksRequest(), control_pb2.ListTasksResponse).tasks)


def running(at: Node) -> list[Any]:
    return [task for task in tasks(at) if task.status.state == types_pb2.RUNNING and task.desired_state == 512]


def test_making_a_node_starts_nothing(tmp_path: Path) -> None:
    before = Traces()
    made = node(tmp_path)
    assert before.left() == NOTHING
    assert not made.running
    assert not (tmp_path / "n1" / "state").exists()
    with pytest.raises(StartError, match="does not run"):
        made.info()


def test_after_stop_threads_files_and_children_are_as_before(tmp_path: Path) -> None:
    with node(tmp_path, "warm"):  # what the first node of a process loads stays loaded
        pass
    before = Traces()
    made = node(tmp_path)
    for _ in range(2):
        made.start()
        if made.info().local_node_state == "inactive":
            made.init()
        made.wait_ready(60)
        made.stop()
        assert before.left() == NOTHING
    made.stop()
    assert os.listdir(tmp_path / "n1" / "run") == []


def test_a_node_founds_a_swarm_and_is_told_of(tmp_path: Path) -> None:
    with node(tmp_path) as made:
        assert made.info().local_node_state == "inactive"
        node_id = made.init()
        info = made.wait_ready(60)
        assert (info.node_id, info.local_node_state, info.control_available) == (node_id, "active", True)
        assert (info.nodes, info.managers) == (1, 1)
        assert made.join_token("worker").startswith("SWMTKN-1-")
        assert made.join_token("worker") != made.join_token("manager")
        with pytest.raises(UsageError, match="worker or manager"):
            made.join_token("leader")
        with pytest.raises(Refused, match="already part of a swarm"):
            made.init()


def test_sockets_are_their_owners_alone(tmp_path: Path) -> None:
    with node(tmp_path) as made:
        for path in (made.api_socket, made.introspection_socket):
            found = os.stat(path)
            assert stat.S_ISSOCK(found.st_mode)
            assert stat.S_IMODE(found.st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "n1" / "state").stat().st_mode) == 0o700


def test_the_engine_api_answers_at_its_socket(tmp_path: Path) -> None:
    with node(tmp_path) as made, socket.socket(socket.AF_UNIX) as link:
        link.settimeout(60)
        link.connect(made.api_socket)
        link.sendall(b"GET /info HTTP/1.0\r\nHost: x\r\n\r\n")
        answer = b""
        while piece := link.recv(65536):
            answer += piece
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 200")
        info = json.loads(body)
        assert (info["Name"], info["Driver"], info["DockerRootDir"]) == ("n1", "memory", str(tmp_path / "n1/state"))
        assert info["Swarm"]["LocalNodeState"] == "inactive"
        assert info["NCPU"] > 0
        assert info["MemTotal"] > 0


def test_a_second_start_needs_only_the_directory(tmp_path: Path) -> None:
    with node(tmp_path) as made:
        node_id = made.init()
        token = made.join_token()
        address = made.wait_ready().node_addr
        made.control("CreateService", service("web", 0), control_pb2.CreateServiceResponse)
        secret = control_pb2.CreateSecretRequest()
        secret.spec.annotations.name, secret.spec.data = "key", b"hush"
        made.control("CreateSecret", secret, control_pb2.CreateSecretResponse)
    with node(tmp_path) as again:
        info = again.wait_ready(60)
        assert (info.node_id, info.node_addr) == (node_id, address)
        assert again.join_token() == token
        found = again.control("ListServices", control_pb2.ListServicesRequest(), control_pb2.ListServicesResponse)
        assert [each.spec.annotations.name for each in found.services] == ["web"]
        kept = again.control("ListSecrets", control_pb2.ListSecretsRequest(), control_pb2.ListSecretsResponse)
        assert [(each.spec.annotations.name, each.spec.data) for each in kept.secrets] == [("key", b"")]


def test_a_service_runs_its_tasks(tmp_path: Path) -> None:
    machine = Machine()
    with node(tmp_path, machine=machine) as made:
        made.init()
        made.control("CreateService", service("web", 3), control_pb2.CreateServiceResponse)
        assert len(until(lambda: found if len(found := running(made)) == 3 else None)) == 3
        assert machine.executor is not None
        assert len(machine.executor.tasks) == 3


def test_a_worker_joins_by_its_token_and_several_nodes_live_in_one_process(tmp_path: Path) -> None:
    with node(tmp_path, "m") as manager, node(tmp_path, "w") as worker:
        manager.init()
        listed = manager.control("ListNodes", control_pb2.ListNodesRequest(), control_pb2.ListNodesResponse)
        address = listed.nodes[0].manager_status.addr
        worker.join(address, token=manager.join_token("worker"))
        info = worker.wait_ready(60)
        assert (info.local_node_state, info.control_available) == ("active", False)
        with pytest.raises(Refused, match="not a swarm manager"):
            worker.join_token()
        manager.control("CreateService", service("web", 4), control_pb2.CreateServiceResponse)
        homes = until(lambda: found if len(found := [t.node_id for t in running(manager)]) == 4 else None)
        assert len(set(homes)) == 2
        worker.leave()
        assert worker.info().local_node_state == "inactive"


def test_a_join_with_a_bad_token_is_refused_and_leaves_the_node_out(tmp_path: Path) -> None:
    with node(tmp_path) as made:
        with pytest.raises(Refused):
            made.join("127.0.0.1:9", token="no token")
        until(lambda: made.info().local_node_state == "inactive")


def test_a_manager_leaves_by_force_and_may_found_anew(tmp_path: Path) -> None:
    with node(tmp_path) as made:
        first = made.init()
        with pytest.raises(Refused, match="--force"):
            made.leave()
        certificate = tmp_path / "n1" / "state" / "certificates" / "swarm-node.crt"
        assert certificate.exists()
        made.leave(force=True)
        assert made.info().local_node_state == "inactive"
        assert not certificate.exists()
        with pytest.raises(Refused, match="not part of a swarm"):
            made.leave(force=True)
        assert made.init() != first


def test_an_update_changes_the_spec_and_rotates_tokens(tmp_path: Path) -> None:
    def shorter(spec: specs_pb2.ClusterSpec) -> None:
        spec.orchestration.task_history_retention_limit = 3

    with node(tmp_path) as made:
        made.init()
        worker, manager = made.join_token("worker"), made.join_token("manager")
        made.update(shorter, rotate="worker")
        assert made.inspect().spec.orchestration.task_history_retention_limit == 3
        assert made.join_token("worker") != worker
        assert made.join_token("manager") == manager
        with pytest.raises(UsageError, match="join tokens"):
            made.update(rotate="leader")


def test_not_being_ready_says_why(tmp_path: Path) -> None:
    with node(tmp_path) as made, pytest.raises(TimeoutError, match="in no swarm: init or join one"):
        made.wait_ready(0.0)


class Greet:
    """A question of the host's."""


class Greeter(Actor):
    """An actor of the host's."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word

    def snapshot(self) -> dict[str, Any]:
        return {"word": self.word, "api_token": "must not be shown"}

    @handles(Greet)
    def greet(self, message: Greet) -> str:
        return f"{self.word} at {self.address.path}"


def asked(made: Node, path: str) -> dict[str, Any]:
    """What is shown of an actor."""
    found: dict[str, Any] = client.ask(made.introspection_socket, "actor", path=path)
    return found


def test_a_hosts_actor_lives_in_the_tree(tmp_path: Path) -> None:
    with node(tmp_path) as made:
        assert made.mount("greeter", Greeter, "hello").ask(Greet()).result(60) == "hello at /greeter"
        # It is counted when its turn is over, which may be a moment after its answer.
        shown = until(lambda: (found := asked(made, "/greeter")) and found["handled"] and found)
        assert shown["snapshot"] == {"word": "hello", "api_token": "(hidden)"}
        assert shown["handled"] == 1
        with pytest.raises(UsageError, match="no name"):
            made.mount("a/b", Greeter, "x")
        with pytest.raises(RuntimeError, match="somebody lives"):
            made.mount("greeter", Greeter, "x")


def test_the_tree_shows_every_actor_and_its_restarts(tmp_path: Path) -> None:
    with node(tmp_path) as made:
        made.init()
        value = client.ask(made.introspection_socket, "tree", states=True)
        rows = {row["path"]: row for row in value["actors"]}
        assert {"/cluster", "/cluster/node", "/cluster/node/manager/raft", "/cluster/node/agent"} <= set(rows)
        assert rows["/cluster"]["snapshot"]["state"] == "active"
        assert value["stage"]["actors"] == len(rows)
        connection = made.stage.cells["/cluster/connection"]
        connection.control(lambda: connection.failed(RuntimeError("injected"), None))
        row = until(lambda: _restarted(made, "/cluster/connection"))
        assert row["last_error"] == "RuntimeError: injected"
        crashes = client.ask(made.introspection_socket, "crashes")
        assert crashes[-1]["path"] == "/cluster/connection"
        made.wait_ready(60)


def _restarted(made: Node, path: str) -> Any:
    rows = {row["path"]: row for row in client.ask(made.introspection_socket, "tree")["actors"]}
    return rows[path] if rows[path]["restarts"] == 1 and rows[path]["state"] == "running" else None


def test_two_nodes_never_share_a_state_directory(tmp_path: Path) -> None:
    before = Traces()
    with node(tmp_path) as made:
        made.wait_ready  # noqa: B018 - it runs
        second = node(tmp_path)
        with pytest.raises(StartError, match="in use by another swarmlet process"):
            second.start()
        assert made.info().local_node_state == "inactive"
    assert before.left()["threads"] == []


@pytest.mark.parametrize("name", ["raft/wal-v3-encrypted", "raft/snap-v3"])
def test_another_programs_swarm_is_refused_and_untouched(tmp_path: Path, name: str) -> None:
    foreign = tmp_path / "n1" / "state" / name
    foreign.mkdir(parents=True)
    (tmp_path / "n1" / "state").chmod(0o700)
    before = Traces()
    with pytest.raises(StartError, match="belongs to the swarm of another program"):
        node(tmp_path).start()
    assert foreign.is_dir()
    assert before.left() == NOTHING


def test_a_state_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "n1" / "state"
    state.mkdir(parents=True)
    state.chmod(0o777)
    with pytest.raises(StartError, match="can be written by others"):
        node(tmp_path).start()


def test_a_socket_that_is_taken_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as taken:
        path = str(tmp_path / "taken.sock")
        taken.bind(path)
        taken.listen()
        before = Traces()
        with pytest.raises(StartError, match="another process listens on it"):
            node(tmp_path, api_sockets=(path,)).start()
        assert before.left() == NOTHING
        assert os.path.exists(path)


def test_a_path_of_a_socket_that_is_too_long_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    made = Node(tmp_path / "s", run_dir=tmp_path / ("x" * 100), executor=Machine().factory)
    with pytest.raises(UsageError, match="too long"):
        made.start()
    assert os.listdir(tmp_path) == []


def test_an_executor_that_cannot_be_made_takes_everything_down_again(tmp_path: Path) -> None:
    class Broken:
        name = "broken"

        def build(self, place: Any) -> Any:
            raise RuntimeError("no such thing")

    before = Traces()
    made = Node(tmp_path / "s", run_dir=tmp_path / "r", executor=Broken())
    with pytest.raises(RuntimeError, match="no such thing"):
        made.start()
    assert not made.running
    assert before.left() == NOTHING


@pytest.mark.parametrize(("fate", "stopped"), [("stop", True), ("keep", False)])
def test_the_end_stops_tasks_or_keeps_them(tmp_path: Path, fate: Any, stopped: bool) -> None:
    calls: list[str] = []

    class Noted(Machine):
        def _build(self, place: Any) -> Any:
            executor = super()._build(place)
            stop_all, close = executor.stop_all, executor.close
            executor.stop_all = lambda done: (calls.append("stop"), stop_all(done))[1]  # type: ignore[method-assign]
            executor.close = lambda done: (calls.append("close"), close(done))[1]  # type: ignore[method-assign]
            return executor

    made = node(tmp_path, machine=Noted()).start()
    with pytest.raises(UsageError, match="to stop or to keep"):
        made.stop("maybe")  # type: ignore[arg-type]
    made.stop(fate)
    assert calls == (["stop", "close"] if stopped else ["close"])


def test_a_node_is_started_once(tmp_path: Path) -> None:
    with node(tmp_path) as made, pytest.raises(StartError, match="runs already"):
        made.start()


def test_bad_ticks_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="election tick"):
        Node(tmp_path, heartbeat_tick=5, election_tick=5)


def test_work_on_the_loop_has_a_deadline(tmp_path: Path) -> None:
    import asyncio

    with node(tmp_path) as made:
        assembly: Assembly = made.assembly
        with pytest.raises(TimeoutError, match="did not finish"):
            assembly.run(asyncio.sleep(60), 0.01)
