"""Managers that lock themselves: keys on the disk, restarts, unlocking, changes of both keys with crashes between."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from runtime.errors import Refused
from runtime.failpoints import armed
from runtime.pki.key_file import KeyFile, decode_key_file, is_encrypted
from runtime.pki.unlock_key import parse_unlock_key
from runtime.protocol import cluster as say
from runtime.protocol.cluster import ClusterError, Info, Init, InitRequest, Inspect, Leave, Unlock, UnlockKey, Update
from runtime.wire.pb import control_pb2, objects_pb2
from tests.simulation.cluster import Host, Swarm, replicated, worker_token

KEY_FILE = "certificates/swarm-node.key"


def a_manager(seed: int = 1, workers: int = 0, *, locked: bool = True) -> tuple[Swarm, Host]:
    swarm = Swarm(seed, workers + 1)
    manager, *others = swarm.boot()
    message = manager.init_message()
    request: InitRequest = dataclasses.replace(message.request, auto_lock_managers=locked)
    manager.ask(Init(request))
    for other in others:
        other.join(manager, worker_token(manager))
    swarm.simulator.run_for(30.0)
    return swarm, manager


def key_of(manager: Host) -> str:
    return str(manager.ask(UnlockKey()))


def update(manager: Host, *, lock: bool | None = None, rotate: bool = False) -> None:
    cluster: objects_pb2.Cluster = manager.ask(Inspect())
    if lock is not None:
        cluster.spec.encryption_config.auto_lock_managers = lock
    rotation = control_pb2.KeyRotation(manager_unlock_key=rotate)
    manager.ask(Update(cluster.meta.version.index, cluster.spec, rotation))
    manager.swarm.simulator.run_for(30.0)


def key_file(manager: Host) -> bytes:
    data = manager.disk.files.read(KEY_FILE)
    assert data is not None
    return data


def content(manager: Host, key: str) -> KeyFile:
    return decode_key_file(key_file(manager), parse_unlock_key(key))


def restart(manager: Host) -> None:
    manager.crash()
    manager.swarm.simulator.run_for(1.0)
    manager.boot()
    manager.swarm.simulator.run_for(5.0)


def unlock(manager: Host, key: str) -> None:
    manager.ask(Unlock(key))


def refusal(manager: Host, message: Any) -> ClusterError:
    with pytest.raises(ClusterError) as caught:
        manager.ask(message)
    return caught.value


def test_an_init_with_autolock_leaves_no_key_in_clear_and_its_restart_is_locked() -> None:
    swarm, manager = a_manager()
    key = key_of(manager)
    assert is_encrypted(key_file(manager))
    keys = content(manager, key).data_keys
    assert keys is not None
    assert (keys.pending, keys.needs_rotation) == (b"", False)
    restart(manager)
    assert manager.state() == "locked"
    swarm.simulator.run_for(600.0)
    assert manager.state() == "locked"


def test_a_locked_node_listens_nowhere_knows_nothing_and_says_so_to_everybody() -> None:
    _, manager = a_manager(workers=1)
    restart(manager)
    info = manager.ask(Info())
    assert (info.node_id, info.control_available, info.cluster, info.remote_managers) == ("", False, None, ())
    for question in (Inspect(), UnlockKey(), say.Control("ListNodes", control_pb2.ListNodesRequest())):
        error = refusal(manager, question)
        assert (error.kind, error.text) == ("unavailable", say.LOCKED)
    assert refusal(manager, manager.init_message()).text == say.SWARM_EXISTS
    assert manager.stage is not None
    assert manager.stage.at("/cluster/node/manager").resolve() is None


@pytest.mark.parametrize(
    ("key", "kind", "text"),
    [
        ("bogus", "invalid", "invalid key string"),
        ("SWMKEY-1-" + "A" * 43, "unauthorized", say.WRONG_UNLOCK_KEY),
    ],
)
def test_a_wrong_key_does_not_unlock_and_the_right_one_does_afterwards(key: str, kind: str, text: str) -> None:
    swarm, manager = a_manager()
    right = key_of(manager)
    restart(manager)
    error = refusal(manager, Unlock(key))
    assert (error.kind, error.text) == (kind, text)
    assert manager.state() == "locked"
    unlock(manager, right)
    assert manager.state() == "active"
    swarm.simulator.run_for(10.0)
    assert key_of(manager) == right
    assert refusal(manager, Unlock(right)).kind == "conflict"


def test_a_locked_node_is_left_by_force_alone_and_can_begin_anew() -> None:
    swarm, manager = a_manager()
    service = manager.control("CreateService", spec=replicated("web", 1)).service.id
    swarm.wait_running(manager, service, 1)
    restart(manager)
    assert refusal(manager, Leave(False)).text == say.LEAVE_LOCKED
    assert len(manager.executor.running) == 1
    manager.ask(Leave(True))
    assert manager.executor.running == []
    assert manager.state() == "inactive"
    manager.init()
    assert manager.state() == "active"


def test_tasks_outlive_a_locked_restart() -> None:
    swarm, manager = a_manager(workers=2)
    service = manager.control("CreateService", spec=replicated("web", 3)).service.id
    before = {task.id for task in swarm.wait_running(manager, service, 3)}
    key = key_of(manager)
    restart(manager)
    swarm.simulator.run_for(20.0)
    unlock(manager, key)
    after = swarm.wait_running(manager, service, 3)
    assert {task.id for task in after} == before


def test_locking_later_changes_private_key_and_data_key_which_had_stood_in_clear() -> None:
    _, manager = a_manager(locked=False)
    before = content(manager, "SWMKEY-1-")
    assert not is_encrypted(key_file(manager))
    update(manager, lock=True)
    key = key_of(manager)
    after = content(manager, key)
    assert before.data_keys is not None
    assert after.data_keys is not None
    assert after.data_keys.current != before.data_keys.current
    assert after.key.private_numbers() != before.key.private_numbers()
    restart(manager)
    assert manager.state() == "locked"
    unlock(manager, key)
    assert manager.state() == "active"


def test_a_rotated_unlock_key_replaces_the_old_one_on_the_disk() -> None:
    _, manager = a_manager()
    old = key_of(manager)
    update(manager, rotate=True)
    new = key_of(manager)
    assert new != old
    restart(manager)
    assert refusal(manager, Unlock(old)).text == say.WRONG_UNLOCK_KEY
    unlock(manager, new)
    assert manager.state() == "active"


def test_without_the_lock_a_restart_needs_no_key() -> None:
    _, manager = a_manager()
    update(manager, lock=False)
    assert key_of(manager) == ""
    assert not is_encrypted(key_file(manager))
    restart(manager)
    assert manager.state() == "active"


def test_what_fails_within_a_process_needs_no_key_again() -> None:
    swarm, manager = a_manager()
    assert manager.stage is not None
    for path in ("/cluster/node/certificate", "/cluster/node/manager", "/cluster/node"):
        cell = manager.stage.at(path).resolve()
        assert cell is not None
        cell.control(lambda cell=cell: cell.failed(ValueError("a fault of the test"), None))
        swarm.simulator.run_for(30.0)
        assert manager.state() == "active", path
        assert manager.control("ListNodes").nodes, path


class _Crash(BaseException):
    """The process ends here."""


POINTS = ["dek.before_rotate", "dek.half_reencrypted", "dek.after_rotate", "node.key_written_cert_missing"]


@pytest.mark.parametrize("mode", ["kill", "lost", "torn"])
@pytest.mark.parametrize("point", POINTS)
def test_a_crash_at_any_step_of_locking_loses_nothing(point: str, mode: str) -> None:
    swarm, manager = a_manager(locked=False)
    manager.control("CreateService", spec=replicated("web", 1))
    crashed: list[str] = []

    def crash(name: str) -> None:
        if name == point and not crashed:
            crashed.append(name)
            raise _Crash(name)

    cluster: objects_pb2.Cluster = manager.ask(Inspect())
    cluster.spec.encryption_config.auto_lock_managers = True
    with armed(crash):
        manager.ask(Update(cluster.meta.version.index, cluster.spec, control_pb2.KeyRotation()))
        key = key_of(manager)
        limit = swarm.simulator.time + 60.0
        while not crashed and swarm.simulator.time < limit:
            swarm.simulator.run_for(0.01)
    assert crashed == [point]
    manager.crash(None if mode == "kill" else 3, lose_all=mode == "lost")
    swarm.simulator.run_for(1.0)
    manager.boot()
    swarm.simulator.run_for(5.0)
    if manager.state() == "locked":
        unlock(manager, key)
    swarm.simulator.run_for(30.0)
    assert manager.state() == "active"
    assert [each.spec.annotations.name for each in manager.control("ListServices").services] == ["web"]
    keys = content(manager, key).data_keys
    assert keys is not None
    assert (keys.pending, keys.needs_rotation) == (b"", False)
    restart(manager)
    assert manager.state() == "locked"
    unlock(manager, key)
    assert [each.spec.annotations.name for each in manager.control("ListServices").services] == ["web"]


def test_no_secret_is_shown_by_a_message() -> None:
    with pytest.raises(Refused):
        parse_unlock_key("bogus")
    assert "SWMKEY" not in repr(Unlock("SWMKEY-1-secret"))
