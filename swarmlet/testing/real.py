"""The ground of a TestCluster over real sockets and processes: each node is a process of its own, with TLS, LevelDB and
tasks that are processes. Times are the machine's.

A node listens at 127.0.0.N, dials from there, and is reached by others at 127.0.1.N, where ``Links`` forwards to it.
A crash is SIGKILL, a pause SIGSTOP, a full disk a limit on the size of files, another time of day is added to what the
node reads from this machine's clock. What cannot be had for real is refused in a sentence: a power cut (this machine's
memory keeps what was not synced, and nobody can take it away from one process).
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runtime.executor.keeper import SOCKET as KEEPER_SOCKET
from runtime.protocol.cluster import Init, Join
from runtime.wire.pb import objects_pb2
from runtime.wire.private_directory import for_sockets
from swarmlet import places, requests
from swarmlet.testing.api import Api, OverSocket
from swarmlet.testing.ground import Refusal
from swarmlet.testing.links import Links
from swarmlet.testing.machine import receive, send
from swarmlet.testing.trace import SocketTrace, Trace

POLL_S = 0.05
START_S = 60.0
STOP_S = 60.0
LOOK_S = 1.0
LOG_LINES = 100


class Process:
    """One node: what lasts of it, and the process that it is in, if any. ``events`` are (monotonic time, text)."""

    def __init__(self, name: str, top: Path, address: str, shown: str, port: int) -> None:
        self.name, self.address, self.listen, self.shown = name, address, f"{address}:{port}", f"{shown}:{port}"
        self._top = top
        self._run = top / "run"
        self.process: subprocess.Popen[bytes] | None = None
        self.full = False
        self.skew = 0.0
        self.held_until = 0.0
        self.events: list[tuple[float, str]] = []
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self._ready = threading.Event()

    # Life

    def spawn(self) -> None:
        """Starts the process; ``wait_ready`` says when it can be asked."""
        settings = {
            "state": str(self._top / "state"),
            "run": str(self._run),
            "name": self.name,
            "listen": self.listen,
            "advertise": self.shown,
            "dial_from": self.address,
            "skew": self.skew,
        }
        self._run.mkdir(parents=True, exist_ok=True)
        self._ready.clear()
        process = self.process = subprocess.Popen(  # noqa: S603 - this interpreter, our own module
            [sys.executable, "-m", "swarmlet.testing.machine", json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(self._top)},
        )
        for pipe, heard in ((process.stdout, self._told), (process.stderr, self._logged)):
            threading.Thread(target=_read_lines, args=(pipe, heard), daemon=True).start()
        if self.full:
            self.limit_files(True)

    def _told(self, line: str) -> None:
        at, _, text = line.partition(" ")
        if text == "ready":
            self._ready.set()
        else:
            # an actor's path, what the node says, or the node itself
            where = f"{self.name}:" if text.startswith("/") else self.name if text.startswith(":") else f"{self.name} "
            self.events.append((float(at), f"{where}{text}"))
            if not text.startswith(":"):  # which is in the log already
                self._logged(text)

    def _logged(self, line: str) -> None:
        self.log.append(f"{self.name}: {line}")

    def wait_ready(self) -> None:
        """AssertionError with the end of its log if it does not come up."""
        deadline = time.monotonic() + START_S
        while not self._ready.wait(POLL_S):
            if not self.up or time.monotonic() >= deadline:
                raise AssertionError("\n".join([f"{self.name} does not start:", *list(self.log)[-5:]]))

    @property
    def up(self) -> bool:
        """Whether its process is there; one that is held still is."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL, and its end is waited for. Its tasks go on."""
        if self.process is not None:
            self.process.kill()
            self._reap()

    def stop(self) -> None:
        """A clean end; its tasks go on."""
        self.question(STOP_S, "stop")
        assert self.process is not None
        self.process.wait(STOP_S)
        self._reap()

    def _reap(self) -> None:
        process, self.process = self.process, None
        assert process is not None
        assert process.stdin is not None
        process.wait()
        process.stdin.close()
        self.held_until = 0.0

    def end_tasks(self) -> None:
        """Ends the tasks that are left, and who keeps them."""
        pid = self.keeper
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        while self.keeper is not None:
            if time.monotonic() >= deadline:
                raise AssertionError(f"the tasks of {self.name} do not end")
            time.sleep(POLL_S)

    @property
    def keeper(self) -> int | None:
        """The process that keeps its tasks."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(self._run / KEEPER_SOCKET))
            except OSError:
                return None
            return int(struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])

    # Faults

    def hold(self, seconds: float) -> None:
        """Holds the process still; of two pauses the longer counts."""
        assert self.process is not None, f"{self.name} is down"
        process, until = self.process, time.monotonic() + seconds
        self.held_until = max(self.held_until, until)
        process.send_signal(signal.SIGSTOP)
        timer = threading.Timer(seconds, self._let_go, (process,))
        timer.daemon = True
        timer.start()

    def _let_go(self, process: subprocess.Popen[bytes]) -> None:
        if process is self.process and time.monotonic() >= self.held_until - POLL_S / 2:
            process.send_signal(signal.SIGCONT)

    def limit_files(self, full: bool) -> None:
        """Has each write to a file fail (EFBIG), or no more. Sockets and pipes are not touched."""
        self.full = full
        for pid in (self.process.pid if self.process is not None else None, self.keeper if not full else None):
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0 if full else hard, hard))

    def move_clock(self, seconds: float) -> None:
        """Moves its time of day, which goes on so in its next lives."""
        self.skew += seconds
        if self.up:
            self.question(START_S, "skew", self.skew)

    # Questions

    @property
    def api_socket(self) -> str:
        """Where its Engine API is."""
        return str(self._run / places.API_SOCKET)

    @property
    def introspection_socket(self) -> str:
        """Where it can be looked into."""
        return str(self._run / places.INTROSPECTION_SOCKET)

    def question(self, within: float, *what: Any) -> Any:
        """Asks the process. TimeoutError; AssertionError if it is down; Refused as it was refused."""
        if not self.up:
            raise AssertionError(f"{self.name} is down")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(within)
            connection.connect(str(self._run / "questions.sock"))
            send(connection, list(what))
            answer = receive(connection)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, tuple) and answer[:1] == ("late",):
            raise TimeoutError(answer[1])
        return answer


class RealGround:
    """A process for each name, and the links between them."""

    remembered = "lines of the nodes"

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._began = time.monotonic()
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._processes: dict[str, Process] = {}
        self._links = Links()

    def start(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="swarmlet-", dir=for_sockets())
        self._links.start()
        for number, name in enumerate(self.names, 2):
            address, shown = f"127.0.0.{number}", f"127.0.1.{number}"
            top = Path(self._directory.name) / str(number)
            self._processes[name] = Process(name, top, address, shown, self._links.front(shown, address))
        for process in self._processes.values():
            process.spawn()
        for process in self._processes.values():
            process.wait_ready()

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.end_tasks()
        self._links.close()
        directory, self._directory = self._directory, None
        if directory is not None:
            directory.cleanup()

    def time(self) -> float:
        return time.monotonic() - self._began

    def advance(self, seconds: float) -> None:
        time.sleep(seconds)

    def run_until(self, condition: Callable[[], bool], within: float) -> None:
        deadline = time.monotonic() + within
        while not condition():
            if time.monotonic() >= deadline:
                raise AssertionError(f"it did not come true within {within:g} s")
            time.sleep(POLL_S)

    def ask(self, node: str, message: Any, within: float) -> Any:
        try:
            return self._process(node).question(within, "ask", message, within)
        except TypeError as error:
            raise Refusal(str(error)) from None

    def init_message(self, node: str) -> Any:
        process = self._process(node)
        return Init(requests.init_request(process.listen, process.shown, "", "active"))

    def join_message(self, node: str, manager: str, token: str) -> Any:
        process = self._process(node)
        remote = (self._process(manager).shown,)
        return Join(requests.join_request(process.listen, process.shown, remote, token, "active"))

    def api(self, node: str) -> Api:
        return Api(OverSocket(self._process(node).api_socket))

    def up(self, node: str) -> bool:
        return self._process(node).up

    def leads(self, node: str) -> int:
        try:
            return int(self._process(node).question(LOOK_S, "leads"))
        except (OSError, EOFError):
            return 0  # it is held still, or going just now

    def stop(self, node: str) -> None:
        self._process(node).stop()

    def start_again(self, node: str) -> None:
        process = self._process(node)
        process.spawn()
        process.wait_ready()

    def crash(self, node: str, power: bool) -> None:
        if power:
            raise Refusal("this machine's memory keeps what was not synced: power is only cut under virtual time")
        self._process(node).kill()

    def pause(self, node: str, seconds: float) -> None:
        self._process(node).hold(seconds)

    def crash_actor(self, node: str, path: str) -> None:
        if not self._process(node).question(START_S, "fail", path):
            raise AssertionError(f"nobody lives at {path} on {node}")

    def kill_task(self, node: str, task: objects_pb2.Task) -> None:
        pid = task.status.container.pid
        with contextlib.suppress(ProcessLookupError):
            if pid > 1:  # 0 would be this process and its group
                os.kill(pid, signal.SIGKILL)
                return
        raise AssertionError(f"task {task.id} has no process on {node}")

    def cut(self, source: str, target: str) -> None:
        self._links.cut(self._process(source).address, self._process(target).address)

    def heal(self) -> None:
        self._links.heal()
        for process in self._processes.values():
            if process.full:
                process.limit_files(False)

    def disk_full(self, node: str) -> None:
        self._process(node).limit_files(True)

    def skew(self, node: str, seconds: float) -> None:
        self._process(node).move_clock(seconds)

    def trace(self, paths: str, types: str, limit: int, follow: bool) -> Trace:
        up = {process.name: process.introspection_socket for process in self._processes.values() if process.up}
        return SocketTrace(up, paths, types, limit, lambda at: at - self._began, follow)

    def last_lines(self) -> Sequence[str]:
        return [line for process in self._processes.values() for line in list(process.log)]

    @property
    def events(self) -> Sequence[tuple[float, str]]:
        return [(at - self._began, text) for process in self._processes.values() for at, text in process.events]

    def _process(self, name: str) -> Process:
        if name not in self._processes:
            raise AssertionError(f"there is no node {name!r}: {', '.join(self._processes)}")
        return self._processes[name]


def _read_lines(pipe: Any, heard: Callable[[str], None]) -> None:
    with pipe:
        for line in pipe:
            heard(line.decode("utf-8", "replace").rstrip())
