"""What a data root holds when a node starts, and what may be done with it.

Rules owned here: another program's swarm is never touched; a raft log without a certificate is never thrown away,
for it may be the only copy of a cluster; leftovers of an attempt that failed are cleared, by name and nothing else.
"""

from __future__ import annotations

from runtime.disk.ballast import BALLAST
from runtime.disk.errors import ForeignState
from runtime.disk.port import TEMPORARY, Files
from runtime.disk.state_files import (
    CERTIFICATES,
    DOCKER_STATE,
    NODE_CERT,
    NODE_KEY,
    PRIVATE,
    REMOTES,
    DockerState,
    StateFiles,
)

RAFT_DATABASE = "raft/log"
TASK_DATABASE = "worker/tasks.db"
RAFT_MEMBER = "raft-member"
"""Holds the raft id of the log beside the log: what is left when that is lost."""

_RAFT, _WORKER = "raft", "worker"
_OTHERS_LOGS = ("wal-v3-encrypted", "snap-v3-encrypted", "wal-v3", "snap-v3", "wal", "snap")
# In the order of removal. Once the first is gone this node is in no swarm, and the certificates go last, because a raft
# log without them is never touched: a crash in between leaves nothing that starts again or that must be refused.
_OURS = (DOCKER_STATE, _RAFT, _WORKER, REMOTES, BALLAST, RAFT_MEMBER, CERTIFICATES)
_WITH_LEFTOVERS = ("", CERTIFICATES)


def inspect_data_root(files: Files) -> DockerState | None:
    """How this node entered its swarm, or None when it is in none; run before anything is opened.

    ``ForeignState`` when the data is not ours to use; ``StateDamaged`` when it cannot be understood. State without a
    certificate, and certificates without state that hold no key, come from an attempt that failed and are cleared.
    """
    refuse_foreign(files)
    if not _has_certificate(files):
        refuse_orphaned_log(files)
        clear_data_root(files)
    remove_temporary_files(files)
    return StateFiles(files).docker_state()


def _has_certificate(files: Files) -> bool:
    return files.exists(NODE_CERT) or files.exists(NODE_KEY)


def refuse_orphaned_log(files: Files) -> None:
    """Raises ``ForeignState`` when there is a raft log: for a node without a certificate, which must not begin anew."""
    if files.exists(RAFT_DATABASE):
        raise ForeignState(
            f"{RAFT_DATABASE} holds a raft log but {NODE_CERT} is missing; "
            "the log may be the only copy of a cluster and is not thrown away"
        )


def refuse_foreign(files: Files) -> None:
    """Raises ``ForeignState`` when the data root holds the swarm of dockerd or of another SwarmKit program."""
    for name in _OTHERS_LOGS:
        if files.exists(f"{_RAFT}/{name}"):
            raise _foreign(f"{_RAFT}/{name}")
    if files.is_file(TASK_DATABASE):
        raise _foreign(TASK_DATABASE)


def clear_data_root(files: Files) -> None:
    """Removes everything that a node keeps and leaves the directory, which may be a mount point.

    ``ForeignState`` when it is another program's: that is not ours to remove, whoever asks.
    """
    refuse_foreign(files)
    for name in _OURS:
        files.remove_tree(name)


def note_raft_member(files: Files, raft_id: int) -> None:
    """Keeps the raft id of this node's log where it outlasts the log."""
    text = f"{raft_id:x}".encode()
    if files.read(RAFT_MEMBER) != text:
        files.write_atomic(RAFT_MEMBER, text, PRIVATE)


def noted_raft_member(files: Files) -> int:
    """The raft id of the log that this node had; 0 if it had none, or nobody can read the note."""
    text = files.read(RAFT_MEMBER) or b""
    return int(text, 16) if 0 < len(text) <= 16 and set(text) <= set(b"0123456789abcdef") else 0


def remove_temporary_files(files: Files) -> None:
    """Removes half-written files that a crash left beside the real ones."""
    for directory in _WITH_LEFTOVERS:
        for name in files.listdir(directory):
            if name.startswith(TEMPORARY):
                files.remove(f"{directory}/{name}" if directory else name)


def _foreign(path: str) -> ForeignState:
    return ForeignState(f"{path} belongs to the swarm of another program; give swarmlet a data root of its own")
