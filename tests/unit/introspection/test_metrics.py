"""Metrics: SwarmKit's names from a store, actors by class, a bounded number of series, Prometheus' text."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from runtime.errors import Code, Refused
from runtime.introspection import exposition, metrics
from runtime.introspection.metrics import Family, Histogram
from runtime.stage import Actor, Policy, Stage, handles
from runtime.stage.observe import Durations
from runtime.stage.simulator import Simulator
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.unit.console import answers
from tests.unit.swarm_orchestration.little_store import LittleStore, node_of_id, service_of, task_of

CERTIFICATE = {"certificate": {"node": "n1", "cluster": "c1", "days left": 89.0, "root days left": 7300.0}}


def values(found: list[Family]) -> dict[str, dict[tuple[str, ...], Any]]:
    return {each.name: {tuple(labels): value for labels, value in each.samples} for each in found}


def store() -> LittleStore:
    made = LittleStore()
    unplaced = task_of(service_of(), "b", state=types.PENDING)
    unplaced.status.err = "no suitable node (insufficient resources on 7 nodes)"
    made.put(
        service_of(replicas=3),
        node_of_id("n1"),
        node_of_id("n2", state=types.NodeStatus.DOWN),
        objects.Secret(id="s"),
        task_of(service_of(), "a", state=types.RUNNING, node="n1"),
        unplaced,
    )
    return made


def test_swarmkits_names_have_the_stores_numbers() -> None:
    found = values(metrics.objects_of(store().view))
    assert found["swarm_manager_nodes"] == {("unknown",): 0, ("down",): 1, ("ready",): 1, ("disconnected",): 0}
    tasks = found["swarm_manager_tasks_total"]
    assert {state: count for (state,), count in tasks.items() if count} == {"running": 1, "pending": 1}
    assert len(tasks) == len(types.TaskState.keys())
    kinds = ("services", "networks", "secrets", "configs")
    assert [found[f"swarm_manager_{kind}_total"][()] for kind in kinds] == [1, 0, 1, 0]


def test_a_node_says_who_it_is_and_whether_it_manages_and_leads() -> None:
    states = {**CERTIFICATE, "raft": {"leading": True}}
    found = values(metrics.node(store().view, states))
    assert found["swarm_node_info"] == {("c1", "n1"): 1.0}
    assert (found["swarm_node_manager"][()], found["swarm_manager_leader"][()]) == (1.0, 1.0)
    assert found["swarmlet_certificate_days_left"] == {("node",): 89.0, ("root",): 7300.0}
    worker = values(metrics.node(None, {"certificate": "(no answer in time)"}))
    assert worker["swarm_node_info"] == {}
    assert (worker["swarm_node_manager"][()], worker["swarm_manager_leader"][()]) == (0.0, 0.0)


def test_a_service_has_desired_running_and_pending_by_reason() -> None:
    found = values(metrics.services(store().view))
    assert found["swarmlet_service_tasks_desired"] == {("web", "web"): 3}
    assert found["swarmlet_service_tasks_running"] == {("web", "web"): 1}
    assert found["swarmlet_service_tasks_pending"] == {("web", "web", "insufficient resources"): 1}


def test_services_beyond_the_limit_share_one_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SERVICES_MAX", 2)
    made = LittleStore()
    made.put(*(service_of(f"s{number}", replicas=2) for number in range(5)))
    desired = values(metrics.services(made.view))["swarmlet_service_tasks_desired"]
    assert desired == {("s0", "s0"): 2, ("s1", "s1"): 2, ("", metrics.OTHERS): 6}


def test_consensus_shows_its_indices_and_how_far_each_member_is_behind() -> None:
    found = values(metrics.consensus(answers.RAFT))
    assert found["swarmlet_raft_term"][()] == 7
    assert found["swarmlet_raft_applied_index"][()] == 19
    assert found["swarmlet_raft_member_lag_entries"] == {("one",): 0, ("two",): 15}
    assert found["swarmlet_raft_member_reached"] == {("one",): 1.0, ("two",): 0.0}
    assert metrics.consensus({"raft": {"loaded": False}}) == []
    assert metrics.consensus({"raft": "(no answer in time)"}) == []


class Work:
    """Something to do, or to fail over."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails


