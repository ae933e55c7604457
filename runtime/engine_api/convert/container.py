"""Container specs: what a task of a service runs.

Rules: absent and empty are told apart where SwarmKit tells them apart (Init, StopGracePeriod, DNSConfig, Privileges,
Healthcheck); an unknown isolation is the default one; a secret without a file is stored and not shown.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from runtime.engine_api.convert import common, fields, mounts
from runtime.engine_api.errors import bad
from runtime.wire.pb import specs_pb2, types_pb2

if TYPE_CHECKING:
    from runtime.engine_api.jsonio import JsonObject

ISOLATIONS: Final[dict[str, Any]] = {"default": 0, "process": 1, "hyperv": 2}
ISOLATION_NAMES: Final = {number: name for name, number in ISOLATIONS.items()}
SECCOMP_MODES: Final[dict[str, Any]] = {"": 0, "default": 0, "unconfined": 1, "custom": 2}
SECCOMP_NAMES: Final = {0: "default", 1: "unconfined", 2: "custom"}
APPARMOR_MODES: Final[dict[str, Any]] = {"": 0, "default": 0, "disabled": 1}
APPARMOR_NAMES: Final = {0: "default", 1: "disabled"}
HEALTH_TIMES: Final = (
    ("Interval", "interval"),
    ("Timeout", "timeout"),
    ("StartPeriod", "start_period"),
    ("StartInterval", "start_interval"),
)


def container_from_json(obj: JsonObject, path: str) -> specs_pb2.ContainerSpec:
    """A container spec. Raises ApiError 400 in the engine's words for what cannot be converted."""
    spec = specs_pb2.ContainerSpec(
        image=fields.text(obj, "Image", path),
        labels=fields.mapping(obj, "Labels", path),
        command=fields.texts(obj, "Command", path),
        args=fields.texts(obj, "Args", path),
        hostname=fields.text(obj, "Hostname", path),
        env=fields.texts(obj, "Env", path),
        dir=fields.text(obj, "Dir", path),
        user=fields.text(obj, "User", path),
        groups=fields.texts(obj, "Groups", path),
        stop_signal=fields.text(obj, "StopSignal", path),
        tty=fields.flag(obj, "TTY", path),
        open_stdin=fields.flag(obj, "OpenStdin", path),
        read_only=fields.flag(obj, "ReadOnly", path),
        hosts=fields.texts(obj, "Hosts", path),
        isolation=ISOLATIONS.get(fields.text(obj, "Isolation", path).lower(), 0),
        sysctls=fields.mapping(obj, "Sysctls", path),
        capability_add=fields.texts(obj, "CapabilityAdd", path),
        capability_drop=fields.texts(obj, "CapabilityDrop", path),
        oom_score_adj=fields.integer(obj, "OomScoreAdj", path),
    )
    if obj.get("Init") is not None:
        spec.init.value = fields.flag(obj, "Init", path)
    grace = fields.maybe_integer(obj, "StopGracePeriod", path)
    if grace is not None:
        common.set_duration(spec.stop_grace_period, grace)
    _nested_from_json(spec, obj, path)
    return spec


def _nested_from_json(spec: specs_pb2.ContainerSpec, obj: JsonObject, path: str) -> None:
    for index, mount in enumerate(fields.children(obj, "Mounts", path)):
        spec.mounts.append(mounts.mount_from_json(mount, f"{path}Mounts[{index}]."))
    for index, ulimit in enumerate(fields.children(obj, "Ulimits", path)):
        inner = f"{path}Ulimits[{index}]."
        spec.ulimits.add(
            name=fields.text(ulimit, "Name", inner),
            soft=fields.integer(ulimit, "Soft", inner),
            hard=fields.integer(ulimit, "Hard", inner),
        )
    for index, reference in enumerate(fields.children(obj, "Secrets", path)):
        spec.secrets.append(secret_reference_from_json(reference, f"{path}Secrets[{index}]."))
    for index, reference in enumerate(fields.children(obj, "Configs", path)):
        spec.configs.append(config_reference_from_json(reference, f"{path}Configs[{index}]."))
    if (privileges := fields.child(obj, "Privileges", path)) is not None:
        privileges_from_json(spec.privileges, privileges, path + "Privileges.")
    if (health := fields.child(obj, "Healthcheck", path)) is not None:
        health_from_json(spec.healthcheck, health, path + "Healthcheck.")
    if (dns := fields.child(obj, "DNSConfig", path)) is not None:
        inner = path + "DNSConfig."
        spec.dns_config.SetInParent()
        spec.dns_config.nameservers.extend(fields.texts(dns, "Nameservers", inner))
        spec.dns_config.search.extend(fields.texts(dns, "Search", inner))
        spec.dns_config.options.extend(fields.texts(dns, "Options", inner))


