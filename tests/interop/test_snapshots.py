"""A manager that is far behind is sent a snapshot, by each kind of leader to the other kind."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import pytest

from tests.interop.fixtures import Start
from tests.interop.peers import Dockerd, Peer, Swarmlet
from tests.interop.test_managers import agreed_leader, create_at, swarm_of, task_at
from tests.waiting import until

KEPT, INTERVAL, WRITES = 10, 40, 150


class LoudDockerd(Dockerd):
    """It says what it sends to whom."""

    def command(self) -> list[str]:
        return [*super().command(), "--debug"]


def keep_little(manager: Peer) -> None:
    """Snapshots come often, and few entries are kept behind them."""
    cluster = manager.get("/swarm")
    spec = cluster["Spec"]
    spec["Raft"] |= {"SnapshotInterval": INTERVAL, "LogEntriesForSlowFollowers": KEPT}
    status, answer = manager.call("POST", f"/swarm/update?version={cluster['Version']['Index']}", spec)
    assert status == 200, answer


def write(manager: Peer, first: int, count: int) -> None:
    """So many entries: configs of 40 KiB each, so that a snapshot of them needs more than one message."""
    data = base64.b64encode(b"x" * (40 << 10)).decode()
    for number in range(first, first + count):
        status, answer = manager.call("POST", "/configs/create", {"Name": f"c{number}", "Data": data})
        assert status == 201, answer


def configs(manager: Peer) -> set[str]:
    return {config["Spec"]["Name"] for config in manager.get("/configs")}


def sent_a_snapshot(leader: Peer, receiver: Peer) -> bool:
    """Which of the two is a dockerd says so in its log."""
    if isinstance(leader, Dockerd):
        return "sent snapshot" in leader.log.read_text(encoding="utf-8")
    return "restored snapshot" in receiver.log.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param((Swarmlet, Swarmlet, LoudDockerd), id="swarmlet-to-dockerd"),
        pytest.param((LoudDockerd, LoudDockerd, Swarmlet), id="dockerd-to-swarmlet"),
    ],
)
def test_a_member_far_behind_gets_a_snapshot(start: Start, kinds: Sequence[type[Peer]]) -> None:
    managers = swarm_of(start, *kinds)
    leader, second, behind = managers
    keep_little(leader)
    create_at(leader, "web", behind)
    task_at(leader, "web", behind)
    behind.kill()
    write(leader, 0, WRITES)
    assert not sent_a_snapshot(leader, behind)
    behind.start()
    until(lambda: sent_a_snapshot(leader, behind), "a snapshot is sent", 60)
    until(lambda: behind.call("GET", "/configs")[0] == 200 and len(configs(behind)) == WRITES, "it caught up", 60)
    assert configs(behind) == configs(leader) == configs(second)
    write(behind, WRITES, 5)  # and goes on with entries
    until(lambda: configs(second) == configs(behind) == configs(leader), "entries follow the snapshot")
    assert agreed_leader(managers) is leader
    for number, manager in enumerate(managers):  # a leader of either kind confirms reads of ours
        write(leader, WRITES + 5 + number, 1)
        if isinstance(manager, Swarmlet):
            assert len(manager.get("/configs?consistent=true")) == WRITES + 6 + number
    leader.wait_state(behind, "ready", 60)
    leader.wait_tasks("web", 1, at=behind)
    behind.stop()
    behind.start()  # what it was sent lasts
    until(lambda: behind.call("GET", "/configs")[0] == 200 and len(configs(behind)) == WRITES + 8, "it has all", 60)
