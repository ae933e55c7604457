"""A persistent map: text to anything, shared between versions but for what changed.

It is a list of blocks of small dictionaries ("buckets"). A changed version copies that list and the blocks and buckets
it touches, so that one change among n entries costs one small dictionary, one block and about n/1000 pointers, and as
much is all that an older version keeps of its own. Whoever holds one sees it unchanged. Iteration is in no particular
order: callers sort.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Generic, TypeVar

V = TypeVar("V")

LOAD = 16  # entries per bucket before their number grows
GROWTH = 4
BLOCK_BITS = 6
BLOCK = 1 << BLOCK_BITS
IN_BLOCK = BLOCK - 1

Block = list[dict[str, V]]


class PersistentMap(Generic[V]):
    """An immutable version. ``edit()`` begins the next one."""

    __slots__ = ("_blocks", "_mask", "_size")

    def __init__(self) -> None:
        self._blocks: list[Block[V]] = [[{}]]
        self._mask = 0
        self._size = 0

    def get(self, key: str) -> V | None:
        """The value, or None."""
        index = hash(key) & self._mask
        return self._blocks[index >> BLOCK_BITS][index & IN_BLOCK].get(key)

    def __contains__(self, key: str) -> bool:
        index = hash(key) & self._mask
        return key in self._blocks[index >> BLOCK_BITS][index & IN_BLOCK]

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[str]:
        """All keys, in no particular order."""
        return chain.from_iterable(chain.from_iterable(self._blocks))

    def values(self) -> Iterator[V]:
        """All values, in no particular order."""
        for bucket in chain.from_iterable(self._blocks):
            yield from bucket.values()

    def edit(self) -> Edit[V]:
        """A changeable successor; this version stays as it is."""
        return Edit(self)


class Edit(Generic[V]):
    """The next version while it is being made. Reads see what was written."""

    __slots__ = ("_base", "_blocks", "_mask", "_owned", "_owned_blocks", "_size")

    def __init__(self, base: PersistentMap[V]) -> None:
        self._base = base
        self._blocks = base._blocks
        self._mask = base._mask
        self._size = base._size
        self._owned: set[int] | None = None  # indices of buckets that are ours alone; None: not even the list is
        self._owned_blocks: set[int] = set()

    def get(self, key: str) -> V | None:
        """The value, or None."""
        index = hash(key) & self._mask
        return self._blocks[index >> BLOCK_BITS][index & IN_BLOCK].get(key)

    def __len__(self) -> int:
        return self._size

    def values(self) -> Iterator[V]:
        """All values, in no particular order."""
        for bucket in chain.from_iterable(self._blocks):
            yield from bucket.values()

    def __iter__(self) -> Iterator[str]:
        """All keys, in no particular order."""
        return chain.from_iterable(chain.from_iterable(self._blocks))

    def set(self, key: str, value: V) -> None:
        """Adds or replaces an entry."""
        bucket = self._own(hash(key) & self._mask)
        if key not in bucket:
            self._size += 1
            bucket[key] = value
            if self._size > LOAD * (self._mask + 1):
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
        result._blocks, result._mask, result._size = self._blocks, self._mask, self._size
        self._base, self._owned = result, None
        return result

    def _own(self, index: int) -> dict[str, V]:
        owned = self._owned
        if owned is None:
            owned = self._owned = set()
            self._owned_blocks = set()
            self._blocks = list(self._blocks)
        at, within = index >> BLOCK_BITS, index & IN_BLOCK
        if index in owned:
            return self._blocks[at][within]
        owned.add(index)
        if at not in self._owned_blocks:
            self._owned_blocks.add(at)
            self._blocks[at] = list(self._blocks[at])
        block = self._blocks[at]
        bucket = block[within] = dict(block[within])
        return bucket

    def _grow(self) -> None:
        count = (self._mask + 1) * GROWTH
        buckets: Block[V] = [{} for _ in range(count)]
        mask = count - 1
        for bucket in chain.from_iterable(self._blocks):
            for key, value in bucket.items():
                buckets[hash(key) & mask][key] = value
        self._blocks = [buckets[at : at + BLOCK] for at in range(0, count, BLOCK)]
        self._mask, self._owned, self._owned_blocks = mask, set(range(count)), set(range(len(self._blocks)))
