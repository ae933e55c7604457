"""What /proc says of processes: who they are beyond a number that is used again.

A process is known by boot id, pid and start time together. One whose environment carries ``SWARMLET_TASK_ID`` belongs
to that task, however far it has moved from its process group. Imported by the keeper: standard library only.
"""

from __future__ import annotations

import os

OPEN_FILES_MARK = "SWARMLET_OPEN_FILES"
"""In the environment of who raised its own soft limit of open files: the limit that was, which is its tasks'."""
TASK_MARK = "SWARMLET_TASK_ID"


def boot_id() -> str:
    """This boot's identity; another after every reboot."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _fields(pid: int) -> list[bytes]:
    """Fields of /proc/PID/stat from the third (state) on; [] if there is no such process."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except (FileNotFoundError, ProcessLookupError):
        return []
    try:
        data = os.read(fd, 4096)
    except ProcessLookupError:
        return []
    finally:
        os.close(fd)
    return data[data.rfind(b")") + 2 :].split()


def start_time(pid: int) -> int | None:
    """When the process began, in clock ticks since boot; None if there is none or only a zombie."""
    fields = _fields(pid)
    return int(fields[19]) if fields and fields[0] not in (b"Z", b"X") else None


def session(pid: int) -> int:
    """The session that the process is in; 0 if there is none."""
    fields = _fields(pid)
    return int(fields[3]) if fields else 0


def pids() -> list[int]:
    """Every process there is, ascending."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def children(parent: int) -> list[int]:
    """The processes whose parent is ``parent``, ascending."""
    found = []
    for pid in pids():
        fields = _fields(pid)
        if fields and int(fields[1]) == parent:
            found.append(pid)
    return found


def task_of(pid: int) -> str:
    """The task that a process is marked with; "" if with none, or if we may not see it."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environ = file.read()
    except OSError:  # gone, another user's, or a set-uid program
        return ""
    mark = TASK_MARK.encode() + b"="
    found = [item for item in environ.split(b"\0") if item.startswith(mark)]
    return found[0][len(mark) :].decode("utf-8", "replace") if found else ""


def marked(task_ids: frozenset[str]) -> list[tuple[int, str]]:
    """Processes that carry the mark of one of these tasks."""
    found = ((pid, task_of(pid)) for pid in pids() if pid != os.getpid())
    return [(pid, task_id) for pid, task_id in found if task_id in task_ids]
