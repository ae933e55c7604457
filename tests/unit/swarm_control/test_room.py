"""What is written leaves room for what the swarm writes into it later."""

from __future__ import annotations

import pytest

from runtime.errors import Code
from runtime.store.changes import MAX_BYTES
from runtime.swarm.control.checks import OBJECT_BYTES_MAX
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types
from tests.unit.swarm_control.fakes import Swarm
from tests.unit.swarm_control.test_services import create, refusal, service_spec

STATUS = types.UpdateStatus(state=types.UpdateStatus.ROLLBACK_STARTED, message="m" * 200)


def padded(size: int, name: str = "web") -> specs.ServiceSpec:
    spec: specs.ServiceSpec = service_spec(name)
    spec.task.container.labels["x"] = "y" * size
    return spec


def test_a_service_is_taken_up_to_a_size_and_not_beyond() -> None:
    swarm = Swarm()
    code, text = refusal(swarm, "CreateService", spec=padded(OBJECT_BYTES_MAX))
    assert (code, "too large" in text) == (Code.INVALID_ARGUMENT, True)
    assert swarm.store.all(objects.Service) == []
    create(swarm, padded(OBJECT_BYTES_MAX - 1000))


def test_an_update_counts_the_previous_spec_and_leaves_room_for_its_own_status() -> None:
    swarm = Swarm()
    half = OBJECT_BYTES_MAX // 2
    service = create(swarm, padded(half - 1000))
    base = {"service_id": service.id, "service_version": service.meta.version}
    assert refusal(swarm, "UpdateService", **base, spec=padded(half + 2000))[0] is Code.INVALID_ARGUMENT
    stored = swarm.store.get(objects.Service, service.id)
    assert stored is not None
    assert not stored.HasField("previous_spec")
    updated = swarm.call("UpdateService", **base, spec=padded(half - 1000)).service
    updated.update_status.CopyFrom(STATUS)
    assert updated.ByteSize() < MAX_BYTES - 1000


@pytest.mark.parametrize("size", [OBJECT_BYTES_MAX, 3 << 20])
def test_labels_of_a_node_leave_room_for_its_status(size: int) -> None:
    swarm = Swarm()
    node = objects.Node(id="n1", spec=specs.NodeSpec(membership=specs.NodeSpec.ACCEPTED))
    swarm.put(node)
    spec = specs.NodeSpec()
    spec.annotations.labels["x"] = "y" * size
    stored = swarm.store.get(objects.Node, "n1")
    assert stored is not None
    wanted = {"node_id": "n1", "node_version": stored.meta.version, "spec": spec}
    code, text = refusal(swarm, "UpdateNode", **wanted)
    assert (code, "too large" in text) == (Code.INVALID_ARGUMENT, True)


def test_a_service_whose_tasks_would_not_fit_with_their_networks_is_refused() -> None:
    swarm = Swarm()
    networks = [objects.Network(id=f"n{number}") for number in range(3)]
    for number, network in enumerate(networks):
        network.spec.annotations.name = network.id
        network.spec.annotations.labels["x"] = "y" * (OBJECT_BYTES_MAX // 2 - 2000 if number else 10)
        swarm.put(network)

    def on(*names: str) -> specs.ServiceSpec:
        spec: specs.ServiceSpec = service_spec()
        for name in names:
            spec.task.networks.add(target=name)
        spec.task.container.labels["x"] = "y" * 5000
        return spec

    assert refusal(swarm, "CreateService", spec=on("n1", "n2"))[0] is Code.INVALID_ARGUMENT
    service = create(swarm, on("n0", "n1"))
    base = {"service_id": service.id, "service_version": service.meta.version}
    assert "too large" in refusal(swarm, "UpdateService", **base, spec=on("n1", "n2"))[1]
    swarm.call("UpdateService", **base, spec=on("n2"))
