"""Jobs that run by the clock (label ``swarmlet.schedule``): when the next run is due, and what keeps it back.

Rules owned here:
1. A schedule is cron's five fields, ``@hourly`` to ``@yearly``, or ``@every 90s``; times are UTC.
2. The next run is due at the first time of the schedule after the last run, which the store knows: so whoever leads
   goes on where the last leader was, and times that nobody led through are made up for by one run. A last run that lies
   in the future, because a clock was wrong, counts as now.
3. A job that has never run waits for its first time.
4. A time that comes while the last run is still going is passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cronsim import CronSim, CronSimError

from runtime.errors import invalid
from runtime.swarm import jobs
from runtime.swarm.durations import parse_duration
from runtime.swarm.labels import SCHEDULE
from runtime.swarm.node_status import Deadlines
from runtime.swarm.ports import Tx
from runtime.swarm.service_spec import is_job, next_iteration
from runtime.swarm.start_order import Hold
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs

NAMED: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
EVERY: Final = "@every "
SHORTEST_S: Final = 10.0
FIELDS: Final = 5


@dataclass(frozen=True, slots=True)
class Due:
    """A job whose time has come, and how often it had been run when that time was reckoned."""

    service_id: str
    iteration: int


def next_after(text: str, at: float) -> float:
    """The first time of a schedule after ``at``, both in seconds since the epoch. ValueError says what is wrong with
    the schedule."""
    text = text.strip()
    if text.startswith(EVERY):
        seconds = parse_duration(text[len(EVERY) :].strip()) / 1e9
        if seconds < SHORTEST_S:
            raise ValueError(f"{text!r} is more often than every {SHORTEST_S:g} s")
        return at + seconds
    expression = NAMED.get(text, text)
    if len(expression.split()) != FIELDS:
        raise ValueError(f"{text!r} is no schedule, such as '30 3 * * *', @daily or @every 90s")
    try:
        return next(CronSim(expression, datetime.fromtimestamp(at, UTC))).timestamp()
    except CronSimError as error:
        raise ValueError(f"{text!r}: {str(error)[:1].lower()}{str(error)[1:]}") from None
    except StopIteration:
        raise ValueError(f"{text!r} never comes") from None


def check_schedule(spec: specs.ServiceSpec) -> None:
    """``Refused`` if a service asks for a schedule that cannot be, or for one although it is no job."""
    text = spec.annotations.labels.get(SCHEDULE)
    if text is None:
        return
    if not is_job(spec):
        raise invalid(f"label {SCHEDULE}: only jobs run by the clock (--mode replicated-job or global-job)")
    try:
        next_after(text, 0.0)
    except ValueError as error:
        raise invalid(f"label {SCHEDULE}: {error}") from None


def due_at(service: objects.Service, now: float) -> float | None:
    """When the next run of a job is due; None for what has no schedule, or none that can be read."""
    text = service.spec.annotations.labels.get(SCHEDULE)
    if text is None or not jobs.is_job_service(service):
        return None
    last = service.job_status.last_execution
    try:
        return next_after(text, min(now, last.seconds + last.nanos / 1e9))
    except ValueError:
        return None


def hold(service: objects.Service, now: float) -> Hold | None:
    """What keeps the first tasks of a job from starting: that its first time has not come."""
    if service.job_status.job_iteration.index:
        return None
    at = due_at(service, now)
    if at is None:
        return None
    return Hold(
        f"it first runs at {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC: label {SCHEDULE}", frozenset()
    )


def run(tx: Tx, due: Due) -> bool | None:
    """Begins the run of a job that is due: True. False when the last one is still going, None when the job has run
    since, or runs by no clock any more."""
    service = tx.get(objects.Service, due.service_id)
    if service is None or due_at(service, tx.now) is None or service.job_status.job_iteration.index != due.iteration:
        return None
    if due.iteration and jobs.is_under_way(tx, service):
        return False
    new = objects.Service()
    new.CopyFrom(service)
    next_iteration(new, tx.now)
    tx.update(new)
    return True


class Schedules:
    """The jobs that run by the clock, and when each is due; times are seconds since the epoch."""

    def __init__(self) -> None:
        self._due = Deadlines()
        self._iterations: dict[str, int] = {}
        self._passed: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._iterations)

    def put(self, service: objects.Service, now: float) -> None:
        """A service as it is now."""
        at = due_at(service, now)
        if at is None:
            self.remove(service.id)
            return
        passed = self._passed.get(service.id)
        if passed is not None and at <= passed <= now:
            at = next_after(service.spec.annotations.labels[SCHEDULE], passed)
        self._iterations[service.id] = service.job_status.job_iteration.index
        self._due.set(service.id, at)

    def pass_over(self, service: objects.Service, now: float) -> None:
        """A time came while the last run was going: the next one counts."""
        self._passed[service.id] = now
        self.put(service, now)

    def put_off(self, service_id: str, at: float) -> None:
        """The run could not be begun: again then, unless the job changed by that time."""
        if service_id in self._iterations:
            self._due.set(service_id, at)

    def remove(self, service_id: str) -> None:
        """A service that is gone, or runs by no clock any more."""
        self._due.drop(service_id)
        self._iterations.pop(service_id, None)
        self._passed.pop(service_id, None)

    def take_due(self, now: float) -> list[Due]:
        """The jobs whose time has come, each once: until the service is put again."""
        return [Due(id, self._iterations[id]) for id in self._due.take_due(now)]

    def at(self, service_id: str) -> float | None:
        """When a job is due."""
        return self._due.at(service_id)

    @property
    def next_at(self) -> float | None:
        """When `take_due` has something to give at the earliest."""
        return self._due.next
