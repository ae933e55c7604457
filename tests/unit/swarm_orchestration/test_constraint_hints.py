"""Hints about constraints that no node can satisfy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import Refused
from runtime.swarm.constraint_hints import hints
from runtime.swarm.constraints import matches, parse
from runtime.swarm.scheduling import Scheduler
from tests.unit.swarm_orchestration.placing import node, service, task

NODES = [
    node("n1", labels={"rack": "a", "zone": "east"}, engine_labels={"disk": "ssd"}),
    node("n2", labels={"rack": "b", "zone": "east"}),
]


@pytest.mark.parametrize(
    ("expression", "hint"),
    [
        ("rack==x", "constraint rack == x: there is no key rack; did you mean node.labels.rack?"),
        ("disk==ssd", "constraint disk == ssd: there is no key disk; did you mean engine.labels.disk?"),
        ("node.label.rack==a", "constraint node.label.rack == a: there is no key node.label.rack; "
         "did you mean node.labels.rack?"),
        ("node.hostnme==a", "constraint node.hostnme == a: there is no key node.hostnme; did you mean node.hostname?"),
        ("nothing!=x", "constraint nothing != x: there is no key nothing"),
        ("node.labels.rak==a", "constraint node.labels.rak == a: no node has the label rak; "
         "did you mean node.labels.rack?"),
        ("node.labels.Rack==a", "constraint node.labels.Rack == a: no node has the label Rack; "
         "did you mean node.labels.rack?"),
        ("node.labels.disk==ssd", "constraint node.labels.disk == ssd: no node has the label disk; "
         "did you mean engine.labels.disk?"),
        ("node.labels.gpu==yes", "constraint node.labels.gpu == yes: no node has the label gpu"),
        ("node.labels.rack==c", "constraint node.labels.rack == c: no node has that value, only a, b"),
        ("node.labels.zone!=east", "constraint node.labels.zone != east: on every node zone is east"),
        ("node.role!=worker", "constraint node.role != worker: every node is worker"),
        ("node.hostname==host-n3", "constraint node.hostname == host-n3: no node has that value; "
         "did you mean host-n2?"),
        ("node.hostname==host-*", "constraint node.hostname == host-*: no node has that value; did you mean host-n2?; "
         "values are compared whole, there are no patterns"),
        ("node.ip==10.0.0", "constraint node.ip == 10.0.0: 10.0.0 is no address"),
        ("node.ip==192.168.0.0/16", "constraint node.ip == 192.168.0.0/16: no node has that value"),
    ],
)  # fmt: skip
def test_a_constraint_that_matches_nothing_is_pointed_out_with_what_was_meant(expression: str, hint: str) -> None:
    assert hints(NODES, [expression]) == [hint]


@pytest.mark.parametrize("expression", ["node.labels.rack==A", "node.role==worker", "node.ip==10.0.0.5", "bad", "=="])
def test_what_a_node_satisfies_or_nobody_can_read_is_not_pointed_out(expression: str) -> None:
    assert hints(NODES, [expression]) == []


def test_constraints_that_only_together_match_nothing_are_not_pointed_out() -> None:
    assert hints(NODES, ["node.labels.rack==a", "node.id==n2"]) == []
    assert hints([], ["rack==x"]) == []


@given(st.text("abnode.lrk-_", min_size=2, max_size=20), st.sampled_from(["==", "!="]), st.text("abx", min_size=1))
def test_there_is_a_hint_exactly_for_what_matches_no_node(key: str, operator: str, value: str) -> None:
    found = hints(NODES, [f"{key}{operator}{value}"])
    try:
        (constraint,) = parse([f"{key}{operator}{value}"])
    except Refused:
        assert found == []
    else:
        assert bool(found) != any(matches(each, constraint) for each in NODES)


def test_the_hint_follows_the_explanation_and_goes_with_its_cure() -> None:
    scheduler = Scheduler()
    for each in NODES:
        scheduler.put_node(each)
    waiting = task("t", constraints=["node.labels.gpu == yes"])
    scheduler.put_task(waiting, 0.0)
    (decision,) = scheduler.run(0.0, lambda id: service())
    assert decision.err == (
        "no suitable node (scheduling constraints not satisfied on 2 nodes); "
        "constraint node.labels.gpu == yes: no node has the label gpu"
    )
    scheduler.put_node(node("n3", labels={"gpu": "yes"}))
    (decision,) = scheduler.run(0.0, lambda id: service())
    assert decision.node_id == "n3"
