"""NodeActor is this machine's node while it is in a swarm: its identity, its agent, its manager.

ClusterActor starts it with a StartConfig and stops it to leave. It reads and writes ``state.json`` (the managers it
knows), starts the certificate's keeper, then agent and role watcher, and a manager while the role asks for one. It
tells the cluster ``NodeReady`` once the agent has a session and, on a manager, the control API answers. It decides
nothing about roles (RoleWatcherActor) and touches no certificates (CertificateActor).
"""

from __future__ import annotations

from functools import partial
from typing import Any

from actors.agent_actor import AgentActor
from actors.certificate_actor import CertificateActor
from actors.manager_actor import ManagerActor
from actors.role_watcher_actor import MANAGER, WORKER, RoleWatcherActor
from runtime.disk.state_files import Remote, StateFiles
from runtime.pki.key_file import DataKeys
from runtime.protocol.agent import (
    AgentSetup,
    CertificateRenewed,
    DropTasks,
    Managers,
    ManagersSeen,
    RenewSession,
    RootSeen,
    SessionDown,
    SessionUp,
)
from runtime.protocol.certificate import CertificateSetup, CertificateTrouble, DropDataKeys, GetDataKeys, Identified
from runtime.protocol.cluster import CertificateExpired, NodeRemoved
from runtime.protocol.manager import EndManager, ManagerReady, ManagerRemoved, ManagerSetup
from runtime.protocol.node import (
    GetNodeStatus,
    LeaveNode,
    ManagerEnded,
    ManagersKnown,
    NodeChanged,
    NodeIdentified,
    NodeLocked,
    NodeMended,
    NodeReady,
    NodeStatus,
    NodeTrouble,
    RenewCertificate,
    RoleObserved,
    SessionOpened,
    StartConfig,
    StartManager,
    StopManager,
)
from runtime.stage import Actor, ActorDown, ActorUp, Address, Answer, Policy, handles

KEYS_WAIT = 60.0
LEAVE_WAIT = 15.0
END_WAIT = 30.0
HAND_OVER_WAIT = 6.0


