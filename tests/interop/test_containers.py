"""A swarmlet node whose tasks are containers of a real engine: as the engine's own swarm runs them, whatever befalls
daemon and engine."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.interop.fixtures import Start
from tests.interop.lab import Lab
from tests.interop.peers import Dockerd, Peer, Swarmlet, busybox_image
from tests.waiting import until

FLAGS = ("--detach", "--no-resolve-image", "--restart-condition", "none", "--stop-grace-period", "1s")


class Engine(Dockerd):
    """dockerd with a bridge, so that its containers have ports."""

    def command(self) -> list[str]:
        return [each for each in super().command() if each != "--bridge=none"] + ["--ip-masq=false"]


class Contained(Swarmlet):
    """A swarmlet daemon beside an engine, on its machine."""

    def __init__(self, engine: Peer, name: str) -> None:
        self.lab, self.name, self.engine = engine.lab, name, engine
        self.namespace, self.address = engine.namespace, engine.address
        self.root = engine.lab.root / name
        self.root.mkdir()
        self.socket, self.log, self.process = self.root / "s", self.root / "log", None

    def command(self) -> list[str]:
        plain = [each for each in super().command() if each != "--stop-tasks-on-exit"]
        return [*plain, "--executor", "docker", "--engine-socket", str(self.engine.socket)]


class Local(Contained):
    """One whose networks are its engine's."""

    def command(self) -> list[str]:
        return [*super().command(), "--local-networks"]


def node(start: Start, engine: Peer, name: str = "beta") -> Contained:
    """A node beside an engine."""
    return start(lambda lab, name: Contained(engine, name), name)  # type: ignore[return-value, arg-type]


@pytest.fixture
def engine(start: Start) -> Peer:
    return start(Engine, "alpha")


def task_of(manager: Peer, service: str) -> dict[str, Any]:
    """A service's only task, once there is one."""
    (task,) = until(lambda: manager.get("/tasks", service=service), f"{service} has a task")
    return dict(task)


def ended(manager: Peer, service: str) -> tuple[str, str, int]:
    """How a service's only task ended: state, error, exit code."""

    def over() -> dict[str, Any] | None:
        status = task_of(manager, service)["Status"]
        return status if status["State"] in ("complete", "failed", "rejected", "shutdown") else None

    status = until(over, f"the task of {service} has ended")
    return status["State"], status.get("Err", ""), status.get("ContainerStatus", {}).get("ExitCode", 0)


def containers(engine: Peer) -> list[str]:
    """The names of the containers that there are."""
    return engine.docker("ps", "--all", "--format", "{{.Names}}").split()


def test_a_service_lives_as_containers_of_the_engine(start: Start, engine: Peer, lab: Lab) -> None:
    manager = node(start, engine)
    manager.init()
    script = "echo to stdout; echo to stderr >&2; echo $SLOT > /tmp/slot; exec httpd -f -p 80 -h /tmp"
    manager.docker(
        "service", "create", *FLAGS[:2], "--name", "web", "--replicas", "2", "--publish", "8080:80",
        "--env", "SLOT={{.Task.Slot}}", "--stop-grace-period", "1s", "busybox:latest", "sh", "-c", script,
    )  # fmt: skip
    manager.wait_tasks("web", 2)
    assert sorted(name[:6] for name in containers(engine)) == ["web.1.", "web.2."]
    until(lambda: manager.docker("service", "logs", "web").count("to stdout") == 2, "the logs come")

    heard: set[str] = set()

    def both() -> bool:
        heard.add(wget(engine, "127.0.0.1:8080/slot"))
        return heard >= {"1", "2"}

    until(both, "both answer at the published port")
    here = manager.docker("ps", "--quiet", "--no-trunc").split()
    assert sorted(here) == sorted(engine.docker("ps", "--quiet", "--no-trunc").split())
    assert "httpd" in manager.docker("top", here[0])
    images = ("images", "--format", "{{.ID}} {{.Repository}} {{.Size}}")
    info = ("info", "--format", "{{.Images}} {{.CgroupDriver}} {{.LoggingDriver}} {{.MemoryLimit}}")
    for asked in (images, info, ("image", "inspect", "busybox"), ("inspect", *sorted(here)), ("volume", "ls")):
        assert manager.docker(*asked) == engine.docker(*asked)
    assert manager.docker("system", "df", "--format", "{{.Type}} {{.Size}}") == engine.docker(
        "system", "df", "--format", "{{.Type}} {{.Size}}"
    )
    assert "prune them there" in manager.refused("image", "prune", "--force")
    manager.docker("service", "scale", "--detach", "web=1")
    until(lambda: len(engine.docker("ps", "--quiet").split()) == 1, "one container runs")
    manager.docker("service", "rm", "web")
    until(lambda: containers(engine) == [], "nothing is left")


