"""Which nodes are removed by themselves, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.swarm.labels import REMOVE_AFTER
from runtime.swarm.node_reaper import NodeReaper, patience
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_orchestration.placing import node

READY, DOWN, UNKNOWN = types.NodeStatus.READY, types.NodeStatus.DOWN, types.NodeStatus.UNKNOWN


def gone(id: str = "n", label: str | None = "10m", state: types.NodeStatus.State = DOWN) -> objects.Node:
    return node(id, state=state, labels={} if label is None else {REMOVE_AFTER: label})


def test_only_workers_that_are_down_and_say_so_are_removed() -> None:
    assert patience(gone()) == 600.0
    assert patience(gone(label="0s")) == 0.0
    for made in (gone(state=READY), gone(state=UNKNOWN), gone(label=None), gone(label="some day")):
        assert patience(made) is None


@pytest.mark.parametrize("field", ["role", "desired_role"])
def test_no_manager_is_removed(field: str) -> None:
    made = gone()
    setattr(made if field == "role" else made.spec, field, types.MANAGER)
    assert patience(made) is None


def test_a_node_is_removed_once_its_time_is_over() -> None:
    reaper = NodeReaper()
    reaper.node_changed(gone(), 100.0)
    assert (reaper.due_at("n"), reaper.next_at) == (700.0, 700.0)
    reaper.node_changed(gone(), 500.0)  # it changed in something else
    assert reaper.take_due(699.0) == []
    assert reaper.take_due(700.0) == ["n"]
    assert reaper.take_due(800.0) == []
    assert reaper.due_at("n") is None


def test_a_node_that_is_back_is_not_removed_and_counts_from_its_next_end() -> None:
    reaper = NodeReaper()
    reaper.node_changed(gone(), 0.0)
    reaper.node_changed(gone(state=READY), 500.0)
    assert (len(reaper), reaper.due_at("n")) == (0, None)
    reaper.node_changed(gone(), 1000.0)
    assert reaper.take_due(1599.0) == []
    assert reaper.take_due(1600.0) == ["n"]


def test_another_label_counts_from_when_the_node_was_seen_down() -> None:
    reaper = NodeReaper()
    reaper.node_changed(gone(label="1h"), 0.0)
    reaper.node_changed(gone(label="1m"), 300.0)
    assert reaper.take_due(300.0) == ["n"]
    reaper.node_changed(gone("m", "1m"), 400.0)
    reaper.node_changed(gone("m", None), 410.0)
    assert reaper.take_due(10_000.0) == []


def test_what_could_not_be_removed_is_tried_again_unless_the_node_is_back() -> None:
    reaper = NodeReaper()
    for id in ("m", "n"):
        reaper.node_changed(gone(id), 0.0)
    assert sorted(reaper.take_due(600.0)) == ["m", "n"]
    reaper.node_changed(gone("m", state=READY), 601.0)
    for id in ("m", "n"):
        reaper.put_off(id, 605.0)
    assert reaper.take_due(604.0) == []
    assert reaper.take_due(605.0) == ["n"]
    reaper.node_gone("n")
    assert len(reaper) == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["up", "down", "gone"]), st.integers(0, 50))))
def test_a_node_is_removed_exactly_when_it_was_down_long_enough(steps: list[tuple[str, str, int]]) -> None:
    reaper, now, since = NodeReaper(), 0.0, dict[str, float]()
    for id, what, later in steps:
        now += later
        due = {each for each, at in since.items() if now >= at + 60}
        assert set(reaper.take_due(now)) == due
        for each in due:
            reaper.node_gone(each)
            del since[each]
        if what == "down":
            reaper.node_changed(gone(id, "1m"), now)
            since.setdefault(id, now)
        else:
            since.pop(id, None)
            if what == "up":
                reaper.node_changed(gone(id, "1m", READY), now)
            else:
                reaper.node_gone(id)
