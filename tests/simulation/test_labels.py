"""Swarms that are asked by labels: order of starts, patience with nodes out of touch, nodes that go for good."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.wire.pb import types_pb2
from swarmlet import TestCluster
from swarmlet.testing.api import RequestRefused

ORDER = "swarmlet.start-after"


def update_node(c: TestCluster, node: str, **change: Any) -> None:
    """``docker node update``: what it says replaces fields of the node's spec; RequestRefused if it may not."""
    api = c.api()
    (found,) = [each for each in api.get("/nodes").value if each["Description"]["Hostname"] == node]
    spec = {**found["Spec"], **change}
    assert api.post(f"/nodes/{found['ID']}/update?version={found['Version']['Index']}", spec).value is None


def put_label(c: TestCluster, node: str, key: str, value: str) -> None:
    update_node(c, node, Labels={key: value})


def starts_after(*names: str) -> dict[str, Any]:
    return {"Labels": {ORDER: ",".join(names)}}


def shown(c: TestCluster, node: str) -> str:
    """A node's state as ``docker node ls`` shows it."""
    (found,) = [each for each in c.api().get("/nodes").value if each["Description"]["Hostname"] == node]
    return str(found["Status"]["State"])


def live(c: TestCluster, service: str) -> list[str]:
    """The tasks that run and are wanted."""
    tasks = c.tasks(service)
    return [each.id for each in tasks if each.status.state == each.desired_state == types_pb2.RUNNING]


def task_ids(c: TestCluster, service: str) -> set[str]:
    return {task.id for task in c.tasks(service)}


def test_a_stack_starts_in_its_order_whatever_order_it_is_made_in() -> None:
    with TestCluster(managers=1, workers=3, seed=3) as c:
        c.create_service("web", 3, spec=starts_after("api"))
        c.create_service("api", 2, spec=starts_after("db"))
        c.advance(30)
        assert c.running("web") == c.running("api") == 0
        assert {task.status.err for task in c.tasks("web")} == {
            "it starts after api (no task of it runs): label swarmlet.start-after"
        }
        c.create_service("db")
        c.wait_running("web", 3)
        started = {name: min(_began(c, name)) for name in ("db", "api", "web")}
        assert started["db"] < started["api"] < started["web"]


def _began(c: TestCluster, service: str) -> list[float]:
    return [task.status.timestamp.ToNanoseconds() / 1e9 for task in c.tasks(service)]


def test_what_runs_once_is_restarted_and_scaled_without_what_it_started_after() -> None:
    with TestCluster(managers=1, workers=2, seed=4) as c:
        c.create_service("db")
        c.create_service("web", 2, spec=starts_after("db"))
        c.wait_running("web", 2)
        c.scale("db", 0)
        c.run_until(lambda: c.running("db") == 0)
        c.crash(next(node for node in c.nodes_of("web") if node != c.leader))
        c.scale("web", 4)
        c.wait_running("web", 4)


def test_a_circle_is_refused_where_it_would_be_closed() -> None:
    with TestCluster(managers=1, workers=1, seed=5) as c:
        c.create_service("web", spec=starts_after("db"))
        with pytest.raises(RequestRefused, match="db would start after web would start after db"):
            c.create_service("db", spec=starts_after("web"))


def test_the_order_outlives_a_leader() -> None:
    with TestCluster(managers=3, workers=2, seed=6) as c:
        c.create_service("web", 2, spec=starts_after("db"))
        c.advance(5)
        c.crash(c.leader)
        c.advance(30)
        assert c.running("web") == 0
        c.create_service("db")
        c.wait_running("web", 2)


def test_a_node_that_stalls_within_its_label_keeps_its_tasks() -> None:
    with TestCluster(managers=1, workers=2, seed=7) as c:
        put_label(c, "worker-1", "swarmlet.lost-after", "2m")
        c.create_service("web", 4)
        c.wait_running("web", 4)
        before = task_ids(c, "web")
        c.pause("worker-1", 60)
        c.advance(50)
        assert shown(c, "worker-1") == "disconnected"
        c.create_service("late", 2)
        c.wait_running("late", 2)
        assert "worker-1" not in c.nodes_of("late")
        c.advance(600)
        assert shown(c, "worker-1") == "ready"
        assert task_ids(c, "web") == before
        assert c.running("web") == 4


@pytest.mark.parametrize("away", [17, 25, 50, 100])
def test_a_node_that_is_cut_off_within_its_label_is_never_down(away: int) -> None:
    with TestCluster(managers=1, workers=2, seed=16) as c:
        put_label(c, "worker-1", "swarmlet.lost-after", "2m")
        c.create_service("web", 4)
        c.wait_running("web", 4)
        before = task_ids(c, "web")
        c.partition({"worker-1"})
        c.advance(away)
        c.heal()
        c.run_until(lambda: shown(c, "worker-1") == "ready", 60)
        c.advance(300)
        assert (shown(c, "worker-1"), task_ids(c, "web")) == ("ready", before)


