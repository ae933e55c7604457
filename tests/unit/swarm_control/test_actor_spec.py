"""Images of actors, and what the creator of such a service is told."""

from __future__ import annotations

import pytest

from runtime.swarm.actor_spec import actor_name, offers, offers_any, warnings
from runtime.wire.pb import objects_pb2, specs_pb2


def service(image: str = "actor/counter") -> specs_pb2.ServiceSpec:
    spec = specs_pb2.ServiceSpec()
    spec.task.container.image = image
    return spec


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("actor/counter", "counter"),
        ("actor/counter:latest", "counter"),
        ("actor/counter:v2", "counter:v2"),
        ("actor/", ""),
        ("actor", ""),
        ("host", ""),
        ("docker.io/actor/counter", ""),
        ("factor/counter", ""),
    ],
)
def test_which_actor_an_image_means(image: str, name: str) -> None:
    assert actor_name(image) == name


def test_a_node_offers_exactly_what_its_label_names() -> None:
    node = objects_pb2.Node()
    assert not offers(node, "counter")
    assert not offers_any(node)
    node.description.engine.labels["swarmlet.actors"] = "counter,echo:v2"
    assert offers(node, "counter")
    assert offers(node, "echo:v2")
    assert not offers(node, "echo")
    assert not offers(node, "count")
    assert offers_any(node)


def test_nothing_is_said_of_what_an_actor_can_have() -> None:
    spec = service()
    spec.task.container.args.append("x")
    spec.task.container.env.append("A=b")
    assert warnings(spec) == []


def test_what_will_be_rejected_is_told_at_once() -> None:
    spec = service()
    spec.task.container.user = "nobody"
    spec.endpoint.ports.add(target_port=80)
    spec.task.networks.add(target="n")
    first, second = warnings(spec)
    assert "networks of this service give them nothing" in first
    assert second == (
        "tasks of the image actor/counter are actors and will be rejected: they cannot have user, port 80"
    )


def test_other_images_are_no_matter_here() -> None:
    spec = service("host")
    spec.task.container.tty = True
    assert warnings(spec) == []
