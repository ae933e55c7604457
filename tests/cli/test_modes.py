"""``docker service create`` of each mode against a daemon, until the command line itself says that it is done."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from swarmlet.host import free_port
from tests.cli.test_face import Daemon

DOCKER = next(
    (path for path in ("/usr/local/bin/docker", shutil.which("docker") or "") if os.access(path, os.X_OK)), ""
)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not DOCKER, reason="no docker command line on this machine")]


@pytest.fixture
def docker(tmp_path: pathlib.Path) -> Iterator[Callable[..., str]]:
    daemon = Daemon(tmp_path)
    daemon.start()
    daemon.until_listening()
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DOCKER_HOST": f"unix://{daemon.socket}"}

    def run(*arguments: str) -> str:
        done = subprocess.run([DOCKER, *arguments], capture_output=True, text=True, timeout=60, env=env, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    here = f"127.0.0.1:{free_port('127.0.0.1')}"
    run("swarm", "init", "--advertise-addr", here, "--listen-addr", here)
    yield run
    daemon.end()


def listed(docker: Callable[..., str]) -> list[str]:
    return docker("service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}").splitlines()


def test_a_global_service_converges_and_is_updated(docker: Callable[..., str]) -> None:
    assert "converged" in docker("service", "create", "--name", "g", "--mode", "global", "host", "run", "on")
    assert listed(docker) == ["g global 1/1"]
    assert "converged" in docker("service", "update", "--force", "g")
    assert "update completed" in docker("service", "inspect", "g", "--format", "{{.UpdateStatus.Message}}")
    docker("service", "rm", "g")


def test_jobs_run_to_completion_and_again(docker: Callable[..., str]) -> None:
    job = ["--name", "j", "--mode", "replicated-job", "--replicas", "3", "--max-concurrent", "2", "host", "sleep", "1"]
    assert "job complete" in docker("service", "create", *job)
    everywhere = docker("service", "create", "--name", "k", "--mode", "global-job", "host", "sleep", "1")
    assert "job complete" in everywhere
    assert listed(docker) == ["j replicated job 0/2 (3/3 completed)", "k global job 0/0 (1/1 completed)"]
    assert "job complete" in docker("service", "update", "--force", "j")
    names = docker("service", "ps", "j", "--format", "{{.CurrentState}}").splitlines()
    assert len(names) == 6
    assert all(state.startswith("Complete") for state in names)
    assert docker("service", "inspect", "j", "--format", "{{.JobStatus.JobIteration.Index}}") == "1\n"
