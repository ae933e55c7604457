"""The class that actors extend: a pykka actor whose inbox, life and failures belong to the stage.

How pykka is used: its receive loop runs unchanged, over an inbox of ours (``_create_actor_inbox``), started by a
dispatcher of ours. What it leaves to the process (the global registry, threads, dying quietly) is not used: actors
are never registered, and every exception ends in ``_handle_receive`` as a failure of this actor alone.

What a handler may rely on: it runs alone, one message at a time; ``self.world`` is all it may touch of the real
world; an exception means that this actor fails, its supervisor decides, and whoever asked gets an error.
"""

from __future__ import annotations

from collections.abc import Callable
from logging import INFO, Logger
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

import pykka

from runtime.errors import Refused
from runtime.stage.answers import ActorUnavailable, Answer, AskTimeout, Reply
from runtime.stage.messages import ActorDown, ActorUp
from runtime.stage.observe import Durations, Moment
from runtime.stage.policy import Policy
from runtime.stage.timers import Timer

if TYPE_CHECKING:
    from runtime.stage.address import Address
    from runtime.stage.cell import Cell
    from runtime.stage.mailbox import Envelope
    from runtime.stage.world import World

M = TypeVar("M")
Handler = Callable[[Any, Any], Any]


def handles(*types: type[Any]) -> Callable[[Handler], Handler]:
    """Marks a method as the handler of messages of exactly these classes."""

    def mark(method: Handler) -> Handler:
        method.__dict__["handled_types"] = types
        return method

    return mark


class Deferred(Reply):
    """An answer that a handler keeps to give later."""

    __slots__ = ()


class _Pending:
    __slots__ = ("deadline", "kind", "path", "seconds", "then")

    def __init__(
        self, then: Callable[[Answer], None], deadline: float, path: str, seconds: float, kind: type[Any]
    ) -> None:
        self.then = then
        self.deadline = deadline
        self.path = path
        self.seconds = seconds
        self.kind = kind


class _Answered:
    """The answer to a question of this actor's, as a message."""

    __slots__ = ("answer", "number")

    def __init__(self, number: int, answer: Answer) -> None:
        self.number = number
        self.answer = answer


class _CheckDeadlines:
    __slots__ = ()


class _Delivered:
    """Something that an edge handed to a life of this actor, as a message."""

    __slots__ = ("owner", "then", "value")

    def __init__(self, owner: Actor, then: Callable[[Any], None], value: Any) -> None:
        self.owner = owner
        self.then = then
        self.value = value


