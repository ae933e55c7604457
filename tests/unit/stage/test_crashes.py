"""Which failures are kept: of each actor the last, and nobody's are hidden by one that fails over and over."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.stage.observe import Crashes, CrashReport, Durations


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
