"""The Engine API as this daemon serves it, as an OpenAPI 3.0 document made from the routes (``/openapi.json``).

Rules: every route is in it and nothing else; what a request may say is written here by hand, what a body may hold as
far as it is read. A route without an entry takes no query and no body.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from runtime.engine_api import versions

if TYPE_CHECKING:
    from runtime.engine_api.jsonio import JsonObject

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
FLAG: Final[Schema] = {"type": "boolean"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": (1 << 63) - 1}
NUMBER: Final[Schema] = {"type": "integer", "minimum": -(1 << 63), "maximum": (1 << 63) - 1}
LOOSE: Final[Schema] = {"type": "string", "enum": ["", "0", "1", "true", "false", "no", "none"]}
LABELS: Final[Schema] = {"type": "object", "additionalProperties": TEXT}
BASE64: Final[Schema] = {"type": "string", "format": "byte"}


def choice(*values: str) -> Schema:
    """One of some words."""
    return {"type": "string", "enum": list(values)}


def many(of: Schema) -> Schema:
    """An array, or null as Go writes an empty one."""
    return {"type": "array", "items": of, "nullable": True}


def thing(*required: str, **fields: Schema) -> Schema:
    """An object with these fields."""
    out: Schema = {"type": "object", "properties": fields}
    return {**out, "required": list(required)} if required else out


DRIVER: Final = thing(Name=TEXT, Options=LABELS)
UPDATE: Final = thing(
    Parallelism=COUNT,
    Delay=NUMBER,
    FailureAction=choice("", "pause", "continue", "rollback"),
    Monitor=NUMBER,
    MaxFailureRatio={"type": "number"},
    Order=choice("", "stop-first", "start-first"),
)
PORT: Final = thing(
    Name=TEXT,
    Protocol=choice("tcp", "udp", "sctp"),
    TargetPort={"type": "integer", "minimum": 0, "maximum": 65535},
    PublishedPort={"type": "integer", "minimum": 0, "maximum": 65535},
    PublishMode=choice("ingress", "host"),
)
FILE: Final = thing(Name=TEXT, UID=TEXT, GID=TEXT, Mode=COUNT)
MOUNT: Final = thing(
    Type=choice("bind", "volume", "tmpfs"),
    Source=TEXT,
    Target=TEXT,
    ReadOnly=FLAG,
    BindOptions=thing(Propagation=choice("", "rprivate", "shared"), NonRecursive=FLAG),
    VolumeOptions=thing(NoCopy=FLAG, Labels=LABELS, DriverConfig=DRIVER),
    TmpfsOptions=thing(SizeBytes=COUNT, Mode=COUNT),
)
CONTAINER: Final = thing(
    Image=TEXT,
    Labels=LABELS,
    Command=many(TEXT),
    Args=many(TEXT),
    Hostname=TEXT,
    Env=many(TEXT),
    Dir=TEXT,
    User=TEXT,
    Groups=many(TEXT),
    Init={**FLAG, "nullable": True},
    StopSignal=TEXT,
    TTY=FLAG,
    OpenStdin=FLAG,
    ReadOnly=FLAG,
    Mounts=many(MOUNT),
    StopGracePeriod=NUMBER,
    Healthcheck=thing(Test=many(TEXT), Interval=NUMBER, Timeout=NUMBER, StartPeriod=NUMBER, Retries=NUMBER),
    Hosts=many(TEXT),
    DNSConfig=thing(Nameservers=many(TEXT), Search=many(TEXT), Options=many(TEXT)),
    Secrets=many(thing(File=FILE, SecretID=TEXT, SecretName=TEXT)),
    Configs=many(thing(File=FILE, Runtime=thing(), ConfigID=TEXT, ConfigName=TEXT)),
    Isolation=choice("", "default", "process", "hyperv"),
    Sysctls=LABELS,
    CapabilityAdd=many(TEXT),
    CapabilityDrop=many(TEXT),
    Ulimits=many(thing(Name=TEXT, Hard=NUMBER, Soft=NUMBER)),
)
AMOUNTS: Final = {"NanoCPUs": NUMBER, "MemoryBytes": NUMBER}
TASK: Final = thing(
    ContainerSpec=CONTAINER,
    Resources=thing(Limits=thing(**AMOUNTS, Pids=NUMBER), Reservations=thing(**AMOUNTS)),
    RestartPolicy=thing(Condition=choice("none", "on-failure", "any"), Delay=NUMBER, MaxAttempts=COUNT, Window=NUMBER),
    Placement=thing(
        Constraints=many(TEXT),
        Preferences=many(thing(Spread=thing(SpreadDescriptor=TEXT))),
        MaxReplicas=COUNT,
        Platforms=many(thing(Architecture=TEXT, OS=TEXT)),
    ),
    Networks=many(thing(Target=TEXT, Aliases=many(TEXT), DriverOpts=LABELS)),
    LogDriver=DRIVER,
    ForceUpdate=COUNT,
    Runtime=choice("", "container", "plugin", "attachment"),
)
SERVICE: Final = thing(
    Name=TEXT,
    Labels=LABELS,
    TaskTemplate=TASK,
    Mode=thing(
        Replicated=thing(Replicas=COUNT),
        Global=thing(),
        ReplicatedJob=thing(MaxConcurrent=COUNT, TotalCompletions=COUNT),
        GlobalJob=thing(),
    ),
    UpdateConfig=UPDATE,
    RollbackConfig=UPDATE,
    EndpointSpec=thing(Mode=choice("", "vip", "dnsrr"), Ports=many(PORT)),
)
SWARM_SPEC: Final = thing(
    Name=choice("", "default"),
    Labels=LABELS,
    Orchestration=thing(TaskHistoryRetentionLimit=NUMBER),
    Raft=thing(
        SnapshotInterval=COUNT,
        KeepOldSnapshots=COUNT,
        LogEntriesForSlowFollowers=COUNT,
        ElectionTick=NUMBER,
        HeartbeatTick=NUMBER,
    ),
    Dispatcher=thing(HeartbeatPeriod=NUMBER),
    CAConfig=thing(
        NodeCertExpiry=NUMBER,
        ExternalCAs=many(thing(Protocol=TEXT, URL=TEXT, Options=LABELS, CACert=TEXT)),
        SigningCACert=TEXT,
        SigningCAKey=TEXT,
        ForceRotate=COUNT,
    ),
    TaskDefaults=thing(LogDriver=DRIVER),
    EncryptionConfig=thing(AutoLockManagers=FLAG),
)
WHERE: Final = {"ListenAddr": TEXT, "AdvertiseAddr": TEXT, "DataPathAddr": TEXT, "Availability": TEXT}
PAYLOAD: Final = thing(
    "Name", Name=TEXT, Labels=LABELS, Data=BASE64, Driver=DRIVER, Templating=thing(Name=choice("", "golang"))
)
NODE: Final = thing(
    "Role",
    "Availability",
    Name=TEXT,
    Labels=LABELS,
    Role=choice("worker", "manager"),
    Availability=choice("active", "pause", "drain"),
)
NETWORK: Final = thing(
    "Name",
    Name=TEXT,
    Driver=choice("overlay", "bridge", ""),
    Scope=choice("", "swarm"),
    EnableIPv6=FLAG,
    IPAM=thing(
        Driver=TEXT, Options=LABELS, Config=many(thing(Subnet=TEXT, IPRange=TEXT, Gateway=TEXT, AuxAddress=LABELS))
    ),
    Internal=FLAG,
    Attachable=FLAG,
    Ingress=FLAG,
    ConfigOnly=FLAG,
    Options=LABELS,
    Labels=LABELS,
)
BODIES: Final[dict[str, Schema]] = {
    "POST /swarm/init": thing(
        **WHERE,
        DataPathPort=COUNT,
        ForceNewCluster=FLAG,
        Spec=SWARM_SPEC,
        AutoLockManagers=FLAG,
        DefaultAddrPool=many(TEXT),
        SubnetSize=COUNT,
    ),
    "POST /swarm/join": thing(**WHERE, RemoteAddrs=many(TEXT), JoinToken=TEXT),
    "POST /swarm/update": SWARM_SPEC,
    "POST /swarm/unlock": thing(UnlockKey=TEXT),
    "POST /nodes/*/update": NODE,
    "POST /services/create": SERVICE,
    "POST /services/*/update": SERVICE,
    "POST /secrets/create": PAYLOAD,
    "POST /secrets/*/update": PAYLOAD,
    "POST /configs/create": PAYLOAD,
    "POST /configs/*/update": PAYLOAD,
    "POST /networks/create": NETWORK,
    "POST /volumes/create": thing(Name=TEXT, Driver=TEXT, DriverOpts=LABELS, Labels=LABELS, ClusterVolumeSpec=thing()),
    "POST /networks/*/connect": thing(Container=TEXT, EndpointConfig=thing()),
    "POST /networks/*/disconnect": thing(Container=TEXT, Force=FLAG),
    "POST /containers/*/exec": thing(
        "Cmd",
        Cmd=many(TEXT),
        Env=many(TEXT),
        WorkingDir=TEXT,
        User=TEXT,
        Tty=FLAG,
        AttachStdin=FLAG,
        AttachStdout=FLAG,
        AttachStderr=FLAG,
        Privileged=FLAG,
        DetachKeys=TEXT,
        ConsoleSize=many(COUNT),
    ),
    "POST /exec/*/start": thing(Detach=FLAG, Tty=FLAG, ConsoleSize=many(COUNT)),
}
FILTERS: Final[Schema] = {"type": "string", "description": 'JSON, {"key": {"value": true}} or {"key": ["value"]}'}
VERSION: Final[Schema] = COUNT
LOGS: Final[dict[str, Schema]] = {
    **dict.fromkeys(("stdout", "stderr", "follow", "timestamps", "details"), LOOSE),
    "since": TEXT,
    "tail": TEXT,
}
ROTATE: Final = ("rotateWorkerToken", "rotateManagerToken", "rotateManagerUnlockKey")
QUERIES: Final[dict[str, dict[str, Schema]]] = {
    **{f"GET /{kind}": {"filters": FILTERS} for kind in ("nodes", "tasks", "secrets", "configs", "networks")},
    **{f"POST /{kind}/*/update": {"version": VERSION} for kind in ("nodes", "secrets", "configs")},
    "GET /services": {"filters": FILTERS, "status": FLAG},
    "GET /services/*": {"insertDefaults": FLAG},
    "POST /services/*/update": {
        "version": VERSION,
        "registryAuthFrom": choice("spec", "previous-spec"),
        "rollback": choice("", "none", "previous"),
    },
    "POST /swarm/leave": {"force": LOOSE},
    "POST /swarm/update": {"version": VERSION, **dict.fromkeys(ROTATE, FLAG)},
    "DELETE /nodes/*": {"force": LOOSE},
    "GET /networks/*": {"scope": choice("", "swarm", "local", "global"), "verbose": FLAG},
    "POST /networks/prune": {"filters": FILTERS},
    "GET /services/*/logs": LOGS,
    "GET /tasks/*/logs": LOGS,
    "GET /containers/*/logs": LOGS,
    "GET /containers/json": {"all": LOOSE, "limit": NUMBER, "filters": FILTERS},
    "GET /containers/*/top": {"ps_args": TEXT},
    "GET /containers/*/stats": {"stream": LOOSE, "one-shot": LOOSE},
    "POST /containers/*/wait": {"condition": choice("", "not-running", "next-exit", "removed")},
    "POST /containers/*/kill": {"signal": TEXT},
    "POST /containers/*/attach": dict.fromkeys(("stream", "logs", "stdin", "stdout", "stderr"), LOOSE),
    **{f"POST /{what}/*/resize": {"h": COUNT, "w": COUNT} for what in ("containers", "exec")},
    "GET /images/json": {"filters": FILTERS},
    "GET /events": {"since": TEXT, "until": TEXT, "filters": FILTERS},
}
CONSISTENT: Final = "consistent"
"""Ours: whoever says so in a query reads every write that was acknowledged before, on any manager."""
OF_STORE: Final = frozenset(("configs", "networks", "nodes", "secrets", "services", "swarm", "tasks", "volumes"))
HEADERS: Final = {"POST /services/create": "X-Registry-Auth", "POST /services/*/update": "X-Registry-Auth"}
STREAMS: Final = (
    "GET /events", "GET /services/*/logs", "GET /tasks/*/logs", "GET /containers/*/logs", "GET /containers/*/stats",
    "POST /containers/*/wait", "POST /containers/*/attach", "POST /exec/*/start",
)  # fmt: skip
"""Answers that may go on for ever."""


def reads_store(parts: Sequence[str]) -> bool:
    """Whether the path of these parts is answered from the replicated store."""
    return parts[0] in OF_STORE


def document(routes: Iterable[str], version: str) -> JsonObject:
    """The document for these routes (``GET /services/*``), of a daemon of this version."""
    paths: dict[str, JsonObject] = {}
    for route in sorted(routes):
        method, _, path = route.partition(" ")
        paths.setdefault(path.replace("*", "{id}"), {})[method.lower()] = operation(route)
    return {
        "openapi": "3.0.3",
        "info": {"title": "swarmlet's Docker Engine API", "version": versions.NEWEST_TEXT, "description": version},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": {"Error": thing("message", message=TEXT)}},
    }


def operation(route: str) -> JsonObject:
    """One method of one path."""
    parameters = [_parameter(name, "query", schema) for name, schema in QUERIES.get(route, {}).items()]
    if "*" in route:
        parameters.insert(0, {**_parameter("id", "path", {**TEXT, "minLength": 1}), "required": True})
    if route in HEADERS:
        parameters.append(_parameter(HEADERS[route], "header", TEXT))
    method, _, path = route.partition(" ")
    if method == "GET" and reads_store(path.split("/")[1:]):
        parameters.append(_parameter(CONSISTENT, "query", FLAG))
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    out: JsonObject = {
        "operationId": route,
        "parameters": parameters,
        "responses": {"2XX": {"description": "done"}, "default": {"description": "refused", "content": error}},
    }
    if route in BODIES:
        out["requestBody"] = {"content": {"application/json": {"schema": BODIES[route]}}}
    return out


def _parameter(name: str, place: str, schema: Schema) -> JsonObject:
    return {"name": name, "in": place, "schema": schema}
