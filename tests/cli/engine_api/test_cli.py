"""The docker command line against the server, with every command line that is installed here.

What is expected was compared with the same commands against a docker engine 20.10.24; the command lines print it, so
it holds for each of them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from actors.cluster_actor import ClusterActor, ClusterSettings
from runtime.engine_api.backend import SystemInfo
from runtime.engine_api.cluster_backend import ClusterBackend
from runtime.engine_api.routes.system import FEATURES
from runtime.engine_api.server import EngineServer
from runtime.protocol import cluster as say
from runtime.stage import Stage
from runtime.wire.pb import control_pb2 as pb
from runtime.wire.pb import logs_pb2
from runtime.wire.pb.objects_pb2 import Network, Secret
from tests.messages.cluster_fakes import CARD, Behaviour, MemoryState, fake_node
from tests.unit.engine_api.fake import NODE_ID, FakeBackend

Result = tuple[int, str, str]
COMMAND_LINES = [
    path for path in dict.fromkeys(("/usr/local/bin/docker", "/usr/bin/docker", shutil.which("docker") or ""))
    if path and os.access(path, os.X_OK)
]  # fmt: skip
pytestmark = pytest.mark.skipif(not COMMAND_LINES, reason="no docker command line on this machine")


@pytest.fixture(params=COMMAND_LINES or ["none"])
def docker(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Callable[..., list[Result]]:
    """Runs docker commands one after another against a served backend: exit code, output, errors of each."""

    def run(backend: Any, *commands: str) -> list[Result]:
        return asyncio.run(_run(request.param, tmp_path, backend, commands))

    return run


async def _run(program: str, tmp_path: pathlib.Path, backend: Any, commands: tuple[str, ...]) -> list[Result]:
    path = str(tmp_path / "api.sock")
    server = EngineServer(backend, unix_paths=[path])
    await server.start()
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DOCKER_HOST": f"unix://{path}"}
    results = []
    try:
        for command in commands:
            process = await asyncio.create_subprocess_exec(program, *command.split(), stdout=-1, stderr=-1, env=env)
            out, err = await asyncio.wait_for(process.communicate(), 30)
            results.append((process.returncode or 0, out.decode(), err.decode()))
    finally:
        await server.stop()
    return results


Docker = Callable[..., list[Result]]


def test_services_are_created_listed_and_removed(docker: Docker) -> None:
    backend = FakeBackend()
    created, listed, removed, gone = docker(
        backend,
        "service create -d --name web --replicas 3 busybox sleep 1d",
        "service ls --format {{.Name}}|{{.Mode}}|{{.Image}}",
        "service rm web",
        "service inspect web",
    )
    assert created[0] == 0, created
    assert backend.requests("CreateService")[0].spec.replicated.replicas == 3
    assert listed[:2] == (0, "web|replicated|busybox:latest\n")
    assert removed[:2] == (0, "web\n")
    assert gone[0] != 0


def test_a_create_is_watched_until_its_tasks_run(docker: Docker) -> None:
    class Running(FakeBackend):
        def _CreateService(self, request: Any) -> Any:
            made = super()._CreateService(request)
            self.add_task(made.service)
            return made

    (created,) = docker(Running(), "service create --name web --update-monitor 1ms busybox sleep 1d")
    assert created[0] == 0, created
    assert "overall progress: 1 out of 1 tasks" in created[1]
    assert "onverged" in created[1]


def test_service_ls_shows_the_counts(docker: Docker) -> None:
    backend = FakeBackend()
    web = backend.add_service("web")
    backend.statuses = [
        pb.ListServiceStatusesResponse.ServiceStatus(service_id=web.id, desired_tasks=3, running_tasks=2)
    ]
    ((code, out, err),) = docker(backend, "service ls --format {{.Replicas}}")
    assert (code, out, err) == (0, "2/3\n", "")


def test_service_ps_and_inspect_read_what_is_served(docker: Docker) -> None:
    backend = FakeBackend()
    made = backend.add_task(backend.add_service("web"))
    ps, inspect, nobody = docker(
        backend,
        "service ps web --no-trunc --format {{.ID}}|{{.Name}}|{{.Node}}|{{.DesiredState}}",
        "service inspect web --pretty",
        "service ps nosuch",
    )
    assert ps[:2] == (0, f"{made.id}|web.1|vm|Running\n"), ps
    assert inspect[0] == 0, inspect
    assert "Name:\t\tweb" in inspect[1]
    assert (nobody[0], nobody[2].strip()) == (1, "no such service: nosuch")


def test_a_pretty_service_names_its_networks(docker: Docker) -> None:
    backend = FakeBackend()
    backend.add_service("web").spec.task.networks.add(target="net1")
    network = Network(id="net1")
    network.spec.annotations.name = "front"
    backend.networks["net1"] = network
    (inspect,) = docker(backend, "service inspect web --pretty")
    assert "Networks: front" in inspect[1], inspect


def test_services_are_scaled_updated_and_rolled_back(docker: Docker) -> None:
    backend = FakeBackend()
    web = backend.add_service("web")
    web.previous_spec.CopyFrom(web.spec)
    results = docker(
        backend,
        "service scale -d web=5",
        "service update -d --env-add A=1 web",
        "service update -d --force web",
        "service update -d --rollback web",
        "service rollback -d web",
        "service scale -d nosuch=1",
        "service rollback -d nosuch",
    )
    assert [code for code, _, _ in results] == [0, 0, 0, 0, 0, 1, 1], results
    scale, env, force, old, new = backend.requests("UpdateService")
    assert scale.spec.replicated.replicas == 5
    assert list(env.spec.task.container.env) == ["A=1"]
    assert force.spec.task.force_update == 1
    assert [old.rollback, new.rollback] == [pb.UpdateServiceRequest.PREVIOUS] * 2
    assert {request.service_version.index for request in (scale, env, force, old, new)} == {12}
    for _, out, err in results[5:]:
        # The two command lines word a 404 differently.
        assert "service nosuch not found" in out + err or "No such service: nosuch" in out + err


@pytest.mark.parametrize("tty", [False, True])
def test_logs_are_read_with_and_without_a_terminal(docker: Docker, tty: bool) -> None:
    backend = FakeBackend()
    service = backend.add_service("web")
    service.spec.task.container.tty = tty
    task = backend.add_task(service)
    context = logs_pb2.LogContext(service_id=service.id, node_id=NODE_ID, task_id=task.id)
    backend.log_batches = [
        logs_pb2.SubscribeLogsMessage(
            messages=[
                logs_pb2.LogMessage(context=context, data=b"hello\n", stream=logs_pb2.LOG_STREAM_STDOUT),
                logs_pb2.LogMessage(context=context, data=b"oops\n", stream=logs_pb2.LOG_STREAM_STDERR),
            ]
        )
    ]
    logs, nobody = docker(backend, f"service logs --no-trunc {'--raw' if tty else ''} web", "service logs nosuch")
    assert nobody[0] == 1
    assert "no such task or service: nosuch" in nobody[2]
    assert logs[0] == 0, logs
    if tty:
        assert logs[1] == "hello\noops\n"
    else:
        assert logs[1] == f"web.1.{task.id}@vm    | hello\n"
        assert logs[2] == f"web.1.{task.id}@vm    | oops\n"


def test_nodes_info_and_the_swarm_are_read(docker: Docker) -> None:
    backend = FakeBackend()
    nodes, ps, info, token, ca, version = docker(
        backend,
        "node ls --format {{.Hostname}}|{{.Status}}|{{.ManagerStatus}}|{{.Self}}",
        "node ps",
        "info --format {{.Swarm.LocalNodeState}}|{{.Swarm.ControlAvailable}}|{{.Swarm.NodeID}}",
        "swarm join-token -q worker",
        "swarm ca",
        "version --format {{.Server.APIVersion}}",
    )
    assert nodes[:2] == (0, "vm|Ready|Leader|true\n"), nodes
    assert ps[0] == 0, ps
    assert info[:2] == (0, f"active|true|{NODE_ID}\n"), info
    assert token[:2] == (0, "SWMTKN-1-w\n"), token
    assert ca[1].startswith("-----BEGIN CERTIFICATE-----"), ca
    assert version[:2] == (0, "1.45\n"), version


@pytest.mark.parametrize("able", [True, False])
def test_info_warns_of_what_the_host_lacks_and_of_nothing_else(docker: Docker, able: bool) -> None:
    class Host(FakeBackend):
        async def system(self) -> SystemInfo:
            features = frozenset(FEATURES) if able else frozenset(FEATURES) - {"MemoryLimit"}
            return dataclasses.replace(await super().system(), features=features, warnings=())

    (info,) = docker(Host(), "info")
    assert info[0] == 0, info
    assert "Swarm: active" in info[1]
    warned = [line for line in info[2].splitlines() if "WARNING" in line]
    # The newer command line leaves warnings to the daemon.
    assert warned in ([], [] if able else ["WARNING: No memory limit support"])


def test_nodes_are_updated_promoted_and_removed(docker: Docker) -> None:
    backend = FakeBackend()
    update, promote, demote, gone, removed = docker(
        backend,
        "node update --availability drain --label-add a=b vm",
        "node promote vm",
        "node demote vm",
        "node demote nosuch",
        "node rm --force vm",
    )
    assert update[:2] == (0, "vm\n")
    assert promote[:2] == (0, f"Node {NODE_ID} is already a manager.\n")
    assert demote[:2] == (0, "Manager vm demoted in the swarm.\n")
    assert "node nosuch not found" in gone[2] or "No such node: nosuch" in gone[2]
    assert removed[:2] == (0, "vm\n")
    drained, demoted = backend.requests("UpdateNode")
    assert (drained.spec.availability, dict(drained.spec.annotations.labels)) == (2, {"a": "b"})
    assert demoted.spec.desired_role == 0
    assert [request.force for request in backend.requests("RemoveNode")] == [True]


def test_the_swarm_is_updated_and_its_tokens_are_rotated(docker: Docker) -> None:
    backend = FakeBackend()
    update, rotate, key = docker(
        backend,
        "swarm update --task-history-limit 7 --cert-expiry 48h",
        "swarm join-token --rotate -q manager",
        "swarm unlock-key",
    )
    assert update[:2] == (0, "Swarm updated.\n"), update
    assert rotate[:2] == (0, "SWMTKN-1-m\n"), rotate
    assert key[0] != 0 or "no unlock key" in key[2].lower()
    changed, rotated = (what for what in backend.did if what[0] == "update")
    assert changed[2].orchestration.task_history_retention_limit == 7
    assert changed[2].ca_config.node_cert_expiry.seconds == 48 * 3600
    assert (rotated[3].manager_join_token, rotated[3].worker_join_token) == (True, False)


def test_swarm_init_and_leave_speak_to_the_cluster(docker: Docker) -> None:
    backend = FakeBackend()
    init, leave = docker(backend, "swarm init --advertise-addr 127.0.0.1", "swarm leave --force")
    assert init[0] == 0, init
    assert "docker swarm join --token SWMTKN-1-w 127.0.0.1:2377" in init[1]
    assert leave[0] == 0
    assert [what[0] for what in backend.did] == ["init", "inspect", "leave"]


def test_what_is_not_there_is_said_as_the_engine_says_it(docker: Docker) -> None:
    backend = FakeBackend()
    secret = Secret(id="sec1")
    secret.spec.annotations.name = "s1"
    backend.secrets["sec1"] = secret
    network, wrong_secret, listed, stack = docker(
        backend,
        "service create -d --network nosuch busybox",
        "service create -d --secret nosuch busybox",
        "secret ls --format {{.Name}}",
        "stack rm nosuch",
    )
    assert "nosuch" in network[2]
    assert network[2].strip() in (
        "Error response from daemon: network nosuch not found", "Error: No such network: nosuch",
    )  # fmt: skip
    assert wrong_secret[2].strip() == "secret not found: nosuch"
    assert listed[:2] == (0, "s1\n")
    assert "Nothing found in stack: nosuch" in stack[1] + stack[2]
    assert backend.requests("CreateService") == []


def test_what_is_not_offered_is_told_to_the_user(docker: Docker) -> None:
    ((code, _, err),) = docker(FakeBackend(), "volume create data")
    assert code != 0
    assert "makes and removes no volumes" in err


def test_a_node_out_of_any_swarm_says_how_to_begin_and_can(docker: Docker) -> None:
    stage = Stage()
    settings = ClusterSettings("n1", lambda: (CARD,))
    cluster = stage.mount("cluster", ClusterActor, settings, MemoryState(), fake_node(Behaviour()))
    transport: Any = None  # no logs are read here
    host = SystemInfo(name="vm", ncpu=1, mem_total=1, server_version="1", root_dir="/", executor="process")
    refused = ("node ls", "service ls", "service create busybox", "swarm ca", "swarm join-token worker", "secret ls")
    try:
        results = docker(
            ClusterBackend(cluster, transport, "", lambda: host),
            *refused,
            "swarm leave",
            "swarm init --listen-addr bogus:1",
            "swarm join --token t 10.0.0.1:2377",
            "info --format {{.Swarm.LocalNodeState}}|{{.Swarm.NodeID}}",
            "swarm leave",
            "swarm leave --force",
        )
    finally:
        assert stage.close()
    for command, (code, _, err) in zip(refused, results, strict=False):
        assert (code, err.strip()) == (1, f"Error response from daemon: {say.NOT_MANAGER_NO_NODE}"), command
    leave, init, join, info, kept, left = results[len(refused) :]
    assert leave[2].strip() == f"Error response from daemon: {say.NO_SWARM}"
    assert "listen address must be an IP address or network interface" in init[2]
    # The command line asks at once, and the manager's control API may come a moment after the node.
    assert join[1] in (f"This node joined a swarm as a {role}.\n" for role in ("manager", "worker"))
    assert info[1] == "active|node-id\n"
    assert "Removing the last manager erases all current state of the swarm" in kept[2]
    assert left[1] == "Node left the swarm.\n"
