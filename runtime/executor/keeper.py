"""The keeper: one small process a node that starts, reaps and logs the node's tasks, and outlives the daemon.

``python -m runtime.executor.keeper DIRECTORY RUN_DIRECTORY STATUS_FD``. It detaches itself (own session, so that an
interrupt from a terminal misses it; subreaper, so that what tasks leave behind comes to it), locks its directory,
puts an end to what an earlier keeper that died has left, and listens on ``keeper.sock`` in the run directory.

Rules owned here:
1. One keeper a directory, held by a lock that lasts as long as it lives.
2. Only our own user (or root) is answered, and only after a ``hello`` of the same version about the same directory.
3. When the last client is gone, tasks go on for as long as clients said (``linger`` seconds; None is without limit).
4. With no client and no task it ends at once. SIGTERM stops all tasks first.
Standard library and msgpack only: it must start in no time and stay small.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import resource
import signal
import socket
import struct
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

from runtime.executor import procfs, spawn
from runtime.executor.cgroups import Cgroups, detect
from runtime.executor.frames import VERSION, BrokenFrame, Decoder, encode
from runtime.executor.journal import Journal, Record
from runtime.executor.keeper_commands import Command
from runtime.executor.keeper_output import GrowthWaiter
from runtime.executor.keeper_tasks import Refusal, Tasks
from runtime.executor.reactor import Reactor, Timer

SOCKET, LOCK, JOURNAL, LOGS = "keeper.sock", "keeper.lock", "journal", "logs"
IDLE = 0.1
FDS_MAX = 3
KNOWS_NO = "this keeper knows no"
FIRST_CLIENT = 10.0
LOCK_WAIT = 15.0
SURVIVORS_WAIT = 5.0
OUTGOING_MAX = 64 << 20
_TASK_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")
LOST_WITH_KEEPER = "exit code unknown: the task's keeper ended before it"
LOST_WITH_BOOT = "exit code unknown: the machine was restarted"


class Connection:
    """One client."""

    def __init__(self, keeper: Keeper, peer: socket.socket) -> None:
        self._keeper = keeper
        self._socket = peer
        self._decoder = Decoder()
        self._out = bytearray()
        self.greeted = False
        self.open = True
        self.waiting: dict[int, tuple[str, Callable[[Any], None], GrowthWaiter | None]] = {}
        self.fds: list[int] = []
        self.commands: dict[int, Command] = {}
        keeper.reactor.watch(peer.fileno(), self._ready)

    def answer(self, number: int, result: Any) -> None:
        """Answers a call; nothing if the client is gone."""
        self.waiting.pop(number, None)
        if not self.open:
            return
        if isinstance(result, Refusal):
            self._out += encode([number, False, {"code": result.code, "text": result.text}])
        else:
            self._out += encode([number, True, result])
        self._flush()

    def close(self) -> None:
        """Forgets the client and what it waited for."""
        if not self.open:
            return
        self.open = False
        self._keeper.reactor.forget(self._socket.fileno())
        self._socket.close()
        for task_id, reply, waiter in self.waiting.values():
            self._keeper.tasks.cancel(task_id, reply, waiter)
        for command in self.commands.values():
            command.kill()
        self.drop_fds()
        self._keeper.left(self)

    def drop_fds(self) -> None:
        """Closes the descriptors that came along and that nobody took."""
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()

    def _ready(self) -> None:
        self._flush()
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, 256 << 10, FDS_MAX, socket.MSG_CMSG_CLOEXEC)
            self.fds += fds
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        try:
            for number, method, arguments in self._decoder.feed(data):
                self._keeper.call(self, number, method, arguments)
        except (BrokenFrame, ValueError, TypeError, LookupError) as error:
            complain(f"a client that sent nonsense is closed: {error!r}")
            self.close()

    def _flush(self) -> None:
        try:
            if self._out and self.open:
                del self._out[: self._socket.send(self._out)]
        except (BlockingIOError, InterruptedError):
            pass  # the loop calls again when there is room
        except OSError:
            self.close()
            return
        if not self.open:
            return
        if len(self._out) > OUTGOING_MAX:
            complain("a client that does not read is closed")
            self.close()
            return
        self._keeper.reactor.watch_both(self._socket.fileno(), self._ready, writing=bool(self._out))


class Keeper:
    """The process's whole state; ``run`` returns when it is of no more use."""

    def __init__(self, directory: str, run_dir: str) -> None:
        self.directory = os.path.realpath(directory)
        self.socket_path = os.path.join(run_dir, SOCKET)
        os.makedirs(directory, 0o700, exist_ok=True)
        os.makedirs(run_dir, 0o700, exist_ok=True)
        self._lock = _lock(os.path.join(directory, LOCK))
        self.boot = procfs.boot_id()
        self.cgroups = detect(f"{zlib.crc32(self.directory.encode()):08x}")
        self.journal = Journal(os.path.join(directory, JOURNAL))
        bury(self.journal, self.boot, self.cgroups)
        self.reactor = Reactor(self._turn_ended)
        logs = os.path.join(directory, LOGS)
        self.tasks = Tasks(self.reactor, self.journal, logs, self.cgroups, self.boot, raise_nofile())
        self._connections: list[Connection] = []
        self._linger: float | None = None
        self._ending = False
        self._timer: Timer | None = self.reactor.after(FIRST_CLIENT, self._idle)
        self._stoppers: list[Callable[[Any], None]] = []
        self._methods: dict[str, Callable[[Connection, int, dict[str, Any]], None]] = {
            "start": self._start,
            "stop": self._stop,
            "stop_all": self._stop_all,
            "wait": self._wait,
            "remove": self._remove,
            "grown": self._grown,
            "written": self._written,
            "cancel": self._cancel,
            "probe": self._probe,
            "signal": self._signal,
            "run": self._run_command,
            "ended": self._command_ended,
            "record": self._record,
        }
        self._listener = self._listen()
        write_place(self._lock, os.getpid(), self.socket_path)

    def run(self) -> None:
        """Until there is nothing more to keep."""
        self.reactor.on_signal(signal.SIGCHLD, self.tasks.reap)
        self.reactor.on_signal(signal.SIGTERM, self._terminated)
        for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)
        self.reactor.run()
        self.tasks.kill_strays(everything=True)
        self.cgroups.close()
        self.journal.close()

    def call(self, connection: Connection, number: int, method: str, arguments: dict[str, Any]) -> None:
        """One call of a client."""
        try:
            if method == "hello":
                self._hello(connection, number, arguments)
            elif not connection.greeted:
                raise Refusal("invalid", "the first call has to be hello")
            elif method not in self._methods:
                raise Refusal("unknown", f"{KNOWS_NO} {method}")
            else:
                self._methods[method](connection, number, arguments)
        except Refusal as refusal:
            connection.answer(number, refusal)

    def left(self, connection: Connection) -> None:
        """A client is gone."""
        self._connections.remove(connection)
        if connection.greeted and not any(other.greeted for other in self._connections) and self._linger is not None:
            self._restart_timer(self._linger, self.tasks.stop_all)

    # Calls

    def _hello(self, connection: Connection, number: int, arguments: dict[str, Any]) -> None:
        if arguments["version"] != VERSION:
            raise Refusal("version", f"this keeper speaks version {VERSION}, not {arguments['version']}")
        if arguments["directory"] != self.directory:
            raise Refusal("invalid", f"this keeper keeps {self.directory}")
        connection.greeted = True
        self._linger = arguments["linger"]
        self._restart_timer(None, None)
        self.journal.ensure_there()
        told = {"pid": os.getpid(), "boot": self.boot, "limits": self.cgroups.reason, "records": self._all()}
        connection.answer(number, told)

    def _start(self, connection: Connection, number: int, arguments: dict[str, Any]) -> None:
        spec = arguments["spec"]
        if not _TASK_ID.fullmatch(spec["id"]):
            raise Refusal("invalid", "a task id of other characters")
        if self._ending:
            raise Refusal("temporary", "the keeper is ending")
        self.tasks.start(spec, lambda result: connection.answer(number, result))

    def _stop(self, connection: Connection, number: int, arguments: dict[str, Any]) -> None:
        reply = self._deferred(connection, number, arguments["id"])
        self.tasks.stop(arguments["id"], arguments["signal"], arguments["grace"], reply)

    def _stop_all(self, connection: Connection, number: int, arguments: dict[str, Any]) -> None:
        self._stoppers.append(lambda result: connection.answer(number, result))
        self.tasks.stop_all()

    def _wait(self, connection: Connection, number: int, arguments: dict[str, Any]) -> None:
        self.tasks.wait(arguments["id"], self._deferred(connection, number, arguments["id"]))

    def _remove(self, connection: Connection, number: int, arguments: dict[str, Any]) -> None:
        if not _TASK_ID.fullmatch(arguments["id"]):
            raise Refusal("invalid", "a task id of other characters")
        self.tasks.remove(arguments["id"], lambda result: connection.answer(number, result))

    def _grown(self, connection: Connection, number: int, arguments: dict[str, Any]) -> None:
        position = arguments["position"]
        waiter = GrowthWaiter((position[0], position[1]), lambda ended: connection.answer(number, ended))
        connection.waiting[number] = (arguments["id"], waiter.reply, waiter)
        self.tasks.grown(arguments["id"], waiter)

    def _written(self, connection: Connection, number: int, arguments: dict[str, Any]) -> None:
        self.tasks.written(arguments["id"])
        connection.answer(number, None)

    def _cancel(self, connection: Connection, number: int, arguments: dict[str, Any]) -> None:
        waiting = connection.waiting.pop(arguments["call"], None)
        if waiting is not None:
            self.tasks.cancel(*waiting)
        connection.answer(number, None)

    def _probe(self, connection: Connection, number: int, arguments: dict[str, Any]) -> None:
        def reply(result: Any) -> None:
            connection.answer(number, result)

        self.tasks.probe(arguments["id"], arguments["argv"], arguments["timeout"], reply)

    def _signal(self, connection: Connection, number: int, arguments: dict[str, Any]) -> None:
        self.tasks.signal(arguments["id"], arguments["signal"])
        connection.answer(number, None)

    def _run_command(self, connection: Connection, number: int, arguments: dict[str, Any]) -> None:
        """A command beside a task, on descriptors that came along. It ends with the connection."""
        fds = [connection.fds[each] for each in arguments["fds"]]

        def begun(result: Any) -> None:
            connection.answer(number, result)

        try:
            command = self.tasks.run(arguments["id"], arguments["spec"], fds, begun)
        finally:
            connection.drop_fds()
        connection.commands[number] = command
        if not connection.open:
            command.kill()

    def _command_ended(self, connection: Connection, number: int, arguments: dict[str, Any]) -> None:
        command = connection.commands.get(arguments["call"])
        if command is None:
            raise Refusal("unknown", f"no command was run by call {arguments['call']}")
        command.when_ended(lambda code: connection.answer(number, code))

    def _record(self, connection: Connection, number: int, arguments: dict[str, Any]) -> None:
        connection.answer(number, self.journal.records.get(arguments["id"]))

    def _all(self) -> list[Record]:
        return [self.journal.records[task_id] for task_id in sorted(self.journal.records)]

    def _deferred(self, connection: Connection, number: int, task_id: str) -> Callable[[Any], None]:
        def reply(result: Any) -> None:
            connection.answer(number, result)

        connection.waiting[number] = (task_id, reply, None)
        return reply

    # Life

    def _listen(self) -> socket.socket:
        if os.path.exists(self.socket_path):
            os.unlink(self.socket_path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        os.umask(0o177)
        listener.bind(self.socket_path)
        os.umask(0o077)
        listener.listen(16)
        listener.setblocking(False)
        self.reactor.watch(listener.fileno(), self._accept)
        return listener

    def _accept(self) -> None:
        try:
            peer, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        peer.setblocking(False)
        _pid, uid, _gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.geteuid()):
            complain(f"user {uid} is not answered")
            peer.close()
            return
        self._connections.append(Connection(self, peer))

    def _turn_ended(self) -> None:
        self.tasks.turn_ended()
        if self.tasks.running:
            return
        stoppers, self._stoppers = self._stoppers, []
        for reply in stoppers:
            reply(None)
        if self._ending and self.tasks.idle:
            self._end()
        elif not self._connections and self.tasks.idle and self._timer is None:
            self._restart_timer(IDLE, self._idle)

    def _idle(self) -> None:
        self._timer = None
        if not self._connections and self.tasks.idle:
            self._end()

    def _terminated(self) -> None:
        self._ending = True
        self.tasks.stop_all()

    def _end(self) -> None:
        # The socket goes first: who comes from here on finds nobody, starts the next keeper, and that one waits for
        # our lock.
        if not self.reactor.stopped and os.path.exists(self.socket_path):
            os.unlink(self.socket_path)
        self.reactor.stopped = True

    def _restart_timer(self, delay: float | None, call: Callable[[], None] | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if delay is not None and call is not None:
            self._timer = self.reactor.after(delay, lambda: self._timed(call))

    def _timed(self, call: Callable[[], None]) -> None:
        self._timer = None
        call()


def bury(journal: Journal, boot: str, cgroups: Cgroups) -> None:
    """Kills what an earlier keeper has left running and writes down that its exit codes are unknown."""
    left = [record for record in journal.records.values() if record["state"] == "running"]
    here = [record for record in left if record["boot"] == boot]
    deadline = time.monotonic() + SURVIVORS_WAIT
    while survivors := _survivors(here, cgroups):
        for pid in survivors:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        if time.monotonic() > deadline:
            complain(f"processes {survivors} of tasks without a keeper do not end")
            break
        time.sleep(0.01)
    for record in left:
        while not cgroups.remove(record["cgroups"]) and time.monotonic() < deadline:
            time.sleep(0.01)  # it takes the kernel a moment
        lost = LOST_WITH_KEEPER if record["boot"] == boot else LOST_WITH_BOOT
        journal.put({**record, "state": "exited", "lost": lost, "ended_ns": time.time_ns()})
    journal.sync()


def _survivors(records: list[Record], cgroups: Cgroups) -> list[int]:
    """The living processes of these tasks: by pid and start time, by control group, by the mark in the environment."""
    if not records:
        return []
    found = {record["pid"] for record in records if procfs.start_time(record["pid"]) == record["start"]}
    for record in records:
        found.update(cgroups.members(record["cgroups"]))
    marked = procfs.marked(frozenset(record["id"] for record in records))
    found.update(pid for pid, _ in marked)
    return sorted(pid for pid in found if procfs.start_time(pid) is not None)


def raise_nofile() -> tuple[int, int]:
    """Takes as many open files as we may; the limit that was, for the tasks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    was = os.environ.get(procfs.OPEN_FILES_MARK, "")
    return int(was) if was.isdigit() else soft, hard


def write_place(lock: int, pid: int, socket_path: str) -> None:
    """Writes into the lock where its holder listens: daemons come back with another run directory, and look here."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{pid} {socket_path}".encode(), 0)


