"""What a control request needs besides the store: who we are, what raft knows, and what only other rooms can do.

Rules owned here: everything that is not in the store reaches the control functions through one immutable `Context`,
so that they stay functions of their arguments. Whatever a write draws at random is drawn before its transaction
function exists; the function may run again and then does the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from runtime.swarm.identity import Entropy, new_id
from runtime.swarm.network_pools import IPNetwork
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types


@dataclass(frozen=True, slots=True)
class Member:
    """A raft member as this manager sees it."""

    raft_id: int
    addr: str
    leader: bool = False
    reachability: types.RaftMemberStatus.Reachability = types.RaftMemberStatus.UNKNOWN

    def status(self) -> types.ManagerStatus:
        """The form in which nodes are shown with it."""
        return types.ManagerStatus(
            raft_id=self.raft_id, addr=self.addr, leader=self.leader, reachability=self.reachability
        )


RotateCA = Callable[[objects.Cluster, specs.ClusterSpec], types.RootCA]
"""What a root CA becomes under a new spec: the decision order of a CA rotation; refuses what cannot be."""


@dataclass(frozen=True, slots=True)
class Context:
    """The surroundings of a request.

    ``members`` are the raft members by node id. ``can_remove(raft_id)`` says whether the quorum survives without one.
    ``is_dirty(task, service, node)`` tells whether a task is older than its service's spec, ``parse_constraints``
    refuses placement constraints that cannot be read, ``certificate_expiry(pem)`` gives a certificate's NotAfter in
    seconds since the epoch, or None when it cannot be read. ``rotate_ca`` and ``autolock`` are absent where the node
    cannot do them. ``host_subnets`` are this machine's: new subnets stay away.
    """

    node_id: str
    entropy: Entropy = field(repr=False)
    rng: random.Random = field(repr=False)
    is_dirty: Callable[[objects.Task, objects.Service, objects.Node | None], bool]
    parse_constraints: Callable[[Sequence[str]], object]
    members: Mapping[str, Member] = field(default_factory=dict)
    can_remove: Callable[[int], bool] = lambda raft_id: False
    certificate_expiry: Callable[[bytes], float | None] = lambda pem: None
    rotate_ca: RotateCA | None = None
    autolock: bool = False
    network_drivers: Sequence[str] = ("overlay",)
    ipam_drivers: Sequence[str] = ("default",)
    secret_drivers: Sequence[str] = ()
    host_subnets: Callable[[], Collection[IPNetwork]] = tuple

    def new_id(self) -> str:
        """A fresh identifier for a stored object."""
        return new_id(self.entropy)
