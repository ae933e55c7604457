"""What the Engine API has and this daemon does not offer: said plainly, with status 501.

Rule: never a success in the place of something that was not done.
"""

from __future__ import annotations

from typing import Final, NoReturn

from runtime.engine_api.call import Call
from runtime.engine_api.convert import fields
from runtime.engine_api.errors import ApiError

CHANGES: Final = (
    "start", "stop", "restart", "pause", "unpause", "rename", "update",
)  # fmt: skip
LOOKS: Final = ("changes", "export", "archive")
SENTENCES: Final = {
    "volumes": "volumes are not offered by this version of the daemon",
    "images": "this daemon pulls and keeps no images",
    "containers": "containers are made by services alone; this daemon changes none by itself",
    "auth": "this daemon asks no registry, so it checks no credentials",
    "plugins": "this daemon has no plugins",
    "build": "this daemon builds no images",
    "session": "this daemon builds no images",
    "commit": "this daemon builds no images",
    **dict.fromkeys(LOOKS, "tasks here are processes of the machine: look at its own files"),
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


async def refuse(call: Call) -> NoReturn:
    """Say that this subject is not offered, in the words for what is done to it if there are some."""
    raise ApiError(501, SENTENCES.get(call.parts[2] if len(call.parts) > 2 else "", SENTENCES[call.parts[0]]))


PATHS: Final = (
    *("PUT /volumes/*", "POST /auth", "GET /images/search"),
    *(f"POST /images/{what}" for what in ("create", "load", "*/tag", "*/push")),
    *("GET /images/*/history", "GET /images/*/get", "GET /images/get", "DELETE /images/*"),
    *("POST /build", "POST /session", "POST /commit", "POST /containers/create"),
    *(f"POST /containers/*/{what}" for what in CHANGES),
    *(f"GET /containers/*/{what}" for what in LOOKS),
    *("DELETE /containers/*", "HEAD /containers/*/archive", "PUT /containers/*/archive", "GET /containers/*/attach/ws"),
    *("POST /plugins/pull", "POST /plugins/create", "GET /plugins/privileges"),
)

ROUTES = {**dict.fromkeys(PATHS, refuse), "POST /volumes/create": create_volume}
