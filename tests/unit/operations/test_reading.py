"""What is read out of the Engine API's answers."""

from __future__ import annotations

import pytest

from runtime.operations import reading
from tests.unit.operations.things import node, service, task


def test_a_service_is_up_when_as_many_tasks_run_as_it_wants_whichever_they_are() -> None:
    tasks = [task("a"), task("b"), task("c", "shutdown", "shutdown")]
    assert reading.not_up(service(mode={"Replicated": {"Replicas": 2}}), tasks) == ""
    assert reading.not_up({**service(), "ServiceStatus": {"RunningTasks": 0, "DesiredTasks": 2}}, tasks) == ""


def test_a_service_that_is_not_up_says_why_the_most_frequent_reason_first() -> None:
    waiting = [task(f"w{n}", "pending", Status={"State": "pending", "Err": "no suitable node"}) for n in range(2)]
    starting = task("s", Status={"State": "starting", "Message": "starting"})
    stopping = task("old", "running", "shutdown")
    text = reading.not_up(service(mode={"Replicated": {"Replicas": 4}}), [*waiting, starting, stopping, task("r")])
    assert text == "1 of 4 tasks run; 2 pending (no suitable node); 1 starting (starting)"


def test_tasks_of_nodes_that_are_not_heard_are_not_waited_for() -> None:
    nodes = [node("n1"), node("n2", "down"), node("n3", "disconnected")]
    tasks = [task("a"), task("b", node="n2"), task("c", "failed"), task("d", node="n3"), task("e", "pending", node="")]
    left = reading.still_there(tasks, reading.down_nodes(nodes))
    assert [each["ID"] for each in left] == ["a", "d", "e"]


@pytest.mark.parametrize(
    ("mode", "shown"),
    [
        ({"Replicated": {"Replicas": 1}}, "replicated"),
        ({"Global": {}}, "global"),
        ({"ReplicatedJob": {}}, "replicated-job"),
        ({"GlobalJob": {}}, "global-job"),
        ({}, "replicated"),
    ],
)
def test_each_mode_is_known_by_the_name_that_docker_gives_it(mode: dict[str, object], shown: str) -> None:
    assert reading.mode_of({"Mode": mode}) == shown
    assert reading.is_job({"Mode": mode}) == shown.endswith("job")


def test_a_task_is_named_by_its_slot_else_by_its_node() -> None:
    names = reading.task_names([service()])
    assert reading.task_name(task("a", slot=2), names) == "web.2"
    assert reading.task_name(task("a", slot=0, node="n7"), names) == "web.n7"
    assert reading.task_name({**task("a"), "ServiceID": "gone"}, names) == "gone.1"
