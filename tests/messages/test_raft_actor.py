"""RaftActor with its log, under a real store: a consensus of one over a simulated disk."""

from __future__ import annotations

import random

import pytest

from runtime.disk.data_root import RAFT_DATABASE
from runtime.disk.raft_records import Member
from runtime.errors import Refused
from runtime.failpoints import armed
from runtime.protocol.raft import ChangeDataKey, RaftStatus, SnapshotDropped, StepRaft
from runtime.protocol.store import Write
from runtime.raft.types import Message, MessageType
from runtime.stage import ActorUnavailable
from runtime.store.transaction import Transaction
from runtime.wire.pb import objects_pb2 as pb
from tests.messages.raft_bench import KEY, Bench, create
from tests.unit.raft.test_admission import absurd


def test_a_new_node_becomes_leader_of_a_cluster_of_one_without_waiting_for_an_election_timeout() -> None:
    bench = Bench()
    bench.lead()
    assert bench.simulator.time < 1.0
    status = bench.told[-1]
    assert status.leader == status.raft_id
    assert status.leading
    assert [(each.node_id, each.addr, each.leader) for each in status.members.values()] == [
        ("node-1", "10.0.0.1:2377", True)
    ]


def test_a_write_is_answered_after_it_is_on_disk_and_applied() -> None:
    bench = Bench()
    bench.lead()
    version = bench.simulator.ask(bench.store, Write(create("a")))
    assert bench.ids() == ["a"]
    assert bench.published.view.get(pb.Service, "a").meta.version.index == version  # type: ignore[union-attr]
    bench.cut_power(1)
    bench.boot()
    bench.lead()
    assert bench.ids() == ["a"]


def test_versions_equal_the_last_index_before_the_write_when_nothing_is_in_flight() -> None:
    bench = Bench()
    bench.lead()
    last = bench.raft.node.raft.log.last_index()
    assert bench.simulator.ask(bench.store, Write(create("a"))) == last
    assert bench.simulator.ask(bench.store, Write(create("b"))) == last + 1


def test_writes_that_wait_share_an_append_and_at_most_two_are_in_flight() -> None:
    bench = Bench()
    bench.lead()
    database = bench.disk.image(RAFT_DATABASE).handle
    assert database is not None
    syncs = 0
    plain = database.write

    def counted(*args: object, **kwargs: object) -> None:
        nonlocal syncs
        syncs += 1
        plain(*args, **kwargs)  # type: ignore[arg-type]

    database.write = counted  # type: ignore[method-assign]
    futures = bench.write(*(f"s{number:03}" for number in range(200)))
    most = 0

    def all_done() -> bool:
        nonlocal most
        most = max(most, len(bench.raft._writes))
        return all(future.done for future in futures)

    bench.simulator.run_until(all_done)
    assert len(bench.ids()) == 200
    assert most <= 2
    assert syncs < 100


def test_a_restart_continues_with_the_same_raft_id_in_a_later_term() -> None:
    bench = Bench()
    bench.lead()
    first = bench.told[-1]
    bench.kill()
    bench.boot()
    bench.lead()
    assert bench.told[-1].raft_id == first.raft_id
    assert bench.told[-1].term > first.term


@pytest.mark.parametrize("seed", range(12))
def test_nothing_acknowledged_is_lost_by_power_cuts_at_any_moment(seed: int) -> None:
    bench = Bench(seed)
    rng = random.Random(seed)
    acknowledged: set[str] = set()
    for life in range(5):
        bench.lead()
        futures = {f"{life}-{number}": bench.write(f"{life}-{number}")[0] for number in range(30)}
        for _ in range(rng.randint(0, 400)):
            bench.simulator.step()
        acknowledged |= {id for id, future in futures.items() if future.done}
        bench.cut_power(seed * 100 + life)
        bench.boot()
    bench.lead()
    assert acknowledged <= set(bench.ids())


def test_snapshots_are_taken_by_count_and_the_log_is_compacted_to_the_kept_entries() -> None:
    bench = Bench()
    bench.lead()

    def limits(tx: Transaction) -> None:
        cluster = pb.Cluster(id="c")
        cluster.spec.annotations.name = "default"
        cluster.spec.raft.snapshot_interval = 20
        cluster.spec.raft.log_entries_for_slow_followers = 5
        tx.create(cluster)

    bench.simulator.ask(bench.store, Write(limits))
    bench.simulator.run_for(2)
    for number in range(70):
        bench.simulator.ask(bench.store, Write(create(f"s{number:02}")))
    bench.simulator.run_for(1)
    taken = bench.raft._snapshots.index
    assert taken >= 60
    assert bench.raft._storage.first_index() == taken - 5 + 1
    before = bench.ids()
    bench.cut_power(3)
    bench.boot()
    bench.lead()
    assert bench.ids() == before
    assert bench.raft._storage.first_index() == taken - 5 + 1


