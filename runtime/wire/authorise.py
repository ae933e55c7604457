"""Who may call what: SwarmKit's authorisation of a call, and the headers by which a manager forwards one.

Rules owned here:
1. A caller counts by its certificate, which the transport has verified against the root: an OU among the method's
   roles, O equal to the cluster's id, CN not among the removed nodes. Every refusal is PERMISSION_DENIED.
2. ``forwarded_cert`` = ``true`` means "on behalf of". The direct caller must then be a manager of this cluster, and
   the forwarded CN, O and OU decide alone; empty ones are a caller without a certificate and never the manager.
   Stricter than SwarmKit, a forwarded node that was removed is refused as well.
3. What a client itself sends under these keys is stripped before a manager adds its own.

Pure: no network, no clock, no certificate parsing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Mapping

from runtime.errors import Code, Refused
from runtime.wire.port import MANAGER, WORKER, Access, Headers, Identity, Metadata

FORWARDED = "forwarded_cert"
FORWARDED_CN = "forwarded_cert_cn"
FORWARDED_ORG = "forwarded_cert_org"
FORWARDED_OU = "forwarded_cert_ou"
REMOTE_ADDR = "remote_addr"
REDIRECT = "redirect"
REDIRECTED = "more than one redirect to leader from:"
FORWARDING_KEYS = frozenset({FORWARDED, FORWARDED_CN, FORWARDED_ORG, FORWARDED_OU, REMOTE_ADDR})

DENIED_STATUS = "rpc error: code = PermissionDenied desc = "
_MANAGERS = frozenset({MANAGER})
_MEMBERS = frozenset({MANAGER, WORKER})


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """What of a certificate's subject decides: CN (node id), O (cluster id), the OUs (roles)."""

    cn: str = ""
    org: str = ""
    ous: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """A certificate that lacks one of the three is no credential."""
        return bool(self.cn and self.org and self.ous)


@dataclasses.dataclass(frozen=True, slots=True)
class Peer:
    """The direct caller: its verified subject (None without a certificate) and its address; or the control socket."""

    subject: Subject | None
    remote_addr: str
    local: bool = False


def metadata_of(pairs: Iterable[tuple[str, str | bytes]]) -> dict[str, tuple[str, ...]]:
    """Metadata by lower-case key, values in the order sent. Binary values are left out: SwarmKit has none."""
    found: dict[str, tuple[str, ...]] = {}
    for key, value in pairs:
        if isinstance(value, str):
            found[key.lower()] = (*found.get(key.lower(), ()), value)
    return found


def authorise(peer: Peer, metadata: Metadata, roles: frozenset[str] | None, access: Access) -> Identity:
    """The identity under which a call is served, or ``Refused(PERMISSION_DENIED)``.

    ``roles`` None is a method for anyone: then a caller that would not pass as a member is served as nobody (empty
    node id and role) with its address alone, as SwarmKit's CA takes such a call for a first join. The control
    socket acts as the node itself.
    """
    if peer.local:
        return dataclasses.replace(access.local, local=True)
    if roles is not None:
        return _member(peer, metadata, roles, access)
    try:
        return _member(peer, metadata, _MEMBERS, access)
    except Refused:
        return Identity(remote_addr=_address(peer, metadata, access), forwarded=is_forwarded(metadata))


def is_forwarded(metadata: Metadata) -> bool:
    """Whether a call says that it comes on behalf of another."""
    return metadata.get(FORWARDED) == ("true",)


def check_redirect(metadata: Metadata) -> None:
    """A manager that would forward a call refuses one that was forwarded before: RESOURCE_EXHAUSTED."""
    hops = metadata.get(REDIRECT)
    if hops is not None:
        raise Refused(Code.RESOURCE_EXHAUSTED, f"{REDIRECTED} [{' '.join(hops)}]")


