"""The Watch service over both transports."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from runtime.errors import Code
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.port import Call
from runtime.wire.services import path
from runtime.wire.to_actor import to_actor
from tests.messages.test_watch_actor import EMPTY, Bench, request
from tests.unit.wire.authority import authority
from tests.unit.wire.worlds import MemoryWorld, Outcome, SocketWorld, World

WATCH = path("Watch", "Watch")


class Served:
    """A store under virtual time behind a server of the world: calls are handed over while the test waits."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.bench = Bench()
        self._came: list[Call] = []
        self.server = world.serve({WATCH: self._came.append})
        self.channel = world.connect(self.server, authority().manager("m2"))

    def stream(self, **how: int) -> tuple[Outcome, Callable[[], None]]:
        outcome = Outcome()
        asked = request("node", since=how.get("since"))
        cancel = self.channel.stream(WATCH, asked, on_item=outcome.item, on_end=outcome.done)
        return outcome, cancel

    def wait(self, condition: Callable[[], bool]) -> None:
        self.world.wait(lambda: self._pump() or condition())

    def _pump(self) -> bool:
        while self._came:
            to_actor(self.bench.actor)(self._came.pop(0))
        self.bench.simulator.settle()
        return False


@pytest.fixture(params=["memory", "sockets"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    world: World = MemoryWorld() if request.param == "memory" else SocketWorld()
    yield Served(world)
    world.close()


def test_a_stream_is_told_what_happens_and_goes_on_behind_what_it_has_seen(served: Served) -> None:
    first, cancel = served.stream()
    served.wait(lambda: first.items == [EMPTY])
    for number in range(1, 4):
        served.bench.create(objects.Node(id=f"n{number}"))
    served.wait(lambda: len(first.items) == 4)
    cancel()
    served.wait(lambda: first.over and served.bench.streams == 0)
    served.bench.create(objects.Node(id="n4"))
    again, _ = served.stream(since=first.items[2].version.index)
    served.wait(lambda: len(again.items) == 3)
    assert [item.events[0].object.node.id for item in again.items[1:]] == ["n3", "n4"]
    assert again.items[1] == first.items[3]


def test_a_worker_may_not_watch(served: Served) -> None:
    outcome = Outcome()
    channel = served.world.connect(served.server, authority().worker())
    channel.stream(WATCH, request("secret"), on_item=outcome.item, on_end=outcome.done)
    served.wait(lambda: outcome.over)
    assert outcome.result.code is Code.PERMISSION_DENIED
    assert outcome.items == []
