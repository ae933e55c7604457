"""The checks of a whole swarm's simulation by themselves: what they let pass and what they notice."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.protocol.store import Commits, Entries, Watch
from runtime.stage import Actor
from runtime.stage.simulator import Simulator
from runtime.store.changes import Action, Change, encode_request
from runtime.store.events import Commit, WatchFilter
from runtime.store.view import Published, View
from runtime.wire.pb import objects_pb2
from runtime.wire.pb import types_pb2 as types
from tests.simulation.raft_invariants import Violation
from tests.simulation.swarm_invariants import Model, Watcher
from tests.simulation.swarm_watches import Watches

# The reference model by itself


def task(id: str, **fields: Any) -> objects_pb2.Task:
    made = objects_pb2.Task(id=id, service_id="web", slot=fields.pop("slot", 1), node_id=fields.pop("node_id", ""))
    made.status.state = fields.pop("state", types.NEW)
    made.desired_state = fields.pop("desired", types.RUNNING)
    assert not fields
    return made


def change(model: Model, field: str, action: Action, new: Any) -> None:
    model._change(field, action, new, 0.0)


def node(model: Model, id: str, cpus: int = 1) -> None:
    made = objects_pb2.Node(id=id)
    made.description.resources.nano_cpus = cpus
    change(model, "node", Action.CREATE, made)


def test_two_live_tasks_in_a_slot_are_noticed_and_one_after_another_is_fine() -> None:
    model = Model()
    change(model, "task", Action.CREATE, task("a"))
    change(model, "task", Action.UPDATE, task("a", desired=types.SHUTDOWN))
    change(model, "task", Action.CREATE, task("b"))
    change(model, "task", Action.CREATE, task("c", slot=2))
    with pytest.raises(Violation, match="2 live tasks in slot 1"):
        change(model, "task", Action.CREATE, task("d"))


def test_a_task_that_goes_back_is_noticed() -> None:
    model = Model()
    change(model, "task", Action.CREATE, task("a", state=types.RUNNING))
    with pytest.raises(Violation, match="goes back from RUNNING to STARTING"):
        change(model, "task", Action.UPDATE, task("a", state=types.STARTING))
    with pytest.raises(Violation, match="desired state goes back"):
        change(model, "task", Action.UPDATE, task("a", state=types.RUNNING, desired=types.READY))


def test_assignments_are_checked_against_the_node() -> None:
    model = Model()
    node(model, "n")
    change(model, "task", Action.CREATE, task("a"))
    with pytest.raises(Violation, match="node m, which is not there"):
        change(model, "task", Action.UPDATE, task("a", state=types.ASSIGNED, node_id="m"))
    change(model, "task", Action.CREATE, task("c", slot=3))
    picky = task("c", slot=3, state=types.ASSIGNED, node_id="n")
    picky.spec.placement.constraints.append("node.id==other")
    with pytest.raises(Violation, match="fails its constraints"):
        change(model, "task", Action.UPDATE, picky)
    big = task("b", slot=2, state=types.ASSIGNED, node_id="n")
    big.spec.resources.reservations.nano_cpus = 2
    change(model, "task", Action.CREATE, task("b", slot=2))
    with pytest.raises(Violation, match="1 of 2 nanocpus"):
        change(model, "task", Action.UPDATE, big)


def test_changes_that_do_not_fit_the_store_are_noticed() -> None:
    model = Model()
    with pytest.raises(Violation, match="UPDATE of task a, which is not there"):
        change(model, "task", Action.UPDATE, task("a"))
    change(model, "task", Action.CREATE, task("a"))
    with pytest.raises(Violation, match="CREATE of task a, which is there"):
        change(model, "task", Action.CREATE, task("a"))
    with pytest.raises(Violation, match="entry 5 is applied before anybody applied 1"):
        model.apply(5, b"", 0.0)


def test_a_watcher_sees_entries_that_come_twice_or_differ() -> None:
    simulator = Simulator(1)
    watcher = Watcher(simulator)
    stages = [simulator.node(name) for name in ("a", "b")]
    cells = [stage.probe("store") and stage.cells["/store"] for stage in stages]
    watcher._entries(cells[0], Entries(((1, 0, b""), (2, 0, b""))))
    with pytest.raises(Violation, match="exactly once: a applies entry 2 where 3 is due"):
        watcher._entries(cells[0], Entries(((2, 0, b""),)))
    with pytest.raises(Violation, match="another entry at 1"):
        watcher._entries(cells[1], Entries(((1, 0, b"x"),)))


def service(id: str, name: str) -> objects_pb2.Service:
    made = objects_pb2.Service(id=id)
    made.spec.annotations.name = name
    return made


def entry(action: Action, new: Any) -> bytes:
    old = None if action is Action.CREATE else new
    return encode_request(1, [Change(action, type(new), old, None if action is Action.REMOVE else new)])


def test_the_reference_knows_what_every_object_was_after_every_entry() -> None:
    model = Model()
    model.apply(1, entry(Action.CREATE, service("s", "one")), 0.0)
    model.apply(2, b"", 0.0)
    model.apply(3, entry(Action.UPDATE, service("s", "two")), 0.0)
    model.apply(4, entry(Action.REMOVE, service("s", "two")), 0.0)
    names = [model.object_at(("service", "s"), index) for index in range(5)]
    assert [each and each.spec.annotations.name for each in names] == [None, "one", "one", "two", None]
    assert model.at(2) == {("service", "s"): service("s", "one")}
    assert model.at(4) == {}


class Nest(Actor):
    """Whoever lives at /cluster/node/manager/watcher, and those above it."""

    def __init__(self, *below: str) -> None:
        super().__init__()
        self.below = below

    def started(self) -> None:
        if self.below:
            self.spawn(self.below[0], Nest, *self.below[1:])


class Holder(Actor):
    """Stands for a store: what it has published."""

    def __init__(self) -> None:
        super().__init__()
        self.published = Published(View(3))


class Bench:
    """A store and a watcher of it that do nothing by themselves."""

    def __init__(self) -> None:
        simulator = Simulator(1)
        self.stage = simulator.node("a")
        self.stage.mount("store", Holder)
        self.stage.mount("cluster", Nest, "node", "manager", "watcher")
        simulator.settle()
        self.store = self.stage.cells["/store"]
        self.watcher = self.stage.cells["/cluster/node/manager/watcher"]
        changed = Change(Action.CREATE, objects_pb2.Service, None, service("s", "one"))
        other = Change(Action.CREATE, objects_pb2.Task, None, task("t"))
        self.watches = Watches({4: [changed], 5: [other], 6: [changed], 7: [changed]})

    def publish(self, version: int) -> None:
        assert isinstance(self.store.instance, Holder)
        self.store.instance.published.view = View(version)

    def ask(self) -> None:
        filter = WatchFilter.kinds(objects_pb2.Service)
        self.watches.asked(self.store, Watch(filter), self.stage.at(self.watcher.path))

    def tell(self, *versions: int) -> None:
        commits = tuple(Commit(version, (), View(version)) for version in versions)
        self.watches.told(self.watcher, Commits(commits))


def test_what_a_watcher_did_not_ask_for_is_no_gap() -> None:
    bench = Bench()
    bench.ask()
    bench.tell(4)
    bench.tell(6, 7)
    assert bench.watches.heard == 3


def test_a_gap_a_repetition_and_what_was_not_asked_for_are_noticed() -> None:
    bench = Bench()
    with pytest.raises(Violation, match="has not asked for"):
        bench.tell(4)
    bench.ask()
    bench.tell(4)
    with pytest.raises(Violation, match="told of version 4 after 4"):
        bench.tell(4)
    with pytest.raises(Violation, match="told of version 7 and was not told of 6"):
        bench.tell(7)


def test_what_the_life_before_was_told_may_come_again_and_nothing_else() -> None:
    bench = Bench()
    bench.ask()
    bench.tell(4)
    bench.publish(6)
    filter = WatchFilter.kinds(objects_pb2.Service)
    bench.watches.asked(bench.store, Watch(filter, 3), bench.stage.at(bench.watcher.path))
    bench.tell(4)
    bench.tell(4, 6)
    bench.tell(7)
    with pytest.raises(Violation, match="told of version 7 after 7"):
        bench.tell(7)


def test_a_snapshot_stands_for_the_entries_that_it_replaces() -> None:
    bench = Bench()
    bench.ask()
    bench.watches.restored(bench.store, 6)
    bench.tell(7)


def test_at_rest_nothing_is_left_untold() -> None:
    bench = Bench()
    bench.ask()
    bench.publish(4)
    with pytest.raises(Violation, match="was not told of 4"):
        bench.watches.judge([bench.stage], bench.store.path)
    bench.tell(4)
    bench.watches.judge([bench.stage], bench.store.path)
