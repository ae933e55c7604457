"""SchedulerActor over a real store: when it runs, what it writes, what it does about what was refused or lost."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from actors import scheduler_actor
from actors.allocator_actor import AllocatorActor
from actors.scheduler_actor import SchedulerActor
from runtime.protocol.store import Write
from runtime.swarm.labels import START_AFTER
from runtime.swarm.scheduling import Decision, Scheduler, ServiceOf
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.messages.part_bench import PartBench
from tests.unit.swarm_orchestration.placing import HOST, ingress, node, port, service, task


def bench(*made: Any, **more: Any) -> PartBench:
    return PartBench(SchedulerActor, *made, **more)


def tasks(count: int, prefix: str = "t", **more: Any) -> list[objects.Task]:
    return [task(f"{prefix}{number:04}", slot=number + 1, **more) for number in range(count)]


def state(one: PartBench, id: str) -> int:
    return one.task(id).status.state


def placed(one: PartBench, id: str) -> bool:
    return state(one, id) == types.ASSIGNED


def elapsed(one: PartBench, since: float) -> float:
    return one.simulator.time - since


def test_tasks_that_wait_when_it_starts_are_placed() -> None:
    one = bench(node("n"), service(), task("t"))
    one.wait(lambda: placed(one, "t"))
    assert one.task("t").node_id == "n"
    assert one.task("t").status.message == "scheduler assigned task to node"


def test_a_task_is_placed_20_ms_after_it_came() -> None:
    one = bench(node("n"), service())
    one.simulator.run_for(1)
    one.put(task("t"))
    since = one.simulator.time
    one.wait(lambda: placed(one, "t"))
    assert 0.019 <= elapsed(one, since) <= 0.030


def test_changes_that_keep_coming_hold_no_run_up() -> None:
    one = bench(node("n"), service())
    one.simulator.run_for(1)
    one.put(task("t"))
    since = one.simulator.time
    while not placed(one, "t"):
        one.simulator.run_for(0.004)
        one.edit(objects.Node, "n", lambda new: new.spec.annotations.labels.update({"at": str(one.simulator.time)}))
        assert elapsed(one, since) < 0.05


def test_while_tasks_wait_runs_rest_as_long_as_the_last_one_took(monkeypatch: pytest.MonkeyPatch) -> None:
    one = bench(node("n", state=types.NodeStatus.DOWN), service(), task("t"))
    one.simulator.run_for(1)
    begun: list[float] = []
    plain = Scheduler.run

    def slow(self: Scheduler, now: float, service_of: ServiceOf) -> list[Decision]:
        begun.append(now)
        one.simulator.time += 0.3
        return plain(self, now, service_of)

    monkeypatch.setattr(Scheduler, "run", slow)
    for number in range(40):
        one.edit(objects.Node, "n", lambda new, number=number: new.spec.annotations.labels.update({"at": str(number)}))
        one.simulator.run_for(0.05)
    gaps = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert len(gaps) >= 3
    assert all(0.6 <= gap <= 0.7 for gap in gaps), gaps


def test_changes_that_come_close_together_are_decided_about_together() -> None:
    one = bench(node("n"), service())
    one.simulator.run_for(1)
    for number in range(4):
        one.put(task(f"t{number}", slot=number + 1))
        one.simulator.run_for(0.001)
    assert not any(placed(one, f"t{number}") for number in range(4))
    one.simulator.run_for(0.06)
    assert all(placed(one, f"t{number}") for number in range(4))
    versions = {one.task(f"t{number}").meta.version.index for number in range(4)}
    assert len(versions) == 1


def test_a_task_that_fits_nowhere_says_why_and_is_placed_when_a_node_comes() -> None:
    one = bench(node("n"), service(), task("t", constraints=["node.labels.zone == east"]))
    one.wait(lambda: one.task("t").status.err != "")
    status = one.task("t").status
    assert status.err == (
        "no suitable node (scheduling constraints not satisfied on 1 node); "
        "constraint node.labels.zone == east: no node has the label zone"
    )
    assert (status.state, status.message) == (types.PENDING, "pending task scheduling")
    one.put(node("m", labels={"zone": "east"}))
    one.wait(lambda: placed(one, "t"))
    assert (one.task("t").node_id, one.task("t").status.err) == ("m", "")


def test_the_same_reason_is_not_written_again() -> None:
    one = bench(node("n"), service(), task("t", cpus=99))
    one.wait(lambda: one.task("t").status.err != "")
    before = one.task("t").meta.version.index
    for _ in range(3):
        one.put(node("n"))
        one.simulator.run_for(0.5)
    assert one.task("t").meta.version.index == before
    one.put(node("m"))
    one.simulator.run_for(0.5)
    assert one.task("t").status.err == "no suitable node (insufficient resources on 2 nodes)"


def test_nothing_is_written_while_nothing_waits() -> None:
    one = bench(node("n"), service(), task("t"))
    one.simulator.run_for(1)
    before = one.published.view.version
    one.edit(objects.Task, "t", lambda new: setattr(new.status, "state", types.RUNNING))
    one.put(node("n", labels={"a": "b"}))
    one.simulator.run_for(5)
    assert one.published.view.version == before + 2


def test_room_that_a_task_leaves_is_given_to_the_next() -> None:
    one = bench(node("n", cpus=1), service(), task("a", cpus=1))
    one.wait(lambda: placed(one, "a"))
    one.put(task("b", cpus=1, slot=2))
    one.wait(lambda: one.task("b").status.err != "")
    one.edit(objects.Task, "a", lambda new: setattr(new.status, "state", types.FAILED))
    one.wait(lambda: placed(one, "b"))


def test_a_removed_task_leaves_room_too() -> None:
    one = bench(node("n", cpus=1), service(), task("a", cpus=1))
    one.wait(lambda: placed(one, "a"))
    one.put(task("b", cpus=1, slot=2))
    one.simulator.run_for(1)
    one.remove(objects.Task, "a")
    one.wait(lambda: placed(one, "b"))


def test_a_task_that_came_with_its_node_is_confirmed() -> None:
    one = bench(node("a"), node("b"), service(), task("t", slot=0, node_id="b"))
    one.wait(lambda: placed(one, "t"))
    assert (one.task("t").node_id, one.task("t").status.message) == (
        "b",
        "scheduler confirmed task can run on preassigned node",
    )


def test_a_waiting_task_that_is_not_wanted_is_shut_down() -> None:
    one = bench(service(), task("t"))
    one.wait(lambda: one.task("t").status.err != "")
    one.edit(objects.Task, "t", lambda new: setattr(new, "desired_state", types.SHUTDOWN))
    one.wait(lambda: state(one, "t") == types.SHUTDOWN)
    assert one.task("t").status.err == ""


def test_a_removed_node_gets_nothing() -> None:
    one = bench(node("a"), node("b"), service())
    one.simulator.run_for(1)
    one.remove(objects.Node, "a")
    one.put(*tasks(3))
    one.wait(lambda: placed(one, "t0002"))
    assert {one.task(each.id).node_id for each in tasks(3)} == {"b"}


@pytest.mark.parametrize("change", ["drain", "down", "remove", "label"])
def test_a_node_that_is_lost_between_decision_and_transaction_gets_nothing(change: str) -> None:
    one = bench(node("a", labels={"fits": "yes"}), service())
    one.simulator.run_for(1)
    one.put(task("t", constraints=["node.labels.fits == yes"]))
    one.wait(lambda: one.actor.scheduler.due)
    one.held = True
    step = {
        "drain": lambda tx: tx.update(
            _changed(tx, lambda new: setattr(new.spec, "availability", specs.NodeSpec.DRAIN))
        ),
        "down": lambda tx: tx.update(_changed(tx, lambda new: setattr(new.status, "state", types.NodeStatus.DOWN))),
        "remove": lambda tx: tx.delete(objects.Node, "a"),
        "label": lambda tx: tx.update(_changed(tx, lambda new: new.spec.annotations.labels.clear())),
    }[change]
    future = one.store.ask(Write(step))
    one.simulator.run_for(0.2)
    assert not future.done
    assert not one.actor.snapshot()["in flight"]
    one.release()
    one.simulator.run_for(0.2)
    assert state(one, "t") == types.PENDING
    assert one.task("t").status.err.startswith("no suitable node")
    one.put(node("b", labels={"fits": "yes"}))
    one.wait(lambda: placed(one, "t"))
    assert one.task("t").node_id == "b"


def _changed(tx: Any, edit: Any) -> objects.Node:
    new = objects.Node()
    new.CopyFrom(tx.get(objects.Node, "a"))
    edit(new)
    return new


def test_many_tasks_are_written_in_slices_and_all_are_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_actor, "SLICE", 100)
    one = bench(*[node(f"n{number}") for number in range(5)], service())
    one.simulator.run_for(1)
    for part in range(3):
        one.put(*tasks(150, f"p{part}-"))
    one.held = True
    one.wait(lambda: bool(one.proposed))
    one.simulator.settle()
    assert one.actor.snapshot() == {"waiting": 0, "in flight": 100, "unwritten": 350}
    one.release()
    one.wait(lambda: all(t.status.state == types.ASSIGNED for t in one.published.view.all(objects.Task)))
    assert [len(one.published.view.find(objects.Task, "node", f"n{number}")) for number in range(5)] == [90] * 5
    one.simulator.run_for(1)
    assert one.actor.snapshot() == {"waiting": 0, "in flight": 0, "unwritten": 0}


def test_the_next_run_waits_until_everything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_actor, "SLICE", 1)
    one = bench(node("n"), service())
    one.simulator.run_for(1)
    one.put(*tasks(2))
    one.held = True
    one.wait(lambda: bool(one.proposed))
    others = one.store.ask(Write(lambda tx: tx.create(task("u", slot=3)) and None))
    one.simulator.settle()
    one.commit_up_to(one.proposed[-1].number)
    one.simulator.run_for(1)
    assert others.done
    assert one.actor.snapshot() == {"waiting": 1, "in flight": 1, "unwritten": 0}
    assert len(one.proposed) == 1
    one.release()
    one.wait(lambda: all(placed(one, id) for id in ("t0000", "t0001", "u")))


def test_a_proposal_that_is_refused_is_decided_about_again() -> None:
    one = bench(node("n", cpus=1), service())
    one.simulator.run_for(1)
    one.put(task("t", cpus=1))
    one.held = True
    one.wait(lambda: bool(one.proposed))
    one.refuse()
    one.held = False
    assert state(one, "t") == types.PENDING
    life = one.actor
    one.wait(lambda: placed(one, "t"))
    assert one.actor is life


def test_a_life_that_fails_is_followed_by_one_that_places_the_rest() -> None:
    one = bench(node("n"), service(), task("a"))
    one.wait(lambda: placed(one, "a"))
    one.crash()
    one.put(task("b", slot=2))
    one.wait(lambda: placed(one, "b"))
    assert one.actor.scheduler.node("n").active == 2


def test_a_new_life_waits_for_what_the_last_one_proposed() -> None:
    one = bench(node("n", cpus=1), service())
    one.simulator.run_for(1)
    one.put(task("a", cpus=1), task("b", cpus=1, slot=2))
    one.held = True
    one.wait(lambda: bool(one.proposed))
    one.crash()
    one.simulator.run_for(2)
    assert len(one.proposed) == 1
    one.release()
    one.simulator.run_for(2)
    states = sorted(state(one, id) for id in "ab")
    assert states == [types.PENDING, types.ASSIGNED]
    assert one.actor.scheduler.node("n").nano_cpus == 0


def test_an_outcome_that_never_comes_fails_the_life_and_nothing_is_placed_twice() -> None:
    one = bench(node("n", cpus=1), service())
    one.simulator.run_for(1)
    one.put(task("a", cpus=1), task("b", cpus=1, slot=2))
    one.held = True
    one.wait(lambda: bool(one.proposed))
    life = one.actor
    one.simulator.run_for(22)
    assert one.actor is not life
    one.release()
    one.simulator.run_for(2)
    assert sorted(state(one, id) for id in "ab") == [types.PENDING, types.ASSIGNED]


@pytest.mark.parametrize("seed", range(4))
def test_crashes_in_the_middle_never_over_commit_a_node(seed: int) -> None:
    one = bench(*[node(f"n{number}", cpus=3) for number in range(3)], service(), seed=seed)
    for part in range(4):
        one.put(*tasks(3, f"p{part}-", cpus=1))
        one.simulator.run_for(0.045 + 0.004 * seed)
        one.crash()
    one.simulator.run_for(5)
    view = one.published.view
    assert [len(view.find(objects.Task, "node", f"n{number}")) for number in range(3)] == [3, 3, 3]
    assert len(view.find(objects.Task, "task_state", types.PENDING)) == 3


def test_new_tasks_go_through_the_allocator_to_nodes_with_their_host_ports() -> None:
    one = bench(node("a"), node("b"), ingress())
    one.stage.mount("allocator", AllocatorActor, one.context)
    one.simulator.run_for(1)
    one.put(service(ports=[port(80), port(81, 8081, HOST)]), *tasks(3, state=types.NEW))
    one.wait(lambda: sum(t.status.state == types.ASSIGNED for t in one.published.view.all(objects.Task)) == 2)
    one.simulator.run_for(1)
    stored = one.published.view.all(objects.Task)
    assert sorted(t.node_id for t in stored) == ["", "a", "b"]
    assert all([p.published_port for p in t.endpoint.ports] == [30000, 8081] for t in stored)
    (waiting,) = (t for t in stored if not t.node_id)
    assert waiting.status.message == "pending task scheduling"
    assert waiting.status.err == "no suitable node (host-mode port already in use on 2 nodes)"


def test_equal_seeds_give_equal_deliveries() -> None:
    def run(seed: int) -> str:
        one = bench(*[node(f"n{number}") for number in range(3)], service(), seed=seed)
        one.stage.mount("allocator", AllocatorActor, one.context)
        one.put(*tasks(9, state=types.NEW))
        one.simulator.run_for(2)
        return one.simulator.digest

    assert run(3) == run(3)


# Services that start after others


def after(id: str, others: str) -> objects.Service:
    made = service(id)
    made.spec.annotations.labels[START_AFTER] = others
    return made


def test_a_first_start_waits_for_the_service_before_it_and_says_so() -> None:
    one = bench(node("n"), after("web", "db"), service("db"), task("w"), task("d", "db"))
    one.wait(lambda: placed(one, "d"))
    one.simulator.run_for(5)
    assert (state(one, "w"), one.task("w").status.err) == (
        types.PENDING,
        "it starts after db (no task of it runs): label swarmlet.start-after",
    )
    one.edit(objects.Task, "d", lambda new: setattr(new.status, "state", types.RUNNING))
    since = one.simulator.time
    one.wait(lambda: placed(one, "w"))
    assert elapsed(one, since) <= 0.1
    assert one.task("w").status.err == ""


def test_a_service_that_comes_later_lets_the_other_start() -> None:
    one = bench(node("n"), after("web", "db"), task("w"))
    one.wait(lambda: "there is no such service" in one.task("w").status.err)
    one.put(service("db"))
    one.wait(lambda: "no task of it runs" in one.task("w").status.err)
    one.put(task("d", "db", node_id="n", state=types.RUNNING))
    one.wait(lambda: placed(one, "w"))


def test_a_label_that_is_taken_away_holds_nobody() -> None:
    one = bench(node("n"), after("web", "db"), task("w"))
    one.wait(lambda: one.task("w").status.err != "")
    one.edit(objects.Service, "web", lambda new: new.spec.annotations.labels.clear())
    one.wait(lambda: placed(one, "w"))


def test_a_task_that_came_with_its_node_waits_too() -> None:
    each = after("web", "db")
    getattr(each.spec, "global").SetInParent()
    one = bench(node("n"), each, service("db"), task("w", slot=0, node_id="n"))
    one.wait(lambda: "no task of it runs" in one.task("w").status.err)
    one.put(task("d", "db", node_id="n", state=types.RUNNING))
    one.wait(lambda: placed(one, "w"))


def test_scaling_and_replacing_wait_for_nobody() -> None:
    running = task("w", node_id="n", state=types.RUNNING)
    one = bench(node("n"), after("web", "db"), running, task("w2", slot=2))
    one.wait(lambda: placed(one, "w2"))
    one.edit(objects.Task, "w", lambda new: setattr(new.status, "state", types.FAILED))
    one.put(task("w3", slot=1))
    one.wait(lambda: placed(one, "w3"))


def test_a_new_life_holds_what_the_last_one_held() -> None:
    one = bench(node("n"), after("web", "db"), service("db"), task("w"))
    one.wait(lambda: one.task("w").status.err != "")
    one.crash()
    one.simulator.run_for(2)
    assert not placed(one, "w")
    one.put(task("d", "db", node_id="n", state=types.RUNNING))
    one.wait(lambda: placed(one, "w"))
