"""RootRotationActor: who is asked and when, the end of a rotation, replacement, refusal, a new life."""

from __future__ import annotations

from typing import Any

import pytest

from actors import root_rotation_actor
from actors.root_rotation_actor import RootRotationActor
from runtime.pki.rotation import ROTATE_BATCH, ROTATE_EVERY, decide_root, desired_issuer, has_moved
from runtime.protocol.store import Write
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.messages.part_bench import PartBench
from tests.unit.pki.test_rotation import a_root, entropy, present, wish

STATUS = types.IssuanceStatus
NOW = 1_790_000_025.0


def rotation(root: types.RootCA | None = None, force: int = 1) -> types.RootCA:
    decision = decide_root(root or present(a_root()), wish(force=force), NOW, entropy(force))
    try:
        next(decision)
    except StopIteration as end:
        found: types.RootCA = end.value
        return found
    raise AssertionError("a decision with both keys at hand needs nothing of the world")


def a_cluster(root: types.RootCA) -> objects.Cluster:
    cluster = objects.Cluster(id="cluster", root_ca=root)
    cluster.spec.annotations.name = "default"
    return cluster


def nodes(count: int, state: int = STATUS.ISSUED) -> list[objects.Node]:
    made = [objects.Node(id=f"n{number:03}") for number in range(count)]
    for node in made:
        node.certificate.status.state = state  # type: ignore[assignment]
    return made


def moved(root: types.RootCA) -> Any:
    """What a node's renewal leaves in the store."""
    issuer = desired_issuer(root)

    def edit(node: objects.Node) -> None:
        node.certificate.status.state = STATUS.ISSUED
        node.description.tls_info.cert_issuer_subject = issuer.subject
        node.description.tls_info.cert_issuer_public_key = issuer.public_key

    return edit


def in_state(bench: PartBench, state: int) -> list[str]:
    return [node.id for node in bench.published.view.all(objects.Node) if node.certificate.status.state == state]


def root_of(bench: PartBench) -> types.RootCA:
    cluster = bench.published.view.get(objects.Cluster, "cluster")
    assert cluster is not None
    return cluster.root_ca


def set_root(bench: PartBench, root: types.RootCA) -> None:
    bench.edit(objects.Cluster, "cluster", lambda cluster: cluster.root_ca.CopyFrom(root))
    bench.simulator.run_for(0.1)


def test_without_a_rotation_nobody_is_asked() -> None:
    bench = PartBench(RootRotationActor, a_cluster(present(a_root())), *nodes(3))
    bench.simulator.run_for(30)
    assert in_state(bench, STATUS.ROTATE) == []
    assert bench.actor.snapshot()["rotating"] is False


def test_a_rotation_asks_thirty_nodes_at_once_and_thirty_more_every_three_seconds() -> None:
    bench = PartBench(RootRotationActor, a_cluster(present(a_root())), *nodes(2 * ROTATE_BATCH + 5))
    set_root(bench, rotation())
    assert len(in_state(bench, STATUS.ROTATE)) == ROTATE_BATCH
    bench.simulator.run_for(ROTATE_EVERY)
    assert len(in_state(bench, STATUS.ROTATE)) == 2 * ROTATE_BATCH
    bench.simulator.run_for(ROTATE_EVERY)
    assert len(in_state(bench, STATUS.ROTATE)) == 2 * ROTATE_BATCH + 5


def test_nodes_that_wait_for_a_certificate_anyway_are_not_asked() -> None:
    bench = PartBench(RootRotationActor, a_cluster(rotation()), *nodes(2, STATUS.RENEW))
    bench.simulator.run_for(1)
    assert in_state(bench, STATUS.ROTATE) == []


def test_the_new_root_is_in_force_once_the_last_node_has_moved_and_not_before() -> None:
    under_way = rotation()
    bench = PartBench(RootRotationActor, a_cluster(under_way), *nodes(3))
    for id in ("n000", "n001"):
        bench.edit(objects.Node, id, moved(under_way))
    bench.simulator.run_for(60)
    assert root_of(bench).HasField("root_rotation")
    bench.edit(objects.Node, "n002", moved(under_way))
    bench.wait(lambda: not root_of(bench).HasField("root_rotation"))
    assert root_of(bench).ca_cert == under_way.root_rotation.ca_cert
    assert root_of(bench).join_tokens.worker not in ("", under_way.join_tokens.worker)
    bench.simulator.run_for(0.1)
    assert bench.actor.snapshot()["rotating"] is False


def test_a_node_that_is_removed_is_not_waited_for() -> None:
    under_way = rotation()
    bench = PartBench(RootRotationActor, a_cluster(under_way), *nodes(2))
    bench.edit(objects.Node, "n000", moved(under_way))
    bench.remove(objects.Node, "n001")
    bench.wait(lambda: not root_of(bench).HasField("root_rotation"))


def test_a_node_that_was_asked_and_came_back_with_the_old_root_is_asked_again() -> None:
    bench = PartBench(RootRotationActor, a_cluster(rotation()), *nodes(1))
    bench.wait(lambda: in_state(bench, STATUS.ROTATE) == ["n000"])
    bench.edit(objects.Node, "n000", lambda node: setattr(node.certificate.status, "state", STATUS.ISSUED))
    bench.wait(lambda: in_state(bench, STATUS.ROTATE) == ["n000"], ROTATE_EVERY + 0.1)


