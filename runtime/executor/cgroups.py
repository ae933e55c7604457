"""Limits by control groups, version 1 or 2, where this process may make groups; elsewhere the reason why not.

Each task has a group of its own below ``swarmlet-*`` in the group that the keeper is in, so that the limits of the
unit or session around it hold too. In version 2 a group with processes may have no limited children: then the parent
is tried (a unit with ``DelegateSubgroup=``), then the top. Imported by the keeper: standard library only.
"""

from __future__ import annotations

import os

CONTROLLERS = ("cpu", "memory", "pids")
PERIOD_US = 100_000


class Cgroups:
    """Groups for tasks. ``bases`` are the directories in which they are made (by controller; "" is version 2's);
    ``reason`` says why there are none."""

    def __init__(self, bases: dict[str, str], reason: str = "") -> None:
        self.bases = bases
        self.reason = reason

    @property
    def available(self) -> bool:
        """Whether limits are enforced."""
        return bool(self.bases)

    def create(self, name: str, limits: dict[str, int]) -> list[str]:
        """A group with these limits (``nano_cpus``, ``memory`` bytes, ``pids``; 0 or absent is without): its
        directories. OSError if it can't be made; nothing is left of it then."""
        made: list[str] = []
        try:
            for controller, base in self.bases.items():
                path = os.path.join(base, name)
                os.makedirs(path, exist_ok=True)
                made.append(path)
                for file, value in settings(controller, limits):
                    _write(os.path.join(path, file), value)
        except OSError:
            self.remove(made)
            raise
        return made

    def enter(self, paths: list[str], pid: int) -> None:
        """Puts a process into a group."""
        for path in paths:
            _write(os.path.join(path, "cgroup.procs"), str(pid))

    def members(self, paths: list[str]) -> list[int]:
        """The processes in a group."""
        found: set[int] = set()
        for path in paths:
            try:
                with open(os.path.join(path, "cgroup.procs"), encoding="ascii") as file:
                    found.update(int(line) for line in file.read().split())
            except FileNotFoundError:
                continue
        return sorted(found)

    def remove(self, paths: list[str]) -> bool:
        """Removes a group; False if there are processes in it still."""
        gone = True
        for path in paths:
            try:
                os.rmdir(path)
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone

    def close(self) -> None:
        """Removes the keeper's own directories, if no task is left in them."""
        for base in self.bases.values():
            self.remove([base])


def settings(controller: str, limits: dict[str, int]) -> list[tuple[str, str]]:
    """The files to write for one controller ("" is version 2, where one group has all)."""
    quota = str(max(1000, limits.get("nano_cpus", 0) * PERIOD_US // 1_000_000_000))
    table = {
        ("cpu", "nano_cpus"): [("cpu.cfs_period_us", str(PERIOD_US)), ("cpu.cfs_quota_us", quota)],
        ("memory", "memory"): [("memory.limit_in_bytes", str(limits.get("memory", 0)))],
        ("pids", "pids"): [("pids.max", str(limits.get("pids", 0)))],
        ("", "nano_cpus"): [("cpu.max", f"{quota} {PERIOD_US}")],
        ("", "memory"): [("memory.max", str(limits.get("memory", 0)))],
        ("", "pids"): [("pids.max", str(limits.get("pids", 0)))],
    }
    chosen = (files for (owner, limit), files in table.items() if owner == controller and limits.get(limit, 0) > 0)
    return [item for files in chosen for item in files]


def detect(label: str, proc: str = "/proc/self") -> Cgroups:
    """What this process may use; ``label`` tells this keeper's groups from others'."""
    try:
        mounts = _mounts(f"{proc}/mountinfo")
        own = _own(f"{proc}/cgroup")
    except OSError as error:
        return Cgroups({}, f"control groups cannot be read: {error.strerror}")
    problems: list[str] = []
    name = f"swarmlet-{label}"
    bases = _unified(mounts, own, name, problems) or _classic(mounts, own, name, problems)
    return Cgroups(bases, "" if bases else "; ".join(problems) or "there are no control groups on this machine")


def _unified(mounts: dict[str, str], own: dict[str, str], name: str, problems: list[str]) -> dict[str, str]:
    mount = mounts.get("", "")
    if not mount:
        return {}
    here = own.get("", "/")
    for place in dict.fromkeys((here, os.path.dirname(here), "/")):
        parent = os.path.join(mount, place.lstrip("/")).rstrip("/")
        try:
            _delegate(parent, name)
        except OSError as error:
            problems.append(f"{parent}: {error.strerror or error}")
            continue
        return {"": os.path.join(parent, name)}
    return {}


def _delegate(parent: str, name: str) -> None:
    """Makes the group ``name``, whose children can be limited."""
    with open(os.path.join(parent, "cgroup.controllers"), encoding="ascii") as file:
        there = file.read().split()
    if not set(CONTROLLERS) <= set(there):
        raise OSError(0, f"the controllers {', '.join(CONTROLLERS)} are not all there")
    path = os.path.join(parent, name)
    enable = " ".join(f"+{controller}" for controller in CONTROLLERS)
    existed = os.path.isdir(path)
    os.makedirs(path, exist_ok=True)
    try:
        _write(os.path.join(parent, "cgroup.subtree_control"), enable)
        _write(os.path.join(path, "cgroup.subtree_control"), enable)
    except OSError:
        if not existed:
            os.rmdir(path)
        raise


def _classic(mounts: dict[str, str], own: dict[str, str], name: str, problems: list[str]) -> dict[str, str]:
    bases: dict[str, str] = {}
    for controller in CONTROLLERS:
        mount = mounts.get(controller, "")
        if not mount:
            problems.append(f"there is no controller {controller}")
            Cgroups(bases).close()
            return {}
        within = os.path.join(mount, own.get(controller, "/").lstrip("/"))
        path = os.path.join(within if os.path.isdir(within) else mount, name)
        try:
            os.makedirs(path, exist_ok=True)
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
            Cgroups(bases).close()
            return {}
        bases[controller] = path
    return bases


def _mounts(path: str) -> dict[str, str]:
    """Mount points by controller; "" is version 2's."""
    found: dict[str, str] = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            kind, _source, options = after.split()[:3]
            if kind == "cgroup2":
                found.setdefault("", before.split()[4])
            elif kind == "cgroup":
                for controller in options.split(","):
                    if controller in CONTROLLERS:
                        found.setdefault(controller, before.split()[4])
    return found


def _own(path: str) -> dict[str, str]:
    """This process's group by controller; "" is version 2's."""
    with open(path, encoding="utf-8") as file:
        rows = [line.rstrip("\n").split(":", 2) for line in file]
    return {controller: group for _, controllers, group in rows for controller in controllers.split(",")}


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
