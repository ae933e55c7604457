"""Processes of this machine, as tests of the real world look for them."""

from __future__ import annotations

from pathlib import Path

from runtime.executor import procfs


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    return procfs.start_time(pid) is not None


def marked(mark: str) -> list[int]:
    """Every live process with a mark in its environment, ascending."""
    return [pid for pid in procfs.pids() if mark.encode() in _environment(pid) and alive(pid)]


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # it has ended, or is another user's
        return b""
