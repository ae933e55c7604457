"""The examples with real processes: what a newcomer runs first."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

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


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def test_the_example_converges_shows_its_output_and_leaves_nothing_running(short_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "swarmlet", "up", "examples/hello.yml", "--for", "6"],
        capture_output=True, text=True, timeout=60, cwd=ROOT, env=environ(short_path), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hello_hello: 3/3 converged" in done.stdout
    for slot in (1, 2, 3):
        assert f"hello_hello.{slot} | hello.{slot}: hello from process" in done.stdout
    assert len(pids(done.stdout)) == 3
    assert not any(alive(pid) for pid in pids(done.stdout))


def test_ctrl_c_stops_every_task_and_a_second_run_resumes(short_path: pathlib.Path) -> None:
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-m", "swarmlet", "up", "examples/hello.yml"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environ(short_path),
        )  # fmt: skip
        assert process.stdout is not None
        seen = ""
        for line in process.stdout:
            seen += line
            if len(pids(seen)) == 3:
                break
        assert len(pids(seen)) == 3, seen
        process.send_signal(signal.SIGINT)
        seen += process.stdout.read()
        assert process.wait(20) == 130
        assert "all tasks are stopped" in seen
        assert not any(alive(pid) for pid in pids(seen))
    assert "created service" not in seen


def test_the_example_of_embedding_runs(short_path: pathlib.Path) -> None:
    done = subprocess.run(
        [sys.executable, "examples/embed_supervisor.py", "2", "sleep", "60"],
        capture_output=True, text=True, timeout=60, cwd=ROOT,
        env={**environ(short_path), "SUPERVISOR_SECONDS": "5"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "copy 1: running" in done.stdout
    assert "copy 2: running" in done.stdout
