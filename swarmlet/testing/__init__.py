"""Whole swarms in tests: in memory under virtual time, or over real sockets and processes.

``TestCluster`` is what tests use; ``Swarm`` and ``Host`` are the machines that it is made of under virtual time.
"""

from __future__ import annotations

from swarmlet.testing.cluster import TestCluster
from swarmlet.testing.ground import Refusal
from swarmlet.testing.host import Host
from swarmlet.testing.report import Fault
from swarmlet.testing.swarm import Swarm, manager_token, replicated, worker_token

__all__ = ["Fault", "Host", "Refusal", "Swarm", "TestCluster", "manager_token", "replicated", "worker_token"]
