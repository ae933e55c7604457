"""The commands that change a swarm for its operator, against whole swarms in virtual time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from swarmlet import TestCluster, operate
from swarmlet.engine_link import Engine
from swarmlet.errors import EXIT_FAILED, EXIT_OK, EXIT_TIMED_OUT, StartError
from swarmlet.operator_options import OperatorOptions, Where

JOB = {"ContainerSpec": {"Image": "host", "Command": ["x"]}}


@dataclass
class Operator:
    """Somebody who types commands; ``meanwhile`` is done once, at the first rest of a command."""

    cluster: TestCluster
    lines: list[str] = field(default_factory=list)
    meanwhile: Callable[[], None] | None = None

    def engine(self) -> Engine:
        return Engine(self._carry, lambda: self.cluster.time, self._rest)

    def run(self, command: str, **typed: Any) -> int:
        given = {"timeout": 60.0, "detach": False, **typed}
        self.lines = []
        return operate.carry_out(self.engine(), OperatorOptions(command, Where(), given), self.lines.append)

    def _carry(self, method: str, target: str, body: bytes) -> tuple[int, bytes]:
        answer = self.cluster.api().request(method, target, json.loads(body) if body else None)
        return answer.status, answer.body

    def _rest(self, seconds: float) -> None:
        act, self.meanwhile = self.meanwhile, None
        if act is not None:
            act()
        self.cluster.advance(seconds)


def spec_of(c: TestCluster, service: str) -> Any:
    return c.api().get(f"/services/{service}").value["Spec"]


def everywhere(c: TestCluster, name: str) -> None:
    c.create_service(name, spec={"Mode": {"Global": {}}})


# Stop and start


def test_services_that_are_stopped_end_and_run_again_as_many_as_before() -> None:
    with TestCluster(managers=1, workers=3, seed=1) as c:
        c.create_service("web", 4)
        everywhere(c, "agent")
        c.wait_running("web", 4)
        c.wait_running("agent", 4)
        operator = Operator(c)
        assert operator.run("stop", services=["web", "agent"]) == EXIT_OK
        assert (c.running("web"), c.running("agent")) == (0, 0)
        assert operator.lines[:2] == ["web is stopped: it had 4 replicas", "agent is stopped on every node"]
        c.stop(c.leader)
        c.restart("manager-1")
        c.advance(20)
        assert operator.run("start", services=["agent", "web"]) == EXIT_OK
        assert (c.running("web"), c.running("agent")) == (4, 4)
        assert spec_of(c, "web").get("Labels") in ({}, None)


def test_a_global_service_that_is_stopped_gets_no_task_on_a_node_that_joins() -> None:
    with TestCluster(managers=1, workers=2, seed=2) as c:
        everywhere(c, "agent")
        c.wait_running("agent", 3)
        c.stop("worker-2")
        c.advance(30)
        assert Operator(c).run("stop", services=["agent"]) == EXIT_OK
        c.restart("worker-2")
        c.advance(30)
        assert c.running("agent") == 0


def test_a_job_and_an_unknown_service_are_refused_and_others_are_stopped_all_the_same() -> None:
    with TestCluster(managers=1, workers=1, seed=3) as c:
        c.create_service("web", 1)
        c.create_service("job", spec={"Mode": {"ReplicatedJob": {}}, "TaskTemplate": JOB})
        c.wait_running("web", 1)
        operator = Operator(c)
        with pytest.raises(StartError, match="service nosuch not found"):
            operator.run("stop", services=["web", "nosuch"])
        assert c.running("web") == 1
        assert operator.run("stop", services=["job", "web"]) == EXIT_FAILED
        assert c.running("web") == 0
        assert operator.lines[0].startswith("job is left as it is: job is a job: it ends by itself")


def test_who_waits_in_vain_is_told_for_what(capsys: pytest.CaptureFixture[str]) -> None:
    with TestCluster(managers=1, workers=1, seed=4) as c:
        c.create_service("web", 2, spec={"Labels": {}})
        c.wait_running("web", 2)
        operator = Operator(c)
        operator.run("stop", services=["web"])
        for node in c.api().get("/nodes").value:
            spec = {**node["Spec"], "Availability": "pause"}
            c.api().post(f"/nodes/{node['ID']}/update?version={node['Version']['Index']}", spec)
        assert operator.run("start", services=["web"], timeout=5.0) == EXIT_TIMED_OUT
        assert capsys.readouterr().err == (
            "swarmlet: after 5 s: web: 0 of 2 tasks run; "
            "2 pending (no suitable node (2 nodes not available for new tasks))\n"
        )


def test_somebody_who_starts_a_service_while_it_is_stopped_ends_the_waiting() -> None:
    with TestCluster(managers=1, workers=1, seed=5) as c:
        c.create_service("web", 2)
        c.wait_running("web", 2)
        operator = Operator(c, meanwhile=lambda: c.scale("web", 3))
        assert operator.run("stop", services=["web"]) == EXIT_OK
        c.wait_running("web", 3)
        assert operator.run("start", services=["web"]) == EXIT_OK
        assert operator.lines == ["web is not stopped: it has 3 replicas"]


def test_a_manager_that_is_away_for_a_while_does_not_end_the_waiting() -> None:
    with TestCluster(managers=3, seed=6) as c:
        c.create_service("web", 3)
        c.wait_running("web", 3)
        operator = Operator(c, meanwhile=lambda: c.crash(c.leader))
        assert operator.run("stop", services=["web"]) == EXIT_OK
        assert c.running("web") == 0
