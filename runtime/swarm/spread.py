"""Where the tasks of one group go: the tree of spread preferences, and the choice of nodes at its leaves.

Rules owned here: each preference is a level of the tree, keyed by a label's value (a node without the label has the
empty value, other descriptors are left out); tasks are split so that branches end with equally many tasks of the
service; within a leaf every task goes to the best node at that moment (`NodeInfo.rank`, then node id), which is asked
again whether it still passes after each placement.

A group of k tasks on N nodes costs one look at each node and k steps of one heap a level.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence

from runtime.swarm import constraints
from runtime.swarm.filters import Pipeline
from runtime.swarm.node_info import FailureKey, NodeInfo
from runtime.wire.pb import objects_pb2 as objects

Place = Callable[[objects.Task, NodeInfo], None]
"""Books a task on a node that passed."""

Entry = tuple[tuple[int, int, int], str]


def descriptors(task: objects.Task) -> list[str]:
    """The spread preferences that name a label."""
    named = [each.spread.spread_descriptor for each in task.spec.placement.preferences if each.HasField("spread")]
    prefixes = (constraints.NODE_LABEL, constraints.ENGINE_LABEL)
    return [text for text in named if any(text.lower().startswith(p) and len(text) > len(p) for p in prefixes)]


class Group:
    """Like tasks to be placed: one pipeline, one service version, one time."""

    __slots__ = ("key", "now", "pipeline", "place", "tasks")

    def __init__(
        self, tasks: Sequence[objects.Task], key: FailureKey, pipeline: Pipeline, now: float, place: Place
    ) -> None:
        self.tasks = list(reversed(tasks))
        self.key = key
        self.pipeline = pipeline
        self.now = now
        self.place = place

    def spread(self, infos: Iterable[NodeInfo]) -> list[objects.Task]:
        """Places as many tasks as fit; gives those that are left, in their order."""
        if self.tasks:
            root = Branch(list(infos), descriptors(self.tasks[0]), self)
            root.take(len(self.tasks))
        return list(reversed(self.tasks))


class Branch:
    """A part of the tree: nodes that share the label values of the levels above, and the service's tasks on them."""

    __slots__ = ("_branches", "_group", "_heap", "_infos", "_order", "tasks")

    def __init__(self, infos: Sequence[NodeInfo], levels: Sequence[str], group: Group) -> None:
        service_id = group.key[0]
        self._group = group
        self.tasks = sum(info.by_service.get(service_id, 0) for info in infos)
        self._branches: list[Branch] = []
        self._order: list[tuple[int, int]] = []
        self._heap: list[Entry] | None = None
        self._infos: dict[str, NodeInfo] = {}
        if levels:
            self._branches = [Branch(part, levels[1:], group) for part in _split(infos, levels[0])]
            self._order = sorted((branch.tasks, index) for index, branch in enumerate(self._branches))
        else:
            self._infos = {info.node.id: info for info in infos}

    def take(self, count: int) -> int:
        """Places up to ``count`` tasks below this branch; gives how many found a node."""
        placed = self._share(count) if self._branches else self._place(count)
        self.tasks += placed
        return placed

    def _share(self, count: int) -> int:
        """Each task goes to the branch with the fewest of the service; a branch that takes none is full for good."""
        placed = 0
        while placed < count and self._order:
            index = self._order[0][1]
            branch = self._branches[index]
            if branch.take(1):
                placed += 1
                heapq.heapreplace(self._order, (branch.tasks, index))
            else:
                heapq.heappop(self._order)
        return placed

    def _place(self, count: int) -> int:
        group, placed = self._group, 0
        heap = self._candidates()
        while placed < count and heap:
            info = self._infos[heap[0][1]]
            if not group.pipeline.still_passes(info):
                heapq.heappop(heap)
                continue
            group.place(group.tasks.pop(), info)
            placed += 1
            heapq.heapreplace(heap, (info.rank(group.key, group.now), info.node.id))
        return placed

    def _candidates(self) -> list[Entry]:
        if self._heap is None:
            group = self._group
            fit = (info for info in self._infos.values() if group.pipeline.passes(info))
            self._heap = [(info.rank(group.key, group.now), info.node.id) for info in fit]
            heapq.heapify(self._heap)
        return self._heap


def _split(infos: Sequence[NodeInfo], descriptor: str) -> list[list[NodeInfo]]:
    parts: dict[str, list[NodeInfo]] = {}
    for info in infos:
        parts.setdefault(constraints.label(info.node, descriptor) or "", []).append(info)
    return [parts[value] for value in sorted(parts)]
