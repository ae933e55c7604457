"""What of SwarmKit's Control service this version does not offer, although it understands it.

Refused before anything changes, in a sentence, as ``unimplemented``: it is never accepted and then ignored.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import Message

from runtime.errors import Code, Refused

_KINDS: Final = {"Volume": "cluster volumes"}


def check_offered(method: str, request: Message) -> None:
    """``Refused(UNIMPLEMENTED)`` if this version cannot do what is asked; otherwise nothing."""
    for kind, name in _KINDS.items():
        if method in (f"Create{kind}", f"Update{kind}"):
            raise _refused(name)


def _refused(what: str) -> Refused:
    return Refused(Code.UNIMPLEMENTED, f"this version does not offer {what}")
