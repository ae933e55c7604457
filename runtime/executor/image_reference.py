"""Names of images as the engine shows them: short where the registry is the usual one, with a tag where none is said.

Rules owned here: ``docker.io/library/`` goes unsaid; a name without tag and digest means the tag ``latest``; a name
with a digest names one very content, so what is present under it need not be pulled again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

USUAL_REGISTRIES: Final = ("docker.io/", "index.docker.io/")
USUAL_OWNER: Final = "library/"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_NAME = re.compile(
    rf"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::\d+)?/|\[[0-9a-fA-F:]+\](?::\d+)?/)?{_PART}(?:/{_PART})*"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_BARE_ID = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, slots=True)
class ImageReference:
    """A name that a registry may know; ``digest`` is empty unless one very content is meant."""

    name: str
    tag: str
    digest: str

    @property
    def text(self) -> str:
        """As the engine shows it."""
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}@{self.digest}" if self.digest else f"{self.name}{tag}"

    @property
    def pulled(self) -> str:
        """What is asked of a registry: the digest, where there is one, whatever the tag says."""
        return self.digest or self.tag


def parse(image: str) -> ImageReference | None:
    """The parts of an image's name; None for what no registry can know (an image's id, a bad name)."""
    rest, _, digest = image.partition("@")
    head, colon, tag = rest.rpartition(":")
    name, tag = (head, tag) if colon and "/" not in tag else (rest, "")
    good = _NAME.fullmatch(name) and not _BARE_ID.fullmatch(image) and not rest.endswith(":")
    if not good or (tag and not _TAG.fullmatch(tag)) or ("@" in image and not _DIGEST.fullmatch(digest)):
        return None
    if image.startswith("sha256:"):
        return None
    return ImageReference(_familiar(name), tag or ("" if digest else "latest"), digest)


def _familiar(name: str) -> str:
    for registry in USUAL_REGISTRIES:
        if name.startswith(registry):
            name = name.removeprefix(registry)
            return name.removeprefix(USUAL_OWNER) if name.count("/") == 1 else name
    plain = name.startswith(USUAL_OWNER) and name.count("/") == 1
    return name.removeprefix(USUAL_OWNER) if plain else name


def familiar(image: str) -> str:
    """An image's name as the engine shows it; what cannot be read stays as it is."""
    found = parse(image)
    return image if found is None else found.text
