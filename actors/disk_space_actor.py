"""DiskSpaceActor keeps space back on a manager's disk and says when there is too little for new work.

The manager starts it once store and control API are there, which hear DiskSpace: with little left, the control API
takes no changes; with next to nothing, the store takes none at all. How much is enough is ``runtime.disk.ballast``'s.
It has a thread of its own, since reserving space is waited for.
"""

from __future__ import annotations

import logging
from typing import Any

from runtime.disk.ballast import Ballast, Space
from runtime.protocol.manager import DiskSpace
from runtime.stage import Actor, ActorUp, Address, GiveUp, Policy, handles

CHECK_EVERY = 1.0
TEXTS = {
    Space.AMPLE: "has space again",
    Space.LOW: "has little space left: changes of the swarm are refused",
    Space.NONE: "has next to no space left: nothing is written to the log",
}
log = logging.getLogger("swarmlet.manager")


class _Check:
    """Time to look."""


class DiskSpaceActor(Actor):
    """``listeners`` hear how much space there is, each of their lives anew."""

    policy = Policy(own_thread=True, give_up=GiveUp.NEVER)

    def __init__(self, *listeners: Address) -> None:
        super().__init__()
        self.listeners = listeners
        self.space = Space.AMPLE
        self._ballast: Ballast | None = None

    def started(self) -> None:
        for listener in self.listeners:
            self.watch(listener)
        self._ballast = Ballast(self.world.disk.files)
        self.every(CHECK_EVERY, _Check())
        self.tell(self.address, _Check())

    def stopped(self) -> None:
        if self._ballast is not None:
            self._ballast.release()

    def snapshot(self) -> dict[str, Any]:
        return {"space": self.space.value}

    @handles(_Check)
    def check(self, message: _Check) -> None:
        """Looks, gives up or takes back the reserve, and tells a change."""
        assert self._ballast is not None
        space = self._ballast.level()
        if space is not self.space:
            self.space = space
            level = logging.INFO if space is Space.AMPLE else logging.WARNING
            self.moment(log, "disk", space.value, f"the disk {TEXTS[space]}", level=level)
            for listener in self.listeners:
                self.tell(listener, DiskSpace(space))

    @handles(ActorUp)
    def up(self, message: ActorUp) -> None:
        """A new life knows nothing yet."""
        for listener in self.listeners:
            if listener.path == message.path:
                self.tell(listener, DiskSpace(self.space))
