"""Keepers on machines without control groups, or with a disk that takes nothing."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys

from runtime.executor import procfs
from runtime.executor.keeper import LOST_WITH_KEEPER
from runtime.executor.port import Done, Failed
from tests.integration.executor.conftest import Answer, Bench, processes_of
from tests.waiting import until

ROOT = pathlib.Path(__file__).parents[3]
NO_GROUPS = "keeper.detect = lambda label: Cgroups({}, 'there are none')"
FULL_DISK = """
real = journal._write
def write(fd, data):
    if os.path.exists(os.path.join(sys.argv[1], 'full')):
        raise OSError(28, 'No space left on device')
    real(fd, data)
journal._write = write
"""


def keeper_with(bench: Bench, change: str) -> None:
    """Starts the bench's keeper with something of its machine changed."""
    imports = (
        "import os, sys; from runtime.executor import journal, keeper; from runtime.executor.cgroups import Cgroups"
    )
    program = f"{imports}\n{change}\nsys.exit(keeper.main(sys.argv[1:]))"
    read, write = os.pipe()
    command = [sys.executable, "-c", program, bench.directory, bench.run_dir, str(write), "runtime.executor.keeper"]
    subprocess.run(command, pass_fds=(write,), start_new_session=True, cwd=ROOT, check=True)
    os.close(write)
    with os.fdopen(read, "rb") as status:
        assert status.read() == b"ready"


def test_without_control_groups_what_escaped_comes_to_the_subreaper_and_ends(bench: Bench) -> None:
    keeper_with(bench, NO_GROUPS)
    escape = "setsid sh -c 'setsid sh -c \"setsid sleep 60 & sleep 60\" & sleep 60' & echo up; sleep 60"
    controller = bench.started("t", "sh", "-c", escape)
    other = bench.started("other", "sh", "-c", "(setsid sleep 60 &); sleep 60")
    until(lambda: len(processes_of("t")) >= 6 and len(processes_of("other")) == 3, "all have begun")
    bench.do(controller.shutdown)
    until(lambda: not processes_of("t"), "nothing is left")
    assert len(processes_of("other")) == 3
    bench.do(other.shutdown)
    until(lambda: not processes_of("other"), "nothing is left")
    until(lambda: procfs.children(bench.keeper()) == [], "all are reaped")


def test_without_control_groups_a_stray_that_hides_its_mark_is_known_by_its_session(bench: Bench) -> None:
    keeper_with(bench, NO_GROUPS)
    controller = bench.started("t", "sh", "-c", "(env -i sleep 60 &); echo up; sleep 60")
    until(lambda: bench.lines(controller), "it is up")
    keeper = bench.keeper()
    bench.do(controller.shutdown)
    until(lambda: procfs.children(keeper) == [], "nothing is left")


def test_without_control_groups_survivors_are_found_by_their_mark(bench: Bench) -> None:
    keeper_with(bench, NO_GROUPS)
    controller = bench.started("t", "sh", "-c", "setsid sleep 60 & sleep 60")
    until(lambda: len(processes_of("t")) == 3, "all have begun")
    answer = Answer()
    controller.wait(answer)
    os.kill(bench.keeper(), signal.SIGKILL)
    outcome = answer.get()
    assert isinstance(outcome, Failed)
    assert outcome.text == LOST_WITH_KEEPER
    assert processes_of("t") == []


def test_a_start_that_cannot_be_written_down_does_not_happen_and_may_be_tried_again(bench: Bench) -> None:
    keeper_with(bench, FULL_DISK)
    running = bench.started("before", "sleep", "60")
    full = pathlib.Path(bench.directory, "full")
    full.touch()
    keeper = bench.keeper()
    outcome = bench.do(bench.controller("t", "sleep", "60").start)
    assert outcome == Failed("the start cannot be written down: No space left on device", temporary=True)
    assert processes_of("t") == []
    until(lambda: len(procfs.children(keeper)) == 1, "the child that waited has ended")
    assert bench.do(running.terminate).container_status.exit_code == 137
    full.unlink()
    assert isinstance(bench.do(bench.controller("t", "sleep", "60").start), Done)
    os.kill(keeper, signal.SIGKILL)
    assert bench.do(running.wait).exit_code == 137
