"""Stopping a service and starting it again, decided on its spec."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.operations.stopping import CannotStop, is_stopped, start, stop
from runtime.swarm.labels import NOWHERE, STOPPED
from tests.unit.operations.things import service

GLOBAL: dict[str, Any] = {"Global": {}}
LABELS = st.dictionaries(st.sampled_from(["a", "b", "com.docker.stack.namespace"]), st.text(max_size=5))
CONSTRAINTS = st.none() | st.lists(st.sampled_from(["node.role==worker", "node.labels.rack==1"]), max_size=2)
PLACEMENTS = st.none() | st.builds(lambda each: {"Constraints": each, "MaxReplicas": 2}, CONSTRAINTS)


def specs(modes: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(
        lambda mode, labels, placement: service(
            mode=mode, Labels=labels, TaskTemplate={"ContainerSpec": {"Image": "x"}, "Placement": placement}
        )["Spec"],
        modes,
        LABELS,
        PLACEMENTS,
    )


RUNNING = specs(st.just(GLOBAL) | st.builds(lambda n: {"Replicated": {"Replicas": n}}, st.integers(1, 1000)))


def changed(step: Any) -> dict[str, Any]:
    assert step.spec is not None, step.text
    spec: dict[str, Any] = step.spec
    return spec


def plain(spec: dict[str, Any]) -> dict[str, Any]:
    """A spec without the difference between no constraints and none that were written down."""
    new = copy.deepcopy(spec)
    place = new["TaskTemplate"].get("Placement") or {}
    new["TaskTemplate"]["Placement"] = {**place, "Constraints": place.get("Constraints") or []}
    return new


@given(RUNNING)
def test_a_service_that_is_stopped_and_started_is_what_it_was(spec: dict[str, Any]) -> None:
    before = copy.deepcopy(spec)
    stopped = changed(stop(spec))
    assert is_stopped(stopped)
    again = changed(start(stopped))
    assert plain(again) == plain(before)
    assert spec == before, "what was read is not changed in place"
    assert not is_stopped(again)


@given(RUNNING)
def test_to_stop_twice_and_to_start_twice_changes_nothing_the_second_time(spec: dict[str, Any]) -> None:
    stopped = changed(stop(spec))
    assert stop(stopped).spec is None
    assert start(changed(start(stopped))).spec is None


@given(RUNNING, LABELS, st.sampled_from(["busybox", "host"]))
def test_what_others_change_while_it_is_stopped_is_kept(
    spec: dict[str, Any], labels: dict[str, str], image: str
) -> None:
    stopped = changed(stop(spec))
    stopped["Labels"] |= labels
    stopped["TaskTemplate"]["ContainerSpec"] = {"Image": image}
    if "Global" in spec["Mode"]:
        stopped["TaskTemplate"]["Placement"]["Constraints"].insert(0, "node.hostname!=n3")
    again = changed(start(stopped))
    assert again["Labels"] == {**spec["Labels"], **labels}
    assert again["TaskTemplate"]["ContainerSpec"] == {"Image": image}
    assert "Global" not in spec["Mode"] or again["TaskTemplate"]["Placement"]["Constraints"][0] == "node.hostname!=n3"


def test_somebody_who_scales_a_stopped_service_up_has_started_it_and_the_number_stays_his() -> None:
    stopped = changed(stop(service()["Spec"]))
    stopped["Mode"]["Replicated"]["Replicas"] = 5
    assert not is_stopped(stopped)
    step = start(stopped)
    assert changed(step)["Mode"] == {"Replicated": {"Replicas": 5}}
    assert STOPPED not in changed(step)["Labels"]
    assert step.text == "web is not stopped: it has 5 replicas"
    assert changed(stop(stopped))["Labels"][STOPPED] == "5", "and stopped again, five are remembered"


def test_somebody_who_took_the_constraint_away_has_started_a_global_service() -> None:
    stopped = changed(stop(service(mode=GLOBAL)["Spec"]))
    stopped["TaskTemplate"]["Placement"]["Constraints"].remove(NOWHERE)
    assert not is_stopped(stopped)
    step = start(stopped)
    assert step.text == "web is not stopped"
    assert STOPPED not in changed(step)["Labels"]


@pytest.mark.parametrize("label", [{}, {STOPPED: "0"}, {STOPPED: "many"}, {STOPPED: "-3"}, {STOPPED: "9" * 40}])
def test_without_a_number_that_can_be_read_nothing_is_started(label: dict[str, str]) -> None:
    spec = service(mode={"Replicated": {"Replicas": 0}}, Labels=label)["Spec"]
    assert stop(spec).spec is None
    assert "there is nothing to stop" in stop(spec).text
    with pytest.raises(CannotStop, match=r"no label swarmlet.stopped says how many it had: docker service scale"):
        start(spec)


@pytest.mark.parametrize("mode", [{"ReplicatedJob": {"TotalCompletions": 3}}, {"GlobalJob": {}}])
def test_jobs_are_refused_both_ways_with_what_can_be_done(mode: dict[str, Any]) -> None:
    spec = service("job", mode)["Spec"]
    with pytest.raises(CannotStop, match="job is a job: it ends by itself, and each change of it runs it anew"):
        stop(spec)
    with pytest.raises(CannotStop, match="docker service update --force job runs it anew"):
        start(spec)


def test_a_service_that_says_no_number_of_replicas_has_one() -> None:
    assert changed(stop(service(mode={"Replicated": {}})["Spec"]))["Labels"][STOPPED] == "1"
