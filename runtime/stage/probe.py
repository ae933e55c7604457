"""Tools for message tests: a probe that stands where another actor would, and keeps what it is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from runtime.stage.actor import Actor
from runtime.stage.address import Address
from runtime.stage.answers import Reply
from runtime.stage.policy import GiveUp, Policy
from runtime.stage.simulator import Simulator, Stuck
from runtime.stage.stage import Stage

M = TypeVar("M")


class Received:
    """One message that a probe was told: its body, who sent it, and where an answer would go."""

    __slots__ = ("message", "reply", "sender")

    def __init__(self, message: Any, sender: Address | None, reply: Reply) -> None:
        self.message = message
        self.sender = sender
        self.reply = reply


class _ProbeActor(Actor):
    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, received: deque[Received], answers: dict[type[Any], Callable[[Any], Any]]) -> None:
        super().__init__()
        self._received = received
        self._answers = answers

    def unhandled(self, message: Any) -> Any:
        answer = self._answers.get(type(message))
        if answer is not None and self.asked:
            self._received.append(Received(message, self.sender, Reply(lambda _answer: None)))
            return answer(message)
        self._received.append(Received(message, self.sender, self.defer()))
        return None


class Probe:
    """Stands at a path under a simulator. ``expect(Type)`` runs until such a message has come and returns it."""

    def __init__(self, simulator: Simulator, stage: Stage, name: str = "probe") -> None:
        self._simulator = simulator
        self._stage = stage
        self._received: deque[Received] = deque()
        self._answers: dict[type[Any], Callable[[Any], Any]] = {}
        self.address = stage.mount(name, _ProbeActor, self._received, self._answers)

    def answer(self, message_type: type[M], answer: Callable[[M], Any]) -> None:
        """Answers questions of this type from now on by calling ``answer``."""
        self._answers[message_type] = answer

    def take(self, message_type: type[M], within: float = 10.0) -> Received:
        """The first message of this type, with its sender and reply; earlier ones of other types stay."""
        try:
            self._simulator.run_until(lambda: self._find(message_type) is not None, within)
        except Stuck as stuck:
            raise Stuck(f"{self._missed(message_type)}\n{stuck}") from None
        found = self._find(message_type)
        assert found is not None
        self._received.remove(found)
        return found

    def expect(self, message_type: type[M], within: float = 10.0) -> M:
        """The first message of this type, waiting up to ``within`` virtual seconds."""
        message: M = self.take(message_type, within).message
        return message

    def expect_none(self, message_type: type[Any], during: float = 1.0) -> None:
        """Lets virtual time pass and fails if such a message came."""
        self._simulator.run_for(during)
        found = self._find(message_type)
        assert found is None, f"a {message_type.__name__} was not to be told: {found and found.message!r}"

    @property
    def messages(self) -> list[Any]:
        """All that was told and not yet taken."""
        return [received.message for received in self._received]

    def _missed(self, message_type: type[Any]) -> str:
        """What was waited for, what came instead, and who failed on the way."""
        told = ", ".join(f"{message!r:.200}" for message in self.messages) or "nothing"
        lines = [f"{self.address.path} was told no {message_type.__name__}, but {told}"]
        lines += [f"{each.path} failed over {each.message}: {each.error}" for each in self._stage.observations.crashes]
        return "\n".join(lines)

    def _find(self, message_type: type[Any]) -> Received | None:
        return next((r for r in self._received if isinstance(r.message, message_type)), None)
