"""A mailbox of two lanes: control ahead of user.

It belongs to an address, not to an actor's instance, and so outlives restarts. An envelope is a plain tuple
``(message, sender, reply, enqueued at (nanoseconds), trace id)``: making one is on the path of every message.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

from runtime.stage.policy import Overflow

if TYPE_CHECKING:
    from runtime.stage.address import Address
    from runtime.stage.answers import Reply

Envelope: TypeAlias = "tuple[Any, Address | None, Reply | None, int, int]"


class MailboxFull(Exception):
    """A bounded mailbox refused a message."""

    def __init__(self, path: str, capacity: int) -> None:
        super().__init__(path, capacity)
        self.path = path
        self.capacity = capacity

    def __str__(self) -> str:
        return f"the mailbox of {self.path} is full ({self.capacity} messages wait)"


class Mailbox:
    """Two lanes and their figures. Appending and taking are atomic, so there is no lock."""

    __slots__ = ("capacity", "control", "dropped", "highest", "overflow", "user")

    def __init__(self, capacity: int | None = None, overflow: Overflow = Overflow.REFUSE) -> None:
        self.control: deque[Any] = deque()
        self.user: deque[Envelope] = deque()
        self.capacity = capacity
        self.overflow = overflow
        self.highest = 0
        self.dropped = 0

    def put(self, envelope: Envelope) -> Envelope | None:
        """Takes a message in. Returns what was lost over it: the envelope itself, an older one, or nothing."""
        user = self.user
        if self.capacity is not None and len(user) >= self.capacity:
            self.dropped += 1
            if self.overflow is Overflow.REFUSE:
                return envelope
            lost = user.popleft()
            user.append(envelope)
            return lost
        user.append(envelope)
        return None

    @property
    def depth(self) -> int:
        """How many messages wait."""
        return len(self.user) + len(self.control)

    def oldest(self) -> int | None:
        """When the message that waits longest was enqueued, in nanoseconds."""
        try:
            return self.user[0][3]
        except IndexError:
            return None
