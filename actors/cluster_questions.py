"""What can be asked about this process's part in a swarm, whatever state that is in, and who hears of its changes.

Half of ClusterActor: it holds what is known of the node, answers from that or from the node's own manager, and says in
Docker's words why it cannot. Nothing here changes the node.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from runtime.errors import Code, Refused
from runtime.protocol import cluster as say
from runtime.protocol.cluster import ClusterError, ConfigEventKind, LocalNodeState, RemoteManager, SwarmInfo
from runtime.protocol.node import ControlConnection, StartConfig
from runtime.stage import Actor, Address, Answer, Reply, handles
from runtime.swarm import cluster_config
from runtime.swarm.addresses import split_host_port
from runtime.wire.pb import control_pb2, objects_pb2

P = ParamSpec("P")
T = TypeVar("T")

CONTROL_WAIT = 20.0
NO_CLUSTER = "no cluster object"


class ClusterQuestions(Actor):
    """``source_address`` is where this machine speaks from to an IP address."""

    def __init__(self, source_address: Callable[[str], str]) -> None:
        super().__init__()
        self._source_address = source_address
        self.config: StartConfig | None = None
        self.node: Address | None = None
        self.node_id = ""
        self.role = ""
        self.ready = False
        self.error: BaseException | None = None
        self.control: Address | None = None
        self.remotes: tuple[tuple[str, str], ...] = ()
        self.listeners: list[Address] = []

    # Control connection and events

    @handles(ControlConnection)
    def control_changed(self, message: ControlConnection) -> None:
        """The control API of this node's manager appeared or vanished."""
        self.control = message.control
        self._announce(ConfigEventKind.CONTROL_CONNECTION, message.control is not None)

    @handles(say.SubscribeConfigEvents)
    def subscribe(self, message: say.SubscribeConfigEvents) -> None:
        """The sender hears every config event from now on."""
        if self.sender is not None and self.sender not in self.listeners:
            self.listeners.append(self.sender)
            self.watch(self.sender)

    def _announce(self, kind: ConfigEventKind, detail: Any = None) -> None:
        for listener in self.listeners:
            self.tell(listener, say.ConfigEvent(kind, detail))

    @handles(say.SubscribeEvents, say.UnsubscribeEvents)
    def to_publisher(self, message: Any) -> None:
        """Who wants to hear of the swarm's objects."""
        self.forward(self.below("events"), message)

    # Questions

    @handles(say.LocalTasks)
    def local_tasks(self, message: say.LocalTasks) -> tuple[()] | None:
        """The agent knows them; out of a swarm there are none."""
        if self.node is None:
            return ()
        self.forward(self.below("node/agent"), message)
        return None

    @handles(say.LocalLogs, say.ToTask)
    def to_task(self, message: say.LocalLogs | say.ToTask) -> None:
        """Of a task that the agent has."""
        if self.node is None:
            raise Refused(Code.NOT_FOUND, f"task {message.task_id} not found")
        self.forward(self.below("node/agent"), message)

    @handles(say.Control, say.ReadBarrier)
    def ask_control(self, message: say.Control | say.ReadBarrier) -> None:
        """Hands a call of the Control service, or a barrier before one, to the manager, which answers the caller."""
        if self.control is None:
            raise self._no_manager()
        self.forward(self.control, message)

    @handles(say.Inspect)
    def inspect(self, message: say.Inspect) -> None:
        """The cluster object."""
        reply = self.defer()
        self._clusters(lambda answer: _answer_first(answer, reply), reply)

    @handles(say.Update)
    def update(self, message: say.Update) -> None:
        """Replaces the cluster's spec."""
        checked(cluster_config.check_spec_name, message.spec.annotations.name)
        reply = self.defer()

        def listed(answer: Answer) -> None:
            if answer.error is not None or self.control is None:
                reply.fail(answer.error or self._no_manager())
                return
            if not answer.value.clusters:
                reply.fail(Refused(Code.UNKNOWN, NO_CLUSTER))
                return
            request = control_pb2.UpdateClusterRequest(
                cluster_id=answer.value.clusters[0].id, spec=message.spec, rotation=message.rotation
            )
            request.cluster_version.index = message.version
            self.ask(self.control, say.Control("UpdateCluster", request), reply.pass_on, CONTROL_WAIT)

        self._clusters(listed, reply)

    def _clusters(self, then: Callable[[Answer], None], reply: Reply) -> None:
        if self.control is None:
            reply.fail(self._no_manager())
        else:
            request = control_pb2.ListClustersRequest()
            self.ask(self.control, say.Control("ListClusters", request), then, CONTROL_WAIT)

    @handles(say.UnlockKey)
    def unlock_key(self, message: say.UnlockKey) -> None:
        """Told by this node's own manager, from what it has of the cluster."""
        if self.control is None:
            raise self._no_manager()
        self.forward(self.control, message)

    @handles(say.Status)
    def status(self, message: say.Status) -> str:
        """Where this node stands, from what is known here."""
        state = self.local_state()
        if state is not LocalNodeState.ACTIVE:
            return str(state.value)
        return f"{state.value}/{'manager' if self.control is not None else 'worker'}"

    @handles(say.Info)
    def info(self, message: say.Info) -> SwarmInfo | None:
        """Always answered; what the manager does not say in time is told in ``error``."""
        info = self._own_info()
        if self.control is None:
            return info
        reply = self.defer()

        def nodes(answer: Answer) -> None:
            if answer.error is not None:
                reply.set(dataclasses.replace(info, error=error_text(answer.error), cluster=objects_pb2.Cluster()))
                return
            managers = sum(1 for node in answer.value.nodes if node.HasField("manager_status"))
            counted = dataclasses.replace(info, nodes=len(answer.value.nodes), managers=managers)
            self._clusters(lambda clusters: self._add_warnings(_with_cluster(counted, clusters), reply), reply)

        request = control_pb2.ListNodesRequest()
        self.ask(self.control, say.Control("ListNodes", request), nodes, CONTROL_WAIT)
        return None

    def _add_warnings(self, info: SwarmInfo, reply: Reply) -> None:
        def told(answer: Answer) -> None:
            if answer.error is not None:
                reply.set(info)
                return
            standing: say.Standing = answer.value
            reply.set(dataclasses.replace(info, warnings=standing.warnings, error=info.error or standing.error))

        if self.control is None:
            reply.set(info)
        else:
            self.ask(self.control, say.GetWarnings(), told, CONTROL_WAIT)

    def _own_info(self) -> SwarmInfo:
        config = self.config
        return SwarmInfo(
            local_node_state=self.local_state().value,
            node_id=self.node_id,
            node_addr=self._node_addr(config) if config is not None else "",
            control_available=self.control is not None,
            error=error_text(self.error),
            remote_managers=tuple(RemoteManager(*remote) for remote in self.remotes),
        )

    def _node_addr(self, config: StartConfig) -> str:
        """Where others reach this node; for one that joined, where it speaks from to who let it in."""
        known = host_of(config.advertise_addr) or config.local_addr or _specific(host_of(config.listen_addr))
        return known or self._source_address(host_of(config.remote_addr))

    def local_state(self) -> LocalNodeState:
        """Where this node stands."""
        if self.error is not None:
            return LocalNodeState.LOCKED if _is_locked(self.error) else LocalNodeState.ERROR
        if self.node is None:
            return LocalNodeState.INACTIVE
        return LocalNodeState.ACTIVE if self.ready else LocalNodeState.PENDING

    def _in_swarm(self) -> bool:
        return self.node is not None or self.error is not None

    def _no_manager(self) -> ClusterError:
        if self.local_state() is LocalNodeState.LOCKED:
            return ClusterError("unavailable", say.LOCKED)
        if self.node is None:
            return ClusterError("unavailable", say.NOT_MANAGER_NO_NODE)
        if self.role == "swarm-worker":
            return ClusterError("unavailable", say.NOT_MANAGER_WORKER)
        return ClusterError("unavailable", say.NOT_MANAGER_STARTING)


