"""Where simulations find their machines, and what most of them begin with."""

from collections.abc import Callable

from swarmlet.testing import Host, Swarm, manager_token, replicated, worker_token

__all__ = ["Host", "Swarm", "joined", "manager_token", "replicated", "wait", "worker_token"]


def joined(seed: int, workers: int) -> tuple[Swarm, list[Host]]:
    """A swarm of one manager, the first host, and workers that have joined it."""
    swarm = Swarm(seed, workers + 1)
    hosts = swarm.boot()
    hosts[0].init()
    for host in hosts[1:]:
        host.join(hosts[0], worker_token(hosts[0]))
    return swarm, hosts


def wait(swarm: Swarm, condition: Callable[[], object], within: float = 120.0) -> None:
    """Runs until something holds that is asked of the swarm itself, and so not between any two events but twice a
    virtual second."""
    limit = swarm.simulator.time + within
    while not condition():
        assert swarm.simulator.time < limit, f"not within {within:g} virtual seconds"
        swarm.simulator.run_for(0.5)
