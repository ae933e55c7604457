"""Which tasks are moved when the scheduler would place them elsewhere now: held against the scheduler, the replicated
orchestrator and what an update replaces."""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import Refused
from runtime.swarm import rebalancing
from runtime.swarm.dirty import is_dirty
from runtime.swarm.labels import REBALANCE
from runtime.swarm.rebalancing import Move, moves, plan, unrest
from runtime.swarm.replicated import reconcile
from runtime.swarm.scheduling import Scheduler
from runtime.swarm.task_changes import Create, Desire
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.little_store import NOW, LittleStore, node_of_id, service_of, task_of

START_FIRST = types.UpdateConfig.START_FIRST
RUNNING = types.RUNNING


def swarm(nodes: int | list[objects.Node], **placed: str) -> LittleStore:
    """Nodes ``n1``, ``n2``, ... and for each service a task for each number in its text: ``web="112"`` has two tasks on
    ``n1`` and one on ``n2``."""
    store = LittleStore()
    made = [node_of_id(f"n{number}") for number in range(1, nodes + 1)] if isinstance(nodes, int) else nodes
    store.put(*made)
    for name, numbers in placed.items():
        service = service_of(name, len(numbers))
        store.put(service)
        for slot, number in enumerate(numbers, 1):
            store.put(task_of(service, f"{name}-{slot}", slot, node=f"n{number}"))
    return store


def services(store: LittleStore) -> list[objects.Service]:
    return [each for each in store.view.all(objects.Service) if not unrest(store.view, each)]


def planned(store: LittleStore, limit: int = 100) -> list[tuple[str, str, str, str]]:
    found = moves(store.view, services(store), limit, NOW)
    return [(each.service_id, each.task.node_id, each.target, each.means) for each in found]


def spread(store: LittleStore, service: str = "web") -> list[int]:
    """How many tasks each node has after all moves, the most first."""
    on_node = Counter(task.node_id for task in store.tasks(service))
    for id, source, target, _ in planned(store):
        if id == service:
            on_node[source] -= 1
            on_node[target] += 1
    return sorted(on_node.values(), reverse=True)


# What is moved


def test_a_node_that_joined_gets_its_share_from_the_fullest_by_scaling() -> None:
    store = swarm(3, web="111222")
    assert planned(store) == [("web", "n2", "n3", "scale"), ("web", "n1", "n3", "scale")]
    assert spread(store) == [2, 2, 2]


def test_single_tasks_go_to_the_node_with_fewer_tasks_each_by_a_constraint() -> None:
    store = swarm(2, a="1", b="1", c="1", d="1")
    assert planned(store) == [("a", "n1", "n2", "constraint"), ("b", "n1", "n2", "constraint")]


def test_what_lies_as_the_scheduler_would_have_it_stays() -> None:
    assert planned(swarm(3, web="123", api="12", db="3")) == []
    assert planned(swarm(2, web="112")) == []
    assert planned(swarm(1, web="1111")) == []


def test_no_more_is_moved_than_was_asked_for() -> None:
    store = swarm(4, web="11111111", api="1")
    assert len(planned(store)) > 3
    assert len(planned(store, 3)) == 3
    assert planned(store, 3) == planned(store)[:3]
    assert planned(store, 0) == []


def test_the_same_swarm_is_planned_in_the_same_way_whatever_order_it_was_made_in() -> None:
    one, other = LittleStore(), LittleStore()
    things = [*swarm(3, web="1112", api="11").view.all(objects.Task)]
    nodes = [node_of_id(f"n{number}") for number in range(1, 4)]
    for store, order in ((one, 1), (other, -1)):
        store.put(service_of("web", 4), service_of("api", 2), *nodes[::order], *things[::order])
    assert planned(one) == planned(other) != []


@pytest.mark.parametrize("more", [{"availability": specs.NodeSpec.PAUSE}, {"state": types.NodeStatus.DOWN}])
def test_a_node_that_takes_no_tasks_gets_none(more: dict[str, Any]) -> None:
    assert planned(swarm([node_of_id("n1"), node_of_id("n2", **more)], web="1111")) == []


def test_constraints_and_what_is_reserved_hold_for_moves_as_for_new_tasks() -> None:
    store = swarm(3, web="1111")
    store.edit(objects.Service, "web", lambda it: it.spec.task.placement.constraints.append("node.id!=n2"))
    assert {target for _, _, target, _ in planned(store)} == {"n3"}
    store.edit(
        objects.Service, "web", lambda it: setattr(it.spec.task.resources.reservations, "nano_cpus", 1_000_000_000)
    )
    assert planned(store) == [], "nodes that offer nothing have no room"


def test_the_values_of_a_spread_preference_go_before_the_nodes() -> None:
    nodes = [node_of_id(f"n{n}", labels={"rack": "a" if n < 4 else "b"}) for n in range(1, 5)]
    store = swarm(nodes, web="123")
    store.edit(objects.Service, "web", lambda it: _spread_over(it, "node.labels.rack"))
    assert planned(store) == [("web", "n1", "n4", "constraint")], "evenly over the nodes is not evenly over the racks"


