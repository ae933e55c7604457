"""CertificateActor keeps this node's certificate: it loads, founds or requests it, and renews it in time.

The node starts it with a CertificateSetup and hears Identified once in each life, then CertificateRenewed after each
renewal and each change of the trusted root. It owns the files under ``certificates/``; what is told was on disk before.
What to do is decided by ``runtime.pki`` (node_identity, issuance, renewal); this actor asks, waits and writes. Where no
first certificate can be had it fails with the reason, which is what ``docker swarm join`` shows.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message

from actors.certificate_requests import CertificateRequests, our_own
from runtime.disk.data_root import refuse_orphaned_log
from runtime.disk.errors import StateDamaged
from runtime.disk.state_files import NODE_CERT, ROOT_CERT, StateFiles
from runtime.errors import Code, Refused
from runtime.failpoints import failpoint
from runtime.pki.errors import InvalidCertificate, InvalidKey, InvalidUnlockKey
from runtime.pki.issuance import (
    JOIN_INTERVAL,
    RENEWAL_INTERVAL,
    Issuance,
    Tries,
)
from runtime.pki.key_file import DataKeys, change_kek, new_data_key
from runtime.pki.keys import dump_key
from runtime.pki.node_identity import (
    NodeIdentity,
    Start,
    first_step,
    found_identity,
    is_signed_by,
    keep_newer_unlock_key,
    pair_fits,
    read_identity,
    root_for,
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
    RootAgreed,
    UnlockKeyIs,
)
from runtime.protocol.cluster import ClusterError
from runtime.protocol.node import NodeLocked, RenewCertificate
from runtime.stage import Address, Policy, Timer, handles
from runtime.wire.pb import ca_pb2

log = logging.getLogger("swarmlet.certificate")
LOOK_AGAIN = 3600.0
"""Seconds after which a renewal that lies far ahead is compared with the time of day again: clocks are set, and
machines sleep."""
ROOT_AGAIN = 60.0
"""Seconds after which a root that was refused is tried again: it may be valid by then, or the certificate under it.
Nobody tells of it a second time."""


class _RenewalDue:
    """It is time to renew, or to look whether it is."""

    def __init__(self, at: float | None) -> None:
        self.at = at


class _RootAgain:
    """The root that was refused last gets another chance."""


class CertificateActor(CertificateRequests):
    """``node`` is who it works for."""

    policy = Policy(own_thread=True)

    def __init__(self, node: Address, setup: CertificateSetup) -> None:
        super().__init__(setup)
        self.node = node
        self._files = StateFiles(self.world.disk.files)
        self._renewal = Renewal()
        self._due: Timer | None = None
        self._trouble = ""
        self._dates = ""
        self._refused_root = b""
        self._root_again: Timer | None = None

    def started(self) -> None:
        known = (*self.setup.remotes, *([("", self.setup.join_addr)] if self._joins else []))
        self._directory.told(None, known, "")
        if self.setup.admitted is not None:
            self._keep(self.setup.admitted)
        self._start(self._root_on_disk())

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

    def _keep(self, admitted: NodeIdentity) -> None:
        """The disk has it from here on; a later life finds it there, and perhaps a newer certificate."""
        if self._files.node_key() is None:
            self._files.save_root_certificate(admitted.root.bundle)
            self._files.save_node(admitted.certificate, admitted.encode_key(self.world.entropy))

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
            raise our_own(refused) from None
        if step is Start.DAMAGED:
            raise StateDamaged(f"{ROOT_CERT} is missing, but {NODE_CERT} is there")
        refuse_orphaned_log(self.world.disk.files)
        if step is Start.FOUND:
            self._found(root)
        elif step is Start.REQUEST:
            assert root is not None
            self._request_first(root, JOIN_INTERVAL)
        else:
            self._download_root(JOIN_INTERVAL)

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

    def _root_known(self, root: RootCA) -> None:
        self._files.save_root_certificate(root.bundle)
        self._start(root)

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

    # What the CA says

    def _under_another_root(self) -> bool:
        """The root was rotated while this worker was away. What it has is still good under the new root if that is
        genuine, which is how it knows without a token."""
        exchange = self._current
        if self.identity is None or self.identity.info.is_manager or exchange.root_fetched_anew:
            return False
        exchange.root_fetched_anew = True
        exchange.tries = Tries(exchange.interval)
        self._fetch_root(self._root_fetched_anew)
        return True

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

    def _issued(self, new: NodeIdentity) -> None:
        """Writes the new certificate and key, then uses and tells them."""
        first = self.identity is None
        if not first:
            assert self.identity is not None
            # Data keys may have been made, and the root replaced, since the certificate was asked for.
            new = keep_newer_unlock_key(new, self.identity)
            new = new.with_data_keys(_keys_to_keep(self.identity, new)).with_root(self.identity.root)
        self._files.save_node(new.certificate, new.encode_key(self.world.entropy))
        if first:
            self._identify(new, new.root)
            return
        self._use(new)
        self._trouble = ""
        until = datetime.fromtimestamp(new.info.not_after, UTC).isoformat(timespec="seconds")
        role = new.info.role.removeprefix("swarm-")
        text = f"the certificate is renewed: {role} until {until}"
        self.moment(log, "certificate", "renew", text, id=new.info.node_id, role=role, expires=until)
        self._see_dates()
        if self._renewal.succeeded(new.info.role):
            self.tell(self.node, CertificateRenewed(new.info.role, settled=not self._renewal.forced))
        self._schedule()

    def _refused(self, error: Refused) -> None:
        """Without a certificate this actor fails; with one it tries again later."""
        if self.identity is None:
            raise error
        if self._trouble != str(error):
            self._trouble = str(error)
            text = f"the certificate is not renewed yet: {error}"
            self.moment(log, "certificate", "fail", text, id=self.identity.info.node_id, level=logging.WARNING)
        self._see_dates()
        self._renewal.failed()
        self._schedule()

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
        self._see_root(message.root_pem)

    @handles(RootAgreed)
    def root_agreed(self, message: RootAgreed) -> None:
        """The others may trust nothing but the new root by now, and no session be had before it is trusted here."""
        if self.identity is not None and is_signed_by(self.identity, message.root_pem, self.now()):
            self._see_root(message.root_pem)

    @handles(_RootAgain)
    def root_again(self, message: _RootAgain) -> None:
        """A minute later."""
        self._root_again = None
        if self._refused_root:
            self._see_root(self._refused_root)

    def _see_root(self, bundle: bytes) -> None:
        identity = self.identity
        self._refused_root = b""
        if identity is None or bundle == identity.root.bundle:
            return
        if self._replace_root(bundle):
            self.tell(self.node, CertificateRenewed(identity.info.role, settled=False))
            return
        self._refused_root = bundle
        if self._root_again is None:
            self._root_again = self.after(ROOT_AGAIN, _RootAgain())

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
        self._refused_root = b""
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


def _days(seconds: float) -> float:
    return round(seconds / 86_400, 2)
