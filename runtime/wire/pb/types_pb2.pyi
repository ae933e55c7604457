import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf import wrappers_pb2 as _wrappers_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ResourceType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK: _ClassVar[ResourceType]
    SECRET: _ClassVar[ResourceType]
    CONFIG: _ClassVar[ResourceType]
    VOLUME: _ClassVar[ResourceType]

class TaskState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NEW: _ClassVar[TaskState]
    PENDING: _ClassVar[TaskState]
    ASSIGNED: _ClassVar[TaskState]
    ACCEPTED: _ClassVar[TaskState]
    PREPARING: _ClassVar[TaskState]
    READY: _ClassVar[TaskState]
    STARTING: _ClassVar[TaskState]
    RUNNING: _ClassVar[TaskState]
    COMPLETE: _ClassVar[TaskState]
    SHUTDOWN: _ClassVar[TaskState]
    FAILED: _ClassVar[TaskState]
    REJECTED: _ClassVar[TaskState]
    REMOVE: _ClassVar[TaskState]
    ORPHANED: _ClassVar[TaskState]

class NodeRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORKER: _ClassVar[NodeRole]
    MANAGER: _ClassVar[NodeRole]
TASK: ResourceType
SECRET: ResourceType
CONFIG: ResourceType
VOLUME: ResourceType
NEW: TaskState
PENDING: TaskState
ASSIGNED: TaskState
ACCEPTED: TaskState
PREPARING: TaskState
READY: TaskState
STARTING: TaskState
RUNNING: TaskState
COMPLETE: TaskState
SHUTDOWN: TaskState
FAILED: TaskState
REJECTED: TaskState
REMOVE: TaskState
ORPHANED: TaskState
WORKER: NodeRole
MANAGER: NodeRole

class Version(_message.Message):
    __slots__ = ("index",)
    INDEX_FIELD_NUMBER: _ClassVar[int]
    index: int
    def __init__(self, index: _Optional[int] = ...) -> None: ...

class IndexEntry(_message.Message):
    __slots__ = ("key", "val")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VAL_FIELD_NUMBER: _ClassVar[int]
    key: str
    val: str
    def __init__(self, key: _Optional[str] = ..., val: _Optional[str] = ...) -> None: ...

class Annotations(_message.Message):
    __slots__ = ("name", "labels", "indices")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    INDICES_FIELD_NUMBER: _ClassVar[int]
    name: str
    labels: _containers.ScalarMap[str, str]
    indices: _containers.RepeatedCompositeFieldContainer[IndexEntry]
    def __init__(self, name: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., indices: _Optional[_Iterable[_Union[IndexEntry, _Mapping]]] = ...) -> None: ...

