"""Mounts of a container spec.

Rules: types and propagations are read in any case and written in lower case; an empty type is a bind mount.
Bind options that say nothing are dropped. Options that the engine's own conversion loses on the way in
(CreateMountpoint and the ReadOnly refinements) are kept: SwarmKit's messages have room for them.
Consistency, ImageOptions and ClusterOptions have no place in SwarmKit and are dropped.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from runtime.engine_api.convert import common, fields
from runtime.engine_api.errors import bad
from runtime.wire.pb import types_pb2

if TYPE_CHECKING:
    from runtime.engine_api.jsonio import JsonObject

TYPES: Final[dict[str, Any]] = {name.lower(): number for name, number in types_pb2.Mount.Type.items()}
TYPE_NAMES: Final = {number: name for name, number in TYPES.items()}
PROPAGATIONS: Final[dict[str, Any]] = {
    name.lower(): number for name, number in types_pb2.Mount.BindOptions.Propagation.items()
}
PROPAGATION_NAMES: Final = {number: name for name, number in PROPAGATIONS.items()}
BIND_FLAGS: Final = (
    ("NonRecursive", "nonrecursive"),
    ("CreateMountpoint", "createmountpoint"),
    ("ReadOnlyNonRecursive", "readonlynonrecursive"),
    ("ReadOnlyForceRecursive", "readonlyforcerecursive"),
)


def mount_from_json(obj: JsonObject, path: str) -> types_pb2.Mount:
    """One mount. Raises ApiError 400 for a type or a propagation that does not exist."""
    asked = fields.text(obj, "Type", path)
    kind = TYPES.get(asked.lower()) if asked else TYPES["bind"]
    if kind is None:
        raise bad(f'invalid MountType: "{asked}"')
    mount = types_pb2.Mount(
        type=kind,
        source=fields.text(obj, "Source", path),
        target=fields.text(obj, "Target", path),
        readonly=fields.flag(obj, "ReadOnly", path),
    )
    if bind := fields.child(obj, "BindOptions", path):
        _bind_from_json(mount, bind, path + "BindOptions.")
    if (volume := fields.child(obj, "VolumeOptions", path)) is not None:
        _volume_from_json(mount.volume_options, volume, path + "VolumeOptions.")
    if (tmpfs := fields.child(obj, "TmpfsOptions", path)) is not None:
        _tmpfs_from_json(mount.tmpfs_options, tmpfs, path + "TmpfsOptions.")
    return mount


def _bind_from_json(mount: types_pb2.Mount, obj: JsonObject, path: str) -> None:
    asked = fields.text(obj, "Propagation", path)
    propagation = PROPAGATIONS.get(asked.lower()) if asked else PROPAGATIONS["rprivate"]
    if propagation is None:
        raise bad(f'invalid MountPropagation: "{asked}"')
    options = types_pb2.Mount.BindOptions(propagation=propagation)
    for name, attribute in BIND_FLAGS:
        setattr(options, attribute, fields.flag(obj, name, path))
    if asked or options.ByteSize():
        mount.bind_options.CopyFrom(options)


def _volume_from_json(options: types_pb2.Mount.VolumeOptions, obj: JsonObject, path: str) -> None:
    options.SetInParent()
    options.nocopy = fields.flag(obj, "NoCopy", path)
    options.subpath = fields.text(obj, "Subpath", path)
    options.labels.update(fields.mapping(obj, "Labels", path))
    if (driver := fields.child(obj, "DriverConfig", path)) is not None:
        options.driver_config.CopyFrom(common.driver_from_json(driver, path + "DriverConfig."))


def _tmpfs_from_json(options: types_pb2.Mount.TmpfsOptions, obj: JsonObject, path: str) -> None:
    options.SetInParent()
    options.size_bytes = fields.integer(obj, "SizeBytes", path)
    options.mode = fields.u32(obj, "Mode", path)
    pairs = [fields.texts({"Options": pair}, "Options", path) for pair in fields.listing(obj, "Options", path)]
    if pairs:
        options.options = json.dumps(pairs, ensure_ascii=False, separators=(",", ":"))


def mount_to_json(mount: types_pb2.Mount) -> JsonObject:
    """One mount, empty fields left out."""
    out: JsonObject = {"Type": TYPE_NAMES.get(mount.type, "bind")}
    common.keep(out, Source=mount.source, Target=mount.target, ReadOnly=mount.readonly)
    if mount.HasField("bind_options"):
        bind: JsonObject = {"Propagation": PROPAGATION_NAMES.get(mount.bind_options.propagation, "rprivate")}
        common.keep(bind, **{name: getattr(mount.bind_options, attribute) for name, attribute in BIND_FLAGS})
        out["BindOptions"] = bind
    if mount.HasField("volume_options"):
        out["VolumeOptions"] = _volume_to_json(mount.volume_options)
    if mount.HasField("tmpfs_options"):
        tmpfs: JsonObject = {}
        options = mount.tmpfs_options
        common.keep(tmpfs, SizeBytes=options.size_bytes, Mode=options.mode, Options=_tmpfs_pairs(options.options))
        out["TmpfsOptions"] = tmpfs
    return out


def _volume_to_json(options: types_pb2.Mount.VolumeOptions) -> JsonObject:
    out: JsonObject = {}
    common.keep(out, NoCopy=options.nocopy, Labels=common.map_to_json(options.labels), Subpath=options.subpath)
    if options.HasField("driver_config"):
        out["DriverConfig"] = common.driver_to_json(options.driver_config)
    return out


def _tmpfs_pairs(stored: str) -> list[Any]:
    """The options as they were asked; what another manager stored in another form is not shown."""
    try:
        parsed = json.loads(stored) if stored else []
    except ValueError:
        return []
    return parsed if isinstance(parsed, list) else []
