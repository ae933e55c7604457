"""The place where an actor lives: its mailbox, its children, its failures, and one instance after another.

Life:  NEW -> STARTING -> RUNNING -> (FAILED -> STARTING)* -> STOPPING -> GONE, or FAILED -> DOWN (stays down).

Rules kept here:
1. A cell's turn runs on one thread at a time: whoever takes the ``idle`` token schedules the cell, and only the end of
   the turn gives it back.
2. Control messages (start, stop, a child that failed or ended) go ahead of everything in the mailbox.
3. The mailbox outlives instances. Only a cell that is gone or down empties it: questions are refused, the rest are
   dead letters.
4. Stopping goes bottom up: first the children, in the reverse order of their starts, then the instance.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runtime.errors import Refused
from runtime.stage.actor import Actor, _Answered, _Delivered
from runtime.stage.address import Address
from runtime.stage.answers import ActorUnavailable, Answer, enter_turn, leave_turn
from runtime.stage.mailbox import Envelope, Mailbox, MailboxFull
from runtime.stage.messages import ActorDown, ActorUp
from runtime.stage.observe import COUNTED_AT, NOTED, CrashReport, Tally, describe_error, format_traceback
from runtime.stage.policy import Failures, Policy, Strategy, Verdict
from runtime.stage.timers import Timer

if TYPE_CHECKING:
    from runtime.stage.dispatch import Runner
    from runtime.stage.stage import Stage

TIMERS_LOOKED_AT = 64
"""Of more timers than this the spent ones are let go, and not looked at again before there are twice as many."""


class Life(enum.Enum):
    """Where a cell stands; see the rules above."""

    NEW = "new"
    STARTING = "starting"
    RUNNING = "running"
    FAILED = "failed"
    STOPPING = "stopping"
    DOWN = "down"
    GONE = "gone"


class Yield(BaseException):
    """Leaves pykka's receive loop where a message turns out to be none; never seen by a handler."""


class Inbox:
    """What pykka's loop reads from: one envelope after another until the turn's share is used up.

    It hands itself over as the envelope, so that pykka finds ``message`` and ``reply_to`` without another object. It is
    also what that loop looks at before each message, to end when its actor has stopped: here, when its turn is over.
    """

    __slots__ = ("cell", "message", "reply_to", "share")

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.share = 0
        self.message: Any = None
        self.reply_to = None

    def put(self, envelope: Any, /) -> None:
        raise RuntimeError("messages go through an address")

    def is_set(self) -> bool:
        """Whether the turn is over: its share is used up, something more urgent or nothing at all waits, or the actor
        failed."""
        cell = self.cell
        mailbox = cell.mailbox
        depth = len(mailbox.user)
        if depth > mailbox.highest:  # nothing is taken but behind this, so no depth is missed
            mailbox.highest = depth
        return self.share <= 0 or not depth or bool(mailbox.control) or cell.instance is None

    def get(self) -> Inbox:
        self.share -= 1
        self.message = self.cell.mailbox.user.popleft()
        if self.message[0].__class__ is ActorDown and self.cell.outlived(self.message):
            if self.is_set():
                raise Yield
            return self.get()
        return self

    def empty(self) -> bool:
        return True


