"""The table of methods, and the requests run against the replicated store itself."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from runtime.errors import Code, Refused
from runtime.store.changes import apply
from runtime.store.transaction import Transaction
from runtime.store.view import View
from runtime.swarm import ports
from runtime.swarm.control import METHODS, Context, Read, Write
from runtime.wire.pb import control_pb2 as control
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_control.fakes import cluster, endpoint, ingress, make_context, port, service_spec


def messages(suffix: str) -> set[str]:
    return {name.removesuffix(suffix) for name in control.DESCRIPTOR.message_types_by_name if name.endswith(suffix)}


def test_the_table_has_every_method_of_the_protocol_and_no_other() -> None:
    assert len(METHODS) == 43
    assert set(METHODS) == messages("Request") == messages("Response")


def test_every_entry_names_its_own_messages() -> None:
    for name, entry in METHODS.items():
        assert entry.request.DESCRIPTOR.name == f"{name}Request"
        assert entry.response.DESCRIPTOR.name == f"{name}Response"
        assert isinstance(entry, Read if name.startswith(("Get", "List")) else Write)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_an_empty_request_is_answered_or_refused_as_invalid(name: str) -> None:
    """Nothing crashes on a message whose every field is absent, as a foreign client may send it."""
    entry, ctx = METHODS[name], make_context()
    run: Callable[[], Any]
    if isinstance(entry, Read):
        answer = entry.answer
        run = lambda: answer(View(), entry.request(), ctx)  # noqa: E731
    else:
        prepare = entry.prepare
        run = lambda: prepare(entry.request(), ctx)(Transaction(View(), 1, 0.0))  # noqa: E731
    if name.startswith("List"):
        assert run() == entry.response()
        return
    with pytest.raises(Refused) as caught:
        run()
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_the_pure_rooms_load_no_library_of_the_impure_ones() -> None:
    code = (
        "import sys, runtime.swarm.control, runtime.swarm.generic\n"
        "foreign = ('pykka', 'grpc', 'plyvel', 'aiohttp', 'runtime.store', 'runtime.pki')\n"
        "print([name for name in foreign if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


class Cluster:
    """The control functions on the replicated store: each write is a transaction, applied when it is accepted."""

    def __init__(self, **changes: Any) -> None:
        self.view = View(version=8)
        self.ctx: Context = make_context(**changes)
        self.now = 1_000_000.0

    def write(self, run: Callable[[ports.Tx], Any]) -> Any:
        transaction = Transaction(self.view, self.view.version + 1, self.now)
        answer = run(transaction)
        self.view = apply(self.view, transaction.changes, self.view.version + 1)
        return answer

    def call(self, method: str, **fields: Any) -> Any:
        entry = METHODS[method]
        request = entry.request(**fields)
        if isinstance(entry, Read):
            return entry.answer(self.view, request, self.ctx)
        return self.write(entry.prepare(request, self.ctx))


def test_a_service_lives_its_life_in_the_replicated_store() -> None:
    swarm = Cluster()
    swarm.write(lambda tx: tx.create(ingress()))
    made = swarm.call("CreateService", spec=service_spec(endpoint=endpoint(port(80)))).service
    assert made.meta.version.index == swarm.view.version
    wanted = service_spec(endpoint=endpoint(port(80)), replicated=specs.ReplicatedService(replicas=4))
    fields = {"service_id": made.id, "service_version": made.meta.version, "spec": wanted}
    updated = swarm.call("UpdateService", **fields).service
    assert (updated.spec_version, updated.previous_spec) == (made.meta.version, made.spec)
    with pytest.raises(Refused, match="update out of sequence") as stale:
        swarm.call("UpdateService", **fields)
    assert stale.value.code is Code.UNKNOWN
    with pytest.raises(Refused, match="service Web already exists"):
        swarm.call("CreateService", spec=service_spec("Web"))
    assert [each.id for each in swarm.call("ListServices", filters={"name_prefixes": ["we"]}).services] == [made.id]
    swarm.call("RemoveService", service_id=made.id)
    assert not swarm.call("ListServices").services


def test_a_node_leaves_the_replicated_store_with_its_tasks_orphaned() -> None:
    swarm = Cluster()
    swarm.write(lambda tx: tx.create(cluster()))
    swarm.write(lambda tx: tx.create(objects.Node(id="w")))
    task = objects.Task(id="t", node_id="w", status=types.TaskStatus(state=types.RUNNING))
    swarm.write(lambda tx: tx.create(task))
    swarm.call("RemoveNode", node_id="w")
    held = swarm.call("GetTask", task_id="t").task
    assert held.status.state == types.ORPHANED
    assert "w" in swarm.call("GetCluster", cluster_id="cluster1").cluster.blacklisted_certificates


def test_resources_and_volumes_are_found_in_the_replicated_store() -> None:
    swarm = Cluster()
    swarm.call("CreateExtension", annotations={"name": "Widget"})
    swarm.call("CreateResource", annotations={"name": "r"}, kind="Widget")
    assert [each.kind for each in swarm.call("ListResources", filters={"kind": "Widget"}).resources] == ["Widget"]
    access = types.VolumeAccessMode(block=types.VolumeAccessMode.BlockVolume())
    swarm.call(
        "CreateVolume",
        spec=specs.VolumeSpec(
            annotations=types.Annotations(name="v"), group="g", driver=types.Driver(name="csi"), access_mode=access
        ),
    )
    for filters in ({"groups": ["g"]}, {"drivers": ["csi"]}, {"names": ["v"]}):
        assert len(swarm.call("ListVolumes", filters=filters).volumes) == 1
    assert not swarm.call("ListVolumes", filters={"groups": ["other"]}).volumes


def test_every_filter_names_an_index_that_the_replicated_store_has() -> None:
    """A view refuses an unknown index, so each filter is used once."""
    swarm = Cluster()
    for name, entry in METHODS.items():
        if "filters" not in entry.request.DESCRIPTOR.fields_by_name:
            continue
        filters = entry.request.DESCRIPTOR.fields_by_name["filters"].message_type
        assert filters is not None
        for field in filters.fields:
            if field.message_type is not None or not field.is_repeated:
                continue
            value: Any = 0 if field.enum_type is not None else "x"
            assert swarm.call(name, filters={field.name: [value]}) == entry.response()


def test_what_a_write_did_to_a_view_taken_before_is_nothing() -> None:
    swarm = Cluster()
    made = swarm.call("CreateConfig", spec={"annotations": {"name": "c"}, "data": b"x"}).config
    before = swarm.view
    held = before.get(objects.Config, made.id)
    assert held is not None
    frozen = held.SerializeToString(deterministic=True)
    fields = {"config_id": made.id, "config_version": made.meta.version, "spec": {"annotations": {"name": "c"}}}
    fields["spec"]["annotations"]["labels"] = {"k": "v"}
    swarm.call("UpdateConfig", **fields)
    assert held.SerializeToString(deterministic=True) == frozen
    assert before.get(objects.Config, made.id) is held


def test_requests_with_equal_entropy_have_equal_outcomes() -> None:
    answers = []
    for _ in range(2):
        swarm = Cluster(rng=random.Random(3))
        swarm.write(lambda tx: tx.create(cluster()))
        spec = specs.ClusterSpec(annotations=types.Annotations(name="default"))
        held = swarm.view.all(objects.Cluster)[0]
        fields = {"cluster_id": held.id, "cluster_version": held.meta.version, "spec": spec}
        first = swarm.call("UpdateCluster", **fields, rotation={"worker_join_token": True})
        answers.append((first, swarm.call("CreateService", spec=service_spec(""))))
    assert answers[0] == answers[1]
