"""How a disk may fail, by what is to be done about it."""

from __future__ import annotations


class DiskFailed(Exception):
    """A read, write or sync failed. The handle is closed; whatever was being written may or may not last.

    The only way on is to open again from disk: after a failed write LevelDB acknowledges what it will lose.
    """


class DiskDamaged(DiskFailed):
    """Stored bytes are not what was written."""


class DiskInUse(Exception):
    """Another process, or another part of this one, has the same data open."""


class LogDamaged(Exception):
    """The raft log is not what was acknowledged; this replica must leave and join anew, never go on."""


class NothingToForce(Exception):
    """A new cluster cannot be made of this log, for it holds nothing of the old one."""


class CannotUnseal(Exception):
    """A record is sealed with a key that is not at hand."""


class StateDamaged(Exception):
    """A state file that cannot be understood; the text names it."""


class ForeignState(Exception):
    """The data root belongs to something else, or holds what must not be thrown away."""
