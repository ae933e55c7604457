"""RoleWatcherActor: observed and desired role, the waits of 16 s, forced renewals."""

from __future__ import annotations

import pytest

from actors.role_watcher_actor import MANAGER, WORKER, RoleWatcherActor
from runtime.protocol.agent import RenewSession
from runtime.protocol.node import (
    ManagerEnded,
    NodeChanged,
    RenewCertificate,
    RoleObserved,
    SessionOpened,
    StartManager,
    StopManager,
)
from runtime.stage import Address
from runtime.stage.probe import Probe
from runtime.stage.simulator import Simulator


class Bench:
    def __init__(self, role: str) -> None:
        self.simulator = Simulator(3)
        self.stage = self.simulator.node("n1")
        self.node = Probe(self.simulator, self.stage, "node")
        self.roles: Address = self.stage.mount("roles", RoleWatcherActor, self.node.address, role)

    def tell(self, *messages: object) -> None:
        for message in messages:
            self.roles.tell(message)
        self.simulator.settle()


def test_a_node_that_comes_up_as_manager_starts_its_manager() -> None:
    bench = Bench(MANAGER)
    bench.node.expect(StartManager)


def test_a_worker_runs_no_manager() -> None:
    Bench(WORKER).node.expect_none(StartManager, during=60)


def test_a_changed_desired_role_asks_once_for_a_certificate_of_that_role() -> None:
    bench = Bench(WORKER)
    bench.tell(NodeChanged(MANAGER), NodeChanged(MANAGER))
    assert bench.node.expect(RenewCertificate) == RenewCertificate(MANAGER)
    bench.node.expect_none(RenewCertificate, during=30)


def test_the_manager_starts_with_the_certificate_not_with_the_wish() -> None:
    bench = Bench(WORKER)
    bench.tell(NodeChanged(MANAGER))
    bench.node.expect_none(StartManager, during=30)
    bench.tell(RoleObserved(MANAGER))
    bench.node.expect(StartManager)


def test_a_workers_certificate_ends_the_manager() -> None:
    bench = Bench(MANAGER)
    bench.node.expect(StartManager)
    bench.tell(NodeChanged(WORKER), RoleObserved(WORKER))
    bench.node.expect(StopManager)
    bench.node.expect_none(StartManager, during=60)


def test_one_that_is_promoted_again_while_its_manager_ends_starts_the_next_as_soon_as_that_is_gone() -> None:
    bench = Bench(MANAGER)
    bench.node.expect(StartManager)
    bench.tell(NodeChanged(WORKER), RoleObserved(WORKER))
    bench.node.expect(StopManager)
    bench.tell(NodeChanged(MANAGER), RoleObserved(MANAGER))
    bench.node.expect_none(StartManager, during=25)
    bench.tell(ManagerEnded(True))
    bench.node.expect(StartManager, 0.1)
    bench.node.expect_none(StopManager, during=60)


def test_roles_that_change_many_times_while_a_manager_ends_leave_the_last_one_in_force() -> None:
    for last in (WORKER, MANAGER):
        bench = Bench(MANAGER)
        bench.node.expect(StartManager)
        bench.tell(*(RoleObserved(role) for role in (WORKER, MANAGER, WORKER, MANAGER, last)))
        bench.node.expect(StopManager)
        bench.tell(ManagerEnded(True))
        if last == MANAGER:
            bench.node.expect(StartManager, 0.1)
        bench.node.expect_none(StartManager, during=60)
        bench.node.expect_none(StopManager, during=1)


def test_a_removed_manager_with_a_new_managers_certificate_starts_at_once_where_that_is_wanted() -> None:
    bench = Bench(MANAGER)
    bench.node.expect(StartManager)
    bench.tell(ManagerEnded(True), NodeChanged(WORKER), RoleObserved(MANAGER))
    bench.node.expect_none(StartManager, during=10)  # renewed, but not promoted
    bench.tell(NodeChanged(MANAGER), RoleObserved(MANAGER))
    bench.node.expect(StartManager, 0.1)
    bench.node.expect_none(StartManager, during=60)


