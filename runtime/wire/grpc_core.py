"""A gRPC server whose calls are callbacks: one thread waits at gRPC's completion queue and runs what was waited for.

gRPC for Python has two servers of its own. ``grpc.aio`` makes two tasks and several futures for each call and wakes its
loop for each step of it, the other one holds a thread for each stream that is open. Both are written over the module
used here, which is not documented for others: ``grpc/_server.py`` is its manual, and all that is used of it is in this
file.

Rules kept here: operations are started from any thread and never once the server is over (gRPC would abort the
process); each is reported once, on the queue's thread; no exception of a callback ends that thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from grpc._cython import cygrpc

from runtime.errors import Code

logger = logging.getLogger("swarmlet.wire")

Done = Callable[[Any], None]
"""Is told of the end of what was started: ``success`` of the event is False where the call was over before."""
FLAGS = 0


class CoreCall:
    """One call, from its arrival on."""

    __slots__ = ("_call", "_metadata_sent", "_server", "metadata", "method", "peer")

    def __init__(self, server: CoreServer, event: Any) -> None:
        self._server = server
        self._call = event.call
        self._metadata_sent = False
        self.method: str = event.call_details.method.decode(errors="replace")
        self.metadata: Sequence[tuple[str, str | bytes]] = event.invocation_metadata or ()
        self.peer: str = event.call.peer().decode(errors="replace")

    def on_close(self, done: Callable[[], None]) -> None:
        """``done`` once the call is over, whoever ended it. To be asked first, and of every call."""
        self._start((cygrpc.ReceiveCloseOnServerOperation(FLAGS),), lambda _: done())

    def receive(self, done: Callable[[bytes | None], None]) -> None:
        """The next message of the caller; None when there are no more, or the call is over."""
        receive = cygrpc.ReceiveMessageOperation(FLAGS)
        self._start((receive,), lambda event: done(event.batch_operations[0].message()))

    def send_metadata(self, done: Done) -> None:
        """The headers of the answer, ahead of it."""
        self._start(self._metadata(), done)

    def send(self, message: bytes, done: Done) -> None:
        """One message of a stream. The next may be sent once this one is reported."""
        self._start((*self._metadata(), cygrpc.SendMessageOperation(message, FLAGS)), done)

    def end(self, message: bytes | None, code: int, details: str = "") -> None:
        """The last word, with the answer where there is one."""
        answer = () if message is None else (cygrpc.SendMessageOperation(message, FLAGS),)
        status = cygrpc.SendStatusFromServerOperation(None, code, details.encode(), FLAGS)
        self._start((*self._metadata(), *answer, status), _nothing)

    def _metadata(self) -> tuple[Any, ...]:
        sent, self._metadata_sent = self._metadata_sent, True
        return () if sent else (cygrpc.SendInitialMetadataOperation((), FLAGS),)

    def _start(self, operations: tuple[Any, ...], done: Done) -> None:
        self._server.start_batch(self._call, operations, done)


class CoreServer:
    """Listens at unix sockets and gives each call to ``begin``, on its own thread, which ends with the server."""

    def __init__(self, options: Sequence[tuple[str, int]], begin: Callable[[CoreCall], None]) -> None:
        self._begin = begin
        self._queue = cygrpc.CompletionQueue()
        self._server = cygrpc.Server(tuple((name.encode(), value) for name, value in options), False)
        self._server.register_completion_queue(self._queue)
        self._lock = threading.Lock()
        self._under_way = 0
        self._stopping = False
        self._over = False
        self._ended: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="swarmlet-grpc", daemon=True)

    def listen(self, path: str) -> bool:
        """Whether it listens at a unix socket from now on."""
        return bool(self._server.add_http2_port(f"unix:{path}".encode()))

    def start(self) -> None:
        """Takes calls."""
        self._server.start()
        self._request_call()
        self._thread.start()

    def stop(self, ended: Callable[[], None]) -> None:
        """Takes no more calls; ``ended`` is called on the server's thread when the last one is over. Once."""
        self._ended = ended
        with self._lock:
            self._stopping = True
            self._under_way += 1
            self._server.shutdown(self._queue, self._shut)

    def cancel_calls(self) -> None:
        """Ends what is under way."""
        with self._lock:
            if not self._over:
                self._server.cancel_all_calls()

    def join(self) -> None:
        """Waits for the thread, after ``ended`` was called."""
        self._thread.join()

    def start_batch(self, call: Any, operations: tuple[Any, ...], done: Done) -> None:
        """Starts operations of a call. After the server's end nobody is there to be told of them. RuntimeError for what
        gRPC does not allow, such as a second receive while one is under way."""
        with self._lock:
            if self._over:
                return
            error = call.start_server_batch(operations, done)
            if error:
                raise RuntimeError(f"gRPC takes no such operations now: error {error}")
            self._under_way += 1

    def _request_call(self) -> None:
        with self._lock:
            if not self._stopping:
                self._under_way += 1
                self._server.request_call(self._queue, self._queue, self._arrived)

    def _arrived(self, event: Any) -> None:
        self._request_call()
        if event.success and event.call_details.method:
            call = CoreCall(self, event)
            try:
                self._begin(call)
            except Exception:
                logger.exception("a call of %s could not be begun", call.method)
                call.end(None, int(Code.INTERNAL), f"the call of {call.method} could not be begun")

    def _shut(self, event: Any) -> None:
        """All calls are over; what they had started is reported before the thread ends."""

    def _run(self) -> None:
        while not self._over:
            event = self._queue.poll()
            try:
                event.tag(event)
            except Exception:
                logger.exception("a callback of a gRPC server failed")
            del event  # or a call would live until the next event
            with self._lock:
                self._under_way -= 1
                self._over = self._stopping and not self._under_way
        self._server.destroy()
        self._ended()


def _nothing(event: Any) -> None:
    """Nothing follows."""
