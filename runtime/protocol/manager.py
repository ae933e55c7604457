"""What the actors of a manager are given, and what its parts tell each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.stage.address import Address
    from runtime.store.view import Published
    from runtime.wire.port import Credentials


@dataclass(frozen=True, slots=True)
class LeaderContext:
    """What every actor of the leader's subtree knows: who it works for, and the store.

    ``published`` holds the newest committed view, ``store`` takes writes and watches; ``credentials`` are this
    manager's own, to call others as itself.
    """

    node_id: str
    cluster_id: str
    store: Address
    published: Published
    credentials: Credentials