class Actor(pykka.Actor):
    """Base class. Handlers are methods marked with ``@handles``; a handler's return value is the answer to a question.

    A handler that cannot answer yet calls ``self.defer()`` and keeps what it returns. ``started`` is run as the first
    thing in each life, ``stopped`` at a clean end and ``crashed`` after a failure: both release what the actor holds.
    """

    policy: ClassVar[Policy] = Policy()
    _handlers: ClassVar[dict[type[Any], Handler]] = {}
    _cell: Cell

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        handlers: dict[type[Any], Handler] = {}
        for base in reversed(cls.__mro__):
            for method in vars(base).values():
                for message_type in getattr(method, "handled_types", ()):
                    handlers[message_type] = method
        cls._handlers = handlers

    def __init__(self) -> None:
        super().__init__()
        self.actor_urn = self._cell.path
        self.actor_stopped = self._cell.inbox  # type: ignore[assignment]  # what ends pykka's loop: each turn's end
        self.sender: Address | None = None
        self._trace = 0
        self._reply: Reply | None = None
        self._questions: dict[int, _Pending] = {}
        self._question = 0
        self._deadline_timer: Timer | None = None

    # What an actor may override

    def started(self) -> None:
        """Begins this life; questions and timers may be started here."""

    def stopped(self) -> None:
        """Ends this life cleanly."""

    def crashed(self) -> None:
        """Releases what this life held, after a failure."""

    def snapshot(self) -> dict[str, Any]:
        """What may be shown of the state: small, printable, without secrets."""
        return {}

    def unhandled(self, message: Any) -> Any:
        """Is given messages without a handler: counts them, and refuses questions."""
        self._cell.stage.observations.dead_letter(self._cell.path, message)
        if self.asked:
            raise ActorUnavailable(f"{self._cell.path} does not take {type(message).__name__}")

    # What an actor may use

    @property
    def world(self) -> World:
        """The world of this node."""
        return self._cell.stage.world

    @property
    def address(self) -> Address:
        """The address of this actor."""
        return self._cell.address

    @property
    def parent(self) -> Address | None:
        """The address of the parent; none at the top."""
        return self._cell.parent.address if self._cell.parent is not None else None

    def now(self) -> float:
        """Time of day in seconds since 1970."""
        return self._cell.stage.world.clock.now()

    def monotonic(self) -> float:
        """Seconds on a clock that only grows."""
        return self._cell.stage.world.clock.monotonic()

    def tell(self, to: Address, message: Any) -> None:
        """Sends a message in this actor's name."""
        to.send(message, self._cell.address, None, self._trace)

    def ask(self, to: Address, message: Any, then: Callable[[Answer], None], timeout: float = 20.0) -> None:
        """Sends a question. ``then`` is called with the Answer as a message of its own, within ``timeout`` seconds."""
        self._question += 1
        number = self._question
        cell = self._cell
        deadline = self.monotonic() + timeout
        self._questions[number] = _Pending(then, deadline, to.path, timeout, message.__class__)
        self._arm_deadlines(deadline)
        to.send(message, cell.address, Reply(cell.answer_sink(number, self, self._trace)), self._trace)

    @property
    def trace(self) -> int:
        """The trace id of the message in hand, which all that is told over it has too."""
        return self._trace

    def continues(self, *causes: int) -> None:
        """Says that what is done over the message in hand comes of these traces too: of what was gathered before it, or
        of a message elsewhere. Whoever follows one of them goes on here."""
        linker = self._cell.stage.linker
        if linker is not None:
            for cause in causes:
                if cause != self._trace:
                    linker(cause, self._trace)

    def continue_trace(self, trace: int) -> None:
        """The same of the one trace whose id crossed to this node with what is in hand (0: none did): what is told from
        here on has that id."""
        if trace:
            self.continues(trace)
            self._trace = trace

    def about(self, **fields: str) -> dict[str, str]:
        """``extra`` of a log record: this node, this actor, and ids of what the record is about (``task_id=...``)."""
        return {"node": self._cell.stage.name, "actor": self._cell.path, **fields}

    def moment(
        self, log: Logger, type: str, action: str, text: str, *, id: str = "", level: int = INFO, **attributes: str
    ) -> None:
        """Says what whoever runs this node wants to know of: as a line of the log, which is about the ids among the
        attributes, and to the stage's ``moment_listeners``. Attributes that are empty are left out."""
        stage = self._cell.stage
        text, given = stage.hide(text), {name: value for name, value in attributes.items() if value}
        ids = {name: value for name, value in given.items() if name.endswith("_id")}
        log.log(level, "%s", text, extra=self.about(**ids), stacklevel=2)
        moment = Moment(self._cell.path, type, action, id, self.now(), {"text": text, **given})
        for listener in stage.moment_listeners:
            listener(moment)

    def timed(self, name: str, seconds: float) -> None:
        """Counts a duration into the histogram of that name."""
        timings = self._cell.stage.observations.timings
        found = timings.get(name)
        if found is None:
            found = timings[name] = Durations()
        found.note(seconds)

    def sink(self, then: Callable[[Any], None], trace: int = 0) -> Callable[[Any], None]:
        """A callback for edges, callable from any thread: each call becomes a message of this life that runs
        ``then(value)``. What comes after this life is dropped and counted. ``trace``: the id that it has,
        where one answer is waited for; else each has one of its own."""
        return self._cell.sink(self, then, trace)

    def forward(self, to: Address, message: Any) -> None:
        """Hands the question in hand to another actor, which answers whoever asked here."""
        reply, self._reply = self._reply, None
        to.send(message, self.sender, reply, self._trace)

    def defer(self) -> Reply:
        """Takes the duty to answer the question in hand; of a plain message, a reply that goes nowhere."""
        reply, self._reply = self._reply, None
        return reply if reply is not None else Reply(lambda _answer: None)

    @property
    def asked(self) -> bool:
        """True while the message in hand is a question that has not been answered or deferred."""
        return self._reply is not None

    def after(self, delay: float, message: Any) -> Timer:
        """Tells this actor ``message`` once after ``delay`` seconds, in this life only."""
        return self._cell.set_timer(delay, message, self, None)

    def every(self, period: float, message: Any) -> Timer:
        """Tells this actor ``message`` every ``period`` seconds, in this life only; a late one is not made up for."""
        return self._cell.set_timer(period, message, self, period)

    def spawn(
        self, name: str, cls: type[Actor], *args: Any, policy: Policy | None = None, watched: bool = False
    ) -> Address:
        """Starts a child at ``<path>/<name>``. ``watched``: this actor hears of it from its very start, also of a start
        that fails at once."""
        return self._cell.spawn(name, cls, args, policy, watched)

    def ensure(self, name: str, cls: type[Actor], *args: Any, policy: Policy | None = None) -> Address:
        """The child of this name, started if it is not there: for actors whose children survive their failures."""
        return self.child(name) or self.spawn(name, cls, *args, policy=policy)

    def stop(self, address: Address | None = None) -> None:
        """Stops a child, or this actor, with everything below it."""
        cell = self._cell if address is None else address.resolve()
        if cell is not None:
            cell.request_stop()

    def child(self, name: str) -> Address | None:
        """The address of a child that is there."""
        cell = self._cell.children.get(name)
        return cell.address if cell is not None else None

    def below(self, path: str) -> Address:
        """The address of a descendant (``"manager/control"``), whether or not it is there yet."""
        return self._cell.stage.at(f"{self._cell.path}/{path}")

    def watch(self, address: Address) -> None:
        """Asks for ActorDown and ActorUp about another actor, through all its restarts."""
        self._cell.stage.watch(address, self._cell.address)

    def unwatch(self, address: Address) -> None:
        """Ends a watch."""
        self._cell.stage.unwatch(address, self._cell.address)

    def fail(self, error: BaseException) -> NoReturn:
        """Fails this actor."""
        raise error

    # How it runs

    def _create_actor_inbox(self) -> Any:  # type: ignore[override]
        return self._cell.inbox

    @staticmethod
    def _create_future() -> Any:
        raise RuntimeError("questions go through Address.ask")

    def _start_actor_loop(self) -> None:
        raise RuntimeError("actors are started by a stage")

    def _handle_receive(self, message: Envelope) -> None:
        body, self.sender, reply, enqueued, self._trace = message
        self._reply = reply
        cell = self._cell
        stage = cell.stage
        observing, read_nanos = stage.observing, stage.read_nanos
        begun = cell.handling_since = read_nanos()
        cell.handling = message
        outcome = "ok"
        try:
            handler = self._handlers.get(body.__class__)
            value = handler(self, body) if handler is not None else self._receive_other(body)
            if self._reply is not None:
                self._reply.set(value)
        except Refused as refusal:
            if self._reply is None:
                outcome = "failed"
                cell.failed(refusal, message)
            else:
                outcome = "refused"
                self._reply.fail(refusal)
        except BaseException as error:  # noqa: BLE001 - every kind of exception fails this actor and no other
            outcome = "failed"
            cell.failed(error, message)
        cell.handling = None
        tracer = stage.tracer
        if tracer is not None:
            tracer(cell, message, begun, outcome)
        if observing:
            noted = cell.noted
            noted += (body.__class__, enqueued, begun, read_nanos())  # in one step, for who counts meanwhile

    def _receive_other(self, body: Any) -> Any:
        if body.__class__ is _Answered:
            question = self._questions.pop(body.number, None)
            if question is not None:
                question.then(body.answer)
            else:
                self._cell.stage.observations.late_answers += 1
            return None
        if body.__class__ is _Delivered:
            if body.owner is self:
                body.then(body.value)
            else:
                self._cell.stage.observations.late_answers += 1
            return None
        if body.__class__ is _CheckDeadlines:
            return self._check_deadlines()
        if isinstance(body, (ActorDown, ActorUp)):
            return None  # whoever watches need not care for both
        return self.unhandled(body)

    def _arm_deadlines(self, deadline: float) -> None:
        timer = self._deadline_timer
        if timer is None or timer.due > deadline:
            if timer is not None:
                timer.cancel()
            self._deadline_timer = self.after(max(0.0, deadline - self.monotonic()), _CheckDeadlines())

    def _check_deadlines(self) -> None:
        self._deadline_timer = None
        now = self.monotonic()
        late = [number for number, question in self._questions.items() if question.deadline <= now]
        for number in late:
            question = self._questions.pop(number)
            question.then(Answer(None, AskTimeout(question.path, question.seconds)))
        if self._questions:
            self._arm_deadlines(min(question.deadline for question in self._questions.values()))
