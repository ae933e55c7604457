"""Every default value of the swarm, and the two places where they are filled in.

Rules owned here: a stored service spec is never completed; a reader may ask for a completed copy, and whoever acts on a
spec uses the same values where it says nothing. The cluster object begins with the values below.
"""

from __future__ import annotations

from typing import Final

from google.protobuf import duration_pb2 as duration

from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

STOP_GRACE_PERIOD_S: Final = 10.0
RESTART_CONDITION: Final = types.RestartPolicy.ANY
RESTART_DELAY_S: Final = 5.0
UPDATE_MONITOR_S: Final = 5.0
UPDATE_PARALLELISM: Final = 1
UPDATE_FAILURE_ACTION: Final = types.UpdateConfig.PAUSE
UPDATE_ORDER: Final = types.UpdateConfig.STOP_FIRST

CLUSTER_NAME: Final = "default"
# SwarmKit keeps 5. Ours keeps more: a dead task is small here, and the history is what one debugs with.
TASK_HISTORY_RETENTION_LIMIT: Final = 10
SNAPSHOT_INTERVAL: Final = 10_000
KEEP_OLD_SNAPSHOTS: Final = 0
LOG_ENTRIES_FOR_SLOW_FOLLOWERS: Final = 500
HEARTBEAT_TICK: Final = 1
ELECTION_TICK: Final = 10
DISPATCHER_HEARTBEAT_S: Final = 5.0
NODE_CERT_EXPIRY_S: Final = 90 * 24 * 3600.0
ADDRESS_POOL: Final = ("10.0.0.0/8",)
SUBNET_SIZE: Final = 24
VXLAN_PORT: Final = 4789
INGRESS_NETWORK_NAME: Final = "ingress"


def seconds(message: duration.Duration) -> float:
    """A protobuf duration in seconds."""
    return message.seconds + message.nanos / 1e9


def nanoseconds(message: duration.Duration) -> int:
    """A protobuf duration in nanoseconds, exactly."""
    return message.seconds * 1_000_000_000 + message.nanos


def to_duration(value: float) -> duration.Duration:
    """Seconds as a protobuf duration, to the nanosecond; both parts have the sign of the whole."""
    total = round(value * 1e9)
    whole, rest = divmod(abs(total), 1_000_000_000)
    sign = -1 if total < 0 else 1
    return duration.Duration(seconds=sign * whole, nanos=sign * rest)


def restart_delay(spec: specs.TaskSpec) -> float:
    """Seconds between the end of a task and the start of its replacement."""
    return seconds(spec.restart.delay) if spec.restart.HasField("delay") else RESTART_DELAY_S


def restart_condition(spec: specs.TaskSpec) -> types.RestartPolicy.RestartCondition:
    """When a task is replaced at all."""
    return spec.restart.condition if spec.HasField("restart") else RESTART_CONDITION


def update_config() -> types.UpdateConfig:
    """How a service is updated, or rolled back, when its spec does not say."""
    return types.UpdateConfig(
        failure_action=UPDATE_FAILURE_ACTION,
        monitor=to_duration(UPDATE_MONITOR_S),
        parallelism=UPDATE_PARALLELISM,
        order=UPDATE_ORDER,
    )


def insert_defaults(spec: specs.ServiceSpec) -> specs.ServiceSpec:
    """A completed copy of a service spec, as GetService shows it on request (``insert_defaults``)."""
    full = specs.ServiceSpec()
    full.CopyFrom(spec)
    _complete_task(full.task)
    for name in ("update", "rollback"):
        if not full.HasField(name):
            getattr(full, name).CopyFrom(update_config())
        elif not getattr(full, name).HasField("monitor"):
            getattr(full, name).monitor.CopyFrom(to_duration(UPDATE_MONITOR_S))
    return full


def _complete_task(task: specs.TaskSpec) -> None:
    if task.HasField("container"):
        container = task.container
        if not container.HasField("stop_grace_period"):
            container.stop_grace_period.CopyFrom(to_duration(STOP_GRACE_PERIOD_S))
        container.pull_options.SetInParent()
        container.dns_config.SetInParent()
    task.resources.SetInParent()
    if not task.HasField("restart"):
        task.restart.condition = RESTART_CONDITION
    if not task.restart.HasField("delay"):
        task.restart.delay.CopyFrom(to_duration(RESTART_DELAY_S))
    task.placement.SetInParent()


def cluster_spec(*, heartbeat_tick: int = HEARTBEAT_TICK, election_tick: int = ELECTION_TICK) -> specs.ClusterSpec:
    """The spec that a new swarm begins with; ticks are those of the node that starts it."""
    return specs.ClusterSpec(
        annotations=types.Annotations(name=CLUSTER_NAME),
        orchestration=types.OrchestrationConfig(task_history_retention_limit=TASK_HISTORY_RETENTION_LIMIT),
        dispatcher=types.DispatcherConfig(heartbeat_period=to_duration(DISPATCHER_HEARTBEAT_S)),
        raft=types.RaftConfig(
            snapshot_interval=SNAPSHOT_INTERVAL,
            keep_old_snapshots=KEEP_OLD_SNAPSHOTS,
            log_entries_for_slow_followers=LOG_ENTRIES_FOR_SLOW_FOLLOWERS,
            heartbeat_tick=heartbeat_tick,
            election_tick=election_tick,
        ),
        ca_config=types.CAConfig(node_cert_expiry=to_duration(NODE_CERT_EXPIRY_S)),
        encryption_config=types.EncryptionConfig(),
    )


def initial_cluster(
    cluster_id: str,
    root_ca: types.RootCA,
    spec: specs.ClusterSpec | None = None,
    *,
    unlock_key: types.EncryptionKey | None = None,
    fips: bool = False,
    address_pool: tuple[str, ...] = (),
    subnet_size: int = 0,
    vxlan_port: int = 0,
) -> objects.Cluster:
    """The cluster object that the first leader creates (SwarmKit's order of becoming leader, step 1).

    ``root_ca`` carries certificate, key, digest and both join tokens. Pool, subnet size and port stay unset when not
    configured: readers see `ADDRESS_POOL`, `SUBNET_SIZE` and `VXLAN_PORT` in their place.
    """
    return objects.Cluster(
        id=cluster_id,
        spec=spec if spec is not None else cluster_spec(),
        root_ca=root_ca,
        unlock_keys=[unlock_key] if unlock_key is not None else [],
        fips=fips,
        defaultAddressPool=address_pool,
        subnetSize=subnet_size,
        VXLANUDPPort=vxlan_port,
    )
