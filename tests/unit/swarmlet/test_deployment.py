"""Stacks with secrets and configs in a swarm: made once, replaced when their data changes, removed when unused."""

from __future__ import annotations

from typing import Any, cast

import pytest

from runtime.errors import Code, Refused
from runtime.wire.pb import objects_pb2, specs_pb2
from swarmlet.compose import Stack
from swarmlet.compose_networks import Network
from swarmlet.compose_payloads import Payload
from swarmlet.deployment import deploy
from swarmlet.node import Node
from tests.unit.swarm_control.fakes import Swarm, service_spec


class FakeNode:
    """A node whose manager answers from a table."""

    def __init__(self) -> None:
        self.swarm = Swarm()

    def control(self, method: str, request: Any, response: Any) -> Any:
        answer = self.swarm.call(method, **{field.name: value for field, value in request.ListFields()})
        assert isinstance(answer, response)
        return answer

    def names(self, kind: Any) -> list[str]:
        return sorted(str(each.spec.annotations.name) for each in self.swarm.store.all(kind))


def secret(data: bytes | None = b"one", key: str = "key", **labels: str) -> Payload:
    return Payload("secret", key, f"st_{key}" if data is not None else key, data, labels)


def config(data: bytes = b"one", template: str = "") -> Payload:
    return Payload("config", "app", "st_app", data, {}, template)


def using(*payloads: Payload) -> specs_pb2.ServiceSpec:
    spec = service_spec("st_web")
    spec.annotations.labels["com.docker.stack.namespace"] = "st"
    for each in payloads:
        if each.kind == "secret":
            reference = spec.task.container.secrets.add(secret_name=each.key)
        else:
            reference = spec.task.container.configs.add(config_name=each.key)  # type: ignore[assignment]
        reference.file.name = each.key
    return spec


def stack(*payloads: Payload) -> Stack:
    return Stack("st", (using(*payloads),), (), payloads)


def put(node: FakeNode, wanted: Stack) -> list[str]:
    return deploy(cast(Node, node), wanted)


def the_service(node: FakeNode) -> objects_pb2.Service:
    (found,) = node.swarm.store.all(objects_pb2.Service)
    return cast(objects_pb2.Service, found)


def test_they_are_there_before_the_services_that_want_them() -> None:
    node = FakeNode()
    assert put(node, stack(secret(team="a"), config(template="golang"))) == [
        "created secret st_key",
        "created config st_app",
        "created service st_web",
    ]
    (held,) = node.swarm.store.all(objects_pb2.Secret)
    assert (held.spec.data, held.spec.annotations.labels["team"]) == (b"one", "a")
    assert held.spec.annotations.labels["com.docker.stack.namespace"] == "st"
    (reference,) = the_service(node).spec.task.container.secrets
    assert (reference.secret_id, reference.secret_name, reference.file.name) == (held.id, "st_key", "key")
    (kept,) = node.swarm.store.all(objects_pb2.Config)
    assert (kept.spec.templating.name, the_service(node).spec.task.container.configs[0].config_id) == (
        "golang",
        kept.id,
    )


def test_the_same_again_changes_no_service() -> None:
    node = FakeNode()
    put(node, stack(secret(), config()))
    before = the_service(node)
    assert put(node, stack(secret(), config())) == []
    assert the_service(node) == before


def test_labels_change_in_place() -> None:
    node = FakeNode()
    put(node, stack(secret()))
    assert put(node, stack(secret(team="b"))) == []
    (held,) = node.swarm.store.all(objects_pb2.Secret)
    assert held.spec.annotations.labels["team"] == "b"


def test_changed_data_is_another_object_and_the_old_one_stays_for_a_rollback() -> None:
    node = FakeNode()
    put(node, stack(secret(), config()))
    assert put(node, stack(secret(b"two"), config())) == [
        "created secret st_key.2 in place of st_key",
        "updated service st_web",
    ]
    assert node.names(objects_pb2.Secret) == ["st_key", "st_key.2"]
    service = the_service(node)
    assert service.spec.task.container.secrets[0].secret_name == "st_key.2"
    assert service.spec.task.container.secrets[0].file.name == "key"
    assert service.previous_spec.task.container.secrets[0].secret_name == "st_key"
    assert put(node, stack(secret(b"three"), config())) == [
        "created secret st_key.3 in place of st_key.2",
        "updated service st_web",
        "removed secret st_key",
    ]
    assert put(node, stack(secret(b"three"), config())) == []
    assert node.names(objects_pb2.Secret) == ["st_key.2", "st_key.3"]


