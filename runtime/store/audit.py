"""A debug aid: finds whoever changed an object after it was published."""

from __future__ import annotations

import hashlib
from typing import Any

from runtime.store.changes import Change
from runtime.store.view import View


class Changed(AssertionError):
    """A published object is no longer what it was."""


class Audit:
    """Remembers a hash of each published object while it is in the store. For tests: it costs a serialisation each."""

    def __init__(self) -> None:
        self._hashes: dict[tuple[str, str], bytes] = {}

    def published(self, changes: list[Change]) -> None:
        """Notes what a commit published."""
        for change in changes:
            key = (change.kind.DESCRIPTOR.name, change.object.id)
            if change.new is None:
                self._hashes.pop(key, None)
            else:
                self._hashes[key] = _hash(change.new)

    def check(self, view: View) -> None:
        """Raises Changed if an object in the view differs from what was published."""
        for table in view.tables():
            for obj in table.objects.values():
                noted = self._hashes.get((table.table.kind.DESCRIPTOR.name, obj.id))
                if noted is not None and noted != _hash(obj):
                    raise Changed(f"{table.table.field} {obj.id} was changed after it was published")


def _hash(obj: Any) -> bytes:
    return hashlib.blake2b(obj.SerializeToString(deterministic=True), digest_size=16).digest()
