"""Rules of restarting: delays, intensity, verdicts."""

from hypothesis import given
from hypothesis import strategies as st

from runtime.stage.policy import Failures, GiveUp, Policy, ReconnectDelay, Restart, Verdict


def test_the_reconnect_delay_starts_at_100_ms_and_doubles_to_30_s() -> None:
    delay, now, seen = ReconnectDelay(), 0.0, []
    for _ in range(11):
        seen.append(delay.next(now))
        now += seen[-1]
    assert seen == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]


def test_the_reconnect_delay_is_forgotten_after_30_s_well() -> None:
    delay = ReconnectDelay()
    assert [delay.next(0.0), delay.next(0.2)] == [0.1, 0.2]
    assert delay.next(0.2 + 0.2 + 30.0) == 0.4
    assert delay.next(0.8 + 0.4 + 60.1) == 0.1


@given(st.lists(st.floats(min_value=0, max_value=100), max_size=60))
def test_a_delay_is_always_between_100_ms_and_30_s(gaps: list[float]) -> None:
    delay, now = ReconnectDelay(), 0.0
    for gap in gaps:
        now += gap
        assert 0.1 <= delay.next(now) <= 30.0


def test_more_than_five_failures_within_a_minute_escalate() -> None:
    failures = Failures()
    verdicts = [failures.judge(Policy(), ValueError(), float(second))[0] for second in range(6)]
    assert verdicts == [Verdict.RESTART] * 5 + [Verdict.ESCALATE]


def test_failures_a_minute_apart_never_escalate() -> None:
    failures = Failures()
    assert all(failures.judge(Policy(), ValueError(), 61.0 * n)[0] is Verdict.RESTART for n in range(50))


def test_the_edges_never_give_up() -> None:
    failures = Failures()
    policy = Policy(give_up=GiveUp.NEVER)
    assert all(failures.judge(policy, ValueError(), n / 10)[0] is Verdict.RESTART for n in range(50))


def test_a_temporary_actor_ends_with_its_first_failure() -> None:
    assert Failures().judge(Policy(restart=Restart.TEMPORARY), ValueError(), 0.0)[0] is Verdict.STOP


def test_a_named_error_is_the_parents_matter_at_once() -> None:
    policy = Policy(escalates=(OSError,))
    assert Failures().judge(policy, OSError(), 0.0)[0] is Verdict.ESCALATE
    assert Failures().judge(policy, ValueError(), 0.0)[0] is Verdict.RESTART


def test_staying_down_is_a_policy() -> None:
    failures = Failures()
    policy = Policy(give_up=GiveUp.STAY_DOWN, max_restarts=1)
    assert [failures.judge(policy, ValueError(), t)[0] for t in (0.0, 1.0)] == [Verdict.RESTART, Verdict.STAY_DOWN]


def test_a_grave_error_keeps_an_actor_down_when_it_comes_twice_within_a_minute() -> None:
    policy = Policy(down_after_two=(OSError,))
    failures = Failures()
    assert failures.judge(policy, OSError(), 0.0)[0] is Verdict.RESTART
    assert failures.judge(policy, ValueError(), 10.0)[0] is Verdict.RESTART
    assert failures.judge(policy, OSError(), 70.5)[0] is Verdict.RESTART
    assert failures.judge(policy, OSError(), 100.0)[0] is Verdict.STAY_DOWN
