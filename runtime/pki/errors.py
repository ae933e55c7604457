"""What may be wrong with certificates, keys and key files.

These are findings about material on disk or from a peer, not refusals of a request: whoever asked decides
whether a finding is a refusal (and with which code), a reason to ask again, or the end of the node.
"""

from __future__ import annotations


class InvalidCertificate(Exception):
    """A certificate, chain, bundle or signing request that must not be used."""


class CertificateOutOfDate(InvalidCertificate):
    """A certificate that is not valid yet or not valid any more."""


class UnknownAuthority(InvalidCertificate):
    """A chain that is sound in itself but leads to none of the trusted roots."""


class InvalidKey(Exception):
    """A private key or key file that cannot be understood or must not be used."""


class InvalidUnlockKey(InvalidKey):
    """The key file is encrypted and the given unlock key (or none) does not open it: the node is locked."""


class CannotDecrypt(Exception):
    """A sealed record that does not open with the key at hand."""
