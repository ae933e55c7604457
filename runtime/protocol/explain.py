"""Why something is not as it was asked to be: what is asked of the leader, and of the actors that own the waiting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from runtime.stage.address import Address
    from runtime.swarm.explaining import SubjectKind
    from runtime.swarm.waits import Wait


@dataclass(frozen=True, slots=True)
class AskWaits:
    """Question to a part of the leader: what waits with you that concerns this service, or this node? Answer: Waits."""

    service_id: str = ""
    node_id: str = ""


@dataclass(frozen=True, slots=True)
class Waits:
    """What waits with an actor, and who else knows more."""

    waits: tuple[Wait, ...] = ()
    ask_too: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Explain:
    """Question: why is this service, task or node not as it should be? ``text`` is an id, a name or the beginning of an
    id; an empty ``kind`` is whichever there is. Answer: a value for people and programs (`runtime.swarm.explaining`).
    """

    kind: SubjectKind
    text: str


@dataclass(frozen=True, slots=True)
class PlanNode:
    """Question: what would happen if this node were drained, or removed? Nothing is changed."""

    action: Literal["drain", "rm"]
    text: str
