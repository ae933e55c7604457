"""What clients of an engine look for on one node: its containers (the tasks that it runs), images, volumes, disk usage.

Rules: everything here is read, never changed; lists are of this node alone, and on a worker they answer as on a
manager, from the agent. A container that is named may be a task of another node, at a manager (`elsewhere`). Where
tasks are containers of an engine, images, volumes and a container's inside are shown as that shows them, whoever they
belong to. Elsewhere there are no volumes and no layers, so these lists are empty and their names are not found, and an
image is a name that the executor can run.
"""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from runtime.engine_api import filters
from runtime.engine_api.call import Answer, Call, Stream, answer
from runtime.engine_api.convert import local
from runtime.engine_api.errors import ApiError, bad
from runtime.engine_api.routes import elsewhere, logs
from runtime.wire.pb import types_pb2

if TYPE_CHECKING:
    from runtime.engine_api.backend import Backend
    from runtime.engine_api.jsonio import JsonObject

LIMIT_DIGITS: Final = 9
STATES: Final = ("created", "dead", "exited", "paused", "removing", "restarting", "running")
VOLUME_FILTERS: Final = ("dangling", "driver", "label", "name")
ENDED_ARE_KEPT: Final = (
    "ended tasks are the swarm's history and are not removed by their node: "
    "docker swarm update --task-history-limit says how many are kept"
)
ENGINES_OWN: Final = (
    "images and volumes are the container engine's: prune them there (docker -H unix://SOCKET system prune)"
)


async def containers_of(backend: Backend) -> list[local.Container]:
    """Newest first."""
    found = [local.Container(task, status) for task, status in await backend.local_tasks()]
    known = [each for each in found if each.id]
    return sorted(known, key=lambda each: (-each.status.timestamp.ToNanoseconds(), each.id))


async def listing(call: Call) -> Answer:
    """``GET /containers/json``: those that run; with ``all`` or a filter for another state, the others too."""
    given = filters.parse(call.query("filters"), local.FILTERS)
    for value in given.get("status", []):
        if value not in STATES:
            raise bad(f"Invalid filter 'status={value}'")
    found = local.chosen(await containers_of(call.backend), given)
    limit = _limit(call)
    if not (call.loose("all") or limit or given.keys() & {"status", "exited"}):
        found = [each for each in found if each.state == "running"]
    now = time.time()
    return answer([local.listed_to_json(each, now) for each in found[: limit or None]])


def _limit(call: Call) -> int:
    text = call.query("limit")
    digits = text.removeprefix("-")
    if text and not (digits.isascii() and digits.isdecimal() and len(digits) <= LIMIT_DIGITS):
        raise bad(f'strconv.Atoi: parsing "{text}": invalid syntax')
    return max(0, int(text or 0))


async def find(backend: Backend, term: str) -> local.Container:
    """The container with an id, a name, a prefix of an id, or in a slot (``web.1``): one of this node, else (at a
    manager) one of the swarm; of a slot the swarm's first. Raises ApiError 404, 400 for a prefix of several."""
    found = await containers_of(backend)
    exact = [each for each in found if term.removeprefix("/") in (each.id, each.name)]
    several = exact or [each for each in found if each.id.startswith(term)] or await elsewhere.find(backend, term)
    several = several or _in_slot(found, term)
    if not several:
        raise ApiError(404, f"No such container: {term}{await elsewhere.hint(backend, term)}")
    if len(several) > 1:
        raise bad(f"Multiple IDs found with provided prefix: {term}")
    return several[0]


def _in_slot(found: list[local.Container], term: str) -> list[local.Container]:
    running = [each for each in found if each.state == "running" and each.name.rpartition(".")[0] == term]
    return sorted(running, key=lambda each: each.task.meta.created_at.ToNanoseconds())[-1:]


async def inspect(call: Call) -> Answer:
    """``GET /containers/{id}/json``: as its engine shows it, as long as that has it."""
    found, system = await find(call.backend, call.target), await call.backend.system()
    if found.remote:
        shown = local.container_to_json(found, await elsewhere.node_of(call.backend, found))
        return answer({**shown, "ExecIDs": call.backend.execs.of(found.id) or None})
    if (whole := await _whole(call, found.id)) is not None:
        return answer(whole)
    node = types_pb2.NodeDescription(hostname=system.name)
    node.platform.architecture, node.platform.os = system.architecture, system.os_type
    running = call.backend.execs.of(found.id)
    return answer({**local.container_to_json(found, node), "ExecIDs": running or None})


async def _whole(call: Call, container: str) -> JsonObject | None:
    try:
        whole: JsonObject | None = await call.backend.engine(f"/containers/{container}/json", call.given("size"))
    except ApiError as error:
        if error.status != 404:
            raise
        return None
    return whole


async def container_logs(call: Call) -> Stream:
    """``GET /containers/{id}/logs``: the task's log, from its node."""
    options = logs.options_of(call)
    found = await find(call.backend, call.target)
    lines = elsewhere.lines(call.backend, found, options)
    return logs.as_stream(call, lines, found.task.spec.container.tty)


