"""What the keeper of a certificate has under way with a CA: whom it asks, over which connection, how far it is.

No actor: it belongs to one CertificateActor, in whose turns all of it runs but what ``done`` is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from google.protobuf.message import Message

from runtime.errors import Code, Refused
from runtime.pki.issuance import CALL_TIMEOUT, CaCall, Issuance, Tries
from runtime.pki.node_identity import NodeIdentity, SigningRequest
from runtime.pki.root import RootCA
from runtime.swarm.agent_remotes import BAD, GOOD, Remote, Remotes
from runtime.wire.port import Channel, Credentials, Transport
from runtime.wire.services import path

Done = Callable[[Message | Refused], None]


class CaDirectory:
    """Where CAs are known to be: this node's own manager (``local``), and the others by weight."""

    def __init__(self, transport: Transport | None, rng: random.Random) -> None:
        self.transport = transport
        self.local: str | None = None
        self.remotes = Remotes()
        self._rng = rng

    def told(self, local: str | None, remotes: Iterable[Remote], own_id: str) -> None:
        """These are the managers now."""
        self.local = local
        self.remotes.told(remote for remote in remotes if not own_id or remote[0] != own_id)

    def choose(self, *, remote_only: bool) -> tuple[str | None, Remote | None]:
        """A target, and which of the others it is. This node's own manager comes first unless another is wanted,
        and stays the last resort."""
        if self.local is not None and not remote_only:
            return self.local, None
        remote = self.remotes.select(self._rng)
        return (remote[1], remote) if remote is not None else (self.local, None)


class Exchange:
    """One certificate being asked for. ``root`` is that of the cluster being joined, ``next`` the identity that only
    lacks its unlock key."""

    def __init__(
        self, directory: CaDirectory, request: SigningRequest, issuance: Issuance, interval: float, root: RootCA | None
    ) -> None:
        self.request = request
        self.issuance = issuance
        self.interval = interval
        self.root = root
        self.next: NodeIdentity | None = None
        self.root_fetched_anew = False
        self.tries = Tries(interval)
        self._directory = directory
        self._remote_only = False
        self._channel: Channel | None = None
        self._remote: Remote | None = None

    def call(self, call: CaCall, credentials: Credentials | None, name: str | None, done: Done) -> bool:
        """Sends a call; without ``name`` any server is taken. False (and no ``done``) when no manager is known."""
        if self._channel is None:
            target, self._remote = self._directory.choose(remote_only=self._remote_only)
            if target is None:
                return False
            transport = self._directory.transport
            assert transport is not None, "a certificate is asked for over a network"
            self._channel = transport.connect(target, credentials, server_name=name, verify=name is not None)
        self._channel.unary(path(call.service, call.method), call.request, timeout=CALL_TIMEOUT, done=done)
        return True

    def heard(self, answer: Message | Refused) -> None:
        """Notes what the answer says about the manager that was asked."""
        if self._remote is not None:
            lost = isinstance(answer, Refused) and answer.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
            self._directory.remotes.observe_if_known(self._remote, BAD if lost else GOOD)

    def turn_elsewhere(self) -> None:
        """The next call goes to another manager than this node's own, over a new connection."""
        self.hang_up()
        self._remote_only = True

    def hang_up(self) -> None:
        """Closes the connection; the next call makes another."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()
