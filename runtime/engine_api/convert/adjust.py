"""What a service spec loses because the client speaks an older API than the field.

Rule: an older client cannot have meant a field it does not know, so the field is dropped before conversion. The body
is the request's own, freshly parsed, and is changed in place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.engine_api.jsonio import JsonObject
    from runtime.engine_api.versions import Version


def adjust_service_spec(spec: JsonObject, version: Version) -> None:
    """Drop from ``spec`` what ``version`` does not know, and put old networks where they belong now.

    Wrong JSON types are left for the conversion to refuse.
    """
    task = _object(spec, "TaskTemplate")
    container, resources = _object(task, "ContainerSpec"), _object(task, "Resources")
    if version < (1, 52):
        _drop(resources, "SwapBytes", "MemorySwappiness")
    if version < (1, 46):
        _drop(container, "OomScoreAdj")
        for mount in _objects(container, "Mounts"):
            _drop(_object(mount, "TmpfsOptions"), "Options")
    if version < (1, 44):
        _below_1_44(spec, task, container)
    if version < (1, 41):
        _drop(container, "CapabilityAdd", "CapabilityDrop", "Ulimits")
        _drop(_object(resources, "Limits"), "Pids")
        _drop(_object(spec, "Mode"), "ReplicatedJob", "GlobalJob")
    if version < (1, 40):
        _below_1_40(task, container)


def _below_1_44(spec: JsonObject, task: JsonObject, container: JsonObject) -> None:
    _drop(_object(container, "Privileges"), "Seccomp", "AppArmor", "NoNewPrivileges")
    _drop(_object(container, "Healthcheck"), "StartInterval")
    if spec.get("Networks") and not task.get("Networks") and isinstance(spec.get("TaskTemplate"), dict):
        task["Networks"] = spec["Networks"]


def _below_1_40(task: JsonObject, container: JsonObject) -> None:
    _drop(container, "Sysctls")
    _drop(_object(_object(container, "Privileges"), "CredentialSpec"), "Config")
    for config in _objects(container, "Configs"):
        _drop(config, "Runtime")
    _drop(_object(task, "Placement"), "MaxReplicas")


def _object(parent: JsonObject, key: str) -> JsonObject:
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def _objects(parent: JsonObject, key: str) -> list[Any]:
    value = parent.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _drop(target: JsonObject, *keys: str) -> None:
    for key in keys:
        target.pop(key, None)
