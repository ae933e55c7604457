"""The open files of this process, by what they are: what another test's threads close late is no difference."""

from __future__ import annotations

import os


def open_files() -> frozenset[str]:
    """Each descriptor and what it leads to; a socket or a pipe with its own number."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except FileNotFoundError:  # the listing's own, or one that has just been closed
            continue
    return frozenset(found)


def opened_since(before: frozenset[str]) -> list[str]:
    """The descriptors that were not open then."""
    return sorted(open_files() - before)