def test_a_failing_disk_fails_the_manager_and_writes_get_an_error_not_silence() -> None:
    bench = Bench()
    bench.lead()
    bench.disk.image(RAFT_DATABASE).sync_error_at(0)
    future = bench.write("a")[0]
    bench.simulator.run_until(lambda: future.done)
    with pytest.raises(Exception, match="outcome unknown"):
        future.result(0)
    bench.disk.image(RAFT_DATABASE).heal()
    bench.told.clear()
    bench.lead()
    assert bench.simulator.ask(bench.store, Write(create("b"))) > 0


def test_the_wrong_data_key_is_refused_and_the_log_is_left_as_it_is() -> None:
    bench = Bench()
    bench.lead()
    bench.simulator.ask(bench.store, Write(create("a")))
    bench.kill()
    bench.keys = (bytes(32),)
    bench.boot()
    bench.simulator.run_for(1)
    assert not any(status.leading for status in bench.told)
    assert "data key" in bench.above.resolve().last_error  # type: ignore[union-attr]
    bench.kill()
    bench.keys = (KEY,)
    bench.boot()
    bench.lead()
    assert bench.ids() == ["a"]


def test_an_injected_failure_of_the_log_writer_is_followed_by_a_new_life_with_everything_acknowledged() -> None:
    bench = Bench()
    bench.lead()
    bench.simulator.ask(bench.store, Write(create("a")))

    def crash(name: str) -> None:
        if name == "append.before_write":
            raise RuntimeError(name)

    with armed(crash):
        bench.write("b")
        bench.simulator.run_for(0.05)
    bench.told.clear()
    bench.lead()
    assert "a" in bench.ids()


def test_questions_to_a_store_that_is_down_are_refused() -> None:
    bench = Bench()
    bench.lead()
    bench.stage.at("/manager").resolve().request_stop()  # type: ignore[union-attr]
    bench.simulator.settle()
    with pytest.raises(ActorUnavailable):
        bench.simulator.ask(bench.store, Write(create("a")))


def test_status_is_told_only_when_it_changes() -> None:
    bench = Bench()
    bench.lead()
    count = len(bench.told)
    bench.simulator.run_for(30)
    assert len(bench.told) == count
    assert all(isinstance(each, RaftStatus) for each in bench.told)


def test_a_node_that_comes_back_at_another_address_corrects_its_entry() -> None:
    bench = Bench()
    bench.lead()
    bench.kill()
    bench.addr = "10.0.0.1:4444"
    bench.boot()
    bench.lead()
    bench.simulator.run_for(1)
    (member,) = bench.told[-1].members.values()
    assert member.addr == "10.0.0.1:4444"
    assert bench.simulator.ask(bench.store, Write(create("a"))) > 0


# Another data key

OTHER = bytes(reversed(range(32)))


def test_after_a_change_of_the_data_key_the_log_opens_with_the_new_one_alone() -> None:
    bench = Bench()
    bench.lead()
    for future in bench.write("a", "b"):
        bench.simulator.run_until(lambda future=future: future.done, 5)
    change = bench.stage.at("/manager/raft").ask(ChangeDataKey((OTHER, KEY)))
    bench.simulator.run_until(lambda: change.done, 30)
    change.result(0)
    bench.simulator.ask(bench.store, Write(create("c")))
    bench.kill()
    bench.keys = (OTHER,)
    bench.boot()
    bench.lead()
    assert bench.ids() == ["a", "b", "c"]


def test_writes_go_on_while_the_data_key_changes() -> None:
    bench = Bench()
    bench.lead()
    change = bench.stage.at("/manager/raft").ask(ChangeDataKey((OTHER, KEY)))
    futures = bench.write(*(f"s{number}" for number in range(20)))
    bench.simulator.run_until(lambda: change.done and all(each.done for each in futures), 30)
    bench.cut_power(4)
    bench.keys = (OTHER,)
    bench.boot()
    bench.lead()
    assert len(bench.ids()) == 20


