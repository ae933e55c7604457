"""Networks of a compose file, where each node has the swarm's networks as its own (``--local-networks``).

Rules it owns: names and labels are those of ``docker stack deploy``; a service that names no network is on
``default``, under its own name in the file; what a bridge of one node cannot have (encryption, chosen addresses) is a
fault. Services refer to networks by their keys in the file; their ids are found at the deployment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from runtime.wire.pb import specs_pb2
from swarmlet.compose_values import Place

DEFAULT: Final = "default"
NAMESPACE: Final = "com.docker.stack.namespace"
DRIVER: Final = "overlay"
NOT_CHOSEN: Final = "networks between nodes are not offered; with --local-networks each node has this one as its own"
CHOSEN: Final = "is not honoured: each node has a network of its own under this name, with addresses of its own choice"


@dataclass(frozen=True, slots=True)
class Network:
    """A network of the file. ``name`` is its name in the swarm; without a spec it is external: there already."""

    key: str
    name: str
    spec: specs_pb2.NetworkSpec | None


def networks(top: Place, stack: str) -> dict[str, Network]:
    """The file's section ``networks`` by key, and the one that services are on without naming any."""
    found = {key: _network(key, place, stack) for key, place in top.at("networks").entries()}
    if DEFAULT not in found:
        found[DEFAULT] = _network(DEFAULT, Place(None, f"networks.{DEFAULT}", top.notes), stack)
    return found


def _network(key: str, place: Place, stack: str) -> Network:
    place.known(
        "attachable", "driver", "driver_opts", "enable_ipv4", "enable_ipv6", "external", "internal", "ipam", "labels",
        "name",
    )  # fmt: skip
    outside, name = place.at("external"), place.at("name").text()
    if isinstance(outside.value, dict):  # as compose files before 3.5 have it
        outside.known("name")
        return Network(key, outside.at("name").text() or key, None)
    if outside.flag():
        return Network(key, name or key, None)
    for field in ("driver_opts", "ipam", "enable_ipv6"):
        if place.at(field).value not in (None, False, {}):
            place.at(field).fault(CHOSEN)
    if place.at("driver").text() not in ("", DRIVER):
        place.at("driver").fault(f"must be {DRIVER}, of which each node makes a bridge of its own")
    spec = specs_pb2.NetworkSpec(internal=place.at("internal").flag(), attachable=place.at("attachable").flag())
    spec.annotations.name = name or f"{stack}_{key}"
    spec.driver_config.name = DRIVER
    for label, value in place.at("labels").pairs().items():
        spec.annotations.labels[label] = value or ""
    spec.annotations.labels[NAMESPACE] = stack
    return Network(key, spec.annotations.name, spec)


def attach(name: str, place: Place, spec: specs_pb2.ServiceSpec, known: Mapping[str, Network]) -> None:
    """What the service ``name`` is on: its ``networks``, by their keys."""
    wanted = named(place.at("networks")) or [(DEFAULT, Place(None, place.path, place.notes))]
    for key, item in wanted:
        if key not in known:
            item.fault(f"the file's section networks has no {key!r}")
            continue
        aliases = [name]
        if isinstance(item.value, dict):
            item.known("aliases")
            aliases += item.at("aliases").texts()
        spec.task.networks.add(target=key, aliases=list(dict.fromkeys(aliases)))


def named(place: Place) -> list[tuple[str, Place]]:
    """What a service says it is on: keys, with the place of each."""
    if isinstance(place.value, list):
        return [(item.text(), item) for item in place.items()]
    return list(place.entries())
