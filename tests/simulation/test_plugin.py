"""The pytest plugin: what a failed test's report says can be run again by its commands, and fails in the same way."""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from swarmlet.testing import attempts
from swarmlet.testing.attempts import Attempt, Failure, fewer, heard, said

SOURCE = """
import pytest
from swarmlet import TestCluster

ran, tried = [], []

def down(c, node):
    return c.swarm.host(node).stage is None

def test_by_two_of_three(swarm):
    c = swarm(managers=1, workers=2)
    c.skew("manager-1", 1)
    c.crash("worker-1")
    c.pause("worker-2", 1)
    c.advance(1)
    print("heard once")
    assert not down(c, "worker-1") or c.swarm.host("manager-1").clock.skew == 0

class TestApplication:
    def test_by_one(self, swarm):
        c = swarm(workers=1)
        c.skew("manager-1", 1)
        c.crash("worker-1")
        assert not down(c, "worker-1")

def test_anyway(swarm):
    c = swarm()
    c.skew("manager-1", 1)
    pytest.fail("said so")

def test_once(swarm):
    c = swarm()
    c.skew("manager-1", 1)
    ran.append(1)
    assert len(ran) > 1

def test_otherwise(swarm):
    c = swarm()
    c.skew("manager-1", 1)
    tried.append(1)
    assert len(tried) > 1
    raise ValueError("another")

@pytest.mark.parametrize("name", ["it's"])
def test_with_a_directory_of_its_own(swarm, name, tmp_path):
    c = swarm(workers=1)
    (tmp_path / "made").mkdir()
    c.crash("worker-1")
    c.skew("manager-1", 1)
    assert c.swarm.host("manager-1").clock.skew == 0

@pytest.fixture(scope="module")
def costly():
    ran.append("costly")
    yield
    ran.append("ended")

@pytest.fixture
def mine(swarm, costly):
    c = swarm(workers=1)
    c.skew("worker-1", 1)
    return c

def test_by_a_fixture_of_its_own(mine):
    mine.crash("worker-1")
    assert not down(mine, "worker-1")
    assert ran.count("costly") == 1

@pytest.fixture
def broken(mine):
    mine.crash("worker-1")
    assert not down(mine, "worker-1")

def test_not_even_set_up(broken):
    pass

def test_two_clusters(swarm):
    one, two = swarm(), swarm(workers=1)
    one.skew("manager-1", 1)
    two.skew("manager-1", 1)
    two.crash("worker-1")
    assert not down(two, "worker-1")

def test_a_block():
    print("heard of a block once")
    with TestCluster(workers=1) as c:
        c.skew("manager-1", 1)
        c.crash("worker-1")
        assert not down(c, "worker-1")

@pytest.fixture(scope="module")
def shared():
    with TestCluster(workers=1) as c:
        yield c

def test_a_shared_cluster(shared):
    shared.crash("worker-1")
    assert not down(shared, "worker-1")

def test_a_block_that_ended_is_told_of():
    with TestCluster(workers=1, seed=9) as c:
        c.skew("manager-1", 1)
    assert c.faults == []

@pytest.mark.xfail(strict=True)
def test_that_is_to_fail(swarm):
    swarm().skew("manager-1", 1)
    assert False

def test_nothing_is_left_of_costly_fixtures(costly):
    assert ran.count("costly") == 1 + ran.count("ended")
"""
UNNEEDED = " ".join(f"-p no:{name}" for name in ("cacheprovider", "schemathesis", "hypothesispytest", "xdist"))


def run(directory: pathlib.Path, *options: str) -> str:
    return typed(directory, shlex.join([sys.executable, "-m", "pytest", *options]))