def _is_locked(error: BaseException | None) -> bool:
    return isinstance(error, ClusterError) and error.text == say.LOCKED


def checked(check: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """What a check makes of a request; its refusal is this layer's own, without a code in front."""
    try:
        return check(*given, **named)
    except Refused as refused:
        raise as_cluster_error(refused) from None


def as_cluster_error(refused: Refused) -> ClusterError:
    return ClusterError("invalid" if refused.code is Code.INVALID_ARGUMENT else "plain", refused.text)


def error_text(error: BaseException | None) -> str:
    if isinstance(error, ClusterError):
        return error.text
    return error.rpc_text if isinstance(error, Refused) else str(error or "")


def host_of(address: str) -> str:
    try:
        host = split_host_port(address)[0]
        ipaddress.ip_address(host)
    except ValueError:
        return ""
    return host


def _specific(host: str) -> str:
    return "" if not host or ipaddress.ip_address(host).is_unspecified else host


def _answer_first(answer: Answer, reply: Reply) -> None:
    if answer.error is not None:
        reply.fail(answer.error)
    elif not answer.value.clusters:
        reply.fail(Refused(Code.UNKNOWN, NO_CLUSTER))
    else:
        reply.set(answer.value.clusters[0])


def _with_cluster(info: SwarmInfo, answer: Answer) -> SwarmInfo:
    if answer.error is not None or not answer.value.clusters:
        return dataclasses.replace(info, error=error_text(answer.error))
    return dataclasses.replace(info, cluster=answer.value.clusters[0])
