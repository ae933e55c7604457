"""ManagerActor is a manager: its servers, its consensus, its store, its control API, and the leader's subtree.

NodeActor starts it while the node's role is manager. It starts the parts in their order (first the servers, so that
the real address is known; then store and consensus), starts and stops the leader's subtree with the leadership, and
tells the node once the control API answers: when this manager leads, or when another one does, this one has a vote and
its store everything that was committed by then, so that a manager that was started again never shows less than it did
before. Store and consensus live and fail together, with this actor: what they hold is read from disk again. A second
failed disk within a minute keeps it down.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from actors.backup_actor import BackupActor
from actors.control_actor import CONTROL_API, ControlActor
from actors.disk_space_actor import DiskSpaceActor
from actors.leader_actor import LeaderActor
from actors.manager_keys_actor import ManagerKeysActor
from actors.proxy_actor import ProxyActor
from actors.raft_actor import RaftActor
from actors.serving import Serving, serves
from actors.store_actor import StoreActor
from actors.watch_actor import WatchActor
from actors.wire_actor import WireActor
from runtime.disk.errors import CannotUnseal, DiskFailed, LogDamaged, NothingToForce
from runtime.protocol.certificate import GetDataKeys
from runtime.protocol.cluster import ReadBarrier
from runtime.protocol.manager import (
    AskPublished,
    AuthorityTrouble,
    EndManager,
    LeaderContext,
    LeaderIs,
    LeaderReady,
    Listening,
    ManagerReady,
    ManagerRemoved,
    ManagerSetup,
    MembersChanged,
    Serve,
)
from runtime.protocol.raft import DiscardLog, RaftSetup, RaftStatus, RemovedFromRaft, TransferLeadership
from runtime.protocol.store import AwaitView
from runtime.stage import ActorDown, ActorUp, Address, Answer, Policy, handles
from runtime.store.view import Published, View
from runtime.swarm.addresses import join_host_port, split_host_port
from runtime.wire.pb import health_pb2, objects_pb2
from runtime.wire.port import Call

RAFT = "Raft"
CLUSTER_WAIT = 60.0
HAND_OVER_WAIT = 5.0
DISCARD_WAIT = 20.0
CATCH_UP_WAIT = 30.0
CATCH_UP_PAUSE = 0.5


class _CatchUp:
    """Time to ask again how far this manager's store must have come."""


