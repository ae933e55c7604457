"""Mounts of a task in the engine's terms, checked as the engine's own swarm agent checks them.

Rules owned here: what can be told without looking at the machine is told before anything is made: REJECTED, in the
engine's words. Whether a source exists is for the engine to say.
"""

from __future__ import annotations

import json
from typing import Any, Final

from runtime.executor.port import Rejected
from runtime.wire.pb import types_pb2

Mount = types_pb2.Mount
KINDS: Final = {Mount.BIND: "bind", Mount.VOLUME: "volume", Mount.TMPFS: "tmpfs"}
PROPAGATIONS: Final = {number: name.lower() for name, number in Mount.BindOptions.Propagation.items()}
BIND_FLAGS: Final = (
    ("NonRecursive", "nonrecursive"),
    ("CreateMountpoint", "createmountpoint"),
    ("ReadOnlyNonRecursive", "readonlynonrecursive"),
    ("ReadOnlyForceRecursive", "readonlyforcerecursive"),
)


def check(mount: types_pb2.Mount) -> None:
    """``Rejected`` in the engine's words for a mount that can never be."""
    if not mount.target.startswith("/"):
        raise Rejected(f"invalid mount target, must be an absolute path: {mount.target}")
    if mount.type == Mount.BIND and not mount.source.startswith("/"):
        raise Rejected(f"invalid bind mount source, must be an absolute path: {mount.source}")
    if mount.type == Mount.VOLUME and mount.source.startswith("/"):
        raise Rejected(f"invalid volume mount source, must not be an absolute path: {mount.source}")
    if mount.type == Mount.TMPFS and mount.source:
        raise Rejected("invalid tmpfs source, source must be empty")
    if mount.type == Mount.NPIPE and not mount.source:
        raise Rejected("invalid npipe source, source must not be empty")
    if mount.type not in KINDS:
        names = {number: name.lower() for name, number in Mount.Type.items()}
        raise Rejected(f"invalid mount type: {names.get(mount.type, mount.type)}")


def to_json(mount: types_pb2.Mount) -> dict[str, Any]:
    """A checked mount as the engine takes it; what is not set is left out."""
    check(mount)
    out: dict[str, Any] = {"Type": KINDS[mount.type], "Target": mount.target}
    if mount.source:
        out["Source"] = mount.source
    if mount.readonly:
        out["ReadOnly"] = True
    if mount.type == Mount.BIND and mount.HasField("bind_options"):
        out["BindOptions"] = _bind(mount.bind_options)
    if mount.type == Mount.VOLUME and mount.HasField("volume_options"):
        out["VolumeOptions"] = _volume(mount.volume_options)
    if mount.type == Mount.TMPFS and mount.HasField("tmpfs_options"):
        out["TmpfsOptions"] = _tmpfs(mount.tmpfs_options)
    return out


def _bind(options: types_pb2.Mount.BindOptions) -> dict[str, Any]:
    flags = {name: True for name, attribute in BIND_FLAGS if getattr(options, attribute)}
    return {"Propagation": PROPAGATIONS.get(options.propagation, "rprivate"), **flags}


def _volume(options: types_pb2.Mount.VolumeOptions) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if options.nocopy:
        out["NoCopy"] = True
    if options.labels:
        out["Labels"] = dict(options.labels)
    if options.subpath:
        out["Subpath"] = options.subpath
    if options.HasField("driver_config"):
        out["DriverConfig"] = {"Name": options.driver_config.name, "Options": dict(options.driver_config.options)}
    return out


def _tmpfs(options: types_pb2.Mount.TmpfsOptions) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if options.size_bytes:
        out["SizeBytes"] = options.size_bytes
    if options.mode:
        out["Mode"] = options.mode
    if options.options:
        try:
            out["Options"] = json.loads(options.options)
        except ValueError:
            raise Rejected(f"invalid tmpfs options: {options.options}") from None
    return out


def file(source: str, target: str) -> dict[str, Any]:
    """A file of this machine that a container finds at ``target`` and cannot change."""
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": True}
