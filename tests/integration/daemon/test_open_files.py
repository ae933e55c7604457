"""How many files a daemon and its tasks may open."""

from __future__ import annotations

import resource
from pathlib import Path

from tests.integration.daemon.program import Daemon, service


def soft_limit(pid: int) -> str:
    """Of open files, as the kernel shows it."""
    limits = Path(f"/proc/{pid}/limits").read_text(encoding="utf-8").splitlines()
    return next(line.split()[3] for line in limits if line.startswith("Max open files"))


def test_a_daemon_takes_all_files_that_it_may_and_its_tasks_keep_the_limit_that_it_was_started_with(
    tmp_path: Path,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    daemon = Daemon(tmp_path / "d", "127.0.0.1", "--stop-tasks-on-exit")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))
    try:
        daemon.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        daemon.init()
        status, answer = daemon.call("POST", "/services/create", service("web", 1, "sleep", "1000"))
        assert status == 201, answer
        (pid,) = daemon.wait_running("web", 1).values()
        assert daemon.process is not None
        assert soft_limit(daemon.process.pid) == str(hard)
        assert soft_limit(pid) == str(min(1024, hard))
    finally:
        daemon.stop()
