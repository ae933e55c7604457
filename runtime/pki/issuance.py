"""How a node asks for what it needs of a CA: how often, how long, and what of the answers counts.

Rules owned here (SwarmKit's): five tries, each with 5 s per call; after a failed try the wait of the occasion (2 s on
a first join, none on a renewal) and another manager; a status is asked for until the certificate is of our own
request, with a growing wait between; what is left after the last try is the last error. On a renewal a manager that
cannot be reached is called again within the same try, as gRPC's wait-for-ready does; whoever joins hears after five
calls, ten seconds, that nobody is there, as from a live engine. What a manager does not offer at all is not asked
for again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from google.protobuf.message import Message

from runtime.errors import Code, Refused
from runtime.pki.renewal import ISSUANCE_BACKOFF
from runtime.wire.pb import ca_pb2, specs_pb2, types_pb2

TRIES = 5
CALL_TIMEOUT = 5.0
"""Seconds for one call, and for reaching a manager within one try."""
RECONNECT = 1.0
JOIN_INTERVAL = 2.0
RENEWAL_INTERVAL = 0.0

AVAILABILITY = {
    "": specs_pb2.NodeSpec.ACTIVE,
    "active": specs_pb2.NodeSpec.ACTIVE,
    "pause": specs_pb2.NodeSpec.PAUSE,
    "drain": specs_pb2.NodeSpec.DRAIN,
}
_GRANTED = (types_pb2.IssuanceStatus.ISSUED, types_pb2.IssuanceStatus.ROTATE)


@dataclass(frozen=True, slots=True)
class Retry:
    """Call again after ``wait`` seconds. ``reconnect``: not over the connection that failed, and no more over the
    node's own manager."""

    wait: float
    reconnect: bool = False


@dataclass(frozen=True, slots=True)
class GaveUp:
    """No more tries; after ``wait`` seconds ``error`` is the outcome."""

    wait: float
    error: Refused


@dataclass(frozen=True, slots=True)
class Issued:
    """The certificate is there: PEM."""

    certificate: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CaCall:
    """What to call now."""

    service: str
    method: str
    request: Message = field(repr=False)


class Tries:
    """Counts the tries of one call; ``interval`` seconds lie between them, and after the last."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.failed = 0
        self._window: float | None = None

    def begin(self, now: float) -> None:
        """A call goes out at this (monotonic) moment."""
        if self._window is None:
            self._window = now + CALL_TIMEOUT

    def succeeded(self) -> None:
        """The call was answered; a next one has its own window."""
        self._window = None

    def refused(self, refusal: Refused, now: float) -> Retry | GaveUp:
        """What follows a failed call."""
        if refusal.code is Code.UNAVAILABLE and self._waits_for_ready(now):
            return Retry(RECONNECT, reconnect=True)
        self.failed += 1
        self._window = None
        if refusal.code is Code.UNIMPLEMENTED:
            return GaveUp(0.0, refusal)
        if self.failed >= TRIES:
            return GaveUp(self.interval, refusal)
        return Retry(self.interval, reconnect=True)

    def _waits_for_ready(self, now: float) -> bool:
        return self.interval == RENEWAL_INTERVAL and self._window is not None and now + RECONNECT < self._window


class Issuance:
    """One certificate being asked for: ``IssueNodeCertificate``, then ``NodeCertificateStatus`` until it is there.

    ``token`` is empty on a renewal, ``availability`` what the operator asked a joining node to begin with.
    """

    def __init__(
        self, csr: bytes, rng: random.Random, interval: float, *, token: str = "", availability: str = ""
    ) -> None:
        self._csr = csr
        self._rng = rng
        self._token = token
        self._availability = AVAILABILITY[availability]
        self._tries = Tries(interval)
        self._node_id = ""
        self._polls = 0

    def call(self, now: float) -> CaCall:
        """The next call; ``now`` is monotonic."""
        if self._node_id:
            request = ca_pb2.NodeCertificateStatusRequest(node_id=self._node_id)
            return CaCall("NodeCA", "NodeCertificateStatus", request)
        self._tries.begin(now)
        return CaCall(
            "NodeCA",
            "IssueNodeCertificate",
            ca_pb2.IssueNodeCertificateRequest(csr=self._csr, token=self._token, availability=self._availability),
        )

    def answered(self, answer: Message | Refused, now: float) -> Retry | GaveUp | Issued:
        """What follows from the answer to the last call."""
        if isinstance(answer, ca_pb2.IssueNodeCertificateResponse):
            self._tries.succeeded()
            self._node_id, self._polls = answer.node_id, 0
            if answer.node_id:
                return Retry(0.0)
            return self._failed(Refused(Code.UNKNOWN, "the CA answered without a node id"), now)
        if isinstance(answer, ca_pb2.NodeCertificateStatusResponse):
            return self._status(answer, now)
        assert isinstance(answer, Refused), f"{type(answer).__name__} answers no call of an issuance"
        # Without the node there is nothing left to wait for: it was removed while its certificate was being made.
        if not self._node_id or answer.code is Code.NOT_FOUND:
            return self._failed(answer, now)
        return self._poll_again(reconnect=answer.code is not Code.DEADLINE_EXCEEDED)

    def _status(self, answer: ca_pb2.NodeCertificateStatusResponse, now: float) -> Retry | GaveUp | Issued:
        state, certificate = answer.status.state, answer.certificate
        if certificate.csr != self._csr:
            return self._poll_again()
        if state in _GRANTED and certificate.certificate:
            return Issued(certificate.certificate)
        if state == types_pb2.IssuanceStatus.FAILED:
            return self._failed(Refused(Code.UNKNOWN, answer.status.err or "the certificate was refused"), now)
        return self._poll_again()

    def _failed(self, refusal: Refused, now: float) -> Retry | GaveUp:
        self._node_id = ""
        return self._tries.refused(refusal, now)

    def _poll_again(self, *, reconnect: bool = False) -> Retry:
        self._polls += 1
        return Retry(ISSUANCE_BACKOFF.wait(self._polls, self._rng), reconnect)
