"""The ground of a TestCluster over real sockets and processes: nodes of this process, each on an address 127.0.0.x.

Their state lies in a temporary directory. What only a simulation can do (cut links, kill, hold still, fill a disk, move
a clock) is refused here: these nodes share a process and a machine with the test.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from actors.manager_actor import ManagerActor
from runtime.protocol import cluster as say
from runtime.wire.pb import control_pb2
from swarmlet import requests
from swarmlet.node import Node
from swarmlet.testing.api import Api, OverSocket
from swarmlet.testing.ground import Refusal

POLL_S = 0.05


class RealGround:
    """One ``swarmlet.Node`` for each name. Times are the machine's."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._began = time.monotonic()
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._nodes: dict[str, Node] = {}

    def start(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="swarmlet-")
        top = Path(self._directory.name)
        for number, name in enumerate(self.names, 2):
            node = Node(
                top / name / "state", listen=f"127.0.0.{number}:0", name=name, hostname=name, run_dir=top / name / "run"
            )
            self._nodes[name] = node
            node.start()

    def close(self) -> None:
        for name in reversed(self._nodes):
            self._nodes[name].stop()
        self._nodes.clear()
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
        return self._node(node).ask(message, within)

    def init_message(self, node: str) -> Any:
        listen = self._node(node).listen
        return say.Init(requests.init_request(listen, "", "", "active"))

    def join_message(self, node: str, manager: str, token: str) -> Any:
        nodes = (
            self._node(manager)
            .control("ListNodes", control_pb2.ListNodesRequest(), control_pb2.ListNodesResponse)
            .nodes
        )
        remote = next(each.manager_status.addr for each in nodes if each.manager_status.leader)
        return say.Join(requests.join_request(self._node(node).listen, "", (remote,), token, "active"))

    def api(self, node: str) -> Api:
        return Api(OverSocket(self._node(node).api_socket))

    def up(self, node: str) -> bool:
        return self._node(node).running

    def leads(self, node: str) -> int:
        cell = self._node(node).stage.cells.get("/cluster/node/manager")
        manager = cell.instance if cell is not None else None
        status = manager.status if isinstance(manager, ManagerActor) else None
        return status.term if status is not None and status.leading else 0

    def stop(self, node: str) -> None:
        self._node(node).stop(tasks="keep")

    def start_again(self, node: str) -> None:
        self._node(node).start()

    def crash(self, node: str, power: bool) -> NoReturn:
        raise Refusal(f"{node} runs in the test's own process and cannot be killed: stop() and restart() it")

    def pause(self, node: str, seconds: float) -> NoReturn:
        raise Refusal(f"{node} runs in the test's own process and cannot be held still")

    def crash_actor(self, node: str, path: str) -> None:
        cell = self._node(node).stage.cells.get(path)
        if cell is None:
            raise AssertionError(f"nobody lives at {path} on {node}")
        found = cell
        found.control(lambda: found.failed(RuntimeError("failed by a test"), None))

    def cut(self, source: str, target: str) -> NoReturn:
        raise Refusal("links over loopback cannot be cut: partitions need virtual time")

    def heal(self) -> None:
        """There is nothing to mend: what could be broken is refused."""

    def disk_full(self, node: str) -> NoReturn:
        raise Refusal(f"the disk under {node} is this machine's own: it is only filled under virtual time")

    def skew(self, node: str, seconds: float) -> NoReturn:
        raise Refusal(f"the clock of {node} is this machine's own: it is only moved under virtual time")

    def last_deliveries(self) -> Sequence[str]:
        return ()

    def _node(self, name: str) -> Node:
        if name not in self._nodes:
            raise AssertionError(f"there is no node {name!r}: {', '.join(self._nodes)}")
        return self._nodes[name]
