"""How a certificate is asked for: the part that the keeper of a node's certificate and AdmissionActor have in common.

The root that a join token is of, the certificate, the unlock key that goes with a manager's: one call after the other,
each tried and tried again as ``runtime.pki.issuance`` says. What becomes of the outcome is the subclass's; nothing here
touches a disk.
"""

from __future__ import annotations

import abc
from collections.abc import Callable

from google.protobuf.message import Message

from actors.certificate_exchange import CaDirectory, Exchange
from runtime.errors import Code, Refused
from runtime.pki.errors import InvalidCertificate, InvalidKey, UnknownAuthority
from runtime.pki.issuance import CaCall, GaveUp, Issuance, Issued, Retry, Tries
from runtime.pki.join_tokens import check_bundle, no_valid_token, parse_join_token
from runtime.pki.node_identity import MANDATORY_FIPS, NodeIdentity, accept_issued, new_request, under_unlock_key
from runtime.pki.root import RootCA, load_root
from runtime.protocol.certificate import CertificateSetup
from runtime.protocol.cluster import ClusterError
from runtime.stage import Actor, handles
from runtime.wire.pb import ca_pb2
from runtime.wire.port import CA_NAME, MANAGER, Credentials


class _Later:
    """The next step of an exchange, after a wait."""

    def __init__(self, exchange: Exchange, step: Callable[[], None]) -> None:
        self.exchange = exchange
        self.step = step


