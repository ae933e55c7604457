"""WireActor owns a manager's servers: the remote port with TLS and the local control socket.

Only the manager above talks to it. Calls go straight to the actors that serve them, at addresses that stay the same
through restarts; a call whose actor is not there is refused. It has a thread of its own, since a server's start is
waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from actors.proxy_actor import SERVED_BY_LEADER
from runtime.protocol.manager import Listening, ManagerSetup
from runtime.stage import Actor, Address, Policy
from runtime.store.view import Published
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.port import MANAGER, Access, Identity, Routes, Server
from runtime.wire.services import METHODS, routes
from runtime.wire.to_actor import to_actor

GRACE = 1.0  # seconds that calls under way are given when a server closes

# Which actor below the manager serves a service; what only the leader serves goes through the proxy.
SERVED_BY: Mapping[str, str] = {
    "Control": "control",
    "Raft": "raft/transport",
    "Watch": "watch",
    **dict.fromkeys(SERVED_BY_LEADER, "proxy"),
}


class WireActor(Actor):
    """``manager`` is whose children serve; it serves Health itself. ``published`` tells which nodes were removed."""

    policy = Policy(own_thread=True)

    def __init__(self, manager: Address, setup: ManagerSetup, published: Published) -> None:
        super().__init__()
        self.manager = manager
        self.setup = setup
        self.published = published
        self._servers: list[Server] = []
        self._known: tuple[objects.Cluster | None, Access] | None = None

    def started(self) -> None:
        transport = self.world.transport
        assert transport is not None, "a manager needs a network"
        table = service_routes(self.manager)
        remote = transport.serve(self.setup.listen_addr, table, access=self._access, credentials=self.setup.credentials)
        self._servers.append(remote)
        if self.setup.control_socket:
            local = transport.serve(f"unix:{self.setup.control_socket}", table, access=self._access)
            self._servers.append(local)
        self.tell(self.manager, Listening(remote.address))

    def stopped(self) -> None:
        servers, self._servers = self._servers, []
        for server in servers:
            server.close(GRACE)

    def crashed(self) -> None:
        self.stopped()

    def snapshot(self) -> dict[str, object]:
        return {"listening": [server.address for server in self._servers]}

    def _access(self) -> Access:
        """Asked for with each call that comes in, on any thread: made anew when the cluster object is another."""
        cluster = self.published.view.get(objects.Cluster, self.setup.cluster_id)
        known = self._known
        if known is None or known[0] is not cluster:
            known = self._known = cluster, self._access_in(cluster)
        return known[1]

    def _access_in(self, cluster: objects.Cluster | None) -> Access:
        setup = self.setup
        removed = cluster.blacklisted_certificates if cluster is not None else frozenset[str]()
        local = Identity(setup.node_id, MANAGER, setup.cluster_id, local=True)
        return Access(setup.cluster_id, removed, local)


def service_routes(manager: Address) -> Routes:
    """Every method, with the actor that serves it."""
    stage, path = manager.stage, manager.path
    handlers: dict[str, Callable[..., None]] = {}
    for method in METHODS.values():
        below = SERVED_BY.get(method.service)
        handlers[method.path] = to_actor(stage.at(f"{path}/{below}") if below is not None else manager)
    return routes(handlers)
