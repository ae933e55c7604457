"""The table of the control service: every method by name, and whether it reads or writes.

Rules owned here: each of the 43 methods of SwarmKit's Control service stands here once. A read answers from a view. A
write is prepared first, which refuses what needs no state to be refused, and then is a transaction function from a
state to changes and an answer; that function is pure, and may run again on another state. What it answers leaves room
in a log entry for what the swarm itself will write into the object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from runtime.swarm.control import clusters, extensions, networks, nodes, secrets, services, tasks, volumes
from runtime.swarm.control.checks import check_room
from runtime.swarm.control.context import Context
from runtime.swarm.ports import Tx, View
from runtime.wire.pb import control_pb2 as control


@dataclass(frozen=True, slots=True)
class Read:
    """A method that answers from a view: ``answer(view, request, ctx)``."""

    request: type[Message]
    response: type[Message]
    answer: Callable[[View, Any, Context], Message]


@dataclass(frozen=True, slots=True)
class Write:
    """A method that changes the store: ``prepare(request, ctx)`` gives the transaction function."""

    request: type[Message]
    response: type[Message]
    prepare: Callable[[Any, Context], Callable[[Tx], Message]]


Method = Read | Write

_READS: Final[Mapping[str, Callable[[View, Any, Context], Message]]] = {
    "GetNode": nodes.get_node,
    "ListNodes": nodes.list_nodes,
    "GetTask": tasks.get_task,
    "ListTasks": tasks.list_tasks,
    "GetService": services.get_service,
    "ListServices": services.list_services,
    "ListServiceStatuses": services.list_service_statuses,
    "GetNetwork": networks.get_network,
    "ListNetworks": networks.list_networks,
    "GetCluster": clusters.get_cluster,
    "ListClusters": clusters.list_clusters,
    "GetSecret": secrets.get_secret,
    "ListSecrets": secrets.list_secrets,
    "GetConfig": secrets.get_config,
    "ListConfigs": secrets.list_configs,
    "GetExtension": extensions.get_extension,
    "GetResource": extensions.get_resource,
    "ListResources": extensions.list_resources,
    "GetVolume": volumes.get_volume,
    "ListVolumes": volumes.list_volumes,
}

_WRITES: Final[Mapping[str, Callable[[Any, Context], Callable[[Tx], Message]]]] = {
    "UpdateNode": nodes.update_node,
    "RemoveNode": nodes.remove_node,
    "RemoveTask": tasks.remove_task,
    "CreateService": services.create_service,
    "UpdateService": services.update_service,
    "RemoveService": services.remove_service,
    "CreateNetwork": networks.create_network,
    "RemoveNetwork": networks.remove_network,
    "UpdateCluster": clusters.update_cluster,
    "CreateSecret": secrets.create_secret,
    "UpdateSecret": secrets.update_secret,
    "RemoveSecret": secrets.remove_secret,
    "CreateConfig": secrets.create_config,
    "UpdateConfig": secrets.update_config,
    "RemoveConfig": secrets.remove_config,
    "CreateExtension": extensions.create_extension,
    "RemoveExtension": extensions.remove_extension,
    "CreateResource": extensions.create_resource,
    "UpdateResource": extensions.update_resource,
    "RemoveResource": extensions.remove_resource,
    "CreateVolume": volumes.create_volume,
    "UpdateVolume": volumes.update_volume,
    "RemoveVolume": volumes.remove_volume,
}


def _leaving_room(prepare: Callable[[Any, Context], Callable[[Tx], Message]]) -> Callable[..., Callable[[Tx], Message]]:
    def prepared(request: Any, ctx: Context) -> Callable[[Tx], Message]:
        write = prepare(request, ctx)

        def checked(tx: Tx) -> Message:
            response = write(tx)
            for _field, value in response.ListFields():
                if isinstance(value, Message):
                    check_room(value)
            return response

        return checked

    return prepared


def _table() -> dict[str, Method]:
    table: dict[str, Method] = {}
    for name, answer in _READS.items():
        table[name] = Read(getattr(control, f"{name}Request"), getattr(control, f"{name}Response"), answer)
    for name, prepare in _WRITES.items():
        answers = getattr(control, f"{name}Response")
        table[name] = Write(getattr(control, f"{name}Request"), answers, _leaving_room(prepare))
    return table


METHODS: Final[Mapping[str, Method]] = _table()
"""The methods of ``docker.swarmkit.v1.Control`` by their names on the wire."""
