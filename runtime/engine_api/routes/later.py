"""What the Engine API has and this daemon does not offer yet: said plainly, with status 501.

Rule: never an empty list or a success in the place of something that is not there.
"""

from __future__ import annotations

from typing import Final, NoReturn

from runtime.engine_api.call import Call
from runtime.engine_api.errors import ApiError

SENTENCES: Final = {
    "networks": "pruning networks and connecting containers to them are not offered by this version of the daemon",
    "volumes": "volumes are not offered by this version of the daemon",
    "images": "this daemon keeps no images",
    "containers": "containers are not offered by this daemon; look at the tasks of services",
    "exec": "running commands in containers is not offered by this daemon",
    "system": "disk usage is not offered by this version of the daemon",
}


async def refuse(call: Call) -> NoReturn:
    """Say that this subject is not offered."""
    raise ApiError(501, SENTENCES[call.parts[0]])


PATHS: Final = (
    "POST /networks/prune",
    "POST /networks/*/connect",
    "POST /networks/*/disconnect",
    "GET /volumes",
    "GET /volumes/*",
    "POST /volumes/create",
    "POST /volumes/prune",
    "PUT /volumes/*",
    "DELETE /volumes/*",
    "GET /images/json",
    "GET /images/*/json",
    "POST /images/create",
    "GET /containers/json",
    "POST /containers/create",
    "GET /containers/*/json",
    "GET /containers/*/logs",
    "POST /containers/*/exec",
    "POST /exec/*/start",
    "GET /exec/*/json",
    "GET /system/df",
)

ROUTES = dict.fromkeys(PATHS, refuse)
