"""Docker swarm mode as a tree of supervised actors.

    from swarmlet import Node, ProcessExecutor

Importing starts nothing and loads nothing: names are looked up when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.errors import Refused
    from runtime.executor.actor_plan import Registered, TaskPlace
    from runtime.protocol.actor_tasks import Ping, Stopping
    from runtime.stage import Actor, handles
    from swarmlet.async_node import AsyncNode
    from swarmlet.errors import StartError, UsageError
    from swarmlet.executors import (
        ActorExecutor,
        ContainerExecutor,
        ExecutorFactory,
        ExecutorPlace,
        GivenExecutor,
        MixedExecutor,
        ProcessExecutor,
    )
    from swarmlet.node import Node
    from swarmlet.testing import TestCluster

__version__ = "0.1.0"
__all__ = [
    "Actor",
    "ActorExecutor",
    "AsyncNode",
    "ContainerExecutor",
    "ExecutorFactory",
    "ExecutorPlace",
    "GivenExecutor",
    "MixedExecutor",
    "Node",
    "Ping",
    "ProcessExecutor",
    "Refused",
    "Registered",
    "StartError",
    "Stopping",
    "TaskPlace",
    "TestCluster",
    "UsageError",
    "__version__",
    "handles",
]

_HOMES = {
    "Actor": "runtime.stage",
    "ActorExecutor": "swarmlet.executors",
    "AsyncNode": "swarmlet.async_node",
    "ContainerExecutor": "swarmlet.executors",
    "ExecutorFactory": "swarmlet.executors",
    "ExecutorPlace": "swarmlet.executors",
    "GivenExecutor": "swarmlet.executors",
    "MixedExecutor": "swarmlet.executors",
    "Node": "swarmlet.node",
    "Ping": "runtime.protocol.actor_tasks",
    "ProcessExecutor": "swarmlet.executors",
    "Refused": "runtime.errors",
    "Registered": "runtime.executor.actor_plan",
    "StartError": "swarmlet.errors",
    "Stopping": "runtime.protocol.actor_tasks",
    "TaskPlace": "runtime.executor.actor_plan",
    "TestCluster": "swarmlet.testing",
    "UsageError": "swarmlet.errors",
    "handles": "runtime.stage",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