class Cell:
    """One place in the tree."""

    def __init__(
        self, stage: Stage, path: str, parent: Cell | None, cls: type[Actor], args: tuple[Any, ...], policy: Policy
    ) -> None:
        self.stage = stage
        self.path = path
        self.parent = parent
        self.cls = cls
        self.args = args
        self.policy = policy
        self.mailbox = Mailbox(policy.capacity, policy.overflow)
        self.address = Address(stage, path, self)
        self.children: dict[str, Cell] = {}
        self.life = Life.NEW
        self.failures = Failures()
        self.begun = 0
        self.instance: Actor | None = None
        self.inbox = Inbox(self)
        self.idle = threading.Lock()
        self.runner: Runner = stage.runner_for(policy)
        self.tally = Tally()
        self.noted = self.tally.noted
        self.handling: Envelope | None = None
        self.handling_since = 0
        self.thread = 0
        self.last_error: str = ""
        self._timers: set[Timer] = set()
        self._timers_looked_at = TIMERS_LOOKED_AT
        self._restart_timer: Timer | None = None
        self._suspended = False
        self._starts_when_alone = False
        self._spawned_over = parent.instance.trace if parent is not None and parent.instance is not None else 0

    # Messages in

    @property
    def gone(self) -> bool:
        """True when nobody will ever live here again."""
        return self.life is Life.GONE

    def put(self, envelope: Envelope) -> None:
        """Takes a message in and sees that a turn comes."""
        lost = self.mailbox.put(envelope)
        if lost is not None:
            self.stage.observations.refused_full += 1
            if lost[2] is not None:
                lost[2].fail(ActorUnavailable(str(MailboxFull(self.path, self.mailbox.capacity or 0))))
        if self.idle.acquire(False):  # by position: the keyword would cost as much as the lock
            self.runner.schedule(self)

    def control(self, action: Callable[[], None]) -> None:
        """Runs ``action`` in this cell's turn, ahead of its messages."""
        self.mailbox.control.append(action)
        if self.idle.acquire(False):
            self.runner.schedule(self)

    # Turns

    def turn(self, share: int) -> None:
        """Handles up to ``share`` messages; called with the idle token held, gives it back."""
        enter_turn()
        self.thread = threading.get_ident()
        try:
            control = self.mailbox.control
            while control:
                control.popleft()()
            if self.life is Life.RUNNING and not self._suspended and self.instance is not None:
                self.inbox.share = share
                try:
                    self.instance._actor_loop_running()  # pykka's own loop
                except Yield:
                    pass
            elif self.life in (Life.GONE, Life.DOWN):
                self._refuse_waiting()
            if len(self.noted) >= COUNTED_AT * NOTED:
                self.tally.count_if_free()
        finally:
            leave_turn()
            self.idle.release()
        if self.has_work() and self.idle.acquire(False):
            self.runner.schedule(self)

    def has_work(self) -> bool:
        """True when a turn would do something."""
        mailbox = self.mailbox
        return bool(mailbox.control) or (
            bool(mailbox.user) and not self._suspended and self.life in (Life.RUNNING, Life.GONE, Life.DOWN)
        )

    @property
    def suspended(self) -> bool:
        """Whether messages are held back by hand."""
        return self._suspended

    def suspend(self, suspended: bool) -> None:
        """Holds messages back, or lets them go again."""
        self._suspended = suspended
        self.control(lambda: None)

    # Starting

    def start(self) -> None:
        """Begins a life, in this cell's turn."""
        if self.life in (Life.STOPPING, Life.GONE):
            return
        self._restart_timer = None
        self._starts_when_alone = bool(self.children) and not self.policy.children_survive
        if self._starts_when_alone:
            return  # the children of the last life are still on their way out, and their names are taken
        self.life = Life.STARTING
        self.begun = self.stage.read_nanos()
        try:
            self.instance = self._new_instance()
            self.instance._trace, self._spawned_over = self._spawned_over, 0
            self.instance.started()
        except BaseException as error:  # noqa: BLE001 - a failed start is a failure like any other
            self.failed(error, None)
            return
        if self.life is Life.STARTING:
            self.life = Life.RUNNING
            self.stage.notify(self, ActorUp(self.path, self.failures.total))

    def outlived(self, envelope: Envelope) -> bool:
        """Whether this is news of a child of an earlier life, which went with that life and may not end this one."""
        below = envelope[0].path.startswith(f"{self.path}/")
        return below and envelope[3] <= self.begun and not self.policy.children_survive

    def _new_instance(self) -> Actor:
        instance = self.cls.__new__(self.cls)
        instance._cell = self
        self.instance = instance
        instance.__init__(*self.args)  # type: ignore[misc]
        return instance

    def spawn(
        self, name: str, cls: type[Actor], args: tuple[Any, ...], policy: Policy | None, watched: bool = False
    ) -> Address:
        """Starts a child. A name that is taken is an error, unless who had it is on the way out."""
        return self.stage.create(f"{self.path}/{name}", self, cls, args, policy, watched)

    # Failing

    def failed(self, error: BaseException, envelope: Envelope | None) -> None:
        """Ends this life by a failure; the supervisor decides what follows. Runs in this cell's turn."""
        if self.instance is None and self.life is not Life.STARTING:
            return  # there is no life to end: it failed, or ended, before this was said
        self._report(error, envelope)
        if envelope is not None:
            reply = envelope[2]
            self.tally.failed(type(envelope[0]))
            if reply is not None:
                reply.fail(ActorUnavailable(f"{self.path} failed: {self.last_error}"))
        self._end_instance(crashed=True)
        if self.life is Life.STOPPING:
            self._continue_stop()
            return
        self.life = Life.FAILED
        if not self.policy.children_survive:
            self._stop_children()
        self._supervise(error)

    def _report(self, error: BaseException, envelope: Envelope | None) -> None:
        state: dict[str, Any] = {}
        if self.instance is not None:
            try:
                state = self.instance.snapshot()
            except BaseException as unprintable:  # noqa: BLE001 - a broken state must not hide the failure itself
                state = {"snapshot failed": describe_error(unprintable)}
        self.last_error = self.stage.hide(describe_error(error))
        body = envelope[0] if envelope is not None else None
        message = type(body).__name__ if body is not None else "(start)"
        self.stage.crashed(
            CrashReport(
                path=self.path,
                actor=self.cls.__name__,
                at=self.stage.world.clock.now(),
                error=self.last_error,
                message=message,
                before=tuple(kind.__name__ for kind in self.tally.recent),
                state=state,
                traceback=self.stage.hide(format_traceback(error)),
            ),
            told=isinstance(error, Refused),
            passed_on=isinstance(body, ActorDown) and body.error is error,
        )

    def _supervise(self, error: BaseException) -> None:
        verdict, delay = self.failures.judge(self.policy, error, self.stage.world.clock.monotonic())
        if verdict is Verdict.ESCALATE and self.parent is None:
            verdict = Verdict.RESTART
        if verdict is Verdict.RESTART:
            self.stage.notify(self, ActorDown(self.path, error, False))
            self._restart_siblings()
            self._restart_timer = self.stage.timers.set(delay, lambda: self.control(self.start))
        elif verdict is Verdict.ESCALATE:
            assert self.parent is not None
            parent = self.parent
            self.stage.notify(self, ActorDown(self.path, error, False))
            parent.control(lambda: parent.escalated(self, error))
        elif verdict is Verdict.STAY_DOWN:
            self.life = Life.DOWN
            self.stage.notify(self, ActorDown(self.path, error, True))
            self._refuse_waiting()
        else:
            self.life = Life.STOPPING
            self._continue_stop(error)

    def escalated(self, child: Cell, error: BaseException) -> None:
        """A child failed in a way that is this actor's matter: this actor fails with the same error."""
        if self.life is Life.RUNNING:
            self.failed(error, None)
        if self.policy.children_survive and child.life is Life.FAILED:
            child.control(child.start)

    def _restart_siblings(self) -> None:
        if self.parent is None or self.parent.policy.strategy is Strategy.ONE_FOR_ONE:
            return
        order = list(self.parent.children.values())
        rest = order[order.index(self) + 1 :] if self in order else []
        others = rest if self.parent.policy.strategy is Strategy.REST_FOR_ONE else [c for c in order if c is not self]
        for cell in others:
            cell.control(cell.begin_again)

    def begin_again(self) -> None:
        """Ends this life and begins the next at once; for whoever asks for a restart without a failure."""
        if self.life is Life.RUNNING:
            self._end_instance(crashed=False)
            if not self.policy.children_survive:
                self._stop_children()
            self.start()
        elif self.life is Life.DOWN:
            self.failures = Failures(total=self.failures.total)
            self.start()

    def _end_instance(self, crashed: bool) -> None:
        instance, self.instance = self.instance, None
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if instance is None:
            return
        try:
            if crashed:
                instance.crashed()
            else:
                instance.stopped()
        except BaseException as error:  # noqa: BLE001 - it is told, and the end goes on
            self.last_error = self.stage.hide(describe_error(error))
            about = {"node": self.stage.name, "actor": self.path}
            where = self.stage.hide(format_traceback(error))
            self.stage.log.error("%s: its end failed: %s\n%s", self.path, self.last_error, where, extra=about)

    # Stopping

    def request_stop(self) -> None:
        """Asks for a clean end of this actor and everything below it."""
        self.control(self._begin_stop)

    def _begin_stop(self) -> None:
        if self.life in (Life.STOPPING, Life.GONE):
            return
        self.life = Life.STOPPING
        if self._restart_timer is not None:
            self._restart_timer.cancel()
        self._continue_stop()

    def _stop_children(self) -> None:
        for child in reversed(list(self.children.values())):
            child.request_stop()

    def _continue_stop(self, error: BaseException | None = None) -> None:
        if self.children:
            self._stop_children()
            return
        self._end_instance(crashed=False)
        self.life = Life.GONE
        self._refuse_waiting()
        self.stage.removed(self, error)
        parent = self.parent
        if parent is not None:
            parent.control(lambda: parent.child_gone(self))

    def child_gone(self, child: Cell) -> None:
        """A child has ended; the next step of a stop may follow."""
        if self.children:
            return
        if self.life is Life.STOPPING:
            self._continue_stop()
        elif self._starts_when_alone:
            self.start()

    def _refuse_waiting(self) -> None:
        while self.mailbox.user:
            message, _sender, reply, _at, _trace = self.mailbox.user.popleft()
            self.stage.dead_letter(self.path, message, reply)

    # Timers and answers

    def set_timer(self, delay: float, message: Any, owner: Actor, period: float | None) -> Timer:
        """A timer that tells ``message`` to this life of the actor."""
        if len(self._timers) > self._timers_looked_at:
            self._timers = {timer for timer in self._timers if timer.active}
            self._timers_looked_at = max(TIMERS_LOOKED_AT, 2 * len(self._timers))

        def fire() -> None:
            if self.instance is owner:
                self.put((message, self.address, None, self.stage.read_nanos(), self.stage.next_trace()))

        timer = self.stage.timers.set(delay, fire, period)
        self._timers.add(timer)
        return timer

    def answer_sink(self, number: int, owner: Actor, trace: int) -> Callable[[Answer], None]:
        """Where the answer to question ``number`` of this life goes: the mailbox. What comes of it has the question's
        trace id."""

        def deliver(answer: Answer) -> None:
            if self.instance is owner:
                self.put((_Answered(number, answer), None, None, self.stage.read_nanos(), trace))
            else:
                self.stage.observations.late_answers += 1

        return deliver

    def sink(self, owner: Actor, then: Callable[[Any], None], trace: int) -> Callable[[Any], None]:
        """Where edges deliver to this life of the actor: the mailbox."""

        def deliver(value: Any) -> None:
            if self.instance is owner:
                message = _Delivered(owner, then, value)
                self.put((message, None, None, self.stage.read_nanos(), trace or self.stage.next_trace()))
            else:
                self.stage.observations.late_answers += 1

        return deliver
