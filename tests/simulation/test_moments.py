"""The moments of a swarm's life that whoever runs it wants to know of: each is said once, by whom it happens to, with
its ids, and without secrets; between them there is silence."""

from __future__ import annotations

import ast
import logging
import pathlib
import re

import pytest

from runtime.disk.ballast import Space
from runtime.protocol.cluster import Inspect, Leave, Update
from runtime.stage.observe import Moment
from runtime.wire.pb import control_pb2
from runtime.wire.pb import types_pb2 as types
from swarmlet import TestCluster
from swarmlet.logs import JsonFormatter

ROOT = pathlib.Path(__file__).resolve().parents[2]
Said = tuple[str, str, str]


class Ear:
    """Hears what all nodes say. ``take`` is what was said since."""

    def __init__(self, c: TestCluster) -> None:
        self.all: list[tuple[str, Moment]] = []
        self._taken = 0
        for host in c.swarm.hosts:
            assert host.stage is not None
            host.stage.moment_listeners.append(lambda moment, name=host.name: self.all.append((name, moment)))

    def take(self) -> list[Said]:
        new, self._taken = self.all[self._taken :], len(self.all)
        return [(name, moment.type, moment.action) for name, moment in new]

    @property
    def last(self) -> Moment:
        return self.all[-1][1]


def everyone(c: TestCluster, *said: str) -> list[Said]:
    return sorted((name, *said) for name in c.nodes)  # type: ignore[misc]


def test_the_life_of_a_swarm(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="swarmlet"), TestCluster(managers=3, workers=1, seed=5) as c:
        ear = Ear(c)
        first = c.leader
        bad = c.create_service("bad", command=["exit", "3", "after", "1"], constraints=["node.role==worker"])
        c.run_until(lambda: any(said == ("worker-1", "task", "fail") for said in ear.take()))
        failed = ear.last
        task = next(each for each in c.tasks(bad) if each.id == failed.id)
        assert failed.attributes["service_id"] == bad == task.service_id
        assert failed.attributes["exit_code"] == "3"
        assert failed.attributes["text"] == f"task {task.id} of service bad failed: task: non-zero exit (3)"
        assert c.api().delete("/services/bad").status == 200
        c.advance(30)
        ear.take()

        web = c.create_service("web", 2)
        c.wait_running(web, 2)
        c.advance(120)
        assert ear.take() == [], "what goes well is not said"

        cluster = c.ask(Inspect())
        tokens = [cluster.root_ca.join_tokens.worker, cluster.root_ca.join_tokens.manager]
        cluster.spec.ca_config.force_rotate += 1
        c.ask(Update(cluster.meta.version.index, cluster.spec, control_pb2.KeyRotation()))
        c.run_until(lambda: not c.ask(Inspect()).root_ca.HasField("root_rotation"))
        said = ear.take()
        assert (said[0], said[-1]) == ((first, "root", "rotate"), (first, "root", "replace"))
        assert sorted(said[1:-1]) == everyone(c, "certificate", "renew")

        c.partition({first})
        c.run_until(lambda: c.leader != first)
        second = c.leader
        c.advance(30)
        said = ear.take()
        assert sorted(said) == sorted([(first, "manager", "follow"), (second, "manager", "lead")])
        c.heal()
        c.advance(10)
        ear.take()

        node = next(each for each in c.control("ListNodes").nodes if each.description.hostname == first)
        node.spec.desired_role = types.WORKER
        c.control("UpdateNode", node_id=node.id, node_version=node.meta.version, spec=node.spec)
        c.run_until(lambda: c.swarm.host(first).cell("/cluster/node/manager") is None)
        c.advance(5)
        assert sorted(ear.take()) == sorted([(second, "member", "remove"), (first, "certificate", "renew")])
        c.ask(Leave(False), "worker-1")
        assert ear.take() == [("worker-1", "swarm", "leave")]
        tokens += [c.ask(Inspect()).root_ca.join_tokens.worker]

    lines = [JsonFormatter().format(record) for record in caplog.records]
    said_first = [line for line in lines if '"node": "manager-1.1"' in line]
    assert "leads in term" in said_first[0]
    assert any("node is ready: a worker of the swarm" in line for line in lines)
    assert not [line for line in lines if '"node"' not in line or '"actor"' not in line]
    assert not [token for token in tokens if any(token in line for line in lines)]


def test_a_disk_that_fills_up_is_told_of_and_so_is_its_end() -> None:
    with TestCluster(managers=1, seed=5) as c:
        ear, files = Ear(c), c.swarm.host("manager-1").disk.files
        c.advance(2)
        free = files.free
        for left, action in ((32 << 20, "low"), (0, "none"), (free, "ample")):
            files.free = left
            c.advance(3)
            assert ear.take() == [("manager-1", "disk", action)]


def test_the_moments_in_the_documents_are_those_in_the_code() -> None:
    text = (ROOT / "docs/embedding.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z]+)` \| ((?:`[a-z]+`(?:, )?)+) \|", text, re.MULTILINE)
    documented = {kind: set(re.findall("[a-z]+", actions)) for kind, actions in rows if kind != "type"}
    said: dict[str, set[str]] = {}
    for path in sorted((ROOT / "actors").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        words = {each.value for each in ast.walk(tree) if isinstance(each, ast.Constant)}
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "moment":
                kind = call.args[1]
                assert isinstance(kind, ast.Constant)
                said.setdefault(kind.value, set()).update(word for word in words if isinstance(word, str))
    said["disk"] |= {space.value for space in Space}
    assert documented.keys() == said.keys()
    for kind, actions in documented.items():
        assert actions <= said[kind], f"{kind} has no {actions - said[kind]}"
