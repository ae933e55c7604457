"""Moving one task of a service by means that any leader knows: how it begins, when it may end, what is taken back."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.operations.moving import begun, delay_s, missing, monitor_s, start_first, stuck, taken_back, unsettled
from runtime.swarm.labels import REBALANCE
from tests.unit.operations.things import service, task

START_FIRST = {"Order": "start-first"}


def move(means: str = "constraint", replicas: int = 3) -> dict[str, Any]:
    return {"means": means, "replicas": replicas, "from_id": "n1", "from": "host-1", "service_id": "id-of-web"}


def begins(means: str = "constraint", **more: Any) -> dict[str, Any]:
    spec = begun(service(**more)["Spec"], move(means))
    assert spec is not None
    return spec


SPECS = st.builds(
    lambda labels, constraints, order: service(
        Labels=labels,
        UpdateConfig=order,
        TaskTemplate={"ContainerSpec": {"Image": "x"}, "Placement": {"Constraints": constraints, "MaxReplicas": 4}},
    )["Spec"],
    st.dictionaries(st.sampled_from(["a", "b"]), st.text(max_size=3)),
    st.lists(st.sampled_from(["node.role==worker", "node.id!=n9"]), max_size=2),
    st.sampled_from([None, {}, START_FIRST]),
)


@given(SPECS, st.sampled_from(["constraint", "scale"]))
def test_a_move_that_began_and_ended_leaves_the_spec_as_it_was(spec: dict[str, Any], means: str) -> None:
    before = copy.deepcopy(spec)
    new = begun(spec, move(means))
    assert new is not None
    assert new["Labels"][REBALANCE]
    assert taken_back(new) == before == spec
    assert begun(new, move(means)) is None, "one at a time"
    assert taken_back(before) is None


def test_only_the_one_node_is_excluded_and_by_what_any_leader_reads() -> None:
    assert begins()["TaskTemplate"]["Placement"] == {"Constraints": ["node.id!=n1"]}
    bare = begins(TaskTemplate={"ContainerSpec": {}, "Placement": None})
    assert bare["TaskTemplate"]["Placement"]["Constraints"] == ["node.id!=n1"]


@pytest.mark.parametrize(("config", "replicas"), [(START_FIRST, 4), ({"Order": "stop-first"}, 2), (None, 2)])
def test_the_order_of_the_update_config_says_whether_one_more_or_one_less_comes_first(
    config: dict[str, Any] | None, replicas: int
) -> None:
    assert begins("scale", UpdateConfig=config)["Mode"] == {"Replicated": {"Replicas": replicas}}
    assert start_first(service(UpdateConfig=config)["Spec"]) == (replicas == 4)


def test_a_service_that_somebody_scaled_since_is_not_moved() -> None:
    assert begun(service(mode={"Replicated": {"Replicas": 5}})["Spec"], move()) is None


@pytest.mark.parametrize("means", ["constraint", "scale"])
def test_what_others_changed_meanwhile_stays_when_it_is_taken_back(means: str) -> None:
    spec = begins(means)
    spec["Labels"]["theirs"] = "x"
    spec["Mode"] = {"Replicated": {"Replicas": 9}}
    spec["TaskTemplate"]["Placement"].setdefault("Constraints", []).insert(0, "node.role==worker")
    back = taken_back(spec)
    assert back is not None
    assert back["Labels"] == {"theirs": "x"}
    assert back["Mode"] == {"Replicated": {"Replicas": 9}}
    assert back["TaskTemplate"]["Placement"]["Constraints"] == ["node.role==worker"]


@pytest.mark.parametrize("value", ["replicas", "replicas many", "replicas ²", "nonsense", "away"])
def test_a_label_that_says_nothing_is_taken_away_and_nothing_else(value: str) -> None:
    spec = service(Labels={REBALANCE: value})["Spec"]
    assert taken_back(spec) == {**spec, "Labels": {}, "TaskTemplate": taken_back(spec)["TaskTemplate"]}  # type: ignore[index]
    assert taken_back(spec)["Mode"] == {"Replicated": {"Replicas": 3}}  # type: ignore[index]


# When it may end


def under_way(means: str, state: str = "", replicas: int | None = None, **more: Any) -> dict[str, Any]:
    found = service(**more)
    found["Spec"] = begins(means, **more)
    if replicas is not None:
        found["Spec"]["Mode"] = {"Replicated": {"Replicas": replicas}}
    return {**found, "UpdateStatus": {"State": state, "Message": "m"}} if state else found


THREE = [task("a", node="n2"), task("b", node="n3", slot=2), task("c", node="n2", slot=3)]


def test_by_a_constraint_it_may_end_when_nothing_is_wanted_there_and_the_update_is_over() -> None:
    gone = task("old", "running", "shutdown", node="n1")
    here = [task("a", node="n1"), *THREE[1:]]
    assert missing(under_way("constraint"), here, move()) == "its task on host-1 is to be replaced"
    assert missing(under_way("constraint", "updating"), [gone, *THREE], move()) == "its update is not over"
    assert missing(under_way("constraint"), [gone, *THREE[1:]], move()) == "2 of 3 tasks run"
    assert missing(under_way("constraint", "completed"), [gone, *THREE], move()) == ""


def test_by_scaling_start_first_it_may_end_when_one_more_runs() -> None:
    more = under_way("scale", UpdateConfig=START_FIRST)
    assert missing(more, THREE, move("scale")) == "3 of 4 tasks run"
    assert missing(more, [*THREE, task("d", slot=4)], move("scale")) == ""


def test_by_scaling_stop_first_it_may_end_when_one_was_taken_and_has_ended() -> None:
    less = under_way("scale")
    assert missing(less, THREE, move("scale")) == "it has 3 tasks of 2"
    ending = task("c", "running", "remove", slot=3)
    assert missing(less, [*THREE[:2], ending], move("scale")) == "1 of its tasks are to end"
    assert missing(less, [*THREE[:2], {**ending, "Status": {"State": "shutdown"}}], move("scale")) == ""


def test_it_is_over_when_the_service_has_just_the_tasks_that_it_is_to_have() -> None:
    assert unsettled(service(), [*THREE, task("d", slot=4)]) == "it has 4 tasks of 3"
    assert unsettled(service(), [*THREE[:2], task("c", "starting", slot=3)]).startswith("2 of 3 tasks run; 1 starting")
    assert unsettled(service(), THREE) == ""


@pytest.mark.parametrize("state", ["paused", "rollback_started", "rollback_completed", "rollback_paused"])
def test_an_update_that_goes_wrong_ends_the_move_with_its_reason(state: str) -> None:
    assert stuck(under_way("constraint", state)) == f"its update is {state}: m"
    assert stuck(under_way("constraint", "updating")) == stuck(under_way("constraint")) == ""


def test_somebody_who_wrote_the_whole_spec_anew_has_ended_the_move() -> None:
    assert stuck(service()) == "somebody changed it meanwhile"


def test_delay_and_monitor_are_those_of_the_update_config_with_the_engines_default() -> None:
    spec = service(UpdateConfig={"Delay": 2_000_000_000, "Monitor": 500_000_000})["Spec"]
    assert (delay_s(spec), monitor_s(spec)) == (2.0, 0.5)
    assert (delay_s(service()["Spec"]), monitor_s(service()["Spec"])) == (0.0, 5.0)
