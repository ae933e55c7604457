"""Control requests about extensions (kinds that users define) and resources (objects of such kinds).

Rules owned here: a resource's kind is the name of a registered extension; names of resources are unique across kinds;
an extension never changes and stays while resources of its kind exist; of a resource annotations and payload change.
"""

from __future__ import annotations

from collections.abc import Callable

from runtime.errors import Code, Refused, invalid
from runtime.swarm.control.checks import based_on, exists, find_or_refuse, refuse_taken, require, stored
from runtime.swarm.control.checks import named as find_named
from runtime.swarm.control.context import Context
from runtime.swarm.control.listing import Filter, by_id_prefix, by_name, by_name_prefix, labels_match, select_any
from runtime.swarm.ports import Tx, View
from runtime.wire.pb import control_pb2 as control
from runtime.wire.pb import objects_pb2 as objects


def resource_name(resource: objects.Resource) -> str:
    """The name in a resource's annotations."""
    return resource.annotations.name


def get_extension(view: View, request: control.GetExtensionRequest, ctx: Context) -> control.GetExtensionResponse:
    """One extension."""
    require(request.extension_id, text="extension ID must be provided")
    return control.GetExtensionResponse(extension=find_or_refuse(view, objects.Extension, request.extension_id))


def create_extension(
    request: control.CreateExtensionRequest, ctx: Context
) -> Callable[[Tx], control.CreateExtensionResponse]:
    """Registers a kind."""
    name = request.annotations.name
    if not name:
        raise invalid("extension name must be provided")
    extension_id = ctx.new_id()

    def run(tx: Tx) -> control.CreateExtensionResponse:
        refuse_taken(tx, objects.Extension, name, exists(f"extension {name} already exists"))
        tx.create(objects.Extension(id=extension_id, annotations=request.annotations, description=request.description))
        return control.CreateExtensionResponse(extension=stored(tx, objects.Extension, extension_id))

    return run


def remove_extension(
    request: control.RemoveExtensionRequest, ctx: Context
) -> Callable[[Tx], control.RemoveExtensionResponse]:
    """Removes a kind of which there is no resource."""
    require(request.extension_id, text="extension ID must be provided")

    def run(tx: Tx) -> control.RemoveExtensionResponse:
        extension = find_or_refuse(tx, objects.Extension, request.extension_id)
        kind = extension.annotations.name
        users = sorted(resource_name(resource) for resource in tx.find(objects.Resource, "kind", kind))
        if users:
            plural = "" if len(users) == 1 else "s"
            raise invalid(f"extension '{kind}' is in use by the following resource{plural}: {', '.join(users)}")
        tx.delete(objects.Extension, extension.id)
        return control.RemoveExtensionResponse()

    return run


def get_resource(view: View, request: control.GetResourceRequest, ctx: Context) -> control.GetResourceResponse:
    """One resource."""
    require(request.resource_id, text="resource ID must be present")
    return control.GetResourceResponse(resource=find_or_refuse(view, objects.Resource, request.resource_id))


def list_resources(view: View, request: control.ListResourcesRequest, ctx: Context) -> control.ListResourcesResponse:
    """The resources found by any of names, name prefixes and id prefixes that have the labels and the kind."""
    wanted = request.filters
    filters: list[Filter[objects.Resource]] = [
        by_name(objects.Resource, wanted.names, resource_name),
        by_name_prefix(objects.Resource, wanted.name_prefixes, resource_name),
        by_id_prefix(objects.Resource, wanted.id_prefixes),
    ]
    found = select_any(
        view,
        objects.Resource,
        filters,
        lambda resource: (
            wanted.kind in ("", resource.kind) and labels_match(resource.annotations.labels, wanted.labels)
        ),
    )
    return control.ListResourcesResponse(resources=found)


def create_resource(
    request: control.CreateResourceRequest, ctx: Context
) -> Callable[[Tx], control.CreateResourceResponse]:
    """Stores an object of a registered kind."""
    name, kind = request.annotations.name, request.kind
    if not name:
        raise invalid("Resource must have a name")
    if not kind:
        raise invalid("Resource must belong to an Extension")
    resource_id = ctx.new_id()

    def run(tx: Tx) -> control.CreateResourceResponse:
        if not any(extension.annotations.name == kind for extension in find_named(tx, objects.Extension, kind)):
            raise invalid(f"Kind {kind} is not registered")
        refuse_taken(tx, objects.Resource, name, exists(f"A resource with name {name} already exists"))
        resource = objects.Resource(id=resource_id, annotations=request.annotations, kind=kind)
        if request.HasField("payload"):
            resource.payload.CopyFrom(request.payload)
        tx.create(resource)
        return control.CreateResourceResponse(resource=stored(tx, objects.Resource, resource_id))

    return run


def update_resource(
    request: control.UpdateResourceRequest, ctx: Context
) -> Callable[[Tx], control.UpdateResourceResponse]:
    """Replaces annotations, payload or both; the name stays."""
    require(request.resource_id, request.HasField("resource_version"), text="must include ID and version")

    def run(tx: Tx) -> control.UpdateResourceResponse:
        resource = find_or_refuse(tx, objects.Resource, request.resource_id)
        new = based_on(resource, request.resource_version)
        if request.HasField("annotations"):
            if request.annotations.name != resource_name(resource):
                raise invalid("cannot change the name of a resource")
            new.annotations.CopyFrom(request.annotations)
        if request.HasField("payload"):
            new.payload.CopyFrom(request.payload)
        _update_in_sequence(tx, new)
        return control.UpdateResourceResponse(resource=stored(tx, objects.Resource, resource.id))

    return run


def _update_in_sequence(tx: Tx, resource: objects.Resource) -> None:
    """For resources a stale version is InvalidArgument, where every other kind says Unknown."""
    try:
        tx.update(resource)
    except Refused as refused:
        if refused.code is Code.UNKNOWN:
            raise invalid(refused.text) from None
        raise


def remove_resource(
    request: control.RemoveResourceRequest, ctx: Context
) -> Callable[[Tx], control.RemoveResourceResponse]:
    """Removes a resource."""
    require(request.resource_id, text="resource ID must be present")

    def run(tx: Tx) -> control.RemoveResourceResponse:
        find_or_refuse(tx, objects.Resource, request.resource_id)
        tx.delete(objects.Resource, request.resource_id)
        return control.RemoveResourceResponse()

    return run
