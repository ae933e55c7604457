"""Control requests about cluster volumes.

Rules owned here: what a volume's spec needs; after creation only labels and availability change; a volume that is still
published somewhere is not removed, and an unforced removal only marks it, for its driver to delete it first.
"""

from __future__ import annotations

from collections.abc import Callable

from runtime.errors import invalid, precondition
from runtime.swarm.control.checks import (
    based_on,
    copy_of,
    exists,
    find_or_refuse,
    refuse_taken,
    require,
    require_field,
    stored,
)
from runtime.swarm.control.context import Context
from runtime.swarm.control.listing import by_id_prefix, by_index, by_name, by_name_prefix, labels_match, select
from runtime.swarm.ports import Tx, View
from runtime.wire.pb import control_pb2 as control
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs


def volume_name(volume: objects.Volume) -> str:
    """The name in a volume's spec."""
    return volume.spec.annotations.name


def get_volume(view: View, request: control.GetVolumeRequest, ctx: Context) -> control.GetVolumeResponse:
    """One volume."""
    require(request.volume_id)
    return control.GetVolumeResponse(volume=find_or_refuse(view, objects.Volume, request.volume_id))


def list_volumes(view: View, request: control.ListVolumesRequest, ctx: Context) -> control.ListVolumesResponse:
    """The volumes that pass the filters."""
    wanted = request.filters
    filters = [
        by_name(objects.Volume, wanted.names, volume_name),
        by_id_prefix(objects.Volume, wanted.id_prefixes),
        by_index(objects.Volume, "volume_group", wanted.groups, lambda volume: volume.spec.group),
        by_index(objects.Volume, "driver", wanted.drivers, lambda volume: volume.spec.driver.name),
        by_name_prefix(objects.Volume, wanted.name_prefixes, volume_name),
    ]
    found = select(
        view,
        objects.Volume,
        filters,
        lambda volume: labels_match(volume.spec.annotations.labels, wanted.labels),
    )
    return control.ListVolumesResponse(volumes=found)


def create_volume(request: control.CreateVolumeRequest, ctx: Context) -> Callable[[Tx], control.CreateVolumeResponse]:
    """Stores a volume, for its driver to make."""
    require_field(request, "spec")
    spec = request.spec
    check_volume_spec(spec)
    volume_id = ctx.new_id()

    def run(tx: Tx) -> control.CreateVolumeResponse:
        _check_secrets(tx, spec)
        name = spec.annotations.name
        refuse_taken(tx, objects.Volume, name, exists(f"volume {name} already exists"))
        tx.create(objects.Volume(id=volume_id, spec=spec))
        return control.CreateVolumeResponse(volume=stored(tx, objects.Volume, volume_id))

    return run


def check_volume_spec(spec: specs.VolumeSpec) -> None:
    """Refuses a volume spec that can never be right."""
    if not spec.HasField("driver"):
        raise invalid("driver must be specified")
    if not spec.annotations.name:
        raise invalid("meta: name must be provided")
    if not spec.HasField("access_mode"):
        raise invalid("AccessMode must not be nil")
    if spec.access_mode.WhichOneof("access_type") is None:
        raise invalid("Volume AccessMode must specify either Mount or Block access type")


def _check_secrets(tx: Tx, spec: specs.VolumeSpec) -> None:
    missing = sorted({ref.secret for ref in spec.secrets if tx.get(objects.Secret, ref.secret) is None})
    if missing:
        plural = "" if len(missing) == 1 else "s"
        raise invalid(f"secret{plural} not found: {', '.join(missing)}")


def update_volume(request: control.UpdateVolumeRequest, ctx: Context) -> Callable[[Tx], control.UpdateVolumeResponse]:
    """Replaces a volume's labels and availability; a spec that differs in anything else is refused."""
    require(request.volume_id)
    require_field(request, "volume_version", "spec")

    def run(tx: Tx) -> control.UpdateVolumeResponse:
        volume = find_or_refuse(tx, objects.Volume, request.volume_id)
        new = based_on(volume, request.volume_version)
        new.spec.annotations.labels.clear()
        new.spec.annotations.labels.update(request.spec.annotations.labels)
        new.spec.availability = request.spec.availability
        if new.spec != _normal(request.spec):
            raise invalid("only updates to Labels and Availability are allowed")
        tx.update(new)
        return control.UpdateVolumeResponse(volume=stored(tx, objects.Volume, volume.id))

    return run


def _normal(spec: specs.VolumeSpec) -> specs.VolumeSpec:
    """A spec whose annotations are set, as those of a stored one are once its labels were touched."""
    normal = copy_of(spec)
    normal.annotations.SetInParent()
    return normal


def remove_volume(request: control.RemoveVolumeRequest, ctx: Context) -> Callable[[Tx], control.RemoveVolumeResponse]:
    """Marks a volume for removal, or deletes its record at once when forced."""
    require(request.volume_id)

    def run(tx: Tx) -> control.RemoveVolumeResponse:
        volume = find_or_refuse(tx, objects.Volume, request.volume_id)
        if request.force:
            tx.delete(objects.Volume, volume.id)
            return control.RemoveVolumeResponse()
        if volume.publish_status:
            raise precondition("volume is still in use")
        new = copy_of(volume)
        new.pending_delete = True
        tx.update(new)
        return control.RemoveVolumeResponse()

    return run
