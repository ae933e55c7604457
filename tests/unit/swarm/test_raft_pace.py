"""The two paces of the consensus: who may be fast, in which order members change, and that they end alike."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.store.changes import Action, Change, apply
from runtime.store.view import View
from runtime.swarm.raft_pace import PACE_LABEL, PACE_VALUE, RaftPace, all_can_be_fast, can_be_fast, pace_warning
from runtime.wire.pb import objects_pb2 as objects


def view(**labels: str | None) -> View:
    changes = []
    for node_id, label in labels.items():
        node = objects.Node(id=node_id)
        if label is not None:
            node.description.engine.labels[PACE_LABEL] = label
        changes.append(Change(Action.CREATE, objects.Node, None, node))
    return apply(View(), changes, 1)


def test_fast_is_for_several_managers_that_all_carry_the_label() -> None:
    nodes = view(a=PACE_VALUE, b=PACE_VALUE, c=None, d="2")
    assert can_be_fast(nodes, "a")
    assert not can_be_fast(nodes, "c")
    assert not can_be_fast(nodes, "d")
    assert not can_be_fast(nodes, "unknown")
    assert all_can_be_fast(nodes, ["a", "b"])
    assert not all_can_be_fast(nodes, ["a"])
    assert not all_can_be_fast(nodes, ["a", "b", "c"])
    assert not all_can_be_fast(nodes, [])


def test_who_keeps_the_others_from_ticking_fast_is_named_as_far_as_it_is_known() -> None:
    changes = []
    for name, label in (("a", PACE_VALUE), ("b", PACE_VALUE), ("d2", ""), ("d1", "")):
        node = objects.Node(id=name)
        node.description.hostname = f"host-{name}"
        if label:
            node.description.engine.labels[PACE_LABEL] = label
        changes.append(Change(Action.CREATE, objects.Node, None, node))
    changes.append(Change(Action.CREATE, objects.Node, None, objects.Node(id="new")))
    nodes = apply(View(), changes, 1)
    assert pace_warning(nodes, ["a", "d2", "b", "d1"]).endswith("once a second: host-d1, host-d2")
    assert pace_warning(nodes, ["a", "b"]) == ""
    assert pace_warning(nodes, ["d1", "d2"]) == ""
    assert pace_warning(nodes, ["a", "new", "unknown"]) == ""


def test_a_leader_is_fast_at_once_and_slow_only_when_every_member_in_reach_has_answered_slow() -> None:
    pace = RaftPace()
    pace.lead(True, [2, 3])
    assert (pace.fast, pace.told) == (True, True)
    pace.answered(2, True)
    pace.answered(3, True)
    pace.lead(False, [2, 3])
    assert (pace.fast, pace.told) == (True, False)
    pace.answered(2, False)
    pace.lead(False, [2, 3])
    assert pace.fast
    pace.answered(3, False)
    pace.lead(False, [2, 3])
    assert not pace.fast


def test_a_member_out_of_reach_is_not_waited_for() -> None:
    pace = RaftPace()
    pace.lead(True, [2, 3])
    pace.answered(2, True)
    pace.answered(3, True)
    pace.answered(2, False)
    pace.lead(False, [2])
    assert not pace.fast


def test_while_a_slow_member_is_admitted_the_leader_is_not_fast_again() -> None:
    pace = RaftPace()
    pace.lead(True, [2])
    pace.admitting = True
    pace.lead(True, [2])
    assert not pace.fast
    pace.admitting = False
    pace.lead(True, [2])
    assert pace.fast


@given(
    st.lists(st.tuples(st.sampled_from(["allow", "forbid", "deliver", "answer"]), st.sampled_from([2, 3])), max_size=60)
)
def test_a_leader_is_not_slow_before_a_member_whose_last_word_was_fast_and_in_the_end_all_are_alike(
    steps: list[tuple[str, int]],
) -> None:
    leader, followers = RaftPace(), {2: RaftPace(), 3: RaftPace()}
    to: dict[int, list[bool]] = {2: [], 3: []}
    back: dict[int, list[bool]] = {2: [], 3: []}
    last = {2: False, 3: False}
    allowed = False

    def step(what: str, member: int) -> None:
        if what == "deliver" and to[member]:
            followers[member].follow(to[member].pop(0))
            back[member].append(followers[member].told)
        elif what == "answer" and back[member]:
            last[member] = back[member].pop(0)
            leader.answered(member, last[member])
        leader.lead(allowed, [2, 3])
        assert leader.fast or not any(last.values())

    for what, member in steps:
        if what in ("allow", "forbid"):
            allowed = what == "allow"
        step(what, member)
        for queue in to.values():
            queue.append(leader.told)
    for member in (2, 3):
        while to[member] or back[member]:
            step("deliver", member)
            step("answer", member)
    assert {leader.fast, leader.told, *(each.fast for each in followers.values())} == {allowed}
