"""gRPC's calls that go out, as callbacks on the I/O loop: no task for a call, and none for a step of it.

``grpc.aio`` makes a task, several futures and coroutines of each call; underneath lie a channel and batches of
operations, which are used here as they are (``grpc/_cython/_cygrpc/aio`` is the manual, and all that is used of it is
in this file). All such channels of a process share one completion queue, whose thread hands what is done to the loop;
the channels that gRPC's synchronous client stands on would each need a thread at a queue of its own.

Rules kept here: everything happens on the loop's thread; what was started is reported once, and what gRPC writes its
outcome into lives until then (gRPC holds a batch's future, and the future holds the batch); no exception of a callback
is lost.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from grpc._cython import cygrpc

from runtime.errors import Code

logger = logging.getLogger("swarmlet.wire")

Metadata = tuple[tuple[str, str], ...]
FLAGS = 0
CODES = frozenset(Code)


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """How a call ended: gRPC's code, and the peer's or gRPC's own words."""

    code: Code
    details: str


class CoreChannel:
    """Connects by itself when a call begins, and again after a loss. To be made on the loop's thread."""

    __slots__ = ("_channel", "_loop")

    def __init__(self, target: str, options: Sequence[tuple[str, Any]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._channel = cygrpc.AioChannel(target.encode(), tuple(options), None, self._loop)

    def call(self, path: str, timeout: float | None) -> CoreClientCall:
        """A call that has not begun; ``timeout`` in seconds from now."""
        deadline = None if timeout is None else time.time() + timeout
        return CoreClientCall(self._channel.call(path.encode(), deadline, None, None), self._loop)

    def close(self) -> None:
        """Its connections end. To be called once, when no call is under way."""
        self._channel.close()


class CoreClientCall:
    """One call. It begins with exactly one of ``ask``, ``request`` and ``upload``, and is over with its status."""

    __slots__ = ("_call", "_loop")

    def __init__(self, call: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._call = call
        self._loop = loop

    def ask(self, request: bytes, metadata: Metadata, over: Callable[[bytes | None, Status], None]) -> None:
        """One message there and at most one back, all in one step."""
        answer, status = cygrpc.ReceiveMessageOperation(FLAGS), cygrpc.ReceiveStatusOnClientOperation(FLAGS)
        whole = (*_opening(metadata), *_last(request), cygrpc.ReceiveInitialMetadataOperation(FLAGS), answer, status)
        self._start(whole, lambda good: over(_message(answer, good), self._status(status, good)))

    def request(self, request: bytes, metadata: Metadata, over: Callable[[Status], None]) -> None:
        """One message there; what comes back is asked for with ``receive``."""
        status = cygrpc.ReceiveStatusOnClientOperation(FLAGS)
        self._start((*_opening(metadata), *_last(request), status), lambda good: over(self._status(status, good)))
        self._start((cygrpc.ReceiveInitialMetadataOperation(FLAGS),), _nothing)

    def upload(self, metadata: Metadata, over: Callable[[bytes | None, Status], None]) -> None:
        """Any number of messages there, by ``send`` and ``finish``, and at most one back."""
        answer, status = cygrpc.ReceiveMessageOperation(FLAGS), cygrpc.ReceiveStatusOnClientOperation(FLAGS)
        whole = (*_opening(metadata), answer, status)
        self._start(whole, lambda good: over(_message(answer, good), self._status(status, good)))
        self._start((cygrpc.ReceiveInitialMetadataOperation(FLAGS),), _nothing)

    def receive(self, done: Callable[[bytes | None], None]) -> None:
        """The next message; None when there are no more, or the call is over."""
        message = cygrpc.ReceiveMessageOperation(FLAGS)
        self._start((message,), lambda good: done(_message(message, good)))

    def send(self, message: bytes, done: Callable[[bool], None]) -> None:
        """One message, which is reported when flow control has let it go; False if the call is over. The next one may
        be sent then."""
        self._start((cygrpc.SendMessageOperation(message, FLAGS),), done)

    def finish(self) -> None:
        """No more messages."""
        self._start((cygrpc.SendCloseFromClientOperation(FLAGS),), _nothing)

    def cancel(self) -> None:
        """Breaks it off; the status comes as always, and may be another where one was on its way."""
        self._call.cancel("the call was cancelled")

    def _status(self, operation: Any, good: bool) -> Status:
        """How the call ended. A batch with a status fails only where the call was never begun: for metadata that fits
        into no header, of which gRPC itself logs more."""
        if not good:
            self.cancel()  # for what else was started
            return Status(Code.INTERNAL, "gRPC has not taken the call")
        code = operation.code()
        return Status(Code(code) if code in CODES else Code.UNKNOWN, operation.details() or "")

    def _start(self, operations: tuple[Any, ...], done: Callable[[bool], None]) -> None:
        """Starts operations; ``done`` hears whether all of them came about. Raises what gRPC does not take."""
        batch = cygrpc.execute_batch(self._call, operations, self._loop)
        batch.send(None).add_done_callback(lambda _: _finish(batch, done))


def _finish(batch: Any, done: Callable[[bool], None]) -> None:
    """Lets a batch take over what gRPC has written for it, and reports it."""
    good = False
    try:
        batch.send(None)
    except StopIteration:
        good = True
    except cygrpc.ExecuteBatchError:
        logger.debug("operations of a call that is over")
    try:
        done(good)
    except Exception:
        logger.exception("a callback of a gRPC call failed")


def _opening(metadata: Metadata) -> tuple[Any, ...]:
    return (cygrpc.SendInitialMetadataOperation(metadata, FLAGS),)


def _last(message: bytes) -> tuple[Any, ...]:
    return cygrpc.SendMessageOperation(message, FLAGS), cygrpc.SendCloseFromClientOperation(FLAGS)


def _message(operation: Any, good: bool) -> bytes | None:
    return operation.message() if good else None


def _nothing(good: bool) -> None:
    """Nothing follows: what went wrong, the status tells."""
