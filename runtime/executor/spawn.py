"""One process begun: forked, held until the keeper has written down who it is, then let go into its program.

The child waits for a byte before it does anything. If the keeper dies first, the pipe closes and the child ends, so
there is no moment in which a task runs that the journal does not know. What keeps the child from its program comes
back through a pipe that closes when the program begins. The keeper has one thread, so a plain fork is safe.
Imported by the keeper: standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import struct
import termios
import warnings  # noqa: F401 - else os.execvpe imports it in the child, whose user perhaps may not read Python's files
from collections.abc import Callable
from typing import Any, NoReturn

from runtime.executor import procfs

PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
_ALL = frozenset(range(1, signal.NSIG)) - {signal.SIGKILL, signal.SIGSTOP, 32, 33}
_ERROR = struct.Struct(">BI")
_EXEC, _CHDIR, _USER, _LIMIT = 1, 2, 3, 4
Spec = dict[str, Any]


class Child:
    """A process that waits to be let go. The descriptors are the keeper's ends."""

    __slots__ = ("error_fd", "go_fd", "pid", "start", "stderr_fd", "stdout_fd")

    def __init__(self, pid: int, start: int, go_fd: int, error_fd: int, stdout_fd: int, stderr_fd: int) -> None:
        self.pid = pid
        self.start = start
        self.go_fd = go_fd
        self.error_fd = error_fd
        self.stdout_fd = stdout_fd
        self.stderr_fd = stderr_fd

    def go(self) -> None:
        """Lets it begin its program."""
        try:
            os.write(self.go_fd, b"g")
        except BrokenPipeError:
            pass  # killed before it began: that is seen when it is reaped
        self.abandon()

    def begun(self, forget: Callable[[int], None]) -> bytes | None:
        """What its error pipe says, once: nothing if it closed because the program has begun, else what ``explain``
        explains. None as long as it is silent, and ever after; ``forget`` is told of the pipe when it is over."""
        if self.error_fd < 0:
            return None
        try:
            data = os.read(self.error_fd, 64)
        except BlockingIOError:
            return None
        self.close_errors(forget)
        return data

    def close_errors(self, forget: Callable[[int], None]) -> None:
        """Nobody listens to its error pipe any more."""
        fd, self.error_fd = self.error_fd, -1
        if fd >= 0:
            forget(fd)
            os.close(fd)

    def abandon(self) -> None:
        """Without ``go``: it ends without having begun."""
        fd, self.go_fd = self.go_fd, -1
        if fd >= 0:
            os.close(fd)


def prctl(option: int, value: int) -> None:
    """The system call; OSError if it fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def spawn(spec: Spec, nofile: tuple[int, int]) -> Child:
    """Forks the child of ``spec`` (argv, env, cwd, user, groups, rlimits, oom_score_adj, no_new_privileges, merge).

    With ``fds`` (what its first three descriptors are to be) it has no pipes of ours; with ``tty`` the first of them is
    its terminal. ``nofile``: the limit of open files to give it, for the keeper has raised its own. OSError if there
    are no more processes or descriptors.
    """
    pipes: list[tuple[int, int]] = []
    try:
        for _ in range(2 if "fds" in spec else 3 if spec.get("merge") else 4):
            pipes.append(os.pipe2(os.O_CLOEXEC))
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
        try:
            pid = os.fork()
            if pid == 0:
                _child(spec, nofile, pipes)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    except OSError:
        for pair in pipes:
            os.close(pair[0])
            os.close(pair[1])
        raise
    return _parent(pid, pipes)


def _parent(pid: int, pipes: list[tuple[int, int]]) -> Child:
    go, error = pipes[:2]
    os.close(go[0])
    for _, write in pipes[1:]:
        os.close(write)
    for read, _ in pipes[1:]:
        os.set_blocking(read, False)
    out, err = ([read for read, _ in pipes[2:]] + [-1, -1])[:2]
    return Child(pid, procfs.start_time(pid) or 0, go[1], error[0], out, err)


def _child(spec: Spec, nofile: tuple[int, int], pipes: list[tuple[int, int]]) -> NoReturn:
    stage = _EXEC
    error_fd = pipes[1][1]
    try:
        signal.set_wakeup_fd(-1)
        for number in _ALL:  # also those that whoever started the node had ignored, as a shell does for its `&`
            if signal.getsignal(number) is not signal.SIG_DFL:
                signal.signal(number, signal.SIG_DFL)
        os.setsid()
        os.close(pipes[0][1])
        if os.read(pipes[0][0], 1) != b"g":
            os._exit(125)
        given = spec.get("fds") or (os.open(os.devnull, os.O_RDONLY), pipes[2][1], pipes[-1][1])
        for number, fd in enumerate(given):
            os.dup2(fd, number)
        if spec.get("tty"):
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        stage = _LIMIT
        _limits(spec, nofile)
        stage = _USER
        _become(spec)
        stage = _CHDIR
        os.chdir(spec["cwd"])
        stage = _EXEC
        os.umask(0o022)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvpe(spec["argv"][0], spec["argv"], spec["env"])  # noqa: S606 (that is its purpose)
    except OSError as error:
        os.write(error_fd, _ERROR.pack(stage, error.errno or errno.EINVAL))
    except Exception:  # noqa: BLE001 - an embedded NUL, a limit out of range; what else, nobody but us could say
        os.write(error_fd, _ERROR.pack(stage, errno.EINVAL))
    finally:
        os._exit(127)


def _limits(spec: Spec, nofile: tuple[int, int]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, nofile)
    for name, soft, hard in spec.get("rlimits", ()):
        resource.setrlimit(getattr(resource, name), (soft, hard))
    if spec.get("oom_score_adj"):
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(spec["oom_score_adj"]))


def _become(spec: Spec) -> None:
    """Groups and user; not touched at all when they are the keeper's own."""
    if spec.get("groups") is not None:
        os.setgroups(spec["groups"])
    if spec.get("gid") is not None:
        os.setresgid(spec["gid"], spec["gid"], spec["gid"])
    if spec.get("uid") is not None:
        os.setresuid(spec["uid"], spec["uid"], spec["uid"])
    if spec.get("no_new_privileges"):
        prctl(PR_SET_NO_NEW_PRIVS, 1)


def explain(data: bytes, spec: Spec) -> tuple[str, int]:
    """What a child said through its error pipe: a text, and the exit code that container engines give for it."""
    stage, number = _ERROR.unpack(data[: _ERROR.size])
    why = os.strerror(number).lower()
    program = spec["argv"][0]
    code = {errno.ENOENT: 127, errno.EACCES: 126, errno.ENOTDIR: 126, errno.ENOEXEC: 126}.get(number, 128)
    if stage == _CHDIR:
        return f'chdir to cwd ("{spec["cwd"]}") set in config failed: {why}', code
    if stage == _USER:
        return f"setting user {spec.get('uid')}, group {spec.get('gid')}: {why}", code
    if stage == _LIMIT:
        return f"setting limits: {why}", code
    if number == errno.ENOENT and "/" not in program:
        return f'exec: "{program}": executable file not found in $PATH', 127
    return f'exec: "{program}": {why}', code
