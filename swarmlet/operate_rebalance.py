"""``swarmlet rebalance``: tasks go where the scheduler would place them now, a few, one at a time.

Rules it owns: without ``--apply`` nothing is changed. The next move is planned anew when the last one is over; a
service whose move does not come to pass gets back the spec that it had and is left. Between two moves of a service lies
its update delay. What a command that died left behind is taken back first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from runtime.introspection import client
from runtime.operations import moving, reading
from swarmlet.engine_link import Engine
from swarmlet.errors import EXIT_FAILED, EXIT_OK, StartError
from swarmlet.operator_options import OperatorOptions
from swarmlet.waiting import POLL_S, TimedOut, until

Say = Callable[[str], None]
Plan = Callable[..., Any]
"""Asks a manager's node for moves: ``services``, ``without``, ``limit``."""
STALE_MAX: Final = 20
_NOT_MEANT: Final = "only replicated services are spread"


def rebalance(engine: Engine, asked: OperatorOptions, say: Say, plan: Plan | None = None) -> int:
    """Plans, and with ``--apply`` carries out."""
    socket = asked.typed["socket"]

    def at_the_socket(**details: Any) -> Any:
        try:
            return client.ask(socket, "rebalance", **details)
        except (client.NoAnswer, ValueError) as error:
            raise StartError(str(error)) from None

    session = _Session(engine, asked.typed, say, plan or at_the_socket)
    return session.apply() if asked.typed["apply"] else session.show()


class _Session:
    """One call of the command."""

    def __init__(self, engine: Engine, typed: Mapping[str, Any], say: Say, plan: Plan) -> None:
        self._engine = engine
        self._typed = typed
        self._say = say
        self._plan = plan
        self._without: list[str] = []
        self._last: dict[str, float] = {}  # when the last move of a service ended
        self._failed = False

    def _asked(self, limit: int) -> Any:
        return self._plan(services=list(self._typed["services"]), without=self._without, limit=limit)

    def show(self) -> int:
        """Says what would be moved."""
        planned = self._asked(self._typed["max_moves"])
        for move in planned["moves"]:
            how = "by a constraint" if move["means"] == "constraint" else "by scaling"
            self._say(f"would move {move['task']} from {move['from']} to {move['to']}, {how}")
        self._say_left(planned)
        if planned["moves"]:
            self._say("Nothing was changed. Add --apply to do it.")
        else:
            self._say("nothing is to be moved")
        return EXIT_OK

    def _say_left(self, planned: Any) -> None:
        for each in planned["left"]:
            if self._typed["services"] or each["why"] != _NOT_MEANT:
                self._say(f"{each['service']} is left: {each['why']}")

    def apply(self) -> int:
        """Moves tasks one at a time until nothing is to be moved, or as many as may be."""
        self._check_swarm()
        self._take_back_all()
        done, stale = 0, 0
        while done < self._typed["max_moves"]:
            planned = self._asked(1)
            if not planned["moves"]:
                self._say_left(planned)
                self._say(f"{done} moved; nothing more is to be moved")
                return self._code
            if self._is_stale(planned["moves"][0]):
                stale += 1
                if stale > STALE_MAX:
                    raise StartError("the manager that plans does not hear what the leader does")
                self._engine.rest(POLL_S)
                continue
            stale = 0
            done += self._carry_out(planned["moves"][0])
        self._say(f"{done} moved, which is as many as may be (--max-moves)")
        return self._code

    @property
    def _code(self) -> int:
        return EXIT_FAILED if self._failed else EXIT_OK

    def _check_swarm(self) -> None:
        """The manager that plans and the one that acts have to be of one swarm."""
        swarm = self._engine.get("/info").get("Swarm") or {}
        if (swarm.get("Cluster") or {}).get("ID", "") != self._asked(1)["cluster"]:
            raise StartError("the node that plans (--socket) is of another swarm than the manager that is asked (-H)")

    def _take_back_all(self) -> None:
        for service in self._engine.services():
            if moving.taken_back(service["Spec"]) is not None:
                self._engine.update("services", service["ID"], lambda found: moving.taken_back(found["Spec"]))
                self._say(f"{reading.name_of(service)}: a move that was begun and not ended is taken back")

    def _is_stale(self, move: Any) -> bool:
        """Whether the plan is older than what the leader says."""
        task = next((each for each in self._tasks(move) if each["ID"] == move["task_id"]), None)
        return task is None or not reading.runs(task)

    def _tasks(self, move: Any) -> list[Any]:
        return self._engine.tasks(service=move["service_id"])

    def _carry_out(self, move: Any) -> int:
        """One move; how many tasks it moved. A service whose move fails is left from then on."""
        self._rest_for(move["service_id"])
        before = moving.where_tasks_are(self._tasks(move))
        try:
            self._move(move)
        except (Stuck, TimedOut) as reason:
            self._failed = True
            self._without.append(move["service_id"])
            self._say(f"{move['service']} is left: {reason}")
            return 0
        self._last[move["service_id"]] = self._engine.clock()
        after = moving.where_tasks_are(self._tasks(move))
        if after == before:
            self._without.append(move["service_id"])
            self._say(f"{move['service']} is left: its tasks are where they were")
            return 0
        self._say(f"{move['service']}: {self._shown(before, after)}")
        return 1

    def _rest_for(self, id: str) -> None:
        """The update delay of a service, since its last move."""
        if id in self._last:
            delay = moving.delay_s(self._engine.service(id)["Spec"])
            self._engine.rest(max(0.0, self._last[id] + delay - self._engine.clock()))

    def _move(self, move: Any) -> None:
        id: str = move["service_id"]
        begun: list[Any] = []

        def begin(found: Any) -> Any:
            begun[:] = [moving.begun(found["Spec"], move)]
            return begun[0]

        self._say(f"moving {move['task']} from {move['from']} to {move['to']}")
        service = self._engine.update("services", id, begin)
        if begun[0] is None:
            raise Stuck("somebody changed it meanwhile")
        try:
            self._until_it_may_end(move, service["Spec"])
        finally:
            self._engine.update("services", id, lambda found: moving.taken_back(found["Spec"]))
        self._until(moving.unsettled, move)

    def _until_it_may_end(self, move: Any, spec: Any) -> None:
        def missing(service: Any, tasks: list[Any]) -> str:
            if text := moving.stuck(service):
                raise Stuck(text)
            return moving.missing(service, tasks, move)

        self._until(missing, move)
        if move["means"] == "scale" and moving.start_first(spec):
            watched = self._engine.clock() + moving.monitor_s(spec)
            self._until(lambda found, tasks: missing(found, tasks) or self._until_clock(watched), move)

    def _until_clock(self, at: float) -> str:
        return "its new task is watched" if self._engine.clock() < at else ""

    def _until(self, missing: Callable[[Any, list[Any]], str], move: Any) -> None:
        def look() -> str:
            for service in self._engine.services(id=move["service_id"]):
                return missing(service, self._tasks(move))
            raise Stuck("it was removed")

        until(self._engine, look, self._typed["timeout"], self._say, about=move["service"])

    def _shown(self, before: Any, after: Any) -> str:
        names = {node["ID"]: reading.hostname(node) for node in self._engine.nodes()}
        lost = [names.get(id, id) for id in before - after]
        got = [names.get(id, id) for id in after - before]
        return f"{', '.join(sorted(lost))} gave a task, {', '.join(sorted(got))} got one"


class Stuck(Exception):
    """A move does not come to pass."""
