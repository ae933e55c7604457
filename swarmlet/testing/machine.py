"""One node of a real TestCluster, in a process of its own: ``python -m swarmlet.testing.machine SETTINGS``.

It runs until its standard input ends (then its tasks end too) or it is asked to stop (they go on). It answers questions
on a unix socket, one connection each; on standard output it says what happens, a line each, after the machine's
monotonic time; standard error is its log.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from actors.manager_actor import ManagerActor
from runtime.errors import Refused
from runtime.stage import RealClock
from runtime.stage.observe import CrashReport, Moment
from swarmlet.executors import ProcessExecutor
from swarmlet.node import Node
from swarmlet.testing import said

LINGER_S = 600.0  # tasks of a node that is killed go on for so long, if nobody comes back for them
LOOK_S = 0.1
LENGTH = struct.Struct("!I")


def send(connection: socket.socket, value: Any) -> None:
    """One value. TypeError for what cannot cross."""
    data = said.pack(value)
    connection.sendall(LENGTH.pack(len(data)) + data)


def receive(connection: socket.socket) -> Any:
    """The value that was sent. EOFError if the other side is gone, TimeoutError if it says nothing."""
    return said.unpack(_exactly(connection, LENGTH.unpack(_exactly(connection, LENGTH.size))[0]))


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = connection.recv(length - len(data))
        if not piece:
            raise EOFError("the node is gone")
        data += piece
    return data


class SkewedClock(RealClock):
    """The machine's clocks, with a time of day that is ``skew`` seconds off."""

    def __init__(self, skew: float) -> None:
        self.skew = skew

    def now(self) -> float:
        return super().now() + self.skew


class Machine:
    """The node and what it can be asked."""

    def __init__(
        self, state: str, run: str, name: str, listen: str, advertise: str, dial_from: str, skew: float
    ) -> None:
        self.node = Node(
            state,
            listen=listen,
            advertise=advertise,
            name=name,
            hostname=name,
            run_dir=run,
            executor=ProcessExecutor(linger=LINGER_S),
        )
        self.clock = SkewedClock(skew)
        self.node.settings = dataclasses.replace(self.node.settings, dial_from=dial_from, clock=self.clock)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._path = os.path.join(run, "questions.sock")
        self._led = 0
        self._stopping = threading.Event()
        self._questions: dict[str, Callable[..., Any]] = {
            "ask": self.ask,
            "leads": self.leads,
            "fail": self.fail,
            "skew": self.skew,
            "stop": self.stop,
        }

    def run(self) -> None:
        """Until it is asked to stop, or whoever started it is gone."""
        self.node.start()
        self.node.stage.crash_listeners.append(self._crashed)
        self.node.stage.moment_listeners.append(self._happened)
        self._listen()
        self._say("ready")
        threading.Thread(target=self._until_end_of_input, daemon=True).start()
        while not self._stopping.wait(LOOK_S):
            self._watch_leading()

    def _listen(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # a life before this one may have been killed
            os.unlink(self._path)
        self._listener.bind(self._path)
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def _until_end_of_input(self) -> None:
        while os.read(0, 4096):
            continue
        self._end("stop")

    def _end(self, tasks: Literal["stop", "keep"]) -> None:
        self.node.stop(tasks)
        self._stopping.set()

    # What happens

    def _say(self, text: str) -> None:
        line = " ".join(text.split())
        os.write(1, f"{time.monotonic():.6f} {line}\n".encode())

    def _crashed(self, report: CrashReport) -> None:
        self._say(f"{report.path} failed over {report.message}: {report.error}")

    def _happened(self, moment: Moment) -> None:
        if moment.type != "manager":
            self._say(f": {moment.attributes['text']}")

    def _watch_leading(self) -> None:
        term = self.leads() if self.node.running else 0
        if bool(term) != bool(self._led):
            self._say(f"leads in term {term}" if term else f"does not lead any more in term {self._led}")
        self._led = term

    # Questions

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, EOFError):  # whoever asked does not wait any more
            what, *arguments = receive(connection)
            try:
                answer = self._questions[what](*arguments)
            except (Refused, TimeoutError) as error:
                answer = error if isinstance(error, Refused) else ("late", str(error))
            send(connection, answer)

    def ask(self, message: Any, within: float) -> Any:
        """A question to the cluster actor."""
        return self.node.ask(message, within)

    def leads(self) -> int:
        """The term in which this node believes to lead; 0 if it does not."""
        cell = self.node.stage.cells.get("/cluster/node/manager")
        manager = cell.instance if cell is not None else None
        status = manager.status if isinstance(manager, ManagerActor) else None
        return status.term if status is not None and status.leading else 0

    def fail(self, path: str) -> bool:
        """Fails one actor; whether somebody lives there."""
        cell = self.node.stage.cells.get(path)
        if cell is None:
            return False
        found = cell
        found.control(lambda: found.failed(RuntimeError("failed by a test"), None))
        return True

    def skew(self, seconds: float) -> None:
        """The node's time of day is so much off from now on."""
        self.clock.skew = seconds

    def stop(self) -> None:
        """Ends the node cleanly; its tasks go on."""
        self._end("keep")


def main(settings: str) -> None:
    """One node until its end. ``settings`` is JSON: the arguments of Machine."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the test, which ends its nodes
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    arguments = json.loads(settings)
    Path(arguments["run"]).mkdir(parents=True, exist_ok=True)
    Machine(**arguments).run()


if __name__ == "__main__":
    main(sys.argv[1])