def test_a_commit_costs_only_the_nodes_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    under_way = rotation()
    bench = PartBench(RootRotationActor, a_cluster(under_way), *nodes(200, STATUS.PENDING))
    bench.simulator.run_for(0.1)
    looked: list[str] = []

    def counted(node: objects.Node, issuer: Any) -> bool:
        looked.append(node.id)
        return has_moved(node, issuer)

    monkeypatch.setattr(root_rotation_actor, "has_moved", counted)
    for number in range(100):
        bench.edit(objects.Node, f"n{number:03}", moved(under_way))
    bench.simulator.run_for(0.1)
    assert looked == [f"n{number:03}" for number in range(100)]
    assert bench.actor.snapshot()["not moved"] == 100
    looked.clear()
    for number in range(100, 200):
        bench.edit(objects.Node, f"n{number:03}", moved(under_way))
    bench.wait(lambda: not root_of(bench).HasField("root_rotation"))
    assert len(looked) == 100 + 200, "each once, and all of them before the end"


def test_a_node_that_joins_under_the_old_root_or_falls_back_to_it_is_waited_for() -> None:
    under_way = rotation()
    bench = PartBench(RootRotationActor, a_cluster(under_way), *nodes(2, STATUS.PENDING))
    bench.edit(objects.Node, "n000", moved(under_way))
    bench.put(objects.Node(id="late"))
    bench.edit(objects.Node, "n000", lambda node: node.description.ClearField("tls_info"))
    bench.edit(objects.Node, "n001", moved(under_way))
    bench.edit(objects.Node, "late", moved(under_way))
    bench.simulator.run_for(1)
    assert root_of(bench).HasField("root_rotation")
    assert bench.actor.snapshot()["not moved"] == 1
    bench.edit(objects.Node, "n000", moved(under_way))
    bench.wait(lambda: not root_of(bench).HasField("root_rotation"))


def test_another_rotation_takes_the_place_of_the_one_under_way() -> None:
    first = rotation()
    bench = PartBench(RootRotationActor, a_cluster(first), *nodes(1))
    second = rotation(first, force=2)
    set_root(bench, second)
    bench.edit(objects.Node, "n000", moved(first))
    bench.simulator.run_for(10)
    assert root_of(bench).root_rotation == second.root_rotation
    bench.edit(objects.Node, "n000", moved(second))
    bench.wait(lambda: root_of(bench).ca_cert == second.root_rotation.ca_cert)


def test_a_rotation_that_is_given_up_asks_nobody_any_more() -> None:
    bench = PartBench(RootRotationActor, a_cluster(rotation()))
    set_root(bench, present(a_root()))
    bench.put(*nodes(1))
    bench.simulator.run_for(30)
    assert in_state(bench, STATUS.ROTATE) == []


def test_the_end_that_the_store_refuses_is_tried_again() -> None:
    under_way = rotation()
    bench = PartBench(RootRotationActor, a_cluster(under_way), *nodes(1))
    bench.wait(lambda: in_state(bench, STATUS.ROTATE) == ["n000"])
    bench.edit(objects.Node, "n000", moved(under_way))
    bench.simulator.settle()
    bench.wait(lambda: not root_of(bench).HasField("root_rotation"))
    again = rotation(root_of(bench), force=2)
    bench.edit(objects.Node, "n000", moved(again))
    bench.held = True
    bench.store.tell(_begin(again))
    bench.simulator.run_for(0.1)
    bench.commit_up_to(bench.proposed[0].number)
    bench.simulator.run_for(0.1)
    assert len(bench.proposed) == 1, "the end is proposed"
    bench.refuse()
    bench.held = False
    bench.wait(lambda: root_of(bench).ca_cert == again.root_rotation.ca_cert, ROTATE_EVERY + 1)


def _begin(root: types.RootCA) -> Any:
    def run(tx: Any) -> None:
        cluster = objects.Cluster()
        cluster.CopyFrom(tx.get(objects.Cluster, "cluster"))
        cluster.root_ca.CopyFrom(root)
        tx.update(cluster)

    return Write(run)


def test_a_new_life_goes_on_with_the_rotation_that_it_finds() -> None:
    under_way = rotation()
    bench = PartBench(RootRotationActor, a_cluster(under_way), *nodes(1))
    bench.wait(lambda: in_state(bench, STATUS.ROTATE) == ["n000"])
    bench.crash()
    bench.edit(objects.Node, "n000", moved(under_way))
    bench.wait(lambda: not root_of(bench).HasField("root_rotation"))


def test_a_new_root_that_cannot_be_read_is_told_and_ends_nothing() -> None:
    broken = present(a_root())
    broken.root_rotation.ca_cert = b"no pem"
    bench = PartBench(RootRotationActor, a_cluster(broken), *nodes(1))
    bench.simulator.run_for(10)
    assert "cannot be read" in bench.actor.snapshot()["trouble"]
    set_root(bench, rotation())
    assert bench.actor.snapshot()["trouble"] == ""
    bench.wait(lambda: in_state(bench, STATUS.ROTATE) == ["n000"])
