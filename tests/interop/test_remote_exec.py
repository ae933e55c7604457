"""docker exec at a manager of ours, beside tasks of nodes of every kind, and under a leader that is a dockerd."""

from __future__ import annotations

from runtime.engine_api.remote_access import NOT_OFFERED
from tests.interop.fixtures import Start
from tests.interop.peers import Dockerd, Swarmlet
from tests.interop.test_containers import Engine, node
from tests.waiting import until


def test_containers_of_another_node_are_reached_and_a_dockerds_are_named_as_such(start: Start) -> None:
    manager, engine, theirs = start(Swarmlet, "alpha"), start(Engine, "beta"), start(Dockerd, "gamma")
    contained = node(start, engine, "delta")
    manager.init()
    for worker in (contained, theirs):
        worker.join(manager)
    manager.create("web", "busybox:latest", "--constraint", "engine.labels.swarmlet.executor==container")
    manager.create("far", "busybox:latest", "--constraint", "node.hostname==gamma")
    manager.wait_tasks("web", 1)
    manager.wait_tasks("far", 1)
    assert manager.try_docker("exec", "web.1", "sh", "-c", "echo out; echo err >&2; exit 3") == (3, "out\n", "err\n")
    (here,) = engine.docker("ps", "-q", "--filter", "name=web").split()
    assert manager.docker("exec", here, "cat", "/etc/hostname").strip() == here
    assert "sleep" in manager.docker("top", "web.1")
    assert manager.docker("stats", "--no-stream", "--format", "{{.Name}}", "web.1").startswith("web.1.")
    assert manager.try_docker("exec", "web.1", "nosuch")[0] in (126, 127)
    refused = manager.refused("exec", "far.1", "true")
    assert "gamma, is a dockerd, which is reached at itself alone: run the command there" in refused


def test_under_a_leader_that_is_a_dockerd_it_is_refused_in_a_sentence_and_nodes_say_nothing_of_it(start: Start) -> None:
    leader, manager, worker = start(Dockerd, "alpha"), start(Swarmlet, "beta"), start(Swarmlet, "gamma")
    leader.init()
    manager.join(leader, "manager")
    worker.join(manager)
    leader.wait_state(worker, "ready")
    leader.create("web", "host:latest", "--constraint", "node.hostname==gamma")
    leader.wait_tasks("web", 1)
    until(lambda: manager.tasks("web"), "our manager knows the task")
    assert manager.refused("exec", "web.1", "true").endswith(NOT_OFFERED)
    said = worker.tail().lower()
    assert "unimplemented" not in said
    assert "access" not in said
