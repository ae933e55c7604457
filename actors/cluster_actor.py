"""ClusterActor is this process's part in a swarm, also while it is in none: init, join, leave, update, inspect, info.

Who talks to it: the Engine API, the host program, the node below it. One reconfiguration (init, join, leave) is under
way at a time, others wait their turn; reads go around them. It must never run domain logic of managers or agents,
and its failure leaves the node running: the next life finds it again.

LocalNodeState:  inactive -(init, join)-> pending -> active;  pending -(failed)-> inactive;  active -(node failed)->
error -(reconnect delay)-> active;  a node whose key needs unlocking: locked;  any -(leave)-> inactive.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from actors.admission_actor import AdmissionActor
from actors.cluster_operations import ClusterOperations, Operation
from actors.cluster_questions import as_cluster_error, checked, error_text
from actors.connection_actor import ConnectionActor
from actors.event_publisher_actor import EventPublisherActor
from runtime.errors import Code, Refused
from runtime.pki.node_identity import NodeIdentity
from runtime.pki.unlock_key import UnlockKeyBox, parse_unlock_key
from runtime.protocol import cluster as say
from runtime.protocol.certificate import CertificateSetup, GetAdmitted
from runtime.protocol.cluster import (
    CertificateExpired,
    ClusterError,
    ConfigEventKind,
    InitRequest,
    JoinRequest,
    LocalNodeState,
    NodeRemoved,
)
from runtime.protocol.node import (
    ClusterState,
    GetNodeStatus,
    LeaveNode,
    ManagersKnown,
    NodeIdentified,
    NodeLocked,
    NodeMended,
    NodeReady,
    NodeStatus,
    NodeTrouble,
    StartConfig,
    SubscribeControlConnection,
)
from runtime.stage import Actor, ActorDown, ActorUp, Address, Answer, GiveUp, Policy, Reply, handles
from runtime.swarm import addresses, cluster_config, leaving
from runtime.swarm.addresses import Interface, IPNetwork, split_host_port
from runtime.wire.pb import control_pb2, specs_pb2

log = logging.getLogger("swarmlet.cluster")
G = TypeVar("G")
T = TypeVar("T")

JOIN_WAIT = 20.0
CONTROL_WAIT = 20.0
SPEC_WAIT = 5.0
SPEC_RETRY = 0.2
SPEC_RETRIES = 10
LEAVE_WAIT = 15.0
MANAGERS_WAIT = 5.0  # for who the managers are, when one wants to leave
UNLOCK_WAIT = 20.0
RENEWAL_WAIT = 5.0  # for a manager that is alone: it renews an expired certificate by itself


@dataclasses.dataclass(frozen=True, slots=True)
class ClusterSettings:
    """What the process was started with. The callables read the network as it is now; ``free_port`` gives a port that
    nobody listens on at a host, for who asks for port 0: it is fixed once, so that a restart listens there again.
    ``source_address`` is where this machine speaks from to an IP address."""

    name: str
    interfaces: Callable[[], Sequence[Interface]]
    managed_subnets: Callable[[], Sequence[IPNetwork]] = tuple
    free_port: Callable[[str], int] | None = None
    source_address: Callable[[str], str] = lambda remote: ""
    default_advertise_addr: str = ""
    heartbeat_tick: int = 1
    election_tick: int = 10


class _WriteSpec:
    """Time to write the new cluster's spec (again)."""


