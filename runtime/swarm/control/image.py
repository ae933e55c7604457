"""Image references: whether a text can name an image.

Rules owned here: the grammar of references (``[domain/]path[:tag][@digest]``) with Docker's reading of short names: the
first component is a domain only when it looks like one, the rest is lower-case, and a bare 64 digit hexadecimal name is
refused, because it would be taken for an id.
"""

from __future__ import annotations

import re
from typing import Final

NAME_LENGTH_MAX: Final = 255

_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_ID = re.compile(r"[a-f0-9]{64}")


def is_image(text: str) -> bool:
    """Whether a text is a valid image reference."""
    if _ID.fullmatch(text):
        return False
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        return False
    name, tag = _split_tag(rest)
    if tag is not None and not _TAG.fullmatch(tag):
        return False
    return len(name) <= NAME_LENGTH_MAX and _is_name(name)


def _split_tag(text: str) -> tuple[str, str | None]:
    """Name and tag; a colon before the last slash belongs to the domain's port."""
    head, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        return text, None
    return head, tag


def _is_name(name: str) -> bool:
    first, slash, rest = name.partition("/")
    looks_like_domain = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if slash and looks_like_domain:
        return bool(_DOMAIN.fullmatch(first)) and _is_path(rest)
    return _is_path(name)


def _is_path(path: str) -> bool:
    return all(_COMPONENT.fullmatch(component) for component in path.split("/"))
