"""A consensus that costs nothing, for benches of what stands on a store."""

from __future__ import annotations

from runtime.protocol.store import Entries, Propose
from runtime.stage import Actor, Address, handles


class Log(Actor):
    """Commits what it is told, at once."""

    def __init__(self, store: Address) -> None:
        super().__init__()
        self.store = store
        self.index = 8

    @handles(Propose)
    def propose(self, message: Propose) -> None:
        """One entry."""
        self.index += 1
        self.tell(self.store, Entries(((self.index, message.number, message.data),)))
