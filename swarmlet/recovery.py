"""``swarmlet recover``, ``backup`` and ``restore``: what an operator does when managers are lost, and before.

Rules it owns: a data root that is not there is never made by looking at it; recover changes nothing without ``--yes``,
and says what it would do; every command ends with what to do next.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from runtime.disk.backup import BadBackup, restore, unpack
from runtime.disk.errors import DiskFailed, DiskInUse
from runtime.disk.real import RealDisk
from runtime.disk.survey import Survey, Unsafe, choose, make_new_cluster, survey
from runtime.introspection import client
from swarmlet.errors import EXIT_OK, StartError
from swarmlet.recovery_options import BackupOptions, RecoverOptions, RestoreOptions

BACKUP_WAIT_S = 130.0


def run(asked: RecoverOptions | BackupOptions | RestoreOptions) -> int:
    """One command; its exit code. StartError with a sentence if it cannot be done."""
    if isinstance(asked, RecoverOptions):
        return _recover(asked)
    if isinstance(asked, BackupOptions):
        return _backup(asked)
    return _restore(asked)


# Recover


def _recover(asked: RecoverOptions) -> int:
    surveys = [survey(_disk(root), str(root), asked.unlock_key) for root in asked.data_roots]
    for line in described(surveys):
        print(line)
    try:
        picked = choose(surveys, str(asked.pick) if asked.pick is not None else "")
    except Unsafe as unsafe:
        raise StartError(str(unsafe)) from None
    for line in plan(surveys, picked):
        print(line)
    if not asked.yes:
        print("Nothing was changed. Add --yes to do it.")
        return EXIT_OK
    try:
        last = make_new_cluster(_disk(Path(picked.place)), secrets.token_hex(8), asked.unlock_key)
    except Unsafe as unsafe:
        raise StartError(f"{picked.place}: {unsafe}") from None
    print(f"Done: the log of {picked.place} ends with entry {last}, and {picked.node_id} is its only manager.")
    print(f"Next: swarmlet daemon --data-root {picked.place}; then let the others leave by force, and join again.")
    return EXIT_OK


def _disk(root: Path) -> RealDisk:
    if not root.is_dir():
        raise StartError(f"{root} is no directory")
    try:
        return RealDisk(root)
    except DiskFailed as error:
        raise StartError(str(error)) from None


def described(surveys: Sequence[Survey]) -> list[str]:
    """What each data root holds, for people."""
    lines = []
    for each in surveys:
        lines.append(each.place)
        if each.trouble:
            lines.append(f"    cannot be used: {each.trouble}")
        if each.node_id:
            lines += [
                f"    node {each.node_id} of cluster {each.cluster_id}, raft id {each.raft_id:x}, at {each.addr}",
                f"    term {each.term}; last entry {each.last_index} of term {each.last_term}; known to be committed "
                f"{each.commit}; snapshot {each.snapshot or 'none'}",
            ]
            names = (f"{member.node_id or format(member.raft_id, 'x')} at {member.addr}" for member in each.members)
            lines.append(f"    members: {', '.join(names)}")
    return lines


def plan(surveys: Sequence[Survey], picked: Survey) -> list[str]:
    """What making a new cluster of ``picked`` means."""
    lines = [f"The new cluster would be made of {picked.place}."]
    shown = {each.raft_id for each in surveys if not each.trouble}
    missing = [member for member in picked.members if member.raft_id not in shown]
    quorum = len(picked.members) // 2 + 1
    if len(picked.members) - len(missing) < quorum:
        lines.append(
            f"{len(missing)} of {len(picked.members)} managers were not shown. A majority acknowledged every change, "
            "so the last ones may be on those alone: whatever of them can still be read, give it too."
        )
    if len(shown) >= quorum and len(picked.members) > 1:
        lines.append(
            f"{len(shown)} of {len(picked.members)} managers have sound logs: that is a quorum. If they can all be "
            "started, start them instead; nothing is lost then."
        )
    tail = picked.last_index - picked.commit
    if tail:
        lines.append(f"Entries not known to be committed ({tail}) stay, as the next leader would keep them.")
    for member in picked.members:
        if member.raft_id != picked.raft_id:
            name = member.node_id or format(member.raft_id, "x")
            lines.append(f"{name} at {member.addr} would be no manager any more.")
    lines.append("Its identity, join tokens, nodes, services, secrets and configs stay.")
    return lines


# Backup and restore


def _backup(asked: BackupOptions) -> int:
    try:
        value = client.ask(asked.socket, "backup", timeout_s=BACKUP_WAIT_S, file=str(asked.file))
    except (client.NoAnswer, ValueError) as error:
        raise StartError(str(error)) from None
    try:
        made = unpack(asked.file.read_bytes())
    except (OSError, BadBackup) as error:
        raise StartError(f"{asked.file} was written, but cannot be read back: {error}") from None
    voters = len(made.snapshot.conf_state.voters)
    print(f"{asked.file}: {value['bytes']} bytes, read back and sound")
    print(f"    node {made.node_id} of cluster {made.cluster_id}, one of {voters}, at entry {made.snapshot.index}")
    print("    It holds the cluster's secrets and the root's key in clear: keep it as you keep those.")
    return EXIT_OK


def _restore(asked: RestoreOptions) -> int:
    try:
        backup = unpack(asked.file.read_bytes())
    except OSError as error:
        raise StartError(f"cannot read {asked.file}: {error.strerror or error}") from None
    except BadBackup as bad:
        raise StartError(f"{asked.file}: {bad}") from None
    order = secrets.token_hex(8) if asked.as_new_cluster else ""
    try:
        last = restore(RealDisk(asked.data_root), backup, order=order, kek=asked.unlock_key)
    except (BadBackup, DiskFailed, DiskInUse) as bad:
        raise StartError(f"{asked.data_root}: {bad}") from None
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(backup.made))
    print(f"{asked.data_root}: node {backup.node_id} of cluster {backup.cluster_id}, as of {made}, entry {last}")
    print(f"Next: make sure that the old one never starts again; then swarmlet daemon --data-root {asked.data_root}")
    return EXIT_OK
