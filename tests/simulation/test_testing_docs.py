"""The examples of docs/testing.md and the test in README.md run, and the pytest plugin reports what it says there."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


EXAMPLES = [*examples("docs/testing.md"), *(each for each in examples("README.md") if "def test_" in each)]


def run(directory: pathlib.Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_example.py").write_text(source, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "swarmlet.testing.plugin"]
    command += [part for name in ("cacheprovider", "schemathesis", "hypothesispytest") for part in ("-p", f"no:{name}")]
    return subprocess.run(
        [*command, *options, "test_example.py"], cwd=directory, capture_output=True, text=True, timeout=100, check=False
    )


def test_the_examples_of_the_documentation_run(tmp_path: pathlib.Path) -> None:
    assert len(EXAMPLES) == 6
    for number, example in enumerate(EXAMPLES):
        (tmp_path / f"test_{number}.py").write_text(example, encoding="utf-8")
    ran = run(tmp_path, "", *(f"test_{number}.py" for number in range(len(EXAMPLES))))
    assert ran.returncode == 0, ran.stdout
    assert "7 passed" in ran.stdout


FAILING = """
def test_fails_by_two_of_three_faults(swarm):
    c = swarm(managers=1, workers=2)
    c.skew("manager-1", 1)
    c.crash("worker-1")
    c.pause("worker-2", 1)
    c.advance(1)
    assert c.swarm.host("worker-1").stage is not None or c.swarm.host("manager-1").clock.skew == 0
"""
FAILING_BY_ONE = """
def test_fails_by_one(swarm):
    c = swarm(workers=1)
    c.skew("manager-1", 1)
    c.crash("worker-1")
    assert c.swarm.host("worker-1").stage is not None
"""
FAILING_IN_A_CLASS = """
class TestApplication:
    def test_fails_by_one(self, swarm):
        c = swarm(workers=1)
        c.skew("manager-1", 1)
        c.crash("worker-1")
        assert c.swarm.host("worker-1").stage is not None
"""
FAILING_ANYWAY = """
def test_fails_anyway(swarm):
    c = swarm()
    c.skew("manager-1", 1)
    assert not c.faults
"""
FAILING_ONCE = """
ran = []

def test_fails_once(swarm):
    c = swarm()
    c.skew("manager-1", 1)
    ran.append(1)
    assert len(ran) > 1
"""


def test_a_failure_is_reported_with_the_faults_that_it_takes_and_runs_again_by_its_command(
    tmp_path: pathlib.Path,
) -> None:
    failed, _, once = run(tmp_path, FAILING + FAILING_ONCE, "--swarm-seed=5").stdout.partition("test_fails_once __")
    assert "seed 5, 1 managers and 2 workers, after " in failed
    faults, _, needed = failed.partition("it fails with these 2 faults alone:")
    assert [kind in faults for kind in ("skew", "crash worker-1", "pause worker-2")] == [True] * 3
    assert ("skew" in needed, "crash worker-1" in needed, "pause" in needed.split("last 200")[0]) == (True, True, False)
    again = re.search(r"run it again: python -m pytest '(.*)' (--swarm-seed=5)", failed)
    assert again
    assert again[1] == "test_example.py::test_fails_by_two_of_three_faults"
    assert "the same seed did not fail again" in once
    assert "the same seed did not fail again" not in failed


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (FAILING_BY_ONE, "it fails with this fault alone:\n  #1 "),
        (FAILING_IN_A_CLASS, "it fails with this fault alone:\n  #1 "),
        (FAILING_ANYWAY, "it fails without any fault\n"),
    ],
)
def test_one_fault_and_none_are_said_as_people_say_it(tmp_path: pathlib.Path, source: str, said: str) -> None:
    assert said in run(tmp_path, source).stdout


def test_shrinking_can_be_switched_off(tmp_path: pathlib.Path) -> None:
    failed = run(tmp_path, FAILING, "--swarm-shrink=0").stdout
    assert "last 200 deliveries" in failed
    assert "faults alone" not in failed