async def prune_containers(call: Call) -> Answer:
    """``POST /containers/prune``: ended tasks are the swarm's to keep; without any, there is nothing to remove."""
    if any(each.state == "exited" for each in await containers_of(call.backend)):
        raise ApiError(501, ENDED_ARE_KEPT)
    return answer({"ContainersDeleted": None, "SpaceReclaimed": 0})


async def prune_images(call: Call) -> Answer:
    """``POST /images/prune``: images are names here, and none of them is without one; an engine's are its own."""
    if call.backend.has_engine:
        raise ApiError(501, ENGINES_OWN)
    return answer({"ImagesDeleted": None, "SpaceReclaimed": 0})


async def prune_volumes(call: Call) -> Answer:
    """``POST /volumes/prune``: there are none but an engine's."""
    if call.backend.has_engine:
        raise ApiError(501, ENGINES_OWN)
    return answer({"VolumesDeleted": [], "SpaceReclaimed": 0})


async def prune_builds(call: Call) -> Answer:
    """``POST /build/prune``: nothing is built here, so nothing is kept of it."""
    return answer({"CachesDeleted": None, "SpaceReclaimed": 0})


async def plugins(call: Call) -> Answer:
    """``GET /plugins``: there are none."""
    return answer([])


async def plugin(call: Call) -> Answer:
    """``GET /plugins/{name}/json``, which ``docker inspect`` asks after everything else."""
    raise ApiError(404, f'plugin "{call.target}" not found')


async def images(call: Call) -> Answer:
    """``GET /images/json``; a reference in the filter is a name or ``name:tag``, with wildcards."""
    kept = await call.backend.engine("/images/json", call.given("all", "filters", "digests", "shared-size"))
    if kept is not None:
        return answer(kept)
    given = filters.parse(call.query("filters"), ("reference",))
    names = (await call.backend.system()).image_names
    shown = [local.image_to_json(name, -1, listed=True) for name in names]
    return answer([image for image in shown if _referred(image["RepoTags"][0], given.get("reference", []))])


def _referred(tag: str, wanted: list[str]) -> bool:
    name = tag.rpartition(":")[0]
    return not wanted or any(fnmatch.fnmatchcase(each, value) for value in wanted for each in (tag, name))


async def image(call: Call) -> Answer:
    """``GET /images/{name}/json``."""
    name = "/".join(call.parts[1:-1])
    kept = await call.backend.engine(f"/images/{quote(name, safe='/')}/json", {})
    return answer(await known_image(call.backend, name) if kept is None else kept)


async def known_image(backend: Backend, name: str) -> JsonObject:
    """An image that the executor has by nature. Raises ApiError 404."""
    for known in (await backend.system()).image_names:
        shown = local.image_to_json(known, -1, listed=False)
        if name in (known, *shown["RepoTags"]) or (len(name) >= len("sha256:0") and shown["Id"].startswith(name)):
            return shown
    tag = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
    raise ApiError(404, f"no such image: {name}: No such image: {tag}")


async def volumes(call: Call) -> Answer:
    """``GET /volumes``: those of the engine; without one there are none."""
    filters.parse(call.query("filters"), VOLUME_FILTERS)
    kept = await call.backend.engine("/volumes", call.given("filters"))
    return answer({"Volumes": [], "Warnings": None} if kept is None else kept)


async def volume(call: Call) -> Answer:
    """``GET /volumes/{name}``."""
    kept = await call.backend.engine(f"/volumes/{quote(call.target, safe='')}", {})
    if kept is None:
        raise ApiError(404, f"get {call.target}: no such volume")
    return answer(kept)


async def disk_usage(call: Call) -> Answer:
    """``GET /system/df``: what the engine says, of this node's containers alone; tasks that are none take no room."""
    now = time.time()
    found = await containers_of(call.backend)
    kept = await call.backend.engine("/system/df", {})
    if kept is not None:
        own = {each.id for each in found}
        return answer({**kept, "Containers": [each for each in kept.get("Containers") or [] if each.get("Id") in own]})
    names = (await call.backend.system()).image_names
    return answer(
        {
            "LayersSize": 0,
            "Images": [local.image_to_json(name, len(found), listed=True) for name in names],
            "Containers": [local.listed_to_json(each, now) for each in found],
            "Volumes": [],
            "BuildCache": None,
            "BuilderSize": 0,
        }
    )


ROUTES: Final[dict[str, Callable[[Call], Awaitable[Answer | Stream]]]] = {
    "GET /containers/json": listing,
    "GET /containers/*/json": inspect,
    "GET /containers/*/logs": container_logs,
    "GET /images/json": images,
    "GET /images/*/json": image,
    "GET /volumes": volumes,
    "GET /volumes/*": volume,
    "GET /system/df": disk_usage,
    "POST /containers/prune": prune_containers,
    "POST /images/prune": prune_images,
    "POST /volumes/prune": prune_volumes,
    "POST /build/prune": prune_builds,
    "GET /plugins": plugins,
    "GET /plugins/*/json": plugin,
}
