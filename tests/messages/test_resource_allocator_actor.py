"""ResourceAllocatorActor with allocator and scheduler beside it: attachments come, are placed, and go."""

from __future__ import annotations

from typing import Any

import pytest

from actors.allocator_actor import AllocatorActor
from actors.resource_allocator_actor import ResourceAllocatorActor
from actors.scheduler_actor import SchedulerActor
from runtime.errors import Code
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import resource_pb2 as resource
from runtime.wire.pb import types_pb2 as types
from tests.messages.test_dispatcher_actor import LeaderBench, Sent, refusal
from tests.unit.swarm_orchestration.placing import changed, given, network, node


def attachable(id: str = "back", subnet: str = "10.0.1.0/24") -> objects.Network:
    return given(changed(network(id, subnet), lambda made: setattr(made.spec, "attachable", True)))


class Bench(LeaderBench):
    def __init__(self, *stored: Any) -> None:
        super().__init__(ResourceAllocatorActor, node("w1"), node("w2"), *stored)
        self.stage.mount("allocator", AllocatorActor, self.instance.context)
        self.stage.mount("scheduler", SchedulerActor, self.instance.context)
        self.run_for(0.5)

    def attach(self, target: str = "back", *addresses: str, node_id: str = "w1") -> Sent:
        request = resource.AttachNetworkRequest(container_id="container-1")
        request.config.target = target
        request.config.addresses.extend(addresses)
        return self.call("ResourceAllocator", "AttachNetwork", request, node_id)

    def detach(self, id: str, node_id: str = "w1") -> Sent:
        request = resource.DetachNetworkRequest(attachment_id=id)
        return self.call("ResourceAllocator", "DetachNetwork", request, node_id)


@pytest.mark.parametrize("target", ["back", "by name"])
def test_an_attachment_is_a_task_of_the_node_with_an_address_of_the_network(target: str) -> None:
    made = attachable()
    made.spec.annotations.name = "by name"
    bench = Bench(made)
    (answer,) = bench.attach(target, "10.0.1.77").take()
    bench.run_for(1)
    task = bench.get(objects.Task, answer.attachment_id)
    assert (task.node_id, task.spec.attachment.container_id, task.service_id) == ("w1", "container-1", "")
    assert [(each.network.id, list(each.addresses)) for each in task.networks] == [("back", ["10.0.1.77/24"])]
    assert (task.status.state, task.desired_state) == (types.ASSIGNED, types.RUNNING)
    assert [each.network.id for each in bench.get(objects.Node, "w1").attachments] == ["back"]


def test_an_attachment_is_given_back_by_its_own_node_alone() -> None:
    bench = Bench(attachable())
    (answer,) = bench.attach().take()
    id = answer.attachment_id
    bench.run_for(1)
    assert refusal(bench.detach(id, "w2")) == (
        Code.PERMISSION_DENIED,
        f"attachment {id} cannot be removed from node w2",
    )
    assert bench.detach(id).take() == [resource.DetachNetworkResponse()]
    bench.run_for(1)
    assert bench.published.view.all(objects.Task) == []
    assert list(bench.get(objects.Node, "w1").attachments) == []
    assert refusal(bench.detach(id)) == (Code.NOT_FOUND, f"attachment {id} not found")


def test_what_is_no_attachment_is_not_taken_away() -> None:
    bench = Bench(objects.Task(id="t", node_id="w1", service_id="web"))
    assert refusal(bench.detach("t")) == (Code.NOT_FOUND, "attachment t not found")


def test_networks_that_are_not_there_or_not_attachable_are_refused() -> None:
    bench = Bench(given(network("back")))
    assert refusal(bench.attach("gone")) == (Code.NOT_FOUND, "network gone not found")
    assert refusal(bench.attach("back")) == (Code.PERMISSION_DENIED, "network back not attachable")
    assert refusal(bench.attach("")) == (Code.INVALID_ARGUMENT, "invalid argument")
    assert refusal(bench.detach("")) == (Code.INVALID_ARGUMENT, "invalid argument")
    assert bench.published.view.all(objects.Task) == []
