import datetime

from google.protobuf import any_pb2 as _any_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from runtime.wire.pb import specs_pb2 as _specs_pb2
from runtime.wire.pb import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Meta(_message.Message):
    __slots__ = ("version", "created_at", "updated_at")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    UPDATED_AT_FIELD_NUMBER: _ClassVar[int]
    version: _types_pb2.Version
    created_at: _timestamp_pb2.Timestamp
    updated_at: _timestamp_pb2.Timestamp
    def __init__(self, version: _Optional[_Union[_types_pb2.Version, _Mapping]] = ..., created_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., updated_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("id", "meta", "spec", "description", "status", "manager_status", "attachment", "certificate", "role", "attachments", "VXLANUDPPort")
    ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MANAGER_STATUS_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENT_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    VXLANUDPPORT_FIELD_NUMBER: _ClassVar[int]
    id: str
    meta: Meta
    spec: _specs_pb2.NodeSpec
    description: _types_pb2.NodeDescription
    status: _types_pb2.NodeStatus
    manager_status: _types_pb2.ManagerStatus
    attachment: NetworkAttachment
    certificate: _types_pb2.Certificate
    role: _types_pb2.NodeRole
    attachments: _containers.RepeatedCompositeFieldContainer[NetworkAttachment]
    VXLANUDPPort: int
    def __init__(self, id: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ..., spec: _Optional[_Union[_specs_pb2.NodeSpec, _Mapping]] = ..., description: _Optional[_Union[_types_pb2.NodeDescription, _Mapping]] = ..., status: _Optional[_Union[_types_pb2.NodeStatus, _Mapping]] = ..., manager_status: _Optional[_Union[_types_pb2.ManagerStatus, _Mapping]] = ..., attachment: _Optional[_Union[NetworkAttachment, _Mapping]] = ..., certificate: _Optional[_Union[_types_pb2.Certificate, _Mapping]] = ..., role: _Optional[_Union[_types_pb2.NodeRole, str]] = ..., attachments: _Optional[_Iterable[_Union[NetworkAttachment, _Mapping]]] = ..., VXLANUDPPort: _Optional[int] = ...) -> None: ...

class Service(_message.Message):
    __slots__ = ("id", "meta", "spec", "spec_version", "previous_spec", "previous_spec_version", "endpoint", "update_status", "job_status", "pending_delete")
    ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    SPEC_VERSION_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_SPEC_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_SPEC_VERSION_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_STATUS_FIELD_NUMBER: _ClassVar[int]
    JOB_STATUS_FIELD_NUMBER: _ClassVar[int]
    PENDING_DELETE_FIELD_NUMBER: _ClassVar[int]
    id: str
    meta: Meta
    spec: _specs_pb2.ServiceSpec
    spec_version: _types_pb2.Version
    previous_spec: _specs_pb2.ServiceSpec
    previous_spec_version: _types_pb2.Version
    endpoint: Endpoint
    update_status: _types_pb2.UpdateStatus
    job_status: _types_pb2.JobStatus
    pending_delete: bool
    def __init__(self, id: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ..., spec: _Optional[_Union[_specs_pb2.ServiceSpec, _Mapping]] = ..., spec_version: _Optional[_Union[_types_pb2.Version, _Mapping]] = ..., previous_spec: _Optional[_Union[_specs_pb2.ServiceSpec, _Mapping]] = ..., previous_spec_version: _Optional[_Union[_types_pb2.Version, _Mapping]] = ..., endpoint: _Optional[_Union[Endpoint, _Mapping]] = ..., update_status: _Optional[_Union[_types_pb2.UpdateStatus, _Mapping]] = ..., job_status: _Optional[_Union[_types_pb2.JobStatus, _Mapping]] = ..., pending_delete: _Optional[bool] = ...) -> None: ...

class Endpoint(_message.Message):
    __slots__ = ("spec", "ports", "virtual_ips")
    class VirtualIP(_message.Message):
        __slots__ = ("network_id", "addr")
        NETWORK_ID_FIELD_NUMBER: _ClassVar[int]
        ADDR_FIELD_NUMBER: _ClassVar[int]
        network_id: str
        addr: str
        def __init__(self, network_id: _Optional[str] = ..., addr: _Optional[str] = ...) -> None: ...
    SPEC_FIELD_NUMBER: _ClassVar[int]
    PORTS_FIELD_NUMBER: _ClassVar[int]
    VIRTUAL_IPS_FIELD_NUMBER: _ClassVar[int]
    spec: _specs_pb2.EndpointSpec
    ports: _containers.RepeatedCompositeFieldContainer[_types_pb2.PortConfig]
    virtual_ips: _containers.RepeatedCompositeFieldContainer[Endpoint.VirtualIP]
    def __init__(self, spec: _Optional[_Union[_specs_pb2.EndpointSpec, _Mapping]] = ..., ports: _Optional[_Iterable[_Union[_types_pb2.PortConfig, _Mapping]]] = ..., virtual_ips: _Optional[_Iterable[_Union[Endpoint.VirtualIP, _Mapping]]] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("id", "meta", "spec", "spec_version", "service_id", "slot", "node_id", "annotations", "service_annotations", "status", "desired_state", "networks", "endpoint", "log_driver", "assigned_generic_resources", "job_iteration", "volumes")
    ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    SPEC_VERSION_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    DESIRED_STATE_FIELD_NUMBER: _ClassVar[int]
    NETWORKS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    LOG_DRIVER_FIELD_NUMBER: _ClassVar[int]
    ASSIGNED_GENERIC_RESOURCES_FIELD_NUMBER: _ClassVar[int]
    JOB_ITERATION_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    id: str
    meta: Meta
    spec: _specs_pb2.TaskSpec
    spec_version: _types_pb2.Version
    service_id: str
    slot: int
    node_id: str
    annotations: _types_pb2.Annotations
    service_annotations: _types_pb2.Annotations
    status: _types_pb2.TaskStatus
    desired_state: _types_pb2.TaskState
    networks: _containers.RepeatedCompositeFieldContainer[NetworkAttachment]
    endpoint: Endpoint
    log_driver: _types_pb2.Driver
    assigned_generic_resources: _containers.RepeatedCompositeFieldContainer[_types_pb2.GenericResource]
    job_iteration: _types_pb2.Version
    volumes: _containers.RepeatedCompositeFieldContainer[_types_pb2.VolumeAttachment]
    def __init__(self, id: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ..., spec: _Optional[_Union[_specs_pb2.TaskSpec, _Mapping]] = ..., spec_version: _Optional[_Union[_types_pb2.Version, _Mapping]] = ..., service_id: _Optional[str] = ..., slot: _Optional[int] = ..., node_id: _Optional[str] = ..., annotations: _Optional[_Union[_types_pb2.Annotations, _Mapping]] = ..., service_annotations: _Optional[_Union[_types_pb2.Annotations, _Mapping]] = ..., status: _Optional[_Union[_types_pb2.TaskStatus, _Mapping]] = ..., desired_state: _Optional[_Union[_types_pb2.TaskState, str]] = ..., networks: _Optional[_Iterable[_Union[NetworkAttachment, _Mapping]]] = ..., endpoint: _Optional[_Union[Endpoint, _Mapping]] = ..., log_driver: _Optional[_Union[_types_pb2.Driver, _Mapping]] = ..., assigned_generic_resources: _Optional[_Iterable[_Union[_types_pb2.GenericResource, _Mapping]]] = ..., job_iteration: _Optional[_Union[_types_pb2.Version, _Mapping]] = ..., volumes: _Optional[_Iterable[_Union[_types_pb2.VolumeAttachment, _Mapping]]] = ...) -> None: ...

class NetworkAttachment(_message.Message):
    __slots__ = ("network", "addresses", "aliases", "driver_attachment_opts")
    class DriverAttachmentOptsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NETWORK_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    ALIASES_FIELD_NUMBER: _ClassVar[int]
    DRIVER_ATTACHMENT_OPTS_FIELD_NUMBER: _ClassVar[int]
    network: Network
    addresses: _containers.RepeatedScalarFieldContainer[str]
    aliases: _containers.RepeatedScalarFieldContainer[str]
    driver_attachment_opts: _containers.ScalarMap[str, str]
    def __init__(self, network: _Optional[_Union[Network, _Mapping]] = ..., addresses: _Optional[_Iterable[str]] = ..., aliases: _Optional[_Iterable[str]] = ..., driver_attachment_opts: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Network(_message.Message):
    __slots__ = ("id", "meta", "spec", "driver_state", "ipam", "pending_delete", "extra")
    ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    DRIVER_STATE_FIELD_NUMBER: _ClassVar[int]
    IPAM_FIELD_NUMBER: _ClassVar[int]
    PENDING_DELETE_FIELD_NUMBER: _ClassVar[int]
    EXTRA_FIELD_NUMBER: _ClassVar[int]
    id: str
    meta: Meta
    spec: _specs_pb2.NetworkSpec
    driver_state: _types_pb2.Driver
    ipam: _types_pb2.IPAMOptions
    pending_delete: bool
    extra: _any_pb2.Any
    def __init__(self, id: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ..., spec: _Optional[_Union[_specs_pb2.NetworkSpec, _Mapping]] = ..., driver_state: _Optional[_Union[_types_pb2.Driver, _Mapping]] = ..., ipam: _Optional[_Union[_types_pb2.IPAMOptions, _Mapping]] = ..., pending_delete: _Optional[bool] = ..., extra: _Optional[_Union[_any_pb2.Any, _Mapping]] = ...) -> None: ...

class Cluster(_message.Message):
    __slots__ = ("id", "meta", "spec", "root_ca", "network_bootstrap_keys", "encryption_key_lamport_clock", "blacklisted_certificates", "unlock_keys", "fips", "defaultAddressPool", "subnetSize", "VXLANUDPPort")
    class BlacklistedCertificatesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _types_pb2.BlacklistedCertificate
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.BlacklistedCertificate, _Mapping]] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    ROOT_CA_FIELD_NUMBER: _ClassVar[int]
    NETWORK_BOOTSTRAP_KEYS_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_KEY_LAMPORT_CLOCK_FIELD_NUMBER: _ClassVar[int]
    BLACKLISTED_CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    UNLOCK_KEYS_FIELD_NUMBER: _ClassVar[int]
    FIPS_FIELD_NUMBER: _ClassVar[int]
    DEFAULTADDRESSPOOL_FIELD_NUMBER: _ClassVar[int]
    SUBNETSIZE_FIELD_NUMBER: _ClassVar[int]
    VXLANUDPPORT_FIELD_NUMBER: _ClassVar[int]
    id: str
    meta: Meta
    spec: _specs_pb2.ClusterSpec
    root_ca: _types_pb2.RootCA
    network_bootstrap_keys: _containers.RepeatedCompositeFieldContainer[_types_pb2.EncryptionKey]
    encryption_key_lamport_clock: int
    blacklisted_certificates: _containers.MessageMap[str, _types_pb2.BlacklistedCertificate]
    unlock_keys: _containers.RepeatedCompositeFieldContainer[_types_pb2.EncryptionKey]
    fips: bool
    defaultAddressPool: _containers.RepeatedScalarFieldContainer[str]
    subnetSize: int
    VXLANUDPPort: int
    def __init__(self, id: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ..., spec: _Optional[_Union[_specs_pb2.ClusterSpec, _Mapping]] = ..., root_ca: _Optional[_Union[_types_pb2.RootCA, _Mapping]] = ..., network_bootstrap_keys: _Optional[_Iterable[_Union[_types_pb2.EncryptionKey, _Mapping]]] = ..., encryption_key_lamport_clock: _Optional[int] = ..., blacklisted_certificates: _Optional[_Mapping[str, _types_pb2.BlacklistedCertificate]] = ..., unlock_keys: _Optional[_Iterable[_Union[_types_pb2.EncryptionKey, _Mapping]]] = ..., fips: _Optional[bool] = ..., defaultAddressPool: _Optional[_Iterable[str]] = ..., subnetSize: _Optional[int] = ..., VXLANUDPPort: _Optional[int] = ...) -> None: ...

class Secret(_message.Message):
    __slots__ = ("id", "meta", "spec", "internal")
    ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    INTERNAL_FIELD_NUMBER: _ClassVar[int]
    id: str
    meta: Meta
    spec: _specs_pb2.SecretSpec
    internal: bool
    def __init__(self, id: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ..., spec: _Optional[_Union[_specs_pb2.SecretSpec, _Mapping]] = ..., internal: _Optional[bool] = ...) -> None: ...

class Config(_message.Message):
    __slots__ = ("id", "meta", "spec")
    ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    id: str
    meta: Meta
    spec: _specs_pb2.ConfigSpec
    def __init__(self, id: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ..., spec: _Optional[_Union[_specs_pb2.ConfigSpec, _Mapping]] = ...) -> None: ...

class Resource(_message.Message):
    __slots__ = ("id", "meta", "annotations", "kind", "payload")
    ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    id: str
    meta: Meta
    annotations: _types_pb2.Annotations
    kind: str
    payload: _any_pb2.Any
    def __init__(self, id: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ..., annotations: _Optional[_Union[_types_pb2.Annotations, _Mapping]] = ..., kind: _Optional[str] = ..., payload: _Optional[_Union[_any_pb2.Any, _Mapping]] = ...) -> None: ...

class Extension(_message.Message):
    __slots__ = ("id", "meta", "annotations", "description")
    ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    id: str
    meta: Meta
    annotations: _types_pb2.Annotations
    description: str
    def __init__(self, id: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ..., annotations: _Optional[_Union[_types_pb2.Annotations, _Mapping]] = ..., description: _Optional[str] = ...) -> None: ...

class Volume(_message.Message):
    __slots__ = ("id", "meta", "spec", "publish_status", "volume_info", "pending_delete")
    ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_STATUS_FIELD_NUMBER: _ClassVar[int]
    VOLUME_INFO_FIELD_NUMBER: _ClassVar[int]
    PENDING_DELETE_FIELD_NUMBER: _ClassVar[int]
    id: str
    meta: Meta
    spec: _specs_pb2.VolumeSpec
    publish_status: _containers.RepeatedCompositeFieldContainer[_types_pb2.VolumePublishStatus]
    volume_info: _types_pb2.VolumeInfo
    pending_delete: bool
    def __init__(self, id: _Optional[str] = ..., meta: _Optional[_Union[Meta, _Mapping]] = ..., spec: _Optional[_Union[_specs_pb2.VolumeSpec, _Mapping]] = ..., publish_status: _Optional[_Iterable[_Union[_types_pb2.VolumePublishStatus, _Mapping]]] = ..., volume_info: _Optional[_Union[_types_pb2.VolumeInfo, _Mapping]] = ..., pending_delete: _Optional[bool] = ...) -> None: ...
