"""``swarmlet exec``: a command beside a task, wherever in the swarm it is, for machines without docker's command line.

Rules it owns: a task is named by its id, its name, ``SERVICE.SLOT``, or the id of its container; the exit code is the
command's; a terminal is what it was before, however this ends. What was typed goes out as it comes, what is said is
read as fast as whoever reads us takes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, Final

from swarmlet import engine_link
from swarmlet.engine_link import Engine, Refused, quoted
from swarmlet.errors import EXIT_FAILED, StartError
from swarmlet.operator_options import OperatorOptions

READ_BYTES: Final = 32 << 10
STDERR: Final = 2
NO_END: Final = "-i without -t needs a unix socket: over TLS the end of the input cannot be told"
NO_TERMINAL: Final = "-t with -i needs a terminal as its input"
_HEAD: Final = struct.Struct(">B3xI")


def execute(engine: Engine, asked: OperatorOptions, say: Callable[[str], None]) -> int:
    """Runs the command and returns its exit code."""
    typed = asked.typed
    given = typed["interactive"]
    if given and typed["tty"] and not sys.stdin.isatty():
        raise StartError(NO_TERMINAL)
    if given and not typed["tty"] and asked.where.host:
        raise StartError(NO_END)
    container = container_of(engine, typed["task"])
    made = engine.post(f"/containers/{quoted(container)}/exec", body_of(typed))["Id"]
    start = {"Detach": False, "Tty": typed["tty"]}
    with contextlib.ExitStack() as stack:
        link, said = stack.enter_context(engine_link.upgraded(asked.where, f"/exec/{made}/start", start))
        if typed["tty"]:
            stack.enter_context(sizes(engine, made))
        if given and typed["tty"]:
            stack.enter_context(raw_terminal())
        if given:
            threading.Thread(target=give, args=(sys.stdin.fileno(), link), daemon=True).start()
        take(said, typed["tty"], sys.stdout.buffer, sys.stderr.buffer)
    code = engine.get(f"/exec/{made}/json")["ExitCode"]
    return EXIT_FAILED if code is None else int(code)


def container_of(engine: Engine, name: str) -> str:
    """The container that is meant; the bare id of a task leads to it too. Refused, StartError."""
    try:
        return str(engine.get(f"/containers/{quoted(name)}/json")["Id"])
    except Refused as refused:
        if refused.status != 404:
            raise
        absent = refused
    try:
        task = engine.get(f"/tasks/{quoted(name)}")
    except Refused:
        raise absent from None
    found = (task["Status"].get("ContainerStatus") or {}).get("ContainerID")
    if not found:
        raise StartError(f"task {name} is {task['Status'].get('State', 'unknown')}: nothing runs beside it yet")
    return str(found)


def body_of(typed: Mapping[str, Any]) -> dict[str, Any]:
    """What the daemon is asked for."""
    size = shutil.get_terminal_size()
    return {
        "Cmd": typed["words"],
        "AttachStdin": typed["interactive"],
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": typed["tty"],
        "User": typed["user"],
        "WorkingDir": typed["workdir"],
        "Env": typed["env"],
        **({"ConsoleSize": [size.lines, size.columns]} if typed["tty"] else {}),
    }


def give(source: int, link: socket.socket) -> None:
    """All that is typed, and its end."""
    with contextlib.suppress(OSError):  # the command has ended, which whoever reads it sees
        while data := os.read(source, READ_BYTES):
            link.sendall(data)
        link.shutdown(socket.SHUT_WR)


def take(said: IO[bytes], terminal: bool, out: IO[bytes], err: IO[bytes]) -> None:
    """All that the command says, each stream where it belongs. StartError if it breaks off within a frame."""
    while True:
        to = out
        if terminal:
            data = said.read1(READ_BYTES)  # type: ignore[attr-defined]
        else:
            head = said.read(_HEAD.size)
            if not head:
                return
            stream, length = _HEAD.unpack(head.ljust(_HEAD.size, b"\0"))
            to, data = err if stream == STDERR else out, said.read(length)
            if len(head) < _HEAD.size or len(data) < length:
                raise StartError("the connection to the daemon was lost")
        if terminal and not data:
            return
        to.write(data)
        to.flush()


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    """Keys go to the command as they are pressed."""
    source = sys.stdin.fileno()
    before = termios.tcgetattr(source)
    tty.setraw(source)
    try:
        yield
    finally:
        termios.tcsetattr(source, termios.TCSADRAIN, before)


@contextlib.contextmanager
def sizes(engine: Engine, made: str) -> Iterator[None]:
    """Tells the command's terminal of each new size of ours."""
    changed, over = threading.Event(), threading.Event()

    def tell() -> None:
        while changed.wait() and not over.is_set():
            changed.clear()
            size = shutil.get_terminal_size()
            with contextlib.suppress(Refused, StartError):  # it has ended
                engine.post(f"/exec/{made}/resize", None, h=size.lines, w=size.columns)

    before = signal.signal(signal.SIGWINCH, lambda number, frame: changed.set())
    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
        over.set()
        changed.set()