def test_a_changed_template_driver_is_another_object() -> None:
    node = FakeNode()
    put(node, stack(config()))
    assert put(node, stack(config(template="golang")))[0] == "created config st_app.2 in place of st_app"


def test_what_left_the_file_goes_when_no_rollback_needs_it() -> None:
    node = FakeNode()
    put(node, stack(secret(), config()))
    assert put(node, stack(config())) == ["updated service st_web"]
    assert node.names(objects_pb2.Secret) == ["st_key"]
    assert put(node, stack(config(b"two"))) == [
        "created config st_app.2 in place of st_app",
        "updated service st_web",
        "removed secret st_key",
    ]


def test_an_external_one_is_used_as_it_is_and_never_removed() -> None:
    node = FakeNode()
    theirs = objects_pb2.Secret(id="theirs")
    theirs.spec.annotations.name = "key"
    node.swarm.put(theirs)
    assert put(node, stack(secret(None))) == ["created service st_web"]
    assert the_service(node).spec.task.container.secrets[0].secret_id == "theirs"
    assert put(node, stack()) == ["updated service st_web"]
    assert put(node, stack()) == []
    assert node.names(objects_pb2.Secret) == ["key"]


def test_an_external_one_that_is_not_there_is_refused_before_any_service() -> None:
    node = FakeNode()
    with pytest.raises(Refused) as caught:
        put(node, stack(secret(None)))
    assert (caught.value.code, caught.value.text) == (Code.NOT_FOUND, "the external secret key is not there")
    assert node.names(objects_pb2.Service) == []


def test_a_name_that_somebody_else_has_is_refused() -> None:
    node = FakeNode()
    theirs = objects_pb2.Secret(id="theirs")
    theirs.spec.annotations.name = "st_key"
    node.swarm.put(theirs)
    with pytest.raises(Refused) as caught:
        put(node, stack(secret()))
    assert caught.value.code is Code.ALREADY_EXISTS


def test_another_name_in_the_swarm_is_a_new_object() -> None:
    node = FakeNode()
    put(node, stack(secret()))
    renamed = Payload("secret", "key", "other", b"one", {})
    assert put(node, stack(renamed))[0] == "created secret other"


# Networks


def on(*keys: str, internal: bool = False, present: bool = True) -> Stack:
    """A stack whose service is on networks of its file."""
    spec = using()
    made = []
    for key in keys:
        spec.task.networks.add(target=key, aliases=["web"])
        network = specs_pb2.NetworkSpec(internal=internal)
        network.annotations.name, network.driver_config.name = f"st_{key}", "overlay"
        network.annotations.labels["com.docker.stack.namespace"] = "st"
        made.append(Network(key, f"st_{key}", network if present else None))
    return Stack("st", (spec,), (), (), tuple(made))


def test_networks_are_made_before_the_services_that_are_on_them_and_then_left_alone() -> None:
    node = FakeNode()
    assert put(node, on("a", "b")) == ["created network st_a", "created network st_b", "created service st_web"]
    (service,) = node.swarm.store.all(objects_pb2.Service)
    ids = {each.spec.annotations.name: each.id for each in node.swarm.store.all(objects_pb2.Network)}
    assert [each.target for each in service.spec.task.networks] == [ids["st_a"], ids["st_b"]]
    assert put(node, on("a", "b")) == []


def test_a_network_that_the_file_has_no_more_goes_once_nothing_is_on_it() -> None:
    node = FakeNode()
    put(node, on("a", "b"))
    assert put(node, on("a")) == ["updated service st_web", "removed network st_b"]
    other = service_spec("other")
    (kept,) = (each for each in node.swarm.store.all(objects_pb2.Network) if each.spec.annotations.name == "st_a")
    other.task.networks.add(target=kept.id)
    node.swarm.call("CreateService", spec=other)
    done = put(node, on("c"))
    assert done[-1] == "network st_a is still in use and stays until the next run"


def test_a_network_that_is_not_as_the_file_says_is_refused() -> None:
    node = FakeNode()
    put(node, on("a"))
    with pytest.raises(Refused, match="network st_a is there and is not as the file says: remove it first"):
        put(node, on("a", internal=True))


def test_an_external_network_must_be_there() -> None:
    node = FakeNode()
    with pytest.raises(Refused, match="network st_a is external, and there is none"):
        put(node, on("a", present=False))
    put(node, on("a"))
    assert put(node, on("a", present=False))[-1:] != ["removed network st_a"]