def forward_headers(identity: Identity, metadata: Metadata = {}) -> Headers:  # noqa: B006 - never changed
    """What a manager adds to a call that it forwards to the leader on behalf of ``identity``; blank values stand
    for a caller without a certificate and are sent too. Other metadata of the call go along.

    A local call is forwarded as the manager itself: then only ``redirect`` is added, as SwarmKit's local proxies.
    """
    passed = [
        (key, value) for key in sorted(metadata) if key not in FORWARDING_KEYS | {REDIRECT} for value in metadata[key]
    ]
    if identity.local:
        return (*passed, (REDIRECT, identity.remote_addr))
    return (
        *passed,
        (REDIRECT, identity.remote_addr),
        (FORWARDED, "true"),
        (FORWARDED_CN, identity.node_id),
        (FORWARDED_ORG, identity.organization),
        (FORWARDED_OU, identity.role),
        (REMOTE_ADDR, identity.remote_addr),
    )


def visible(metadata: Metadata) -> Metadata:
    """The metadata that handlers see: without what the identity stands for. ``redirect`` stays."""
    if FORWARDING_KEYS.isdisjoint(metadata):
        return metadata
    return {key: values for key, values in metadata.items() if key not in FORWARDING_KEYS}


def _member(peer: Peer, metadata: Metadata, roles: frozenset[str], access: Access) -> Identity:
    if is_forwarded(metadata):
        return _forwarded(peer, metadata, roles, access)
    role = _decide(peer.subject, roles, access, "unauthorized peer role: ")
    assert peer.subject is not None
    return Identity(peer.subject.cn, role, peer.subject.org, peer.remote_addr)


def _forwarded(peer: Peer, metadata: Metadata, roles: frozenset[str], access: Access) -> Identity:
    _decide(peer.subject, _MANAGERS, access, "unauthorized forwarder role: ")
    subject = _forwarded_subject(metadata)
    if not subject.complete:
        raise _denied("missing information in forwarded request")
    role = _decide(subject, roles, access, "unauthorized forwarded role: ")
    return Identity(subject.cn, role, subject.org, _header(metadata, REMOTE_ADDR) or peer.remote_addr, forwarded=True)


def _forwarded_subject(metadata: Metadata) -> Subject:
    ous = tuple(ou for ou in metadata.get(FORWARDED_OU, ()) if ou)
    return Subject(_header(metadata, FORWARDED_CN), _header(metadata, FORWARDED_ORG), ous)


def _header(metadata: Metadata, key: str) -> str:
    """A header that must stand alone: given twice it counts as missing, so that nobody chooses which one is read."""
    values = metadata.get(key, ())
    return values[0] if len(values) == 1 else ""


def _address(peer: Peer, metadata: Metadata, access: Access) -> str:
    """The caller's address; a forwarded one is believed only of a manager."""
    if not is_forwarded(metadata):
        return peer.remote_addr
    try:
        _decide(peer.subject, _MANAGERS, access, "")
    except Refused:
        return peer.remote_addr
    return _header(metadata, REMOTE_ADDR) or peer.remote_addr


def _decide(subject: Subject | None, roles: frozenset[str], access: Access, prefix: str) -> str:
    """The role under which a subject passes. The order of the checks is SwarmKit's: OU, removed, O."""
    if subject is None:
        raise _denied(f"{prefix}{DENIED_STATUS}no client certificates in request")
    role = next((ou for ou in subject.ous if ou in roles), None)
    if role is None:
        wanted = " ".join(sorted(roles, reverse=True))
        raise _denied(f"{prefix}{_status(f'remote certificate not part of OUs: [{wanted}]')}")
    if _removed(subject.cn, access.blacklist):
        raise _denied(f"{prefix}{_status(f'node {subject.cn} was removed from swarm')}")
    if not subject.cn or not subject.org or subject.org != access.organization:
        text = _status(f"remote certificate not part of organization: {access.organization}")
        raise _denied(f"{prefix}{text}")
    return role


def _removed(node_id: str, blacklist: Container[str] | Mapping[str, object]) -> bool:
    return node_id in blacklist


def _status(text: str) -> str:
    return f"{DENIED_STATUS}Permission denied: {text}"


def _denied(text: str) -> Refused:
    return Refused(Code.PERMISSION_DENIED, f"Permission denied: {text}")
