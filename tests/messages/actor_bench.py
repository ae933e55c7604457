"""Actors that are tasks, and an executor of them under virtual time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from actors.task_supervisor_actor import TaskSupervisorActor
from runtime.errors import Code, Refused
from runtime.executor.actor import ActorController, ActorExecutor
from runtime.executor.actor_plan import Registered, TaskPlace
from runtime.executor.port import LogLine, LogOptions, OnDone, Operation, Outcome, TaskContext
from runtime.protocol.actor_tasks import Ping, Stopping
from runtime.stage import Actor, handles
from runtime.stage.simulator import Simulator
from runtime.wire.pb import objects_pb2, types_pb2
from tests.unit.executor.builders import context


class Plain(Actor):
    """Does what it is told: fails, ends, exits, speaks, looks up."""

    def __init__(self, place: TaskPlace, *more: Any) -> None:
        super().__init__()
        self.place = place
        self.more = more
        self.began = self.monotonic()
        if "fail in init" in place.args:
            raise ValueError(f"cannot begin with {place.secret('password').decode()}")

    def started(self) -> None:
        self.place.log("started")
        if "fail" in self.place.args:
            raise RuntimeError("cannot start")
        if "exit" in self.place.args:
            self.place.exit(3)

    def stopped(self) -> None:
        self.place.log("stopped", error=True)

    @handles(str)
    def told(self, what: str) -> object:
        match what.split(" ", 1):
            case ["fail", words]:
                raise ValueError(words)
            case ["sys.exit", code]:
                raise SystemExit(int(code) if code.isdigit() else code)
            case ["leave"]:
                raise SystemExit
            case ["exit", code]:
                self.place.exit(int(code))
            case ["end"]:
                self.stop()
            case ["place"]:
                return self.place
            case ["more"]:
                return self.more
        return None


class Patient(Plain):
    """Takes three seconds to end once it is told to."""

    @handles(Stopping)
    def stopping(self, message: Stopping) -> None:
        self.place.log(f"stopping within {message.grace:g} s")
        self.after(3.0, "exit 7")


class Pinged(Plain):
    """Is well until it is told otherwise; silent when it is told to be."""

    well = True
    silent = False

    @handles(Ping)
    def ping(self, message: Ping) -> None:
        if self.silent:
            self.defer()
        elif not self.well:
            raise Refused(Code.UNAVAILABLE, "not well")

    @handles(bool)
    def be(self, well: bool) -> None:
        self.well = well

    @handles(int)
    def fall_silent(self, message: int) -> None:
        self.silent = True


ACTORS: Mapping[str, type[Actor] | Registered] = {
    "plain": Plain,
    "patient": Patient,
    "pinged": Pinged,
    "tough": Registered(Plain, restart=True),
    "more": Registered(Plain, ("a", 2)),
    "plain:v2": Patient,
}


def task(identity: str, image: str = "actor/plain", *args: str) -> objects_pb2.Task:
    """A task of a replicated service ``svc``, in slot 1."""
    made = objects_pb2.Task(id=identity, slot=1, service_id="service")
    made.service_annotations.name = "svc"
    made.spec.container.image = image
    made.spec.container.args.extend(args)
    return made


def with_ping(made: objects_pb2.Task, **seconds: float) -> objects_pb2.Task:
    """The same with a health check."""
    made.spec.container.healthcheck.test.extend(["CMD-SHELL", "ping"])
    for name, value in seconds.items():
        getattr(made.spec.container.healthcheck, name).FromMilliseconds(int(value * 1000))
    return made


class Asked:
    """One operation and what came of it."""

    def __init__(self, begin: Callable[[OnDone], Operation]) -> None:
        self.outcomes: list[Outcome] = []
        self.operation = begin(self.outcomes.append)

    @property
    def outcome(self) -> Outcome:
        """The one outcome."""
        (outcome,) = self.outcomes
        return outcome


class Bench:
    """One node's executor on one stage; ``next_life`` is what a new start of the program sees."""

    def __init__(self, seed: int = 0, actors: Mapping[str, type[Actor] | Registered] = ACTORS) -> None:
        self.simulator = Simulator(seed)
        self.executor = ActorExecutor(actors, TaskSupervisorActor, types_pb2.NodeDescription())
        self.lives = 0
        self.next_life()

    def next_life(self) -> None:
        if self.lives:
            self.simulator.crash(self.stage)
        self.lives += 1
        self.stage = self.simulator.node(f"n{self.lives}")
        self.executor.enter(self.stage)
        self.run(0)

    def run(self, seconds: float = 0.01) -> None:
        self.simulator.run_for(seconds)

    def controller(self, made: objects_pb2.Task, given: TaskContext | None = None) -> ActorController:
        return self.executor.controller(made, given or context())

    def started(self, made: objects_pb2.Task, given: TaskContext | None = None) -> tuple[ActorController, Asked]:
        """A task that was prepared, and its start, with a moment for both."""
        controller = self.controller(made, given)
        controller.prepare(lambda _: None)
        asked = Asked(controller.start)
        self.run()
        return controller, asked

    def ask(self, begin: Callable[[OnDone], Operation], seconds: float = 0.01) -> Asked:
        asked = Asked(begin)
        self.run(seconds)
        return asked

    @property
    def actors(self) -> list[str]:
        """The paths of the actors that are tasks now."""
        return sorted(path for path in self.stage.cells if path.startswith("/tasks/"))

    def tell(self, message: Any, seconds: float = 0.01) -> None:
        """Tells the only task."""
        (path,) = self.actors
        self.stage.at(path).tell(message)
        self.run(seconds)

    def answer(self, message: Any) -> Any:
        """Asks the only task."""
        (path,) = self.actors
        return self.simulator.ask(self.stage.at(path), message)


class Lines:
    """A reader of logs."""

    def __init__(self, controller: ActorController, options: LogOptions | None = None) -> None:
        self.lines: list[LogLine] = []
        self.ends: list[str | None] = []
        self.operation = controller.logs(options or LogOptions(), self.lines.append, self.ends.append)

    @property
    def texts(self) -> list[str]:
        return [line.data.decode().rstrip("\n") for line in self.lines]
