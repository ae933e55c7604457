"""What many kinds of object share: times, durations, annotations, versions, drivers.

Rules: a missing time is Go's zero time where the field is always present; durations are integer nanoseconds;
labels are always an object; maps are written with their keys sorted.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from runtime.engine_api.convert import fields
from runtime.wire.pb import types_pb2

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

    from runtime.engine_api.jsonio import JsonObject
    from runtime.wire.pb.objects_pb2 import Meta

ZERO_TIME: Final = "0001-01-01T00:00:00Z"
_NANOS: Final = 1_000_000_000
_EPOCH: Final = datetime.datetime(1970, 1, 1)
_SECONDS: Final = (-62135596800, 253402300799)
"""The first and the last second that RFC 3339 can write, years 1 to 9999."""


def time_to_json(stamp: Timestamp) -> str:
    """RFC 3339 in UTC with nanoseconds, trailing zeros trimmed."""
    whole = whole_seconds(stamp.seconds)
    if not stamp.nanos:
        return whole + "Z"
    return f"{whole}.{stamp.nanos:09d}".rstrip("0") + "Z"


def whole_seconds(seconds: int) -> str:
    """Unix seconds as RFC 3339 without zone; what lies outside the years 1 to 9999 is clamped."""
    clamped = min(max(seconds, _SECONDS[0]), _SECONDS[1])
    return (_EPOCH + datetime.timedelta(seconds=clamped)).isoformat()


def set_duration(target: Duration, nanoseconds: int) -> None:
    """Write a duration as protobuf wants it: seconds and nanos of the same sign. Zero is kept as a present zero."""
    sign = -1 if nanoseconds < 0 else 1
    target.seconds = sign * (abs(nanoseconds) // _NANOS)
    target.nanos = sign * (abs(nanoseconds) % _NANOS)
    target.SetInParent()


def duration_to_json(duration: Duration) -> int:
    """A duration in nanoseconds."""
    return duration.seconds * _NANOS + duration.nanos


def set_annotations(target: types_pb2.Annotations, obj: JsonObject, path: str) -> None:
    """``Name`` and ``Labels`` of a spec."""
    target.name = fields.text(obj, "Name", path)
    labels = fields.mapping(obj, "Labels", path)
    if labels:
        target.labels.update(labels)


def annotations_to_json(annotations: types_pb2.Annotations) -> JsonObject:
    """``Name`` unless empty, and ``Labels`` always."""
    out: JsonObject = {"Name": annotations.name} if annotations.name else {}
    out["Labels"] = map_to_json(annotations.labels)
    return out


def map_to_json(values: Mapping[str, str]) -> dict[str, str]:
    """A protobuf map with its keys in order."""
    return dict(sorted(values.items())) if values else {}


def meta_to_json(object_id: str, meta: Meta) -> JsonObject:
    """``ID``, ``Version``, ``CreatedAt`` and ``UpdatedAt``, which open every object."""
    index = meta.version.index
    return {
        "ID": object_id,
        "Version": {"Index": index} if index else {},
        "CreatedAt": time_to_json(meta.created_at) if meta.HasField("created_at") else ZERO_TIME,
        "UpdatedAt": time_to_json(meta.updated_at) if meta.HasField("updated_at") else ZERO_TIME,
    }


def driver_from_json(obj: JsonObject, path: str) -> types_pb2.Driver:
    """A driver's ``Name`` and ``Options``."""
    return types_pb2.Driver(name=fields.text(obj, "Name", path), options=fields.mapping(obj, "Options", path) or None)


def driver_to_json(driver: types_pb2.Driver) -> JsonObject:
    """``Name`` and ``Options``, each unless empty."""
    out: JsonObject = {}
    if driver.name:
        out["Name"] = driver.name
    if driver.options:
        out["Options"] = map_to_json(driver.options)
    return out


def keep(out: JsonObject, **values: object) -> None:
    """Add what is not empty: Go's omitempty for strings, numbers and booleans."""
    for key, value in values.items():
        if value:
            out[key] = value


def keep_list(out: JsonObject, key: str, values: Iterable[str]) -> None:
    """Add an array of strings unless it is empty."""
    listed = list(values)
    if listed:
        out[key] = listed
