"""WatchActor serves SwarmKit's Watch service from this manager's own store, whether or not it leads.

Who talks to it: managers and whoever is on the control socket, by the wire. Each stream is an actor of its own below
it, with a watch of its own on the store; a stream that fails ends alone, and its caller hears so.
"""

from __future__ import annotations

from typing import Any

from actors.serving import Serving, serves
from actors.watch_stream_actor import WatchStreamActor
from runtime.stage import Address, GiveUp, Policy, Restart
from runtime.store.view import Published
from runtime.store.watching import selections
from runtime.wire.port import Call


class WatchActor(Serving):
    """``store`` is watched; ``published`` says how far it is."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, store: Address, published: Published) -> None:
        super().__init__()
        self.store = store
        self.published = published
        self._number = 0

    def snapshot(self) -> dict[str, Any]:
        return {"begun": self._number}

    @serves("Watch", "Watch")
    def watch_objects(self, call: Call) -> None:
        """Begins a stream. Nothing comes of it before the request is known to make sense."""
        request: Any = call.request
        asked = selections(request.entries)
        self._number += 1
        name = f"stream-{self._number}"
        self.spawn(
            name, WatchStreamActor, self.store, self.published, call, asked, policy=Policy(restart=Restart.TEMPORARY)
        )
