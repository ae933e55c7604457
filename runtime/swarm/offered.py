"""What of SwarmKit's Control service this version does not offer, although it understands it.

Refused before anything changes, in a sentence, as ``unimplemented``: it is never accepted and then ignored.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import Message

from runtime.errors import Code, Refused
from runtime.wire.pb import types_pb2 as types

_KINDS: Final = {"Volume": "cluster volumes"}


def check_offered(method: str, request: Message) -> None:
    """``Refused(UNIMPLEMENTED)`` if this version cannot do what is asked; otherwise nothing."""
    for kind, name in _KINDS.items():
        if method in (f"Create{kind}", f"Update{kind}"):
            raise _refused(name)


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
