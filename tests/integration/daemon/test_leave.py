"""A daemon that leaves its swarm and founds another one has tasks as before: they end when they are to, and with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.daemon.program import Daemon, service
from tests.processes import marked


@pytest.mark.parametrize("ending", ["removed", "stopped", "killed and removed"])
def test_tasks_of_the_next_swarm_end_when_they_are_to(tmp_path: Path, ending: str) -> None:
    daemon = Daemon(tmp_path / "d", "127.0.0.1", "--stop-tasks-on-exit")
    daemon.start()
    mark = f"MARK={daemon.root}"
    made = service("web", 2, "sleep", "100000", env={"MARK": str(daemon.root)})
    try:
        for _ in range(2):
            daemon.init()
            assert daemon.call("POST", "/services/create", made)[0] == 201
            daemon.wait_running("web", 2)
            assert len(marked(mark)) == 2
            if ending == "killed and removed":
                daemon.kill()
                daemon.restart()
                daemon.wait_running("web", 2)
            assert daemon.call("POST", "/swarm/leave?force=1")[0] == 200
            assert marked(mark) == []
        daemon.init()
        assert daemon.call("POST", "/services/create", made)[0] == 201
        daemon.wait_running("web", 2)
        if ending != "stopped":
            assert daemon.call("DELETE", "/services/web")[0] == 200
            daemon.until(lambda: marked(mark) == [], "no task is left")
    finally:
        assert daemon.process is not None
        if daemon.process.poll() is None:
            daemon.stop()
    assert marked(mark) == []
