"""Space kept back, so that a full disk is noticed before it is met in the middle of a write.

Rules owned here: a file of 64 MiB lies in the data root. When less than the low-water mark is left it is given back, so
that what is under way can be finished, and from then on nothing new is taken; once there is room for it and half as
much again above the mark, it is put back and work goes on. The gap keeps a disk at the mark from flapping. What a
cluster needs to stay whole (votes, statuses, orchestration) lives on the space given back; below the floor that ends
too, before a write fails half-way.
"""

from __future__ import annotations

import enum

from runtime.disk.errors import DiskFailed
from runtime.disk.port import Files

BALLAST = "ballast"
BALLAST_BYTES = 64 << 20
LOW_WATER = 64 << 20
FLOOR = 16 << 20
DISK_FULL = "the disk is nearly full: nothing is written until there is space again"


class Space(enum.Enum):
    """How much there is: for everything; for what is under way and keeps the cluster whole; for nothing."""

    AMPLE = "ample"
    LOW = "low"
    NONE = "none"


class Ballast:
    """The reserve of one data root. ``check`` is cheap: one question to the file system."""

    def __init__(self, files: Files, size: int = BALLAST_BYTES, low_water: int = LOW_WATER, floor: int = FLOOR) -> None:
        self._files = files
        self._floor = floor
        self._size = size
        self._low_water = low_water
        self.held = files.exists(BALLAST)

    def check(self) -> bool:
        """True while there is space for new work (else refuse it with ``DISK_FULL``). Gives back or takes as needed."""
        free = self._files.free_bytes()
        if self.held:
            if free >= self._low_water:
                return True
            self._files.remove(BALLAST)
            self.held = False
        elif free >= self._low_water + self._size + self._size // 2:
            self.held = self._take()
        return self.held

    def level(self) -> Space:
        """``check``, and when there is no space for new work whether there is any."""
        if self.check():
            return Space.AMPLE
        return Space.LOW if self._files.free_bytes() >= self._floor else Space.NONE

    def release(self) -> None:
        """Gives the reserve back: nobody writes here any more."""
        if self.held:
            self._files.remove(BALLAST)
            self.held = False

    def _take(self) -> bool:
        try:
            self._files.reserve(BALLAST, self._size)
        except DiskFailed:
            # Somebody else was faster, or a quota says less than the file system: then there is no space for us.
            return False
        return True
