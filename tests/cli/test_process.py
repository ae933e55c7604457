"""The examples with real processes: what a newcomer runs first."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.processes import alive

ROOT = pathlib.Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("runtime.executor.process") is None, reason="the process executor is not there"
)


def environ(short_path: pathlib.Path) -> dict[str, str]:
    run = short_path / "run"
    run.mkdir(mode=0o700, exist_ok=True)
    return {
        **os.environ,
        "XDG_STATE_HOME": str(short_path / "state"),
        "XDG_RUNTIME_DIR": str(run),
        "HELLO_SECONDS": "0.2",
    }


def pids(output: str) -> set[int]:
    return {int(pid) for pid in re.findall(r"hello from process (\d+)", output)}


class Program:
    """A program of the repository, run until it printed what is waited for."""

    def __init__(self, short_path: pathlib.Path, *arguments: str) -> None:
        self.printed = ""
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environ(short_path),
        )  # fmt: skip

    def until(self, holds: Callable[[str], bool]) -> None:
        """Reads until it holds of what was printed so far."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.printed += line
            if holds(self.printed):
                return
        raise AssertionError(f"it ended with {self.process.wait()}: {self.printed}")

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGINT)
        self.printed += self.process.stdout.read()
        return self.process.wait(60)


def test_the_example_shows_its_output_ctrl_c_stops_every_task_and_a_second_run_resumes(
    short_path: pathlib.Path,
) -> None:
    for _ in range(2):
        program = Program(short_path, "-m", "swarmlet", "up", "examples/hello.yml")
        program.until(lambda printed: len(pids(printed)) == 3)
        assert program.interrupt() == 130
        for slot in (1, 2, 3):
            assert f"hello_hello.{slot} | hello.{slot}: hello from process" in program.printed
        assert "all tasks are stopped" in program.printed
        assert not any(alive(pid) for pid in pids(program.printed))
    assert "created service" not in program.printed


def test_the_example_of_embedding_runs(short_path: pathlib.Path) -> None:
    program = Program(short_path, "examples/embed_supervisor.py", "2", "sleep", "60")
    program.until(lambda printed: "copy 1: running" in printed and "copy 2: running" in printed)
    assert program.interrupt() == 0
    assert "stopping" in program.printed
