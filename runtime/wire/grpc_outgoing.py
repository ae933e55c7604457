"""Calls that go out, from their beginning to the one outcome that is reported: requests and streams of items.

Rules kept here: everything but the making happens on the I/O loop's thread; an outcome is reported once, and nothing
after it; a bug in a callback ends its call and nothing else.
"""

from __future__ import annotations

import abc
import logging
from collections.abc import Callable

from google.protobuf.message import DecodeError, Message

from runtime.errors import Code, NotSent, Refused
from runtime.wire.endings import cancelled
from runtime.wire.grpc_core_client import CoreChannel, CoreClientCall, Metadata, Status
from runtime.wire.port import Headers, OnItem
from runtime.wire.services import METHODS

logger = logging.getLogger("swarmlet.wire")

FAILED = "a call of %s failed"
Ended = Callable[["Message | Refused | None"], None]


class Outgoing(abc.ABC):
    """One call. ``ended`` hears its outcome: an answer, None for the good end of a stream, or a refusal.

    The channel sets what only it knows: how to ``explain`` a status, or a reason on this side, by what became of the
    connection; and who hears when the call is ``gone``.
    """

    __slots__ = ("_call", "_ended", "_reason", "explain", "gone", "metadata", "method", "over")

    def __init__(self, method: str, metadata: Headers, ended: Ended) -> None:
        self.method = METHODS[method]
        self.metadata: Metadata = tuple(metadata)
        self.explain: Callable[[Status, Refused | None], Refused]
        self.gone: Callable[[Outgoing], None] = _unknown
        self.over = False
        self._ended = ended
        self._call: CoreClientCall | None = None
        self._reason: Refused | None = None

    def begin(self, channel: CoreChannel) -> None:
        """Sets out."""
        try:
            self._call = self._begin(channel)
        except Exception as error:
            logger.exception(FAILED, self.method.path)
            self._failed(error)

    def cancel(self, reason: Refused | None = None) -> None:
        """Breaks it off; what is reported is ``reason``, unless the answer was on its way."""
        if self.over:
            return
        self._reason = self._reason or reason or cancelled()
        if self._call is None:
            self.end(NotSent(self._reason.code, self._reason.text))
        else:
            self._call.cancel()

    def end(self, outcome: Message | Refused | None) -> None:
        """Reports the outcome; again is nothing."""
        if not self.over:
            self.over = True
            self._call = None
            self.gone(self)
            self._ended(outcome)

    @abc.abstractmethod
    def _begin(self, channel: CoreChannel) -> CoreClientCall: ...

    def _answered(self, payload: bytes | None, status: Status) -> None:
        """The end of a call that has one answer."""
        if status.code is Code.OK:
            self.end(self._parsed(payload))
        else:
            self.end(self.explain(status, self._reason))

    def _parsed(self, payload: bytes | None) -> Message | Refused:
        """The answer; an upload that ends well without one has an empty one."""
        if payload is None and not self.method.client_streaming:
            return Refused(Code.INTERNAL, f"{self.method.path} ended without an answer")
        try:
            return self.method.response.FromString(payload or b"")
        except DecodeError:
            return unreadable(self.method.path)

    def _failed(self, error: Exception) -> None:
        """A bug of this side, or of whom the call reports to."""
        refused = Refused(Code.INTERNAL, f"the call of {self.method.path} failed with {type(error).__name__}")
        if self._call is None:
            self.end(refused)
        else:
            self.cancel(refused)


class Request(Outgoing):
    """One message there, one back."""

    __slots__ = ("_payload", "_timeout")

    def __init__(self, method: str, request: Message, timeout: float, metadata: Headers, ended: Ended) -> None:
        super().__init__(method, metadata, ended)
        self._payload = request.SerializeToString(deterministic=True)
        self._timeout = timeout

    def _begin(self, channel: CoreChannel) -> CoreClientCall:
        call = channel.call(self.method.path, self._timeout)
        call.ask(self._payload, self.metadata, self._answered)
        self._payload = b""  # whoever may cancel the call holds it for longer
        return call


class Items(Outgoing):
    """One message there, any number back. The end is reported when the items before it were."""

    __slots__ = ("_no_more", "_on_item", "_payload", "_status")

    def __init__(self, method: str, request: Message, metadata: Headers, on_item: OnItem, ended: Ended) -> None:
        super().__init__(method, metadata, ended)
        self._payload = request.SerializeToString(deterministic=True)
        self._on_item = on_item
        self._no_more = False
        self._status: Status | None = None

    def _begin(self, channel: CoreChannel) -> CoreClientCall:
        call = channel.call(self.method.path, None)
        call.request(self._payload, self.metadata, self._told)
        self._payload = b""
        call.receive(self._came)
        return call

    def _came(self, payload: bytes | None) -> None:
        if payload is None or self._reason is not None or self._call is None:
            self._no_more = True
            self._end_in_order()
            return
        try:
            self._on_item(self.method.response.FromString(payload))
        except DecodeError:
            self.cancel(unreadable(self.method.path))
        except Exception as error:
            logger.exception(FAILED, self.method.path)
            self._failed(error)
        self._call.receive(self._came)

    def _told(self, status: Status) -> None:
        self._status = status
        self._end_in_order()

    def _end_in_order(self) -> None:
        if self._status is not None and self._no_more:
            good = self._status.code is Code.OK and self._reason is None
            self.end(None if good else self.explain(self._status, self._reason))


def unreadable(path: str) -> Refused:
    """For bytes that are not the method's message."""
    return Refused(Code.INTERNAL, f"an answer of {path} is not a valid message")


def _unknown(call: Outgoing) -> None:
    """The channel does not know of it yet."""
