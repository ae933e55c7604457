"""StoreWatcher: each life hears of every commit after its view once, whatever the life before was still told."""

from __future__ import annotations

from dataclasses import dataclass

from actors.store_watcher import StoreWatcher
from runtime.protocol.manager import LeaderContext
from runtime.protocol.store import Commits, Watch, Watching, Write
from runtime.stage import handles
from runtime.stage.simulator import Simulator
from runtime.store.events import Commit, WatchFilter
from runtime.store.view import Published, View
from runtime.wire.pb import objects_pb2
from tests.messages.orchestration_bench import OrchestrationBench
from tests.unit.swarm_orchestration.little_store import service_of


@dataclass(frozen=True, slots=True)
class Fail:
    """As a defect would have it."""


class Keeps(StoreWatcher):
    """``lives`` are those that have begun, each with its view's version and all that it heard."""

    watched = WatchFilter.kinds(objects_pb2.Service)

    def __init__(self, context: LeaderContext, lives: list[list[int]]) -> None:
        super().__init__(context)
        self.lives = lives

    def begin(self, view: View) -> None:
        self.lives.append([view.version])

    def commit(self, commit: Commit) -> None:
        self.lives[-1].append(commit.version)

    @handles(Fail)
    def fail(self, message: Fail) -> None:
        raise RuntimeError("over nothing")


def commits(*versions: int) -> Commits:
    return Commits(tuple(Commit(version, (), View(version)) for version in versions))


def test_what_a_store_goes_on_telling_the_life_before_is_heard_once_and_in_order() -> None:
    simulator, lives, published = Simulator(seed=1), list[list[int]](), Published(View(3))
    stage = simulator.node("n")
    store = stage.probe("store")
    context = LeaderContext("n", "c", store.address, published, None)  # type: ignore[arg-type]
    at = stage.mount("watcher", Keeps, context, lives)
    store.take(Watch).reply.set(Watching(3))
    at.tell(commits(4))
    simulator.settle()
    published.view = View(4)
    at.tell(Fail())
    at.tell(commits(4, 5))  # by a store that has not heard of the failure yet
    watch = store.take(Watch)
    assert watch.message.since == 4
    at.tell(commits(5, 6))
    watch.reply.set(Watching(4))
    at.tell(commits(7))
    simulator.settle()
    assert lives == [[3, 4], [4, 5, 6, 7]]


def test_a_store_that_hears_late_of_a_failure_tells_its_entry_to_both_lives_and_the_new_one_hears_it_once() -> None:
    bench, lives = OrchestrationBench(nodes=1, slow=5.0), list[list[int]]()
    bench.stage.mount("keeps", Keeps, bench.context, lives)
    bench.run_for(1)
    bench.store.tell(Write(lambda tx: tx.create(service_of(replicas=0))))
    bench.run_for(1)
    store = bench.stage.cells["/store"]
    store.suspend(True)
    bench.run_for(5)
    assert len(store.mailbox.user) == 1, "the entry is agreed on"
    bench.crash("/keeps")
    bench.run_for(1)
    assert Watch in [type(each[0]) for each in store.mailbox.user]
    store.suspend(False)
    bench.run_for(1)
    version = bench.published.view.version
    before, after = lives
    assert before == [version - 1]
    assert after == [version - 1, version]
