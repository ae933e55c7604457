"""What its supervisor knows of one task that is an actor, and what its end means. No clock, no messages of its own.

Texts are those that people know from a container engine (``task: non-zero exit (3)``). Words of an actor's error are
told without the secrets that it was given.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from runtime.executor.actor_plan import ActorPlan
from runtime.executor.health import HealthCount
from runtime.executor.port import Done, Failed, Outcome, Stream
from runtime.introspection.redact import HIDDEN, hide
from runtime.stage import Address
from runtime.stage.answers import Reply
from runtime.stage.observe import describe_error, format_traceback
from runtime.wire.pb import types_pb2

KILLED: Final = 128 + 9
WORDS_MAX: Final = 300
SECRET_MIN: Final = 4
"""Shorter payloads are not looked for in what an actor says: they would be found everywhere."""


def texts_of(secrets: Iterable[bytes]) -> tuple[str, ...]:
    """What is not to be told of these payloads, the longest first."""
    found = (secret.decode("utf-8", "replace").strip() for secret in secrets)
    return tuple(sorted((text for text in found if len(text) >= SECRET_MIN), key=len, reverse=True))


class ActorTask:
    """One task, from its preparation to its removal. Owned by its supervisor alone."""

    def __init__(self, plan: ActorPlan) -> None:
        self.plan = plan
        self.address: Address | None = None
        self.begun = False
        self.healthy = False
        self.count: HealthCount | None = None
        self.sick = False
        self.stop_told = False
        self.removal_asked = False
        self.killed = False
        self.given_up = False
        self.exit_code: int | None = None
        self.outcome: Outcome | None = None
        self.starting: list[Reply] = []
        self.waiting: list[Reply] = []
        self.stopping: list[Reply] = []
        self.removing: list[Reply] = []
        self._hidden: tuple[str, ...] = ()
        self._code = 0

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more, and nothing ever will."""
        return self.outcome is not None

    @property
    def status(self) -> types_pb2.ContainerStatus:
        """An actor has no process of its own, so no pid."""
        return types_pb2.ContainerStatus(container_id=self.plan.container_id, exit_code=self._code)

    @property
    def stopped_outcome(self) -> Outcome:
        """What who stops it is told of one that is gone."""
        return self.outcome if self.given_up and self.outcome is not None else Done(self.status)

    def describe(self) -> str:
        """For people."""
        if self.outcome is not None:
            return f"ended ({self._code})"
        return "stopping" if self.stop_told or self.removal_asked else "running" if self.healthy else "starting"

    @staticmethod
    def keep(replies: list[Reply], reply: Reply) -> None:
        """Adds one who waits; those who gave up waiting go."""
        replies[:] = [each for each in replies if each.open]
        replies.append(reply)

    # Its life

    def begin(self, secrets: Iterable[bytes]) -> None:
        """It is started now; ``secrets`` are never to be told."""
        self.begun = True
        self._hidden = texts_of(secrets)

    def watch_health(self, now: float) -> None:
        """From now on it is to answer pings."""
        assert self.plan.health is not None
        self.count = HealthCount(self.plan.health, now)

    def found_healthy(self) -> None:
        """It runs and is well: whoever starts it hears of it."""
        self.healthy = True
        starting, self.starting = self.starting, []
        for reply in starting:
            reply.set(Done(self.status))

    def failed_in_place(self, error: BaseException) -> None:
        """It failed and comes back."""
        self.plan.log.write(self._clean(format_traceback(error)), Stream.STDERR)

    def gone(self, error: BaseException | None) -> Outcome:
        """What it means that its actor is gone."""
        if isinstance(error, SystemExit) and self.exit_code is None:
            error = self._system_exit(error)
        if self.exit_code is None and error is not None:
            self.plan.log.write(self._clean(format_traceback(error)), Stream.STDERR)
            return self._failed(1, f": {self._words(error)}")
        code = self.exit_code if self.exit_code is not None else KILLED if self.killed or self.sick else 0
        if self.sick:
            return self._failed(code or KILLED, ": dockerexec: unhealthy container")
        return self._failed(code) if code else Done(self.status)

    def _system_exit(self, error: SystemExit) -> BaseException | None:
        """``sys.exit`` of a program: a number is its exit code, nothing is 0, words are an error."""
        if error.code is None or isinstance(error.code, int):
            self.exit_code = (error.code or 0) & 255
            return None
        return error

    def abandoned(self, over: str) -> Outcome:
        """It was told to go and does not return from what it does."""
        self.given_up = True
        return self._failed(KILLED, f": the actor has not returned{over}: it goes on until it does")

    def _failed(self, code: int, words: str = "") -> Failed:
        self._code = code
        if self.healthy or self.count is not None:
            text = f"task: non-zero exit ({code}){words}"
        else:
            text = f"starting actor failed{words or f': exit ({code})'}"
        return Failed(text, code, container_status=self.status)

    def _words(self, error: BaseException) -> str:
        """One line of bounded length."""
        words = " ".join(self._clean(describe_error(error)).split())
        return words if len(words) <= WORDS_MAX else f"{words[:WORDS_MAX]}..."

    def _clean(self, text: str) -> str:
        for secret in self._hidden:
            text = text.replace(secret, HIDDEN)
        return hide(text)

    # Its end

    def end(self, outcome: Outcome) -> bool:
        """Tells its end to all who wait for it; whether it is to be forgotten."""
        self.outcome = outcome
        self.plan.log.end()
        for reply in (*self.starting, *self.waiting):
            reply.set(outcome)
        for reply in self.stopping:
            reply.set(self.stopped_outcome)
        for reply in self.removing:
            reply.set(Done())
        self.starting, self.waiting, self.stopping = [], [], []
        return bool(self.removing)

    def refuse_start(self) -> None:
        """It is to be stopped before it was started: it never will be."""
        if not self.begun and self.outcome is None:
            self.begun = True
            self.end(Done(self.status))