class ClusterActor(ClusterOperations):
    """``node_class`` is started at ``node`` with (parent address, StartConfig); a test may give another."""

    policy = Policy(give_up=GiveUp.NEVER, children_survive=True, own_thread=True)

    def __init__(self, settings: ClusterSettings, state: ClusterState, node_class: type[Actor]) -> None:
        super().__init__(settings.source_address)
        self.settings = settings
        self.state = state
        self.node_class = node_class
        self._first_error: BaseException | None = None

    def started(self) -> None:
        self._connection = self.ensure("connection", ConnectionActor, self.below("node/manager/control"))
        self.watch(self._connection)
        self.ensure("events", EventPublisherActor, self.address, self._connection, self.below("node/manager/store"))
        self._admission = self.ensure("admission", AdmissionActor)
        try:
            self.config = self.state.load()
        except Refused as refused:
            self.error = refused
            return
        node = self.child("node")
        if self.config is None and node is None:
            return
        if node is not None:
            self._adopt(node)
        elif self.config is not None:
            join = self.config.remote_addr if self.config.join_in_progress else ""
            self._start_node(dataclasses.replace(self._ticks(self.config), join_addr=join))

    def snapshot(self) -> dict[str, Any]:
        return {"state": self.local_state().value, "node": self.node_id, "operation": self._operation_name()}

    def _carry_out(self, message: Any, reply: Reply) -> None:
        steps: dict[type[Any], Callable[[Any, Reply], None]] = {
            say.Init: self._init,
            say.Join: self._join,
            say.Leave: self._leave,
            say.Unlock: self._unlock,
        }
        steps[type(message)](message, reply)

    # Init

    def _init(self, message: say.Init, reply: Reply) -> None:
        request = dataclasses.replace(message.request, listen_addr=self._fix_port(message.request.listen_addr))
        if self._in_swarm():
            if not request.force_new_cluster:
                raise ClusterError("unavailable", say.SWARM_EXISTS)
            if self.role == "swarm-worker":
                raise ClusterError("unavailable", say.NOT_MANAGER_WORKER)
            if self.local_state() is LocalNodeState.LOCKED:
                raise ClusterError("unavailable", say.LOCKED)
        checked(cluster_config.parse_listen, request.listen_addr)
        checked(cluster_config.check_spec_name, request.spec.annotations.name)
        found = self._resolve(request)
        if request.auto_lock_managers:
            spec = specs_pb2.ClusterSpec()
            spec.CopyFrom(request.spec)
            spec.encryption_config.auto_lock_managers = True
            request = dataclasses.replace(request, spec=spec)
        config = StartConfig(
            local_addr=found.local,
            listen_addr=found.listen,
            advertise_addr=found.advertise,
            data_path_addr=found.data_path,
            default_address_pool=request.default_addr_pool or (),
            subnet_size=found.subnet_size,
            data_path_port=found.data_path_port,
            availability=_availability(request.availability),
            force_new_cluster=self.world.entropy(8).hex() if request.force_new_cluster else "",
            lock=self.config.lock if request.force_new_cluster and self.config is not None else UnlockKeyBox(),
        )
        self._operation = Operation("init", reply, request)
        if self.node is None:
            self._found(config)
        else:
            self._operation.after_stop = config
            self.stop(self.node)

    def _found(self, config: StartConfig) -> None:
        if not config.force_new_cluster:
            self.state.clear()  # else it holds what the new cluster is made of
        self._start_node(self._ticks(config))
        self.state.save(config)

    def _fix_port(self, listen_addr: str) -> str:
        try:
            host, port = split_host_port(listen_addr)
        except ValueError:
            return listen_addr
        if port != "0" or self.settings.free_port is None:
            return listen_addr
        return addresses.join_host_port(host, self.settings.free_port(host))

    def _resolve(self, request: InitRequest) -> cluster_config.Addresses:
        try:
            return cluster_config.resolve_init(
                request.listen_addr,
                request.advertise_addr,
                request.data_path_addr,
                request.default_addr_pool or (),
                request.subnet_size,
                request.data_path_port,
                self.settings.default_advertise_addr,
                self.settings.interfaces(),
                self.settings.managed_subnets(),
            )
        except Refused as refused:
            raise as_cluster_error(refused) from None

    @handles(_WriteSpec)
    def write_spec(self, message: _WriteSpec) -> None:
        """Writes the spec of the cluster just made, once its object is there."""
        if self.control is None:
            self._spec_again()
        else:
            self.ask(
                self.control, say.Control("ListClusters", control_pb2.ListClustersRequest()), self._listed, SPEC_WAIT
            )

    def _listed(self, answer: Answer) -> None:
        operation = self._operation
        if operation is None or operation.request is None:
            return
        if answer.error is not None or not answer.value.clusters or self.control is None:
            self._spec_again(answer.error)
            return
        cluster, asked = answer.value.clusters[0], operation.request
        spec = cluster_config.merge_spec(cluster.spec, asked.spec, asked.history_limit, asked.keep_old_snapshots)
        request = control_pb2.UpdateClusterRequest(
            cluster_id=cluster.id, cluster_version=cluster.meta.version, spec=spec
        )
        self.ask(self.control, say.Control("UpdateCluster", request), self._spec_written, SPEC_WAIT)

    def _spec_again(self, error: BaseException | None = None) -> None:
        operation = self._operation
        if operation is None:
            return
        operation.spec_tries += 1
        if operation.spec_tries > SPEC_RETRIES:
            self._finish(error=error or Refused(Code.DEADLINE_EXCEEDED, "the cluster object did not appear"))
        else:
            self.after(SPEC_RETRY, _WriteSpec())

    def _spec_written(self, answer: Answer) -> None:
        # The node stays up when its spec could not be written, as the engine's does: the caller hears why.
        if isinstance(answer.error, Refused) and answer.error.text == OUT_OF_SEQUENCE:
            self._spec_again(answer.error)
        else:
            self._finish(self.node_id, answer.error)

    # Join

    def _join(self, message: say.Join, reply: Reply) -> None:
        request = dataclasses.replace(message.request, listen_addr=self._fix_port(message.request.listen_addr))
        anew = isinstance(self.error, CertificateExpired)
        if self._in_swarm() and not anew:
            raise ClusterError("unavailable", say.SWARM_EXISTS)
        listen = checked(cluster_config.resolve_join_listen, request.listen_addr, self.settings.interfaces())
        remote = checked(cluster_config.parse_remote, request.remote_addrs)
        config = StartConfig(
            remote_addr=remote,
            listen_addr=listen,
            advertise_addr=self._join_advertise(request),
            data_path_addr=request.data_path_addr,
            join_in_progress=True,
            join_addr=remote,
            join_token=request.join_token,
            availability=_availability(request.availability),
        )
        if anew:
            self._ask_admission(config, reply)
        else:
            self._operation = Operation("join", reply)
            self._answer_within(JOIN_WAIT, "join", say.JOIN_TIMEOUT)
            self._found(config)

    def _ask_admission(self, config: StartConfig, reply: Reply) -> None:
        """For a node that is one still: what it has is given up only for a certificate that was issued."""
        self._operation = Operation("admission", reply)
        setup = CertificateSetup(config.join_addr, config.join_token, availability=config.availability)

        def answered(answer: Answer) -> None:
            if answer.error is not None:
                self._finish(error=answer.error)
            elif self.error is None:
                self._finish(error=ClusterError("unavailable", say.SWARM_EXISTS))  # its certificate holds again
            else:
                self._admitted(config, answer.value)

        self.ask(self._admission, GetAdmitted(setup, JOIN_WAIT), answered, JOIN_WAIT + 1.0)

    def _admitted(self, config: StartConfig, identity: NodeIdentity) -> None:
        assert self._operation is not None
        self._operation.kind = "join"
        self._answer_within(JOIN_WAIT, "join", say.JOIN_TIMEOUT)
        config = dataclasses.replace(config, join_token="", admitted=identity, lock=UnlockKeyBox(identity.kek))
        if self.node is None:
            self._found(config)
        else:
            self._operation.after_stop = config
            self.ask(self.node, LeaveNode(), self._old_tasks_gone, LEAVE_WAIT)

    def _old_tasks_gone(self, answer: Answer) -> None:
        if self.node is not None:
            self.stop(self.node)

    def _join_advertise(self, request: JoinRequest) -> str:
        """A bad one is ignored, as the engine does: the remote side detects the address."""
        if not request.advertise_addr:
            return ""
        try:
            port = split_host_port(cluster_config.parse_listen(request.listen_addr))[1]
            found = addresses.resolve_advertise(request.advertise_addr, port, "", self.settings.interfaces())
        except (Refused, ValueError):
            return ""
        return addresses.join_host_port(*found)

    # Leave and unlock

    def _leave(self, message: say.Leave, reply: Reply) -> None:
        if not self._in_swarm():
            raise ClusterError("unavailable", say.NO_SWARM)
        if self.local_state() is LocalNodeState.LOCKED and not message.force:
            raise ClusterError("unavailable", say.LEAVE_LOCKED)
        if self.role == "swarm-manager" and self.node is not None and not message.force:
            self._refuse_leave(reply)
            return
        self._operation = Operation("leave", reply)
        if self.node is None:
            self._end_tasks(self._left)
        else:
            self.ask(self.node, LeaveNode(), self._tasks_gone, LEAVE_WAIT)

    def _refuse_leave(self, reply: Reply) -> None:
        """Says what the swarm would lose with this manager, as far as the managers can tell in time."""
        self._operation = Operation("refused leave", reply)

        def listed(answer: Answer) -> None:
            nodes = answer.value.nodes if answer.error is None else ()
            self._finish(error=ClusterError("unavailable", leaving.refusal(nodes, self.node_id)))

        if self.control is None:
            self._finish(error=ClusterError("unavailable", leaving.refusal((), self.node_id)))
        else:
            request = control_pb2.ListNodesRequest()
            self.ask(self.control, say.Control("ListNodes", request), listed, MANAGERS_WAIT)

    def _tasks_gone(self, answer: Answer) -> None:
        if self.node is None:
            self._end_tasks(self._left)
        else:
            self.stop(self.node)

    def _end_tasks(self, then: Callable[[], None]) -> None:
        """Ends what runs here and no agent will know any more: tasks of a node that was locked, that did not get all of
        its way in, or whose agent failed on the way out."""
        executor = self.world.executor
        if executor is None:
            then()
            return
        gone = self.sink(lambda _: then())
        executor.stop_all(lambda: gone(None))

    def _left(self) -> None:
        self.state.clear()
        self._say("leave", "this node has left the swarm")
        self._forget()
        self._announce(ConfigEventKind.NODE_LEFT)
        self._finish()

    def _unlock(self, message: say.Unlock, reply: Reply) -> None:
        """The node starts anew with the key; a locked one was stopped when it said so."""
        if self.local_state() is not LocalNodeState.LOCKED:
            raise ClusterError("conflict", say.NOT_LOCKED) if self.control is not None else self._no_manager()
        try:
            key = parse_unlock_key(message.key)
        except Refused as refused:
            raise ClusterError("invalid", refused.text) from None
        assert self.config is not None
        self.config = dataclasses.replace(self.config, lock=UnlockKeyBox(key))
        self._operation = Operation("unlock", reply)
        self._answer_within(UNLOCK_WAIT, "unlock", say.UNLOCK_TIMEOUT)
        if self.node is None:
            self._start_node(self.config)

    def _unlocking(self, message: ActorDown) -> None:
        """The node ended while it is being unlocked: the one that was locked, or the one with the new key."""
        assert self.config is not None
        assert self._operation is not None
        if self._operation.failed is not None:
            self._finish(error=self._operation.failed)
        elif message.final and self.node is None:
            self._start_node(self.config)
        else:
            text = f"swarm component could not be started: {error_text(message.error)}"
            self._finish(error=ClusterError("plain", text))

    # The node

    def _start_node(self, config: StartConfig) -> None:
        self.config, self.error, self.ready, self._first_error = config, None, False, None
        self.node = self.spawn("node", self.node_class, self.address, config)
        self.watch(self.node)

    def _adopt(self, node: Address) -> None:
        self.node = node
        self.watch(node)
        self.ask(node, GetNodeStatus(), self._adopted, CONTROL_WAIT)

    def _adopted(self, answer: Answer) -> None:
        if answer.error is None and isinstance(answer.value, NodeStatus):
            self.remotes = answer.value.remotes
            if answer.value.ready:
                self._is_ready(answer.value.node_id, answer.value.role)
            self.error = answer.value.trouble or self.error

    @handles(NodeIdentified)
    def node_identified(self, message: NodeIdentified) -> None:
        """Who this node is, although it is not ready yet."""
        self.node_id, self.role = message.node_id, message.role

    @handles(ManagersKnown)
    def managers_known(self, message: ManagersKnown) -> None:
        """For ``docker info``."""
        self.remotes = message.remotes

    @handles(NodeReady)
    def node_ready(self, message: NodeReady) -> None:
        """The node runs (again)."""
        self._is_ready(message.node_id, message.role)
        operation = self._operation
        if operation is None or operation.after_stop is not None:
            return  # who says so is not the one that was asked for
        if operation.kind == "init":
            self.tell(self.address, _WriteSpec())
        elif operation.kind in ("join", "unlock"):
            self._finish()

    def _say(self, action: str, text: str, level: int = logging.INFO) -> None:
        self.moment(log, "swarm", action, text, id=self.node_id, level=level, node_id=self.node_id)

    def _is_ready(self, node_id: str, role: str) -> None:
        known = self.ready and self.error is None and (self.node_id, self.role) == (node_id, role)
        self.node_id, self.role, self.ready, self.error = node_id, role, True, None
        if not known:
            self._say("ready", f"this node is ready: a {role.removeprefix('swarm-')} of the swarm")
        if self.config is not None and self.config.join_in_progress:
            self.config = dataclasses.replace(
                self.config, join_in_progress=False, join_addr="", join_token="", admitted=None
            )
            self.state.save(self.config)
        self._announce(ConfigEventKind.NODE_READY)

    @handles(NodeTrouble)
    def node_trouble(self, message: NodeTrouble) -> None:
        """A part of the node stays down: shown until the node starts again."""
        self.error = message.error
        self._say("trouble", str(message.error), logging.WARNING)
        if self._operation_name() == "unlock" and isinstance(message.error, CertificateExpired):
            self._answer_within(RENEWAL_WAIT, "unlock", message.error.text)

    @handles(NodeMended)
    def node_mended(self, message: NodeMended) -> None:
        """The node's certificate holds again, or it has a session after all."""
        if isinstance(self.error, CertificateExpired | NodeRemoved):
            self.error = None

    @handles(ActorUp)
    def up(self, message: ActorUp) -> None:
        """A life of the connection begins, which knows no subscribers; the node says by itself when it is ready."""
        if message.path == self._connection.path:
            self.tell(self._connection, SubscribeControlConnection())

    @handles(ActorDown)
    def node_down(self, message: ActorDown) -> None:
        """The node failed (its supervisor starts it again after the reconnect delay) or ended."""
        if self.node is None or message.path != self.node.path:
            self.listeners = [each for each in self.listeners if each.path != message.path or not message.final]
            return
        self.ready, self.control = False, None
        if message.final:
            self.node = None
        if not (message.final and self.local_state() is LocalNodeState.LOCKED):
            self.error = message.error
        operation = self._operation
        if operation is None:
            return
        if operation.after_stop is not None:
            if message.final:
                config, operation.after_stop = operation.after_stop, None
                self._found(config)
        elif operation.kind == "unlock":
            self._unlocking(message)
        elif operation.kind == "leave" and message.final:
            self._end_tasks(self._left)
        elif operation.kind in ("init", "join"):
            self._failed_to_start(message)

    @handles(NodeLocked)
    def node_locked(self, message: NodeLocked) -> None:
        """Nothing runs on a locked node: trying again needs the key."""
        self._say("lock", 'this node is locked: it waits for "docker swarm unlock"', logging.WARNING)
        self.error = self._first_error = ClusterError("unavailable", say.LOCKED)
        self.remotes = ()
        operation = self._operation
        if operation is not None and operation.kind == "unlock":
            operation.failed = ClusterError("unauthorized", say.WRONG_UNLOCK_KEY)
        if self.node is not None:
            self.stop(self.node)

    def _failed_to_start(self, message: ActorDown) -> None:
        """A first start that fails is given up: nothing of it stays (but for what a new cluster was to be made of), not
        even a task that it was given before it was ready, and the caller hears why."""
        assert self._operation is not None
        if not message.final and self.node is not None:
            self._first_error = message.error
            self.stop(self.node)
            return
        error = self._first_error or message.error
        self._not_overdue()
        if self.config is not None and self.config.force_new_cluster:
            self._forget()
            self.error = error  # what is on disk may be the only copy of the cluster: it is in a swarm still
            self._give_up(error)
        else:
            self._end_tasks(lambda: self._clear(error))

    def _clear(self, error: BaseException | None) -> None:
        self.state.clear()
        self._forget()
        self._give_up(error)

    def _give_up(self, error: BaseException | None) -> None:
        self._finish(error=error if isinstance(error, Refused) else Refused(Code.UNKNOWN, str(error)))

    def _forget(self) -> None:
        self.config, self.node, self.error, self.control = None, None, None, None
        self.node_id, self.role, self.ready, self.remotes = "", "", False, ()

    def _ticks(self, config: StartConfig) -> StartConfig:
        settings = self.settings
        return dataclasses.replace(config, heartbeat_tick=settings.heartbeat_tick, election_tick=settings.election_tick)


OUT_OF_SEQUENCE = "update out of sequence"


def _availability(text: str) -> str:
    return checked(cluster_config.check_availability, text)