def typed(directory: pathlib.Path, command: str) -> str:
    """What a person's shell shows; plugins that are not needed cost time."""
    others = ("PYTEST_", "SWARMLET_", "FORCE_COLOR", "PY_COLORS", "COLUMNS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    ran = subprocess.run(
        f"{command} -q -p swarmlet.testing.plugin {UNNEEDED}",
        shell=True,
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    return ran.stdout + ran.stderr


def in_full(output: str) -> str:
    """Without pytest's summary: where ``CI`` is set, it says the failures in full once more."""
    return output[: output.rindex("= short test summary info =")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A project of somebody's, whose tests are in a directory of their own."""
    top = tmp_path_factory.mktemp("project")
    (top / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (top / "tests").mkdir()
    (top / "tests" / "test_app.py").write_text(SOURCE, encoding="utf-8")
    return top


@pytest.fixture(scope="module")
def output(project: pathlib.Path) -> str:
    return run(project / "tests", "--swarm-seed=5")


@pytest.fixture(scope="module")
def reports(output: str) -> dict[str, str]:
    """Of each test that failed, by its name."""
    parts = re.split(r"^_+ (?:ERROR at setup of )?(\S+) _+$", in_full(output), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_failure_is_reported_and_nothing_else_is(output: str, reports: dict[str, str]) -> None:
    assert len(reports) == 12
    assert "11 failed, 1 passed, 1 xfailed, 1 error" in output
    assert "INTERNALERROR" not in output


def test_a_report_has_the_seed_the_faults_the_last_deliveries_and_a_command(reports: dict[str, str]) -> None:
    report = reports["test_by_two_of_three"]
    assert "seed 5, 1 managers and 2 workers, after " in report
    faults = report[report.index("faults (3):") : report.index("last 200 deliveries:")]
    assert [kind in faults for kind in ("skew", "crash worker-1", "pause worker-2")] == [True] * 3
    assert len(re.findall(r"^  \d+\.\d{6} \S+ ", report, re.MULTILINE)) == 200


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ("test_by_two_of_three", ["it fails with these 2 faults alone:", "#0 skew", "#1 crash", "=2"]),
        ("TestApplication.test_by_one", ["it fails with this fault alone:", "#1 crash", "=0"]),
        ("test_anyway", ["it fails without any fault", "=0"]),
        ("test_with_a_directory_of_its_own[it's]", ["it fails with this fault alone:", "#1 skew", "=0"]),
        ("test_by_a_fixture_of_its_own", ["it fails with this fault alone:", "#1 crash", "=0"]),
        ("test_not_even_set_up", ["it fails with this fault alone:", "#1 crash", "=0"]),
        ("test_two_clusters", ["it fails with this fault alone:", "swarm 1: #1 crash", "=0,1.0"]),
        ("test_a_block", ["it fails with this fault alone:", "#1 crash", "=0"]),
    ],
)
def test_the_faults_are_said_that_a_failure_takes(reports: dict[str, str], test: str, said: list[str]) -> None:
    lines = reports[test].partition("swarm with fewer faults")[2].partition("\n")[2].splitlines()
    found = [re.sub(r"(#\d+) [\d.]+", r"\1", line) for line in lines[: len(said)]]
    assert all(part in line for part, line in zip(said, found, strict=True)), found
    assert found[-1].endswith(f" --swarm-seed=5 --swarm-skip{said[-1]}")


def test_what_a_test_prints_while_it_is_run_again_is_not_heard(output: str) -> None:
    assert [output.count(line) for line in ("\nheard once\n", "\nheard of a block once\n")] == [1, 1]


def test_a_failure_that_does_not_come_again_is_not_said_to_take_fewer_faults(reports: dict[str, str]) -> None:
    assert "the same seed did not fail again; the test depends on something outside" in reports["test_once"]
    other = reports["test_otherwise"]
    assert re.search(r"the same seed failed otherwise: ValueError in line \d+ of test_app.py; ", other)


def test_a_cluster_that_other_tests_have_too_is_told_no_fault_twice(reports: dict[str, str]) -> None:
    report = reports["test_a_shared_cluster"]
    assert "faults (1):\n  #0 " in report
    assert "its cluster was made by a fixture" in report


def test_a_block_that_ended_well_is_not_kept(reports: dict[str, str]) -> None:
    assert "swarm" not in reports["test_a_block_that_ended_is_told_of"].partition("AssertionError")[2]


def deliveries(report: str) -> list[str]:
    return re.findall(r"^(?:E  )? +(\d+\.\d{6} \S+ .*)$", report, re.MULTILINE)


def test_the_commands_of_a_report_fail_again_in_the_same_way(project: pathlib.Path, reports: dict[str, str]) -> None:
    for test, prefix in (
        ("test_with_a_directory_of_its_own[it's]", "run it again: "),
        ("test_with_a_directory_of_its_own[it's]", "run it so: "),
        ("test_a_block", "run it again: "),
    ):
        (command,) = re.findall(rf"^(?:E +)?{prefix}(.*)$", reports[test], re.MULTILINE)
        ran = typed(project / "tests", command)
        assert "1 failed" in ran, ran
        if prefix == "run it again: ":
            assert deliveries(in_full(ran)) == deliveries(reports[test]) != []
        else:
            assert "(left out)" in ran


def test_shrinking_can_be_switched_off(project: pathlib.Path) -> None:
    failed = in_full(run(project, "--swarm-shrink=0", "-k", "by_two_of_three or by_a_fixture"))
    assert failed.count("last 200 deliveries") == 2
    assert "with fewer faults" not in failed


def test_numbers_of_faults_are_heard_as_they_are_said() -> None:
    faults = frozenset({(0, 3), (0, 12), (1, 2), (2, 0)})
    assert said(faults) == "3,12,1.2,2.0"
    assert heard(said(faults)) == faults
    assert heard("") == frozenset()
    for text in ("x", "1.", "-", "1;2"):
        with pytest.raises(ValueError, match="invalid literal"):
            heard(text)


def test_an_attempt_without_faults_or_without_a_failure_is_not_run_again() -> None:
    def unasked(_attempt: Attempt) -> None:
        raise AssertionError("it is not run")

    assert fewer(Attempt("x"), unasked, 5) == ""
    assert fewer(Attempt("x", failure=Failure("call", "ValueError", "a.py", 1)), unasked, 5) == ""


def test_this_run_of_a_test_is_the_one_under_way(request: pytest.FixtureRequest) -> None:
    if request.config.pluginmanager.hasplugin("swarmlet.testing.plugin"):
        assert attempts.current is not None
        assert attempts.current.command.endswith(request.node.name)
