"""What a host's calls become: the same requests that the Engine API makes of HTTP."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

from runtime.protocol import cluster as say
from runtime.protocol.cluster import InitRequest, JoinRequest
from runtime.swarm.addresses import join_host_port, split_host_port
from runtime.wire.pb import control_pb2, objects_pb2, specs_pb2
from swarmlet.errors import UsageError

ROLES: Final = ("worker", "manager")
UNSPECIFIED: Final = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, never listened on
SpecChange = Callable[[specs_pb2.ClusterSpec], None]


def fixed_port(listen: str) -> str:
    """``listen`` with a free port in place of port 0: managers are found again by their address, so it has to last.

    Somebody else may take the port before the node does; the node then says that it is in use.
    """
    try:
        host, port = split_host_port(listen)
    except ValueError:
        return listen  # told by whoever resolves addresses, in the engine's words
    if port != "0":
        return listen
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, 0))
        except OSError:
            return listen  # an interface's name, or no address of this machine: likewise
        return join_host_port(host, str(probe.getsockname()[1]))


def init_request(listen: str, advertise: str, default_advertise: str, availability: str) -> InitRequest:
    """Init at ``listen``; a node that listens at one address alone advertises that one unless told otherwise."""
    listen = fixed_port(listen)
    if not advertise and not default_advertise:
        advertise = _only_address(listen)
    return InitRequest(
        listen_addr=listen,
        advertise_addr=advertise,
        data_path_addr="",
        data_path_port=0,
        force_new_cluster=False,
        spec=specs_pb2.ClusterSpec(),
        auto_lock_managers=False,
        availability=availability,
        default_addr_pool=None,
        subnet_size=0,
    )


def _only_address(listen: str) -> str:
    try:
        host, _ = split_host_port(listen)
    except ValueError:
        return ""
    return "" if host in UNSPECIFIED else listen


def join_request(listen: str, advertise: str, remotes: tuple[str, ...], token: str, availability: str) -> JoinRequest:
    """Join by ``token`` at the first of ``remotes``."""
    listen = fixed_port(listen)
    return JoinRequest(
        listen_addr=listen,
        advertise_addr=advertise or _only_address(listen),
        data_path_addr="",
        remote_addrs=remotes,
        availability=availability,
        join_token=token,
    )


def update_message(cluster: objects_pb2.Cluster, change: SpecChange | None, rotate: str) -> say.Update:
    """Update of the cluster's spec by ``change`` (which is given a copy), with the rotations that ``rotate`` names."""
    spec = specs_pb2.ClusterSpec()
    spec.CopyFrom(cluster.spec)
    if change is not None:
        change(spec)
    rotation = control_pb2.KeyRotation()
    for name in rotate.split():
        if name not in ROLES:
            raise UsageError(f"only the join tokens of {' and '.join(ROLES)} can be rotated, not {name!r}")
        setattr(rotation, f"{name}_join_token", True)
    return say.Update(cluster.meta.version.index, spec, rotation)


def token_of(cluster: objects_pb2.Cluster, role: str) -> str:
    """The join token for a role. UsageError for a role that is none."""
    if role not in ROLES:
        raise UsageError(f"a role is worker or manager, not {role!r}")
    return str(getattr(cluster.root_ca.join_tokens, role))


def out_of_sequence(error: BaseException) -> bool:
    """Whether an update was refused because the object had changed since it was read."""
    return "update out of sequence" in str(error)
