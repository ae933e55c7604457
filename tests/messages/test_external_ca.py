"""Certificates that an external CA signs: for nodes that wait, and for a new root that is to be cross-signed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actors.control_actor import ControlActor
from runtime.errors import Code, Refused
from runtime.pki.node_identity import new_request
from runtime.pki.root import create_root, load_root
from runtime.protocol.cluster import Control
from runtime.protocol.manager import AuthorityTrouble
from runtime.wire.https import HttpAnswer
from runtime.wire.pb import ca_pb2, control_pb2, objects_pb2, types_pb2
from tests.messages.certificate_bench import CaHost, Client, Cluster, World
from tests.messages.external_ca import URL, ExternalCa
from tests.seeded import entropy
from tests.unit.pki.test_rotation import key_of

STATUS = types_pb2.IssuanceStatus
OTHER = "https://other.example/sign"


class Bench:
    """A leader whose root's key is with an external CA alone."""

    def __init__(self, *urls: str, key: bool = False) -> None:
        self.world = World()
        self.ca = CaHost(self.world)
        self.client = Client(self.ca)
        self.external = ExternalCa(self.world.simulator, self.ca.root, *urls)
        self.ca.stage.world.https = self.external
        listed = [types_pb2.ExternalCA(url=url) for url in urls or (URL,)]

        def edit(cluster: objects_pb2.Cluster) -> None:
            cluster.spec.ca_config.external_cas.extend(listed)
            if not key:
                cluster.root_ca.ClearField("ca_key")

        self.ca.change(Cluster, self.ca.cluster_id, edit)

    def admit(self, seed: int = 1) -> str:
        request = ca_pb2.IssueNodeCertificateRequest(
            csr=new_request(lambda n: bytes([seed]) * n).csr, token=self.ca.tokens.worker
        )
        answer = self.client.call("NodeCA", "IssueNodeCertificate", request)
        return str(answer.node_id)

    def state(self, node_id: str) -> int:
        return int(self.ca.node(node_id).certificate.status.state)

    def run(self, seconds: float = 1.0) -> None:
        self.world.simulator.run_for(seconds)


def test_an_external_ca_signs_under_the_nodes_own_names_and_is_shown_the_managers_certificate() -> None:
    bench = Bench()
    node_id = bench.admit()
    bench.run()
    assert bench.state(node_id) == STATUS.ISSUED
    ((url, asked),) = bench.external.asked
    assert (url, asked["subject"]["CN"], asked["hosts"]) == (URL, node_id, ["swarm-worker", node_id])
    (shown,) = bench.external.shown
    assert shown.certificate == bench.ca.identity.certificate
    assert shown.roots == bench.ca.root.bundle
    leaf = bench.ca.node(node_id).certificate.certificate
    assert bench.ca.root.verify(leaf, bench.world.now())


def test_an_external_ca_goes_before_the_key_at_hand() -> None:
    bench = Bench(key=True)
    bench.admit()
    bench.run()
    assert len(bench.external.asked) == 1


def test_the_next_one_is_asked_when_one_cannot_be() -> None:
    bench = Bench(URL, OTHER)
    bench.external.down.add(URL)
    node_id = bench.admit()
    bench.run()
    assert [url for url, _ in bench.external.asked] == [URL, OTHER]
    assert bench.state(node_id) == STATUS.ISSUED


def test_a_node_waits_while_nobody_can_be_asked_and_is_tried_again() -> None:
    bench = Bench()
    bench.external.down.add(URL)
    node_id = bench.admit()
    bench.run(25.0)
    assert bench.state(node_id) == STATUS.PENDING
    assert len(bench.external.asked) == 3
    cell = bench.ca.ca.resolve()
    assert cell is not None
    assert "connection refused" in cell.instance.snapshot()["trouble"]  # type: ignore[union-attr]
    bench.external.down.clear()
    bench.run(11.0)
    assert bench.state(node_id) == STATUS.ISSUED


def told(bench: Bench) -> list[AuthorityTrouble]:
    """What the manager was told since the last call."""
    found = []
    for _ in bench.ca.manager.messages:
        found.append(bench.ca.manager.expect(AuthorityTrouble))
    return found


def test_operators_are_told_while_nodes_wait_for_an_external_ca_and_when_that_is_over() -> None:
    bench = Bench()
    bench.external.down.add(URL)
    assert told(bench) == [AuthorityTrouble("")], "at the begin of a life"
    bench.admit(1)
    bench.admit(2)
    bench.run(1.0)
    *_, last = told(bench)
    assert (last.waiting, "connection refused" in last.text) == (2, True)
    bench.run(11.0)
    assert told(bench), "again in each round, for a control actor that begins anew"
    bench.external.down.clear()
    bench.run(11.0)
    assert told(bench)[-1].text == ""
    bench.run(60.0)
    assert told(bench) == []


def test_nobody_is_told_of_a_ca_that_no_node_waits_for_any_more() -> None:
    bench = Bench()
    bench.external.down.add(URL)
    node_id = bench.admit()
    bench.run(1.0)
    assert told(bench)[-1].text
    bench.ca.write(lambda tx: tx.delete(objects_pb2.Node, node_id))
    bench.run(11.0)
    assert told(bench)[-1] == AuthorityTrouble("")
    bench.run(60.0)
    assert told(bench) == []


