"""From a request to its answer, whatever carried it: the HTTP server's sockets, or a client in the same process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from runtime.engine_api import jsonio, openapi, router, versions
from runtime.engine_api.call import JSON_TYPE, TEXT_TYPE, Answer, Call, Stream
from runtime.engine_api.errors import status_and_text

if TYPE_CHECKING:
    from runtime.engine_api.backend import Backend


async def dispatch(
    backend: Backend, method: str, target: str, body: bytes, header: Callable[[str], str | None]
) -> Answer | Stream:
    """Has the route of ``method`` and ``target`` (path and query) answer. Raises ApiError or Refused, which
    ``refusal`` turns into answers; ``header`` is asked for headers by name."""
    path, _, query = target.partition("?")
    version, parts = router.split(path)
    handler = router.route(method, parts)
    call = Call(
        backend,
        method,
        parts,
        raw_query=query,
        body=body,
        content_type=header("Content-Type") or "",
        version=version,
        header=header,
    )
    if method == "GET" and openapi.reads_store(parts) and call.strict(openapi.CONSISTENT):
        await backend.read_barrier()
    return await handler(call)


def refusal(error: BaseException) -> Answer:
    """The answer that an error becomes."""
    status, text = status_and_text(error)
    if isinstance(error, versions.TooOld):
        return Answer(status, (text + "\n").encode(), TEXT_TYPE)
    return Answer(status, jsonio.encode({"message": text}), JSON_TYPE)
