"""The daemon itself: ping, version, info, and the registry that this daemon does not ask."""

from __future__ import annotations

import asyncio
import datetime
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from runtime.engine_api import versions
from runtime.engine_api.call import TEXT_TYPE, Answer, Call, answer
from runtime.engine_api.convert import common, swarm
from runtime.engine_api.errors import ApiError
from runtime.engine_api.routes.containers import containers_of
from runtime.errors import Refused
from runtime.swarm.actor_spec import in_no_registry

if TYPE_CHECKING:
    from runtime.engine_api.backend import Backend, SystemInfo
    from runtime.engine_api.jsonio import JsonObject
    from runtime.protocol.cluster import SwarmInfo

TWO_MANAGERS: Final = (
    "WARNING: Running Swarm in a two-manager configuration. This configuration provides\n"
    "         no fault tolerance, and poses a high risk to lose control over the cluster.\n"
    "         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the\n"
    "         Swarm for fault-tolerance."
)
QUIET_STATES: Final = ("inactive", "locked", "error")
GO_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
FEATURES: Final = (
    "MemoryLimit",
    "SwapLimit",
    "CpuCfsPeriod",
    "CpuCfsQuota",
    "CPUShares",
    "CPUSet",
    "PidsLimit",
    "OomKillDisable",
    "IPv4Forwarding",
    "BridgeNfIptables",
    "BridgeNfIp6tables",
)
OF_THE_ENGINE: Final = (
    "Images", "CgroupDriver", "CgroupVersion", "DefaultRuntime", "LoggingDriver", "SecurityOptions", *FEATURES,
)  # fmt: skip
ENGINE_S: Final = 2.0
"""So long the information about this node waits for its container engine."""
PING_HEADERS: Final = {"Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache"}


async def ping(call: Call) -> Answer:
    """``/_ping``: how clients learn the API version and whether this node is a manager."""
    headers = {**PING_HEADERS, "Builder-Version": "1"}
    if status := await call.backend.swarm_status():
        headers["Swarm"] = status
    if call.method == "HEAD":
        return Answer(200, b"", TEXT_TYPE, {**headers, "Content-Length": "0"})
    return Answer(200, b"OK", TEXT_TYPE, headers)


async def version(call: Call) -> Answer:
    """``GET /version``."""
    return answer(version_to_json(await call.backend.system()))


def version_to_json(system: SystemInfo) -> JsonObject:
    """The versions of the daemon and of the API. ``GoVersion`` is the field clients print; it names the interpreter."""
    details = {
        "ApiVersion": versions.NEWEST_TEXT,
        "Arch": GO_ARCHITECTURES.get(system.architecture, system.architecture),
        "BuildTime": system.build_time,
        "Experimental": "false",
        "GitCommit": system.git_commit,
        "GoVersion": f"python{platform.python_version()}",
        "KernelVersion": system.kernel_version,
        "MinAPIVersion": versions.OLDEST_TEXT,
        "Os": system.os_type,
    }
    return {
        "Platform": {"Name": "swarmlet"},
        "Components": [{"Name": "Engine", "Version": system.server_version, "Details": details}],
        "Version": system.server_version,
        **{key: value for key, value in details.items() if key != "Experimental"},
    }


async def info(call: Call) -> Answer:
    """``GET /info``: answered in every state of the swarm."""
    swarm_info = await call.backend.swarm_info()
    shown = info_to_json(await call.backend.system(), swarm_info, await _states(call.backend))
    return answer({**shown, **await _engines(call.backend)})


async def _engines(backend: Backend) -> JsonObject:
    """What the engine that runs the containers knows better; nothing where it does not say so at once."""
    try:
        found = await asyncio.wait_for(backend.engine("/info", {}), ENGINE_S) or {}
    except (ApiError, Refused, TimeoutError):
        return {}
    return {key: found[key] for key in OF_THE_ENGINE if key in found}


async def _states(backend: Backend) -> list[str]:
    """The states of this node's containers; none where the agent does not answer, as info never fails."""
    try:
        return [each.state for each in await containers_of(backend)]
    except Refused:
        return []


def info_to_json(system: SystemInfo, info: SwarmInfo, states: Sequence[str] = ()) -> JsonObject:
    """The host, the daemon and its swarm. Warnings about the swarm stand in both places where clients look."""
    swarm_json = swarm_info_to_json(info)
    return {
        "ID": system.daemon_id,
        "Containers": len(states),
        "ContainersRunning": states.count("running"),
        "ContainersPaused": 0,
        "ContainersStopped": len(states) - states.count("running"),
        "Images": len(system.image_names),
        "Driver": system.executor,
        "Plugins": {"Authorization": None, **{kind: _plugins(system, kind) for kind in ("Volume", "Network", "Log")}},
        **{flag: flag in system.features for flag in FEATURES},
        "DriverStatus": [],
        "SecurityOptions": [],
        "SystemTime": datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z"),
        "KernelVersion": system.kernel_version,
        "OperatingSystem": system.operating_system,
        "OSType": system.os_type,
        "Architecture": system.architecture,
        "NCPU": system.ncpu,
        "MemTotal": system.mem_total,
        "DockerRootDir": system.root_dir,
        "Name": system.name,
        "Labels": list(system.labels),
        "ExperimentalBuild": False,
        "ServerVersion": system.server_version,
        "Swarm": swarm_json,
        "LiveRestoreEnabled": False,
        "Warnings": [*system.warnings, *swarm_json.get("Warnings", ())] or None,
    }


def _plugins(system: SystemInfo, kind: str) -> list[str]:
    return sorted(name for each, name in system.plugins if each == kind)


def swarm_info_to_json(info: SwarmInfo) -> JsonObject:
    """What this node knows of its swarm."""
    managers = [{"NodeID": manager.node_id, "Addr": manager.addr} for manager in info.remote_managers]
    out: JsonObject = {
        "NodeID": info.node_id,
        "NodeAddr": info.node_addr,
        "LocalNodeState": info.local_node_state,
        "ControlAvailable": info.control_available,
        "Error": info.error,
        "RemoteManagers": managers or None,
    }
    common.keep(out, Nodes=info.nodes, Managers=info.managers)
    if info.cluster is not None:
        out["Cluster"] = swarm.cluster_to_json(info.cluster)
    two = info.managers == 2 and info.local_node_state not in QUIET_STATES
    common.keep(out, Warnings=[*info.warnings, *([TWO_MANAGERS] if two else [])])
    return out


async def distribution(call: Call) -> Answer:
    """``GET /distribution/{name}/json``: what a client makes a tag into before it sends a spec.

    No registry is asked, because a slow answer would delay every service create: clients are refused at once, warn, and
    go on. Processes and actors have no image that a registry could know: an answer without a digest leaves the name as
    it is, without a warning.
    """
    name = "/".join(call.parts[1:-1])
    if in_no_registry(name):
        return answer({"Descriptor": {"MediaType": "", "Digest": "", "Size": 0}, "Platforms": []})
    raise ApiError(404, f"{name}: this daemon asks no registry; images are resolved where tasks run")


ROUTES = {
    "GET /_ping": ping,
    "HEAD /_ping": ping,
    "GET /version": version,
    "GET /info": info,
}
