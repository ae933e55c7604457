import datetime

from google.protobuf import any_pb2 as _any_pb2
from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import wrappers_pb2 as _wrappers_pb2
from runtime.wire.pb import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NodeSpec(_message.Message):
    __slots__ = ("annotations", "desired_role", "membership", "availability")
    class Membership(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        PENDING: _ClassVar[NodeSpec.Membership]
        ACCEPTED: _ClassVar[NodeSpec.Membership]
    PENDING: NodeSpec.Membership
    ACCEPTED: NodeSpec.Membership
    class Availability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ACTIVE: _ClassVar[NodeSpec.Availability]
        PAUSE: _ClassVar[NodeSpec.Availability]
        DRAIN: _ClassVar[NodeSpec.Availability]
    ACTIVE: NodeSpec.Availability
    PAUSE: NodeSpec.Availability
    DRAIN: NodeSpec.Availability
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    DESIRED_ROLE_FIELD_NUMBER: _ClassVar[int]
    MEMBERSHIP_FIELD_NUMBER: _ClassVar[int]
    AVAILABILITY_FIELD_NUMBER: _ClassVar[int]
    annotations: _types_pb2.Annotations
    desired_role: _types_pb2.NodeRole
    membership: NodeSpec.Membership
    availability: NodeSpec.Availability
    def __init__(self, annotations: _Optional[_Union[_types_pb2.Annotations, _Mapping]] = ..., desired_role: _Optional[_Union[_types_pb2.NodeRole, str]] = ..., membership: _Optional[_Union[NodeSpec.Membership, str]] = ..., availability: _Optional[_Union[NodeSpec.Availability, str]] = ...) -> None: ...

class ServiceSpec(_message.Message):
    __slots__ = ("annotations", "task", "replicated", "replicated_job", "global_job", "update", "rollback", "networks", "endpoint")
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    REPLICATED_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_FIELD_NUMBER: _ClassVar[int]
    REPLICATED_JOB_FIELD_NUMBER: _ClassVar[int]
    GLOBAL_JOB_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    ROLLBACK_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    annotations: _types_pb2.Annotations
    task: TaskSpec
    replicated: ReplicatedService
    replicated_job: ReplicatedJob
    global_job: GlobalJob
    update: _types_pb2.UpdateConfig
    rollback: _types_pb2.UpdateConfig
    networks: _containers.RepeatedCompositeFieldContainer[_types_pb2.NetworkAttachmentConfig]
    endpoint: EndpointSpec
    def __init__(self, annotations: _Optional[_Union[_types_pb2.Annotations, _Mapping]] = ..., task: _Optional[_Union[TaskSpec, _Mapping]] = ..., replicated: _Optional[_Union[ReplicatedService, _Mapping]] = ..., replicated_job: _Optional[_Union[ReplicatedJob, _Mapping]] = ..., global_job: _Optional[_Union[GlobalJob, _Mapping]] = ..., update: _Optional[_Union[_types_pb2.UpdateConfig, _Mapping]] = ..., rollback: _Optional[_Union[_types_pb2.UpdateConfig, _Mapping]] = ..., networks: _Optional[_Iterable[_Union[_types_pb2.NetworkAttachmentConfig, _Mapping]]] = ..., endpoint: _Optional[_Union[EndpointSpec, _Mapping]] = ..., **kwargs) -> None: ...

class ReplicatedService(_message.Message):
    __slots__ = ("replicas",)
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    replicas: int
    def __init__(self, replicas: _Optional[int] = ...) -> None: ...

class GlobalService(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReplicatedJob(_message.Message):
    __slots__ = ("max_concurrent", "total_completions")
    MAX_CONCURRENT_FIELD_NUMBER: _ClassVar[int]
    TOTAL_COMPLETIONS_FIELD_NUMBER: _ClassVar[int]
    max_concurrent: int
    total_completions: int
    def __init__(self, max_concurrent: _Optional[int] = ..., total_completions: _Optional[int] = ...) -> None: ...

class GlobalJob(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TaskSpec(_message.Message):
    __slots__ = ("attachment", "container", "generic", "resources", "restart", "placement", "log_driver", "networks", "force_update", "resource_references")
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    GENERIC_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    LOG_DRIVER_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    FORCE_UPDATE_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_REFERENCES_FIELD_NUMBER: _ClassVar[int]
    attachment: NetworkAttachmentSpec
    container: ContainerSpec
    generic: GenericRuntimeSpec
    resources: _types_pb2.ResourceRequirements
    restart: _types_pb2.RestartPolicy
    placement: _types_pb2.Placement
    log_driver: _types_pb2.Driver
    networks: _containers.RepeatedCompositeFieldContainer[_types_pb2.NetworkAttachmentConfig]
    force_update: int
    resource_references: _containers.RepeatedCompositeFieldContainer[ResourceReference]
    def __init__(self, attachment: _Optional[_Union[NetworkAttachmentSpec, _Mapping]] = ..., container: _Optional[_Union[ContainerSpec, _Mapping]] = ..., generic: _Optional[_Union[GenericRuntimeSpec, _Mapping]] = ..., resources: _Optional[_Union[_types_pb2.ResourceRequirements, _Mapping]] = ..., restart: _Optional[_Union[_types_pb2.RestartPolicy, _Mapping]] = ..., placement: _Optional[_Union[_types_pb2.Placement, _Mapping]] = ..., log_driver: _Optional[_Union[_types_pb2.Driver, _Mapping]] = ..., networks: _Optional[_Iterable[_Union[_types_pb2.NetworkAttachmentConfig, _Mapping]]] = ..., force_update: _Optional[int] = ..., resource_references: _Optional[_Iterable[_Union[ResourceReference, _Mapping]]] = ...) -> None: ...

class ResourceReference(_message.Message):
    __slots__ = ("resource_id", "resource_type")
    RESOURCE_ID_FIELD_NUMBER: _ClassVar[int]
    RESOURCE_TYPE_FIELD_NUMBER: _ClassVar[int]
    resource_id: str
    resource_type: _types_pb2.ResourceType
    def __init__(self, resource_id: _Optional[str] = ..., resource_type: _Optional[_Union[_types_pb2.ResourceType, str]] = ...) -> None: ...

class GenericRuntimeSpec(_message.Message):
    __slots__ = ("kind", "payload")
    KIND_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    kind: str
    payload: _any_pb2.Any
    def __init__(self, kind: _Optional[str] = ..., payload: _Optional[_Union[_any_pb2.Any, _Mapping]] = ...) -> None: ...

class NetworkAttachmentSpec(_message.Message):
    __slots__ = ("container_id",)
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    container_id: str
    def __init__(self, container_id: _Optional[str] = ...) -> None: ...

class ContainerSpec(_message.Message):
    __slots__ = ("image", "labels", "command", "args", "hostname", "env", "dir", "user", "groups", "privileges", "init", "tty", "open_stdin", "read_only", "stop_signal", "mounts", "stop_grace_period", "pull_options", "secrets", "configs", "hosts", "dns_config", "healthcheck", "isolation", "pidsLimit", "sysctls", "capability_add", "capability_drop", "ulimits", "oom_score_adj")
    class Isolation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ISOLATION_DEFAULT: _ClassVar[ContainerSpec.Isolation]
        ISOLATION_PROCESS: _ClassVar[ContainerSpec.Isolation]
        ISOLATION_HYPERV: _ClassVar[ContainerSpec.Isolation]
    ISOLATION_DEFAULT: ContainerSpec.Isolation
    ISOLATION_PROCESS: ContainerSpec.Isolation
    ISOLATION_HYPERV: ContainerSpec.Isolation
    class PullOptions(_message.Message):
        __slots__ = ("registry_auth",)
        REGISTRY_AUTH_FIELD_NUMBER: _ClassVar[int]
        registry_auth: str
        def __init__(self, registry_auth: _Optional[str] = ...) -> None: ...
    class DNSConfig(_message.Message):
        __slots__ = ("nameservers", "search", "options")
        NAMESERVERS_FIELD_NUMBER: _ClassVar[int]
        SEARCH_FIELD_NUMBER: _ClassVar[int]
        OPTIONS_FIELD_NUMBER: _ClassVar[int]
        nameservers: _containers.RepeatedScalarFieldContainer[str]
        search: _containers.RepeatedScalarFieldContainer[str]
        options: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, nameservers: _Optional[_Iterable[str]] = ..., search: _Optional[_Iterable[str]] = ..., options: _Optional[_Iterable[str]] = ...) -> None: ...
    class Ulimit(_message.Message):
        __slots__ = ("name", "soft", "hard")
        NAME_FIELD_NUMBER: _ClassVar[int]
        SOFT_FIELD_NUMBER: _ClassVar[int]
        HARD_FIELD_NUMBER: _ClassVar[int]
        name: str
        soft: int
        hard: int
        def __init__(self, name: _Optional[str] = ..., soft: _Optional[int] = ..., hard: _Optional[int] = ...) -> None: ...
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class SysctlsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    ENV_FIELD_NUMBER: _ClassVar[int]
    DIR_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    PRIVILEGES_FIELD_NUMBER: _ClassVar[int]
    INIT_FIELD_NUMBER: _ClassVar[int]
    TTY_FIELD_NUMBER: _ClassVar[int]
    OPEN_STDIN_FIELD_NUMBER: _ClassVar[int]
    READ_ONLY_FIELD_NUMBER: _ClassVar[int]
    STOP_SIGNAL_FIELD_NUMBER: _ClassVar[int]
    MOUNTS_FIELD_NUMBER: _ClassVar[int]
    STOP_GRACE_PERIOD_FIELD_NUMBER: _ClassVar[int]
    PULL_OPTIONS_FIELD_NUMBER: _ClassVar[int]
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    CONFIGS_FIELD_NUMBER: _ClassVar[int]
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    DNS_CONFIG_FIELD_NUMBER: _ClassVar[int]
    HEALTHCHECK_FIELD_NUMBER: _ClassVar[int]
    ISOLATION_FIELD_NUMBER: _ClassVar[int]
    PIDSLIMIT_FIELD_NUMBER: _ClassVar[int]
    SYSCTLS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_ADD_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_DROP_FIELD_NUMBER: _ClassVar[int]
    ULIMITS_FIELD_NUMBER: _ClassVar[int]
    OOM_SCORE_ADJ_FIELD_NUMBER: _ClassVar[int]
    image: str
    labels: _containers.ScalarMap[str, str]
    command: _containers.RepeatedScalarFieldContainer[str]
    args: _containers.RepeatedScalarFieldContainer[str]
    hostname: str
    env: _containers.RepeatedScalarFieldContainer[str]
    dir: str
    user: str
    groups: _containers.RepeatedScalarFieldContainer[str]
    privileges: _types_pb2.Privileges
    init: _wrappers_pb2.BoolValue
    tty: bool
    open_stdin: bool
    read_only: bool
    stop_signal: str
    mounts: _containers.RepeatedCompositeFieldContainer[_types_pb2.Mount]
    stop_grace_period: _duration_pb2.Duration
    pull_options: ContainerSpec.PullOptions
    secrets: _containers.RepeatedCompositeFieldContainer[_types_pb2.SecretReference]
    configs: _containers.RepeatedCompositeFieldContainer[_types_pb2.ConfigReference]
    hosts: _containers.RepeatedScalarFieldContainer[str]
    dns_config: ContainerSpec.DNSConfig
    healthcheck: _types_pb2.HealthConfig
    isolation: ContainerSpec.Isolation
    pidsLimit: int
    sysctls: _containers.ScalarMap[str, str]
    capability_add: _containers.RepeatedScalarFieldContainer[str]
    capability_drop: _containers.RepeatedScalarFieldContainer[str]
    ulimits: _containers.RepeatedCompositeFieldContainer[ContainerSpec.Ulimit]
    oom_score_adj: int
    def __init__(self, image: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., command: _Optional[_Iterable[str]] = ..., args: _Optional[_Iterable[str]] = ..., hostname: _Optional[str] = ..., env: _Optional[_Iterable[str]] = ..., dir: _Optional[str] = ..., user: _Optional[str] = ..., groups: _Optional[_Iterable[str]] = ..., privileges: _Optional[_Union[_types_pb2.Privileges, _Mapping]] = ..., init: _Optional[_Union[_wrappers_pb2.BoolValue, _Mapping]] = ..., tty: _Optional[bool] = ..., open_stdin: _Optional[bool] = ..., read_only: _Optional[bool] = ..., stop_signal: _Optional[str] = ..., mounts: _Optional[_Iterable[_Union[_types_pb2.Mount, _Mapping]]] = ..., stop_grace_period: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., pull_options: _Optional[_Union[ContainerSpec.PullOptions, _Mapping]] = ..., secrets: _Optional[_Iterable[_Union[_types_pb2.SecretReference, _Mapping]]] = ..., configs: _Optional[_Iterable[_Union[_types_pb2.ConfigReference, _Mapping]]] = ..., hosts: _Optional[_Iterable[str]] = ..., dns_config: _Optional[_Union[ContainerSpec.DNSConfig, _Mapping]] = ..., healthcheck: _Optional[_Union[_types_pb2.HealthConfig, _Mapping]] = ..., isolation: _Optional[_Union[ContainerSpec.Isolation, str]] = ..., pidsLimit: _Optional[int] = ..., sysctls: _Optional[_Mapping[str, str]] = ..., capability_add: _Optional[_Iterable[str]] = ..., capability_drop: _Optional[_Iterable[str]] = ..., ulimits: _Optional[_Iterable[_Union[ContainerSpec.Ulimit, _Mapping]]] = ..., oom_score_adj: _Optional[int] = ...) -> None: ...

class EndpointSpec(_message.Message):
    __slots__ = ("mode", "ports")
    class ResolutionMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        VIP: _ClassVar[EndpointSpec.ResolutionMode]
        DNSRR: _ClassVar[EndpointSpec.ResolutionMode]
    VIP: EndpointSpec.ResolutionMode
    DNSRR: EndpointSpec.ResolutionMode
    MODE_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    mode: EndpointSpec.ResolutionMode
    ports: _containers.RepeatedCompositeFieldContainer[_types_pb2.PortConfig]
    def __init__(self, mode: _Optional[_Union[EndpointSpec.ResolutionMode, str]] = ..., ports: _Optional[_Iterable[_Union[_types_pb2.PortConfig, _Mapping]]] = ...) -> None: ...

class NetworkSpec(_message.Message):
    __slots__ = ("annotations", "driver_config", "ipv6_enabled", "internal", "ipam", "attachable", "ingress", "network")
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    DRIVER_CONFIG_FIELD_NUMBER: _ClassVar[int]
    IPV6_ENABLED_FIELD_NUMBER: _ClassVar[int]
    INTERNAL_FIELD_NUMBER: _ClassVar[int]
    IPAM_FIELD_NUMBER: _ClassVar[int]
    ATTACHABLE_FIELD_NUMBER: _ClassVar[int]
    INGRESS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    annotations: _types_pb2.Annotations
    driver_config: _types_pb2.Driver
    ipv6_enabled: bool
    internal: bool
    ipam: _types_pb2.IPAMOptions
    attachable: bool
    ingress: bool
    network: str
    def __init__(self, annotations: _Optional[_Union[_types_pb2.Annotations, _Mapping]] = ..., driver_config: _Optional[_Union[_types_pb2.Driver, _Mapping]] = ..., ipv6_enabled: _Optional[bool] = ..., internal: _Optional[bool] = ..., ipam: _Optional[_Union[_types_pb2.IPAMOptions, _Mapping]] = ..., attachable: _Optional[bool] = ..., ingress: _Optional[bool] = ..., network: _Optional[str] = ...) -> None: ...

class ClusterSpec(_message.Message):
    __slots__ = ("annotations", "acceptance_policy", "orchestration", "raft", "dispatcher", "ca_config", "task_defaults", "encryption_config")
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    ACCEPTANCE_POLICY_FIELD_NUMBER: _ClassVar[int]
    ORCHESTRATION_FIELD_NUMBER: _ClassVar[int]
    RAFT_FIELD_NUMBER: _ClassVar[int]
    DISPATCHER_FIELD_NUMBER: _ClassVar[int]
    CA_CONFIG_FIELD_NUMBER: _ClassVar[int]
    TASK_DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_CONFIG_FIELD_NUMBER: _ClassVar[int]
    annotations: _types_pb2.Annotations
    acceptance_policy: _types_pb2.AcceptancePolicy
    orchestration: _types_pb2.OrchestrationConfig
    raft: _types_pb2.RaftConfig
    dispatcher: _types_pb2.DispatcherConfig
    ca_config: _types_pb2.CAConfig
    task_defaults: _types_pb2.TaskDefaults
    encryption_config: _types_pb2.EncryptionConfig
    def __init__(self, annotations: _Optional[_Union[_types_pb2.Annotations, _Mapping]] = ..., acceptance_policy: _Optional[_Union[_types_pb2.AcceptancePolicy, _Mapping]] = ..., orchestration: _Optional[_Union[_types_pb2.OrchestrationConfig, _Mapping]] = ..., raft: _Optional[_Union[_types_pb2.RaftConfig, _Mapping]] = ..., dispatcher: _Optional[_Union[_types_pb2.DispatcherConfig, _Mapping]] = ..., ca_config: _Optional[_Union[_types_pb2.CAConfig, _Mapping]] = ..., task_defaults: _Optional[_Union[_types_pb2.TaskDefaults, _Mapping]] = ..., encryption_config: _Optional[_Union[_types_pb2.EncryptionConfig, _Mapping]] = ...) -> None: ...

class SecretSpec(_message.Message):
    __slots__ = ("annotations", "data", "templating", "driver")
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    TEMPLATING_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    annotations: _types_pb2.Annotations
    data: bytes
    templating: _types_pb2.Driver
    driver: _types_pb2.Driver
    def __init__(self, annotations: _Optional[_Union[_types_pb2.Annotations, _Mapping]] = ..., data: _Optional[bytes] = ..., templating: _Optional[_Union[_types_pb2.Driver, _Mapping]] = ..., driver: _Optional[_Union[_types_pb2.Driver, _Mapping]] = ...) -> None: ...

class ConfigSpec(_message.Message):
    __slots__ = ("annotations", "data", "templating")
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    TEMPLATING_FIELD_NUMBER: _ClassVar[int]
    annotations: _types_pb2.Annotations
    data: bytes
    templating: _types_pb2.Driver
    def __init__(self, annotations: _Optional[_Union[_types_pb2.Annotations, _Mapping]] = ..., data: _Optional[bytes] = ..., templating: _Optional[_Union[_types_pb2.Driver, _Mapping]] = ...) -> None: ...

class VolumeSpec(_message.Message):
    __slots__ = ("annotations", "group", "driver", "access_mode", "secrets", "AccessibilityRequirements", "capacity_range", "availability")
    class VolumeAvailability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ACTIVE: _ClassVar[VolumeSpec.VolumeAvailability]
        PAUSE: _ClassVar[VolumeSpec.VolumeAvailability]
        DRAIN: _ClassVar[VolumeSpec.VolumeAvailability]
    ACTIVE: VolumeSpec.VolumeAvailability
    PAUSE: VolumeSpec.VolumeAvailability
    DRAIN: VolumeSpec.VolumeAvailability
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    DRIVER_FIELD_NUMBER: _ClassVar[int]
    ACCESS_MODE_FIELD_NUMBER: _ClassVar[int]
    SECRETS_FIELD_NUMBER: _ClassVar[int]
    ACCESSIBILITYREQUIREMENTS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_RANGE_FIELD_NUMBER: _ClassVar[int]
    AVAILABILITY_FIELD_NUMBER: _ClassVar[int]
    annotations: _types_pb2.Annotations
    group: str
    driver: _types_pb2.Driver
    access_mode: _types_pb2.VolumeAccessMode
    secrets: _containers.RepeatedCompositeFieldContainer[_types_pb2.VolumeSecret]
    AccessibilityRequirements: _types_pb2.TopologyRequirement
    capacity_range: _types_pb2.CapacityRange
    availability: VolumeSpec.VolumeAvailability
    def __init__(self, annotations: _Optional[_Union[_types_pb2.Annotations, _Mapping]] = ..., group: _Optional[str] = ..., driver: _Optional[_Union[_types_pb2.Driver, _Mapping]] = ..., access_mode: _Optional[_Union[_types_pb2.VolumeAccessMode, _Mapping]] = ..., secrets: _Optional[_Iterable[_Union[_types_pb2.VolumeSecret, _Mapping]]] = ..., AccessibilityRequirements: _Optional[_Union[_types_pb2.TopologyRequirement, _Mapping]] = ..., capacity_range: _Optional[_Union[_types_pb2.CapacityRange, _Mapping]] = ..., availability: _Optional[_Union[VolumeSpec.VolumeAvailability, str]] = ...) -> None: ...
