"""What actors did, by message type, as it is shown: counts, times, quantiles."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.introspection.asks import message_figures
from runtime.stage import Actor
from runtime.stage.simulator import Simulator
from tests.unit.introspection.chain import Pass, QuietTick

durations = st.integers(0, 10**12).map(lambda nanos: nanos / 1e9)


def figures(*noted: tuple[type, float, float]) -> dict[str, dict[str, float]]:
    cell = Simulator(1).node("n").mount("one", Actor).resolve()
    assert cell is not None
    for kind, wait, busy in noted:
        enqueued, begun, ended = (round(each * 1e9) for each in (1.0, 1.0 + wait, 1.0 + wait + busy))
        cell.noted.extend((kind, enqueued, begun, ended))
    return {each["type"]: each for each in message_figures([cell, cell])}


@given(st.lists(st.tuples(durations, durations), min_size=1, max_size=50))
def test_quantiles_are_bounds_of_what_there_was(noted: list[tuple[float, float]]) -> None:
    found = figures(*((Pass, wait, busy) for wait, busy in noted))["Pass"]
    for at, name in enumerate(("wait", "busy")):
        times = sorted(each[at] for each in noted)
        half, most = times[(len(times) - 1) // 2], times[-1]
        assert half <= found[f"{name}_p50_s"] <= found[f"{name}_p99_s"] <= found[f"{name}_max_s"] == most
        assert found[f"{name}_p50_s"] <= 2 * half


def test_a_quantile_is_never_longer_than_the_longest() -> None:
    found = figures((Pass, 0.0, 0.15))["Pass"]
    assert (found["busy_p50_s"], found["busy_p99_s"], found["busy_max_s"]) == (0.15, 0.15, 0.15)


def test_several_actors_are_summed_and_the_busiest_type_comes_first() -> None:
    found = figures((QuietTick, 0.0, 0.001), (Pass, 0.5, 2.0), (Pass, 0.25, 1.0))
    assert list(found) == ["Pass", "QuietTick"]
    assert (found["Pass"]["count"], found["Pass"]["busy_s"], found["Pass"]["wait_max_s"]) == (4, 6.0, 0.5)