class NamedGenericResource(_message.Message):
    __slots__ = ("kind", "value")
    KIND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    value: str
    def __init__(self, kind: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class DiscreteGenericResource(_message.Message):
    __slots__ = ("kind", "value")
    KIND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    kind: str
    value: int
    def __init__(self, kind: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...

class GenericResource(_message.Message):
    __slots__ = ("named_resource_spec", "discrete_resource_spec")
    NAMED_RESOURCE_SPEC_FIELD_NUMBER: _ClassVar[int]
    DISCRETE_RESOURCE_SPEC_FIELD_NUMBER: _ClassVar[int]
    named_resource_spec: NamedGenericResource
    discrete_resource_spec: DiscreteGenericResource
    def __init__(self, named_resource_spec: _Optional[_Union[NamedGenericResource, _Mapping]] = ..., discrete_resource_spec: _Optional[_Union[DiscreteGenericResource, _Mapping]] = ...) -> None: ...

class Resources(_message.Message):
    __slots__ = ("nano_cpus", "memory_bytes", "generic")
    NANO_CPUS_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GENERIC_FIELD_NUMBER: _ClassVar[int]
    nano_cpus: int
    memory_bytes: int
    generic: _containers.RepeatedCompositeFieldContainer[GenericResource]
    def __init__(self, nano_cpus: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., generic: _Optional[_Iterable[_Union[GenericResource, _Mapping]]] = ...) -> None: ...

class ResourceRequirements(_message.Message):
    __slots__ = ("limits", "reservations", "swap_bytes", "memory_swappiness")
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    RESERVATIONS_FIELD_NUMBER: _ClassVar[int]
    SWAP_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_SWAPPINESS_FIELD_NUMBER: _ClassVar[int]
    limits: Resources
    reservations: Resources
    swap_bytes: _wrappers_pb2.Int64Value
    memory_swappiness: _wrappers_pb2.Int64Value
    def __init__(self, limits: _Optional[_Union[Resources, _Mapping]] = ..., reservations: _Optional[_Union[Resources, _Mapping]] = ..., swap_bytes: _Optional[_Union[_wrappers_pb2.Int64Value, _Mapping]] = ..., memory_swappiness: _Optional[_Union[_wrappers_pb2.Int64Value, _Mapping]] = ...) -> None: ...

class Platform(_message.Message):
    __slots__ = ("architecture", "os")
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    OS_FIELD_NUMBER: _ClassVar[int]
    architecture: str
    os: str
    def __init__(self, architecture: _Optional[str] = ..., os: _Optional[str] = ...) -> None: ...

class PluginDescription(_message.Message):
    __slots__ = ("type", "name")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    type: str
    name: str
    def __init__(self, type: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class EngineDescription(_message.Message):
    __slots__ = ("engine_version", "labels", "plugins")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ENGINE_VERSION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PLUGINS_FIELD_NUMBER: _ClassVar[int]
    engine_version: str
    labels: _containers.ScalarMap[str, str]
    plugins: _containers.RepeatedCompositeFieldContainer[PluginDescription]
    def __init__(self, engine_version: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., plugins: _Optional[_Iterable[_Union[PluginDescription, _Mapping]]] = ...) -> None: ...

class NodeDescription(_message.Message):
    __slots__ = ("hostname", "platform", "resources", "engine", "tls_info", "fips", "csi_info")
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    TLS_INFO_FIELD_NUMBER: _ClassVar[int]
    FIPS_FIELD_NUMBER: _ClassVar[int]
    CSI_INFO_FIELD_NUMBER: _ClassVar[int]
    hostname: str
    platform: Platform
    resources: Resources
    engine: EngineDescription
    tls_info: NodeTLSInfo
    fips: bool
    csi_info: _containers.RepeatedCompositeFieldContainer[NodeCSIInfo]
    def __init__(self, hostname: _Optional[str] = ..., platform: _Optional[_Union[Platform, _Mapping]] = ..., resources: _Optional[_Union[Resources, _Mapping]] = ..., engine: _Optional[_Union[EngineDescription, _Mapping]] = ..., tls_info: _Optional[_Union[NodeTLSInfo, _Mapping]] = ..., fips: _Optional[bool] = ..., csi_info: _Optional[_Iterable[_Union[NodeCSIInfo, _Mapping]]] = ...) -> None: ...

class NodeTLSInfo(_message.Message):
    __slots__ = ("trust_root", "cert_issuer_subject", "cert_issuer_public_key")
    TRUST_ROOT_FIELD_NUMBER: _ClassVar[int]
    CERT_ISSUER_SUBJECT_FIELD_NUMBER: _ClassVar[int]
    CERT_ISSUER_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    trust_root: bytes
    cert_issuer_subject: bytes
    cert_issuer_public_key: bytes
    def __init__(self, trust_root: _Optional[bytes] = ..., cert_issuer_subject: _Optional[bytes] = ..., cert_issuer_public_key: _Optional[bytes] = ...) -> None: ...

class NodeCSIInfo(_message.Message):
    __slots__ = ("plugin_name", "node_id", "max_volumes_per_node", "accessible_topology")
    PLUGIN_NAME_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_VOLUMES_PER_NODE_FIELD_NUMBER: _ClassVar[int]
    ACCESSIBLE_TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    plugin_name: str
    node_id: str
    max_volumes_per_node: int
    accessible_topology: Topology
    def __init__(self, plugin_name: _Optional[str] = ..., node_id: _Optional[str] = ..., max_volumes_per_node: _Optional[int] = ..., accessible_topology: _Optional[_Union[Topology, _Mapping]] = ...) -> None: ...

class RaftMemberStatus(_message.Message):
    __slots__ = ("leader", "reachability", "message")
    class Reachability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[RaftMemberStatus.Reachability]
        UNREACHABLE: _ClassVar[RaftMemberStatus.Reachability]
        REACHABLE: _ClassVar[RaftMemberStatus.Reachability]
    UNKNOWN: RaftMemberStatus.Reachability
    UNREACHABLE: RaftMemberStatus.Reachability
    REACHABLE: RaftMemberStatus.Reachability
    LEADER_FIELD_NUMBER: _ClassVar[int]
    REACHABILITY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    leader: bool
    reachability: RaftMemberStatus.Reachability
    message: str
    def __init__(self, leader: _Optional[bool] = ..., reachability: _Optional[_Union[RaftMemberStatus.Reachability, str]] = ..., message: _Optional[str] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("state", "message", "addr")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[NodeStatus.State]
        DOWN: _ClassVar[NodeStatus.State]
        READY: _ClassVar[NodeStatus.State]
        DISCONNECTED: _ClassVar[NodeStatus.State]
    UNKNOWN: NodeStatus.State
    DOWN: NodeStatus.State
    READY: NodeStatus.State
    DISCONNECTED: NodeStatus.State
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ADDR_FIELD_NUMBER: _ClassVar[int]
    state: NodeStatus.State
    message: str
    addr: str
    def __init__(self, state: _Optional[_Union[NodeStatus.State, str]] = ..., message: _Optional[str] = ..., addr: _Optional[str] = ...) -> None: ...

class Image(_message.Message):
    __slots__ = ("reference",)
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    reference: str
    def __init__(self, reference: _Optional[str] = ...) -> None: ...

class Mount(_message.Message):
    __slots__ = ("type", "source", "target", "readonly", "consistency", "bind_options", "volume_options", "tmpfs_options")
    class Type(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        BIND: _ClassVar[Mount.Type]
        VOLUME: _ClassVar[Mount.Type]
        TMPFS: _ClassVar[Mount.Type]
        NPIPE: _ClassVar[Mount.Type]
        CLUSTER: _ClassVar[Mount.Type]
    BIND: Mount.Type
    VOLUME: Mount.Type
    TMPFS: Mount.Type
    NPIPE: Mount.Type
    CLUSTER: Mount.Type
    class Consistency(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        DEFAULT: _ClassVar[Mount.Consistency]
        CONSISTENT: _ClassVar[Mount.Consistency]
        CACHED: _ClassVar[Mount.Consistency]
        DELEGATED: _ClassVar[Mount.Consistency]
    DEFAULT: Mount.Consistency
    CONSISTENT: Mount.Consistency
    CACHED: Mount.Consistency
    DELEGATED: Mount.Consistency
    class BindOptions(_message.Message):
        __slots__ = ("propagation", "nonrecursive", "createmountpoint", "readonlynonrecursive", "readonlyforcerecursive")
        class Propagation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = ()
            RPRIVATE: _ClassVar[Mount.BindOptions.Propagation]
            PRIVATE: _ClassVar[Mount.BindOptions.Propagation]
            RSHARED: _ClassVar[Mount.BindOptions.Propagation]
            SHARED: _ClassVar[Mount.BindOptions.Propagation]
            RSLAVE: _ClassVar[Mount.BindOptions.Propagation]
            SLAVE: _ClassVar[Mount.BindOptions.Propagation]
        RPRIVATE: Mount.BindOptions.Propagation
        PRIVATE: Mount.BindOptions.Propagation
        RSHARED: Mount.BindOptions.Propagation
        SHARED: Mount.BindOptions.Propagation
        RSLAVE: Mount.BindOptions.Propagation
        SLAVE: Mount.BindOptions.Propagation
        PROPAGATION_FIELD_NUMBER: _ClassVar[int]
        NONRECURSIVE_FIELD_NUMBER: _ClassVar[int]
        CREATEMOUNTPOINT_FIELD_NUMBER: _ClassVar[int]
        READONLYNONRECURSIVE_FIELD_NUMBER: _ClassVar[int]
        READONLYFORCERECURSIVE_FIELD_NUMBER: _ClassVar[int]
        propagation: Mount.BindOptions.Propagation
        nonrecursive: bool
        createmountpoint: bool
        readonlynonrecursive: bool
        readonlyforcerecursive: bool
        def __init__(self, propagation: _Optional[_Union[Mount.BindOptions.Propagation, str]] = ..., nonrecursive: _Optional[bool] = ..., createmountpoint: _Optional[bool] = ..., readonlynonrecursive: _Optional[bool] = ..., readonlyforcerecursive: _Optional[bool] = ...) -> None: ...
    class VolumeOptions(_message.Message):
        __slots__ = ("nocopy", "labels", "driver_config", "subpath")
        class LabelsEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: str
            def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
        NOCOPY_FIELD_NUMBER: _ClassVar[int]
        LABELS_FIELD_NUMBER: _ClassVar[int]
        DRIVER_CONFIG_FIELD_NUMBER: _ClassVar[int]
        SUBPATH_FIELD_NUMBER: _ClassVar[int]
        nocopy: bool
        labels: _containers.ScalarMap[str, str]
        driver_config: Driver
        subpath: str
        def __init__(self, nocopy: _Optional[bool] = ..., labels: _Optional[_Mapping[str, str]] = ..., driver_config: _Optional[_Union[Driver, _Mapping]] = ..., subpath: _Optional[str] = ...) -> None: ...
    class TmpfsOptions(_message.Message):
        __slots__ = ("size_bytes", "mode", "options")
        SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
        MODE_FIELD_NUMBER: _ClassVar[int]
        OPTIONS_FIELD_NUMBER: _ClassVar[int]
        size_bytes: int
        mode: int
        options: str
        def __init__(self, size_bytes: _Optional[int] = ..., mode: _Optional[int] = ..., options: _Optional[str] = ...) -> None: ...
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    READONLY_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    BIND_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    VOLUME_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    TMPFS_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    type: Mount.Type
    source: str
    target: str
    readonly: bool
    consistency: Mount.Consistency
    bind_options: Mount.BindOptions
    volume_options: Mount.VolumeOptions
    tmpfs_options: Mount.TmpfsOptions
    def __init__(self, type: _Optional[_Union[Mount.Type, str]] = ..., source: _Optional[str] = ..., target: _Optional[str] = ..., readonly: _Optional[bool] = ..., consistency: _Optional[_Union[Mount.Consistency, str]] = ..., bind_options: _Optional[_Union[Mount.BindOptions, _Mapping]] = ..., volume_options: _Optional[_Union[Mount.VolumeOptions, _Mapping]] = ..., tmpfs_options: _Optional[_Union[Mount.TmpfsOptions, _Mapping]] = ...) -> None: ...

class RestartPolicy(_message.Message):
    __slots__ = ("condition", "delay", "max_attempts", "window")
    class RestartCondition(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NONE: _ClassVar[RestartPolicy.RestartCondition]
        ON_FAILURE: _ClassVar[RestartPolicy.RestartCondition]
        ANY: _ClassVar[RestartPolicy.RestartCondition]
    NONE: RestartPolicy.RestartCondition
    ON_FAILURE: RestartPolicy.RestartCondition
    ANY: RestartPolicy.RestartCondition
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    condition: RestartPolicy.RestartCondition
    delay: _duration_pb2.Duration
    max_attempts: int
    window: _duration_pb2.Duration
    def __init__(self, condition: _Optional[_Union[RestartPolicy.RestartCondition, str]] = ..., delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_attempts: _Optional[int] = ..., window: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class UpdateConfig(_message.Message):
    __slots__ = ("parallelism", "delay", "failure_action", "monitor", "max_failure_ratio", "order")
    class FailureAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PAUSE: _ClassVar[UpdateConfig.FailureAction]
        CONTINUE: _ClassVar[UpdateConfig.FailureAction]
        ROLLBACK: _ClassVar[UpdateConfig.FailureAction]
    PAUSE: UpdateConfig.FailureAction
    CONTINUE: UpdateConfig.FailureAction
    ROLLBACK: UpdateConfig.FailureAction
    class UpdateOrder(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        STOP_FIRST: _ClassVar[UpdateConfig.UpdateOrder]
        START_FIRST: _ClassVar[UpdateConfig.UpdateOrder]
    STOP_FIRST: UpdateConfig.UpdateOrder
    START_FIRST: UpdateConfig.UpdateOrder
    PARALLELISM_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    FAILURE_ACTION_FIELD_NUMBER: _ClassVar[int]
    MONITOR_FIELD_NUMBER: _ClassVar[int]
    MAX_FAILURE_RATIO_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    parallelism: int
    delay: _duration_pb2.Duration
    failure_action: UpdateConfig.FailureAction
    monitor: _duration_pb2.Duration
    max_failure_ratio: float
    order: UpdateConfig.UpdateOrder
    def __init__(self, parallelism: _Optional[int] = ..., delay: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., failure_action: _Optional[_Union[UpdateConfig.FailureAction, str]] = ..., monitor: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_failure_ratio: _Optional[float] = ..., order: _Optional[_Union[UpdateConfig.UpdateOrder, str]] = ...) -> None: ...

class UpdateStatus(_message.Message):
    __slots__ = ("state", "started_at", "completed_at", "message")
    class UpdateState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[UpdateStatus.UpdateState]
        UPDATING: _ClassVar[UpdateStatus.UpdateState]
        PAUSED: _ClassVar[UpdateStatus.UpdateState]
        COMPLETED: _ClassVar[UpdateStatus.UpdateState]
        ROLLBACK_STARTED: _ClassVar[UpdateStatus.UpdateState]
        ROLLBACK_PAUSED: _ClassVar[UpdateStatus.UpdateState]
        ROLLBACK_COMPLETED: _ClassVar[UpdateStatus.UpdateState]
    UNKNOWN: UpdateStatus.UpdateState
    UPDATING: UpdateStatus.UpdateState
    PAUSED: UpdateStatus.UpdateState
    COMPLETED: UpdateStatus.UpdateState
    ROLLBACK_STARTED: UpdateStatus.UpdateState
    ROLLBACK_PAUSED: UpdateStatus.UpdateState
    ROLLBACK_COMPLETED: UpdateStatus.UpdateState
    STATE_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_AT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    state: UpdateStatus.UpdateState
    started_at: _timestamp_pb2.Timestamp
    completed_at: _timestamp_pb2.Timestamp
    message: str
    def __init__(self, state: _Optional[_Union[UpdateStatus.UpdateState, str]] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., completed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., message: _Optional[str] = ...) -> None: ...

class ContainerStatus(_message.Message):
    __slots__ = ("container_id", "pid", "exit_code")
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    pid: int
    exit_code: int
    def __init__(self, container_id: _Optional[str] = ..., pid: _Optional[int] = ..., exit_code: _Optional[int] = ...) -> None: ...

class PortStatus(_message.Message):
    __slots__ = ("ports",)
    PORTS_FIELD_NUMBER: _ClassVar[int]
    ports: _containers.RepeatedCompositeFieldContainer[PortConfig]
    def __init__(self, ports: _Optional[_Iterable[_Union[PortConfig, _Mapping]]] = ...) -> None: ...

class TaskStatus(_message.Message):
    __slots__ = ("timestamp", "state", "message", "err", "container", "port_status", "applied_by", "applied_at")
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ERR_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    PORT_STATUS_FIELD_NUMBER: _ClassVar[int]
    APPLIED_BY_FIELD_NUMBER: _ClassVar[int]
    APPLIED_AT_FIELD_NUMBER: _ClassVar[int]
    timestamp: _timestamp_pb2.Timestamp
    state: TaskState
    message: str
    err: str
    container: ContainerStatus
    port_status: PortStatus
    applied_by: str
    applied_at: _timestamp_pb2.Timestamp
    def __init__(self, timestamp: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., state: _Optional[_Union[TaskState, str]] = ..., message: _Optional[str] = ..., err: _Optional[str] = ..., container: _Optional[_Union[ContainerStatus, _Mapping]] = ..., port_status: _Optional[_Union[PortStatus, _Mapping]] = ..., applied_by: _Optional[str] = ..., applied_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class NetworkAttachmentConfig(_message.Message):
    __slots__ = ("target", "aliases", "addresses", "driver_attachment_opts")
    class DriverAttachmentOptsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    DRIVER_ATTACHMENT_OPTS_FIELD_NUMBER: _ClassVar[int]
    target: str
    aliases: _containers.RepeatedScalarFieldContainer[str]
    addresses: _containers.RepeatedScalarFieldContainer[str]
    driver_attachment_opts: _containers.ScalarMap[str, str]
    def __init__(self, target: _Optional[str] = ..., aliases: _Optional[_Iterable[str]] = ..., addresses: _Optional[_Iterable[str]] = ..., driver_attachment_opts: _Optional[_Mapping[str, str]] = ...) -> None: ...

class IPAMConfig(_message.Message):
    __slots__ = ("family", "subnet", "range", "gateway", "reserved")
    class AddressFamily(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[IPAMConfig.AddressFamily]
        IPV4: _ClassVar[IPAMConfig.AddressFamily]
        IPV6: _ClassVar[IPAMConfig.AddressFamily]
    UNKNOWN: IPAMConfig.AddressFamily
    IPV4: IPAMConfig.AddressFamily
    IPV6: IPAMConfig.AddressFamily
    class ReservedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    SUBNET_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    RESERVED_FIELD_NUMBER: _ClassVar[int]
    family: IPAMConfig.AddressFamily
    subnet: str
    range: str
    gateway: str
    reserved: _containers.ScalarMap[str, str]
    def __init__(self, family: _Optional[_Union[IPAMConfig.AddressFamily, str]] = ..., subnet: _Optional[str] = ..., range: _Optional[str] = ..., gateway: _Optional[str] = ..., reserved: _Optional[_Mapping[str, str]] = ...) -> None: ...

class PortConfig(_message.Message):
    __slots__ = ("name", "protocol", "target_port", "published_port", "publish_mode")
    class Protocol(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        TCP: _ClassVar[PortConfig.Protocol]
        UDP: _ClassVar[PortConfig.Protocol]
        SCTP: _ClassVar[PortConfig.Protocol]
    TCP: PortConfig.Protocol
    UDP: PortConfig.Protocol
    SCTP: PortConfig.Protocol
    class PublishMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        INGRESS: _ClassVar[PortConfig.PublishMode]
        HOST: _ClassVar[PortConfig.PublishMode]
    INGRESS: PortConfig.PublishMode
    HOST: PortConfig.PublishMode
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    TARGET_PORT_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_PORT_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_MODE_FIELD_NUMBER: _ClassVar[int]
    name: str
    protocol: PortConfig.Protocol
    target_port: int
    published_port: int
    publish_mode: PortConfig.PublishMode
    def __init__(self, name: _Optional[str] = ..., protocol: _Optional[_Union[PortConfig.Protocol, str]] = ..., target_port: _Optional[int] = ..., published_port: _Optional[int] = ..., publish_mode: _Optional[_Union[PortConfig.PublishMode, str]] = ...) -> None: ...

class Driver(_message.Message):
    __slots__ = ("name", "options")
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    options: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., options: _Optional[_Mapping[str, str]] = ...) -> None: ...

class IPAMOptions(_message.Message):
    __slots__ = ("driver", "configs")
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    CONFIGS_FIELD_NUMBER: _ClassVar[int]
    driver: Driver
    configs: _containers.RepeatedCompositeFieldContainer[IPAMConfig]
    def __init__(self, driver: _Optional[_Union[Driver, _Mapping]] = ..., configs: _Optional[_Iterable[_Union[IPAMConfig, _Mapping]]] = ...) -> None: ...

class Peer(_message.Message):
    __slots__ = ("node_id", "addr")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDR_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    addr: str
    def __init__(self, node_id: _Optional[str] = ..., addr: _Optional[str] = ...) -> None: ...

class WeightedPeer(_message.Message):
    __slots__ = ("peer", "weight")
    PEER_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    peer: Peer
    weight: int
    def __init__(self, peer: _Optional[_Union[Peer, _Mapping]] = ..., weight: _Optional[int] = ...) -> None: ...

class IssuanceStatus(_message.Message):
    __slots__ = ("state", "err")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[IssuanceStatus.State]
        RENEW: _ClassVar[IssuanceStatus.State]
        PENDING: _ClassVar[IssuanceStatus.State]
        ISSUED: _ClassVar[IssuanceStatus.State]
        FAILED: _ClassVar[IssuanceStatus.State]
        ROTATE: _ClassVar[IssuanceStatus.State]
    UNKNOWN: IssuanceStatus.State
    RENEW: IssuanceStatus.State
    PENDING: IssuanceStatus.State
    ISSUED: IssuanceStatus.State
    FAILED: IssuanceStatus.State
    ROTATE: IssuanceStatus.State
    STATE_FIELD_NUMBER: _ClassVar[int]
    ERR_FIELD_NUMBER: _ClassVar[int]
    state: IssuanceStatus.State
    err: str
    def __init__(self, state: _Optional[_Union[IssuanceStatus.State, str]] = ..., err: _Optional[str] = ...) -> None: ...

class AcceptancePolicy(_message.Message):
    __slots__ = ("policies",)
    class RoleAdmissionPolicy(_message.Message):
        __slots__ = ("role", "autoaccept", "secret")
        class Secret(_message.Message):
            __slots__ = ("data", "alg")
            DATA_FIELD_NUMBER: _ClassVar[int]
            ALG_FIELD_NUMBER: _ClassVar[int]
            data: bytes
            alg: str
            def __init__(self, data: _Optional[bytes] = ..., alg: _Optional[str] = ...) -> None: ...
        ROLE_FIELD_NUMBER: _ClassVar[int]
        AUTOACCEPT_FIELD_NUMBER: _ClassVar[int]
        SECRET_FIELD_NUMBER: _ClassVar[int]
        role: NodeRole
        autoaccept: bool
        secret: AcceptancePolicy.RoleAdmissionPolicy.Secret
        def __init__(self, role: _Optional[_Union[NodeRole, str]] = ..., autoaccept: _Optional[bool] = ..., secret: _Optional[_Union[AcceptancePolicy.RoleAdmissionPolicy.Secret, _Mapping]] = ...) -> None: ...
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    policies: _containers.RepeatedCompositeFieldContainer[AcceptancePolicy.RoleAdmissionPolicy]
    def __init__(self, policies: _Optional[_Iterable[_Union[AcceptancePolicy.RoleAdmissionPolicy, _Mapping]]] = ...) -> None: ...

class ExternalCA(_message.Message):
    __slots__ = ("protocol", "url", "options", "ca_cert")
    class CAProtocol(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CFSSL: _ClassVar[ExternalCA.CAProtocol]
    CFSSL: ExternalCA.CAProtocol
    class OptionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CA_CERT_FIELD_NUMBER: _ClassVar[int]
    protocol: ExternalCA.CAProtocol
    url: str
    options: _containers.ScalarMap[str, str]
    ca_cert: bytes
    def __init__(self, protocol: _Optional[_Union[ExternalCA.CAProtocol, str]] = ..., url: _Optional[str] = ..., options: _Optional[_Mapping[str, str]] = ..., ca_cert: _Optional[bytes] = ...) -> None: ...

class CAConfig(_message.Message):
    __slots__ = ("node_cert_expiry", "external_cas", "signing_ca_cert", "signing_ca_key", "force_rotate")
    NODE_CERT_EXPIRY_FIELD_NUMBER: _ClassVar[int]
    EXTERNAL_CAS_FIELD_NUMBER: _ClassVar[int]
    SIGNING_CA_CERT_FIELD_NUMBER: _ClassVar[int]
    SIGNING_CA_KEY_FIELD_NUMBER: _ClassVar[int]
    FORCE_ROTATE_FIELD_NUMBER: _ClassVar[int]
    node_cert_expiry: _duration_pb2.Duration
    external_cas: _containers.RepeatedCompositeFieldContainer[ExternalCA]
    signing_ca_cert: bytes
    signing_ca_key: bytes
    force_rotate: int
    def __init__(self, node_cert_expiry: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., external_cas: _Optional[_Iterable[_Union[ExternalCA, _Mapping]]] = ..., signing_ca_cert: _Optional[bytes] = ..., signing_ca_key: _Optional[bytes] = ..., force_rotate: _Optional[int] = ...) -> None: ...

class OrchestrationConfig(_message.Message):
    __slots__ = ("task_history_retention_limit",)
    TASK_HISTORY_RETENTION_LIMIT_FIELD_NUMBER: _ClassVar[int]
    task_history_retention_limit: int
    def __init__(self, task_history_retention_limit: _Optional[int] = ...) -> None: ...

class TaskDefaults(_message.Message):
    __slots__ = ("log_driver",)
    LOG_DRIVER_FIELD_NUMBER: _ClassVar[int]
    log_driver: Driver
    def __init__(self, log_driver: _Optional[_Union[Driver, _Mapping]] = ...) -> None: ...

class DispatcherConfig(_message.Message):
    __slots__ = ("heartbeat_period",)
    HEARTBEAT_PERIOD_FIELD_NUMBER: _ClassVar[int]
    heartbeat_period: _duration_pb2.Duration
    def __init__(self, heartbeat_period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class RaftConfig(_message.Message):
    __slots__ = ("snapshot_interval", "keep_old_snapshots", "log_entries_for_slow_followers", "heartbeat_tick", "election_tick")
    SNAPSHOT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    KEEP_OLD_SNAPSHOTS_FIELD_NUMBER: _ClassVar[int]
    LOG_ENTRIES_FOR_SLOW_FOLLOWERS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_TICK_FIELD_NUMBER: _ClassVar[int]
    ELECTION_TICK_FIELD_NUMBER: _ClassVar[int]
    snapshot_interval: int
    keep_old_snapshots: int
    log_entries_for_slow_followers: int
    heartbeat_tick: int
    election_tick: int
    def __init__(self, snapshot_interval: _Optional[int] = ..., keep_old_snapshots: _Optional[int] = ..., log_entries_for_slow_followers: _Optional[int] = ..., heartbeat_tick: _Optional[int] = ..., election_tick: _Optional[int] = ...) -> None: ...

class EncryptionConfig(_message.Message):
    __slots__ = ("auto_lock_managers",)
    AUTO_LOCK_MANAGERS_FIELD_NUMBER: _ClassVar[int]
    auto_lock_managers: bool
    def __init__(self, auto_lock_managers: _Optional[bool] = ...) -> None: ...

class SpreadOver(_message.Message):
    __slots__ = ("spread_descriptor",)
    SPREAD_DESCRIPTOR_FIELD_NUMBER: _ClassVar[int]
    spread_descriptor: str
    def __init__(self, spread_descriptor: _Optional[str] = ...) -> None: ...

class PlacementPreference(_message.Message):
    __slots__ = ("spread",)
    SPREAD_FIELD_NUMBER: _ClassVar[int]
    spread: SpreadOver
    def __init__(self, spread: _Optional[_Union[SpreadOver, _Mapping]] = ...) -> None: ...

class Placement(_message.Message):
    __slots__ = ("constraints", "preferences", "platforms", "max_replicas")
    CONSTRAINTS_FIELD_NUMBER: _ClassVar[int]
    PREFERENCES_FIELD_NUMBER: _ClassVar[int]
    PLATFORMS_FIELD_NUMBER: _ClassVar[int]
    MAX_REPLICAS_FIELD_NUMBER: _ClassVar[int]
    constraints: _containers.RepeatedScalarFieldContainer[str]
    preferences: _containers.RepeatedCompositeFieldContainer[PlacementPreference]
    platforms: _containers.RepeatedCompositeFieldContainer[Platform]
    max_replicas: int
    def __init__(self, constraints: _Optional[_Iterable[str]] = ..., preferences: _Optional[_Iterable[_Union[PlacementPreference, _Mapping]]] = ..., platforms: _Optional[_Iterable[_Union[Platform, _Mapping]]] = ..., max_replicas: _Optional[int] = ...) -> None: ...

class JoinTokens(_message.Message):
    __slots__ = ("worker", "manager")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    MANAGER_FIELD_NUMBER: _ClassVar[int]
    worker: str
    manager: str
    def __init__(self, worker: _Optional[str] = ..., manager: _Optional[str] = ...) -> None: ...

class RootCA(_message.Message):
    __slots__ = ("ca_key", "ca_cert", "ca_cert_hash", "join_tokens", "root_rotation", "last_forced_rotation")
    CA_KEY_FIELD_NUMBER: _ClassVar[int]
    CA_CERT_FIELD_NUMBER: _ClassVar[int]
    CA_CERT_HASH_FIELD_NUMBER: _ClassVar[int]
    JOIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ROOT_ROTATION_FIELD_NUMBER: _ClassVar[int]
    LAST_FORCED_ROTATION_FIELD_NUMBER: _ClassVar[int]
    ca_key: bytes
    ca_cert: bytes
    ca_cert_hash: str
    join_tokens: JoinTokens
    root_rotation: RootRotation
    last_forced_rotation: int
    def __init__(self, ca_key: _Optional[bytes] = ..., ca_cert: _Optional[bytes] = ..., ca_cert_hash: _Optional[str] = ..., join_tokens: _Optional[_Union[JoinTokens, _Mapping]] = ..., root_rotation: _Optional[_Union[RootRotation, _Mapping]] = ..., last_forced_rotation: _Optional[int] = ...) -> None: ...

class Certificate(_message.Message):
    __slots__ = ("role", "csr", "status", "certificate", "cn")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CSR_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    CN_FIELD_NUMBER: _ClassVar[int]
    role: NodeRole
    csr: bytes
    status: IssuanceStatus
    certificate: bytes
    cn: str
    def __init__(self, role: _Optional[_Union[NodeRole, str]] = ..., csr: _Optional[bytes] = ..., status: _Optional[_Union[IssuanceStatus, _Mapping]] = ..., certificate: _Optional[bytes] = ..., cn: _Optional[str] = ...) -> None: ...

class EncryptionKey(_message.Message):
    __slots__ = ("subsystem", "algorithm", "key", "lamport_time")
    class Algorithm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        AES_128_GCM: _ClassVar[EncryptionKey.Algorithm]
    AES_128_GCM: EncryptionKey.Algorithm
    SUBSYSTEM_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    LAMPORT_TIME_FIELD_NUMBER: _ClassVar[int]
    subsystem: str
    algorithm: EncryptionKey.Algorithm
    key: bytes
    lamport_time: int
    def __init__(self, subsystem: _Optional[str] = ..., algorithm: _Optional[_Union[EncryptionKey.Algorithm, str]] = ..., key: _Optional[bytes] = ..., lamport_time: _Optional[int] = ...) -> None: ...

class ManagerStatus(_message.Message):
    __slots__ = ("raft_id", "addr", "leader", "reachability")
    RAFT_ID_FIELD_NUMBER: _ClassVar[int]
    ADDR_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    REACHABILITY_FIELD_NUMBER: _ClassVar[int]
    raft_id: int
    addr: str
    leader: bool
    reachability: RaftMemberStatus.Reachability
    def __init__(self, raft_id: _Optional[int] = ..., addr: _Optional[str] = ..., leader: _Optional[bool] = ..., reachability: _Optional[_Union[RaftMemberStatus.Reachability, str]] = ...) -> None: ...

class FileTarget(_message.Message):
    __slots__ = ("name", "uid", "gid", "mode")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    name: str
    uid: str
    gid: str
    mode: int
    def __init__(self, name: _Optional[str] = ..., uid: _Optional[str] = ..., gid: _Optional[str] = ..., mode: _Optional[int] = ...) -> None: ...

class RuntimeTarget(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SecretReference(_message.Message):
    __slots__ = ("secret_id", "secret_name", "file")
    SECRET_ID_FIELD_NUMBER: _ClassVar[int]
    SECRET_NAME_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    secret_id: str
    secret_name: str
    file: FileTarget
    def __init__(self, secret_id: _Optional[str] = ..., secret_name: _Optional[str] = ..., file: _Optional[_Union[FileTarget, _Mapping]] = ...) -> None: ...

class ConfigReference(_message.Message):
    __slots__ = ("config_id", "config_name", "file", "runtime")
    CONFIG_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIG_NAME_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    config_id: str
    config_name: str
    file: FileTarget
    runtime: RuntimeTarget
    def __init__(self, config_id: _Optional[str] = ..., config_name: _Optional[str] = ..., file: _Optional[_Union[FileTarget, _Mapping]] = ..., runtime: _Optional[_Union[RuntimeTarget, _Mapping]] = ...) -> None: ...

class BlacklistedCertificate(_message.Message):
    __slots__ = ("expiry",)
    EXPIRY_FIELD_NUMBER: _ClassVar[int]
    expiry: _timestamp_pb2.Timestamp
    def __init__(self, expiry: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class HealthConfig(_message.Message):
    __slots__ = ("test", "interval", "timeout", "retries", "start_period", "start_interval")
    TEST_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    START_PERIOD_FIELD_NUMBER: _ClassVar[int]
    START_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    test: _containers.RepeatedScalarFieldContainer[str]
    interval: _duration_pb2.Duration
    timeout: _duration_pb2.Duration
    retries: int
    start_period: _duration_pb2.Duration
    start_interval: _duration_pb2.Duration
    def __init__(self, test: _Optional[_Iterable[str]] = ..., interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., retries: _Optional[int] = ..., start_period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., start_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class MaybeEncryptedRecord(_message.Message):
    __slots__ = ("algorithm", "data", "nonce")
    class Algorithm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NONE: _ClassVar[MaybeEncryptedRecord.Algorithm]
        SECRETBOX_SALSA20_POLY1305: _ClassVar[MaybeEncryptedRecord.Algorithm]
        FERNET_AES_128_CBC: _ClassVar[MaybeEncryptedRecord.Algorithm]
    NONE: MaybeEncryptedRecord.Algorithm
    SECRETBOX_SALSA20_POLY1305: MaybeEncryptedRecord.Algorithm
    FERNET_AES_128_CBC: MaybeEncryptedRecord.Algorithm
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    algorithm: MaybeEncryptedRecord.Algorithm
    data: bytes
    nonce: bytes
    def __init__(self, algorithm: _Optional[_Union[MaybeEncryptedRecord.Algorithm, str]] = ..., data: _Optional[bytes] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class RootRotation(_message.Message):
    __slots__ = ("ca_cert", "ca_key", "cross_signed_ca_cert")
    CA_CERT_FIELD_NUMBER: _ClassVar[int]
    CA_KEY_FIELD_NUMBER: _ClassVar[int]
    CROSS_SIGNED_CA_CERT_FIELD_NUMBER: _ClassVar[int]
    ca_cert: bytes
    ca_key: bytes
    cross_signed_ca_cert: bytes
    def __init__(self, ca_cert: _Optional[bytes] = ..., ca_key: _Optional[bytes] = ..., cross_signed_ca_cert: _Optional[bytes] = ...) -> None: ...

class Privileges(_message.Message):
    __slots__ = ("credential_spec", "selinux_context", "seccomp", "apparmor", "no_new_privileges")
    class CredentialSpec(_message.Message):
        __slots__ = ("file", "registry", "config")
        FILE_FIELD_NUMBER: _ClassVar[int]
        REGISTRY_FIELD_NUMBER: _ClassVar[int]
        CONFIG_FIELD_NUMBER: _ClassVar[int]
        file: str
        registry: str
        config: str
        def __init__(self, file: _Optional[str] = ..., registry: _Optional[str] = ..., config: _Optional[str] = ...) -> None: ...
    class SELinuxContext(_message.Message):
        __slots__ = ("disable", "user", "role", "type", "level")
        DISABLE_FIELD_NUMBER: _ClassVar[int]
        USER_FIELD_NUMBER: _ClassVar[int]
        ROLE_FIELD_NUMBER: _ClassVar[int]
        TYPE_FIELD_NUMBER: _ClassVar[int]
        LEVEL_FIELD_NUMBER: _ClassVar[int]
        disable: bool
        user: str
        role: str
        type: str
        level: str
        def __init__(self, disable: _Optional[bool] = ..., user: _Optional[str] = ..., role: _Optional[str] = ..., type: _Optional[str] = ..., level: _Optional[str] = ...) -> None: ...
    class SeccompOpts(_message.Message):
        __slots__ = ("mode", "profile")
        class SeccompMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = ()
            DEFAULT: _ClassVar[Privileges.SeccompOpts.SeccompMode]
            UNCONFINED: _ClassVar[Privileges.SeccompOpts.SeccompMode]
            CUSTOM: _ClassVar[Privileges.SeccompOpts.SeccompMode]
        DEFAULT: Privileges.SeccompOpts.SeccompMode
        UNCONFINED: Privileges.SeccompOpts.SeccompMode
        CUSTOM: Privileges.SeccompOpts.SeccompMode
        MODE_FIELD_NUMBER: _ClassVar[int]
        PROFILE_FIELD_NUMBER: _ClassVar[int]
        mode: Privileges.SeccompOpts.SeccompMode
        profile: bytes
        def __init__(self, mode: _Optional[_Union[Privileges.SeccompOpts.SeccompMode, str]] = ..., profile: _Optional[bytes] = ...) -> None: ...
    class AppArmorOpts(_message.Message):
        __slots__ = ("mode",)
        class AppArmorMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = ()
            DEFAULT: _ClassVar[Privileges.AppArmorOpts.AppArmorMode]
            DISABLED: _ClassVar[Privileges.AppArmorOpts.AppArmorMode]
        DEFAULT: Privileges.AppArmorOpts.AppArmorMode
        DISABLED: Privileges.AppArmorOpts.AppArmorMode
        MODE_FIELD_NUMBER: _ClassVar[int]
        mode: Privileges.AppArmorOpts.AppArmorMode
        def __init__(self, mode: _Optional[_Union[Privileges.AppArmorOpts.AppArmorMode, str]] = ...) -> None: ...
    CREDENTIAL_SPEC_FIELD_NUMBER: _ClassVar[int]
    SELINUX_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SECCOMP_FIELD_NUMBER: _ClassVar[int]
    APPARMOR_FIELD_NUMBER: _ClassVar[int]
    NO_NEW_PRIVILEGES_FIELD_NUMBER: _ClassVar[int]
    credential_spec: Privileges.CredentialSpec
    selinux_context: Privileges.SELinuxContext
    seccomp: Privileges.SeccompOpts
    apparmor: Privileges.AppArmorOpts
    no_new_privileges: bool
    def __init__(self, credential_spec: _Optional[_Union[Privileges.CredentialSpec, _Mapping]] = ..., selinux_context: _Optional[_Union[Privileges.SELinuxContext, _Mapping]] = ..., seccomp: _Optional[_Union[Privileges.SeccompOpts, _Mapping]] = ..., apparmor: _Optional[_Union[Privileges.AppArmorOpts, _Mapping]] = ..., no_new_privileges: _Optional[bool] = ...) -> None: ...

class JobStatus(_message.Message):
    __slots__ = ("job_iteration", "last_execution")
    JOB_ITERATION_FIELD_NUMBER: _ClassVar[int]
    LAST_EXECUTION_FIELD_NUMBER: _ClassVar[int]
    job_iteration: Version
    last_execution: _timestamp_pb2.Timestamp
    def __init__(self, job_iteration: _Optional[_Union[Version, _Mapping]] = ..., last_execution: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class VolumeAccessMode(_message.Message):
    __slots__ = ("scope", "sharing", "block", "mount")
    class Scope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        SINGLE_NODE: _ClassVar[VolumeAccessMode.Scope]
        MULTI_NODE: _ClassVar[VolumeAccessMode.Scope]
    SINGLE_NODE: VolumeAccessMode.Scope
    MULTI_NODE: VolumeAccessMode.Scope
    class Sharing(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        NONE: _ClassVar[VolumeAccessMode.Sharing]
        READ_ONLY: _ClassVar[VolumeAccessMode.Sharing]
        ONE_WRITER: _ClassVar[VolumeAccessMode.Sharing]
        ALL: _ClassVar[VolumeAccessMode.Sharing]
    NONE: VolumeAccessMode.Sharing
    READ_ONLY: VolumeAccessMode.Sharing
    ONE_WRITER: VolumeAccessMode.Sharing
    ALL: VolumeAccessMode.Sharing
    class BlockVolume(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class MountVolume(_message.Message):
        __slots__ = ("fs_type", "mount_flags")
        FS_TYPE_FIELD_NUMBER: _ClassVar[int]
        MOUNT_FLAGS_FIELD_NUMBER: _ClassVar[int]
        fs_type: str
        mount_flags: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, fs_type: _Optional[str] = ..., mount_flags: _Optional[_Iterable[str]] = ...) -> None: ...
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    SHARING_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    MOUNT_FIELD_NUMBER: _ClassVar[int]
    scope: VolumeAccessMode.Scope
    sharing: VolumeAccessMode.Sharing
    block: VolumeAccessMode.BlockVolume
    mount: VolumeAccessMode.MountVolume
    def __init__(self, scope: _Optional[_Union[VolumeAccessMode.Scope, str]] = ..., sharing: _Optional[_Union[VolumeAccessMode.Sharing, str]] = ..., block: _Optional[_Union[VolumeAccessMode.BlockVolume, _Mapping]] = ..., mount: _Optional[_Union[VolumeAccessMode.MountVolume, _Mapping]] = ...) -> None: ...

class VolumeSecret(_message.Message):
    __slots__ = ("key", "secret")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    key: str
    secret: str
    def __init__(self, key: _Optional[str] = ..., secret: _Optional[str] = ...) -> None: ...

class VolumePublishStatus(_message.Message):
    __slots__ = ("node_id", "state", "publish_context", "message")
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PENDING_PUBLISH: _ClassVar[VolumePublishStatus.State]
        PUBLISHED: _ClassVar[VolumePublishStatus.State]
        PENDING_NODE_UNPUBLISH: _ClassVar[VolumePublishStatus.State]
        PENDING_UNPUBLISH: _ClassVar[VolumePublishStatus.State]
    PENDING_PUBLISH: VolumePublishStatus.State
    PUBLISHED: VolumePublishStatus.State
    PENDING_NODE_UNPUBLISH: VolumePublishStatus.State
    PENDING_UNPUBLISH: VolumePublishStatus.State
    class PublishContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    state: VolumePublishStatus.State
    publish_context: _containers.ScalarMap[str, str]
    message: str
    def __init__(self, node_id: _Optional[str] = ..., state: _Optional[_Union[VolumePublishStatus.State, str]] = ..., publish_context: _Optional[_Mapping[str, str]] = ..., message: _Optional[str] = ...) -> None: ...

class VolumeInfo(_message.Message):
    __slots__ = ("capacity_bytes", "volume_context", "volume_id", "accessible_topology")
    class VolumeContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    VOLUME_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    ACCESSIBLE_TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    capacity_bytes: int
    volume_context: _containers.ScalarMap[str, str]
    volume_id: str
    accessible_topology: _containers.RepeatedCompositeFieldContainer[Topology]
    def __init__(self, capacity_bytes: _Optional[int] = ..., volume_context: _Optional[_Mapping[str, str]] = ..., volume_id: _Optional[str] = ..., accessible_topology: _Optional[_Iterable[_Union[Topology, _Mapping]]] = ...) -> None: ...

class CapacityRange(_message.Message):
    __slots__ = ("required_bytes", "limit_bytes")
    REQUIRED_BYTES_FIELD_NUMBER: _ClassVar[int]
    LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    required_bytes: int
    limit_bytes: int
    def __init__(self, required_bytes: _Optional[int] = ..., limit_bytes: _Optional[int] = ...) -> None: ...

class VolumeAssignment(_message.Message):
    __slots__ = ("id", "volume_id", "driver", "volume_context", "publish_context", "access_mode", "secrets")
    class VolumeContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class PublishContextEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    VOLUME_ID_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    VOLUME_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ACCESS_MODE_FIELD_NUMBER: _ClassVar[int]
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    id: str
    volume_id: str
    driver: Driver
    volume_context: _containers.ScalarMap[str, str]
    publish_context: _containers.ScalarMap[str, str]
    access_mode: VolumeAccessMode
    secrets: _containers.RepeatedCompositeFieldContainer[VolumeSecret]
    def __init__(self, id: _Optional[str] = ..., volume_id: _Optional[str] = ..., driver: _Optional[_Union[Driver, _Mapping]] = ..., volume_context: _Optional[_Mapping[str, str]] = ..., publish_context: _Optional[_Mapping[str, str]] = ..., access_mode: _Optional[_Union[VolumeAccessMode, _Mapping]] = ..., secrets: _Optional[_Iterable[_Union[VolumeSecret, _Mapping]]] = ...) -> None: ...

class VolumeAttachment(_message.Message):
    __slots__ = ("id", "source", "target")
    ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    id: str
    source: str
    target: str
    def __init__(self, id: _Optional[str] = ..., source: _Optional[str] = ..., target: _Optional[str] = ...) -> None: ...

class TopologyRequirement(_message.Message):
    __slots__ = ("requisite", "preferred")
    REQUISITE_FIELD_NUMBER: _ClassVar[int]
    PREFERRED_FIELD_NUMBER: _ClassVar[int]
    requisite: _containers.RepeatedCompositeFieldContainer[Topology]
    preferred: _containers.RepeatedCompositeFieldContainer[Topology]
    def __init__(self, requisite: _Optional[_Iterable[_Union[Topology, _Mapping]]] = ..., preferred: _Optional[_Iterable[_Union[Topology, _Mapping]]] = ...) -> None: ...

class Topology(_message.Message):
    __slots__ = ("segments",)
    class SegmentsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SEGMENTS_FIELD_NUMBER: _ClassVar[int]
    segments: _containers.ScalarMap[str, str]
    def __init__(self, segments: _Optional[_Mapping[str, str]] = ...) -> None: ...

class VolumeCapability(_message.Message):
    __slots__ = ("block", "mount", "access_mode")
    class BlockVolume(_message.Message):
        __slots__ = ()
        def __init__(self) -> None: ...
    class MountVolume(_message.Message):
        __slots__ = ("fs_type", "mount_flags")
        FS_TYPE_FIELD_NUMBER: _ClassVar[int]
        MOUNT_FLAGS_FIELD_NUMBER: _ClassVar[int]
        fs_type: str
        mount_flags: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, fs_type: _Optional[str] = ..., mount_flags: _Optional[_Iterable[str]] = ...) -> None: ...
    class AccessMode(_message.Message):
        __slots__ = ("mode",)
        class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
            __slots__ = ()
            UNKNOWN: _ClassVar[VolumeCapability.AccessMode.Mode]
            SINGLE_NODE_WRITER: _ClassVar[VolumeCapability.AccessMode.Mode]
            SINGLE_NODE_READER_ONLY: _ClassVar[VolumeCapability.AccessMode.Mode]
            MULTI_NODE_READER_ONLY: _ClassVar[VolumeCapability.AccessMode.Mode]
            MULTI_NODE_SINGLE_WRITER: _ClassVar[VolumeCapability.AccessMode.Mode]
            MULTI_NODE_MULTI_WRITER: _ClassVar[VolumeCapability.AccessMode.Mode]
        UNKNOWN: VolumeCapability.AccessMode.Mode
        SINGLE_NODE_WRITER: VolumeCapability.AccessMode.Mode
        SINGLE_NODE_READER_ONLY: VolumeCapability.AccessMode.Mode
        MULTI_NODE_READER_ONLY: VolumeCapability.AccessMode.Mode
        MULTI_NODE_SINGLE_WRITER: VolumeCapability.AccessMode.Mode
        MULTI_NODE_MULTI_WRITER: VolumeCapability.AccessMode.Mode
        MODE_FIELD_NUMBER: _ClassVar[int]
        mode: VolumeCapability.AccessMode.Mode
        def __init__(self, mode: _Optional[_Union[VolumeCapability.AccessMode.Mode, str]] = ...) -> None: ...
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    MOUNT_FIELD_NUMBER: _ClassVar[int]
    ACCESS_MODE_FIELD_NUMBER: _ClassVar[int]
    block: VolumeCapability.BlockVolume
    mount: VolumeCapability.MountVolume
    access_mode: VolumeCapability.AccessMode
    def __init__(self, block: _Optional[_Union[VolumeCapability.BlockVolume, _Mapping]] = ..., mount: _Optional[_Union[VolumeCapability.MountVolume, _Mapping]] = ..., access_mode: _Optional[_Union[VolumeCapability.AccessMode, _Mapping]] = ...) -> None: ...