def test_ends_are_told_as_the_engines_own_swarm_tells_them(start: Start, engine: Peer) -> None:
    """The same services at dockerd's swarm and at ours: the same words."""
    cases: dict[str, tuple[str, ...]] = {
        "good": ("busybox:latest", "true"),
        "bad": ("busybox:latest", "sh", "-c", "exit 3"),
        "nocmd": ("busybox:latest", "nosuch"),
        "noimage": ("nosuch:1", "x"),
        "nobind": ("--mount", "type=bind,source=/nosuch,target=/x", "busybox:latest", "x"),
        "sick": (
            "--health-cmd", "false", "--health-interval", "200ms", "--health-retries", "1", "busybox:latest",
            "sleep", "100",
        ),
    }  # fmt: skip
    told = {}
    ours = node(start, engine)
    for peer in (engine, ours):
        peer.init()
        for name, words in cases.items():
            peer.docker("service", "create", *FLAGS, "--name", name, *words)
        told[peer.name] = {name: ended(peer, name) for name in cases}
        peer.docker("swarm", "leave", "--force")
    assert told["beta"] == told["alpha"]
    assert told["beta"]["bad"] == ("failed", "task: non-zero exit (3)", 3)
    until(lambda: containers(engine) == [], "nothing is left")


def spec(bind: Path) -> dict[str, Any]:
    """A service that asks for everything that a container can be given."""
    container = {
        "Image": "busybox:latest", "Command": ["sleep"], "Args": ["1000"], "Labels": {"own": "label"},
        "Env": ["SLOT={{.Task.Slot}}", "PLAIN=1"], "Hostname": "h-{{.Service.Name}}", "Dir": "/tmp",
        "User": "1000:1000", "Groups": ["2000"], "ReadOnly": True, "Init": False, "StopSignal": "SIGINT",
        "StopGracePeriod": 3_000_000_000,
        "TTY": True, "OpenStdin": True, "Hosts": ["10.0.0.1 one alias"], "Isolation": "default",
        "DNSConfig": {"Nameservers": ["10.0.0.2"], "Search": ["example.org"], "Options": ["ndots:3"]},
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 10**9, "Timeout": 2 * 10**9, "Retries": 4},
        "Sysctls": {"net.ipv4.ip_unprivileged_port_start": "80"},
        "CapabilityAdd": ["CAP_NET_ADMIN"], "CapabilityDrop": ["CAP_MKNOD"],
        "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}],
        "Mounts": [
            {"Type": "bind", "Source": str(bind), "Target": "/b", "ReadOnly": True,
             "BindOptions": {"Propagation": "private"}},
            {"Type": "volume", "Source": "v-{{.Service.Name}}", "Target": "/v",
             "VolumeOptions": {"NoCopy": True, "Labels": {"l": "{{.Service.Name}}"}}},
            {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o700}},
        ],
    }  # fmt: skip
    return {
        "Name": "all",
        "TaskTemplate": {
            "ContainerSpec": container,
            "Resources": {"Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 64 << 20, "Pids": 50}},
            "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}},
        },
        "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8081, "PublishMode": "host"}]},
    }


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Every value that is no object, by its path."""
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {key: each for name, inner in value.items() for key, each in leaves(inner, f"{path}/{name}").items()}


CHANCE = (
    "/Id", "/Created", "/State/", "/ResolvConfPath", "/HostnamePath", "/HostsPath", "/LogPath", "/Name",
    "/GraphDriver/", "/NetworkSettings/SandboxID", "/NetworkSettings/SandboxKey", "/Config/Labels/com.docker.swarm.",
    "/NetworkSettings/EndpointID", "/NetworkSettings/Networks/bridge/EndpointID",
)  # fmt: skip
"""What two containers never have in common."""


def test_a_container_is_made_as_the_engines_own_swarm_makes_it(start: Start, engine: Peer) -> None:
    shown, ours = {}, node(start, engine)
    bind = engine.lab.root / "bind"
    bind.mkdir()
    for peer in (engine, ours):
        peer.init()
        status, answer = peer.call("POST", "/services/create", spec(bind))
        assert status == 201, answer
        peer.wait_tasks("all", 1)
        (container,) = engine.docker("ps", "--quiet").split()
        found = json.loads(engine.docker("inspect", container))[0]
        found["Mounts"].sort(key=lambda mount: mount["Destination"])  # they come in any order
        shown[peer.name] = leaves(found)
        peer.docker("swarm", "leave", "--force")
        until(lambda: containers(engine) == [], "its container is gone")
    theirs, mine = shown["alpha"], shown["beta"]
    both = {path for path in {*theirs, *mine} if not path.startswith(CHANCE)}
    different = {path: (theirs.get(path), mine.get(path)) for path in both if theirs.get(path) != mine.get(path)}
    assert set(different) == {"/Config/Labels/swarmlet.owner", "/Config/StopTimeout"}, different
    assert different["/Config/StopTimeout"] == (None, 3)
    names = [{key.rpartition(".")[2] for key in each if "/Config/Labels/com.docker" in key} for each in (theirs, mine)]
    assert names[0] == names[1]


def test_secrets_and_configs_are_read_where_they_were_asked_for(start: Start, engine: Peer) -> None:
    manager = node(start, engine)
    manager.init()
    for kind, text in (("secrets", "hush"), ("configs", "value")):
        body = {"Name": kind, "Data": base64.b64encode(text.encode()).decode()}
        assert manager.call("POST", f"/{kind}/create", body)[0] in (200, 201)
    script = "cat /run/secrets/key /etc/app.conf; echo; id -u > /tmp/x || exit 9; test -w /run/secrets/key || echo kept"
    manager.docker(
        "service", "create", *FLAGS, "--name", "reader", "--secret", "source=secrets,target=key,uid=1000,mode=0400",
        "--config", "source=configs,target=/etc/app.conf", "--user", "1000", "busybox:latest", "sh", "-c", script,
    )  # fmt: skip
    assert ended(manager, "reader") == ("complete", "", 0)
    until(lambda: "kept" in manager.docker("service", "logs", "reader"), "the log comes")
    assert "hushvalue" in manager.docker("service", "logs", "reader")
    left = [path for path in Path("/dev/shm").rglob("secret-*") if engine.lab.root.name in str(path)]
    left += list(manager.root.rglob("secret-*"))
    assert left == []


STACK = """
version: "3.8"
services:
  web:
    image: busybox:latest
    command: sh -c 'cat /proc/sys/kernel/hostname > /tmp/x; exec httpd -f -p 80 -h /tmp'
    hostname: "web-{{.Task.Slot}}"
    deploy: {replicas: 2}
    stop_grace_period: 1s
  ask:
    image: busybox:latest
    command: sh -c 'while true; do wget -qO- http://web/x; sleep 0.2; done'
    stop_grace_period: 1s
"""


def test_a_stack_finds_its_services_by_their_names_where_networks_are_local(start: Start, engine: Peer) -> None:
    manager = start(lambda lab, name: Local(engine, name), "beta")  # type: ignore[arg-type]
    manager.init()
    file = engine.lab.root / "stack.yml"
    file.write_text(STACK)
    manager.docker("stack", "deploy", "--resolve-image", "never", "--compose-file", str(file), "st")
    heard = ("web-1", "web-2")
    until(lambda: all(each in manager.docker("service", "logs", "st_ask") for each in heard), "both are found", 60)
    manager.docker("stack", "rm", "st")
    until(lambda: containers(engine) == [], "nothing is left")
    until(lambda: "swarmlet-" not in engine.docker("network", "ls"), "its network is gone")


FILE = """
services:
  web:
    image: busybox
    command: sh -c "cp /page/hello /data/; exec httpd -f -p 80 -h /data"
    volumes: [data:/data, ./page:/page:ro, {type: tmpfs, target: /scratch}]
    networks: {inner: {aliases: [site]}}
    stop_grace_period: 1s
  ask:
    image: busybox
    command: sh -c "until wget -qO- site/hello; do sleep 0.2; done; sleep 600"
    networks: [inner]
    stop_grace_period: 1s
volumes: {data: }
networks: {inner: }
"""


def test_a_compose_files_containers_have_its_volumes_and_networks(engine: Peer) -> None:
    root = engine.lab.root
    (root / "page").mkdir()
    (root / "page" / "hello").write_text("it is me\n")
    (root / "app.yml").write_text(FILE)
    program = Path(sys.executable).with_name("swarmlet")
    place = {"PATH": os.environ["PATH"], "XDG_STATE_HOME": str(root / "state"), "TMPDIR": str(root)}

    def up(*flags: str) -> str:
        """What two runs of it say, of which the second finds what the first has left."""
        socket = ["--executor", "docker", "--engine-socket", str(engine.socket)]
        words = ["nsenter", f"--net=/run/netns/{engine.namespace}", program, "up", root / "app.yml", *socket, *flags]
        done = subprocess.run([*map(str, words)], capture_output=True, timeout=120, check=False, env=place)
        return f"{done.returncode} {done.stdout.decode()} {done.stderr.decode()}"

    assert "with --local-networks each node has this one as its own" in up("--for", "1")
    for told in ("created network app_inner", "app_ask: 1/1 converged"):
        said = up("--local-networks", "--for", "12")
        assert said.startswith("0 "), said
        assert told in said
        assert "it is me" in said
    assert "created network" not in said
    volume = json.loads(engine.docker("volume", "inspect", "app_data"))[0]
    assert volume["Labels"] == {"com.docker.stack.namespace": "app"}
    assert running(engine) == []


def test_tasks_outlive_daemons_and_engines_and_none_runs_twice(start: Start, engine: Peer) -> None:
    manager = node(start, engine)
    manager.init()
    manager.create("web", "busybox:latest", "--replicas", "2")
    manager.wait_tasks("web", 2)
    before = sorted(engine.docker("ps", "--quiet", "--no-trunc").split())
    manager.kill()
    engine.docker("kill", before[0])
    manager.start()
    until(lambda: len(running(engine)) == 2, "the dead one is replaced")
    assert before[1] in running(engine), "the other one was left alone"
    until(
        lambda: states(manager) == ["failed", "running", "running"],
        "it failed",
        tell=lambda: manager.docker("service", "ps", "--no-trunc", "web"),
    )
    engine.signal(signal.SIGTERM)  # an engine that stops stops its containers
    assert engine.process is not None
    engine.process.wait(60)
    engine.start()
    until(lambda: len(running(engine)) == 2 and states(manager).count("running") == 2, "both are replaced", 60)
    assert len(states(manager)) == 5
    assert set(running(engine)).isdisjoint(before)
    manager.docker("service", "rm", "web")
    until(lambda: containers(engine) == [], "nothing is left")


def states(manager: Peer) -> list[str]:
    return sorted(each["Status"]["State"] for each in manager.get("/tasks", service="web"))


def wget(peer: Peer, url: str) -> str:
    """What a machine hears at an address."""
    entered = ["nsenter", f"--net=/run/netns/{peer.namespace}", "busybox", "wget", "-qO-", url]
    return subprocess.run(entered, capture_output=True, check=False, timeout=60).stdout.decode().strip()


def test_a_node_of_processes_hands_connections_to_containers_of_another(start: Start, engine: Peer) -> None:
    manager, worker = start(Swarmlet, "gamma"), node(start, engine)
    manager.init()
    worker.join(manager)
    manager.wait_state(worker, "ready")
    script = "echo here > /tmp/x; exec httpd -f -p 80 -h /tmp"
    manager.create("web", "busybox:latest", "--publish", "8080:80", command=("sh", "-c", script))
    manager.create("mine", "host", command=("sleep", "1000"))
    manager.wait_tasks("web", 1, at=worker)
    manager.wait_tasks("mine", 1, at=manager)
    until(lambda: wget(manager, "127.0.0.1:8080/x") == "here", "the other node's container answers")
    assert len(running(engine)) == 1


class Podman(Peer):
    """Podman's service, with an image ``busybox``."""

    kind = "podman"

    def command(self) -> list[str]:
        (self.root / "conf").write_text('[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n')
        roots = ["--root", str(self.root / "data"), "--runroot", str(self.root / "x"), "--storage-driver", "vfs"]
        plain = ["--cgroup-manager", "cgroupfs", "--events-backend", "file"]
        environment = ["env", f"CONTAINERS_CONF={self.root / 'conf'}"]
        return [*environment, "podman", *roots, *plain, "system", "service", "-t", "0", f"unix://{self.socket}"]

    def start(self) -> None:
        super().start()
        self.docker("import", str(busybox_image(self.lab)), "busybox:latest")


@pytest.mark.skipif(shutil.which("podman") is None, reason="there is no podman here")
def test_podman_runs_a_service_and_tells_its_ends(start: Start) -> None:
    engine = start(Podman, "alpha")
    manager = node(start, engine)
    manager.init()
    described = manager.get("/nodes")[0]["Description"]["Engine"]["Labels"]
    assert described["swarmlet.engine"] == "podman"
    script = "echo said; echo here > /tmp/x; exec httpd -f -p 80 -h /tmp"
    manager.create("web", "busybox:latest", "--publish", "8080:80", command=("sh", "-c", script))
    cases = {
        "bad": ("busybox:latest", "sh", "-c", "exit 3"),
        "noimage": ("nosuch:1", "x"),
        "sick": (
            "--health-cmd",
            "false",
            "--health-interval",
            "100ms",
            "--health-retries",
            "1",
            "busybox",
            "sleep",
            "9",
        ),
    }
    for name, words in cases.items():
        manager.docker("service", "create", *FLAGS, "--name", name, *words)
    assert ended(manager, "bad") == ("failed", "task: non-zero exit (3)", 3)
    assert ended(manager, "noimage")[:2] == ("rejected", "No such image: nosuch:1")
    assert ended(manager, "sick")[1] == "task: non-zero exit (137): dockerexec: unhealthy container"
    manager.wait_tasks("web", 1)
    until(lambda: wget(manager, "127.0.0.1:8080/x") == "here", "it answers at the published port")
    until(lambda: "said" in manager.docker("service", "logs", "web"), "its log comes")
    manager.docker("service", "rm", "web", *cases)
    until(lambda: containers(engine) == [], "nothing is left")


def running(engine: Peer) -> list[str]:
    return engine.docker("ps", "--quiet", "--no-trunc").split()
