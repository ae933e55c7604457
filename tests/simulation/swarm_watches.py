"""What each watcher of a manager's store must hear: every commit that it asked for, once, in order, without a gap.

The stream that is due follows from the log alone: ``Watches`` is told which changes each entry made, sees what a
watcher asked the store for, and compares every message with what comes next for it.

Two lives of a watcher have one mailbox. What the store told the life before (it hears of its end later than the next
life begins, when it is slow) may come to the new one, before and after that one asked: then it comes twice, up to the
version that the store had when it was asked. Watchers leave it out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from runtime.protocol.store import Commits, Watch
from runtime.stage import Address, Stage
from runtime.stage.cell import Cell
from runtime.store.changes import Change
from runtime.store.events import WatchFilter
from tests.simulation.raft_invariants import Violation

MANAGER = "/cluster/node/manager"


@dataclass(slots=True)
class _Asked:
    """What a life of a watcher asked for, the version that it has heard of, and up to which it may hear twice."""

    life: object
    filter: WatchFilter
    last: int
    twice: int


class Watches:
    """``changes`` are those of each entry, by its index, as far as any manager has applied them."""

    def __init__(self, changes: dict[int, list[Change]]) -> None:
        self.changes = changes
        self.heard = 0
        self._asked: dict[tuple[str, str], _Asked] = {}
        self._restored: dict[str, int] = {}

    def asked(self, store: Cell, message: Watch, sender: Address | None) -> None:
        """A store is asked; what outlives the manager watches anew in one life, and leaves out what comes twice."""
        if sender is None or not sender.path.startswith(MANAGER):
            return
        watcher, instance = store.stage.cells.get(sender.path), store.instance
        if watcher is None or watcher.instance is None or instance is None:
            return
        version = instance.published.view.version  # type: ignore[attr-defined]
        since = version if message.since is None else message.since
        self._asked[store.stage.name, sender.path] = _Asked(watcher.instance, message.filter, since, version)

    def restored(self, store: Cell, index: int) -> None:
        """A store takes a snapshot: its watchers hear of the differences as one commit."""
        self._restored[store.stage.name] = index

    def loaded(self, stage: str) -> None:
        """A store begins anew."""
        self._restored.pop(stage, None)

    def told(self, watcher: Cell, message: Commits) -> None:
        """A watcher is told."""
        if not watcher.path.startswith(MANAGER):
            return
        stage = watcher.stage.name
        asked = self._asked.get((stage, watcher.path))
        if asked is None:
            raise Violation(f"watch: {stage}{watcher.path} is told of commits that it has not asked for")
        for commit in message.commits:
            self.heard += 1
            if commit.version <= min(asked.last, asked.twice):
                continue
            if commit.version <= asked.last:
                raise Violation(f"watch: {stage}{watcher.path} is told of version {commit.version} after {asked.last}")
            self._no_gap(f"{stage}{watcher.path}", asked, commit.version, self._restored.get(stage, 0))
            asked.last = commit.version

    def _no_gap(self, name: str, asked: _Asked, version: int, restored: int) -> None:
        for index in range(max(asked.last, restored) + 1, version):
            if any(asked.filter.match(change) for change in self.changes.get(index, ())):
                raise Violation(f"watch: {name} is told of version {version} and was not told of {index}")

    def judge(self, stages: Iterable[Stage], store_path: str) -> None:
        """At rest everybody has heard everything."""
        by_name = {stage.name: stage for stage in stages}
        for (name, path), asked in self._asked.items():
            stage = by_name.get(name)
            store = stage.cells.get(store_path) if stage is not None else None
            watcher = stage.cells.get(path) if stage is not None else None
            if store is None or store.instance is None or watcher is None or watcher.instance is not asked.life:
                continue
            version = store.instance.published.view.version  # type: ignore[attr-defined]
            self._no_gap(f"{name}{path}", asked, version + 1, self._restored.get(name, 0))
