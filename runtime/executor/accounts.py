"""Who a task runs as: the user its service names, else the node's task user, else ourselves.

Only root can become somebody else; where we are not root, another user is refused by name.
"""

from __future__ import annotations

import dataclasses
import grp
import os
import pwd
from collections.abc import Sequence

from runtime.executor.port import Rejected


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """``uid``, ``gid`` and ``groups`` are None where nothing has to change."""

    name: str
    home: str
    uid: int | None = None
    gid: int | None = None
    groups: list[int] | None = None


def account_of(user: str, groups: Sequence[str], task_user: str | None, euid: int | None = None) -> Account:
    """The account for ``user`` (``name``, ``uid``, either with ``:group``) and additional ``groups``; ``Rejected``."""
    us = os.geteuid() if euid is None else euid
    wanted = user or task_user or ""
    if not wanted:
        entry = _entry(str(us))
        account = Account(entry[0], entry[2])
    else:
        account = _named(wanted, us)
    if not groups:
        return account
    if us != 0:
        raise Rejected(f"additional groups ({', '.join(groups)}) need a node that runs as root")
    return dataclasses.replace(account, groups=[*(account.groups or []), *(_group(group) for group in groups)])


def _named(wanted: str, us: int) -> Account:
    name, _, group = wanted.partition(":")
    uid_text, gid, home = _entry(name)
    entry = _passwd(name)
    uid = entry.pw_uid if entry is not None else int(name)
    gid = _group(group) if group else gid
    if us != 0:
        if uid != us or group:
            raise Rejected(f'user "{wanted}": this node runs tasks as user {us} and cannot change that')
        return Account(uid_text, home)
    groups = os.getgrouplist(entry.pw_name, gid) if entry is not None and not group else [gid]
    return Account(uid_text, home, uid, gid, groups)


def _passwd(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except (KeyError, OverflowError):
        return None


def _entry(name: str) -> tuple[str, int, str]:
    """Name, group and home; a number that nobody has is its own name, with the root group and no home."""
    entry = _passwd(name)
    if entry is not None:
        return entry.pw_name, entry.pw_gid, entry.pw_dir
    if name.isdigit() and int(name) < 2**32 - 1:
        return name, 0, "/"
    raise Rejected(f"unable to find user {name}: no matching entries in passwd file")


def _group(name: str) -> int:
    if name.isdigit() and int(name) < 2**32 - 1:
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise Rejected(f"unable to find group {name}: no matching entries in group file") from None