class CertificateRequests(Actor):
    """``identity`` is who this node is already; None for one that joins."""

    def __init__(self, setup: CertificateSetup) -> None:
        super().__init__()
        self.setup = setup
        self.identity: NodeIdentity | None = None
        self._directory = CaDirectory(self.world.transport, self.world.random)
        self._exchange: Exchange | None = None

    def stopped(self) -> None:
        if self._exchange is not None:
            self._exchange.hang_up()

    def crashed(self) -> None:
        self.stopped()

    # What becomes of it; the exchange is over then

    @abc.abstractmethod
    def _root_known(self, root: RootCA) -> None:
        """The root that the join token is of was downloaded."""

    @abc.abstractmethod
    def _issued(self, new: NodeIdentity) -> None:
        """There is a new certificate, and for a manager's the unlock key."""

    @abc.abstractmethod
    def _refused(self, error: Refused) -> None:
        """There is none to be had, for now."""

    def _under_another_root(self) -> bool:
        """The certificate is not under the root that is trusted: whether something is done about it."""
        return False

    # An exchange with a CA

    def _new_exchange(self, interval: float, root: RootCA | None, token: str = "", availability: str = "") -> None:
        request = new_request(self.world.entropy)
        issuance = Issuance(request.csr, self.world.random, interval, token=token, availability=availability)
        self._exchange = Exchange(self._directory, request, issuance, interval, root)

    def _end_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        exchange.hang_up()

    @property
    def _current(self) -> Exchange:
        assert self._exchange is not None, "no exchange is under way"
        return self._exchange

    @property
    def _trusted(self) -> RootCA:
        """The root that a certificate must be under: the newest, or that of the cluster being joined."""
        root = self.identity.root if self.identity is not None else self._current.root
        assert root is not None, "no root is trusted yet"
        return root

    # The root

    def _download_root(self, interval: float) -> None:
        """For who joins. ``ClusterError`` for a token that is none, or of a cluster that demands FIPS."""
        if not self.setup.join_token:
            raise no_valid_token()  # as the managers would say, but nothing is asked of whom no token vouches for
        try:
            if parse_join_token(self.setup.join_token).fips:
                raise Refused(Code.FAILED_PRECONDITION, MANDATORY_FIPS)
        except Refused as refused:
            raise our_own(refused) from None
        self._new_exchange(interval, None)
        self._fetch_root(self._root_downloaded)

    def _fetch_root(self, then: Callable[[Message | Refused], None]) -> None:
        exchange = self._current
        exchange.hang_up()
        exchange.tries.begin(self.monotonic())
        call = CaCall("CA", "GetRootCACertificate", ca_pb2.GetRootCACertificateRequest())
        self._call(call, None, None, then)

    def _root_downloaded(self, answer: Message | Refused) -> None:
        """Trusted only if it is what the token was made for; a wrong answer is asked for again, of another manager."""
        if isinstance(answer, ca_pb2.GetRootCACertificateResponse):
            try:
                check_bundle(parse_join_token(self.setup.join_token), answer.certificate)
                root = load_root(answer.certificate, self.now())
            except Refused as refused:
                answer = our_own(refused)
            except (InvalidCertificate, InvalidKey) as error:
                answer = ClusterError("plain", str(error))
            else:
                self._end_exchange()
                self._root_known(root)
                return
        assert isinstance(answer, Refused)
        self._try_again(answer, lambda: self._fetch_root(self._root_downloaded))

    # The certificate

    def _request_first(self, root: RootCA, interval: float) -> None:
        self._new_exchange(interval, root, self.setup.join_token, self.setup.availability)
        self._ask_certificate()

    def _ask_certificate(self) -> None:
        renewing = self.identity is not None
        credentials = self.setup.credentials if renewing else Credentials(self._trusted.bundle)
        call = self._current.issuance.call(self.monotonic())
        self._call(call, credentials, MANAGER if renewing else CA_NAME, self._certificate_answered)

    def _certificate_answered(self, answer: Message | Refused) -> None:
        outcome = self._current.issuance.answered(answer, self.monotonic())
        if isinstance(outcome, Issued):
            self._take(outcome.certificate)
        else:
            self._follow(outcome, self._ask_certificate)

    def _take(self, issued: bytes) -> None:
        exchange = self._current
        try:
            accepted = accept_issued(issued, exchange.request, self._trusted, self.now(), self.identity)
        except UnknownAuthority as error:
            if not self._under_another_root():
                self._give_up(ClusterError("plain", str(error)))
        except Refused as refused:
            self._give_up(our_own(refused))
        except InvalidCertificate as error:
            self._give_up(ClusterError("plain", str(error)))
        else:
            exchange.next = accepted
            if accepted.info.is_manager:
                exchange.tries = Tries(exchange.interval)
                exchange.hang_up()  # the unlock key is told to the holder of the new certificate
                self._ask_unlock_key()
            else:
                self._complete(under_unlock_key(accepted, b"", 0))

    def _ask_unlock_key(self) -> None:
        exchange = self._current
        new = exchange.next
        assert new is not None
        exchange.tries.begin(self.monotonic())
        credentials = Credentials(self._trusted.bundle, new.certificate, new.private_key)
        call = CaCall("CA", "GetUnlockKey", ca_pb2.GetUnlockKeyRequest())
        self._call(call, credentials, CA_NAME, self._unlock_key_answered)

    def _unlock_key_answered(self, answer: Message | Refused) -> None:
        new = self._current.next
        assert new is not None
        if isinstance(answer, ca_pb2.GetUnlockKeyResponse):
            self._complete(under_unlock_key(new, answer.unlock_key, answer.version.index))
        elif isinstance(answer, Refused) and answer.code is Code.UNIMPLEMENTED:
            self._complete(under_unlock_key(new, b"", 0))
        else:
            assert isinstance(answer, Refused)
            self._try_again(answer, self._ask_unlock_key)

    def _complete(self, new: NodeIdentity) -> None:
        self._end_exchange()
        self._issued(new)

    def _give_up(self, error: Refused) -> None:
        self._end_exchange()
        self._refused(error)

    # Calls

    def _call(
        self, call: CaCall, credentials: Credentials | None, name: str | None, then: Callable[[Message | Refused], None]
    ) -> None:
        exchange = self._current

        def answered(answer: Message | Refused) -> None:
            if self._exchange is exchange:
                exchange.heard(answer)
                then(answer)

        if not exchange.call(call, credentials, name, self.sink(answered)):
            self._later(0.0, lambda: then(Refused(Code.UNAVAILABLE, "no manager is known")))

    def _try_again(self, refusal: Refused, step: Callable[[], None]) -> None:
        exchange = self._current
        self._follow(exchange.tries.refused(refusal, self.monotonic()), step)

    def _follow(self, outcome: Retry | GaveUp, step: Callable[[], None]) -> None:
        exchange = self._current
        if isinstance(outcome, GaveUp):
            error = outcome.error
            self._later(outcome.wait, lambda: self._give_up(error))
            return
        if outcome.reconnect:
            exchange.turn_elsewhere()
        self._later(outcome.wait, step)

    def _later(self, wait: float, step: Callable[[], None]) -> None:
        self.after(wait, _Later(self._current, step))

    @handles(_Later)
    def later(self, message: _Later) -> None:
        """The next step, unless its exchange is over."""
        if message.exchange is self._exchange:
            message.step()


def our_own(refused: Refused) -> ClusterError:
    """A refusal that this node came to by itself: shown without the prefix of one that came over the wire."""
    return refused if isinstance(refused, ClusterError) else ClusterError("plain", refused.text)
