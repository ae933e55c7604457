"""Client streams of the in-memory transport: items that are queued, and items that are fetched as they are taken."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message

from runtime.errors import Code, Refused
from runtime.wire.endings import deadline
from runtime.wire.inbound import Ending
from runtime.wire.memory_call import MemoryCall
from runtime.wire.port import Upload


class MemoryUpload(Upload):
    """The sending side of a client stream."""

    __slots__ = ("_call", "_finished")

    def __init__(self, call: MemoryCall) -> None:
        self._call = call
        self._finished = False

    def send(self, item: Message) -> bool:
        if self._call.done or self._finished:
            return False
        if self._call.push_input(item.SerializeToString(deterministic=True)):
            return True
        refused = Refused(Code.RESOURCE_EXHAUSTED, f"the receiver of {self._call.method.path} is too slow")
        self._call.channel.transport.network.schedule(0.0, lambda: self._call.cancel(refused))
        return False

    def finish(self) -> None:
        if not self._finished:
            self._finished = True
            self._call.push_input(Ending(None))

    def cancel(self) -> None:
        self._call.channel.transport.network.schedule(0.0, self._call.cancel)


class MemoryPour:
    """Fetches the items of an upload one at a time: the next one when the receiver has taken the last."""

    __slots__ = ("_call", "_count", "_item_timeout", "_items", "_step")

    def __init__(self, call: MemoryCall, items: Iterator[Message], item_timeout: float) -> None:
        self._call = call
        self._items = items
        self._item_timeout = item_timeout
        self._count = 0
        self._step = 0
        call.on_taken = self.next

    def next(self) -> None:
        """Sends one more item, or the end."""
        if self._call.done:
            return
        try:
            item = next(self._items, None)
        except Refused as refused:
            self._call.cancel(refused)
            return
        if item is None:
            self._call.push_input(Ending(None))
            self._within(self._item_timeout * max(self._count, 1))
        else:
            self._count += 1
            self._call.push_input(item.SerializeToString(deterministic=True))
            self._within(self._item_timeout)

    def _within(self, seconds: float) -> None:
        """Breaks off unless the next step comes in time."""
        self._step += 1
        step = self._step

        def late() -> None:
            if self._step == step:
                self._call.cancel(deadline())

        self._call.channel.transport.network.schedule(seconds, late)
