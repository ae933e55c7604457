"""Looking at real processes of tasks: which they are, what they use, signals for them."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from runtime.errors import Code, Refused
from runtime.executor.inspection import Inspectable, SendSignal, TakeUsage, Top
from tests.integration.executor.conftest import Bench
from tests.waiting import until


def look(bench: Bench, controller: Any, question: Any) -> Any:
    return bench.do(lambda done: controller.look(question, done))


def test_all_processes_of_a_task_are_told_and_no_others(bench: Bench) -> None:
    bench.started("other", "sleep", "61")
    controller = bench.started("t", "sh", "-c", "sleep 62 & (setsid sleep 63 &) ; sleep 64; :")
    assert isinstance(controller, Inspectable)

    def commands() -> set[str]:
        found = look(bench, controller, Top("-eo pid,args"))
        assert found.titles == ("PID", "COMMAND")
        return {row[1] for row in found.rows}

    until(lambda: {"sleep 62", "sleep 63", "sleep 64"} < commands(), "its processes begin")
    assert len(commands()) == 4
    assert not any("61" in command for command in commands())


def test_what_a_task_uses_grows_as_it_works(bench: Bench) -> None:
    controller = bench.started("t", "sh", "-c", "while :; do :; done")
    first = look(bench, controller, TakeUsage())
    assert first["pids_stats"]["current"] == 1
    assert first["memory_stats"]["usage"] > 0

    def worked() -> bool:
        later = look(bench, controller, TakeUsage())
        grown = [each["cpu_stats"]["cpu_usage"]["total_usage"] for each in (first, later)]
        return bool(grown[1] > grown[0])

    until(worked, "its processor time grows")


def test_a_signal_reaches_the_first_process_alone(bench: Bench) -> None:
    script = (
        "trap 'echo got; exit 5' USR1; sh -c 'trap \"echo child\" USR1; while :; do sleep 0.05; done' & echo up; wait"
    )
    controller = bench.started("t", "sh", "-c", script)
    until(lambda: b"up\n" in [line.data for line in bench.lines(controller)], "it is ready")
    assert look(bench, controller, SendSignal(signal.SIGUSR1)) is None
    assert bench.do(controller.wait).exit_code == 5
    assert [line.data for line in bench.lines(controller)] == [b"up\n", b"got\n"]


@pytest.mark.parametrize("question", [Top(), TakeUsage(), SendSignal(9)])
def test_what_does_not_run_is_said_to(bench: Bench, question: Any) -> None:
    controller = bench.controller("t", "true")
    unstarted = look(bench, controller, question)
    bench.do(controller.start)
    bench.do(controller.wait)
    for refused in (unstarted, look(bench, controller, question)):
        assert isinstance(refused, Refused)
        assert refused.code is Code.FAILED_PRECONDITION


def test_a_closed_controller_looks_at_nothing(bench: Bench) -> None:
    controller = bench.started("t", "sleep", "60")
    bench.do(controller.close)
    refused = look(bench, controller, Top())
    assert isinstance(refused, Refused)
    assert refused.code is Code.UNAVAILABLE
