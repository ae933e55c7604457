"""The ports of this machine that tasks are given to answer on, where their services publish ports in ingress mode.

All tasks of a node share its ports, so each gets one of its own for every target that its service publishes, the same
for TCP and UDP: the target port itself if nobody has it, else any free one, and never a number that its service
publishes, for there its node listens itself. The task finds the number in ``SWARMLET_PORT_<TARGET>`` (and, if
there is only one and its service says nothing else, in ``PORT``); connections come from the nodes that publish.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Container, Iterable, Mapping, Sequence

Given = Mapping[int, int]


class TaskPorts:
    """Which task has which port. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owners: dict[int, str] = {}

    def assign(self, task_id: str, targets: Iterable[int], published: Container[int] = ()) -> dict[int, int]:
        """A port for each target, none of them ``published``; OSError if this machine has none left."""
        with self._lock:
            given: dict[int, int] = {}
            for target in dict.fromkeys(targets):
                given[target] = self._pick(target, published)
                self._owners[given[target]] = task_id
            return given

    def restore(self, task_id: str, ports: Iterable[int]) -> None:
        """A task that runs already has these."""
        with self._lock:
            self._owners.update(dict.fromkeys(ports, task_id))

    def release(self, task_id: str) -> None:
        """The task has ended."""
        with self._lock:
            self._owners = {port: owner for port, owner in self._owners.items() if owner != task_id}

    def _pick(self, target: int, published: Container[int]) -> int:
        if target not in self._owners and target not in published and _bound(target):
            return target
        refused = 0
        while refused < 100:
            port = _bound(0)
            if port and port not in self._owners and port not in published:
                return port
            refused += 1
        raise OSError(98, "no port is free", "")


def _bound(port: int) -> int:
    """The port that could be bound for TCP and for UDP (any for 0), or 0 if that could not."""
    with socket.socket() as probe, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            found = int(probe.getsockname()[1])
            datagrams.bind(("", found))
        except OSError:
            return 0
        return found


def environment(given: Given, present: Mapping[str, str]) -> dict[str, str]:
    """What a task is told of its ports."""
    env = {f"SWARMLET_PORT_{target}": str(port) for target, port in given.items()}
    if len(given) == 1 and "PORT" not in present:
        env["PORT"] = str(next(iter(given.values())))
    return env


def as_record(given: Given) -> list[list[int]]:
    """In the form in which the keeper keeps it."""
    return [[target, port] for target, port in given.items()]


def from_record(pairs: Sequence[Sequence[int]]) -> dict[int, int]:
    """What the keeper kept."""
    return {int(target): int(port) for target, port in pairs}
