"""What a task of processes uses: from its control groups where it has some, from /proc of its processes elsewhere.

Shapes are those of the engine's statistics. What neither says is left out or 0, never made up: with /proc alone, what
processes used that are gone is known only as far as their parents in the task have waited for them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from runtime.executor import procfs
from runtime.executor.cgroups import Cgroups
from runtime.executor.inspection import Usage
from runtime.executor.journal import Record

TICKS: Final = os.sysconf("SC_CLK_TCK")
PAGE: Final = os.sysconf("SC_PAGE_SIZE")
NANOS: Final = 1_000_000_000
UNLIMITED: Final = 1 << 60
"""Version 1 writes a number near 2^63 where there is no limit."""
SYSTEM_FIELDS: Final = 8
"""user, nice, system, idle, iowait, irq, softirq, steal; what guests used is in the first two."""


def members(record: Record) -> list[int]:
    """The processes of a task, ascending."""
    if record["cgroups"]:
        return Cgroups({}).members(record["cgroups"])
    marked = {pid for pid, _ in procfs.marked(frozenset((record["id"],)))}
    return sorted(marked | {pid for pid in procfs.pids() if procfs.session(pid) == record["pid"]})


def take(record: Record, proc: str = "/proc") -> Usage:
    """What a task uses now. Reads files: not for a loop."""
    pids = members(record)
    processes = [each for each in (_process(proc, pid) for pid in pids) if each is not None]
    groups = _Groups(record["cgroups"])
    return {
        "read": _now(),
        "pids_stats": _pids(groups, len(pids)),
        "cpu_stats": {**_cpu(groups, processes), **_system(proc)},
        "memory_stats": _memory(groups, processes, os.sysconf("SC_PHYS_PAGES") * PAGE),
        "blkio_stats": _blkio(proc, pids),
    }


def _now() -> str:
    seconds, nanos = divmod(time.time_ns(), NANOS)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanos:09d}Z"


class _Groups:
    """The files of a task's control groups, wherever they are."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = tuple(paths)

    def text(self, name: str) -> str | None:
        """A file's text, from the first group that has it."""
        for path in self._paths:
            with contextlib.suppress(OSError), open(os.path.join(path, name), encoding="ascii") as file:
                return file.read()
        return None

    def number(self, *names: str) -> int | None:
        """The number in the first file that is there and has one."""
        for name in names:
            text = (self.text(name) or "").strip()
            if text.isdigit():
                return int(text)
        return None

    def table(self, name: str) -> dict[str, int]:
        """A file of names and numbers."""
        pairs = (line.split() for line in (self.text(name) or "").splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


class _Process:
    """What /proc says of one process: times in ticks (with those of children it has waited for), memory in bytes."""

    def __init__(self, fields: list[bytes]) -> None:
        self.user = int(fields[11]) + int(fields[13])
        self.kernel = int(fields[12]) + int(fields[14])
        self.resident = max(0, int(fields[21])) * PAGE


def _process(proc: str, pid: int) -> _Process | None:
    try:
        with open(f"{proc}/{pid}/stat", "rb") as file:
            data = file.read(4096)
        return _Process(data[data.rfind(b")") + 2 :].split())
    except (OSError, IndexError, ValueError):
        return None  # it is gone


def _cpu(groups: _Groups, processes: list[_Process]) -> dict[str, Any]:
    unified = groups.table("cpu.stat")
    total, per_cpu = groups.number("cpuacct.usage"), groups.text("cpuacct.usage_percpu")
    if "usage_usec" in unified:
        usage: dict[str, Any] = {
            "total_usage": unified["usage_usec"] * 1000,
            "usage_in_kernelmode": unified.get("system_usec", 0) * 1000,
            "usage_in_usermode": unified.get("user_usec", 0) * 1000,
        }
    else:
        user, kernel = (sum(getattr(each, what) for each in processes) for what in ("user", "kernel"))
        times = groups.table("cpuacct.stat")
        user, kernel = times.get("user", user), times.get("system", kernel)
        usage = {
            "total_usage": total if total is not None else _nanos(user + kernel),
            "usage_in_kernelmode": _nanos(kernel),
            "usage_in_usermode": _nanos(user),
        }
    if per_cpu:
        usage["percpu_usage"] = [int(each) for each in per_cpu.split()]
    throttled = unified.get("throttled_time", unified.get("throttled_usec", 0) * 1000)
    return {
        "cpu_usage": usage,
        "throttling_data": {
            "periods": unified.get("nr_periods", 0),
            "throttled_periods": unified.get("nr_throttled", 0),
            "throttled_time": throttled,
        },
    }


def _system(proc: str) -> dict[str, int]:
    """What the whole machine used since it started, and how many processors it has."""
    with open(f"{proc}/stat", encoding="ascii") as file:
        fields = file.readline().split()
    used = sum(int(each) for each in fields[1 : 1 + SYSTEM_FIELDS])
    return {"system_cpu_usage": _nanos(used), "online_cpus": os.cpu_count() or 1}


def _nanos(ticks: int) -> int:
    return ticks * (NANOS // TICKS)


def _memory(groups: _Groups, processes: list[_Process], machine: int) -> dict[str, Any]:
    usage = groups.number("memory.current", "memory.usage_in_bytes")
    limit = groups.number("memory.max", "memory.limit_in_bytes")
    stats: dict[str, Any] = {
        "usage": usage if usage is not None else sum(each.resident for each in processes),
        "stats": groups.table("memory.stat"),
        "limit": limit if limit is not None and limit < UNLIMITED else machine,
    }
    highest = groups.number("memory.peak", "memory.max_usage_in_bytes")
    if highest is not None:
        stats["max_usage"] = highest
    return stats


def _pids(groups: _Groups, found: int) -> dict[str, int]:
    current, limit = groups.number("pids.current"), groups.number("pids.max")
    stats = {"current": current if current is not None else found}
    if limit is not None:
        stats["limit"] = limit
    return stats


def _blkio(proc: str, pids: Iterable[int]) -> Mapping[str, Any]:
    """What the processes that are there have read from disks and written to them, with no device to name."""
    read = written = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError), open(f"{proc}/{pid}/io", encoding="ascii") as file:
            found = dict(line.split(": ", 1) for line in file.read().splitlines())
            read += int(found.get("read_bytes", 0))
            written += int(found.get("write_bytes", 0))
    operations = {"read": read, "write": written}
    entries = [{"major": 0, "minor": 0, "op": name, "value": value} for name, value in operations.items()]
    return {"io_service_bytes_recursive": entries if read or written else []}
