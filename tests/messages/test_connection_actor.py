"""ConnectionActor: connect, health, lost, again; subscribers hear of each change."""

from __future__ import annotations

from actors.connection_actor import ConnectionActor
from runtime.protocol.node import CheckHealth, ControlConnection, SubscribeControlConnection
from runtime.stage import Actor, GiveUp, Policy, handles
from runtime.stage.probe import Probe
from runtime.stage.simulator import Simulator


class Fail:
    pass


class Api(Actor):
    """A control API that serves after a while."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, serving: list[bool]) -> None:
        super().__init__()
        self.serving = serving

    @handles(CheckHealth)
    def health(self, message: CheckHealth) -> bool:
        return self.serving[0]

    @handles(Fail)
    def do_fail(self, message: Fail) -> None:
        raise ValueError("lost")


class Bench:
    def __init__(self) -> None:
        self.simulator = Simulator(5)
        self.stage = self.simulator.node("n1")
        self.serving = [True]
        self.target = self.stage.at("/api")
        self.connection = self.stage.mount("connection", ConnectionActor, self.target)
        self.probe = Probe(self.simulator, self.stage)
        self.connection.tell(SubscribeControlConnection(), self.probe.address)

    def mount_api(self) -> None:
        self.stage.mount("api", Api, self.serving)

    def expect(self, connected: bool) -> None:
        message = self.probe.expect(ControlConnection)
        assert (message.control is not None) == connected


def test_a_subscriber_hears_the_present_value_first_and_then_each_change() -> None:
    bench = Bench()
    bench.expect(False)
    bench.mount_api()
    bench.expect(True)


def test_it_connects_only_once_the_api_serves() -> None:
    bench = Bench()
    bench.serving[0] = False
    bench.expect(False)
    bench.mount_api()
    bench.probe.expect_none(ControlConnection, during=5)
    bench.serving[0] = True
    bench.expect(True)


def test_a_failure_is_a_loss_and_the_return_a_new_connection() -> None:
    bench = Bench()
    bench.mount_api()
    bench.expect(False)
    bench.expect(True)
    bench.target.tell(Fail())
    bench.expect(False)
    bench.expect(True)


def test_its_own_failure_costs_subscribers_nothing_but_a_new_subscription() -> None:
    bench = Bench()
    bench.mount_api()
    bench.expect(False)
    bench.expect(True)
    cell = bench.stage.cells["/connection"]
    cell.control(lambda: cell.failed(ValueError("bug"), None))
    bench.simulator.run_for(1)
    bench.connection.tell(SubscribeControlConnection(), bench.probe.address)
    bench.expect(True)
