"""The drills of the recovery page on machines of their own: a lost quorum, and a backup brought to another machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.fixtures import Start
from tests.interop.peers import Peer, Swarmlet
from tests.interop.test_failures import LOST, manages, reachable
from tests.interop.test_managers import create_at, swarm_of, task_at
from tests.waiting import until

pytestmark = pytest.mark.slow


def swarmlet(*arguments: str | Path) -> str:
    """One of our own commands, which must succeed; what it printed."""
    code, out, err = try_swarmlet(*arguments)
    assert code == 0, f"{arguments}: {err}"
    return out


def try_swarmlet(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, output, errors of one."""
    program = Path(sys.executable).with_name("swarmlet")
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, timeout=60, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def data(peer: Peer) -> Path:
    return peer.root / "data"


def secrets(at: Peer) -> list[str]:
    return sorted(at.docker("secret", "ls", "--format", "{{.Name}}").split())


def a_swarm(start: Start) -> list[Peer]:
    """Three managers and a worker that runs a task, and a secret ``s1``."""
    managers = swarm_of(start, Swarmlet, Swarmlet, Swarmlet)
    worker = start(Swarmlet, "worker")
    worker.join(managers[1])
    managers[0].wait_state(worker, "ready")
    create_at(managers[0], "web", worker)
    task_at(managers[0], "web", worker)
    write_secret(managers[2], "s1")
    return [*managers, worker]


def write_secret(at: Peer, name: str) -> None:
    path = at.root / name
    path.write_text("secret\n")
    at.docker("secret", "create", name, str(path))


def test_of_a_lost_quorum_the_newest_log_makes_a_new_cluster_and_tasks_run_on(start: Start) -> None:
    first, second, third, worker = a_swarm(start)
    task = task_at(first, "web", worker)
    second.kill()
    write_secret(first, "s2")  # the second manager has never seen it
    third.kill()
    until(lambda: LOST in first.try_docker("network", "create", "--driver", "overlay", "n")[2], "nobody leads")
    first.stop()

    shown = swarmlet("recover", data(second), data(first))
    assert f"The new cluster would be made of {data(first)}." in shown
    assert "Nothing was changed" in shown
    assert "Done" in swarmlet("recover", data(second), data(first), "--yes")

    first.start()
    until(lambda: manages(first), "it manages again")
    assert secrets(first) == ["s1", "s2"]
    first.wait_state(worker, "ready", 60)  # it tries one of three managers every 8 s by now
    assert task_at(first, "web", worker) == task, "the recovery replaced a task"
    write_secret(first, "s3")
    second.start()
    second.docker("swarm", "leave", "--force")
    second.join(first, "manager")
    until(lambda: manages(second), "the second is a manager again")
    assert secrets(second) == ["s1", "s2", "s3"]
    for line in first.docker("node", "ls", "--format", "{{.ID}} {{.Hostname}} {{.Status}}").splitlines():
        node_id, _, status = line.replace(" *", "").split()
        if status != "Ready":
            first.docker("node", "rm", "--force", node_id)
    assert reachable(first) == {first.name: "Leader", second.name: "Reachable", worker.name: ""}


def test_of_a_lost_swarm_a_backup_makes_a_new_one_on_another_machine(start: Start, tmp_path: Path) -> None:
    first, second, third, worker = a_swarm(start)
    backup = tmp_path / "saved"
    said = swarmlet("backup", backup, "--socket", second.root / "x" / "introspection.sock")
    assert "one of 3" in said
    write_secret(first, "too-late")
    for peer in (first, second, third):
        peer.kill()

    another = start(Swarmlet, "another")
    another.stop()
    shutil.rmtree(data(another))
    code, _, refused = try_swarmlet("restore", backup, "--data-root", data(another))
    assert (code, "--as-new-cluster" in refused) == (1, True), refused
    swarmlet("restore", backup, "--data-root", data(another), "--as-new-cluster")
    another.start()
    until(lambda: manages(another), "it manages")
    another.docker("swarm", "init", "--force-new-cluster", "--advertise-addr", another.address)
    assert secrets(another) == ["s1"]
    assert f"{another.address}:2377" in another.docker("swarm", "join-token", "worker")
    worker.docker("swarm", "leave")
    worker.join(another)
    another.wait_tasks("web", 1)