class ManagerActor(Serving):
    """``node`` is who it works for."""

    policy = Policy(down_after_two=(DiskFailed, LogDamaged, CannotUnseal, NothingToForce))

    def __init__(self, node: Address, setup: ManagerSetup) -> None:
        super().__init__()
        self.node = node
        self.setup = setup
        self.published = Published()
        self.listen_addr = ""
        self.status: RaftStatus | None = None
        self.serving = False
        self._has_cluster = False
        self._catching_up = False
        self._leader_ready = False
        self._leader_told = LeaderIs("", False)
        self._store: Address | None = None
        self._proxy: Address | None = None
        self._control: Address | None = None

    def started(self) -> None:
        certificate = self.setup.certificate
        if certificate is None:
            self._start_servers()
        else:
            self.ask(certificate, GetDataKeys(), self._keys_known)

    def _keys_known(self, answer: Answer) -> None:
        """They may have been changed since this manager was set up, in an earlier life."""
        self.setup = replace(self.setup, data_keys=answer.get().in_order)
        self._start_servers()

    def _start_servers(self) -> None:
        self.watch(self.spawn("wire", WireActor, self.address, self.setup, self.published))

    def snapshot(self) -> dict[str, Any]:
        status = self.status
        return {
            "listening": self.listen_addr,
            "leading": status.leading if status is not None else False,
            "serving": self.serving,
        }

    @handles(AskPublished)
    def ask_published(self, message: AskPublished) -> Published:
        """The same place for all of this life's views."""
        return self.published

    @handles(Listening)
    def listening(self, message: Listening) -> None:
        """The servers answer; at first that starts everything else."""
        self.listen_addr = message.addr
        if self._store is not None:
            return
        setup = self.setup
        raft_setup = RaftSetup(
            setup.node_id,
            advertised(setup.advertise_addr, message.addr),
            setup.data_keys,
            heartbeat_tick=setup.heartbeat_tick,
            election_tick=setup.election_tick,
            force_new_cluster=setup.force_new_cluster,
            join_addrs=setup.join_addrs,
            founds=setup.root.signer is not None,
            credentials=setup.credentials,
        )
        fails_with_us = Policy(escalates=(Exception,))
        self._store = self.spawn("store", StoreActor, self.below("raft"), self.published, policy=fails_with_us)
        self.spawn("raft", RaftActor, raft_setup, self._store, self.published)
        self._proxy = self.spawn("proxy", ProxyActor, self.below("leader"), setup.credentials)
        self._control = self.spawn(
            "control", ControlActor, setup.node_id, self._store, self.published, setup.credentials, self._proxy,
            self.below("raft"),
        )  # fmt: skip
        self.watch(self._proxy)
        self.watch(self._control)
        self.spawn("watch", WatchActor, self._store, self.published)
        self.spawn("space", DiskSpaceActor, self._store, self._control)
        self.spawn("backup", BackupActor, self.below("raft"), setup.node_id, setup.cluster_id)
        if setup.certificate is not None:
            context = LeaderContext(
                setup.node_id, setup.cluster_id, self._store, self.published, setup.credentials, raft=self.below("raft")
            )
            self.spawn("keys", ManagerKeysActor, context, setup.certificate)
        self._await_cluster()

    def _await_cluster(self) -> None:
        assert self._store is not None
        has_cluster = AwaitView(_has_cluster, CLUSTER_WAIT)
        self.ask(self._store, has_cluster, self._cluster_seen, CLUSTER_WAIT)

    def _cluster_seen(self, answer: Answer) -> None:
        if answer.error is None:
            self._has_cluster = True
            self._serve_when_ready()
        else:
            self._await_cluster()

    @handles(RaftStatus)
    def raft_status(self, message: RaftStatus) -> None:
        """Leadership or membership changed."""
        self.status = message
        self._leader_ready = self._leader_ready and message.leading
        self._tell_control(MembersChanged(message.members))
        self._tell_leader()
        self._serve_when_ready()
        leader = self.child("leader")
        if message.leading:
            if leader is None:
                self._start_leader()
            else:
                self.tell(leader, MembersChanged(message.members))
        elif leader is not None:
            self.stop(leader)

    def _tell_leader(self) -> None:
        """Who serves what only a leader does: this manager once its subtree runs, or the one that leads."""
        status = self.status
        assert status is not None
        other = status.members.get(status.leader) if status.leader != status.raft_id else None
        leader = LeaderIs(other.addr if other is not None else "", self._leader_ready)
        if leader != self._leader_told:
            self._leader_told = leader
            self._tell_parts(leader)

    def _tell_parts(self, leader: LeaderIs) -> None:
        for part in (self._proxy, self._control):
            if part is not None:
                self.tell(part, leader)

    def _start_leader(self) -> None:
        assert self._store is not None
        assert self.status is not None
        leader = self.spawn(
            "leader", LeaderActor, self.address, self.setup, self._store, self.published, self.below("raft")
        )
        self.watch(leader)
        self.tell(leader, MembersChanged(self.status.members))

    @handles(ActorDown)
    def down(self, message: ActorDown) -> None:
        """The servers cannot even start: nothing else can. Or: the subtree of an earlier leadership is gone, and this
        node leads again already."""
        if message.path == self.below("wire").path and self._store is None and message.error is not None:
            self.fail(message.error)
        ended = message.final and message.path == self.below("leader").path
        if ended and self.status is not None and self.status.leading and self.child("leader") is None:
            self._start_leader()

    @handles(AuthorityTrouble)
    def authority_trouble(self, message: AuthorityTrouble) -> None:
        """What a part of the leader has to say to operators."""
        self._tell_control(message)

    @handles(LeaderReady)
    def leader_ready(self, message: LeaderReady) -> None:
        """The cluster object is there: the control API may answer."""
        # The root's private key is in the replicated store from here on.
        self.setup = replace(self.setup, root=replace(self.setup.root, signer=None))
        if self.status is not None and self.status.leading:
            self._leader_ready = True
            self._tell_leader()
            self._serve_when_ready()

    def _serve_when_ready(self) -> None:
        status = self.status
        if self.serving or status is None:
            return
        own = status.members.get(status.raft_id)
        led = own is not None and own.votes and status.leader not in (0, status.raft_id)
        follows = led and self._has_cluster
        if self._leader_ready:
            self._begin_to_serve()
        elif follows and not self._catching_up and self._control is not None:
            self._catching_up = True
            self.ask(self._control, ReadBarrier(), self._caught_up, CATCH_UP_WAIT)

    def _caught_up(self, answer: Answer) -> None:
        if answer.error is not None:
            self.after(CATCH_UP_PAUSE, _CatchUp())
        elif not self.serving:
            self._begin_to_serve()

    @handles(_CatchUp)
    def catch_up(self, message: _CatchUp) -> None:
        """The leader was lost meanwhile, or the control API failed."""
        self._catching_up = False
        self._serve_when_ready()

    def _begin_to_serve(self) -> None:
        self.serving = True
        self._tell_control(Serve(True))
        self.tell(self.node, ManagerReady(self.listen_addr))

    # Its end

    @handles(RemovedFromRaft)
    def removed(self, message: RemovedFromRaft) -> None:
        """The group goes on without this manager."""
        self.tell(self.node, ManagerRemoved())

    @handles(EndManager)
    def end(self, message: EndManager) -> None:
        """Another manager is to lead; then, if that is wanted, nothing is left of the log."""
        if self._store is None:
            return
        reply, raft = self.defer(), self.below("raft")

        def handed_over(answer: Answer) -> None:
            if message.discard:
                self.ask(raft, DiscardLog(), lambda done: reply.set(), DISCARD_WAIT)
            else:
                reply.set()

        self.ask(raft, TransferLeadership(), handed_over, HAND_OVER_WAIT)

    @handles(ActorUp)
    def up(self, message: ActorUp) -> None:
        """A new life of the control API, or of the leader's subtree, knows nothing yet."""
        if self._control is not None and message.path == self._control.path and self.status is not None:
            self._tell_control(MembersChanged(self.status.members))
            self._tell_control(Serve(self.serving))
            self.tell(self._control, self._leader_told)
        if self._proxy is not None and message.path == self._proxy.path:
            self.tell(self._proxy, self._leader_told)
        leader = self.child("leader")
        if leader is not None and message.path == leader.path and self.status is not None:
            self.tell(leader, MembersChanged(self.status.members))

    def _tell_control(self, message: Any) -> None:
        if self._control is not None:
            self.tell(self._control, message)

    @serves("Health", "Check")
    def health(self, call: Call) -> health_pb2.HealthCheckResponse:
        """What of this manager can be used."""
        kinds = health_pb2.HealthCheckResponse
        known = {RAFT: self._store is not None, CONTROL_API: self.serving, "": True}
        service = call.request.service  # type: ignore[attr-defined]
        if service not in known:
            return kinds(status=kinds.UNKNOWN)
        return kinds(status=kinds.SERVING if known[service] else kinds.NOT_SERVING)


def _has_cluster(view: View) -> bool:
    return next(iter(view.all(objects_pb2.Cluster)), None) is not None


def advertised(advertise_addr: str, listening: str) -> str:
    """Where others reach this manager: the advertised host, with the real port where none was fixed. Without one the
    unspecified address, which a peer resolves to where it hears from us (as SwarmKit)."""
    real_port = split_host_port(listening)[1]
    if not advertise_addr:
        return join_host_port("0.0.0.0", real_port)  # noqa: S104 - never listened on
    host, port = split_host_port(advertise_addr)
    return join_host_port(host, real_port if port == "0" else port)
