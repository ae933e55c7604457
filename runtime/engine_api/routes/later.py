"""What the Engine API has and this daemon does not offer: said plainly, with status 501.

Rule: never a success in the place of something that was not done.
"""

from __future__ import annotations

from typing import Final, NoReturn

from runtime.engine_api.call import Call
from runtime.engine_api.convert import fields
from runtime.engine_api.errors import ApiError

SENTENCES: Final = {
    "volumes": "volumes are not offered by this version of the daemon",
    "images": "this daemon pulls and keeps no images",
    "containers": "containers are made by services alone; this daemon changes none by itself",
    "exec": "running commands in containers is not offered by this daemon",
    "auth": "this daemon asks no registry, so it checks no credentials",
    "plugins": "this daemon has no plugins",
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
    """Say that this subject is not offered."""
    raise ApiError(501, SENTENCES[call.parts[0]])


PATHS: Final = (
    "POST /volumes/prune",
    "PUT /volumes/*",
    "POST /images/create",
    "POST /images/prune",
    "DELETE /images/*",
    "POST /containers/create",
    "POST /containers/prune",
    "POST /containers/*/start",
    "POST /containers/*/stop",
    "POST /containers/*/kill",
    "POST /containers/*/exec",
    "DELETE /containers/*",
    "POST /exec/*/start",
    "GET /exec/*/json",
    "POST /auth",
    "GET /plugins",
)

ROUTES = {**dict.fromkeys(PATHS, refuse), "POST /volumes/create": create_volume}
