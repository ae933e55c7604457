"""A persistent map: text to anything, shared between versions but for what changed.

It is a list of small dictionaries ("buckets"). A changed version copies that list and the buckets it touches, so that
one change among n entries costs about n/16 pointer copies and one small dictionary, and a batch of changes pays for the
list once. Whoever holds an older version sees it unchanged. Iteration is in no particular order: callers sort.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

V = TypeVar("V")

LOAD = 16  # entries per bucket before the list grows
GROWTH = 4


class PersistentMap(Generic[V]):
    """An immutable version. ``edit()`` begins the next one."""

    __slots__ = ("_buckets", "_mask", "_size")

    def __init__(self) -> None:
        self._buckets: list[dict[str, V]] = [{}]
        self._mask = 0
        self._size = 0

    def get(self, key: str) -> V | None:
        """The value, or None."""
        return self._buckets[hash(key) & self._mask].get(key)

    def __contains__(self, key: str) -> bool:
        return key in self._buckets[hash(key) & self._mask]

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[str]:
        """All keys, in no particular order."""
        for bucket in self._buckets:
            yield from bucket

    def values(self) -> Iterator[V]:
        """All values, in no particular order."""
        for bucket in self._buckets:
            yield from bucket.values()

    def edit(self) -> Edit[V]:
        """A changeable successor; this version stays as it is."""
        return Edit(self)


class Edit(Generic[V]):
    """The next version while it is being made. Reads see what was written."""

    __slots__ = ("_base", "_buckets", "_mask", "_owned", "_size")

    def __init__(self, base: PersistentMap[V]) -> None:
        self._base = base
        self._buckets = base._buckets
        self._mask = base._mask
        self._size = base._size
        self._owned: set[int] | None = None  # indices of buckets that are ours alone; None: not even the list is

    def get(self, key: str) -> V | None:
        """The value, or None."""
        return self._buckets[hash(key) & self._mask].get(key)

    def __len__(self) -> int:
        return self._size

    def values(self) -> Iterator[V]:
        """All values, in no particular order."""
        for bucket in self._buckets:
            yield from bucket.values()

    def __iter__(self) -> Iterator[str]:
        """All keys, in no particular order."""
        for bucket in self._buckets:
            yield from bucket

    def set(self, key: str, value: V) -> None:
        """Adds or replaces an entry."""
        bucket = self._own(hash(key) & self._mask)
        if key not in bucket:
            self._size += 1
            bucket[key] = value
            if self._size > LOAD * len(self._buckets):
                self._grow()
        else:
            bucket[key] = value

    def delete(self, key: str) -> None:
        """Removes an entry; KeyError if there is none."""
        del self._own(hash(key) & self._mask)[key]
        self._size -= 1

    def freeze(self) -> PersistentMap[V]:
        """The new version; the base itself if nothing changed. The edit may go on: it copies again."""
        if self._owned is None:
            return self._base
        result: PersistentMap[V] = PersistentMap.__new__(PersistentMap)
        result._buckets, result._mask, result._size = self._buckets, self._mask, self._size
        self._base, self._owned = result, None
        return result

    def _own(self, index: int) -> dict[str, V]:
        owned = self._owned
        if owned is None:
            owned = self._owned = set()
            self._buckets = list(self._buckets)
        if index in owned:
            return self._buckets[index]
        owned.add(index)
        bucket = self._buckets[index] = dict(self._buckets[index])
        return bucket

    def _grow(self) -> None:
        count = len(self._buckets) * GROWTH
        buckets: list[dict[str, V]] = [{} for _ in range(count)]
        mask = count - 1
        for bucket in self._buckets:
            for key, value in bucket.items():
                buckets[hash(key) & mask][key] = value
        self._buckets, self._mask, self._owned = buckets, mask, set(range(count))