class Worker(Actor):
    policy = Policy(max_restarts=100)

    @handles(Work)
    def work(self, message: Work) -> None:
        self.timed("swarm_store_write_tx_latency_seconds", 0.3)
        if message.fails:
            raise RuntimeError("as told")


def test_actors_are_summed_up_by_class_and_counters_outlive_them() -> None:
    simulator = Simulator(seed=1)
    stage = simulator.node("n")
    addresses = [stage.mount(f"w{number}", Worker) for number in range(3)]
    simulator.run_for(1)
    for address in addresses:
        address.tell(Work())
        address.tell(Work(fails=True))
    simulator.run_for(5)

    def read() -> dict[str, Any]:
        return {name: each.get(("Worker",)) for name, each in values(metrics.actors(stage)).items()}

    found = read()
    assert (found["swarmlet_actors"], found["swarmlet_actor_messages"]) == (3, 6)
    assert (found["swarmlet_actor_failures"], found["swarmlet_actor_restarts"]) == (3, 3)
    cell = stage.cells["/w0"]
    cell.request_stop()
    simulator.run_for(1)
    gone = read()
    assert gone["swarmlet_actors"] == 2
    for counter in ("swarmlet_actor_messages", "swarmlet_actor_failures", "swarmlet_actor_restarts"):
        assert gone[counter] == found[counter]


def test_the_number_of_series_does_not_grow_with_the_actors() -> None:
    simulator = Simulator(seed=1)
    stage = simulator.node("n")

    def series() -> int:
        return sum(len(each.samples) for each in metrics.families(stage, None, {}))

    stage.mount("w", Worker)
    simulator.run_for(1)
    before = series()
    for number in range(50):
        stage.mount(f"w{number}", Worker)
    simulator.run_for(1)
    assert series() == before


SNAPSHOTS = "swarm_raft_snapshot_latency_seconds"


def test_swarmkits_histograms_are_there_before_anything_was_timed() -> None:
    stage = Stage(name="n")
    stage.observations.timings["of_a_host_seconds"] = Durations()
    found = {each.name: each.samples[0][1] for each in metrics.timings(stage)}
    assert set(found) == {*metrics.TIMINGS, "of_a_host_seconds"}
    assert all(
        isinstance(each, Histogram) and each.sum == 0 and each.buckets[-1] == ("+Inf", 0) for each in found.values()
    )


def test_a_histogram_counts_up_to_infinity() -> None:
    durations = Durations()
    for seconds in (0.001, 0.005, 0.3, 100.0):
        durations.note(seconds)
    stage = Stage(name="n")
    stage.observations.timings[SNAPSHOTS] = durations
    (((_, found),),) = [each.samples for each in metrics.timings(stage) if each.name == SNAPSHOTS]
    assert isinstance(found, Histogram)
    buckets = dict(found.buckets)
    assert (buckets["0.005"], buckets["0.25"], buckets["0.5"], buckets["10.0"], buckets["+Inf"]) == (2, 2, 3, 3, 4)
    assert found.sum == pytest.approx(100.306)


def test_prometheus_text_has_heads_labels_and_histograms() -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    histogram = Histogram([("0.5", 1.0), ("+Inf", 2.0)], 3.5)
    text = exposition.text(
        [
            Family("g", "gauge", "A gauge", ("a", "b"), [(("x", 'say "hi"\n'), 1.5)]),
            Family("c", "counter", "A counter", (), [((), 7.0)]),
            Family("h_seconds", "histogram", "A histogram", (), [((), histogram)]),
        ]
    ).decode()
    assert "# TYPE g gauge" in text
    assert "# HELP c_total A counter" in text
    samples = {
        (each.name, *sorted(each.labels.items())): each.value
        for family in parser.text_string_to_metric_families(text)
        for each in family.samples
    }
    assert samples["g", ("a", "x"), ("b", 'say "hi"\n')] == 1.5
    assert samples["c_total",] == 7.0
    assert samples["h_seconds_bucket", ("le", "+Inf")] == 2.0
    assert samples["h_seconds_sum",] == 3.5


def test_without_the_library_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ModuleNotFoundError(f"No module named {name!r}", name="prometheus_client")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(Refused, match=r"pip install 'swarmlet\[metrics\]'") as refused:
        exposition.require()
    assert refused.value.code is Code.UNIMPLEMENTED
