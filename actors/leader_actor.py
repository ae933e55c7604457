"""LeaderActor is the subtree that runs only while this manager leads: orchestrators, scheduler, dispatcher, CA.

ManagerActor starts it when this node leads and has applied everything, and stops it when that ends. Its first act is
one transaction that makes the cluster object and this node's own entry where they are missing; its parts start after
that, independent of each other, and each is restarted alone.
"""

from __future__ import annotations

from actors.allocator_actor import AllocatorActor
from actors.certificate_authority_actor import CertificateAuthorityActor
from actors.constraint_enforcer_actor import ConstraintEnforcerActor
from actors.dispatcher_actor import DispatcherActor
from actors.explain_actor import ExplainActor
from actors.global_actor import GlobalActor
from actors.job_schedule_actor import JobScheduleActor
from actors.jobs_actor import JobsActor
from actors.key_manager_actor import KeyManagerActor
from actors.log_broker_actor import LogBrokerActor
from actors.node_reaper_actor import NodeReaperActor
from actors.raft_membership_actor import RaftMembershipActor
from actors.replicated_actor import ReplicatedActor
from actors.resource_allocator_actor import ResourceAllocatorActor
from actors.role_manager_actor import RoleManagerActor
from actors.root_rotation_actor import RootRotationActor
from actors.scheduler_actor import SchedulerActor
from actors.task_access_broker_actor import TaskAccessBrokerActor
from actors.task_reaper_actor import TaskReaperActor
from runtime.pki.root import describe_root
from runtime.protocol.manager import LeaderContext, LeaderReady, ManagerSetup, MembersChanged
from runtime.protocol.store import Write
from runtime.stage import Actor, ActorUp, Address, Answer, GiveUp, Policy, handles
from runtime.store.view import Published
from runtime.swarm.bootstrap_keys import make_keys
from runtime.swarm.founding import first_cluster, first_networks, found_cluster, with_join_tokens
from runtime.wire.pb import objects_pb2 as objects

PARTS: tuple[tuple[str, type[Actor]], ...] = (
    ("key_manager", KeyManagerActor),
    ("dispatcher", DispatcherActor),
    ("log_broker", LogBrokerActor),
    ("task_access", TaskAccessBrokerActor),
    ("ca", CertificateAuthorityActor),
    ("root_rotation", RootRotationActor),
    ("membership", RaftMembershipActor),
    ("role_manager", RoleManagerActor),
    ("allocator", AllocatorActor),
    ("resource_allocator", ResourceAllocatorActor),
    ("scheduler", SchedulerActor),
    ("constraint_enforcer", ConstraintEnforcerActor),
    ("task_reaper", TaskReaperActor),
    ("node_reaper", NodeReaperActor),
    ("replicated", ReplicatedActor),
    ("global", GlobalActor),
    ("jobs", JobsActor),
    ("job_schedule", JobScheduleActor),
)
ASKED_OF_WAITS = ("allocator", "scheduler", "dispatcher", "replicated", "global", "jobs", "job_schedule", "node_reaper")
TOLD_OF_MEMBERS = ("dispatcher", "role_manager")
FOUNDING_WAIT = 20.0


class LeaderActor(Actor):
    """``manager`` hears LeaderReady; ``store`` and ``published`` are the manager's."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(
        self, manager: Address, setup: ManagerSetup, store: Address, published: Published, raft: Address
    ) -> None:
        super().__init__()
        self.manager = manager
        self.raft = raft
        self.setup = setup
        self.store = store
        self.published = published
        self.members = MembersChanged({})
        self._told: tuple[Address, ...] = ()

    def started(self) -> None:
        setup = self.setup
        networks = first_networks(self.world.entropy, self.world.host_subnets())
        founding = found_cluster(self._first_cluster(), setup.node_id, setup.availability, networks)
        self.ask(self.store, Write(founding), self._founded, FOUNDING_WAIT)

    def _first_cluster(self) -> objects.Cluster | None:
        setup = self.setup
        if setup.root.signer is None:
            return None
        cluster = first_cluster(
            setup.cluster_id,
            with_join_tokens(describe_root(setup.root), self.world.entropy),
            setup.heartbeat_tick,
            setup.election_tick,
            setup.address_pool,
            setup.subnet_size,
            setup.vxlan_port,
        )
        make_keys(cluster, self.world.entropy)
        return cluster

    def _founded(self, answer: Answer) -> None:
        answer.get()
        setup = self.setup
        context = LeaderContext(
            setup.node_id,
            setup.cluster_id,
            self.store,
            self.published,
            setup.credentials,
            raft=self.raft,
            manager=self.manager,
        )
        for name, part in PARTS:
            self.spawn(name, part, context)
        asked = tuple(self.below(name) for name in ASKED_OF_WAITS)
        self.spawn("explain", ExplainActor, context, asked)
        children = (self.child(name) for name in TOLD_OF_MEMBERS)
        self._told = tuple(child for child in children if child is not None)
        for part_address in self._told:
            self.watch(part_address)
        self.tell(self.manager, LeaderReady())

    @handles(MembersChanged)
    def members_changed(self, message: MembersChanged) -> None:
        """Who the managers are: the dispatcher tells all nodes, the role manager compares."""
        self.members = message
        for part_address in self._told:
            self.tell(part_address, message)

    @handles(ActorUp)
    def up(self, message: ActorUp) -> None:
        """A new life of such a part knows no managers yet."""
        for part_address in self._told:
            if part_address.path == message.path:
                self.tell(part_address, self.members)