def test_the_rotate_mark_forces_a_renewal_of_any_role() -> None:
    bench = Bench(WORKER)
    bench.tell(NodeChanged(WORKER, rotate=True))
    assert bench.node.expect(RenewCertificate) == RenewCertificate("")


@pytest.mark.parametrize("wait", [15.9])
def test_a_manager_that_ended_without_being_removed_starts_again_after_16_s(wait: float) -> None:
    bench = Bench(MANAGER)
    bench.node.expect(StartManager)
    bench.tell(ManagerEnded(removed=False))
    bench.node.expect_none(StartManager, during=wait)
    bench.node.expect(StartManager, within=0.2)


def test_a_workers_certificate_within_16_s_leaves_the_manager_ended() -> None:
    bench = Bench(MANAGER)
    bench.node.expect(StartManager)
    bench.tell(ManagerEnded(removed=True))
    bench.simulator.run_for(10)
    bench.tell(RoleObserved(WORKER))
    bench.node.expect_none(StartManager, during=60)
    bench.node.expect_none(StopManager, during=1)
    bench.tell(RoleObserved(MANAGER))
    bench.node.expect(StartManager)


def test_a_removed_manager_gets_a_forced_renewal_and_a_second_wait() -> None:
    bench = Bench(MANAGER)
    bench.node.expect(StartManager)
    bench.tell(NodeChanged(WORKER))
    assert bench.node.expect(RenewCertificate) == RenewCertificate(WORKER)
    bench.tell(ManagerEnded(removed=True))
    bench.node.expect_none(RenewCertificate, during=15.9)
    bench.node.expect(RenewCertificate, within=0.2)
    bench.node.expect_none(StartManager, during=15.8)
    bench.node.expect(StartManager, within=0.4)


def test_a_manager_that_ends_once_the_certificate_is_a_workers_needs_no_wait() -> None:
    bench = Bench(MANAGER)
    bench.node.expect(StartManager)
    bench.tell(RoleObserved(WORKER), ManagerEnded(removed=True))
    bench.node.expect(StopManager)
    bench.node.expect_none(RenewCertificate, during=40)


def removed(desired: str = MANAGER) -> Bench:
    """A manager that was removed from the quorum; what sessions last said is ``desired``."""
    bench = Bench(MANAGER)
    bench.node.expect(StartManager)
    bench.tell(SessionOpened(), NodeChanged(desired), ManagerEnded(removed=True))
    bench.node.expect(RenewSession)
    if desired == WORKER:
        assert bench.node.expect(RenewCertificate) == RenewCertificate(WORKER)
    return bench


def test_a_removed_manager_that_a_newer_session_wants_starts_with_a_certificate_asked_for_since() -> None:
    bench = removed()
    bench.tell(SessionOpened(), NodeChanged(MANAGER), NodeChanged(MANAGER))
    assert bench.node.expect(RenewCertificate) == RenewCertificate(MANAGER)
    bench.node.expect_none(StartManager, during=5)
    bench.tell(RoleObserved(MANAGER))
    bench.node.expect(StartManager, within=0.1)
    bench.node.expect_none(RenewCertificate, during=60)


def test_what_an_old_session_says_of_a_removed_manager_is_no_wish_for_it() -> None:
    bench = removed()
    bench.tell(NodeChanged(MANAGER), RoleObserved(MANAGER))
    bench.node.expect_none(StartManager, during=15)
    bench.node.expect(RenewCertificate, within=1.1)
    bench.node.expect(StartManager, within=16.1)


def test_a_manager_that_is_promoted_again_before_it_became_a_worker_starts_at_once() -> None:
    bench = removed(WORKER)
    bench.tell(NodeChanged(MANAGER))
    assert bench.node.expect(RenewCertificate) == RenewCertificate(MANAGER)
    bench.tell(RoleObserved(MANAGER))
    bench.node.expect(StartManager, within=0.1)


def test_a_wish_that_is_taken_back_starts_nothing() -> None:
    bench = removed(WORKER)
    bench.tell(NodeChanged(MANAGER), NodeChanged(WORKER), RoleObserved(MANAGER))
    bench.node.expect_none(StartManager, during=15)
    bench.tell(RoleObserved(WORKER))
    bench.node.expect_none(StartManager, during=60)
