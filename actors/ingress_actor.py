"""IngressActor has this node take connections and datagrams for the services that publish ports in ingress mode.

Its agent alone talks to it: it passes on the tables that came with the assignments. Listening and forwarding are the
world's ``ingress`` edge's; a node without one (its executor runs no processes) takes none. Ports that cannot be
listened on are tried again every five seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime.protocol.agent import IngressBlocked, IngressLife, IngressTablesAre
from runtime.stage import Actor, Address, GiveUp, Policy, Timer, handles
from runtime.swarm.ingress_tables import PublishedPort, Routes, routes

AGAIN_S = 5.0

log = logging.getLogger("swarmlet.ingress")


@dataclass(frozen=True, slots=True)
class _Applied:
    """The edge has taken over routes, but for these ports."""

    failed: Mapping[PublishedPort, str]


class _Again:
    """What could not be listened on is tried again."""


class IngressActor(Actor):
    """``agent`` is told of each life, and then tells the tables."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, agent: Address) -> None:
        super().__init__()
        self.agent = agent
        self.routes: Routes = {}
        self.failed: Mapping[PublishedPort, str] = {}
        self._told: tuple[tuple[str, str], ...] | None = None
        self._retry: Timer | None = None

    def started(self) -> None:
        self.tell(self.agent, IngressLife())

    def stopped(self) -> None:
        if self.world.ingress is not None:
            self.world.ingress.apply({}, lambda failed: None)

    def snapshot(self) -> dict[str, Any]:
        return {
            "ports": {str(port): len(backends) for port, backends in self.routes.items()},
            "cannot listen": {str(port): text for port, text in self.failed.items()},
        }

    @handles(IngressTablesAre)
    def tables(self, message: IngressTablesAre) -> None:
        """All tables; one that cannot be read leaves everything as it was."""
        try:
            found = routes(message.tables)
        except ValueError as error:
            log.error("tables of published ports are not understood: %s", error, extra=self.about())
            return
        if found != self.routes:
            self.routes = found
            self._apply()

    def _apply(self) -> None:
        if self.world.ingress is not None:
            told = self.sink(lambda failed: self.tell(self.address, _Applied(failed)))
            self.world.ingress.apply(self.routes, told)

    @handles(_Applied)
    def applied(self, message: _Applied) -> None:
        """Some ports may be somebody else's for now: the agent is told of them, and of their end."""
        self.failed = message.failed
        blocked = tuple(sorted((str(port), text) for port, text in self.failed.items()))
        if blocked != self._told:
            self._told = blocked
            self.tell(self.agent, IngressBlocked(blocked))
        if self.failed and self._retry is None:
            self._retry = self.after(AGAIN_S, _Again())

    @handles(_Again)
    def again(self, message: _Again) -> None:
        """Five seconds later."""
        self._retry = None
        if self.failed:
            self._apply()
