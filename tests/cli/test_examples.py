"""The examples are programs that run, as short as the documents say."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=280, cwd=ROOT, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize(
    ("name", "below"), [("host_application.py", 60), ("actor_service.py", 80), ("test_partition.py", 100)]
)
def test_an_example_is_short(name: str, below: int) -> None:
    assert len((ROOT / "examples" / name).read_text(encoding="utf-8").splitlines()) < below


def test_a_host_scales_its_own_workers_with_its_queue_and_hears_of_it() -> None:
    output = run("examples/host_application.py")
    replicas = [int(count) for count in re.findall(r"'replicas\.new': '(\d+)'", output)]
    assert replicas[0] == 7, "a worker for every ten of sixty jobs, and one"
    assert replicas[-1] == 1
    assert replicas == sorted(replicas, reverse=True)
    assert "all jobs are done" in output


def test_an_application_is_tested_under_partitions() -> None:
    output = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "examples/test_partition.py")
    assert "4 passed" in output


def test_a_service_of_actors_fails_over_and_back() -> None:
    output = run("examples/actor_service.py").splitlines()
    assert [line.split(" ")[0] for line in output[:4]] == ["worker-1", "worker-2", "worker-3", "worker-4"]
    cut, healed, failed = output[4:]
    assert cut.count("'3'") == 2, "the one that is cut off goes on, and another one counts in its place"
    assert healed.count("'3'") == 1
    assert "worker-1" not in healed
    assert failed == "task: non-zero exit (1): RuntimeError: told to fail"
