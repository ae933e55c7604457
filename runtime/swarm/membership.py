"""Who may be a member of the consensus group: SwarmKit's rules for joining and leaving it.

Pure: members are seen through three fields, randomness is handed in. A rule that SwarmKit does not have: a certificate
alone admits no manager, its node must be wanted as one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Container, Iterable
from typing import Final, Protocol

from runtime.errors import Code, Refused
from runtime.swarm.addresses import join_host_port, split_host_port
from runtime.swarm.ports import View
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

NOT_MEMBER: Final = "raft: node is not yet part of a raft cluster"
LOST_LEADERSHIP: Final = "raft: failed to process the request: node lost leader status"
CANNOT_REMOVE: Final = "raft: member cannot be removed, because removing it may result in loss of quorum"
UNKNOWN_MEMBER: Final = "raft: member unknown"
MEMBER_REMOVED: Final = "raft: member was removed from the cluster"
"""SwarmKit compares this text: whoever hears it under NOT_FOUND knows that it is no member any more."""
NO_LEADER: Final = "raft: no elected cluster leader"
NO_QUORUM: Final = (
    "The swarm does not have a leader. It's possible that too few managers are online. "
    "Make sure more than half of the managers are online."
)
NO_LEADER_MAX: Final = 10.0
"""Seconds without a leader after which too few managers may be left."""
DEMOTED: Final = "is not to be a manager: it was demoted"
OUTCOME_UNKNOWN: Final = "lost leadership, outcome unknown"
RAFT_ID_MAX: Final = 2**63 - 1


class Reachable(Protocol):
    """A member as far as a quorum is counted."""

    @property
    def raft_id(self) -> int: ...

    @property
    def reachable(self) -> bool: ...

    @property
    def votes(self) -> bool: ...


def joining_address(addr: str, remote_addr: str) -> str:
    """Where a joining manager is to be reached: what it says, with the caller's host where it names none.

    ``Refused(INVALID_ARGUMENT)`` for what is not ``host:port``.
    """
    try:
        host, port = split_host_port(addr)
        number = int(port)
    except ValueError:
        raise Refused(Code.INVALID_ARGUMENT, f"invalid address {addr} in raft join request") from None
    if not 0 < number < 65536:
        raise Refused(Code.INVALID_ARGUMENT, f"invalid address {addr} in raft join request")
    if not is_unspecified(host):
        return addr
    try:
        caller = split_host_port(remote_addr)[0]
    except ValueError:
        caller = ""
    if is_unspecified(caller):
        raise Refused(Code.INVALID_ARGUMENT, f"{addr} names no host, and where the request came from is unknown")
    return join_host_port(caller, port)


def check_wanted(view: View, node_id: str) -> None:
    """Refuses (FAILED_PRECONDITION) to take in a manager whose node is to be none: a node that was demoted holds a
    manager's certificate until it renews it, and one that was removed until that runs out."""
    node = view.get(objects.Node, node_id)
    if node is None:
        raise Refused(Code.FAILED_PRECONDITION, f"raft: node {node_id} is not part of the swarm")
    if node.spec.desired_role != types.MANAGER:
        raise Refused(Code.FAILED_PRECONDITION, f"raft: node {node_id} {DEMOTED}")


def was_demoted(refused: Refused) -> bool:
    """Whether a manager that asks to be taken in hears that its node was demoted: its certificate has yet to say so."""
    return refused.code is Code.FAILED_PRECONDITION and refused.text.endswith(DEMOTED)


def check_caller(view: View, node_id: str) -> None:
    """Refuses whoever cannot be a member and is not to be one. One that is being demoted may be a member still (its
    observed role says so), and is to be found where it is as long as the others need it."""
    node = view.get(objects.Node, node_id)
    if node is None or node.role != types.MANAGER:
        check_wanted(view, node_id)


def is_unspecified(host: str) -> bool:
    """True for no host, ``0.0.0.0`` and ``::``."""
    try:
        return not host or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def survives_without(members: Iterable[Reachable], raft_id: int) -> bool:
    """Whether the voters who would be left have a majority that is reachable (SwarmKit's CanRemoveMember)."""
    left = [each for each in members if each.votes and each.raft_id != raft_id]
    return sum(each.reachable for each in left) >= len(left) // 2 + 1


def draw_raft_id(entropy: Callable[[int], bytes], taken: Container[int]) -> int:
    """A raft id that nobody has nor ever had: 63 random bits, not 0."""
    while True:
        drawn = int.from_bytes(entropy(8), "big") & RAFT_ID_MAX
        if drawn and drawn not in taken:
            return drawn
