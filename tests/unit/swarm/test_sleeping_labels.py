"""Labels that ask in vain while a manager of another kind leads."""

from __future__ import annotations

from runtime.swarm.labels import LOST_AFTER, SCHEDULE, START_AFTER
from runtime.swarm.raft_pace import PACE_LABEL, PACE_VALUE
from runtime.swarm.sleeping_labels import sleeping_labels
from runtime.wire.pb import objects_pb2 as objects
from tests.unit.swarm_orchestration.placing import Store, node, service


def asking(id: str, key: str) -> objects.Service:
    made = service(id)
    made.spec.annotations.labels[key] = "x"
    return made


def test_whoever_asks_is_told_by_name_while_another_kind_leads() -> None:
    ours = node("ours", engine_labels={PACE_LABEL: PACE_VALUE}, labels={LOST_AFTER: "1m"})
    store = Store(ours, node("theirs"), asking("web", START_AFTER), asking("backup", SCHEDULE), service("plain"))
    assert sleeping_labels(store.view, "theirs") == (
        "WARNING: host-theirs leads and does nothing about the labels swarmlet.* of "
        "service backup, service web, node host-ours"
    )
    assert sleeping_labels(store.view, "ours") == ""


def test_nothing_is_said_of_leaders_that_are_not_known_or_where_nobody_asks() -> None:
    store = Store(node("theirs"), objects.Node(id="new"), service("plain"))
    assert sleeping_labels(store.view, "theirs") == ""
    store.put(asking("web", START_AFTER))
    for leader in ("", "new", "unknown"):
        assert sleeping_labels(store.view, leader) == ""


def test_no_more_than_ten_are_named() -> None:
    store = Store(node("theirs"), *(asking(f"s{number:02}", START_AFTER) for number in range(11)))
    assert sleeping_labels(store.view, "theirs").endswith("service s09, ...")
    store.delete(asking("s10", START_AFTER))
    assert sleeping_labels(store.view, "theirs").endswith("service s09")
