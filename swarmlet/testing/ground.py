"""What a TestCluster stands on: either machines in memory under virtual time, or processes on real sockets.

Nodes go by name (``manager-1``, ``worker-2``). What a ground cannot do honestly it refuses in a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from runtime.wire.pb import objects_pb2
from swarmlet.testing.api import Api
from swarmlet.testing.trace import Trace


class Refusal(NotImplementedError):
    """This ground cannot do that."""


class Ground(Protocol):
    """The verbs that differ between virtual and real time. ``remembered`` says what ``last_lines`` are."""

    remembered: str

    @property
    def names(self) -> Sequence[str]:
        """All nodes, in the order in which they join."""

    def start(self) -> None:
        """Brings the nodes up, without a swarm."""

    def close(self) -> None:
        """Takes everything down."""

    def time(self) -> float:
        """Seconds since the start."""

    def advance(self, seconds: float) -> None:
        """Lets time pass."""

    def run_until(self, condition: Callable[[], bool], within: float) -> None:
        """Lets time pass until ``condition()``; fails after ``within`` seconds."""

    def ask(self, node: str, message: Any, within: float) -> Any:
        """Asks a node's cluster actor."""

    def init_message(self, node: str) -> Any:
        """What founds a swarm with this node."""

    def join_message(self, node: str, manager: str, token: str) -> Any:
        """What has this node join."""

    def api(self, node: str) -> Api:
        """The node's Engine API."""

    def up(self, node: str) -> bool:
        """Whether the node's daemon runs."""

    def leads(self, node: str) -> int:
        """The term in which this node believes to lead; 0 if it does not."""

    def stop(self, node: str) -> None:
        """Ends the daemon cleanly; its tasks run on."""

    def start_again(self, node: str) -> None:
        """Starts the daemon again over what it left on its disk."""

    def crash(self, node: str, power: bool) -> None:
        """The daemon is gone at once, its tasks run on; with ``power`` the machine lost its power."""

    def pause(self, node: str, seconds: float) -> None:
        """Holds the daemon still."""

    def crash_actor(self, node: str, path: str) -> None:
        """Fails one actor."""

    def kill_task(self, node: str, task: objects_pb2.Task) -> None:
        """Ends the process of a task that runs there, from outside. AssertionError if there is none."""

    def cut(self, source: str, target: str) -> None:
        """What ``source`` sends to ``target`` does not arrive."""

    def heal(self) -> None:
        """Mends the network and the disks."""

    def disk_full(self, node: str) -> None:
        """Writes to the node's disk fail."""

    def skew(self, node: str, seconds: float) -> None:
        """Moves the node's time of day."""

    def trace(self, paths: str, types: str, limit: int, follow: bool) -> Trace:
        """Sees deliveries from now on."""

    def last_lines(self) -> Sequence[str]:
        """What came last before now: messages that were delivered, or what the nodes logged."""

    @property
    def events(self) -> Sequence[tuple[float, str]]:
        """Leaders and failed actors, each with its time."""
