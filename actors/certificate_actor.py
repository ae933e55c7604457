"""CertificateActor keeps this node's certificate: it loads, founds or requests it, and renews it in time.

The node starts it with a CertificateSetup and hears Identified once in each life, then CertificateRenewed after each
renewal and each change of the trusted root. It owns the files under ``certificates/``; what is told was on disk before.
What to do is decided by ``runtime.pki`` (node_identity, issuance, renewal); this actor asks, waits and writes. Where no
first certificate can be had it fails with the reason, which is what ``docker swarm join`` shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from google.protobuf.message import Message

from actors.certificate_exchange import CaDirectory, Exchange
from runtime.disk.data_root import refuse_orphaned_log
from runtime.disk.errors import StateDamaged
from runtime.disk.state_files import NODE_CERT, ROOT_CERT, StateFiles
from runtime.errors import Code, Refused
from runtime.failpoints import failpoint
from runtime.pki.errors import InvalidCertificate, InvalidKey, InvalidUnlockKey, UnknownAuthority
from runtime.pki.issuance import (
    JOIN_INTERVAL,
    RENEWAL_INTERVAL,
    CaCall,
    GaveUp,
    Issuance,
    Issued,
    Retry,
    Tries,
)
from runtime.pki.join_tokens import check_bundle, parse_join_token
from runtime.pki.key_file import DataKeys, change_kek, new_data_key
from runtime.pki.keys import dump_key
from runtime.pki.node_identity import (
    MANDATORY_FIPS,
    NodeIdentity,
    Start,
    accept_issued,
    first_step,
    found_identity,
    keep_newer_unlock_key,
    new_request,
    pair_fits,
    read_identity,
    root_for,
    under_unlock_key,
)
from runtime.pki.renewal import FORCED_PAUSE, Renewal, out_of_date
from runtime.pki.root import RootCA, load_root
from runtime.protocol.agent import CertificateRenewed, Managers, RootSeen
from runtime.protocol.certificate import (
    BeginDataKeyRotation,
    CertificateSetup,
    CertificateTrouble,
    DropDataKeys,
    FinishDataKeyRotation,
    GetDataKeys,
    Identified,
    UnlockKeyIs,
)
from runtime.protocol.cluster import ClusterError
from runtime.protocol.node import NodeLocked, RenewCertificate
from runtime.stage import Actor, Address, Policy, Timer, handles
from runtime.wire.pb import ca_pb2
from runtime.wire.port import CA_NAME, MANAGER, Credentials

LOOK_AGAIN = 3600.0
"""Seconds after which a renewal that lies far ahead is compared with the time of day again: clocks are set, and
machines sleep."""


class _RenewalDue:
    """It is time to renew, or to look whether it is."""

    def __init__(self, at: float | None) -> None:
        self.at = at


class _Later:
    """The next step of an exchange, after a wait."""

    def __init__(self, exchange: Exchange, step: Callable[[], None]) -> None:
        self.exchange = exchange
        self.step = step


class CertificateActor(Actor):
    """``node`` is who it works for."""

    policy = Policy(own_thread=True)

    def __init__(self, node: Address, setup: CertificateSetup) -> None:
        super().__init__()
        self.node = node
        self.setup = setup
        self.identity: NodeIdentity | None = None
        self._files = StateFiles(self.world.disk.files)
        self._renewal = Renewal()
        self._exchange: Exchange | None = None
        self._due: Timer | None = None
        self._directory = CaDirectory(self.world.transport, self.world.random)
        self._trouble = ""
        self._dates = ""

    def started(self) -> None:
        known = (*self.setup.remotes, *([("", self.setup.join_addr)] if self._joins else []))
        self._directory.told(None, known, "")
        self._start(self._root_on_disk())

    def stopped(self) -> None:
        if self._exchange is not None:
            self._exchange.hang_up()

    def crashed(self) -> None:
        self.stopped()

    def snapshot(self) -> dict[str, Any]:
        info = self.identity.info if self.identity is not None else None
        return {
            "node": info.node_id if info is not None else "",
            "role": info.role if info is not None else "",
            "cluster": info.organization if info is not None else "",
            "expires": info.not_after if info is not None else 0.0,
            "days left": _days(info.not_after - self.now()) if info is not None else 0.0,
            "root days left": self._root_days(),
            "asking": self._exchange is not None,
            "failed renewals": self._renewal.failures,
            "trouble": self._trouble,
        }

    def _root_days(self) -> float:
        """Until the first of the trusted roots expires."""
        roots = self.identity.root.certificates if self.identity is not None else ()
        return _days(min((each.not_valid_after_utc.timestamp() for each in roots), default=self.now()) - self.now())

    # The first certificate

    def _root_on_disk(self) -> RootCA | None:
        bundle = self._files.root_certificate()
        if bundle is None:
            return None
        key = self._files.root_key() or self._files.founding_key() or b""
        signer = bundle if key else b""
        allow = self.setup.force_new_cluster
        return load_root(bundle, self.now(), signer_cert=signer, signer_key=key, allow_expired=allow)

    def _start(self, root: RootCA | None) -> None:
        """Goes on from what is on disk; comes back here once a root was downloaded."""
        try:
            pair = self._files.load_node(lambda certificate, key: pair_fits(certificate, key, self.setup.lock.key))
            step = first_step(has_root=root is not None, has_certificate=pair is not None, joins=self._joins)
            if step is Start.READY:
                assert root is not None
                assert pair is not None
                # A certificate that expired while the machine was off: the node starts with it, and says so.
                self._identify(read_identity(root, *pair, self.setup.lock.key, self.now(), allow_expired=True), root)
                return
        except InvalidUnlockKey:
            self.tell(self.node, NodeLocked())
            return
        except Refused as refused:
            raise _our_own(refused) from None
        if step is Start.DAMAGED:
            raise StateDamaged(f"{ROOT_CERT} is missing, but {NODE_CERT} is there")
        refuse_orphaned_log(self.world.disk.files)
        if step is Start.FOUND:
            self._found(root)
        elif step is Start.REQUEST:
            assert root is not None
            self._request_first(root)
        else:
            self._download_root()

    @property
    def _joins(self) -> bool:
        return bool(self.setup.join_addr)

    def _found(self, root: RootCA | None) -> None:
        identity, signer = found_identity(root, self.world.entropy, self.now())
        if root is None and signer.signer is not None:
            self._files.save_founding_key(dump_key(signer.signer.key))
        self._files.save_root_certificate(signer.bundle)
        self._files.save_node(identity.certificate, identity.encode_key(self.world.entropy))
        self._identify(identity, signer)

    def _download_root(self) -> None:
        self._new_exchange(JOIN_INTERVAL, None)
        try:
            if parse_join_token(self.setup.join_token).fips:
                raise Refused(Code.FAILED_PRECONDITION, MANDATORY_FIPS)
        except Refused as refused:
            raise _our_own(refused) from None
        self._fetch_root(self._root_downloaded)

    def _root_downloaded(self, answer: Message | Refused) -> None:
        """Trusted only if it is what the token was made for; a wrong answer is asked for again, of another manager."""
        if isinstance(answer, ca_pb2.GetRootCACertificateResponse):
            try:
                check_bundle(parse_join_token(self.setup.join_token), answer.certificate)
                root = load_root(answer.certificate, self.now())
            except Refused as refused:
                answer = _our_own(refused)
            except (InvalidCertificate, InvalidKey) as error:
                answer = ClusterError("plain", str(error))
            else:
                self._files.save_root_certificate(root.bundle)
                self._end_exchange()
                self._start(root)
                return
        assert isinstance(answer, Refused)
        self._try_again(answer, lambda: self._fetch_root(self._root_downloaded))

    def _request_first(self, root: RootCA) -> None:
        self._new_exchange(JOIN_INTERVAL, root, self.setup.join_token, self.setup.availability)
        self._ask_certificate()

    def _identify(self, identity: NodeIdentity, root: RootCA) -> None:
        """From here on this node is somebody. ``root`` may have the signer, which is handed on and not kept."""
        self._use(identity)
        info = identity.info
        self.tell(self.node, Identified(info.node_id, info.role, info.organization, self.setup.credentials, root))
        self._see_dates()
        self._schedule()

    def _see_dates(self) -> None:
        """The node hears whether its certificate holds, when that changes."""
        assert self.identity is not None
        info = self.identity.info
        text = out_of_date(info.not_before, info.not_after, self.now())
        if bool(text) != bool(self._dates):
            self.tell(self.node, CertificateTrouble(text))
        self._dates = text

    def _use(self, identity: NodeIdentity) -> None:
        self._become(identity)
        self.setup.credentials.replace(
            roots=identity.root.bundle, certificate=identity.certificate, key=identity.private_key
        )

    def _become(self, identity: NodeIdentity) -> None:
        self.identity = identity
        self.setup.lock.key = identity.kek

    # Renewal

    def _schedule(self) -> None:
        assert self.identity is not None
        info = self.identity.info
        self._arm(self._renewal.wait(info.not_before, info.not_after, self.now(), self.world.random))

    def _arm(self, wait: float) -> None:
        if self._due is not None:
            self._due.cancel()
        far = wait > LOOK_AGAIN
        self._due = self.after(LOOK_AGAIN if far else wait, _RenewalDue(self.now() + wait if far else None))

    @handles(RenewCertificate)
    def renew_now(self, message: RenewCertificate) -> None:
        """A renewal is wanted now, with a role or with any."""
        if self._renewal.ask(message.expected_role) and self.identity is not None:
            self._arm(FORCED_PAUSE)

    @handles(_RenewalDue)
    def renewal_due(self, message: _RenewalDue) -> None:
        """Renews, unless the moment is still ahead by the time of day."""
        self._due = None
        if message.at is not None and message.at > self.now():
            self._arm(message.at - self.now())
        else:
            self._renewal.begin()
            self._new_exchange(RENEWAL_INTERVAL, None)
            self._ask_certificate()

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
            if self.identity is not None and not self.identity.info.is_manager and not exchange.root_fetched_anew:
                # The root was rotated while this worker was away. What it has is still good under the new root if
                # that is genuine, which is how it knows without a token.
                exchange.root_fetched_anew = True
                exchange.tries = Tries(exchange.interval)
                self._fetch_root(self._root_fetched_anew)
                return
            self._give_up(ClusterError("plain", str(error)))
        except Refused as refused:
            self._give_up(_our_own(refused))
        except InvalidCertificate as error:
            self._give_up(ClusterError("plain", str(error)))
        else:
            exchange.next = accepted
            if accepted.info.is_manager:
                exchange.tries = Tries(exchange.interval)
                exchange.hang_up()  # the unlock key is told to the holder of the new certificate
                self._ask_unlock_key()
            else:
                self._install(under_unlock_key(accepted, b"", 0))

    def _fetch_root(self, then: Callable[[Message | Refused], None]) -> None:
        exchange = self._current
        exchange.hang_up()
        exchange.tries.begin(self.monotonic())
        call = CaCall("CA", "GetRootCACertificate", ca_pb2.GetRootCACertificateRequest())
        self._call(call, None, None, then)

    def _root_fetched_anew(self, answer: Message | Refused) -> None:
        assert self.identity is not None
        if isinstance(answer, Refused):
            self._try_again(answer, lambda: self._fetch_root(self._root_fetched_anew))
            return
        assert isinstance(answer, ca_pb2.GetRootCACertificateResponse)
        if not self._replace_root(answer.certificate):
            self._give_up(ClusterError("plain", self._trouble))
            return
        exchange = self._current
        exchange.hang_up()
        exchange.issuance = Issuance(exchange.request.csr, self.world.random, exchange.interval)
        self._ask_certificate()

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
            self._install(under_unlock_key(new, answer.unlock_key, answer.version.index))
        elif isinstance(answer, Refused) and answer.code is Code.UNIMPLEMENTED:
            self._install(under_unlock_key(new, b"", 0))
        else:
            assert isinstance(answer, Refused)
            self._try_again(answer, self._ask_unlock_key)

    def _install(self, new: NodeIdentity) -> None:
        """Writes the new certificate and key, then uses and tells them."""
        first = self.identity is None
        if not first:
            assert self.identity is not None
            # Data keys may have been made, and the root replaced, since the certificate was asked for.
            new = keep_newer_unlock_key(new, self.identity)
            new = new.with_data_keys(_keys_to_keep(self.identity, new)).with_root(self.identity.root)
        self._files.save_node(new.certificate, new.encode_key(self.world.entropy))
        self._end_exchange()
        if first:
            self._identify(new, new.root)
            return
        self._use(new)
        self._trouble = ""
        self._see_dates()
        if self._renewal.succeeded(new.info.role):
            self.tell(self.node, CertificateRenewed(new.info.role))
        self._schedule()

    def _give_up(self, error: Refused) -> None:
        """Without a certificate this actor fails; with one it tries again later."""
        self._end_exchange()
        if self.identity is None:
            raise error
        self._trouble = str(error)
        self._see_dates()
        self._renewal.failed()
        self._schedule()

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

    # What the node says

    @handles(Managers)
    def managers(self, message: Managers) -> None:
        """Whom to ask from now on."""
        own_id = self.identity.info.node_id if self.identity is not None else ""
        self._directory.told(message.local, message.remotes, own_id)
        if self._dates and message.local is not None and self._exchange is None:
            self._arm(FORCED_PAUSE)  # its own manager takes this node for what it is, whatever its certificate says

    @handles(RootSeen)
    def root_seen(self, message: RootSeen) -> None:
        """A session, which is authenticated by the present root, names another one."""
        identity = self.identity
        if identity is None or message.root_pem == identity.root.bundle:
            return
        if self._replace_root(message.root_pem):
            self.tell(self.node, CertificateRenewed(identity.info.role))

    def _replace_root(self, bundle: bytes) -> bool:
        """Trusts another root if the present certificate is good under it; else that is noted, and nothing done."""
        assert self.identity is not None
        try:
            root = root_for(self.identity, bundle, self.now())
        except (InvalidCertificate, InvalidKey) as error:
            self._trouble = f"a new root was refused: {error}"
            return False
        self._files.save_root_certificate(bundle)
        self._use(self.identity.with_root(root))
        return True

    @handles(GetDataKeys)
    def data_keys(self, message: GetDataKeys) -> DataKeys:
        """The keys that seal the log; in the key file before anybody has them."""
        return self._data_keys()

    def _data_keys(self) -> DataKeys:
        identity = self._somebody()
        keys = identity.key_file.data_keys
        if keys is None:
            keys = DataKeys(new_data_key(self.world.entropy))
            self._rewrite_key(identity.with_data_keys(keys))
        return keys

    @handles(UnlockKeyIs)
    def unlock_key_is(self, message: UnlockKeyIs) -> bool:
        """The managers' unlock key. A manager that locks itself gets a new private key too: this one has stood on the
        disk in clear."""
        identity = self._somebody()
        if not identity.info.is_manager:
            return False
        try:
            content = change_kek(identity.key_file, identity.kek, message.key, message.version)
        except InvalidKey as error:
            self._trouble = str(error)
            return False
        if content is not None:
            self._rewrite_key(replace(identity, kek=message.key, key_file=content))
            if message.key and not identity.kek:
                self.renew_now(RenewCertificate())
        keys = self._somebody().key_file.data_keys
        return keys is not None and (keys.needs_rotation or bool(keys.pending))

    @handles(BeginDataKeyRotation)
    def begin_data_key_rotation(self, message: BeginDataKeyRotation) -> DataKeys:
        """The new key is in the key file before anything is sealed with it."""
        keys = self._data_keys()
        if keys.needs_rotation and not keys.pending:
            failpoint("dek.before_rotate")
            keys = keys.begin_rotation(self.world.entropy)
            self._rewrite_key(self._somebody().with_data_keys(keys))
        return keys

    @handles(FinishDataKeyRotation)
    def finish_data_key_rotation(self, message: FinishDataKeyRotation) -> DataKeys:
        """The old key goes when nothing needs it."""
        keys = self._data_keys()
        if keys.pending:
            keys = keys.finish_rotation()
            self._rewrite_key(self._somebody().with_data_keys(keys))
            failpoint("dek.after_rotate")
        return keys

    @handles(DropDataKeys)
    def drop_data_keys(self, message: DropDataKeys) -> None:
        """What they sealed is gone."""
        identity = self._somebody()
        if identity.key_file.data_keys is not None:
            self._rewrite_key(identity.with_data_keys(None))

    def _somebody(self) -> NodeIdentity:
        if self.identity is None:
            raise Refused(Code.FAILED_PRECONDITION, "this node has no certificate yet")
        return self.identity

    def _rewrite_key(self, identity: NodeIdentity) -> None:
        self._files.save_node_key(identity.encode_key(self.world.entropy))
        self._become(identity)


def _keys_to_keep(present: NodeIdentity, new: NodeIdentity) -> DataKeys | None:
    """The present data keys, with the wish for another one that the new certificate's unlock key brought."""
    keys, wished = present.key_file.data_keys, new.key_file.data_keys
    if keys is not None and wished is not None and wished.needs_rotation:
        return replace(keys, needs_rotation=True)
    return keys


def _our_own(refused: Refused) -> ClusterError:
    """A refusal that this node came to by itself: shown without the prefix of one that came over the wire."""
    return refused if isinstance(refused, ClusterError) else ClusterError("plain", refused.text)


def _days(seconds: float) -> float:
    return round(seconds / 86_400, 2)
