"""``swarm init --force-new-cluster`` makes a manager whose cluster lost its quorum a new cluster with the old state.

The logs of three members are made by hand: a cluster of one, into whose log two members are written that never were.
"""

from __future__ import annotations

import dataclasses

import pytest

from runtime.disk.data_root import RAFT_DATABASE
from runtime.disk.raft_log import RaftLog
from runtime.disk.sealer import Sealer
from runtime.disk.state_files import NODE_KEY
from runtime.errors import Refused
from runtime.pki.key_file import decode_key_file
from runtime.protocol.cluster import Init, Inspect
from runtime.raft.codec import encode_change
from runtime.raft.confchange import ChangeType, ConfChange
from runtime.raft.types import Entry, EntryType
from runtime.wire.pb import objects_pb2, raft_pb2
from tests.seeded import entropy
from tests.simulation.cluster import Host, Swarm, replicated, worker_token


def open_log(host: Host) -> RaftLog:
    """The log of a host that is down."""
    key_file = host.disk.files.read(NODE_KEY)
    assert key_file is not None
    keys = decode_key_file(key_file, b"").data_keys
    assert keys is not None
    return RaftLog(host.disk.open_database(RAFT_DATABASE), Sealer((keys.current,), entropy(1)))


def lose_two_members(host: Host) -> None:
    """Writes into a stopped manager's log that two others are members, and something that was never committed."""
    log = open_log(host)
    loaded = log.load()
    after, term = loaded.hard_state.commit, loaded.hard_state.term
    entries = []
    for offset, raft_id in enumerate((77, 88), 1):
        member = raft_pb2.RaftMember(raft_id=raft_id, node_id=f"lost-{raft_id}", addr=f"10.0.9.{raft_id}:2377")
        change = ConfChange(((ChangeType.ADD_NODE, raft_id),), context=member.SerializeToString(), v1=True)
        kind, data = encode_change(change)
        entries.append(Entry(term, after + offset, kind, data))
    log.append(entries, dataclasses.replace(loaded.hard_state, commit=after + 2))
    never = raft_pb2.InternalRaftRequest(id=1)  # never committed, and nobody could apply it
    never.action.add(action=raft_pb2.StoreActionKind.STORE_ACTION_UPDATE, service=objects_pb2.Service(id="nobody"))
    log.append([Entry(term, after + 3, EntryType.NORMAL, never.SerializeToString())])
    host.disk.kill()


def force(host: Host) -> Init:
    """``docker swarm init --force-new-cluster``."""
    return Init(dataclasses.replace(host.init_message().request, force_new_cluster=True))


@pytest.mark.parametrize("seed", range(4))
def test_a_survivor_of_three_goes_on_alone_with_its_identity_tokens_services_and_tasks(seed: int) -> None:
    swarm = Swarm(seed, hosts=2)
    manager, worker = swarm.boot()
    node_id = manager.init()
    worker.join(manager, worker_token(manager))
    service = manager.control("CreateService", spec=replicated("web", 3)).service.id
    before = {task.id for task in swarm.wait_running(manager, service, 3)}
    tokens = manager.ask(Inspect()).root_ca.join_tokens
    manager.crash()
    lose_two_members(manager)
    manager.boot()
    swarm.simulator.run_for(60)
    with pytest.raises(Refused):
        manager.control("CreateService", spec=replicated("too late", 1))

    assert manager.ask(force(manager)) == node_id
    assert manager.ask(Inspect()).root_ca.join_tokens == tokens
    assert {task.id for task in swarm.wait_running(manager, service, 3)} == before
    nodes = manager.control("ListNodes").nodes
    assert [node.manager_status.leader for node in nodes if node.HasField("manager_status")] == [True]
    again = manager.control("CreateService", spec=replicated("after", 2)).service.id
    swarm.wait_running(manager, again, 2)

    manager.crash(power=seed)
    manager.boot()
    swarm.simulator.run_for(10)
    swarm.wait_running(manager, again, 2)
    assert manager.state() == "active"


def test_a_failure_of_the_consensus_after_the_order_does_not_carry_it_out_again() -> None:
    swarm = Swarm(5)
    (manager,) = swarm.boot()
    manager.init()
    manager.crash()
    lose_two_members(manager)
    manager.boot()
    manager.ask(force(manager))
    assert manager.stage is not None
    last = manager.stage.cells["/cluster/node/manager/raft/log"].instance.snapshot()["last"]  # type: ignore[union-attr]
    raft = manager.stage.cells["/cluster/node/manager/raft"]
    raft.control(lambda: raft.failed(RuntimeError("injected"), None))
    swarm.simulator.run_for(10)
    manager.control("CreateService", spec=replicated("after", 1))
    manager.crash()
    log = open_log(manager)
    loaded = log.load()
    assert loaded.entries[-1].index > last
    kinds = [entry.type for entry in loaded.entries if entry.index > last]
    assert set(kinds) == {EntryType.NORMAL}


def test_a_manager_alone_may_be_forced_too_and_nothing_is_lost() -> None:
    swarm = Swarm(9)
    (manager,) = swarm.boot()
    node_id = manager.init()
    service = manager.control("CreateService", spec=replicated("web", 2)).service.id
    swarm.wait_running(manager, service, 2)
    assert manager.ask(force(manager)) == node_id
    swarm.wait_running(manager, service, 2)


def test_a_new_machine_that_is_asked_to_force_founds_a_cluster() -> None:
    swarm = Swarm(3)
    (manager,) = swarm.boot()
    assert manager.ask(force(manager))
    assert manager.state() == "active"
