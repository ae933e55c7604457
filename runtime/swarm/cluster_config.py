"""The cluster layer's pure part: what an init or a join request means, and which spec a new cluster gets.

Rules kept here: the order of the checks of an init; what a request leaves out takes the default, what it says wins;
an update, by contrast, is taken from scratch (that is the Engine API's conversion).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runtime.errors import Code, Refused
from runtime.swarm import addresses
from runtime.swarm.addresses import Interface, IPNetwork
from runtime.wire.pb import specs_pb2

AVAILABILITIES = ("active", "pause", "drain")
DEFAULT_HISTORY_LIMIT = 10


@dataclass(frozen=True, slots=True)
class Addresses:
    """What an init resolves to: ``listen`` and ``advertise`` as host:port, ``local`` and ``data_path`` as hosts."""

    listen: str
    advertise: str
    local: str
    data_path: str
    subnet_size: int
    data_path_port: int


def resolve_init(
    listen_addr: str,
    advertise_addr: str,
    data_path_addr: str,
    pools: Sequence[str],
    subnet_size: int,
    data_path_port: int,
    default_advertise: str,
    interfaces: Sequence[Interface],
    managed: Sequence[IPNetwork] = (),
) -> Addresses:
    """All addresses of an init, checked in the engine's order; raises Refused with the engine's text."""
    listen_text = parse_listen(listen_addr)
    listen_host, listen_port = addresses.resolve_listen(listen_text, interfaces)
    advertise = addresses.resolve_advertise(advertise_addr, listen_port, default_advertise, interfaces, managed)
    data_path = addresses.resolve_data_path(data_path_addr, interfaces)
    local = addresses.local_address(listen_host, advertise[0], interfaces, managed)
    return Addresses(
        listen=addresses.join_host_port(listen_host, listen_port),
        advertise=addresses.join_host_port(*advertise),
        local=local,
        data_path=data_path,
        subnet_size=addresses.check_address_pool(pools, subnet_size),
        data_path_port=addresses.check_data_path_port(data_path_port),
    )


def parse_listen(text: str) -> str:
    """A listen address with its defaults; an empty one is refused in the engine's words."""
    try:
        return addresses.parse_tcp_address(text)
    except Refused as refused:
        raise addresses.config_error(f'invalid ListenAddr "{text}": {refused.text}') from None


def resolve_join_listen(text: str, interfaces: Sequence[Interface]) -> str:
    """The listen address of a node that joins; refused before anything is asked of the swarm."""
    return addresses.join_host_port(*addresses.resolve_listen(parse_listen(text), interfaces))


def parse_remote(remotes: Sequence[str]) -> str:
    """The manager to join by: only the first one counts."""
    if not remotes:
        raise addresses.config_error("at least 1 RemoteAddr is required to join")
    try:
        return addresses.parse_tcp_address(remotes[0])
    except Refused as refused:
        raise addresses.config_error(f'invalid remoteAddr "{remotes[0]}": {refused.text}') from None


def check_spec_name(name: str) -> None:
    """There is one cluster and its name is ``default``."""
    if name not in ("", "default"):
        raise addresses.config_error('swarm spec must be named "default"')


def check_availability(text: str) -> str:
    """The availability to start with; empty is active. A bad one is a plain error at init and join (status 500)."""
    if text.lower() in ("", *AVAILABILITIES):
        return text.lower() or "active"
    raise Refused(Code.UNKNOWN, f'invalid Availability: "{text}"')


def merge_spec(
    current: specs_pb2.ClusterSpec,
    asked: specs_pb2.ClusterSpec,
    history_limit: int | None,
    keep_old_snapshots: int | None,
) -> specs_pb2.ClusterSpec:
    """The spec of a new cluster: what the request says over what the node made by itself.

    Only non-zero fields count as said, but for the history limit and the old snapshots (whose zero means something,
    None: not said), and for forced rotation and autolock, which are always taken.
    """
    spec = specs_pb2.ClusterSpec()
    spec.CopyFrom(current)
    if asked.annotations.labels:
        spec.annotations.labels.clear()
        spec.annotations.labels.update(sorted(asked.annotations.labels.items()))
    if history_limit is not None:
        spec.orchestration.task_history_retention_limit = history_limit
    _take(
        spec.raft, asked.raft, "snapshot_interval", "log_entries_for_slow_followers", "election_tick", "heartbeat_tick"
    )
    if keep_old_snapshots is not None:
        spec.raft.keep_old_snapshots = keep_old_snapshots
    if asked.dispatcher.HasField("heartbeat_period") and asked.dispatcher.heartbeat_period.ToNanoseconds():
        spec.dispatcher.heartbeat_period.CopyFrom(asked.dispatcher.heartbeat_period)
    _merge_ca(spec.ca_config, asked.ca_config)
    if asked.task_defaults.HasField("log_driver"):
        spec.task_defaults.CopyFrom(asked.task_defaults)
    spec.encryption_config.auto_lock_managers = asked.encryption_config.auto_lock_managers
    return spec


def _merge_ca(config: Any, asked: Any) -> None:
    if asked.HasField("node_cert_expiry") and asked.node_cert_expiry.ToNanoseconds():
        config.node_cert_expiry.CopyFrom(asked.node_cert_expiry)
    if asked.external_cas:
        del config.external_cas[:]
        config.external_cas.extend(asked.external_cas)
    _take(config, asked, "signing_ca_cert", "signing_ca_key")
    config.force_rotate = asked.force_rotate


def _take(target: Any, source: Any, *fields: str) -> None:
    for field in fields:
        value = getattr(source, field)
        if value:
            setattr(target, field, value)
