"""Whole swarms in tests: in memory under virtual time, or over real sockets and processes.

``TestCluster`` is what tests use; ``Swarm`` and ``Host`` are the machines that it is made of under virtual time.
Names are looked up when they are first used: pytest imports this package, for its plugin, wherever it is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swarmlet.testing.cluster import TestCluster
    from swarmlet.testing.ground import Refusal
    from swarmlet.testing.host import Host
    from swarmlet.testing.report import Fault
    from swarmlet.testing.swarm import Swarm, manager_token, replicated, worker_token

__all__ = ["Fault", "Host", "Refusal", "Swarm", "TestCluster", "manager_token", "replicated", "worker_token"]

_HOMES = {
    "Fault": "report",
    "Host": "host",
    "Refusal": "ground",
    "Swarm": "swarm",
    "TestCluster": "cluster",
    "manager_token": "swarm",
    "replicated": "swarm",
    "worker_token": "swarm",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