def _file_from_json(obj: JsonObject, path: str) -> types_pb2.FileTarget:
    return types_pb2.FileTarget(
        name=fields.text(obj, "Name", path),
        uid=fields.text(obj, "UID", path),
        gid=fields.text(obj, "GID", path),
        mode=fields.u32(obj, "Mode", path),
    )


def secret_reference_from_json(obj: JsonObject, path: str) -> types_pb2.SecretReference:
    """A secret that the container gets, as a file if it says so."""
    reference = types_pb2.SecretReference(
        secret_id=fields.text(obj, "SecretID", path), secret_name=fields.text(obj, "SecretName", path)
    )
    if (file := fields.child(obj, "File", path)) is not None:
        reference.file.CopyFrom(_file_from_json(file, path + "File."))
    return reference


def config_reference_from_json(obj: JsonObject, path: str) -> types_pb2.ConfigReference:
    """A config that the container gets, as a file or for its runtime; exactly one of the two."""
    reference = types_pb2.ConfigReference(
        config_id=fields.text(obj, "ConfigID", path), config_name=fields.text(obj, "ConfigName", path)
    )
    file, runtime = fields.child(obj, "File", path), fields.child(obj, "Runtime", path)
    if file is not None and runtime is not None:
        raise bad("invalid Config: cannot specify both File and Runtime")
    if file is not None:
        reference.file.CopyFrom(_file_from_json(file, path + "File."))
    elif runtime is not None:
        reference.runtime.SetInParent()
    else:
        raise bad("invalid Config: either File or Runtime should be set")
    return reference


def privileges_from_json(target: types_pb2.Privileges, obj: JsonObject, path: str) -> None:
    """Security settings; an empty object is kept as one."""
    target.SetInParent()
    target.no_new_privileges = fields.flag(obj, "NoNewPrivileges", path)
    if (credential := fields.child(obj, "CredentialSpec", path)) is not None:
        _credential_from_json(target.credential_spec, credential, path + "CredentialSpec.")
    if (selinux := fields.child(obj, "SELinuxContext", path)) is not None:
        inner = path + "SELinuxContext."
        target.selinux_context.SetInParent()
        target.selinux_context.disable = fields.flag(selinux, "Disable", inner)
        for name in ("User", "Role", "Type", "Level"):
            setattr(target.selinux_context, name.lower(), fields.text(selinux, name, inner))
    if (seccomp := fields.child(obj, "Seccomp", path)) is not None:
        target.seccomp.SetInParent()
        target.seccomp.mode = _mode(seccomp, SECCOMP_MODES, "SeccompMode", path + "Seccomp.")
        target.seccomp.profile = fields.octets(seccomp, "Profile", path + "Seccomp.")
    if (apparmor := fields.child(obj, "AppArmor", path)) is not None:
        target.apparmor.SetInParent()
        target.apparmor.mode = _mode(apparmor, APPARMOR_MODES, "AppArmorMode", path + "AppArmor.")


def _mode(obj: JsonObject, modes: Mapping[str, Any], kind: str, path: str) -> Any:
    """An unknown mode is refused: running with less protection than asked would be the wrong reading of a typo."""
    asked = fields.text(obj, "Mode", path)
    if asked not in modes:
        raise bad(f'invalid {kind}: "{asked}"')
    return modes[asked]


def _credential_from_json(target: types_pb2.Privileges.CredentialSpec, obj: JsonObject, path: str) -> None:
    given = [
        (name, value) for name in ("config", "file", "registry") if (value := fields.text(obj, name.capitalize(), path))
    ]
    if not given:
        raise bad('invalid CredentialSpec: must either provide "file", "registry", or "config" for credential spec')
    if len(given) > 1:
        raise bad(f'invalid CredentialSpec: cannot specify both "{given[0][0]}" and "{given[1][0]}" credential specs')
    setattr(target, *given[0])


def health_from_json(target: types_pb2.HealthConfig, obj: JsonObject, path: str) -> None:
    """A health check; every duration is stored, zero or not."""
    target.test.extend(fields.texts(obj, "Test", path))
    target.retries = fields.integer(obj, "Retries", path, -fields.I32_MAX - 1, fields.I32_MAX)
    for name, attribute in HEALTH_TIMES:
        common.set_duration(getattr(target, attribute), fields.integer(obj, name, path))