def _spread_over(service: objects.Service, label: str) -> None:
    service.spec.task.placement.preferences.add().spread.spread_descriptor = label


def test_whoever_of_the_fullest_is_taken_it_has_to_be_better() -> None:
    """From n1 it would be, from n3 not: as many of rack c as of rack b. Another leader may take either of them."""
    racks = {"n1": "a", "n2": "a", "n3": "c", "n4": "b", "n5": "b"}
    store = swarm([node_of_id(id, labels={"rack": rack}) for id, rack in racks.items()], web="22333455111")
    store.edit(objects.Service, "web", lambda it: _spread_over(it, "node.labels.rack"))
    assert planned(store) == []
    store = swarm([node_of_id(id, labels={"rack": rack}) for id, rack in racks.items()], web="223455111")
    store.edit(objects.Service, "web", lambda it: _spread_over(it, "node.labels.rack"))
    assert planned(store, 1) == [("web", "n1", "n3", "scale")], "n1 alone is the fullest, and rack c has fewest"


def test_services_are_spread_before_nodes_are_evened_out_so_that_nothing_moves_twice() -> None:
    found = planned(swarm(3, a="2", b="1", c="2", web="111222"))
    assert [each[0] for each in found[:2]] == ["web", "web"]
    assert len({service for service, *_ in found[2:]}) == len(found[2:]) > 0


# Who takes part


def test_only_services_at_rest_take_part_and_the_others_say_why() -> None:
    store = swarm(2, web="1111", going="11", marked="11", once="11", small="11", lost="13", pending="11")
    store.put(_global("agent"))
    store.edit(objects.Service, "going", lambda it: setattr(it.update_status, "state", types.UpdateStatus.PAUSED))
    store.edit(objects.Service, "marked", lambda it: it.spec.annotations.labels.update({REBALANCE: "away n1"}))
    store.edit(objects.Service, "once", lambda it: setattr(it.spec.task.restart, "condition", types.RestartPolicy.NONE))
    store.edit(objects.Service, "small", lambda it: setattr(it.spec.replicated, "replicas", 3))
    store.edit(objects.Task, "pending-2", lambda it: setattr(it.status, "state", types.STARTING))
    value = plan(store.view, [], 10, NOW)
    assert {each["service"] for each in value["moves"]} == {"web"}
    assert {each["service"]: each["why"] for each in value["left"]} == {
        "agent": "only replicated services are spread",
        "going": "its update is not over",
        "lost": "1 of 2 tasks run",
        "marked": "a move of one of its tasks was begun and not ended",
        "once": "its tasks run once, and would run anew",
        "pending": "1 of 2 tasks run",
        "small": "2 of 3 tasks run",
    }


def _global(id: str) -> objects.Service:
    service = objects.Service(id=id)
    service.spec.annotations.name = id
    getattr(service.spec, "global").SetInParent()
    return service


def test_services_are_chosen_by_name_and_an_unknown_one_is_refused() -> None:
    store = swarm(2, web="1111", api="1111")
    assert {each["service"] for each in plan(store.view, ["api"], 10, NOW)["moves"]} == {"api"}
    with pytest.raises(Refused, match="no such service: nosuch"):
        plan(store.view, ["api", "nosuch"], 10, NOW)


# Held against those who carry it out


class Hand:
    """Carries moves out as a leader would: the orchestrator scales, the scheduler places, an update replaces."""

    def __init__(self, store: LittleStore) -> None:
        self.store = store
        self.ids = count(1)

    def carry_out(self, move: Move) -> tuple[str, str]:
        """The node that a task left, and the one that got it."""
        service = self.store.service(move.service_id)
        start_first = service.spec.update.order == START_FIRST
        steps = [self._grow, self._shrink] if start_first else [self._shrink, self._grow]
        if move.means == "constraint":
            return self._replace(move, start_first)
        replicas = service.spec.replicated.replicas
        first = steps[0](move.service_id, replicas + (1 if start_first else -1))
        second = steps[1](move.service_id, replicas)
        return (second, first) if start_first else (first, second)

    def _scale(self, id: str, replicas: int) -> Any:
        self.store.edit(objects.Service, id, lambda it: setattr(it.spec.replicated, "replicas", replicas))
        names = (f"made-{next(self.ids)}" for _ in count())
        (change,) = reconcile(self.store.view, id, lambda: next(names), lambda task: True, NOW).changes
        return change

    def _shrink(self, id: str, replicas: int) -> str:
        change = self._scale(id, replicas)
        assert isinstance(change, Desire)
        gone = self.store.task(change.task_id)
        self.store.delete(objects.Task, gone.id)
        return gone.node_id

    def _grow(self, id: str, replicas: int) -> str:
        change = self._scale(id, replicas)
        assert isinstance(change, Create)
        return self._place(change.task)

    def _place(self, task: objects.Task) -> str:
        task.status.state = types.PENDING
        scheduler = Scheduler()
        scheduler.load(self.store.view.all(objects.Node), [*self.store.view.all(objects.Task), task], NOW)
        (decision,) = scheduler.run(NOW, lambda id: self.store.view.get(objects.Service, id))
        assert decision.node_id, decision.err
        task.node_id, task.status.state = decision.node_id, RUNNING
        self.store.put(task)
        return decision.node_id

    def _replace(self, move: Move, start_first: bool) -> tuple[str, str]:
        """The constraint makes this task dirty and no other; and without it none is dirty again."""
        plain = self.store.service(move.service_id)
        against = objects.Service()
        against.CopyFrom(plain)
        against.spec.task.placement.constraints.append(f"node.id!={move.task.node_id}")
        against.spec_version.index += 1
        dirty = [task for task in self.store.tasks(plain.id) if self._is_dirty(task, against)]
        assert [task.id for task in dirty] == [move.task.id]
        new = task_of(against, f"made-{next(self.ids)}", move.task.slot)
        if not start_first:
            self.store.delete(objects.Task, move.task.id)
        target = self._place(new)
        if start_first:
            self.store.delete(objects.Task, move.task.id)
        back = objects.Service()
        back.CopyFrom(plain)
        back.spec_version.index += 2
        assert not [task.id for task in self.store.tasks(plain.id) if self._is_dirty(task, back)]
        self.store.edit(
            objects.Service, plain.id, lambda it: setattr(it.spec_version, "index", it.spec_version.index + 2)
        )
        return move.task.node_id, target

    def _is_dirty(self, task: objects.Task, service: objects.Service) -> bool:
        return is_dirty(task, service, self.store.view.get(objects.Node, task.node_id))