def read_place(directory: str) -> tuple[int, str]:
    """Which process holds a directory, or held it last, and where it listens; (0, "") where nothing says so."""
    try:
        with open(os.path.join(directory, LOCK), "rb") as lock:
            pid, _, path = lock.read(4096).partition(b" ")
    except FileNotFoundError:
        return 0, ""
    return (int(pid), os.fsdecode(path)) if pid.isdigit() and path else (0, "")


def _lock(path: str) -> int:
    """The lock of the directory; BlockingIOError, with who it is, if another keeper holds on to it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_WAIT
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                pid, place = read_place(os.path.dirname(path))
                who = f" (process {pid} at {place})" if pid else ""
                text = f"another keeper has tasks here and cannot be reached{who}"
                raise BlockingIOError(errno.EWOULDBLOCK, text, path) from None
            time.sleep(0.02)
        else:
            return fd


def complain(text: str) -> None:
    """A line for the keeper's own log."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def main(arguments: list[str]) -> int:
    """Detaches, becomes the keeper, says ``ready`` (or what is wrong) through the status descriptor."""
    directory, run_dir, status = arguments[0], arguments[1], int(arguments[2])
    if os.fork() != 0:
        os._exit(0)
    os.umask(0o077)
    os.chdir("/")
    os.set_inheritable(status, False)
    try:
        spawn.prctl(spawn.PR_SET_CHILD_SUBREAPER, 1)
        keeper = Keeper(directory, run_dir)
    except OSError as error:
        os.write(status, f"{error.strerror or error}: {error.filename or directory}".encode())
        return 1
    os.write(status, b"ready")
    os.close(status)
    keeper.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
