"""What of SwarmKit's Control service this version does not offer, although it understands it.

Refused before anything changes, in a sentence, as ``unimplemented``: it is never accepted and then ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from google.protobuf.message import Message

from runtime.errors import Code, Refused
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

_KINDS: Final = {"Network": "networks", "Volume": "cluster volumes"}


def check_offered(method: str, request: Message) -> None:
    """``Refused(UNIMPLEMENTED)`` if this version cannot do what is asked; otherwise nothing."""
    for kind, name in _KINDS.items():
        if method in (f"Create{kind}", f"Update{kind}"):
            raise _refused(name)
    check = _CHECKS.get(method)
    if check is not None:
        check(request)


def _service(request: Any) -> None:
    spec: specs.ServiceSpec = request.spec
    if spec.task.networks or spec.networks:
        raise _refused("networks of services")


def check_role(present: int, desired: int) -> None:
    """Roles stay as they are."""
    if present != desired:
        raise _refused("changing the role of a node")


def check_joining(role: int) -> None:
    """Nodes join as workers: a second manager's log would have to follow the first one's."""
    if role == types.MANAGER:
        raise _refused("joining as a manager")


def _refused(what: str) -> Refused:
    return Refused(Code.UNIMPLEMENTED, f"this version does not offer {what}")


_CHECKS: Final[Mapping[str, Callable[[Any], None]]] = {
    "CreateService": _service,
    "UpdateService": _service,
}
