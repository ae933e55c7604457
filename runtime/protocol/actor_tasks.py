"""What is said about tasks that are actors: by the executor to their supervisor, and by that to the actors themselves.

The executor's are questions; they are answered with the port's outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.executor.actor_plan import ActorPlan

# To the actors


@dataclass(frozen=True, slots=True)
class Stopping:
    """Told to an actor that is a task and has a handler for this: its task is to end. It ends itself (``stop()``, or
    ``exit`` of its place) within ``grace`` seconds, or is stopped then. One without a handler is stopped at once."""

    grace: float


@dataclass(frozen=True, slots=True)
class Ping:
    """Question: are you well? Asked of an actor whose service has the health check ``ping``. Any answer but ``Refused``
    means yes."""


# Executor -> supervisor


@dataclass(frozen=True, slots=True)
class PrepareActor:
    """Question: note a task. Answered ``Already`` if it is known."""

    plan: ActorPlan


@dataclass(frozen=True, slots=True)
class StartActor:
    """Question: start it, with the payloads of its secrets and configs. Answered when it runs and is healthy."""

    task_id: str
    secrets: Mapping[str, bytes] = field(repr=False)
    configs: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class AwaitActor:
    """Question: how does it end?"""

    task_id: str


@dataclass(frozen=True, slots=True)
class StopActor:
    """Question: end it within ``grace`` seconds; answered when it is gone."""

    task_id: str
    grace: float


@dataclass(frozen=True, slots=True)
class RemoveActor:
    """Question: end it, with its own grace period, and forget it."""

    task_id: str


@dataclass(frozen=True, slots=True)
class StopActors:
    """Question: end all, each with its own grace period; answered when all are gone."""