def test_a_crash_before_the_change_is_over_needs_both_keys_and_loses_nothing() -> None:
    bench = Bench()
    bench.lead()
    bench.simulator.ask(bench.store, Write(create("a")))
    bench.stage.at("/manager/raft").tell(ChangeDataKey((OTHER, KEY)))
    bench.write("b")
    bench.simulator.run_for(0.001)
    bench.kill()
    bench.keys = (OTHER, KEY)
    bench.boot()
    bench.lead()
    assert "a" in bench.ids()


def test_a_change_of_the_data_key_whose_snapshot_was_dropped_takes_another_one() -> None:
    """As it is where the leader's snapshot overtakes one of ours."""
    bench = Bench()
    bench.lead()
    bench.simulator.ask(bench.store, Write(create("a")))
    bench.raft._snapshots._running = True  # one is under way
    change = bench.stage.at("/manager/raft").ask(ChangeDataKey((OTHER, KEY)))
    bench.simulator.run_for(1)
    assert not change.done
    bench.stage.at("/manager/raft").tell(SnapshotDropped())
    bench.simulator.run_until(lambda: change.done, 30)
    change.result(0)
    bench.kill()
    bench.keys = (OTHER,)
    bench.boot()
    bench.lead()
    assert bench.ids() == ["a"]


def test_one_change_of_the_data_key_at_a_time() -> None:
    bench = Bench()
    bench.lead()
    first = bench.stage.at("/manager/raft").ask(ChangeDataKey((OTHER, KEY)))
    second = bench.stage.at("/manager/raft").ask(ChangeDataKey((OTHER, KEY)))
    bench.simulator.run_until(lambda: second.done and first.done, 30)
    first.result(0)
    with pytest.raises(Refused, match="cannot be changed now"):
        second.result(0)


def test_a_vote_is_considered_for_members_for_those_that_are_to_be_and_for_who_has_proven_itself() -> None:
    bench = Bench()
    bench.lead()
    raft = bench.raft.node.raft
    bench.raft.roster.expect({8: Member(8, "node-8", "10.0.0.8:2377")})

    def why(sender: int, *, proven: bool = False) -> str:
        before = bench.raft.snapshot()["messages refused"]
        vote = Message(MessageType.VOTE, to=raft.id, from_=sender, term=raft.term + 1, index=99, log_term=raft.term)
        bench.stage.at("/manager/raft").tell(StepRaft(vote, proven=proven))
        bench.simulator.settle()
        assert bench.raft.snapshot()["messages refused"] == before + 1, "this one leads"
        return str(bench.raft.snapshot()["last refusal"])

    assert "nobody known" in why(9)
    assert "there may be a leader" in why(9, proven=True)
    assert "there may be a leader" in why(8)
    bench.raft.roster.remove(8)
    before = bench.raft.snapshot()["messages refused"]
    bench.stage.at("/manager/raft").tell(StepRaft(Message(MessageType.VOTE, to=raft.id, from_=8, term=9), proven=True))
    bench.simulator.settle()
    assert bench.raft.snapshot()["messages refused"] == before, "of who was removed nothing is looked at"
    assert raft.term < 9


@pytest.mark.parametrize("seed", range(6))
def test_no_absurd_message_ends_the_consensus_or_harms_what_is_in_its_log(seed: int) -> None:
    bench = Bench(seed)
    bench.lead()
    for number in range(5):
        bench.simulator.ask(bench.store, Write(create(f"s{number}")))
    rng = random.Random(seed)
    own = bench.raft.node.raft.id
    for _ in range(400):
        message = absurd(rng)
        message.to = own if message.to == 1 else message.to
        bench.stage.at("/manager/raft").tell(StepRaft(message))
        bench.simulator.run_for(rng.choice((0, 0, 0.5)))
    bench.simulator.run_for(60)
    above = bench.above.resolve()
    assert above is not None
    assert above.failures.total == 0
    assert bench.raft.snapshot()["messages refused"] > 100
    assert bench.raft.snapshot()["last refusal"]
    bench.lead()
    bench.simulator.ask(bench.store, Write(create("after")))
    wanted = {*(f"s{number}" for number in range(5)), "after"}
    assert set(bench.ids()) == wanted
    bench.cut_power(seed)
    bench.boot()
    bench.lead()
    assert set(bench.ids()) == wanted