def test_a_node_that_is_away_for_longer_loses_them() -> None:
    with TestCluster(managers=1, workers=2, seed=8) as c:
        put_label(c, "worker-1", "swarmlet.lost-after", "2m")
        c.create_service("web", 4)
        c.wait_running("web", 4)
        c.crash("worker-1")
        c.advance(60)
        assert c.running("web") == 4  # nothing is known to have ended
        c.run_until(lambda: shown(c, "worker-1") == "down", 120)
        c.run_until(lambda: "worker-1" not in c.nodes_of("web"), 60)
        c.wait_running("web", 4)


def test_a_node_that_is_drained_while_it_is_out_of_touch_loses_them_within_a_minute() -> None:
    with TestCluster(managers=1, workers=2, seed=9) as c:
        put_label(c, "worker-1", "swarmlet.lost-after", "1h")
        c.create_service("web", 4)
        c.wait_running("web", 4)
        c.crash("worker-1")
        c.run_until(lambda: shown(c, "worker-1") == "disconnected", 60)
        update_node(c, "worker-1", Availability="drain")
        c.run_until(lambda: len(live(c, "web")) == 4, 70)


def test_a_node_that_may_go_is_removed_when_it_is_down_and_has_to_join_anew() -> None:
    with TestCluster(managers=1, workers=2, seed=10) as c:
        put_label(c, "worker-1", "swarmlet.remove-after", "5m")
        c.crash("worker-1")
        c.advance(300)
        assert "worker-1" in hostnames(c)
        c.advance(60)
        assert "worker-1" not in hostnames(c)
        c.restart("worker-1")
        c.advance(120)
        assert "worker-1" not in hostnames(c)


def hostnames(c: TestCluster) -> list[str]:
    return [each["Description"]["Hostname"] for each in c.api().get("/nodes").value]


def test_a_label_that_cannot_be_read_is_refused_when_it_is_written() -> None:
    with TestCluster(managers=1, workers=1, seed=11) as c:
        for key in ("swarmlet.lost-after", "swarmlet.remove-after"):
            with pytest.raises(RequestRefused, match=f"label {key}: 'soon' is no duration, such as 10s or 1m30s"):
                put_label(c, "worker-1", key, "soon")


# Jobs by the clock


def create_job(c: TestCluster, name: str, schedule: str, command: str = "exit 0 after 2") -> None:
    mode = {"ReplicatedJob": {"TotalCompletions": 2, "MaxConcurrent": 2}}
    policy = {"ContainerSpec": {"Image": "host", "Command": command.split()}, "RestartPolicy": {"Condition": "none"}}
    c.create_service(name, spec={"Mode": mode, "TaskTemplate": policy, "Labels": {"swarmlet.schedule": schedule}})


def iteration(c: TestCluster, name: str) -> int:
    status = c.api().get(f"/services/{name}").value["JobStatus"]
    return int(status["JobIteration"].get("Index", 0))


def test_a_job_runs_by_the_clock_and_not_before_its_first_time() -> None:
    with TestCluster(managers=1, workers=2, seed=12) as c:
        create_job(c, "backup", "@every 10m")
        c.advance(300)
        assert {task.status.err.split(" at ")[0] for task in c.tasks("backup")} == {"it first runs"}
        c.advance(3_330)  # an hour and half a minute
        assert iteration(c, "backup") == 6
        current = [task for task in c.tasks("backup") if task.job_iteration.index == 6]
        assert [task.status.state for task in current] == [types_pb2.COMPLETE] * 2


def test_leaders_that_are_lost_lose_no_run_and_make_none_twice() -> None:
    with TestCluster(managers=3, workers=2, seed=13) as c:
        create_job(c, "backup", "@every 1m")
        for _ in range(3):
            leader = c.leader
            c.crash(leader)
            c.advance(60)
            c.restart(leader)
        c.advance(15)
        assert iteration(c, "backup") == 3


def test_a_run_that_takes_longer_than_its_schedule_is_not_run_over() -> None:
    with TestCluster(managers=1, workers=1, seed=14) as c:
        create_job(c, "slow", "@every 1m", "exit 0 after 90")
        c.advance(60 + 125 + 5)
        assert iteration(c, "slow") == 2
        assert all(task.status.state != types_pb2.SHUTDOWN for task in c.tasks("slow"))


def test_services_have_no_schedule() -> None:
    with (
        TestCluster(managers=1, workers=1, seed=15) as c,
        pytest.raises(RequestRefused, match="only jobs run by the clock"),
    ):
        c.create_service("web", spec={"Labels": {"swarmlet.schedule": "@daily"}})