def test_a_refusal_by_the_ca_is_the_nodes_end_and_no_other_ca_is_asked() -> None:
    bench = Bench(URL, OTHER)
    refusal = {"success": False, "errors": [{"message": "you are not on my list"}]}
    bench.external.answers[URL] = HttpAnswer(200, json.dumps(refusal).encode())
    node_id = bench.admit()
    bench.run()
    assert bench.state(node_id) == STATUS.FAILED
    assert "you are not on my list" in bench.ca.node(node_id).certificate.status.err
    assert len(bench.external.asked) == 1


def test_few_requests_are_under_way_at_once_and_everybody_gets_a_certificate() -> None:
    bench = Bench()
    bench.external.silent = True
    ids = [bench.admit(seed) for seed in range(1, 31)]
    assert len(bench.external.asked) == 8
    bench.external.silent = False
    cell = bench.ca.ca.resolve()
    assert cell is not None
    cell.control(lambda: cell.failed(ValueError("a fault of the test"), None))
    bench.run(5.0)
    assert {bench.state(node_id) for node_id in ids} == {STATUS.ISSUED}
    assert bench.external.most == 8


def test_another_list_of_cas_counts_for_those_who_wait() -> None:
    bench = Bench()
    bench.external.urls = (OTHER,)
    node_id = bench.admit()
    bench.run()
    assert bench.state(node_id) == STATUS.PENDING
    bench.ca.change(
        Cluster, bench.ca.cluster_id, lambda cluster: setattr(cluster.spec.ca_config.external_cas[0], "url", OTHER)
    )
    bench.run()
    assert bench.state(node_id) == STATUS.ISSUED


def test_a_plain_http_address_is_never_asked() -> None:
    bench = Bench("http://ca.example/sign")
    node_id = bench.admit()
    bench.run(15.0)
    assert bench.external.asked == []
    assert bench.state(node_id) == STATUS.PENDING


def test_each_root_is_trusted_by_itself_because_two_of_a_rotation_have_one_name() -> None:
    bench = Bench()
    new = create_root(entropy(9), bench.world.now())
    bench.external.root = new
    bench.external.trusts = bench.ca.root.bundle

    def rotate(cluster: objects_pb2.Cluster) -> None:
        cluster.root_ca.root_rotation.ca_cert = new.bundle
        cluster.root_ca.root_rotation.cross_signed_ca_cert = bench.ca.root.cross_sign(new.bundle, entropy(3))
        cluster.spec.ca_config.external_cas[0].ca_cert = new.bundle

    bench.ca.change(Cluster, bench.ca.cluster_id, rotate)
    node_id = bench.admit()
    bench.run()
    assert [shown.roots for shown in bench.external.shown] == [new.bundle, bench.ca.root.bundle]
    assert bench.state(node_id) == STATUS.ISSUED
    leaf = bench.ca.node(node_id).certificate.certificate
    for root in (new, bench.ca.root):
        assert root.verify(leaf, bench.world.now())


# Rotations


class Rotation(Bench):
    def __init__(self) -> None:
        super().__init__()
        ca = self.ca
        self.control = ca.stage.mount("control", ControlActor, ca.node_id, ca.store, ca.published, ca.credentials, None)
        self.run(0.1)

    def update(self, **ca_config: Any) -> Any:
        cluster = self.ca.cluster
        spec = cluster.spec.__class__()
        spec.CopyFrom(cluster.spec)
        for name, value in ca_config.items():
            setattr(spec.ca_config, name, value)
        request = control_pb2.UpdateClusterRequest(
            cluster_id=cluster.id, cluster_version=cluster.meta.version, spec=spec
        )
        return self.world.simulator.ask(self.control, Control("UpdateCluster", request))


def test_the_external_ca_of_the_old_root_cross_signs_the_new_one() -> None:
    bench = Rotation()
    new = create_root(entropy(9), bench.world.now())
    bench.external.known_roots = new.certificates
    bench.update(signing_ca_cert=new.bundle, signing_ca_key=key_of(new))
    rotation = bench.ca.cluster.root_ca.root_rotation
    assert rotation.ca_cert == new.bundle
    old = load_root(bench.ca.root.bundle, bench.world.now())
    assert old.verify(rotation.cross_signed_ca_cert, bench.world.now())


def test_without_an_external_ca_that_answers_nothing_changes() -> None:
    bench = Rotation()
    bench.external.down.add(URL)
    before = bench.ca.cluster
    with pytest.raises(Refused) as refused:
        bench.update(force_rotate=1)
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert "external CA corresponding to the current CA certificate" in refused.value.text
    assert bench.ca.cluster == before


def test_the_clusters_own_update_goes_on_while_an_external_ca_is_asked() -> None:
    bench = Rotation()
    new = create_root(entropy(9), bench.world.now())
    bench.external.known_roots = new.certificates
    version = bench.ca.cluster.meta.version.index
    bench.update()
    assert bench.ca.cluster.meta.version.index > version
    assert not bench.ca.cluster.root_ca.HasField("root_rotation")
