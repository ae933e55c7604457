"""``/secrets`` and ``/configs``: the same routes over two kinds of objects.

Rules: a secret's data goes in and never comes out; of both only the labels can be changed, which the cluster checks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from runtime.engine_api import filters, resolve
from runtime.engine_api.call import EMPTY, Answer, Call, answer
from runtime.engine_api.convert import secret
from runtime.engine_api.errors import bad
from runtime.wire.pb import control_pb2 as pb
from runtime.wire.pb.types_pb2 import Version

TEMPLATING_SINCE: Final = (1, 37)


@dataclass(frozen=True, slots=True)
class Subject:
    """What differs: the kind, its conversions, its requests, the filters of its list."""

    kind: resolve.Kind
    from_json: Callable[..., Any]
    to_json: Callable[..., Any]
    create: Any
    update: Any
    remove: Any
    filters: tuple[str, ...]


SECRETS: Final = Subject(
    resolve.SECRET,
    secret.secret_spec_from_json,
    secret.secret_to_json,
    pb.CreateSecretRequest,
    pb.UpdateSecretRequest,
    pb.RemoveSecretRequest,
    ("id", "label", "name", "names"),
)
CONFIGS: Final = Subject(
    resolve.CONFIG,
    secret.config_spec_from_json,
    secret.config_to_json,
    pb.CreateConfigRequest,
    pb.UpdateConfigRequest,
    pb.RemoveConfigRequest,
    ("id", "label", "name"),
)


async def _listing(call: Call, subject: Subject) -> Answer:
    given = filters.parse(call.query("filters"), subject.filters)
    wanted = subject.kind.list_request.Filters(
        names=given.get("names", []),
        name_prefixes=given.get("name", []),
        id_prefixes=given.get("id", []),
        labels=filters.labels(given.get("label", [])),
    )
    return answer([subject.to_json(item) for item in await resolve.listed(call.backend, subject.kind, wanted)])


async def _inspect(call: Call, subject: Subject) -> Answer:
    return answer(subject.to_json(await resolve.find(call.backend, subject.kind, call.target)))


async def _create(call: Call, subject: Subject) -> Answer:
    spec = subject.from_json(call.json())
    name = subject.kind.name
    if call.version < TEMPLATING_SINCE and spec.HasField("templating"):
        shown = f"{call.version[0]}.{call.version[1]}"
        raise bad(f"{name} templating is not supported on the specified API version: {shown}")
    made: Any = await call.backend.control(f"Create{name.capitalize()}", subject.create(spec=spec))
    return answer({"ID": getattr(made, name).id}, 201)


async def _update(call: Call, subject: Subject) -> Answer:
    name = subject.kind.name
    spec = subject.from_json(call.json())
    version = call.object_version(name, plainly=True)
    found = await resolve.find(call.backend, subject.kind, call.target)
    known = {f"{name}_id": found.id, f"{name}_version": Version(index=version)}
    await call.backend.control(f"Update{name.capitalize()}", subject.update(spec=spec, **known))
    return EMPTY


async def _remove(call: Call, subject: Subject) -> Answer:
    name = subject.kind.name
    found = await resolve.find(call.backend, subject.kind, call.target)
    await call.backend.control(f"Remove{name.capitalize()}", subject.remove(**{f"{name}_id": found.id}))
    return Answer(204)


def _of(subject: Subject, handler: Callable[[Call, Subject], Awaitable[Answer]]) -> Callable[[Call], Awaitable[Answer]]:
    return lambda call: handler(call, subject)


def _routes(path: str, subject: Subject) -> dict[str, Callable[[Call], Awaitable[Answer]]]:
    return {
        f"GET /{path}": _of(subject, _listing),
        f"GET /{path}/*": _of(subject, _inspect),
        f"POST /{path}/create": _of(subject, _create),
        f"POST /{path}/*/update": _of(subject, _update),
        f"DELETE /{path}/*": _of(subject, _remove),
    }


ROUTES = {**_routes("secrets", SECRETS), **_routes("configs", CONFIGS)}
