"""Certificates as the transports read them: subject, names, validity, and a chain checked against a root bundle.

Rules owned here: a chain is leaf, then intermediates, each issued by the next or by a root, at most ``DEPTH_MAX``
deep, every link valid at the given moment; the errors name which moment and which bounds, because a clock that is
wrong is the usual reason. ``verify`` serves the in-memory transport; on sockets OpenSSL does the same.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from runtime.errors import Code, Refused
from runtime.wire.authorise import Subject

DEPTH_MAX = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Chain:
    """A parsed PEM chain. ``der`` is the leaf's."""

    subject: Subject
    names: frozenset[str]
    der: bytes
    certificates: tuple[x509.Certificate, ...]


def subject_of(certificate: x509.Certificate) -> Subject:
    """CN, O and OUs; what is missing is empty."""

    def values(oid: x509.ObjectIdentifier) -> tuple[str, ...]:
        return tuple(str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(oid))

    cns, orgs = values(NameOID.COMMON_NAME), values(NameOID.ORGANIZATION_NAME)
    return Subject(cns[0] if cns else "", orgs[0] if orgs else "", values(NameOID.ORGANIZATIONAL_UNIT_NAME))


@functools.lru_cache(maxsize=4096)
def subject_of_der(der: bytes) -> Subject:
    """The subject of a certificate that a TLS handshake has verified."""
    return subject_of(x509.load_der_x509_certificate(der))


@functools.lru_cache(maxsize=1024)
def parse_chain(pem: bytes) -> Chain:
    """Parses leaf and intermediates; ValueError if there is no certificate."""
    certificates = tuple(x509.load_pem_x509_certificates(pem))
    leaf = certificates[0]
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns = frozenset(names.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        dns = frozenset()
    der = leaf.public_bytes(Encoding.DER)
    return Chain(subject_of(leaf), dns, der, certificates)


def verify(pem: bytes, roots: bytes, now: float, name: str | None = None) -> Chain:
    """Checks a chain against a root bundle at ``now`` (unix seconds), and that the leaf is for ``name`` if given.

    ``Refused(UNAVAILABLE)`` with the reason: unknown authority, expired or not yet valid with both times, or name.
    """
    chain = parse_chain(pem)
    path = _path(pem, roots)
    if path is None:
        raise Refused(Code.UNAVAILABLE, "certificate signed by unknown authority")
    for index in path:
        check_validity(index, now)
    if name is not None and name not in chain.names:
        held = ", ".join(sorted(chain.names))
        raise Refused(Code.UNAVAILABLE, f"certificate is valid for {held}, not {name}")
    return chain


def check_validity(certificate: x509.Certificate, now: float) -> None:
    """``Refused(UNAVAILABLE)`` naming both clocks if the certificate does not hold at ``now`` (unix seconds)."""
    text = validity_problem(certificate, now)
    if text is not None:
        raise Refused(Code.UNAVAILABLE, text)


def validity_problem(certificate: x509.Certificate, now: float) -> str | None:
    """Why a certificate does not hold at ``now``, with this machine's time and the bound; None if it holds."""
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    before, after = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if moment < before:
        return f"certificate is not yet valid: the time here is {_stamp(moment)}, it holds from {_stamp(before)}"
    if moment > after:
        return f"certificate has expired: the time here is {_stamp(moment)}, it held until {_stamp(after)}"
    return None


def _stamp(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@functools.lru_cache(maxsize=4096)
def _path(pem: bytes, roots: bytes) -> tuple[x509.Certificate, ...] | None:
    """The certificates from the leaf to a root of the bundle; None if they do not connect. Independent of time,
    so that the signatures of a chain are checked once and not in every handshake."""
    certificates = parse_chain(pem).certificates
    anchors = tuple(x509.load_pem_x509_certificates(roots)) if roots.strip() else ()
    path = [certificates[0]]
    rest = list(certificates[1:])
    while len(path) <= DEPTH_MAX:
        anchor = _issuer(path[-1], anchors)
        if anchor is not None:
            return (*path, anchor)
        step = _issuer(path[-1], tuple(rest))
        if step is None:
            return None
        rest.remove(step)
        path.append(step)
    return None


def _issuer(certificate: x509.Certificate, candidates: tuple[x509.Certificate, ...]) -> x509.Certificate | None:
    return next((one for one in candidates if _issued(certificate, one)), None)


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return constraints.ca
