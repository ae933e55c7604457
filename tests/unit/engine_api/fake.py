"""A cluster in memory behind the port: it records what it is asked and answers like SwarmKit's control service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from runtime.engine_api.backend import CONTROL_TIMEOUT_S, SystemInfo
from runtime.engine_api.errors import ApiError
from runtime.engine_api.execs import Execs
from runtime.engine_api.questions import Landing
from runtime.errors import Code, Refused
from runtime.protocol.cluster import ClusterError, InitRequest, JoinRequest, SwarmInfo
from runtime.wire.pb import control_pb2 as pb
from runtime.wire.pb import logs_pb2
from runtime.wire.pb.objects_pb2 import Cluster, Config, Network, Node, Secret, Service, Task

NODE_ID = "n" * 25
PEM = (
    b"-----BEGIN CERTIFICATE-----\n"
    b"MIIBaTCCARCgAwIBAgIUejfFeHy0+4HifAInhKCTeAC5E/AwCgYIKoZIzj0EAwIw\n"
    b"EzERMA8GA1UEAxMIc3dhcm0tY2EwHhcNMjYxMTI0MDIyNTAwWhcNNDYxMTE5MDIy\n"
    b"NTAwWjATMREwDwYDVQQDEwhzd2FybS1jYTBZMBMGByqGSM49AgEGCCqGSM49AwEH\n"
    b"A0IABFIwX2/Ykd5wTp1hNpdGIzlLRXexMleSg8seQZF8LgtTSChNWl9eGIZN+r/3\n"
    b"vI1ZvfrNSUqUhvzZ0VvsVA+GVwejQjBAMA4GA1UdDwEB/wQEAwIBBjAPBgNVHRMB\n"
    b"Af8EBTADAQH/MB0GA1UdDgQWBBSMDZ+LYW4HFVtnYWYCGfE9htJMQzAKBggqhkjO\n"
    b"PQQDAgNHADBEAiBvhH2QS5lFaBIGH8+aKO/iTYfIKLPxNaYG7yImgD+0QwIgHOuD\n"
    b"x6c8/PYIifa/tvgBwQxL3EIOXyu7l7xDuG3iVSc=\n"
    b"-----END CERTIFICATE-----\n"
)
PEM_SUBJECT = "MBMxETAPBgNVBAMTCHN3YXJtLWNh"
PEM_KEY = (
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEUjBfb9iR3nBOnWE2l0YjOUtFd7EyV5KDyx5BkXwuC1NIKE1aX14Yhk36v/e8jVm9+s1JSpSG/"
    "NnRW+xUD4ZXBw=="
)


def a_node(node_id: str = NODE_ID, hostname: str = "vm") -> Node:
    """A ready manager."""
    node = Node(id=node_id)
    node.meta.version.index = 9
    node.meta.created_at.seconds = 1_800_000_000
    node.meta.updated_at.seconds = 1_800_000_001
    node.spec.desired_role = 1  # type: ignore[assignment]
    node.spec.membership = 1  # type: ignore[assignment]
    node.description.hostname = hostname
    node.description.platform.architecture = "x86_64"
    node.description.platform.os = "linux"
    node.description.resources.nano_cpus = 2_000_000_000
    node.description.resources.memory_bytes = 1 << 30
    node.status.state = 2  # type: ignore[assignment]
    node.status.addr = "127.0.0.1"
    node.manager_status.leader = True
    node.manager_status.reachability = 2  # type: ignore[assignment]
    node.manager_status.addr = "127.0.0.1:2377"
    return node


def a_cluster() -> Cluster:
    """A fresh cluster with its keys in it."""
    cluster = Cluster(id="c" * 25, subnetSize=24, defaultAddressPool=["10.0.0.0/8"])
    cluster.meta.version.index = 10
    cluster.spec.annotations.name = "default"
    cluster.spec.orchestration.task_history_retention_limit = 5
    cluster.spec.ca_config.signing_ca_cert = b"signing cert"
    cluster.spec.ca_config.signing_ca_key = b"signing key"
    cluster.root_ca.ca_key = b"root key"
    cluster.root_ca.ca_cert = PEM
    cluster.root_ca.join_tokens.worker = "SWMTKN-1-w"
    cluster.root_ca.join_tokens.manager = "SWMTKN-1-m"
    return cluster


class FakeBackend:
    """Holds objects by id; ``asked`` lists the control calls, ``did`` the calls on the cluster layer."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.did: list[tuple[Any, ...]] = []
        self.refusals: dict[str, BaseException] = {}
        self.nodes: dict[str, Node] = {NODE_ID: a_node()}
        self.services: dict[str, Service] = {}
        self.tasks: dict[str, Task] = {}
        self.networks: dict[str, Any] = {}
        self.secrets: dict[str, Any] = {}
        self.configs: dict[str, Any] = {}
        self.local_networks: dict[str, str] = {}
        self.statuses: list[Any] = []
        self.cluster = a_cluster()
        self.info = SwarmInfo("active", NODE_ID, "127.0.0.1", control_available=True, cluster=self.cluster)
        self.status = "active/manager"
        self.unlock_key = ""
        self.log_batches: list[logs_pb2.SubscribeLogsMessage] = []
        self.log_error: BaseException | None = None
        self.log_follows = False
        self.log_requests: list[logs_pb2.SubscribeLogsRequest] = []
        self.logs_closed = asyncio.Event()
        self.told: list[Any] = []
        self.events_go_on = False
        self.events_closed = asyncio.Event()
        self.gate: asyncio.Event | None = None
        self.entered = asyncio.Event()
        self._numbers = iter(range(1, 1_000_000))
        self.execs = Execs()
        self.looks: list[Any] = []
        self.answers: list[Any] = []
        self.shown: dict[str, Any] = {}
        self.has_engine = False

    @property
    def landing(self) -> Landing:
        return Landing(asyncio.get_running_loop())

    async def look(self, task: Task, question: Any) -> Any:
        self.looks.append(question)
        found = self.answers.pop(0) if self.answers else None
        if isinstance(found, BaseException):
            raise found
        return found(question) if callable(found) else found

    async def engine(self, path: str, query: Any) -> Any:
        if not self.has_engine:
            return None
        self.looks.append((path, dict(query)))
        found = self.shown.get(path, ApiError(404, f"nothing at {path}"))
        if isinstance(found, BaseException):
            raise found
        return found

    async def await_task(self, task: Task, until: Any) -> int:
        self.did.append(("await", task.id, until))
        return int(task.status.container.exit_code)

    async def control(self, method: str, request: Any, timeout_s: float = CONTROL_TIMEOUT_S) -> Any:
        self.asked.append((method, request))
        if self.gate is not None:
            self.entered.set()
            await self.gate.wait()
        if method in self.refusals:
            raise self.refusals[method]
        handler = getattr(self, "_" + method, None)
        return handler(request) if handler is not None else getattr(pb, method + "Response")()

    def requests(self, method: str) -> list[Any]:
        return [request for asked, request in self.asked if asked == method]

    def add_service(self, name: str, service_id: str = "") -> Service:
        service = Service(id=service_id or f"s{next(self._numbers):024d}")
        service.meta.version.index = 12
        service.spec.annotations.name = name
        service.spec.task.container.image = "busybox"
        service.spec.replicated.replicas = 1
        self.services[service.id] = service
        return service

    def add_task(self, service: Service, slot: int = 1) -> Task:
        task = Task(id=f"t{next(self._numbers):024d}", service_id=service.id, slot=slot, node_id=NODE_ID)
        task.spec.CopyFrom(service.spec.task)
        task.status.state = 512  # type: ignore[assignment]
        task.desired_state = 512  # type: ignore[assignment]
        self.tasks[task.id] = task
        return task

    def _CreateService(self, request: Any) -> Any:
        service = self.add_service(request.spec.annotations.name)
        service.spec.CopyFrom(request.spec)
        return pb.CreateServiceResponse(service=service)

    def _GetService(self, request: Any) -> Any:
        return pb.GetServiceResponse(service=self._one(self.services, request.service_id, "service"))

    def _GetNode(self, request: Any) -> Any:
        return pb.GetNodeResponse(node=self._one(self.nodes, request.node_id, "node"))

    def _GetTask(self, request: Any) -> Any:
        return pb.GetTaskResponse(task=self._one(self.tasks, request.task_id, "task"))

    def _GetNetwork(self, request: Any) -> Any:
        return pb.GetNetworkResponse(network=self._one(self.networks, request.network_id, "network"))

    def _GetSecret(self, request: Any) -> Any:
        return pb.GetSecretResponse(secret=self._one(self.secrets, request.secret_id, "secret"))

    def _GetConfig(self, request: Any) -> Any:
        return pb.GetConfigResponse(config=self._one(self.configs, request.config_id, "config"))

    def _CreateNetwork(self, request: Any) -> Any:
        return pb.CreateNetworkResponse(network=self._add(self.networks, Network, request.spec))

    def _CreateSecret(self, request: Any) -> Any:
        return pb.CreateSecretResponse(secret=self._add(self.secrets, Secret, request.spec))

    def _CreateConfig(self, request: Any) -> Any:
        return pb.CreateConfigResponse(config=self._add(self.configs, Config, request.spec))

    def _add(self, table: dict[str, Any], kind: Any, spec: Any) -> Any:
        made = kind(id=f"o{next(self._numbers):024d}", spec=spec)
        table[made.id] = made
        return made

    def _ListServices(self, request: Any) -> Any:
        found = self._many(self.services, request.filters, lambda service: service.spec.annotations.name)
        return pb.ListServicesResponse(services=found)

    def _ListNodes(self, request: Any) -> Any:
        return pb.ListNodesResponse(
            nodes=self._many(self.nodes, request.filters, lambda node: node.description.hostname)
        )

    def _ListTasks(self, request: Any) -> Any:
        def name(task: Task) -> str:
            return f"{self.services[task.service_id].spec.annotations.name}.{task.slot}.{task.id}"

        return pb.ListTasksResponse(tasks=self._many(self.tasks, request.filters, name))

    def _ListNetworks(self, request: Any) -> Any:
        found = self._many(self.networks, request.filters, lambda network: network.spec.annotations.name)
        return pb.ListNetworksResponse(networks=found)

    def _ListSecrets(self, request: Any) -> Any:
        found = self._many(self.secrets, request.filters, lambda secret: secret.spec.annotations.name)
        return pb.ListSecretsResponse(secrets=found)

    def _ListConfigs(self, request: Any) -> Any:
        found = self._many(self.configs, request.filters, lambda config: config.spec.annotations.name)
        return pb.ListConfigsResponse(configs=found)

    def _ListServiceStatuses(self, request: Any) -> Any:
        return pb.ListServiceStatusesResponse(statuses=self.statuses)

    def _RemoveService(self, request: Any) -> Any:
        del self.services[request.service_id]
        return pb.RemoveServiceResponse()

    @staticmethod
    def _one(table: dict[str, Any], object_id: str, kind: str) -> Any:
        if object_id not in table:
            raise Refused(Code.NOT_FOUND, f"{kind} {object_id} not found")
        return table[object_id]

    @staticmethod
    def _many(table: dict[str, Any], filters: Any, name_of: Any) -> list[Any]:
        return [
            table[object_id]
            for object_id in sorted(table)
            if (not filters.names or name_of(table[object_id]) in filters.names)
            and (not filters.id_prefixes or object_id.startswith(tuple(filters.id_prefixes)))
            and (not filters.name_prefixes or name_of(table[object_id]).startswith(tuple(filters.name_prefixes)))
            and _labelled(table[object_id], filters.labels)
        ]

    async def swarm_init(self, request: InitRequest) -> str:
        self._do("init", request)
        return NODE_ID

    async def read_barrier(self) -> None:
        self._do("barrier")

    async def swarm_join(self, request: JoinRequest) -> None:
        self._do("join", request)

    async def swarm_leave(self, force: bool) -> None:
        self._do("leave", force)

    async def swarm_update(self, version: int, spec: Any, rotation: Any) -> None:
        self._do("update", version, spec, rotation)

    async def swarm_inspect(self) -> Cluster:
        self._do("inspect")
        return self.cluster

    async def swarm_unlock(self, key: str) -> None:
        self._do("unlock", key)

    async def swarm_unlock_key(self) -> str:
        self._do("unlock_key")
        return self.unlock_key

    def _do(self, name: str, *what: Any) -> None:
        self.did.append((name, *what))
        if name in self.refusals:
            raise self.refusals[name]

    async def swarm_info(self) -> SwarmInfo:
        return self.info

    async def swarm_status(self) -> str:
        return self.status

    async def system(self) -> SystemInfo:
        return SystemInfo(
            name="vm", ncpu=2, mem_total=1 << 30, server_version="1.2.3", root_dir="/var/lib/x", executor="process",
            architecture="x86_64", kernel_version="6.1", operating_system="Debian", daemon_id="ID", warnings=("host",),
        )  # fmt: skip

    async def local_network(self, term: str) -> str | None:
        return self.local_networks.get(term)

    async def local_logs(self, task: Task, options: Any) -> AsyncIterator[Any]:
        self.did.append(("local_logs", task.id, options))
        for batch in self.log_batches:
            yield batch
        if self.log_error is not None:
            raise self.log_error

    async def local_tasks(self) -> list[tuple[Task, Any]]:
        return [(task, task.status) for task in self.tasks.values() if task.node_id == NODE_ID]

    async def events(self, since_ns: int | None, until_ns: int | None) -> AsyncIterator[Any]:
        self.did.append(("events", since_ns, until_ns))
        try:
            for event in self.told:
                yield event
            if self.events_go_on:
                await asyncio.Event().wait()
        finally:
            self.events_closed.set()

    async def logs(self, request: logs_pb2.SubscribeLogsRequest) -> AsyncIterator[logs_pb2.SubscribeLogsMessage]:
        self.log_requests.append(request)
        try:
            for batch in self.log_batches:
                yield batch
            if self.log_error is not None:
                raise self.log_error
            if self.log_follows:
                await asyncio.Event().wait()
        finally:
            self.logs_closed.set()


def _labelled(item: Any, wanted: Any) -> bool:
    if isinstance(item, (Node, Task)):
        return True  # tests of nodes and tasks look at what was asked
    labels = item.spec.annotations.labels
    return all(key in labels and value in ("", labels[key]) for key, value in wanted.items())


def no_manager() -> ClusterError:
    return ClusterError("unavailable", "This node is not a swarm manager.")
