"""What the Engine API has and this daemon does not offer: said plainly, with status 501.

Rule: never a success in the place of something that was not done.
"""

from __future__ import annotations

from typing import Final, NoReturn
from urllib.parse import quote

from runtime.engine_api.call import Call
from runtime.engine_api.convert import fields
from runtime.engine_api.errors import ApiError
from runtime.engine_api.routes import containers

CHANGES: Final = (
    "start", "stop", "restart", "pause", "unpause", "rename", "update",
)  # fmt: skip
LOOKS: Final = ("changes", "export", "archive")
SENTENCES: Final = {
    "volumes": "this daemon makes and removes no volumes; tasks that are containers have their engine's",
    "images": "this daemon pulls and keeps no images; tasks that are containers have their engine's",
    "containers": "containers are made by services alone; this daemon changes none by itself",
    "auth": "this daemon asks no registry, so it checks no credentials",
    "plugins": "this daemon has no plugins",
    "build": "this daemon builds no images",
    "session": "this daemon builds no images",
    "commit": "this daemon builds no images",
    **dict.fromkeys(
        LOOKS, "this daemon shows no files: tasks that are processes have the machine's, containers their engine's"
    ),
    "attach": "attaching to a container is not offered by this daemon: docker service logs follows what its tasks say",
}
CLUSTER_VOLUMES: Final = "cluster volumes are not offered by this version of the daemon"


async def create_volume(call: Call) -> NoReturn:
    """``POST /volumes/create``: a driver that is none in the engine's words; of cluster volumes it says so."""
    body = call.json()
    name, driver = fields.text(body, "Name", ""), fields.text(body, "Driver", "")
    if fields.child(body, "ClusterVolumeSpec", "") is not None:
        raise ApiError(501, CLUSTER_VOLUMES)
    if driver not in ("", "local"):
        missing = f'error looking up volume plugin {driver}: plugin "{driver}" not found'
        raise ApiError(404, f"create {name}: {missing}")
    raise ApiError(501, SENTENCES["volumes"])


async def remove_volume(call: Call) -> NoReturn:
    """``DELETE /volumes/{name}``: one that there is is its engine's to remove."""
    await containers.volume(call)
    raise ApiError(501, SENTENCES["volumes"])


async def remove_image(call: Call) -> NoReturn:
    """``DELETE /images/{name}``: there must be one; it stays."""
    name = "/".join(call.parts[1:])
    try:
        if await call.backend.engine(f"/images/{quote(name)}/json", {}) is None:
            await containers.known_image(call.backend, name)
    except ApiError as error:
        raise ApiError(error.status, error.text.removeprefix(f"no such image: {name}: ")) from None
    await refuse(call)


async def refuse_container(call: Call) -> NoReturn:
    """As ``refuse``, of a container that there is."""
    await containers.find(call.backend, call.target)
    await refuse(call)


async def refuse(call: Call) -> NoReturn:
    """Say that this subject is not offered, in the words for what is done to it if there are some."""
    raise ApiError(501, SENTENCES.get(call.parts[2] if len(call.parts) > 2 else "", SENTENCES[call.parts[0]]))


PATHS: Final = (
    *("PUT /volumes/*", "POST /auth", "GET /images/search"),
    *(f"POST /images/{what}" for what in ("create", "load", "*/tag", "*/push")),
    *("GET /images/*/history", "GET /images/*/get", "GET /images/get"),
    *("POST /build", "POST /session", "POST /commit", "POST /containers/create"),
    *("POST /plugins/pull", "POST /plugins/create", "GET /plugins/privileges"),
)

OF_CONTAINERS: Final = (
    *(f"POST /containers/*/{what}" for what in CHANGES),
    *(f"GET /containers/*/{what}" for what in LOOKS),
    *("DELETE /containers/*", "HEAD /containers/*/archive", "PUT /containers/*/archive", "GET /containers/*/attach/ws"),
)

ROUTES = {
    **dict.fromkeys(PATHS, refuse),
    **dict.fromkeys(OF_CONTAINERS, refuse_container),
    "POST /volumes/create": create_volume,
    "DELETE /volumes/*": remove_volume,
    "DELETE /images/*": remove_image,
}
