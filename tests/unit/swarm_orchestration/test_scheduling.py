"""The scheduler: where tasks go, when they are tried again, and what the store takes of its decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.swarm import constraints, generic, spread
from runtime.swarm.filters import Pipeline
from runtime.swarm.node_info import FAILURES_MAX, FailureKey, NodeInfo
from runtime.swarm.scheduling import ASSIGNED, CONFIRMED, Decision, Scheduler, commit
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.placing import CPU, HOST, Store, changed, node, port, service, task


class Bench:
    """A scheduler over a store: every change of the store is told, as its watcher would be."""

    def __init__(self, *made: objects.Node | objects.Service | objects.Task) -> None:
        self.store = Store()
        self.scheduler = Scheduler()
        self.now = 0.0
        self.put(*made)

    def put(self, *made: objects.Node | objects.Service | objects.Task) -> None:
        self.store.put(*made)
        for each in made:
            self._tell(each)

    def _tell(self, made: objects.Node | objects.Service | objects.Task) -> None:
        if isinstance(made, objects.Node):
            self.scheduler.put_node(made)
        elif isinstance(made, objects.Task):
            self.scheduler.put_task(self.store.task(made.id), self.now)

    def move(self, id: str, state: types.TaskState, desired: types.TaskState | None = None) -> None:
        def edit(new: objects.Task) -> None:
            new.status.state = state
            new.desired_state = new.desired_state if desired is None else desired

        self.put(changed(self.store.task(id), edit))

    def remove(self, made: objects.Node | objects.Task) -> None:
        if isinstance(made, objects.Node):
            self.store.delete(made)
            self.scheduler.remove_node(made.id)
        else:
            stored = self.store.task(made.id)
            self.store.delete(made)
            self.scheduler.remove_task(stored.id, stored.node_id)

    def decide(self) -> list[Decision]:
        view = self.store.view
        return self.scheduler.run(self.now, lambda id: view.get(objects.Service, id))

    def write(self, decisions: Iterable[Decision]) -> list[str]:
        """Carries decisions out; gives the tasks whose decisions were refused."""
        failed = []
        for decision in decisions:
            if not self.store.run(lambda tx, decision=decision: commit(tx, decision)):  # type: ignore[misc]
                failed.append(decision.task_id)
            elif (stored := self.store.view.get(objects.Task, decision.task_id)) is not None:
                self.scheduler.put_task(stored, self.now)
        self.scheduler.commit_failed(failed)
        return failed

    def run(self) -> dict[str, str]:
        """Runs and writes; gives where the tasks that were placed went."""
        decisions = self.decide()
        self.write(decisions)
        return {each.task_id: each.node_id or "" for each in decisions if each.state == types.ASSIGNED}

    def err(self, id: str) -> str:
        return self.store.task(id).status.err


def tasks(count: int, prefix: str = "t", **more: object) -> list[objects.Task]:
    return [task(f"{prefix}{number:03}", slot=number + 1, **more) for number in range(count)]  # type: ignore[arg-type]


def per_node(placed: dict[str, str]) -> list[int]:
    return sorted(Counter(placed.values()).values())


# Placing


def test_a_task_is_assigned_with_node_message_and_time() -> None:
    bench = Bench(node("n"), service(), task("t"))
    assert bench.run() == {"t": "n"}
    stored = bench.store.task("t")
    assert (stored.node_id, stored.status.state, stored.status.message) == ("n", types.ASSIGNED, ASSIGNED)
    assert stored.status.timestamp.seconds == 1_700_000_000
    assert stored.status.err == ""
    assert not bench.scheduler.due


def test_equal_nodes_get_equally_many() -> None:
    bench = Bench(*[node(f"n{number}") for number in range(4)], service(), *tasks(10))
    assert per_node(bench.run()) == [2, 2, 3, 3]


def test_the_node_with_fewer_tasks_of_the_service_wins_over_the_one_with_fewer_tasks() -> None:
    others = tasks(3, "o", service="db", node_id="a", state=types.RUNNING)
    bench = Bench(
        node("a"), node("b"), service(), *others, task("w", node_id="b", state=types.RUNNING), task("t", slot=2)
    )
    assert bench.run() == {"t": "a"}


def test_among_equals_the_least_busy_node_wins_then_the_lower_id() -> None:
    bench = Bench(node("c"), node("b"), node("a"), service(), task("x", service="db", node_id="a", state=types.RUNNING))
    bench.put(task("t1"), task("t2", slot=2), task("t3", slot=3))
    assert bench.run() == {"t1": "b", "t2": "c", "t3": "a"}


def test_a_node_where_the_version_kept_failing_comes_last_for_five_minutes() -> None:
    bench = Bench(node("a"), node("b"), service())
    bench.put(task("x", service="db", node_id="b", state=types.RUNNING))
    for number in range(FAILURES_MAX):
        bench.put(task(f"f{number}", node_id="a", state=types.RUNNING))
        bench.move(f"f{number}", types.FAILED)
    bench.put(task("t1"))
    assert bench.run() == {"t1": "b"}
    bench.move("t1", types.SHUTDOWN, types.SHUTDOWN)
    bench.now = 299.0
    bench.put(task("t2"))
    assert bench.run() == {"t2": "b"}
    bench.move("t2", types.SHUTDOWN, types.SHUTDOWN)
    bench.now = 301.0
    bench.put(task("t3"))
    assert bench.run() == {"t3": "a"}


def test_failures_of_tasks_that_came_with_their_node_do_not_count() -> None:
    bench = Bench(node("a"), service())
    for number in range(FAILURES_MAX):
        bench.put(task(f"f{number}", slot=0, node_id="a", state=types.RUNNING))
        bench.move(f"f{number}", types.FAILED)
    info = bench.scheduler.node("a")
    assert info is not None
    assert info.recent_failures(("web", 1), 0.0) == 0


def test_failures_in_the_first_slot_of_a_job_count_although_its_number_is_0() -> None:
    bench = Bench(node("a"), service())
    for number in range(FAILURES_MAX):
        made = task(f"f{number}", slot=0, node_id="a", state=types.RUNNING)
        made.job_iteration.index = 0
        bench.put(made)
        bench.move(f"f{number}", types.FAILED)
    info = bench.scheduler.node("a")
    assert info is not None
    assert info.recent_failures(("web", 1), 0.0) == FAILURES_MAX


def test_spread_evens_out_over_label_values_before_nodes() -> None:
    nodes = [node("a", labels={"zone": "1"}), *(node(id, labels={"zone": "2"}) for id in "bcd")]
    bench = Bench(*nodes, service(), *tasks(6, spread=["node.labels.zone"]))
    assert Counter(bench.run().values()) == {"a": 3, "b": 1, "c": 1, "d": 1}


def test_spread_has_levels_and_nodes_without_the_label_are_a_branch() -> None:
    nodes = [
        node("a", labels={"zone": "1", "rack": "x"}),
        node("b", labels={"zone": "1", "rack": "y"}),
        node("c", labels={"zone": "1", "rack": "y"}),
        node("d"),
    ]
    bench = Bench(*nodes, service(), *tasks(8, spread=["node.labels.zone", "node.labels.rack"]))
    assert Counter(bench.run().values()) == {"d": 4, "a": 2, "b": 1, "c": 1}


def test_what_a_full_branch_cannot_take_goes_to_the_others() -> None:
    nodes = [node("a", labels={"zone": "1"}, cpus=1), node("b", labels={"zone": "2"}, cpus=9)]
    bench = Bench(*nodes, service(), *tasks(6, cpus=1, spread=["node.labels.zone"]))
    assert Counter(bench.run().values()) == {"a": 1, "b": 5}


def test_a_spread_that_names_no_label_is_left_out() -> None:
    bench = Bench(node("a"), node("b"), service(), *tasks(4, spread=["node.hostname", "node.labels."]))
    assert per_node(bench.run()) == [2, 2]


def test_running_tasks_count_for_the_spread() -> None:
    nodes = [node("a", labels={"zone": "1"}), node("b", labels={"zone": "2"})]
    running = tasks(3, "r", node_id="a", state=types.RUNNING)
    bench = Bench(*nodes, service(), *running, *tasks(3, spread=["node.labels.zone"]))
    assert per_node(bench.run()) == [3]


def test_generic_resources_are_stored_on_the_task() -> None:
    offered = [generic.named("gpu", "a"), generic.named("gpu", "b")]
    bench = Bench(node("n", generic=offered), service(), *tasks(3, generic=[generic.discrete("gpu", 1)]))
    assert len(bench.run()) == 2
    assigned = [list(bench.store.task(f"t00{number}").assigned_generic_resources) for number in range(3)]
    assert assigned == [[offered[0]], [offered[1]], []]
    assert bench.err("t002") == "no suitable node (insufficient resources on 1 node)"


def test_tasks_without_a_spec_version_are_placed_one_by_one() -> None:
    bench = Bench(node("n", cpus=2), service(version=None), task("big", version=None, cpus=3), task("a", version=None))
    assert bench.run() == {"a": "n"}
    assert bench.err("big").startswith("no suitable node")


def test_two_versions_of_a_service_have_filters_of_their_own() -> None:
    old, new = (
        task("old", version=1, constraints=["node.id == a"]),
        task("new", version=2, constraints=["node.id == b"]),
    )
    bench = Bench(node("a"), node("b"), service(version=2), old, new)
    assert bench.run() == {"old": "a", "new": "b"}


@pytest.mark.parametrize(
    "after",
    [
        node("a", labels={"zone": "west"}),
        node("a", labels={"zone": "east"}, availability=specs.NodeSpec.DRAIN),
        node("a", labels={"zone": "east"}, state=types.NodeStatus.DOWN),
        node("a", labels={"zone": "east"}, engine_labels={"swarmlet.executor": "process"}),
        None,
    ],
)
def test_a_node_that_changed_is_looked_at_anew(after: objects.Node | None) -> None:
    asked = {"constraints": ["node.labels.zone == east"], "spread": ["node.labels.zone"]}
    east = {"zone": "east"}
    bench = Bench(node("a", labels=east), node("b", labels=east), service(), *tasks(2, "x", **asked))
    assert set(bench.run().values()) == {"a", "b"}
    if after is None:
        bench.remove(node("a"))
    else:
        bench.put(after)
    bench.put(*tasks(2, "y", **asked))
    assert set(bench.run().values()) == {"b"}
    bench.put(node("c", labels=east), *tasks(4, "z", **asked))
    assert Counter(bench.run().values()) == {"c": 3, "b": 1}


def test_more_kinds_of_services_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "LAYOUTS_MAX", 2)
    bench = Bench(node("a"), node("b"))
    for number in range(5):
        id = f"s{number}"
        bench.put(
            service(id), task(id, service=id, constraints=[f"node.id == {'ab'[number % 2]}", "node.id != x" + id])
        )
    assert bench.run() == {f"s{number}": "ab"[number % 2] for number in range(5)}


# Waiting


def test_a_task_that_fits_nowhere_waits_and_says_why_once() -> None:
    bench = Bench(node("n"), service(), task("t", constraints=["node.id == x"]))
    (decision,) = bench.decide()
    bench.write([decision])
    stored = bench.store.task("t")
    assert stored.status.state == types.PENDING
    assert stored.status.message == "pending task scheduling"
    assert stored.status.err == (
        "no suitable node (scheduling constraints not satisfied on 1 node); "
        "constraint node.id == x: no node has that value"
    )
    assert not bench.scheduler.due
    bench.put(node("n"))
    assert bench.scheduler.due
    assert bench.decide() == []
    bench.put(node("m"))
    (again,) = bench.decide()
    assert again.err.startswith("no suitable node (scheduling constraints not satisfied on 2 nodes); ")


def test_the_reason_goes_once_the_task_is_placed() -> None:
    bench = Bench(service(), task("t", cpus=1))
    bench.run()
    assert bench.err("t") == "no suitable node"
    bench.put(node("n"))
    assert bench.run() == {"t": "n"}
    assert bench.err("t") == ""


@pytest.mark.parametrize("event", ["ended", "completed", "removed", "node"])
def test_a_waiting_task_is_tried_again_when_room_was_made(event: str) -> None:
    bench = Bench(node("n", cpus=1), service(), task("first", cpus=1))
    bench.run()
    bench.put(task("second", cpus=1, slot=2))
    assert bench.run() == {}
    assert not bench.scheduler.due
    if event == "ended":
        bench.move("first", types.SHUTDOWN, types.SHUTDOWN)
    elif event == "completed":
        bench.move("first", types.COMPLETE)
    elif event == "removed":
        bench.remove(bench.store.task("first"))
    else:
        bench.put(node("n", cpus=2))
    assert bench.scheduler.due
    assert bench.run() == {"second": "n"}


def test_progress_of_other_tasks_is_no_reason_to_try_again() -> None:
    bench = Bench(node("n", cpus=1), service(), task("first", cpus=1), task("second", cpus=1, slot=2))
    bench.run()
    for state in (types.ACCEPTED, types.PREPARING, types.STARTING, types.RUNNING):
        bench.move("first", state)
        assert not bench.scheduler.due


def test_a_replica_limit_makes_room_as_soon_as_a_task_is_to_end() -> None:
    bench = Bench(node("n"), service(), *tasks(2, max_replicas=1))
    assert bench.run() == {"t000": "n"}
    assert bench.err("t001") == "no suitable node (max replicas per node limit exceed)"
    bench.move("t000", types.RUNNING, types.SHUTDOWN)
    assert bench.run() == {"t001": "n"}


def test_a_host_port_is_taken_until_its_task_has_ended() -> None:
    bench = Bench(node("n"), service(), *tasks(2, ports=[port(80, 8080, HOST)]))
    assert bench.run() == {"t000": "n"}
    bench.move("t000", types.RUNNING, types.SHUTDOWN)
    assert bench.run() == {}
    bench.move("t000", types.SHUTDOWN)
    assert bench.run() == {"t001": "n"}


def test_a_waiting_task_that_is_not_wanted_is_shut_down_without_a_node() -> None:
    bench = Bench(service(), task("t"))
    bench.run()
    for desired in (types.SHUTDOWN, types.REMOVE):
        bench.put(task(f"t{desired}"))
        bench.move(f"t{desired}", types.PENDING, desired)
        bench.put(node("n"))
        bench.write([each for each in bench.decide() if each.task_id == f"t{desired}"])
        stored = bench.store.task(f"t{desired}")
        assert (stored.status.state, stored.node_id, stored.status.err) == (types.SHUTDOWN, "", "")


def test_a_task_of_an_old_version_waits_on_and_is_placed_when_there_is_room() -> None:
    """Its service may only have been scaled: nobody would make another one for it."""
    bench = Bench(node("n", cpus=1), service(version=2), task("old", version=1, cpus=2))
    (waits,) = bench.decide()
    assert waits.err == "no suitable node (insufficient resources on 1 node)"
    bench.put(node("m", cpus=4))
    (placed,) = bench.decide()
    assert placed.node_id == "m"


def test_a_task_whose_service_is_gone_is_dropped_until_it_is_not_wanted() -> None:
    bench = Bench(task("t", cpus=1))
    assert bench.decide() == []
    assert bench.scheduler.waiting == 0
    bench.move("t", types.PENDING, types.REMOVE)
    bench.run()
    assert bench.store.task("t").status.state == types.SHUTDOWN


# Tasks that came with their node


def test_a_task_that_came_with_its_node_is_confirmed() -> None:
    bench = Bench(node("a"), node("b"), service(), task("t", slot=0, node_id="b"))
    assert bench.run() == {"t": "b"}
    assert bench.store.task("t").status.message == CONFIRMED


def test_a_task_that_does_not_fit_its_node_waits_for_that_node_alone() -> None:
    bench = Bench(node("a", cpus=9), node("b", cpus=1), service(), task("t", slot=0, node_id="b", cpus=2))
    assert bench.run() == {}
    assert bench.err("t") == "no suitable node (insufficient resources on 1 node)"
    bench.put(node("b", cpus=2))
    assert bench.run() == {"t": "b"}


def test_a_task_whose_node_is_unknown_waits_for_it() -> None:
    bench = Bench(node("a"), service(), task("t", slot=0, node_id="b"))
    assert bench.decide() == []
    bench.put(node("b"))
    assert bench.run() == {"t": "b"}


def test_tasks_with_their_node_come_before_those_without() -> None:
    bench = Bench(node("n", cpus=1), service(), task("a", cpus=1), task("z", slot=0, node_id="n", cpus=1))
    assert bench.run() == {"z": "n"}


# Writing


def test_decisions_are_booked_at_once() -> None:
    bench = Bench(node("n", cpus=1), service(), task("a", cpus=1))
    (first,) = bench.decide()
    bench.put(task("b", cpus=1, slot=2))
    (second,) = bench.decide()
    assert (first.node_id, second.node_id) == ("n", None)


@pytest.mark.parametrize(
    "after",
    [node("n", state=types.NodeStatus.DOWN), node("n", availability=specs.NodeSpec.DRAIN), None],
)
def test_a_node_that_takes_no_tasks_any_more_refuses_the_assignment(after: objects.Node | None) -> None:
    bench = Bench(node("n"), service(), task("t", cpus=1))
    decisions = bench.decide()
    if after is None:
        bench.remove(node("n"))
    else:
        bench.store.put(after)
    assert bench.write(decisions) == ["t"]
    if after is not None:
        bench.scheduler.put_node(after)
    bench.put(node("m"))
    assert bench.run() == {"t": "m"}


def test_a_refused_decision_gives_back_what_it_took() -> None:
    bench = Bench(node("n", cpus=1), service(), task("t", cpus=1))
    bench.decide()
    bench.scheduler.commit_failed(["t", "unknown"])
    info = bench.scheduler.node("n")
    assert info is not None
    assert (info.nano_cpus, info.active) == (CPU, 0)
    assert bench.run() == {"t": "n"}


def test_a_task_that_somebody_else_placed_holds_its_place_there_and_nowhere_else() -> None:
    bench = Bench(node("a"), node("b"), service(), task("t", cpus=1))
    (decision,) = bench.decide()
    assert decision.node_id == "a"
    bench.store.put(task("t", cpus=1, node_id="b", state=types.ASSIGNED))
    assert bench.write([decision]) == ["t"]
    bench.scheduler.put_task(bench.store.task("t"), 0.0)
    free = {id: bench.scheduler.node(id) for id in "ab"}
    assert {id: info.nano_cpus for id, info in free.items() if info} == {"a": 4 * CPU, "b": 3 * CPU}
    assert not bench.scheduler.waiting


def test_an_event_that_comes_before_the_refusal_releases_the_decided_node_too() -> None:
    bench = Bench(node("a"), node("b"), service(), task("t", cpus=1))
    (decision,) = bench.decide()
    bench.put(task("t", cpus=1, node_id="b", state=types.ASSIGNED))
    bench.scheduler.commit_failed([decision.task_id])
    info = bench.scheduler.node("a")
    assert info is not None
    assert info.nano_cpus == 4 * CPU
    assert not bench.scheduler.waiting


def test_a_task_that_is_not_wanted_any_more_is_not_assigned() -> None:
    bench = Bench(node("n"), service(), task("t"))
    decisions = bench.decide()
    bench.move("t", types.PENDING, types.SHUTDOWN)
    assert bench.write(decisions) == ["t"]
    bench.run()
    assert bench.store.task("t").status.state == types.SHUTDOWN


def test_a_task_that_went_is_no_failure_and_gives_its_place_back() -> None:
    bench = Bench(node("n", cpus=1), service(), task("t", cpus=1))
    decisions = bench.decide()
    bench.remove(task("t"))
    assert bench.write(decisions) == []
    bench.put(task("u", cpus=1))
    assert bench.run() == {"u": "n"}


def test_echoes_of_older_changes_do_not_place_a_task_twice() -> None:
    bench = Bench(node("n"), service(), task("t"))
    decisions = bench.decide()
    bench.scheduler.put_task(bench.store.task("t"), 0.0)
    assert bench.decide() == []
    assert bench.write(decisions) == []


def test_a_status_that_says_so_already_is_not_written_again() -> None:
    bench = Bench(node("n"), service(), task("t", cpus=99))
    (decision,) = bench.decide()
    bench.write([decision])
    before = bench.store.task("t").meta.version.index
    assert bench.store.run(lambda tx: commit(tx, decision))
    assert bench.store.task("t").meta.version.index == before


# Nodes that come and go, and a new leader


def test_tasks_of_a_node_that_comes_back_take_their_place_again() -> None:
    bench = Bench(node("n", cpus=1), service(), task("t", cpus=1))
    bench.run()
    bench.remove(node("n"))
    bench.put(task("u", cpus=1, slot=2))
    assert bench.run() == {}
    bench.put(node("n", cpus=1))
    assert bench.run() == {}
    bench.move("t", types.FAILED)
    assert bench.run() == {"u": "n"}


def test_a_task_may_be_heard_of_before_its_node() -> None:
    bench = Bench(service(), task("t", cpus=4, node_id="n", state=types.RUNNING), task("gone", node_id="n", slot=2))
    bench.move("gone", types.RUNNING)
    bench.remove(bench.store.task("gone"))
    bench.put(node("n", cpus=4))
    info = bench.scheduler.node("n")
    assert info is not None
    assert (info.nano_cpus, list(info.held)) == (0, ["t"])


def test_a_new_scheduler_goes_on_from_the_view() -> None:
    bench = Bench(node("a", cpus=2), node("b", cpus=2), service(), *tasks(3, cpus=1))
    bench.run()
    bench.put(task("new", state=types.NEW), *tasks(3, "u", cpus=1))
    heir = Scheduler()
    heir.load(bench.store.view.all(objects.Node), bench.store.view.all(objects.Task), 0.0)
    assert heir.waiting == 3
    decisions = heir.run(0.0, lambda id: bench.store.view.get(objects.Service, id))
    assert sorted(each.task_id for each in decisions if each.node_id) == ["u000"]


NODES = st.lists(st.tuples(st.sampled_from(["east", "west", ""]), st.integers(1, 4)), min_size=1, max_size=5)
KINDS = st.sampled_from(
    [
        {"cpus": 1.0},
        {"cpus": 0.5, "constraints": ["node.labels.zone == east"]},
        {"constraints": ["node.labels.zone != west"], "max_replicas": 2},
        {"ports": [port(80, 8080, HOST)]},
        {"cpus": 1.0, "spread": ["node.labels.zone"]},
    ]
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), KINDS, st.integers(1, 4)),
        st.tuples(st.just("end"), st.integers(0, 30), st.none()),
        st.tuples(st.just("refuse"), st.none(), st.none()),
        st.tuples(st.just("flap"), st.integers(0, 4), st.booleans()),
    ),
    max_size=12,
)


def view_of(bench: Bench, id: str) -> objects.Node:
    found = bench.store.view.get(objects.Node, id)
    assert found is not None
    return found


def check(bench: Bench) -> None:
    """Nothing is over-committed, and constraints, ports and limits hold for all that was placed."""
    view = bench.store.view
    for each in view.all(objects.Node):
        there = [t for t in view.find(objects.Task, "node", each.id) if t.status.state <= types.RUNNING]
        assert sum(t.spec.resources.reservations.nano_cpus for t in there) <= each.description.resources.nano_cpus
        published = [p.published_port for t in there for p in t.endpoint.ports]
        assert len(published) == len(set(published))
        for t in there:
            assert constraints.node_fits(each, t.spec.placement.constraints)
            limit = t.spec.placement.max_replicas
            assert not limit or sum(o.service_id == t.service_id for o in there) <= limit
        info = bench.scheduler.node(each.id)
        assert info is not None
        assert sorted(info.held) == sorted(t.id for t in there)


@given(NODES, STEPS)
@settings(max_examples=60)
def test_whatever_happens_nothing_is_over_committed(
    nodes: list[tuple[str, int]], steps: list[tuple[str, object, object]]
) -> None:
    made = [node(f"n{i}", labels={"zone": zone} if zone else {}, cpus=cpus) for i, (zone, cpus) in enumerate(nodes)]
    bench = Bench(*made)
    number = 0
    for kind, what, count in steps:
        if kind == "add" and isinstance(what, dict) and isinstance(count, int):
            number += 1
            bench.put(service(f"s{number}"), *tasks(count, f"s{number}-", service=f"s{number}", **what))
        elif kind == "end" and isinstance(what, int):
            running = [
                t.id for t in bench.store.view.all(objects.Task) if t.node_id and t.status.state < types.COMPLETE
            ]
            if running:
                bench.move(running[what % len(running)], types.FAILED)
        elif kind == "refuse":
            bench.scheduler.commit_failed([each.task_id for each in bench.decide()])
        elif kind == "flap" and isinstance(what, int):
            availability = specs.NodeSpec.DRAIN if count else specs.NodeSpec.ACTIVE
            bench.put(changed(made[what % len(made)], lambda new: setattr(new.spec, "availability", availability)))  # noqa: B023
        for id in bench.run().values():
            assert view_of(bench, id).spec.availability == specs.NodeSpec.ACTIVE
        check(bench)


BUSY = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=25)
"""Which node runs a task of which service already."""
FAILED = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), max_size=25)
GROUPS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(0, 2)), min_size=1, max_size=8)
"""Service, number of tasks, CPUs that each reserves; several runs."""


@given(BUSY, FAILED, GROUPS, GROUPS)
@settings(max_examples=150)
def test_each_task_goes_where_a_look_at_every_node_would_send_it(
    busy: list[tuple[int, int]],
    failed: list[tuple[int, int]],
    first: list[tuple[int, int, int]],
    second: list[tuple[int, int, int]],
) -> None:
    bench = Bench(*(node(f"n{number}", cpus=4 + number % 2) for number in range(6)))
    for number, (place, owner) in enumerate(busy):
        bench.put(task(f"busy{number}", f"s{owner}", slot=1, node_id=f"n{place}", state=types.RUNNING))
    for number, (place, owner) in enumerate(failed):
        at = {"slot": 1, "node_id": f"n{place}"}
        bench.put(task(f"bad{number}", f"s{owner}", state=types.RUNNING, **at))
        bench.put(task(f"bad{number}", f"s{owner}", state=types.FAILED, **at))
    for run, groups in enumerate((first, second)):
        waiting = [
            task(
                f"t{run}-{index}-{each}",
                f"s{owner}",
                slot=each + 1,
                cpus=cpus,
                version=index + 1,
                constraints=["node.id!=n0"] if index % 2 else [],
            )
            for index, (owner, count, cpus) in enumerate(groups)
            for each in range(count)
        ]
        infos = [info for number in range(6) if (info := bench.scheduler.node(f"n{number}")) is not None]
        books = {info.id: (info.active, dict(info.by_service), info.nano_cpus) for info in infos}
        failures = {info.id: {key: len(times) for key, times in info.failures.items()} for info in infos}
        bench.put(*waiting)
        decided = {each.task_id: each.node_id for each in bench.scheduler.run(bench.now, lambda service_id: None)}
        assert [decided.get(each.id) for each in waiting] == _by_looking_at_all(waiting, books, failures)
        for id in (each.id for each in waiting if decided.get(each.id) is None):
            bench.scheduler.remove_task(id)
        for number, (place, _) in enumerate(busy[::2]):
            bench.scheduler.remove_task(f"busy{2 * number}", f"n{place}")


def _by_looking_at_all(
    waiting: list[objects.Task],
    books: dict[str, tuple[int, dict[str, int], int]],
    failures: dict[str, dict[tuple[str, int | None], int]],
) -> list[str | None]:
    placed: list[str | None] = []
    for each in waiting:
        key, cpus = (each.service_id, each.spec_version.index), each.spec.resources.reservations.nano_cpus

        def rank(id: str, key: tuple[str, int] = key) -> tuple[int, int, int, str]:
            count = failures[id].get(key, 0)
            return (count if count >= FAILURES_MAX else 0, books[id][1].get(key[0], 0), books[id][0], id)

        free = {id for id in books if cpus <= books[id][2]} - ({"n0"} if each.spec.placement.constraints else set())
        best = min(free, key=rank, default=None)
        placed.append(best)
        if best is not None:
            active, by_service, left = books[best]
            books[best] = (active + 1, {**by_service, key[0]: by_service.get(key[0], 0) + 1}, left - cpus)
    return placed


def test_a_small_group_does_not_look_at_all_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(*(node(f"n{number:03}", labels={"zone": f"z{number % 3}"}) for number in range(300)))
    looks: list[str] = []
    plain_rank, plain_passes = NodeInfo.rank, Pipeline.still_passes

    def rank(self: NodeInfo, key: FailureKey, now: float) -> tuple[int, int, int]:
        looks.append(self.id)
        return plain_rank(self, key, now)

    def passes(self: Pipeline, info: NodeInfo) -> bool:
        looks.append(info.id)
        return plain_passes(self, info)

    monkeypatch.setattr(NodeInfo, "rank", rank)
    monkeypatch.setattr(Pipeline, "still_passes", passes)
    spread_over = ["node.labels.zone"]
    for owner in range(100):
        bench.put(*(task(f"t{owner}-{slot}", f"s{owner}", slot=slot, spread=spread_over) for slot in range(1, 4)))
    bench.scheduler.run(bench.now, lambda service_id: None)
    assert bench.scheduler.waiting == 0
    counts = Counter(info.active for number in range(300) if (info := bench.scheduler.node(f"n{number:03}")))
    assert counts == {1: 300}
    assert len(looks) == 2 * 300, "each task looks once before and once after it is placed"


@given(st.integers(1, 7), st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=40)
def test_on_equal_nodes_numbers_differ_by_one_at_most(nodes: int, first: int, second: int) -> None:
    bench = Bench(*[node(f"n{number}") for number in range(nodes)], service(), *tasks(first, "a"))
    bench.run()
    bench.put(*tasks(second, "b"))
    bench.run()
    counts = [len(bench.store.view.find(objects.Task, "node", f"n{number}")) for number in range(nodes)]
    assert sum(counts) == first + second
    assert max(counts) - min(counts) <= 1


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from(["state", "state", "state", "desired", "remove"]),
            st.sampled_from([64, 192, 256, 512, 576, 640]),
            st.sampled_from(["", "n1", "n2", "unknown"]),
        ),
        max_size=40,
    )
)
def test_books_are_the_same_whether_or_not_it_is_said_that_a_change_is_of_the_status_alone(history: list[Any]) -> None:
    told, untold = Scheduler(), Scheduler()
    newest: dict[str, objects.Task] = {}
    for each in (told, untold):
        each.load([node("n1", cpus=4), node("n2", cpus=4)], [], 0.0)
    for number, what, state, where in history:
        id = f"t{number}"
        old = newest.pop(id, None)
        if what == "remove":
            for each in (told, untold):
                each.remove_task(id, old.node_id if old is not None else "")
            continue
        new = task(id, cpus=1, slot=number + 1, ports=[port(80, 8000 + number, HOST)])
        of_status = old is not None and what == "state"
        if old is not None:
            new.CopyFrom(old)
        if what == "desired":
            new.desired_state = types.SHUTDOWN
        else:
            new.status.state = max(state, new.status.state)
        if not of_status:
            new.node_id = new.node_id or where
        newest[id] = new
        told.put_task(new, 0.0, of_status=of_status)
        untold.put_task(new, 0.0)
        assert (told.due, told.waiting) == (untold.due, untold.waiting)
    for id in ("n1", "n2"):
        one, other = told.node(id), untold.node(id)
        assert one is not None
        assert other is not None
        assert (one.held, one.active, one.nano_cpus, one.ports) == (
            other.held, other.active, other.nano_cpus, other.ports,
        )  # fmt: skip
