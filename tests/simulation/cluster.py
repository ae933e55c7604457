"""Where simulations find their machines."""

from swarmlet.testing import Host, Swarm, manager_token, replicated, worker_token

__all__ = ["Host", "Swarm", "manager_token", "replicated", "worker_token"]
