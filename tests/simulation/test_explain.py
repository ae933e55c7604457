"""Explanations asked of a whole swarm: each comes from the actor with which the matter waits."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.errors import Code, Refused
from runtime.protocol.explain import Explain, PlanNode
from runtime.wire.pb import specs_pb2
from runtime.wire.pb import types_pb2 as types
from tests.simulation.cluster import Host, Swarm, replicated, wait
from tests.simulation.test_modes import change_node, node_of, swarm_of, update

EXPLAINER = "/cluster/node/manager/leader/explain"


def explained(swarm: Swarm, manager: Host, kind: Any, text: str) -> dict[str, Any]:
    assert manager.stage is not None
    value: dict[str, Any] = swarm.simulator.ask(manager.stage.at(EXPLAINER), Explain(kind, text))
    return value


def whys(value: dict[str, Any]) -> dict[str, str]:
    return {each["who"]: each["why"] for each in value["waits"]}


def test_each_wait_is_told_by_who_owns_it() -> None:
    swarm, manager = swarm_of(5)
    spec = replicated("picky", 2)
    spec.task.placement.constraints.append("rack==x")
    manager.control("CreateService", spec=spec)
    spec = replicated("failing", 1, "exit", "1")
    spec.task.restart.delay.FromSeconds(30)
    manager.control("CreateService", spec=spec)
    swarm.simulator.run_for(5)
    assert "there is no key rack" in whys(explained(swarm, manager, "service", "picky"))["scheduler"]
    failing = explained(swarm, manager, "", "failing")
    assert "restart delay" in whys(failing)["orchestrator"]
    assert 20 < failing["waits"][0]["seconds"] <= 30
    assert failing["silent"] == []


def test_an_update_tells_how_far_it_is() -> None:
    swarm, manager = swarm_of(6)
    spec = replicated("web", 4)
    spec.update.parallelism = 1
    spec.update.delay.FromSeconds(60)
    service = manager.control("CreateService", spec=spec).service
    swarm.wait_running(manager, service.id, 4)
    update(manager, service.id, lambda spec: spec.task.container.env.append("A=1"))
    swarm.simulator.run_for(20)
    told = whys(explained(swarm, manager, "service", "web"))["updater"]
    assert told == "the update has 3 of 4 places left; 0 come up, 1 sit out the delay"


def test_a_lost_node_is_explained_and_a_plan_names_where_its_tasks_would_go() -> None:
    swarm, manager = swarm_of(7)
    service = manager.control("CreateService", spec=replicated("web", 6)).service
    swarm.wait_running(manager, service.id, 6)
    worker = swarm.hosts[1]
    id = node_of(manager, worker).id
    assert manager.stage is not None
    plan = swarm.simulator.ask(manager.stage.at(EXPLAINER), PlanNode("drain", worker.name))
    assert {each["to"] for each in plan["moves"]} == {swarm.hosts[0].name, swarm.hosts[2].name}
    change_node(manager, worker, lambda node: setattr(node, "availability", specs_pb2.NodeSpec.DRAIN))
    wait(swarm, lambda: all(task.node_id != id for task in swarm.running(manager, service.id)))
    worker.crash()
    wait(swarm, lambda: node_of(manager, worker).status.state == types.NodeStatus.DOWN)
    told = explained(swarm, manager, "node", worker.name)
    assert told["state"].startswith("down, drain")
    assert "no session" in told["waits"][0]["why"]


def test_a_part_that_fails_is_named_and_the_rest_is_told() -> None:
    swarm, manager = swarm_of(8)
    manager.control("CreateService", spec=replicated("web", 1))
    assert manager.stage is not None
    cell = manager.stage.cells["/cluster/node/manager/leader/scheduler"]
    cell.control(lambda: cell.failed(ValueError("a fault of the test"), None))
    value = explained(swarm, manager, "service", "web")
    assert value["silent"] in ([], ["/cluster/node/manager/leader/scheduler"])
    assert value["name"] == "web"


def test_what_is_not_there_is_refused() -> None:
    swarm, manager = swarm_of(9)
    with pytest.raises(Refused) as refused:
        explained(swarm, manager, "service", "nothing")
    assert refused.value.code is Code.NOT_FOUND
