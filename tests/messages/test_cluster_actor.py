"""ClusterActor: init, join, leave, info, one reconfiguration at a time, and what its failures leave alone."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import pytest

from runtime.errors import Code, Refused
from runtime.protocol import cluster as say
from runtime.protocol.cluster import ClusterError, ConfigEvent, ConfigEventKind
from runtime.protocol.node import ManagersKnown, StartConfig
from runtime.stage.probe import Probe
from runtime.swarm.addresses import Interface
from runtime.wire.pb import control_pb2, specs_pb2
from tests.messages.cluster_fakes import Become, ClusterBench, init_request, join_request

SAVED = StartConfig(
    local_addr="10.0.0.5", listen_addr="0.0.0.0:2377", advertise_addr="10.0.0.5:2377", default_address_pool=(),
    subnet_size=24, data_path_port=4789,
)  # fmt: skip


def refused(bench: ClusterBench, message: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        bench.ask(message)
    return caught.value


def test_without_a_swarm_the_node_is_inactive_and_every_manager_call_says_how_to_begin() -> None:
    bench = ClusterBench().mount()
    info = bench.info()
    assert (info.local_node_state, info.node_id, info.control_available, info.error) == ("inactive", "", False, "")
    for message in (say.Inspect(), say.Control("ListNodes", control_pb2.ListNodesRequest()), say.UnlockKey()):
        assert refused(bench, message).text == say.NOT_MANAGER_NO_NODE


def test_init_resolves_addresses_starts_the_node_saves_and_answers_the_node_id() -> None:
    bench = ClusterBench().mount()
    assert bench.init() == "node-id"
    config = bench.behaviour.configs[0]
    assert (config.listen_addr, config.advertise_addr, config.local_addr) == (
        "0.0.0.0:2377", "10.0.0.5:2377", "10.0.0.5",
    )  # fmt: skip
    assert (config.subnet_size, config.data_path_port, config.heartbeat_tick, config.election_tick) == (24, 4789, 1, 10)
    assert bench.state.log == ["clear", "save"]
    assert bench.state.saved is not None
    assert not bench.state.saved.join_in_progress
    info = bench.info()
    assert (info.local_node_state, info.node_addr, info.control_available) == ("active", "10.0.0.5", True)
    assert (info.nodes, info.managers, info.cluster.id) == (2, 1, "cluster-id")


def test_info_carries_what_the_manager_warns_of() -> None:
    bench = ClusterBench().mount()
    bench.init()
    assert bench.info().warnings == ()
    bench.behaviour.warnings = ("WARNING: Service web: update paused",)
    assert bench.info().warnings == bench.behaviour.warnings


def test_info_says_why_the_manager_takes_no_orders_beside_what_it_knows() -> None:
    bench = ClusterBench().mount()
    bench.init()
    bench.behaviour.trouble = "rpc error: code = Unknown desc = nobody leads"
    info = bench.info()
    assert (info.error, info.nodes, info.cluster.id) == (bench.behaviour.trouble, 2, "cluster-id")


def test_init_writes_what_the_request_says_over_the_specs_defaults() -> None:
    bench = ClusterBench()
    assert bench.behaviour.cluster is not None
    bench.behaviour.cluster.spec.raft.snapshot_interval = 10000
    bench.behaviour.cluster.spec.orchestration.task_history_retention_limit = 10
    bench.mount()
    asked = specs_pb2.ClusterSpec()
    asked.raft.log_entries_for_slow_followers = 7
    bench.init(spec=asked, history_limit=0)
    spec = bench.behaviour.updates[0].spec
    assert (spec.raft.snapshot_interval, spec.raft.log_entries_for_slow_followers) == (10000, 7)
    assert spec.orchestration.task_history_retention_limit == 0


def test_a_second_init_or_join_is_refused() -> None:
    bench = ClusterBench().mount()
    bench.init()
    for message in (say.Init(init_request()), say.Join(join_request())):
        error = refused(bench, message)
        assert isinstance(error, ClusterError)
        assert (error.kind, error.text) == ("unavailable", say.SWARM_EXISTS)


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"listen_addr": ""}, "invalid", 'invalid ListenAddr "": invalid empty address'),
        ({"advertise_addr": "0.0.0.0"}, "invalid", "advertise address must be a non-zero IP address or network"),
        ({"subnet_size": 30, "default_addr_pool": ("10.0.0.0/8",)}, "plain", "subnet size is out of range: 30"),
        ({"data_path_port": 80}, "plain", "Datapath port number is not in valid range (1024-49151) : 80"),
        ({"availability": "bogus"}, "plain", 'invalid Availability: "bogus"'),
    ],
)
def test_a_bad_init_is_refused_before_anything_happens(change: dict[str, Any], kind: str, text: str) -> None:
    bench = ClusterBench().mount()
    error = refused(bench, say.Init(init_request(**change)))
    assert error.text.startswith(text)
    if isinstance(error, ClusterError):
        assert error.kind == kind
    assert (bench.behaviour.configs, bench.state.log) == ([], [])
    assert bench.init() == "node-id"


def test_an_ambiguous_system_address_is_refused_and_the_daemons_default_settles_it() -> None:
    cards = (Interface("a", (ipaddress.ip_address("10.0.0.1"),)), Interface("b", (ipaddress.ip_address("10.1.0.1"),)))
    error = refused(ClusterBench(interfaces=lambda: cards).mount(), say.Init(init_request()))
    assert error.text.startswith("could not choose an IP address to advertise since this system has multiple addresses")
    bench = ClusterBench(interfaces=lambda: cards, default_advertise_addr="b").mount()
    bench.init()
    assert bench.behaviour.configs[0].advertise_addr == "10.1.0.1:2377"


def test_an_init_that_fails_answers_its_reason_and_leaves_nothing() -> None:
    bench = ClusterBench()
    busy = (
        "manager stopped: failed to listen on remote API address: listen tcp 0.0.0.0:2377: bind: address already in use"
    )
    bench.behaviour.fail_with = [Refused(Code.UNKNOWN, busy)]
    bench.mount()
    assert refused(bench, say.Init(init_request())).text == busy
    assert bench.state.saved is None
    assert bench.info().local_node_state == "inactive"
    assert bench.init() == "node-id"


def test_a_forced_init_stops_the_manager_that_runs_keeps_its_state_and_starts_it_with_an_order() -> None:
    bench = ClusterBench().mount()
    bench.init()
    assert bench.init(force_new_cluster=True) == "node-id"
    first, second = bench.behaviour.configs
    assert (first.force_new_cluster, bool(second.force_new_cluster)) == ("", True)
    assert bench.state.log == ["clear", "save", "save"]
    assert bench.info().local_node_state == "active"
    assert bench.init(force_new_cluster=True) == "node-id"
    assert bench.behaviour.configs[2].force_new_cluster != second.force_new_cluster


def test_a_forced_init_that_asks_for_something_wrong_does_not_stop_the_manager() -> None:
    bench = ClusterBench().mount()
    bench.init()
    assert refused(bench, say.Init(init_request(force_new_cluster=True, advertise_addr="0.0.0.0"))).text
    assert len(bench.behaviour.configs) == 1
    assert bench.info().local_node_state == "active"


def test_a_worker_cannot_force_a_new_cluster() -> None:
    bench = ClusterBench()
    bench.behaviour.manager = False
    bench.mount()
    bench.ask(say.Join(join_request()))
    error = refused(bench, say.Init(init_request(force_new_cluster=True)))
    assert (error.text, len(bench.behaviour.configs)) == (say.NOT_MANAGER_WORKER, 1)


def test_a_forced_init_that_fails_keeps_the_state_and_says_so() -> None:
    bench = ClusterBench(SAVED)
    bench.behaviour.ready_at_once = False
    bench.mount()
    assert bench.info().local_node_state == "pending"
    bench.behaviour.fail_with = [Refused(Code.UNKNOWN, "the log is damaged")]
    assert refused(bench, say.Init(init_request(force_new_cluster=True))).text == "the log is damaged"
    assert "clear" not in bench.state.log
    assert (bench.info().local_node_state, bench.info().error) == (
        "error", "rpc error: code = Unknown desc = the log is damaged",
    )  # fmt: skip
    assert refused(bench, say.Init(init_request())).text == say.SWARM_EXISTS
    bench.behaviour.ready_at_once = True
    assert bench.init(force_new_cluster=True) == "node-id"


def test_the_cluster_object_may_take_its_time_but_not_for_ever() -> None:
    bench = ClusterBench()
    bench.behaviour.cluster = None
    bench.mount()
    assert refused(bench, say.Init(init_request())).text == "the cluster object did not appear"
    assert bench.info().local_node_state == "active"


def test_a_spec_that_is_refused_is_told_and_the_node_stays_up() -> None:
    bench = ClusterBench()
    bench.behaviour.update_error = Refused(Code.INVALID_ARGUMENT, "minimum certificate expiry time is: 1h0m0s")
    bench.mount()
    assert "minimum certificate expiry" in refused(bench, say.Init(init_request())).text
    assert bench.info().local_node_state == "active"


def test_reads_are_answered_while_an_init_is_under_way_and_other_reconfigurations_wait() -> None:
    bench = ClusterBench()
    bench.behaviour.ready_at_once = False
    bench.mount()
    init = bench.cluster.ask(say.Init(init_request()))
    bench.simulator.run_for(1)
    assert bench.info().local_node_state == "pending"
    leave = bench.cluster.ask(say.Leave(force=True))
    bench.simulator.run_for(1)
    assert not init.done
    assert not leave.done
    bench.stage.at("/cluster/node").tell(Become(ready=True))
    bench.simulator.run_until(lambda: leave.done)
    assert init.result(0) == "node-id"
    assert leave.result(0) is None
    assert bench.info().local_node_state == "inactive"


def test_a_worker_joins_by_token_and_says_that_it_is_no_manager() -> None:
    bench = ClusterBench()
    bench.behaviour.manager = False
    bench.mount()
    bench.ask(say.Join(join_request()))
    config = bench.behaviour.configs[0]
    assert (config.join_addr, config.join_token, config.advertise_addr) == ("10.0.0.1:2377", "SWMTKN-1-secret", "")
    assert "SWMTKN" not in repr(config)
    saved = bench.state.saved
    assert saved is not None
    assert (saved.remote_addr, saved.join_in_progress, saved.join_token) == ("10.0.0.1:2377", False, "")
    assert refused(bench, say.Inspect()).text == say.NOT_MANAGER_WORKER


def test_info_lists_the_managers_that_the_node_knows_now() -> None:
    bench = ClusterBench()
    bench.behaviour.manager = False
    bench.mount()
    bench.ask(say.Join(join_request()))
    for known in ((("", "10.0.0.1:2377"),), (("m1", "10.0.0.1:2377"), ("m2", "10.0.0.2:2377"))):
        bench.cluster.tell(ManagersKnown(known))
        assert [(each.node_id, each.addr) for each in bench.info().remote_managers] == list(known)
    bench.ask(say.Leave(force=False))
    assert bench.info().remote_managers == ()


def test_a_join_without_an_address_is_refused() -> None:
    error = refused(ClusterBench().mount(), say.Join(join_request(remote_addrs=())))
    assert error.text == "at least 1 RemoteAddr is required to join"


def test_a_join_that_takes_over_20_s_is_answered_and_goes_on() -> None:
    bench = ClusterBench()
    bench.behaviour.ready_at_once = bench.behaviour.manager = False
    bench.mount()
    assert refused(bench, say.Join(join_request())).text == say.JOIN_TIMEOUT
    assert 20.0 <= bench.simulator.time < 20.1
    assert bench.info().local_node_state == "pending"
    bench.stage.at("/cluster/node").tell(Become(ready=True))
    bench.simulator.run_for(1)
    assert bench.info().local_node_state == "active"
    assert bench.state.saved is not None
    assert not bench.state.saved.join_in_progress


def test_a_join_that_fails_answers_its_reason_and_leaves_nothing() -> None:
    bench = ClusterBench()
    bench.behaviour.fail_with = [Refused(Code.INVALID_ARGUMENT, "A valid join token is necessary to join this cluster")]
    bench.mount()
    assert "valid join token" in refused(bench, say.Join(join_request())).text
    assert bench.state.saved is None


class Tasks:
    """An executor, as far as the cluster layer knows one: what it runs ends ``seconds`` after it is told to."""

    def __init__(self, bench: ClusterBench, seconds: float) -> None:
        self.bench, self.seconds = bench, seconds
        self.runs = True
        bench.stage.world.executor = self  # type: ignore[assignment]

    def stop_all(self, done: Callable[[], None]) -> None:
        def end() -> None:
            self.runs = False
            done()

        self.bench.simulator.set(self.seconds, end)


@pytest.mark.parametrize("seconds", [0.0, 30.0])
def test_a_join_that_fails_is_answered_when_the_tasks_that_it_was_given_have_ended(seconds: float) -> None:
    bench = ClusterBench()
    tasks = Tasks(bench, seconds)
    bench.behaviour.fail_with = [Refused(Code.UNKNOWN, "lost leadership, outcome unknown")]
    bench.mount()
    assert refused(bench, say.Join(join_request())).text == "lost leadership, outcome unknown"
    assert seconds <= bench.simulator.time < seconds + 1
    assert (tasks.runs, bench.state.saved, bench.info().local_node_state) == (False, None, "inactive")


def test_what_is_asked_while_the_tasks_of_a_failed_join_end_waits_for_that() -> None:
    bench = ClusterBench()
    Tasks(bench, 30.0)
    bench.behaviour.manager = False
    bench.behaviour.fail_with = [Refused(Code.UNKNOWN, "lost leadership, outcome unknown")]
    bench.mount()
    bench.cluster.tell(say.Join(join_request()))
    bench.ask(say.Join(join_request()))
    assert bench.simulator.time >= 30
    assert bench.info().local_node_state == "active"
    assert bench.state.saved is not None


def test_a_cluster_actor_that_fails_while_tasks_of_a_failed_join_end_goes_on_with_the_join() -> None:
    bench = ClusterBench()
    Tasks(bench, 30.0)
    bench.behaviour.manager = False
    bench.behaviour.fail_with = [Refused(Code.UNKNOWN, "lost leadership, outcome unknown")]
    bench.mount()
    bench.cluster.tell(say.Join(join_request()))
    bench.simulator.run_for(5)
    cell = bench.cluster.resolve()
    assert cell is not None
    cell.control(lambda: cell.failed(RuntimeError("injected"), None))
    bench.simulator.run_for(60)
    assert bench.info().local_node_state == "active"
    assert bench.state.saved is not None
    assert not bench.state.saved.join_in_progress


def test_a_leave_whose_agent_fails_ends_the_tasks_all_the_same() -> None:
    bench = ClusterBench()
    tasks = Tasks(bench, 3.0)
    bench.behaviour.manager = False
    bench.behaviour.leave_error = Refused(Code.UNAVAILABLE, "the agent ended before its tasks did")
    bench.mount()
    bench.ask(say.Join(join_request()))
    bench.ask(say.Leave(force=False))
    assert (tasks.runs, bench.state.saved, bench.info().local_node_state) == (False, None, "inactive")


def test_what_a_forced_new_cluster_was_to_be_made_of_keeps_its_tasks_when_that_fails() -> None:
    bench = ClusterBench()
    tasks = Tasks(bench, 0.0)
    bench.mount()
    bench.init()
    bench.behaviour.fail_with = [Refused(Code.UNKNOWN, "the disk is full")]
    assert refused(bench, say.Init(init_request(force_new_cluster=True))).text == "the disk is full"
    bench.simulator.run_for(10)
    assert tasks.runs
    assert bench.info().local_node_state == "error"


def test_the_last_manager_leaves_only_by_force() -> None:
    bench = ClusterBench().mount()
    bench.init()
    error = refused(bench, say.Leave(force=False))
    assert error.text.endswith("Use `--force` to ignore this message. ")
    bench.ask(say.Leave(force=True))
    assert (bench.behaviour.left, bench.state.saved) == (1, None)
    assert refused(bench, say.Leave(force=True)).text == say.NO_SWARM


def test_a_refused_leave_holds_up_nothing_that_waits_behind_it() -> None:
    bench = ClusterBench().mount()
    bench.init()
    bench.cluster.tell(say.Leave(force=False))
    bench.cluster.tell(say.Leave(force=False))
    bench.ask(say.Leave(force=True))
    assert bench.info().local_node_state == "inactive"


def test_what_the_cluster_layer_refuses_has_no_code_in_front() -> None:
    bench = ClusterBench().mount()
    named = specs_pb2.ClusterSpec()
    named.annotations.name = "mine"
    for asked in (
        say.Init(init_request(spec=named)),
        say.Init(init_request(listen_addr="")),
        say.Join(join_request(remote_addrs=())),
        say.Join(join_request(listen_addr="")),
        say.Join(join_request(listen_addr="nosuch")),
    ):
        error = refused(bench, asked)
        assert isinstance(error, ClusterError)
        assert error.kind == "invalid"
        assert bench.info().local_node_state == "inactive"
    bench.init()
    error = refused(bench, say.Update(1, named, control_pb2.KeyRotation()))
    assert isinstance(error, ClusterError)
    assert error.text == 'swarm spec must be named "default"'


def test_a_worker_leaves_without_force() -> None:
    bench = ClusterBench()
    bench.behaviour.manager = False
    bench.mount()
    bench.ask(say.Join(join_request()))
    bench.ask(say.Leave(force=False))
    assert bench.info().local_node_state == "inactive"


def test_a_node_that_fails_is_in_error_until_it_runs_again() -> None:
    bench = ClusterBench().mount()
    bench.init()
    bench.stage.at("/cluster/node").tell(Become(error=Refused(Code.UNKNOWN, "the disk is gone")))
    bench.simulator.run_for(0.05)
    info = bench.info()
    assert info.local_node_state == "error"
    assert "the disk is gone" in info.error
    assert not info.control_available
    bench.simulator.run_for(1)
    info = bench.info()
    assert (info.local_node_state, info.error, info.control_available) == ("active", "", True)


def test_a_daemon_with_saved_state_keeps_trying() -> None:
    bench = ClusterBench(SAVED)
    bench.behaviour.fail_with = [ValueError("not yet")] * 4
    bench.mount()
    bench.simulator.run_for(0.05)
    assert bench.info().local_node_state == "error"
    bench.simulator.run_for(5)
    assert bench.info().local_node_state == "active"
    assert len(bench.behaviour.configs) == 5


def test_a_join_that_was_cut_off_goes_on_after_a_restart() -> None:
    bench = ClusterBench(StartConfig(remote_addr="10.0.0.1:2377", listen_addr="0.0.0.0:2377", join_in_progress=True))
    bench.mount()
    bench.simulator.run_for(1)
    assert bench.behaviour.configs[0].join_addr == "10.0.0.1:2377"
    assert bench.state.saved is not None
    assert not bench.state.saved.join_in_progress


def test_state_that_may_not_be_used_is_an_error_and_is_not_wiped() -> None:
    bench = ClusterBench()
    bench.state.refusal = Refused(Code.FAILED_PRECONDITION, "a raft log without a certificate")
    bench.mount()
    info = bench.info()
    assert info.local_node_state == "error"
    assert "a raft log without a certificate" in info.error
    assert refused(bench, say.Init(init_request())).text == say.SWARM_EXISTS
    assert bench.state.log == []


def test_a_failure_of_the_cluster_actor_leaves_its_node_running() -> None:
    bench = ClusterBench().mount()
    bench.init()
    node = bench.stage.cells["/cluster/node"]
    bench.stage.cells["/cluster"].control(lambda: bench.stage.cells["/cluster"].failed(ValueError("bug"), None))
    bench.simulator.run_for(1)
    assert bench.stage.cells["/cluster/node"] is node
    assert len(bench.behaviour.configs) == 1
    info = bench.info()
    assert (info.local_node_state, info.node_id, info.control_available) == ("active", "node-id", True)


def test_config_events_are_told_to_whoever_asked() -> None:
    bench = ClusterBench().mount()
    probe = Probe(bench.simulator, bench.stage)
    bench.cluster.tell(say.SubscribeConfigEvents(), probe.address)
    bench.init()
    bench.ask(say.Leave(force=True))
    bench.simulator.run_for(1)
    kinds = [message.kind for message in probe.messages if isinstance(message, ConfigEvent)]
    assert {ConfigEventKind.NODE_READY, ConfigEventKind.CONTROL_CONNECTION, ConfigEventKind.NODE_LEFT} == set(kinds)


def test_unlocking_what_is_not_locked_is_refused() -> None:
    bench = ClusterBench().mount()
    bench.init()
    bench.simulator.run_for(1)
    error = refused(bench, say.Unlock("SWMKEY-1-secret"))
    assert (error.text, "SWMKEY" in repr(say.Unlock("SWMKEY-1-secret"))) == ("swarm is not locked", False)
    assert error.code is Code.ALREADY_EXISTS


def test_an_update_where_the_manager_has_no_cluster_yet_is_refused_and_nobody_fails() -> None:
    bench = ClusterBench().mount()
    bench.init()
    bench.behaviour.cluster = None
    error = refused(bench, say.Update(1, specs_pb2.ClusterSpec(), control_pb2.KeyRotation()))
    assert error.text == "no cluster object"
    assert bench.ask(say.Status()) == "active/manager"


def test_an_update_carries_version_spec_and_rotation_to_the_manager() -> None:
    bench = ClusterBench().mount()
    bench.init()
    bench.ask(say.Update(17, specs_pb2.ClusterSpec(), control_pb2.KeyRotation(worker_join_token=True)))
    request = bench.behaviour.updates[-1]
    assert (request.cluster_id, request.cluster_version.index, request.rotation.worker_join_token) == (
        "cluster-id", 17, True,
    )  # fmt: skip
    assert bench.ask(say.Inspect()).id == "cluster-id"


@pytest.mark.parametrize(
    ("listen", "advertise", "expected"),
    [
        ("0.0.0.0:2377", "", "10.9.9.9 towards 10.0.0.1"),
        ("10.4.4.4:2377", "", "10.4.4.4"),
        ("0.0.0.0:2377", "10.5.5.5:2400", "10.5.5.5"),
    ],
)
def test_a_node_that_joined_says_where_it_can_be_reached(listen: str, advertise: str, expected: str) -> None:
    bench = ClusterBench(source_address=lambda remote: f"10.9.9.9 towards {remote}").mount()
    bench.ask(say.Join(join_request(listen_addr=listen, advertise_addr=advertise)))
    assert bench.info().node_addr == expected


# Locked

KEY = "SWMKEY-1-" + "A" * 43


def a_locked_bench(*errors: BaseException) -> ClusterBench:
    bench = ClusterBench(StartConfig(listen_addr="10.0.0.5:2377"))
    bench.behaviour.locks = 1
    bench.behaviour.fail_with = [*errors]
    bench.mount()
    bench.simulator.run_for(60)
    return bench


def test_a_locked_node_is_not_started_again_without_its_key() -> None:
    bench = a_locked_bench()
    assert (bench.info().local_node_state, bench.info().error) == ("locked", say.LOCKED)
    assert len(bench.behaviour.configs) == 1


def test_unlocking_starts_the_node_with_the_key_and_answers_when_it_is_ready() -> None:
    bench = a_locked_bench()
    bench.behaviour.ready_at_once = False
    answer = bench.cluster.ask(say.Unlock(KEY))
    bench.simulator.run_for(3)
    assert not answer.done
    assert bench.behaviour.configs[-1].lock.key == bytes(32)
    bench.stage.at("/cluster/node").tell(Become(ready=True))
    bench.simulator.run_until(lambda: answer.done, 5)
    answer.result(0)
    assert bench.info().local_node_state == "active"


def test_a_node_that_is_not_ready_in_time_answers_and_goes_on() -> None:
    bench = a_locked_bench()
    bench.behaviour.ready_at_once = False
    assert refused(bench, say.Unlock(KEY)).text == say.UNLOCK_TIMEOUT
    bench.stage.at("/cluster/node").tell(Become(ready=True))
    bench.simulator.run_for(1)
    assert bench.info().local_node_state == "active"


def test_a_node_that_fails_otherwise_when_unlocked_says_why_and_tries_again() -> None:
    bench = a_locked_bench(ClusterError("plain", "the port is taken"))
    assert refused(bench, say.Unlock(KEY)).text == "swarm component could not be started: the port is taken"
    bench.simulator.run_for(1)
    assert bench.info().local_node_state == "active"


def test_unlocking_at_the_very_moment_of_the_lock_waits_for_the_end_of_the_locked_node() -> None:
    bench = ClusterBench(StartConfig(listen_addr="10.0.0.5:2377"))
    bench.behaviour.locks = 1
    bench.mount()
    while bench.info().local_node_state != "locked":
        bench.simulator.step()
    bench.ask(say.Unlock(KEY))
    assert bench.info().local_node_state == "active"
