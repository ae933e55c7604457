"""Which failures are kept: of each actor the last, and nobody's are hidden by one that fails over and over."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.stage import Actor, ActorDown, Address, GiveUp, Policy, handles
from runtime.stage.observe import Crashes, CrashReport, Durations
from runtime.stage.simulator import Simulator
from tests.unit.stage.actors import Counter, Fail


def report(path: str, number: int) -> CrashReport:
    return CrashReport(path, "A", float(number), f"E: {number}", "Work", (), {}, "")


def kept(crashes: Crashes) -> list[tuple[str, float]]:
    return [(each.path, each.at) for each in crashes]


def test_a_crash_loop_hides_no_other_failure() -> None:
    crashes = Crashes()
    crashes.append(report("/other", 0))
    for number in range(1, 1000):
        crashes.append(report("/loop", number))
    assert kept(crashes)[0] == ("/other", 0.0)
    assert [at for path, at in kept(crashes) if path == "/loop"] == [float(each) for each in range(980, 1000)]


def test_there_is_an_end_to_all_of_them() -> None:
    crashes = Crashes()
    for number in range(2000):
        crashes.append(report(f"/actor{number}", number))
    assert len(crashes) == Crashes.MOST
    assert kept(crashes)[-1] == ("/actor1999", 1999.0)
    assert len(crashes._by_path) == Crashes.MOST, "paths are forgotten with their last report"


@given(st.lists(st.sampled_from("abc"), max_size=200))
def test_the_newest_of_each_are_there_in_their_order(paths: list[str]) -> None:
    crashes = Crashes()
    for number, path in enumerate(paths):
        crashes.append(report(path, number))
    found = kept(crashes)
    assert found == sorted(found, key=lambda each: each[1])
    for path in "abc":
        mine = [float(number) for number, each in enumerate(paths) if each == path]
        assert [at for each, at in found if each == path] == mine[-Crashes.PER_PATH :]


@given(st.lists(st.floats(min_value=0, max_value=1e6), max_size=50))
def test_a_histogram_counts_each_duration_once(durations: list[float]) -> None:
    made = Durations()
    for seconds in durations:
        made.note(seconds)
    assert sum(made.counts) == len(durations)
    assert made.counts[-1] == sum(seconds > 10.0 for seconds in durations)


class Above(Actor):
    """What ends its child ends it too."""

    policy = Policy(give_up=GiveUp.NEVER)

    def started(self) -> None:
        self.below_me: Address = self.spawn("child", Counter)
        self.watch(self.below_me)

    @handles(ActorDown)
    def down(self, message: ActorDown) -> None:
        assert message.error is not None
        self.fail(message.error)

    @handles(Fail)
    def fail_by_itself(self, message: Fail) -> None:
        raise message.error


def test_a_failure_that_is_passed_on_is_an_error_of_the_log_once_and_kept_for_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    simulator = Simulator(1)
    stage = simulator.node("n1")
    above = stage.mount("above", Above)
    with caplog.at_level(logging.DEBUG, logger="swarmlet"):
        simulator.settle()
        (child,) = (each.address for each in stage.walk() if each.path == "/above/child")
        child.tell(Fail(ValueError("below")))
        simulator.run_for(1)
        above.tell(Fail(ValueError("of its own")))
        simulator.run_for(1)
    told = [(each.levelname, each.getMessage().partition(": ")[0]) for each in caplog.records]
    assert told == [
        ("ERROR", "/above/child failed over Fail"),
        ("DEBUG", "/above failed over ActorDown"),
        ("ERROR", "/above failed over Fail"),
    ]
    assert [each.path for each in stage.observations.crashes] == ["/above/child", "/above", "/above"]
