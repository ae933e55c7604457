"""The transport port: what services and clients stand on, whether sockets or a simulator carries them.

Rules that both transports (``grpc_transport`` and its in-memory twin ``memory``) keep, and that the rest of the
project may rely on:

1. Callback style. A callback runs on the transport's own thread (or inside the simulator's turn); it must hand the
   matter on (a ``tell``) and return at once. Every method of a Call, a Channel and a Server may be called from any
   thread, and never blocks.
2. What ``done`` and ``on_end`` report, they report exactly once, also after a cancel (then ``Refused(CANCELLED)``)
   and after a close. A ``stream`` delivers no item after ``on_end``.
3. Of a call the first answer counts. ``reply``, ``fail``, ``send`` and ``end`` after an answer or a cancel do
   nothing and return False, so a handler needs no bookkeeping of calls that went away.
4. Messages belong to whom they are handed: the transport keeps no reference after sending and delivers copies.
5. Authorisation comes before the handler: what a handler sees has passed its route's roles.
"""

from __future__ import annotations

import abc
import dataclasses
import threading
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Protocol

from google.protobuf.message import Message

from runtime.errors import Refused

MANAGER = "swarm-manager"
WORKER = "swarm-worker"
CA_NAME = "swarm-ca"

Metadata = Mapping[str, tuple[str, ...]]
Headers = Sequence[tuple[str, str]]
Cancel = Callable[[], None]
Done = Callable[["Message | Refused"], None]
OnItem = Callable[[Message], None]
OnEnd = Callable[["Refused | None"], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """Who calls, as far as it was proven; for a forwarded call, on whose behalf.

    ``role`` is ``MANAGER``, ``WORKER``, or empty for a caller without a valid certificate (who reaches only routes
    that are open to anyone). ``remote_addr`` is ``host:port`` of the caller itself, also behind a proxying manager.
    ``forwarded`` says that a manager vouches for it; ``local`` that the call came over the control socket or from
    within the process, as the node itself.
    """

    node_id: str = ""
    role: str = ""
    organization: str = ""
    remote_addr: str = ""
    forwarded: bool = False
    local: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """What a server decides by, read anew for every call: the cluster's id, the ids of removed nodes, and as whom
    callers on the control socket act (``local``)."""

    organization: str = ""
    blacklist: Container[str] = frozenset()
    local: Identity = dataclasses.field(default_factory=lambda: Identity(role=MANAGER, local=True))


class Call(abc.ABC):
    """A request that came in. Exactly one of ``reply`` and ``fail`` answers a unary call or an upload; a server
    stream is any number of ``send`` and then ``end`` or ``fail``."""

    __slots__ = ()

    @property
    @abc.abstractmethod
    def method(self) -> str:
        """The path, for example ``/docker.swarmkit.v1.Dispatcher/Session``."""

    @property
    @abc.abstractmethod
    def request(self) -> Message:
        """The request; of an upload (client stream) there is none: asking is an error, use ``receive``."""

    @property
    @abc.abstractmethod
    def identity(self) -> Identity:
        """Who calls."""

    @property
    @abc.abstractmethod
    def metadata(self) -> Metadata:
        """The call's metadata, keys in lower case, without the forwarding keys that ``identity`` stands for."""

    @abc.abstractmethod
    def reply(self, message: Message) -> bool:
        """Answers; False if the call is over already."""

    @abc.abstractmethod
    def fail(self, refused: Refused) -> bool:
        """Refuses, or ends a stream with an error; False if the call is over already."""

    @abc.abstractmethod
    def send(self, item: Message) -> bool:
        """Queues one item of a server stream; False if the stream is over.

        What waits for a slow reader is bounded (``StreamLimits``). Beyond it the stream ends with
        RESOURCE_EXHAUSTED, this answers False and ``on_cancel`` reports: an item is never left out silently.
        """

    @abc.abstractmethod
    def end(self) -> bool:
        """Ends a server stream well, after what was sent; False if it is over already."""

    @abc.abstractmethod
    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Calls back once if the call ends other than by ``reply``, ``fail`` or ``end``: the caller cancelled or
        went away, its deadline passed, the server closed, or it read too slowly. At once if that has happened."""

    @abc.abstractmethod
    def receive(self, on_item: OnItem, on_end: OnEnd) -> None:
        """Takes the items of an upload, once per call: those that came before as well. ``on_end(None)`` when the
        caller has finished; ``on_end(Refused)`` when it went away or the call was answered before the end."""


Handler = Callable[[Call], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """Who handles a method and which roles may call it (None: anyone, also without a certificate)."""

    handler: Handler
    roles: frozenset[str] | None


Routes = Mapping[str, Route]


@dataclasses.dataclass(frozen=True, slots=True)
class StreamLimits:
    """What may wait in a server stream for a slow reader: items, and bytes beyond the first item."""

    items_max: int = 4096
    bytes_max: int = 64 << 20


DEFAULT_LIMITS = StreamLimits()


class Upload(abc.ABC):
    """The sending side of a client stream."""

    __slots__ = ()

    @abc.abstractmethod
    def send(self, item: Message) -> bool:
        """Queues an item; False if the call is over or has too much waiting (then it has failed with
        RESOURCE_EXHAUSTED)."""

    @abc.abstractmethod
    def finish(self) -> None:
        """No more items; the answer comes to ``done``."""

    @abc.abstractmethod
    def cancel(self) -> None:
        """Breaks the call off; ``done`` hears CANCELLED unless it was answered."""


class Channel(abc.ABC):
    """Calls to one peer. Connects on first use, and again after a loss; a call on a channel that cannot connect
    fails with UNAVAILABLE and a text that names the reason; with ``NotSent`` where it is sure that nothing was sent."""

    __slots__ = ()

    @abc.abstractmethod
    def unary(self, method: str, request: Message, *, timeout: float, done: Done, metadata: Headers = ()) -> Cancel:
        """One request, one answer. ``timeout`` in seconds; DEADLINE_EXCEEDED after it.

        Also for a method that takes an upload, if it is one item long: on the wire that is the same, and other than an
        ``upload`` it always hears why the peer refused, however early that comes."""

    @abc.abstractmethod
    def stream(
        self, method: str, request: Message, *, on_item: OnItem, on_end: OnEnd, metadata: Headers = ()
    ) -> Cancel:
        """One request, many items in order, then ``on_end(None)`` or ``on_end(Refused)``."""

    @abc.abstractmethod
    def upload(self, method: str, *, done: Done, timeout: float | None = None, metadata: Headers = ()) -> Upload:
        """Many items, one answer. ``timeout`` in seconds for the whole call, None for no limit."""

    @abc.abstractmethod
    def upload_items(
        self, method: str, items: Iterator[Message], *, item_timeout: float, done: Done, metadata: Headers = ()
    ) -> Cancel:
        """An upload of any size: each item is taken from ``items`` when the one before it is on its way, on the
        transport's own thread, and is in memory only meanwhile.

        Fails with DEADLINE_EXCEEDED when one item is not taken within ``item_timeout`` seconds (the first one's
        include connecting), or the answer takes longer than all items were allowed. A ``Refused`` of ``items`` is the
        outcome."""

    @property
    @abc.abstractmethod
    def peer_certificate(self) -> bytes | None:
        """DER of the certificate that the peer showed last (also one that was not accepted); None before that."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends what is under way with CANCELLED and forgets the connection. Again is nothing."""


class Server(abc.ABC):
    """Something that listens."""

    __slots__ = ()

    @property
    @abc.abstractmethod
    def address(self) -> str:
        """Where, as ``host:port`` with the real port, or ``unix:path``."""

    @abc.abstractmethod
    def close(self, grace: float, done: Callable[[], None] | None = None) -> None:
        """Accepts nothing new at once, lets calls go on for ``grace`` seconds, cancels the rest; then ``done``.
        Again is nothing (but ``done`` is called)."""


class Transport(Protocol):
    """What one node reaches others by."""

    def connect(
        self,
        target: str,
        credentials: Credentials | None,
        *,
        server_name: str | None = MANAGER,
        verify: bool = True,
    ) -> Channel:
        """A channel to ``host:port`` or ``unix:path``.

        ``server_name`` is the name that the peer's certificate must hold (``MANAGER`` or ``CA_NAME``), never its
        host. With ``verify`` False any certificate is taken: for the download of the root certificate alone,
        whose digest is checked. ``credentials`` without a certificate (only a root) call as nobody.
        Nothing of credentials and names applies to ``unix:`` targets.
        """

    def serve(
        self,
        address: str,
        routes: Routes,
        *,
        access: Callable[[], Access],
        credentials: Credentials | None = None,
        limits: StreamLimits = DEFAULT_LIMITS,
    ) -> Server:
        """Listens at ``host:port`` (port 0: any) with TLS, or at ``unix:path`` (mode 0600, no TLS) as the control
        socket. Returns when bound; ``Refused(UNAVAILABLE)`` names why it cannot be. ``credentials`` are required
        for ``host:port``. Methods not in ``routes`` answer UNIMPLEMENTED."""


class Credentials:
    """A node's present certificate chain, its key and the root bundle, all PEM; replaceable in place.

    New handshakes use what is newest, connections that stand stay. ``certificate`` and ``key`` may be empty: then
    it only says whom to trust. Thread-safe; ``version`` grows with every replacement. The key appears in no repr.
    """

    __slots__ = ("_lock", "_material")

    def __init__(self, roots: bytes, certificate: bytes = b"", key: bytes = b"") -> None:
        self._lock = threading.Lock()
        self._material = Material(1, roots, certificate, key)

    def replace(self, *, roots: bytes, certificate: bytes = b"", key: bytes = b"") -> int:
        """Installs new material as a whole and returns its version."""
        with self._lock:
            self._material = Material(self._material.version + 1, roots, certificate, key)
            return self._material.version

    @property
    def material(self) -> Material:
        """The newest, as one consistent piece."""
        return self._material

    @property
    def version(self) -> int:
        """Number of the newest material, from 1."""
        return self._material.version

    def __repr__(self) -> str:
        return f"Credentials(version={self._material.version})"


@dataclasses.dataclass(frozen=True, slots=True)
class Material:
    """One version of credentials. ``certificate`` is the leaf and then its intermediates."""

    version: int
    roots: bytes = dataclasses.field(repr=False)
    certificate: bytes = dataclasses.field(repr=False)
    key: bytes = dataclasses.field(repr=False)

    def __post_init__(self) -> None:
        if bool(self.certificate) != bool(self.key):
            raise ValueError("a certificate and its key go together")
