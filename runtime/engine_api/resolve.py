"""From what people type to the object: exact id, then exact name, then a unique prefix of the id.

Rule: only "not there" leads on to the next step; any other refusal is the answer. The common case, an id or a
service's first lookup, costs one call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runtime.engine_api.errors import ApiError, bad
from runtime.errors import Code, Refused
from runtime.protocol.cluster import ClusterError
from runtime.wire.pb import control_pb2 as pb

if TYPE_CHECKING:
    from runtime.engine_api.backend import Backend


@dataclass(frozen=True, slots=True)
class Kind:
    """How one kind of object is asked for. ``one`` and ``many`` name its field in the answers."""

    name: str
    get: str
    list: str
    get_request: Callable[..., Any]
    list_request: Any
    id_field: str
    one: str
    many: str


def _kind(name: str, **requests: Any) -> Kind:
    title = name.capitalize()
    return Kind(
        name=name,
        get=f"Get{title}",
        list=f"List{title}s",
        get_request=getattr(pb, f"Get{title}Request"),
        list_request=getattr(pb, f"List{title}sRequest"),
        id_field=f"{name}_id",
        one=name,
        many=f"{name}s",
        **requests,
    )


NODE: Final = _kind("node")
SERVICE: Final = _kind("service")
TASK: Final = _kind("task")
SECRET: Final = _kind("secret")
CONFIG: Final = _kind("config")
NETWORK: Final = _kind("network")


async def find(backend: Backend, kind: Kind, term: str, **options: Any) -> Any:
    """The object called ``term``. Raises ApiError 404 if there is none, 400 if there are several.

    ``options`` are further fields of the Get request; they are honoured however the object was found.
    """
    if not term:
        raise not_found(kind, term)
    found = await by_id(backend, kind, term, **options)
    if found is not None:
        return found
    by_name = await listed(backend, kind, kind.list_request.Filters(names=[term]))
    by_prefix = by_name or await listed(backend, kind, kind.list_request.Filters(id_prefixes=[term]))
    if not by_prefix:
        raise not_found(kind, term)
    if len(by_prefix) > 1:
        raise bad(f"{kind.name} {term} is ambiguous ({len(by_prefix)} matches found)")
    if not options:
        return by_prefix[0]
    found = await by_id(backend, kind, by_prefix[0].id, **options)
    if found is None:
        raise not_found(kind, term)
    return found


def not_found(kind: Kind, term: str) -> ApiError:
    """The refusal for a name that nothing bears."""
    return ApiError(404, f"{kind.name} {term} not found")


async def by_id(backend: Backend, kind: Kind, object_id: str, **options: Any) -> Any:
    """The object with exactly this id, or None."""
    request = kind.get_request(**{kind.id_field: object_id}, **options)
    try:
        return getattr(await backend.control(kind.get, request), kind.one)
    except ClusterError:
        raise
    except Refused as refused:
        if refused.code not in (Code.NOT_FOUND, Code.INVALID_ARGUMENT):
            raise
        return None


async def listed(backend: Backend, kind: Kind, filters: Any) -> list[Any]:
    """The objects that pass the filters of this kind's list request."""
    answer = await backend.control(kind.list, kind.list_request(filters=filters))
    return list(getattr(answer, kind.many))
