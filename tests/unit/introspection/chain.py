"""Three actors that hand a message on, under the simulator, and a trace of them."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.errors import Code, Refused
from runtime.introspection.tracing import Trace, TraceRequest, Tracing
from runtime.stage import Actor, Address, handles
from runtime.stage.simulator import Simulator


@dataclass(frozen=True, slots=True)
class Pass:
    """Hand this on."""

    number: int


@dataclass(frozen=True, slots=True)
class QuietTick:
    """Comes all the time."""


class Link(Actor):
    """Hands on to ``next``; 13 fails it, 12 is refused where it was asked."""

    def __init__(self, next: Address | None) -> None:
        super().__init__()
        self.next = next
        self.seen: list[int] = []

    @handles(Pass)
    def hand_on(self, message: Pass) -> None:
        self.seen.append(message.number)
        if message.number == 13 and self.next is None:
            raise RuntimeError("unlucky")
        if message.number == 12 and self.next is None:
            raise Refused(Code.INVALID_ARGUMENT, "not that one")
        if self.next is not None:
            self.tell(self.next, message)

    @handles(QuietTick)
    def tick(self, message: QuietTick) -> None:
        return None


class Chain:
    def __init__(self) -> None:
        self.simulator = Simulator(1)
        self.stage = self.simulator.node("n1")
        self.last = self.stage.mount("last", Link, None)
        self.middle = self.stage.mount("middle", Link, self.last)
        self.first = self.stage.mount("first", Link, self.middle)
        self.simulator.settle()
        self.tracing = Tracing(self.stage)
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1

    def trace(self, request: TraceRequest) -> Trace:
        return self.tracing.begin(request, self.wake)

    def send(self, *numbers: int) -> None:
        for number in numbers:
            self.first.tell(Pass(number))
        self.simulator.settle()
