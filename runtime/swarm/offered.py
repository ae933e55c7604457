"""What of SwarmKit's Control service this version does not offer, although it understands it.

Refused before anything changes, in a sentence, as ``unimplemented``: it is never accepted and then ignored.
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import Message

from runtime.errors import Code, Refused
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

_KINDS: Final = {"Volume": "cluster volumes"}


def check_offered(method: str, request: Message) -> None:
    """``Refused(UNIMPLEMENTED)`` if this version cannot do what is asked; otherwise nothing."""
    for kind, name in _KINDS.items():
        if method in (f"Create{kind}", f"Update{kind}"):
            raise _refused(name)


def cluster_mounts(spec: specs.TaskSpec) -> list[str]:
    """What a task asks for of cluster volumes, each with its place in the container: ``"group:fast" at /data``."""
    mounts = spec.container.mounts
    return [f'"{each.source}" at {each.target}' for each in mounts if each.type == types.Mount.CLUSTER]


def not_offered(mounts: list[str]) -> str:
    """Why no node can take a task with these mounts."""
    return f"this version does not offer cluster volumes ({', '.join(mounts)})"


def check_mounts(new: specs.ServiceSpec, old: specs.ServiceSpec | None = None) -> None:
    """Refuses a service that asks for cluster volumes, unless it had the same before: then it can still be scaled
    down, and shows why its tasks wait."""
    asked = cluster_mounts(new.task)
    if asked and (old is None or asked != cluster_mounts(old.task)):
        raise Refused(Code.UNIMPLEMENTED, not_offered(asked))


def _refused(what: str) -> Refused:
    return Refused(Code.UNIMPLEMENTED, f"this version does not offer {what}")
