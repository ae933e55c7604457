"""How a refusal becomes an HTTP answer.

Rules it owns:
- The control service's refusals keep gRPC's prefix in their text, because clients show it and scripts match its tail.
- The cluster layer's and this room's own refusals are shown as they are.
- A failure (any other exception) is status 500 with its type's name alone: its text might hold what nobody should read.
"""

from __future__ import annotations

from runtime.errors import Code, Refused
from runtime.protocol.cluster import ClusterError


class ApiError(Exception):
    """A request that this room refuses by itself, with an HTTP status and a sentence for people."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text

    def __str__(self) -> str:
        return self.text


STATUS_OF_KIND = {
    "unavailable": 503,
    "invalid": 400,
    "forbidden": 403,
    "unauthorized": 401,
    "conflict": 409,
    "notfound": 404,
    "plain": 500,
    "unimplemented": 501,
}

STATUS_OF_CODE = {
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
}


def status_and_text(error: BaseException) -> tuple[int, str]:
    """The HTTP status and the sentence for ``error``, as docker's mapping of error classes and gRPC codes."""
    if isinstance(error, ApiError):
        return error.status, error.text
    if isinstance(error, ClusterError):
        return STATUS_OF_KIND.get(error.kind, 500), error.text
    if isinstance(error, Refused):
        return STATUS_OF_CODE.get(error.code, 500), error.rpc_text
    return 500, f"internal error ({type(error).__name__}); the daemon's log has the details"


def bad(text: str) -> ApiError:
    """Status 400: a request that can never be right."""
    return ApiError(400, text)


def plain(text: str) -> ApiError:
    """Status 500: what the engine reports as an error without a class. Kept because clients match it."""
    return ApiError(500, text)