class NodeActor(Actor):
    """``cluster`` hears NodeReady."""

    policy = Policy(own_thread=True)

    def __init__(self, cluster: Address, config: StartConfig) -> None:
        super().__init__()
        self.cluster = cluster
        self.config = config
        self.identity: Identified | None = None
        self.role = ""
        self.remotes: tuple[tuple[str, str], ...] = ()
        self.agent: Address | None = None
        self.manager: Address | None = None
        self._certificate: Address | None = None
        self._roles: Address | None = None
        self._files: StateFiles | None = None
        self._has_session = False
        self._manager_ready = False
        self._told_ready = False
        self._wanted: NodeChanged | None = None
        self._renewal: RenewCertificate | None = None
        self._root_seen: RootSeen | None = None
        self._removed = False
        self._let_go = False
        self._comes_back = False
        self._manager_wanted = False
        self._trouble: BaseException | None = None

    def started(self) -> None:
        self._files = StateFiles(self.world.disk.files)
        config = self.config
        known = tuple((remote.node_id, remote.addr) for remote in self._files.remotes())
        self._comes_back = bool(known)
        if config.force_new_cluster:
            self.remotes = ()
        elif config.join_addr and not known:
            self.remotes = (("", config.join_addr),)
        else:  # a join begins without a state: an earlier life of this node has had a session
            self.remotes = known
        self.tell(self.cluster, ManagersKnown(self.remotes))
        setup = CertificateSetup(
            join_addr=config.join_addr,
            join_token=config.join_token,
            remotes=self.remotes,
            availability=config.availability,
            lock=config.lock,
            force_new_cluster=bool(config.force_new_cluster),
            admitted=config.admitted,
        )
        self._certificate = self.spawn("certificate", CertificateActor, self.address, setup)
        self.watch(self._certificate)

    def snapshot(self) -> dict[str, Any]:
        return {
            "node": self.identity.node_id if self.identity is not None else "",
            "role": self.role,
            "session": self._has_session,
            "manager ready": self._manager_ready,
            "managers known": len(self.remotes),
        }

    @property
    def _part(self) -> str:
        """As what this node takes part: whom the other managers let go of is a worker, before its certificate is."""
        return WORKER if self._let_go else self.role

    def _tell_part(self) -> None:
        if self.identity is not None:
            self.tell(self.cluster, NodeIdentified(self.identity.node_id, self._part))

    # Identity

    @handles(Identified)
    def identified(self, message: Identified) -> None:
        """The certificate says who this node is: agent and role watcher can start."""
        first, self.identity = self.identity is None, message
        self.role = message.role
        self.tell(self.cluster, NodeIdentified(message.node_id, message.role))
        if not first:
            return
        setup = AgentSetup(
            node_id=message.node_id,
            hostname=str(self.world.settings.get("hostname", "")),
            credentials=message.credentials,
            availability=self.config.availability,
            remote_exec=bool(self.world.settings.get("remote_exec", True)),
        )
        self.agent = self.spawn("agent", AgentActor, self.address, setup)
        self.watch(self.agent)
        self._roles = self.spawn("roles", RoleWatcherActor, self.address, message.role)
        self.watch(self._roles)

    @handles(CertificateRenewed)
    def certificate_renewed(self, message: CertificateRenewed) -> None:
        """The certificate was renewed, perhaps with another role."""
        changed, self.role = message.role != self.role, message.role
        if message.settled:
            self._renewal = None
        if changed:
            self._tell_part()
        if self._roles is not None:
            self.tell(self._roles, RoleObserved(message.role))
        if self.agent is not None:
            self.tell(self.agent, message)

    @handles(CertificateTrouble)
    def certificate_trouble(self, message: CertificateTrouble) -> None:
        """The certificate does not hold, or holds again: the node goes on, and the operator hears of it."""
        if message.text:
            self._tell_trouble(CertificateExpired(message.text))
            return
        if isinstance(self._trouble, CertificateExpired):
            self._trouble = None
        self.tell(self.cluster, NodeMended())

    def _tell_trouble(self, error: BaseException) -> None:
        """Said once, and again to a new life of the cluster, which asks."""
        self._trouble = error
        self.tell(self.cluster, NodeTrouble(error))

    @handles(NodeLocked)
    def locked(self, message: NodeLocked) -> None:
        """Nothing can be read: this is no failure, and no matter for another try."""
        self.tell(self.cluster, message)

    @handles(RenewCertificate)
    def renew_certificate(self, message: RenewCertificate) -> None:
        """Kept until it is done: nobody asks a second time, and a new life of the keeper knows of no request."""
        role = message.expected_role or (self._renewal.expected_role if self._renewal is not None else "")
        self._renewal = RenewCertificate(role)
        if self._certificate is not None:
            self.tell(self._certificate, message)

    @handles(RootSeen)
    def root_seen(self, message: RootSeen) -> None:
        """What a session named last; told again as a renewal is."""
        self._root_seen = message
        if self._certificate is not None:
            self.tell(self._certificate, message)

    def _tell_wishes(self, keeper: Address) -> None:
        for wish in (self._root_seen, self._renewal):
            if wish is not None:
                self.tell(keeper, wish)

    @handles(RenewSession)
    def to_agent(self, message: RenewSession) -> None:
        """What concerns the session."""
        if self.agent is not None:
            self.tell(self.agent, message)

    @handles(NodeChanged)
    def node_changed(self, message: NodeChanged) -> None:
        """What a session said of this node."""
        self._wanted = message
        if self._roles is not None:
            self.tell(self._roles, message)

    # Managers and the session

    @handles(ManagersSeen)
    def managers_seen(self, message: ManagersSeen) -> None:
        """A session listed the managers: they are kept for the next start."""
        seen = tuple((node_id, addr) for node_id, addr, _weight in message.remotes)
        if not seen or seen == self.remotes:
            return
        self.remotes = seen
        assert self._files is not None
        self._files.save_remotes([Remote(node_id, addr) for node_id, addr in seen])
        self.tell(self.cluster, ManagersKnown(seen))
        self._tell_managers()

    def _tell_managers(self) -> None:
        for each in (self.agent, self._certificate):
            if each is not None:
                self.tell(each, self._managers())

    def _managers(self) -> Managers:
        return Managers(f"unix:{self._control_socket}" if self._manager_ready else None, self.remotes)

    @handles(ActorUp)
    def up(self, message: ActorUp) -> None:
        """A new life of the agent, or of the certificate's keeper, knows no managers yet; one of the role watcher knows
        the role of the start only; one of the keeper nothing of what it was asked for."""
        for each in (self.agent, self._certificate):
            if each is not None and each.path == message.path:
                self.tell(each, self._managers())
        if self._certificate is not None and self._certificate.path == message.path:
            self._tell_wishes(self._certificate)
        if self._roles is not None and self._roles.path == message.path:
            self.tell(self._roles, RoleObserved(self.role))
            if self._wanted is not None:
                self.tell(self._roles, NodeChanged(self._wanted.desired_role))

    @property
    def _control_socket(self) -> str:
        return str(self.world.settings.get("control_socket", ""))

    @handles(SessionUp)
    def session_up(self, message: SessionUp) -> None:
        """A manager has registered this node."""
        self._has_session = True
        if isinstance(self._trouble, NodeRemoved):
            self._trouble = None
            self.tell(self.cluster, NodeMended())
        if self._roles is not None:
            self.tell(self._roles, SessionOpened())
        self._tell_ready()

    @handles(SessionDown)
    def session_down(self, message: SessionDown) -> None:
        """The agent is looking for a manager again; that this node was removed is said once."""
        self._has_session = False
        if message.removed and self.identity is not None and not isinstance(self._trouble, NodeRemoved):
            self._tell_trouble(NodeRemoved.of(self.identity.node_id, manager=self.role == MANAGER))

    def _tell_ready(self) -> None:
        identity = self.identity
        if self._told_ready or identity is None or not self._has_session:
            return
        if self.role == MANAGER and not self._manager_ready:
            return
        self._told_ready = True
        self._trouble = None
        self.tell(self.cluster, NodeReady(identity.node_id, self.role))

    # Manager

    @handles(StartManager)
    def start_manager(self, message: StartManager) -> None:
        """The role asks for a manager; a role watcher in a new life asks again."""
        self._manager_wanted = True
        if self.manager is None:
            assert self._certificate is not None
            self.ask(self._certificate, GetDataKeys(), self._start_manager, KEYS_WAIT)

    def _start_manager(self, answer: Answer) -> None:
        keys: DataKeys = answer.get()
        if self.manager is not None or not self._manager_wanted:
            return  # asked for twice before the keys came, or no longer
        identity, config = self.identity, self.config
        assert identity is not None
        setup = ManagerSetup(
            node_id=identity.node_id,
            cluster_id=identity.cluster_id,
            credentials=identity.credentials,
            root=identity.root,
            data_keys=keys.in_order,
            listen_addr=config.listen_addr,
            advertise_addr=config.advertise_addr,
            control_socket=self._control_socket,
            availability=config.availability,
            heartbeat_tick=config.heartbeat_tick,
            election_tick=config.election_tick,
            address_pool=config.default_address_pool or (),
            subnet_size=config.subnet_size,
            vxlan_port=config.data_path_port,
            force_new_cluster=config.force_new_cluster,
            certificate=self._certificate,
            join_addrs=tuple(addr for node_id, addr in self.remotes if node_id != identity.node_id),
        )
        self.manager = self.spawn("manager", ManagerActor, self.address, setup)
        self.watch(self.manager)
        if self._let_go:
            self._let_go = False
            self._tell_part()

    @handles(StopManager)
    def stop_manager(self, message: StopManager) -> None:
        """The role asks for none: the manager hands over, forgets its log and ends."""
        self._manager_wanted = False
        if self.manager is not None:
            self.ask(self.manager, EndManager(discard=True), lambda answer: self._end_removed(), END_WAIT)
        else:
            self._tell_ended(False)  # it never came up, or failed for good

    @handles(ManagerRemoved)
    def manager_removed(self, message: ManagerRemoved) -> None:
        """The other managers removed this one."""
        self._end_removed()

    def _end_removed(self) -> None:
        self._removed = self._let_go = True
        self._tell_part()
        if self.manager is not None:
            self.stop(self.manager)

    def _manager_gone(self) -> None:
        """The watcher of roles hears that the manager ended. One that was removed has no log any more: what sealed it
        is forgotten first."""
        removed, self._removed = self._removed, False
        if removed and self._certificate is not None:
            self.ask(self._certificate, DropDataKeys(), lambda answer: self._tell_ended(True), KEYS_WAIT)
        else:
            self._tell_ended(False)

    def _tell_ended(self, removed: bool) -> None:
        if self._roles is not None:
            self.tell(self._roles, ManagerEnded(removed))

    @handles(ManagerReady)
    def manager_ready(self, message: ManagerReady) -> None:
        """This node's own manager can be asked: the agent prefers it. The cluster's root key is in the log by now."""
        assert self._files is not None
        self._files.drop_founding_key()
        self._manager_ready = True
        self._tell_managers()
        self._tell_ready()

    @handles(ActorDown)
    def down(self, message: ActorDown) -> None:
        """The manager failed or ended, or there is no certificate to be had."""
        if self.manager is not None and message.path == self.manager.path:
            if message.error is not None and not self._told_ready:
                if self._is_first_start:
                    self.fail(message.error)  # whoever asked for the swarm is to hear of it
                self._tell_trouble(message.error)
            self._manager_ready = False
            self._tell_managers()
            if message.final:
                self.manager = None
                if message.error is not None:
                    self._tell_trouble(message.error)
                else:
                    self._manager_gone()
        elif self.identity is None and message.error is not None and message.path == self.below("certificate").path:
            self.fail(message.error)

    @property
    def _is_first_start(self) -> bool:
        """Whether an init or a join asked for this start. Later ones keep the agent, whatever the manager does."""
        config, identity = self.config, self.identity
        asked = bool((config.join_addr and not self._comes_back) or config.force_new_cluster)
        return asked or (identity is not None and identity.root.signer is not None)

    # Questions

    @handles(LeaveNode)
    def leave(self, message: LeaveNode) -> None:
        """Ends this node's tasks, and lets another manager lead; answered when both is done, or has come to nothing."""
        if self.agent is None:
            return
        reply, manager = self.defer(), self.manager
        open_steps, tasks_gone = {"tasks", "leadership"} if manager is not None else {"tasks"}, False

        def over(step: str, answer: Answer) -> None:
            nonlocal tasks_gone
            open_steps.discard(step)
            tasks_gone = tasks_gone or (step == "tasks" and answer.error is None)
            if not open_steps:
                reply.set(tasks_gone)

        self.ask(self.agent, DropTasks(), partial(over, "tasks"), LEAVE_WAIT)
        if manager is not None:
            self.ask(manager, EndManager(discard=False), partial(over, "leadership"), HAND_OVER_WAIT)

    @handles(GetNodeStatus)
    def status(self, message: GetNodeStatus) -> NodeStatus:
        """What this node says of itself."""
        return NodeStatus(
            node_id=self.identity.node_id if self.identity is not None else "",
            role=self._part,
            ready=self._told_ready,
            manager=self.manager is not None,
            remotes=self.remotes,
            trouble=self._trouble,
        )
