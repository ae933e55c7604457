"""Whether a chain of certificates is to be believed.

Rules owned here, stricter than what TLS libraries ask (as SwarmKit's chain validation): in the file each
certificate is signed by the next one, every one is in date, every signer is a CA, and the leaf leads to a
trusted root. A node that forces a new cluster may use expired certificates: there must then have been a moment
at which the whole chain was good.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes

from runtime.pki.errors import CertificateOutOfDate, InvalidCertificate, UnknownAuthority

Chain = tuple[x509.Certificate, ...]
"""From the leaf to the root, which is the last one."""


def check_dates(certificate: x509.Certificate, now: float) -> None:
    """Raises ``CertificateOutOfDate`` with both times in the text, so that a skewed clock is seen for what it is."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < start.timestamp():
        raise CertificateOutOfDate(f"certificate is not valid before {_utc(start)}, and it is currently {_utc_at(now)}")
    if now > end.timestamp():
        raise CertificateOutOfDate(f"certificate is not valid after {_utc(end)}, and it is currently {_utc_at(now)}")


def check_signature_algorithm(certificate: x509.Certificate) -> None:
    """Only SHA-256, SHA-384 and SHA-512 vouch for a certificate."""
    if not isinstance(certificate.signature_hash_algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
        raise InvalidCertificate("certificate is signed with an algorithm other than SHA-256, SHA-384 or SHA-512")


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether ``issuer`` is a CA whose name and key vouch for ``certificate``."""
    if not _is_ca(issuer):
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def verify_chain(
    certificates: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    now: float,
    *,
    allow_expired: bool = False,
) -> Chain:
    """The verified chain from the leaf ``certificates[0]`` to one of ``roots``.

    ``now`` is unix seconds. With ``allow_expired`` the chain passes if it was good at the end of one of its
    certificates' lives. Raises ``CertificateOutOfDate``, ``UnknownAuthority`` or ``InvalidCertificate``.
    """
    if not certificates:
        raise InvalidCertificate("no certificates to validate")
    _check_links(certificates)
    if not allow_expired:
        for certificate in certificates:
            check_dates(certificate, now)
    chains = _chains_to_roots(certificates, roots)
    if not chains:
        raise UnknownAuthority("certificate signed by unknown authority")
    refusal: CertificateOutOfDate | None = None
    for chain in chains:
        try:
            return _in_date(chain, now, allow_expired)
        except CertificateOutOfDate as error:
            refusal = refusal or error
    assert refusal is not None, "a chain was neither taken nor refused"
    raise refusal


def _check_links(certificates: Sequence[x509.Certificate]) -> None:
    for position, certificate in enumerate(certificates):
        check_signature_algorithm(certificate)
        if position and not is_issued_by(certificates[position - 1], certificate):
            raise InvalidCertificate(f"certificate {position} of the chain is not signed by the one after it")


def _chains_to_roots(certificates: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]) -> list[Chain]:
    """Every way from the leaf to a root, those through more of the file first.

    A root may vouch for any certificate of the file, not for the last alone: during a root rotation a leaf comes with
    the cross-signed twin of the new root, for those who know the old one; who knows the new root needs no twin.
    """
    chains = []
    for root in roots:
        for length in range(len(certificates), 0, -1):
            last = certificates[length - 1]
            if last == root and length > 1:
                chains.append(tuple(certificates[:length]))
            elif is_issued_by(last, root):
                chains.append((*certificates[:length], root))
    return chains


def _in_date(chain: Chain, now: float, allow_expired: bool) -> Chain:
    try:
        for certificate in chain:
            check_dates(certificate, now)
    except CertificateOutOfDate:
        if not allow_expired or not any(_all_in_date(chain, moment) for moment in _ends(chain)):
            raise
    return chain


def _ends(chain: Chain) -> list[float]:
    return [certificate.not_valid_after_utc.timestamp() for certificate in chain]


def _all_in_date(chain: Chain, moment: float) -> bool:
    return all(
        certificate.not_valid_before_utc.timestamp() <= moment <= certificate.not_valid_after_utc.timestamp()
        for certificate in chain
    )


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return constraints.ca


def _utc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _utc_at(now: float) -> str:
    return _utc(datetime.fromtimestamp(now, UTC))
