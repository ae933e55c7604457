"""A request's trace id goes with it: through answers, and over the wire to the manager that leads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.replicated_actor import ReplicatedActor
from runtime.introspection import recording
from runtime.introspection.tracing import Tracing, checked
from runtime.protocol.manager import LeaderContext
from runtime.protocol.store import WriteBatch
from runtime.stage.cell import Cell
from runtime.stage.mailbox import Envelope
from runtime.stage.simulator import Simulator
from runtime.store.transaction import Transaction
from runtime.store.view import Published
from runtime.wire.pb import objects_pb2
from swarmlet import TestCluster

MANAGER = "/cluster/node/manager"
SPEC = {"ContainerSpec": {"Image": "host", "Command": ["sleep", "1"]}}


def test_a_write_through_a_follower_has_one_trace_id_on_both_managers() -> None:
    with TestCluster(managers=3, seed=3) as c:
        seen: list[tuple[str, str, str, int]] = []

        def observe(cell: Cell, envelope: Envelope) -> None:
            seen.append((cell.stage.world.name, cell.path, type(envelope[0]).__name__, envelope[4]))

        follower = next(name for name in c.managers if name != c.leader)
        c.swarm.simulator.observers.append(observe)
        assert c.api(follower).post("/services/create", {"Name": "x", "TaskTemplate": SPEC}).status == 201
        asked = [trace for node, _path, kind, trace in seen if (node, kind) == (follower, "Control")]
        trace = asked[0]
        there = {(path, kind) for node, path, kind, id_ in seen if id_ == trace and node == c.leader}
        assert {(f"{MANAGER}/control", "Incoming"), (f"{MANAGER}/store", "Write")} <= there
        here = {(path, kind) for node, path, kind, id_ in seen if id_ == trace and node == follower}
        assert {(f"{MANAGER}/control", "Control"), (f"{MANAGER}/proxy", "ToLeader")} <= here
        strangers = {node for node, _path, _kind, id_ in seen if id_ == trace} - {follower, c.leader}
        assert strangers == set(), "ids of nodes do not meet"


def test_a_created_service_is_followed_from_the_api_to_its_running_task() -> None:
    with TestCluster(managers=3, workers=1, seed=4) as c:
        follower = next(name for name in c.managers if name != c.leader)
        for name in c.managers:
            c.api().post(f"/nodes/{node_id(c, name)}/update?version={version(c, name)}", DRAINED)
        c.advance(5)
        with c.trace(f"{follower}:/cluster", "Control", follow=True) as trace:
            made = c.api(follower).post("/services/create", {"Name": "x", "TaskTemplate": SPEC}).value
            c.wait_running(made["ID"], 1)
        way = [(each.node, each.path.removeprefix("/cluster/node/"), each.type) for each in trace.deliveries]
        leader, task = c.leader, f"agent/task-{c.tasks(made['ID'])[0].id}"
        steps = [
            (follower, "/cluster", "Control"),
            (follower, "manager/proxy", "ToLeader"),
            (leader, "manager/store", "Write"),
            (leader, "manager/store", "Entries"),
            (leader, "manager/leader/replicated", "Commits"),
            (leader, "manager/leader/allocator", "Commits"),
            (leader, "manager/leader/scheduler", "_Due"),
            (leader, "manager/leader/dispatcher", "_Quiet"),
            ("worker-1", "agent", "Assignments"),
            ("worker-1", task, "RunTask"),
            ("worker-1", "agent/session", "SendStatuses"),
            (leader, "manager/leader/dispatcher", "Incoming"),
            (leader, "manager/leader/dispatcher", "_Flush"),
            (leader, "manager/store", "Entries"),
        ]
        rest = iter(way)
        missing = [step for step in steps if step not in rest]
        assert missing == [], "in this order, each came of what was before it"
        assert not any(kind in ("RaftTick", "_Beat", "_CheckDeadlines") for _node, _path, kind in way)


def test_what_others_do_meanwhile_is_not_in_a_trace_that_follows() -> None:
    with TestCluster(managers=1, workers=1, seed=5) as c:
        other = c.create_service("other", replicas=2)
        c.wait_running(other, 2)
        with c.trace("manager-1:/cluster", "Control", limit=5000, follow=True) as trace:
            made = c.api().post("/services/create", {"Name": "x", "TaskTemplate": SPEC}).value["ID"]
            c.wait_running(made, 1)
            c.swarm.host("worker-1").executor.kill(c.tasks(other)[0].id)
            c.advance(20)
        paths = {each.path for each in trace.deliveries}
        assert any(f"task-{task.id}" in path for task in c.tasks(made) for path in paths)
        assert not any(f"task-{task.id}" in path for task in c.tasks(other) for path in paths)


DRAINED = {"Availability": "drain", "Role": "manager"}


def node_id(c: TestCluster, name: str) -> str:
    return next(node["ID"] for node in nodes(c) if node["Description"]["Hostname"] == name)


def version(c: TestCluster, name: str) -> int:
    return next(node["Version"]["Index"] for node in nodes(c) if node["Description"]["Hostname"] == name)


def nodes(c: TestCluster) -> list[dict[str, Any]]:
    return list(c.api().get("/nodes").value)


def test_what_an_orchestrator_was_told_is_told_again_to_a_fresh_one_which_decides_alike(tmp_path: Path) -> None:
    path, saved = f"{MANAGER}/leader/replicated", tmp_path / "tuesday.trace"
    with TestCluster(managers=1, seed=3) as c:
        stage = c.swarm.host("manager-1").stage
        assert stage is not None
        trace = Tracing(stage).begin(checked([path], ["Commits"], count=1, bodies=True), lambda: None)
        web = c.create_service("web", 3)
        c.wait_running(web, 3)
        recording.save(saved, [recording.plain(each) for each in trace.take()])
    _, records = recording.load(saved)
    simulator = Simulator(seed=4)
    stage = simulator.node("test")
    store, published = stage.probe("store"), Published()
    context = LeaderContext("n1", "c1", store.address, published, None)  # type: ignore[arg-type]  # it calls nobody
    orchestrator = stage.mount("under-test", ReplicatedActor, context)
    assert recording.replay(records, path, orchestrator, stage.at, published=published) == []
    service = published.view.get(objects_pb2.Service, web)
    assert service is not None
    assert service.spec.replicated.replicas == 3
    (step,) = store.expect(WriteBatch).steps
    transaction = Transaction(published.view, None, 0.0)
    step(transaction)
    made = [each.new.service_id for each in transaction.changes if each.kind is objects_pb2.Task]
    assert made == [web] * 3
