"""NodeReaperActor over a real store: which nodes it removes, when, and what it does about what was not taken."""

from __future__ import annotations

from typing import Any

from actors.node_reaper_actor import NodeReaperActor
from runtime.protocol.explain import AskWaits
from runtime.protocol.store import Write
from runtime.store.transaction import Transaction
from runtime.swarm.labels import REMOVE_AFTER
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.messages.part_bench import PartBench
from tests.unit.swarm_orchestration.little_store import cluster_with
from tests.unit.swarm_orchestration.placing import node, service, task

DOWN, READY = types.NodeStatus.DOWN, types.NodeStatus.READY


def bench(*made: Any) -> PartBench:
    return PartBench(NodeReaperActor, cluster_with(10), node("up"), *made)


def gone(id: str = "n", label: str = "10m") -> objects.Node:
    return node(id, state=DOWN, labels={REMOVE_AFTER: label})


def there(one: PartBench, id: str = "n") -> bool:
    return one.published.view.get(objects.Node, id) is not None


def set_state(one: PartBench, state: types.NodeStatus.State, id: str = "n") -> None:
    one.edit(objects.Node, id, lambda new: setattr(new.status, "state", state))


def test_a_node_that_is_down_for_as_long_as_its_label_allows_is_removed_with_all_that_follows() -> None:
    one = bench(gone(), service(), task("t", node_id="n", state=types.RUNNING))
    one.simulator.run_for(599)
    assert there(one)
    one.simulator.run_for(2)
    assert not there(one)
    assert there(one, "up")
    assert one.task("t").status.state == types.ORPHANED
    (cluster,) = one.published.view.all(objects.Cluster)
    assert list(cluster.blacklisted_certificates) == ["n"]


def test_a_node_that_comes_back_in_time_stays() -> None:
    one = bench(gone())
    one.simulator.run_for(500)
    set_state(one, READY)
    one.simulator.run_for(1000)
    assert there(one)
    set_state(one, DOWN)
    one.simulator.run_for(599)
    assert there(one)
    one.simulator.run_for(2)
    assert not there(one)


def test_a_node_that_comes_back_while_its_removal_is_on_its_way_stays() -> None:
    one = bench(gone())
    one.simulator.run_for(599)
    one.held = True
    one.store.tell(_ready("n"))
    one.simulator.run_for(5)
    one.release()
    one.simulator.run_for(60)
    assert there(one)


def _ready(id: str) -> Write:
    def step(tx: Transaction) -> None:
        node = tx.get(objects.Node, id)
        assert node is not None
        new = objects.Node()
        new.CopyFrom(node)
        new.status.state = READY
        tx.update(new)

    return Write(step)


def test_a_label_that_comes_while_the_node_is_down_is_followed() -> None:
    one = bench(node("n", state=DOWN))
    one.simulator.run_for(3600)
    assert there(one)
    one.edit(objects.Node, "n", lambda new: new.spec.annotations.labels.update({REMOVE_AFTER: "1m"}))
    one.simulator.run_for(61)
    assert not there(one)


def test_a_new_life_counts_from_its_beginning() -> None:
    one = bench(gone())
    one.simulator.run_for(500)
    one.crash()
    one.simulator.run_for(590)
    assert there(one)
    one.simulator.run_for(20)
    assert not there(one)


def test_what_the_store_does_not_take_is_tried_again() -> None:
    one = bench(gone(label="1m"))
    one.simulator.run_for(59)
    one.held = True
    one.simulator.run_for(2)
    one.refuse()
    one.held = False
    assert there(one)
    one.simulator.run_for(6)
    assert not there(one)


def test_when_it_is_removed_can_be_asked() -> None:
    one = bench(gone())
    one.simulator.run_for(100)
    (wait,) = one.simulator.ask(one.part, AskWaits(node_id="n")).waits
    assert wait.why == "it is down, and is removed then unless it comes back: label swarmlet.remove-after"
    assert wait.seconds is not None
    assert 495 < wait.seconds < 500
    assert one.simulator.ask(one.part, AskWaits(node_id="up")).waits == ()
    assert one.actor.snapshot() == {"to be removed": 1}
