"""Where things lie: data, sockets, state of ``up``; and that these places are private and short enough.

Rules it owns: root uses /var/lib/swarmlet and /run/swarmlet, everybody else the XDG directories; without a runtime
directory a private one in the temporary directory, refused when it is somebody else's or open to others; never the
engine's own socket; a path of a unix socket has at most 107 bytes, so a directory that leaves too little of them is
passed over.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from runtime.wire.private_directory import for_sockets
from swarmlet.errors import StartError, UsageError

UNIX_PATH_MAX: Final = 107
API_SOCKET: Final = "api.sock"
INTROSPECTION_SOCKET: Final = "introspection.sock"
CONTROL_SOCKET: Final = "control.sock"
EXECUTOR_DIRECTORY: Final = "exec"


def data_root(environ: Mapping[str, str], uid: int) -> Path:
    """Where a daemon keeps its swarm unless told otherwise."""
    return Path("/var/lib/swarmlet") if uid == 0 else _xdg(environ, "XDG_DATA_HOME", ".local/share") / "swarmlet"


def exec_root(environ: Mapping[str, str], uid: int) -> Path:
    """Where a daemon keeps its sockets unless told otherwise; not made yet."""
    return Path("/run/swarmlet") if uid == 0 else runtime_directory(environ, uid)


def runtime_directory(environ: Mapping[str, str], uid: int) -> Path:
    """A directory for sockets that belongs to one user: below the XDG runtime directory, else in the temporary one."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and for_sockets(runtime) == runtime and _is_private(Path(runtime), uid):
        return Path(runtime) / "swarmlet"
    return Path(for_sockets(environ.get("TMPDIR", ""))) / f"swarmlet-{uid}"


def up_state(environ: Mapping[str, str], compose_file: Path, stack: str) -> Path:
    """Where ``up`` keeps the swarm of one compose file: the file's place decides, not its content."""
    mark = hashlib.sha256(os.fsencode(compose_file.resolve())).hexdigest()[:12]
    return _xdg(environ, "XDG_STATE_HOME", ".local/state") / "swarmlet" / "up" / f"{stack}-{mark}"


def run_directory(environ: Mapping[str, str], uid: int, state_dir: Path) -> Path:
    """Where the sockets of the node of ``state_dir`` lie: the same at each start, and short."""
    mark = hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()[:12]
    return runtime_directory(environ, uid) / mark


def make_private(path: Path, uid: int) -> None:
    """Makes a directory with mode 0700, and those that are missing above it.

    One that is there must belong to ``uid`` (root's are fine too) and be writable by nobody else: StartError if not,
    because whoever can write there could stand in for our sockets.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"cannot make the directory {path}: {error.strerror or error}") from error
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise StartError(f"{path} is no directory")
    if found.st_uid not in (uid, 0):
        raise StartError(f"{path} belongs to the user with id {found.st_uid}, not to this one ({uid})")
    if found.st_mode & 0o022:
        raise StartError(f"{path} can be written by others; its mode must be 0700")


def check_socket_path(path: str) -> str:
    """The path itself; UsageError if it is too long for a unix socket or not absolute."""
    size = len(os.fsencode(path))
    if size > UNIX_PATH_MAX:
        raise UsageError(f"the path of the socket is too long: {size} bytes, at most {UNIX_PATH_MAX}: {path}")
    if not os.path.isabs(path):
        raise UsageError(f"the path of a socket must be absolute: {path or '(empty)'}")
    return path


def _xdg(environ: Mapping[str, str], name: str, below_home: str) -> Path:
    value = environ.get(name, "")
    if os.path.isabs(value):
        return Path(value)
    home = environ.get("HOME", "")
    if not os.path.isabs(home):
        raise StartError(f"neither {name} nor HOME is set: say where to keep the data")
    return Path(home) / below_home


def _is_private(path: Path, uid: int) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return found.st_uid == uid and stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o022
