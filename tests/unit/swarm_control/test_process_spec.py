"""What is told to who asks for a service of processes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runtime.swarm.process_spec import HOST_MODE, UNSUPPORTED, warnings
from runtime.wire.pb import specs_pb2 as specs

REJECTED = "tasks of the image host are processes of the machine and will be rejected: they cannot have "
Edit = Callable[[specs.ServiceSpec], object]


def service(*edits: Edit, image: str = "host:latest") -> specs.ServiceSpec:
    spec = specs.ServiceSpec()
    spec.task.container.image = image
    spec.task.container.args.append("true")
    for edit in edits:
        edit(spec)
    return spec


def terminal(spec: specs.ServiceSpec) -> None:
    spec.task.container.tty = True


def network(spec: specs.ServiceSpec) -> None:
    spec.task.networks.add(target="n")


def port(target: int, published: int, mode: int = HOST_MODE) -> Edit:
    return lambda spec: spec.endpoint.ports.add(target_port=target, published_port=published, publish_mode=mode)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (service(), []),
        (service(port(80, 80), port(81, 0), port(82, 8082, 0)), []),
        (service(terminal, port(80, 8080), port(80, 8081)), [REJECTED + "tty, port 80 as 8080, port 80 as 8081"]),
        (service(lambda spec: spec.task.container.ClearField("args")), [REJECTED + "an image's own command"]),
        (service(terminal, network, port(80, 8080), image="nginx"), []),
        (service(terminal, network, image="hostile"), []),
        (specs.ServiceSpec(), []),
    ],
)
def test_what_a_process_cannot_have_is_told_for_its_image_alone(spec: specs.ServiceSpec, told: list[str]) -> None:
    assert warnings(spec) == told


def test_networks_and_refusals_are_two_sentences() -> None:
    first, second = warnings(service(network, terminal))
    assert "no addresses, no names and no isolation" in first
    assert second == REJECTED + "tty"


def test_the_nodes_own_network_is_where_processes_are_and_no_reason_for_a_warning() -> None:
    assert warnings(service(network), of_nodes=["n"]) == []
    both = service(network, lambda spec: spec.task.networks.add(target="other"))
    (told,) = warnings(both, of_nodes=["n"])
    assert "no addresses, no names and no isolation" in told


def test_what_comes_with_every_container_of_the_command_line_is_no_reason() -> None:
    container = specs.ContainerSpec(image="host")
    container.dns_config.SetInParent()
    container.privileges.no_new_privileges = False
    assert not any(check(container) for check in UNSUPPORTED.values())
