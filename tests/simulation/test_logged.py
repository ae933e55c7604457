"""What a raised log level shows: who leads, who is registered, where a task goes and how it fares there."""

from __future__ import annotations

import logging

import pytest

from swarmlet import TestCluster


def test_the_way_of_a_task_is_in_the_log_at_debug_with_fields_and_only_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, logger="swarmlet"), TestCluster(managers=1, workers=1, seed=3) as cluster:
        service = cluster.create_service(replicas=1)
        cluster.wait_running(service, 1)
        (task,) = cluster.tasks(service)
        told = [(each.name, each.getMessage(), each.levelno, vars(each)) for each in caplog.records]

    def said(logger: str, text: str) -> list[tuple[int, dict[str, object]]]:
        return [(level, fields) for name, message, level, fields in told if name == logger and text in message]

    ((level, fields),) = said("swarmlet.raft", "leads in term")
    assert (level, fields["actor"]) == (logging.INFO, "/cluster/node/manager/raft")
    assert len(said("swarmlet.dispatcher", "registered from")) >= 2
    assert len(said("swarmlet.agent", "a session with")) >= 2
    ((level, fields),) = said("swarmlet.scheduler", f"task {task.id} goes to node {task.node_id}")
    assert (level, fields["task_id"], fields["node_id"]) == (logging.DEBUG, task.id, task.node_id)
    states = [str(fields["msg"]) % fields["args"] for _, fields in said("swarmlet.agent", f"task {task.id} is")]
    assert states[-1].endswith("running")
    assert all(
        level == logging.DEBUG for name, _, level, _ in told if name in ("swarmlet.agent", "swarmlet.dispatcher")
    )


def test_a_task_that_fits_nowhere_says_so_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    with TestCluster(managers=1, seed=3) as cluster, caplog.at_level(logging.DEBUG, logger="swarmlet.scheduler"):
        cluster.create_service(replicas=1, constraints=["node.labels.rack==7"])
        cluster.advance(2)
        assert "waits: no suitable node" in caplog.text
