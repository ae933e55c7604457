"""Secrets and configs of a task as files of its own, in memory where this machine allows it.

A process shares the machine's file system, so they can't be at ``/run/secrets``: they are below two directories that
``SWARMLET_SECRETS`` and ``SWARMLET_CONFIGS`` name in the task's environment, readable by its user alone.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Collection

from runtime.executor.process_plan import Plan

DIRECTORY = "payloads"
SHARED_MEMORY = "/dev/shm"  # noqa: S108 (what we make there is checked to be ours)


def payload_root(run_dir: str, mounts: str = "/proc/self/mounts") -> str:
    """Where payloads go: the run directory if it is in memory, else a directory of ours in /dev/shm if that is."""
    if _in_memory(run_dir, mounts):
        return os.path.join(run_dir, DIRECTORY)
    if _in_memory(SHARED_MEMORY, mounts) and os.access(SHARED_MEMORY, os.W_OK):
        name = os.path.realpath(run_dir).strip("/").replace("/", "-")
        return os.path.join(SHARED_MEMORY, f"swarmlet-{os.geteuid()}-{name}")
    return os.path.join(run_dir, DIRECTORY)


def write_payloads(
    root: str, plan: Plan, secret: Callable[[str], bytes], config: Callable[[str], bytes]
) -> dict[str, str]:
    """Writes a task's files anew; what to add to its environment. KeyError or Refused for what the node was not given,
    OSError for what can't be written."""
    if not plan.secrets and not plan.configs:
        return {}
    home = os.path.join(root, plan.task_id)
    remove_payloads(root, plan.task_id)
    _make(root, 0o711)
    _make(home, 0o711)
    if plan.account.uid not in (None, os.geteuid()):
        _let_through(os.path.dirname(root))
    for name, references, read in (
        ("secrets", [(each.secret_id, each.file) for each in plan.secrets], secret),
        ("configs", [(each.config_id, each.file) for each in plan.configs], config),
    ):
        if not references:
            continue
        directory = os.path.join(home, name)
        _make(directory, 0o700)
        for identity, file in references:
            _write(os.path.join(directory, file.name), read(identity), file.mode & 0o777, _owner(plan, file))
        if plan.account.uid is not None:
            os.chown(directory, plan.account.uid, plan.account.gid or 0)
    return payload_environment(root, plan)


def payload_environment(root: str, plan: Plan) -> dict[str, str]:
    """How a task is told of its files' directories."""
    home = os.path.join(root, plan.task_id)
    there = (("secrets", plan.secrets), ("configs", plan.configs))
    return {f"SWARMLET_{name.upper()}": os.path.join(home, name) for name, references in there if references}


def remove_payloads(root: str, task_id: str) -> None:
    """Removes a task's files; none is fine."""
    try:
        shutil.rmtree(os.path.join(root, task_id))
        os.rmdir(root)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
            raise


def clear_payloads(root: str, running: Collection[str]) -> None:
    """Removes the files of all tasks but those that run: what a daemon left that could not stop them itself. A
    directory that somebody else put in that place is left alone; writing to it is refused."""
    try:
        ours = os.lstat(root).st_uid == os.geteuid()
        left = [name for name in os.listdir(root) if name not in running] if ours else []
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in left:
        remove_payloads(root, name)


def _let_through(directory: str) -> None:
    """Lets another user's task reach its files below a directory of ours; it sees no names there."""
    found = os.stat(directory)
    if found.st_uid == os.geteuid():
        os.chmod(directory, stat.S_IMODE(found.st_mode) | 0o011)  # noqa: S103 (to pass, not to look)


def _owner(plan: Plan, file: object) -> tuple[int, int] | None:
    """Who owns a file: the user it names, where that is not root (the default), else the task's. None: as it is."""
    if os.geteuid() != 0:
        return None
    uid, gid = (int(getattr(file, name) or 0) for name in ("uid", "gid"))
    return uid or plan.account.uid or 0, gid or plan.account.gid or 0


def _make(path: str, mode: int) -> None:
    os.makedirs(os.path.dirname(path), 0o711, exist_ok=True)
    try:
        os.mkdir(path)
    except FileExistsError:
        if os.lstat(path).st_uid != os.geteuid() or os.path.islink(path):
            raise PermissionError(1, "a directory that is not ours", path) from None
    os.chmod(path, mode)


def _write(path: str, data: bytes, mode: int, owner: tuple[int, int] | None) -> None:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        if owner is not None:
            os.fchown(fd, *owner)
        os.fchmod(fd, mode)


def _in_memory(path: str, mounts: str) -> bool:
    kind, longest = "", -1
    real = os.path.realpath(path) + "/"
    with open(mounts, encoding="utf-8") as file:
        for line in file:
            _source, point, filesystem = line.split()[:3]
            if real.startswith(point.rstrip("/") + "/") and len(point) >= longest:
                kind, longest = filesystem, len(point)
    return kind in ("tmpfs", "ramfs")
