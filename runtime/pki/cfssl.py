"""CFSSL's signing protocol, as far as SwarmKit speaks it to an external CA.

Rules owned here: what is posted for a node's certificate and for a cross-signed root, and which answers count: one that
is not understood may be better another time (``UNAVAILABLE``), a refusal by the CA is final (``FAILED_PRECONDITION``).
"""

from __future__ import annotations

import json
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from runtime.errors import Code, Refused
from runtime.pki.certificates import Holder
from runtime.pki.errors import InvalidCertificate
from runtime.pki.keys import deterministic, signature_hash
from runtime.pki.pem import load_certificates, normalize
from runtime.pki.root import NoSigner, RootCA

SIGN_TIMEOUT = 5.0
"""Seconds for one URL."""
ANSWER_MAX = 256 << 10
PERMANENT = Code.FAILED_PRECONDITION
CA_PROFILE = "CA"

_BASIC_CONSTRAINTS = "2.5.29.19"


def node_request(csr: bytes, holder: Holder) -> bytes:
    """What is posted to have a node's certificate signed: the CA is told whose it is, whatever the request says."""
    subject = {
        "CN": holder.node_id,
        "names": [{"OU": holder.role, "O": holder.cluster_id}],
    }
    return _encode({"certificate_request": csr.decode("ascii"), "subject": subject, "hosts": holder.dns_names})


def authority_request(new_root: RootCA) -> bytes:
    """What is posted to have another root signed as a CA, under CFSSL's profile ``CA``."""
    signer = new_root.signer
    if signer is None:
        raise NoSigner("a root without its key cannot ask for anything")
    key = signer.key
    builder = x509.CertificateSigningRequestBuilder().subject_name(signer.certificate.subject)
    request = builder.sign(key, signature_hash(key), ecdsa_deterministic=deterministic(key))
    constraints = signer.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    names = [{"CN": str(each.value)} for each in signer.certificate.subject if each.rfc4514_attribute_name == "CN"]
    common_name = names[0]["CN"] if names else ""
    return _encode(
        {
            "certificate_request": request.public_bytes(Encoding.PEM).decode(),
            "subject": {"CN": common_name, "names": []},
            "hosts": [],
            "profile": CA_PROFILE,
            "extensions": [
                {"id": _BASIC_CONSTRAINTS, "critical": True, "value": constraints.public_bytes().hex()},
            ],
        }
    )


def _encode(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def read_answer(url: str, status: int, body: bytes) -> bytes | Refused:
    """The certificate (normalised PEM) in a CA's answer, or why there is none."""
    if status != 200:
        return _later(url, f"status {status}")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return _later(url, "an answer that is no JSON")
    if not isinstance(content, dict):
        return _later(url, "an answer that is no object")
    if content.get("success") is not True:
        return Refused(PERMANENT, f"the external CA at {url} refused: {_errors(content.get('errors'))}")
    result = content.get("result")
    certificate = result.get("certificate") if isinstance(result, dict) else None
    try:
        if not isinstance(certificate, str):
            raise InvalidCertificate("no certificate in it")
        load_certificates(certificate.encode("ascii"))
        return normalize(certificate.encode("ascii"))
    except (InvalidCertificate, UnicodeEncodeError) as error:
        return _later(url, f"an answer without a certificate ({error})")


def _later(url: str, what: str) -> Refused:
    return Refused(Code.UNAVAILABLE, f"the external CA at {url} gave {what}")


def _errors(errors: Any) -> str:
    """The CA's own words, cut short: they end in the status of a node."""
    if not isinstance(errors, list):
        return "without a reason"
    texts = [str(each.get("message", "")) for each in errors if isinstance(each, dict)]
    return "; ".join(text for text in texts if text)[:500] or "without a reason"
