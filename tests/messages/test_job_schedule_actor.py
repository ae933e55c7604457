"""JobScheduleActor over a real store: when it runs jobs, and what it does about clocks, crowds and refusals."""

from __future__ import annotations

from typing import Any

from actors.job_schedule_actor import JobScheduleActor
from runtime.protocol.explain import AskWaits
from runtime.swarm.service_spec import to_timestamp
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types
from tests.messages.part_bench import PartBench
from tests.unit.swarm_orchestration.test_schedules import job, run_of

EVERY = "@every 10m"


class Bench(PartBench):
    """Jobs that last ran when the test began."""

    def __init__(self, *made: objects.Service | objects.Task) -> None:
        super().__init__(JobScheduleActor)
        now = self.stage.world.clock.now()
        for each in made:
            if isinstance(each, objects.Service):
                each.job_status.last_execution.CopyFrom(to_timestamp(now))
        self.put(*made)
        self.simulator.settle()

    @property
    def iteration(self) -> int:
        return self.service("job").job_status.job_iteration.index

    def finish(self) -> None:
        """The present run comes to its end."""
        self.put(run_of(f"run-{self.iteration}", types.COMPLETE, self.iteration))


def test_a_job_runs_when_its_time_comes_and_again() -> None:
    one = Bench(job(EVERY))
    one.simulator.run_for(599)
    assert one.iteration == 0
    one.simulator.run_for(2)
    assert one.iteration == 1
    one.finish()
    one.simulator.run_for(600)
    assert one.iteration == 2


def test_a_time_that_comes_while_the_last_run_is_going_is_passed_over() -> None:
    one = Bench(job(EVERY, iteration=1), run_of("slow", types.RUNNING))
    one.simulator.run_for(700)
    assert one.iteration == 1
    one.put(run_of("slow", types.COMPLETE))
    one.simulator.run_for(480)
    assert one.iteration == 1
    one.simulator.run_for(30)
    assert one.iteration == 2


def test_the_time_that_was_missed_is_made_up_for_once() -> None:
    one = Bench(job(EVERY, iteration=1), run_of("done", types.COMPLETE))
    one.edit(objects.Service, "job", lambda new: _ran(new, one.stage.world.clock.now() - 86_400))
    one.simulator.run_for(1)
    assert one.iteration == 2
    one.finish()
    one.simulator.run_for(590)
    assert one.iteration == 2


def _ran(new: objects.Service, at: float) -> None:
    new.job_status.last_execution.CopyFrom(to_timestamp(at))


def test_a_clock_that_goes_back_holds_nothing_up_for_longer_than_the_schedule() -> None:
    one = Bench(job(EVERY, iteration=1), run_of("done", types.COMPLETE))
    one.stage.world.clock.skew -= 7 * 86_400
    one.simulator.run_for(61)
    one.simulator.run_for(601)
    assert one.iteration == 2


def test_a_clock_that_goes_ahead_is_noticed_within_a_minute() -> None:
    one = Bench(job("@every 24h", iteration=1), run_of("done", types.COMPLETE))
    one.stage.world.clock.skew += 86_400
    one.simulator.run_for(61)
    assert one.iteration == 2


def test_what_the_store_does_not_take_is_tried_again() -> None:
    one = Bench(job(EVERY))
    one.simulator.run_for(599)
    one.held = True
    one.simulator.run_for(2)
    one.refuse()
    one.held = False
    assert one.iteration == 0
    one.simulator.run_for(6)
    assert one.iteration == 1


def test_a_new_life_goes_on_with_what_the_store_knows() -> None:
    one = Bench(job(EVERY))
    one.simulator.run_for(300)
    one.crash()
    one.simulator.run_for(301)
    assert one.iteration == 1


def test_another_schedule_counts_at_once_and_none_any_more_ends_it() -> None:
    one = Bench(job(EVERY))
    one.edit(objects.Service, "job", lambda new: new.spec.annotations.labels.update({"swarmlet.schedule": "@every 1m"}))
    one.simulator.run_for(61)
    assert one.iteration == 1
    one.edit(objects.Service, "job", lambda new: new.spec.annotations.labels.clear())
    one.finish()
    one.simulator.run_for(3600)
    assert one.iteration == 1
    assert one.actor.snapshot() == {"jobs": 0}
    one.remove(objects.Service, "job")


def test_when_a_job_runs_next_can_be_asked() -> None:
    one = Bench(job(EVERY))
    one.simulator.run_for(100)
    waits: Any = one.simulator.ask(one.part, AskWaits(service_id="job")).waits
    assert [(wait.who, wait.why) for wait in waits] == [
        ("job_schedule", "its next run is due then: label swarmlet.schedule")
    ]
    assert 495 < waits[0].seconds <= 500
    assert one.simulator.ask(one.part, AskWaits(service_id="other")).waits == ()
