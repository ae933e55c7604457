"""Named places to crash at, and named unusual paths to take.

``failpoint("raft.name")`` marks a place where a test may end a node; ``rare("name")`` asks whether to take a legal
but unusual path. Both cost one comparison while nothing is armed. Arming is for tests alone: the armed hook
is the only global state of the package, and it decides by itself which node is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_crash: Callable[[str], None] | None = None
_choose: Callable[[str], bool] | None = None


def failpoint(name: str) -> None:
    """Marks a place to crash at."""
    if _crash is not None:
        _crash(name)


def rare(name: str) -> bool:
    """True when the unusual path ``name`` is to be taken."""
    return _choose is not None and _choose(name)


@contextmanager
def armed(crash: Callable[[str], None] | None = None, choose: Callable[[str], bool] | None = None) -> Iterator[None]:
    """Arms both hooks for the length of a ``with`` block, then restores what was there."""
    global _crash, _choose
    before = _crash, _choose
    _crash, _choose = crash, choose
    try:
        yield
    finally:
        _crash, _choose = before
