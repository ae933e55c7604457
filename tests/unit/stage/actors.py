"""Actors that the stage's tests use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runtime.errors import Code, Refused
from runtime.stage import Actor, ActorDown, ActorUp, Address, Answer, GiveUp, Policy, Reply, handles


@dataclass(frozen=True, slots=True)
class Add:
    amount: int


@dataclass(frozen=True, slots=True)
class Total:
    pass


@dataclass(frozen=True, slots=True)
class Fail:
    error: BaseException


@dataclass(frozen=True, slots=True)
class Refuse:
    pass


@dataclass(frozen=True, slots=True)
class Later:
    pass


@dataclass(frozen=True, slots=True)
class Release:
    value: Any


@dataclass(frozen=True, slots=True)
class Every:
    period: float


@dataclass(frozen=True, slots=True)
class Tick:
    pass


class Counter(Actor):
    """Adds up, fails, refuses, answers later."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, log: list[str] | None = None) -> None:
        super().__init__()
        self.log = log if log is not None else []
        self.total = 0
        self.kept: list[Reply] = []

    def started(self) -> None:
        self.log.append("started")

    def stopped(self) -> None:
        self.log.append("stopped")

    def crashed(self) -> None:
        self.log.append("crashed")

    def snapshot(self) -> dict[str, Any]:
        return {"total": self.total}

    @handles(Add)
    def add(self, message: Add) -> None:
        self.total += message.amount

    @handles(Total)
    def answer_total(self, message: Total) -> int:
        return self.total

    @handles(Fail)
    def do_fail(self, message: Fail) -> None:
        self.fail(message.error)

    @handles(Refuse)
    def do_refuse(self, message: Refuse) -> None:
        raise Refused(Code.NOT_FOUND, "no such thing")

    @handles(Later)
    def keep(self, message: Later) -> None:
        self.kept.append(self.defer())

    @handles(Release)
    def release(self, message: Release) -> None:
        for reply in self.kept:
            reply.set(message.value)

    @handles(Every)
    def tick_every(self, message: Every) -> None:
        self.every(message.period, Tick())

    @handles(Tick)
    def tick(self, message: Tick) -> None:
        self.total += 1


class Asker(Actor):
    """Passes a question on and keeps what comes of it."""

    def __init__(self, target: Address, answers: list[Answer], timeout: float = 5.0) -> None:
        super().__init__()
        self.target = target
        self.answers = answers
        self.timeout = timeout

    def unhandled(self, message: Any) -> Any:
        self.ask(self.target, message, self.answers.append, self.timeout)


class Watcher(Actor):
    """Keeps what it hears of other actors, in its order."""

    def __init__(self, heard: list[Any], *targets: Address) -> None:
        super().__init__()
        self.targets = targets
        self.heard = heard

    def started(self) -> None:
        for target in self.targets:
            self.watch(target)

    @handles(ActorDown, ActorUp)
    def hear(self, message: Any) -> None:
        self.heard.append(message)


class Mourner(Actor):
    """A parent that fails over each failure of its child."""

    def started(self) -> None:
        self.watch(self.spawn("child", Counter))

    @handles(ActorDown)
    def down(self, message: ActorDown) -> None:
        if message.error is not None:
            self.fail(message.error)

    @handles(ActorUp)
    def up(self, message: ActorUp) -> None:
        """Good."""


class Family(Actor):
    """A parent of Counters, by name."""

    def __init__(self, *names: str, log: list[str] | None = None) -> None:
        super().__init__()
        self.names = names

    def started(self) -> None:
        for name in self.names:
            self.ensure(name, Counter)

    @handles(Fail)
    def do_fail(self, message: Fail) -> None:
        self.fail(message.error)