def container_to_json(spec: specs_pb2.ContainerSpec) -> JsonObject:
    """A container spec as the engine shows it; pull credentials are never part of it."""
    out: JsonObject = {}
    common.keep(out, Image=spec.image, Labels=common.map_to_json(spec.labels))
    common.keep_list(out, "Command", spec.command)
    common.keep_list(out, "Args", spec.args)
    common.keep(out, Hostname=spec.hostname)
    common.keep_list(out, "Env", spec.env)
    common.keep(out, Dir=spec.dir, User=spec.user)
    common.keep_list(out, "Groups", spec.groups)
    if spec.HasField("privileges"):
        out["Privileges"] = privileges_to_json(spec.privileges)
    if spec.HasField("init"):
        out["Init"] = spec.init.value
    common.keep(out, StopSignal=spec.stop_signal, TTY=spec.tty, OpenStdin=spec.open_stdin, ReadOnly=spec.read_only)
    if spec.mounts:
        out["Mounts"] = [mounts.mount_to_json(mount) for mount in spec.mounts]
    if spec.HasField("stop_grace_period"):
        out["StopGracePeriod"] = common.duration_to_json(spec.stop_grace_period)
    if spec.HasField("healthcheck"):
        out["Healthcheck"] = health_to_json(spec.healthcheck)
    common.keep_list(out, "Hosts", spec.hosts)
    if spec.HasField("dns_config"):
        dns: JsonObject = {}
        out["DNSConfig"] = dns
        common.keep_list(dns, "Nameservers", spec.dns_config.nameservers)
        common.keep_list(dns, "Search", spec.dns_config.search)
        common.keep_list(dns, "Options", spec.dns_config.options)
    _references_to_json(out, spec)
    out["Isolation"] = ISOLATION_NAMES.get(spec.isolation, "default")
    common.keep(out, Sysctls=common.map_to_json(spec.sysctls))
    common.keep_list(out, "CapabilityAdd", spec.capability_add)
    common.keep_list(out, "CapabilityDrop", spec.capability_drop)
    if spec.ulimits:
        out["Ulimits"] = [{"Name": u.name, "Hard": u.hard, "Soft": u.soft} for u in spec.ulimits]
    common.keep(out, OomScoreAdj=spec.oom_score_adj)
    return out


def _file_to_json(file: types_pb2.FileTarget) -> JsonObject:
    return {"Name": file.name, "UID": file.uid, "GID": file.gid, "Mode": file.mode}


def _references_to_json(out: JsonObject, spec: specs_pb2.ContainerSpec) -> None:
    secrets = [
        {"File": _file_to_json(secret.file), "SecretID": secret.secret_id, "SecretName": secret.secret_name}
        for secret in spec.secrets
        if secret.HasField("file")
    ]
    configs = [
        {
            **({"File": _file_to_json(config.file)} if config.HasField("file") else {}),
            **({"Runtime": {}} if config.HasField("runtime") else {}),
            "ConfigID": config.config_id,
            "ConfigName": config.config_name,
        }
        for config in spec.configs
        if config.HasField("target")
    ]
    common.keep(out, Secrets=secrets, Configs=configs)


def privileges_to_json(privileges: types_pb2.Privileges) -> JsonObject:
    """Security settings; the two oldest show as null when they are not set."""
    credential, selinux = privileges.credential_spec, privileges.selinux_context
    out: JsonObject = {
        "CredentialSpec": {"Config": credential.config, "File": credential.file, "Registry": credential.registry}
        if privileges.HasField("credential_spec")
        else None,
        "SELinuxContext": {
            "Disable": selinux.disable,
            "User": selinux.user,
            "Role": selinux.role,
            "Type": selinux.type,
            "Level": selinux.level,
        }
        if privileges.HasField("selinux_context")
        else None,
    }
    if privileges.HasField("seccomp"):
        seccomp: JsonObject = {"Mode": SECCOMP_NAMES.get(privileges.seccomp.mode, "")}
        common.keep(seccomp, Profile=base64.b64encode(privileges.seccomp.profile).decode())
        out["Seccomp"] = seccomp
    if privileges.HasField("apparmor"):
        out["AppArmor"] = {"Mode": APPARMOR_NAMES.get(privileges.apparmor.mode, "")}
    out["NoNewPrivileges"] = privileges.no_new_privileges
    return out


def health_to_json(health: types_pb2.HealthConfig) -> JsonObject:
    """A health check, zero values left out."""
    out: JsonObject = {}
    common.keep_list(out, "Test", health.test)
    common.keep(out, **{name: common.duration_to_json(getattr(health, attribute)) for name, attribute in HEALTH_TIMES})
    common.keep(out, Retries=health.retries)
    return out
