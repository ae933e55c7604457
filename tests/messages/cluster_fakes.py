"""What stands around a ClusterActor in message tests: a node, a control API, a state directory."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Any

from actors.cluster_actor import ClusterActor, ClusterSettings
from runtime.errors import Code, Refused
from runtime.protocol import cluster as say
from runtime.protocol.cluster import InitRequest, JoinRequest
from runtime.protocol.node import (
    CheckHealth,
    GetNodeStatus,
    LeaveNode,
    NodeLocked,
    NodeReady,
    NodeStatus,
    StartConfig,
)
from runtime.stage import Actor, Address, GiveUp, Policy, Stage, handles
from runtime.stage.simulator import Simulator
from runtime.swarm.addresses import Interface
from runtime.wire.pb import control_pb2, objects_pb2, specs_pb2, types_pb2

CARD = Interface("eth0", (ipaddress.ip_address("10.0.0.5"),))


class MemoryState:
    """A ClusterState in memory, with a log of what was done to it."""

    def __init__(self, saved: StartConfig | None = None) -> None:
        self.saved = saved
        self.log: list[str] = []
        self.refusal: Refused | None = None

    def load(self) -> StartConfig | None:
        if self.refusal is not None:
            raise self.refusal
        return self.saved

    def save(self, config: StartConfig) -> None:
        self.log.append("save")
        self.saved = config

    def clear(self) -> None:
        self.log.append("clear")
        self.saved = None


@dataclasses.dataclass(frozen=True, slots=True)
class Become:
    """Tells a fake node what to do now: be ready, or fail."""

    ready: bool = False
    error: BaseException | None = None


class Behaviour:
    """What the fake node does by itself in each life, and what it was started with."""

    def __init__(self) -> None:
        self.ready_at_once = True
        self.manager = True
        self.fail_with: list[BaseException] = []
        self.configs: list[StartConfig] = []
        self.cluster: objects_pb2.Cluster | None = objects_pb2.Cluster(id="cluster-id")
        self.updates: list[control_pb2.UpdateClusterRequest] = []
        self.update_error: Refused | None = None
        self.left = 0
        self.leave_error: Refused | None = None
        self.locks = 0
        self.warnings: tuple[str, ...] = ()
        self.trouble = ""

    def leave(self) -> None:
        """The node is asked to end its tasks."""
        self.left += 1
        if self.leave_error is not None:
            raise self.leave_error


class FakeControl(Actor):
    """A Control service that knows one cluster and one node."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__()
        self.behaviour = behaviour

    @handles(CheckHealth)
    def health(self, message: CheckHealth) -> bool:
        return True

    @handles(say.GetWarnings)
    def warnings(self, message: say.GetWarnings) -> say.Standing:
        return say.Standing(self.behaviour.warnings, self.behaviour.trouble)

    @handles(say.Control)
    def control(self, message: say.Control) -> Any:
        if message.method == "ListClusters":
            clusters = [self.behaviour.cluster] if self.behaviour.cluster is not None else []
            return control_pb2.ListClustersResponse(clusters=clusters)
        if message.method == "ListNodes":
            node = objects_pb2.Node(id="node-id")
            node.manager_status.leader = True
            node.manager_status.reachability = types_pb2.RaftMemberStatus.REACHABLE
            return control_pb2.ListNodesResponse(nodes=[node, objects_pb2.Node(id="worker")])
        if message.method == "UpdateCluster":
            if self.behaviour.update_error is not None:
                raise self.behaviour.update_error
            self.behaviour.updates.append(message.request)  # type: ignore[arg-type]
            return control_pb2.UpdateClusterResponse()
        raise Refused(Code.UNIMPLEMENTED, message.method)


class FakeManager(Actor):
    """Only there so that the control API lives at its usual path."""

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__()
        self.behaviour = behaviour

    def started(self) -> None:
        self.spawn("control", FakeControl, self.behaviour)


def fake_node(behaviour: Behaviour) -> type[Actor]:
    """A node class bound to one behaviour."""

    class FakeNode(Actor):
        policy = Policy(give_up=GiveUp.NEVER)

        def __init__(self, cluster: Address, config: StartConfig) -> None:
            super().__init__()
            self.cluster = cluster
            self.is_ready = False
            behaviour.configs.append(config)

        def started(self) -> None:
            if behaviour.locks:
                behaviour.locks -= 1
                self.tell(self.cluster, NodeLocked())
                return
            if behaviour.fail_with:
                raise behaviour.fail_with.pop(0)
            if behaviour.manager:
                self.spawn("manager", FakeManager, behaviour)
            if behaviour.ready_at_once:
                self._ready()

        def _ready(self) -> None:
            self.is_ready = True
            self.tell(self.cluster, NodeReady("node-id", "swarm-manager" if behaviour.manager else "swarm-worker"))

        @handles(Become)
        def become(self, message: Become) -> None:
            if message.error is not None:
                raise message.error
            self._ready()

        @handles(GetNodeStatus)
        def status(self, message: GetNodeStatus) -> NodeStatus:
            return NodeStatus("node-id", "swarm-manager", self.is_ready, behaviour.manager)

        @handles(LeaveNode)
        def leave(self, message: LeaveNode) -> None:
            behaviour.leave()

    return FakeNode


class ClusterBench:
    """A simulator with one node on which a ClusterActor lives; ``stage`` is one that is there already."""

    def __init__(self, saved: StartConfig | None = None, stage: Stage | None = None, **settings: Any) -> None:
        self.simulator = Simulator(11)
        self.stage: Stage = stage or self.simulator.node("n1")
        self.state = MemoryState(saved)
        self.behaviour = Behaviour()
        self.settings = ClusterSettings(**{"name": "n1", "interfaces": lambda: (CARD,), **settings})
        self.cluster: Address = self.stage.at("/cluster")

    def mount(self) -> ClusterBench:
        self.cluster = self.stage.mount("cluster", ClusterActor, self.settings, self.state, fake_node(self.behaviour))
        return self

    def ask(self, message: Any, within: float = 60.0) -> Any:
        return self.simulator.ask(self.cluster, message, within)

    def init(self, **more: Any) -> Any:
        return self.ask(say.Init(init_request(**more)))

    def info(self) -> Any:
        return self.ask(say.Info())


def init_request(**more: Any) -> InitRequest:
    """The request that the command line sends, changed by ``more``."""
    return InitRequest(
        **{
            "listen_addr": "0.0.0.0:2377",
            "advertise_addr": "",
            "data_path_addr": "",
            "data_path_port": 0,
            "force_new_cluster": False,
            "spec": specs_pb2.ClusterSpec(),
            "auto_lock_managers": False,
            "availability": "",
            "default_addr_pool": (),
            "subnet_size": 24,
            **more,
        }
    )


def join_request(**more: Any) -> JoinRequest:
    """The request that the command line sends, changed by ``more``."""
    return JoinRequest(
        **{
            "listen_addr": "0.0.0.0:2377",
            "advertise_addr": "",
            "data_path_addr": "",
            "remote_addrs": ("10.0.0.1:2377",),
            "availability": "",
            "join_token": "SWMTKN-1-secret",
            **more,
        }
    )
