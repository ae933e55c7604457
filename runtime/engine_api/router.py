"""From method and path to handler: two dictionary lookups, no patterns compiled or tried in turn.

Rules: every path works bare and below a version; an unknown path and a wrong method are the same to a client,
404 ``page not found``; a part of a path is decoded after splitting, so an encoded slash never makes a new part.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Awaitable, Callable
from typing import Final

from runtime.engine_api import openapi, versions
from runtime.engine_api.call import Answer, Call, Stream, answer
from runtime.engine_api.errors import ApiError
from runtime.engine_api.routes import (
    containers,
    events,
    execs,
    inspection,
    later,
    logs,
    networks,
    nodes,
    secrets,
    services,
    swarm,
    system,
    tasks,
)

Handler = Callable[[Call], Awaitable[Answer | Stream]]

ROUTES: Final[dict[str, Handler]] = {
    **system.ROUTES,
    **swarm.ROUTES,
    **nodes.ROUTES,
    **services.ROUTES,
    **tasks.ROUTES,
    **logs.ROUTES,
    **events.ROUTES,
    **networks.ROUTES,
    **secrets.ROUTES,
    **containers.ROUTES,
    **inspection.ROUTES,
    **execs.ROUTES,
    **later.ROUTES,
}


async def openapi_json(call: Call) -> Answer:
    """``GET /openapi.json``: what is served here, for programs."""
    return answer(openapi.document(ROUTES, (await call.backend.system()).server_version))


ROUTES["GET /openapi.json"] = openapi_json


def split(path: str) -> tuple[versions.Version, list[str]]:
    """The version and the parts below it. Raises ApiError for a version outside of what is offered."""
    parts = path.split("/")
    version = versions.parse(parts[1]) if len(parts) > 2 else None
    if version is None:
        below = parts[1:]
        version = versions.NEWEST
    else:
        versions.gate(version, parts[1][1:])
        below = parts[2:]
    if "%" in path:
        below = [urllib.parse.unquote(part) for part in below]
    return version, below


def route(method: str, parts: list[str]) -> Handler:
    """The handler for the parts of a path. Raises ApiError 404 if there is none."""
    handler = ROUTES.get(f"{method} /{'/'.join(parts)}") if "*" not in parts else None
    if handler is None and len(parts) > 1 and parts[1]:
        pattern = f"{method} /{parts[0]}/*" if len(parts) == 2 else f"{method} /{parts[0]}/*/{'/'.join(parts[2:])}"
        handler = ROUTES.get(pattern)
        if handler is None and len(parts) > 2 and parts[-1] == "json":
            handler = _image_route(method, parts)
    if handler is None:
        raise ApiError(404, "page not found")
    return handler


def _image_route(method: str, parts: list[str]) -> Handler | None:
    """Names of images have slashes in them, so these two paths are of any length."""
    if method != "GET" or any(part in ("", ".", "..") for part in parts):
        return None
    return {"distribution": system.distribution, "images": containers.image}.get(parts[0])