@st.composite
def swarms(draw: st.DrawFn) -> LittleStore:
    """Up to five nodes, some in racks, some paused; up to three services, whose tasks lie anywhere."""
    nodes = [
        node_of_id(
            f"n{number}",
            labels=draw(st.sampled_from([{}, {"rack": "a"}, {"rack": "b"}])),
            availability=draw(st.sampled_from([specs.NodeSpec.ACTIVE] * 3 + [specs.NodeSpec.PAUSE])),
        )
        for number in range(1, draw(st.integers(1, 5)) + 1)
    ]
    places = st.text(st.sampled_from("12345"[: len(nodes)]), max_size=7)
    store = swarm(nodes, **{name: draw(places) for name in draw(st.sampled_from([["a"], ["a", "b"], ["a", "b", "c"]]))})
    for service in store.view.all(objects.Service):
        if draw(st.booleans()):
            store.edit(objects.Service, service.id, lambda it: _spread_over(it, "node.labels.rack"))
            for task in store.tasks(service.id):
                store.edit(
                    objects.Task, task.id, lambda it, of=service.id: it.spec.CopyFrom(store.service(of).spec.task)
                )
        if draw(st.booleans()):
            store.edit(objects.Service, service.id, lambda it: setattr(it.spec.update, "order", START_FIRST))
    return store


@given(swarms())
@settings(max_examples=80, deadline=None)
def test_every_move_is_what_orchestrator_and_scheduler_make_of_it_and_there_is_an_end(store: LittleStore) -> None:
    hand, steps = Hand(store), 0
    while found := moves(store.view, services(store), 1, NOW):
        (move,) = found
        assert hand.carry_out(move) == (move.task.node_id, move.target)
        steps += 1
        assert steps <= 60, "it goes on and on"


def counts(store: LittleStore, service: str) -> list[int]:
    on_node = Counter(task.node_id for task in store.tasks(service))
    return sorted((on_node[node.id] for node in store.view.all(objects.Node)), reverse=True)


@given(swarms())
@settings(max_examples=60, deadline=None)
def test_in_the_end_a_service_lies_as_the_scheduler_would_have_placed_it_anew(store: LittleStore) -> None:
    active = {node.id for node in store.view.all(objects.Node) if node.spec.availability == specs.NodeSpec.ACTIVE}
    hand = Hand(store)
    while found := moves(store.view, services(store), 1, NOW):
        hand.carry_out(found[0])
        assert next(hand.ids) <= 400, "it goes on and on"
    for service in store.view.all(objects.Service):
        mine = store.tasks(service.id)
        if service.spec.task.placement.preferences or any(task.node_id not in active for task in mine):
            continue  # levels of preferences hold each other up; what is paused keeps what it has
        lies = counts(store, service.id)
        anew = Hand(LittleStore())
        anew.store.put(*store.view.all(objects.Node), *store.view.all(objects.Service))
        anew.store.put(*(task for task in store.view.all(objects.Task) if task.service_id != service.id))
        for task in mine:
            fresh = task_of(service, f"anew-{task.id}", task.slot)
            anew._place(fresh)
        assert lies == counts(anew.store, service.id)


@given(swarms(), st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_a_plan_of_many_moves_begins_as_one_of_few(store: LittleStore, limit: int) -> None:
    everything = planned(store)
    assert planned(store, limit) == everything[:limit]


@given(swarms())
@settings(max_examples=60, deadline=None)
def test_what_is_not_even_tried_would_have_gained_nothing(store: LittleStore) -> None:
    found = planned(store)
    with mock.patch.object(rebalancing._Books, "may_gain", return_value=True):
        assert planned(store) == found
