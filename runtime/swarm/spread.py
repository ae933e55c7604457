"""Where the tasks of one group go: the tree of spread preferences, and the choice of nodes at its leaves.

Rules owned here: each preference is a level of the tree, keyed by a label's value (a node without the label has the
empty value, other descriptors are left out); tasks are split so that branches end with equally many tasks of the
service; within a leaf every task goes to the best node at that moment (`NodeInfo.rank`, then node id), which is asked
again whether it still passes after each placement.

A group of k tasks on N nodes costs one look at each node and k steps of one heap a level. Which branch a node belongs
to, and whether it comes into question at all, is kept for all groups that ask for the same (`Layouts`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtime.swarm import constraints
from runtime.swarm.filters import FixedKey, Pipeline
from runtime.swarm.node_info import FailureKey, NodeInfo
from runtime.wire.pb import objects_pb2 as objects

Place = Callable[[objects.Task, NodeInfo], None]
"""Books a task on a node that passed."""

Entry = tuple[tuple[int, int, int], str, NodeInfo]
"""Rank and id of a node; ids differ, so that books are never compared."""


LAYOUTS_MAX = 256
"""So many kinds of groups are remembered; then all are forgotten."""


def descriptors(task: objects.Task) -> tuple[str, ...]:
    """The spread preferences that name a label."""
    named = [each.spread.spread_descriptor for each in task.spec.placement.preferences if each.HasField("spread")]
    prefixes = (constraints.NODE_LABEL, constraints.ENGINE_LABEL)
    return tuple(text for text in named if any(text.lower().startswith(p) and len(text) > len(p) for p in prefixes))


@dataclass(frozen=True, slots=True)
class Part:
    """Nodes that share some label values: all of them, and either their division by the next label or, at a leaf,
    those that may pass."""

    infos: Sequence[NodeInfo]
    parts: Sequence[Part]
    fitting: Sequence[NodeInfo]


class Layouts:
    """How the nodes are divided for each kind of group, until any node changes."""

    __slots__ = ("_known", "_nodes")

    def __init__(self, nodes: dict[str, NodeInfo]) -> None:
        self._nodes = nodes
        self._known: dict[tuple[FixedKey, tuple[str, ...]], Part] = {}

    def forget(self) -> None:
        """A node came, went or changed."""
        self._known.clear()

    def of(self, pipeline: Pipeline, levels: tuple[str, ...]) -> Part:
        """The tree for tasks with these filters and spread preferences."""
        key = (pipeline.key, levels)
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= LAYOUTS_MAX:
                self._known.clear()
            known = self._known[key] = _lay_out(list(self._nodes.values()), levels, pipeline)
        return known


def _lay_out(infos: Sequence[NodeInfo], levels: tuple[str, ...], pipeline: Pipeline) -> Part:
    if levels:
        return Part(infos, [_lay_out(each, levels[1:], pipeline) for each in _split(infos, levels[0])], ())
    return Part(infos, (), [info for info in infos if pipeline.may_pass(info)])


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

    def spread(self, layouts: Layouts) -> list[objects.Task]:
        """Places as many tasks as fit; gives those that are left, in their order."""
        if self.tasks:
            root = Branch(layouts.of(self.pipeline, descriptors(self.tasks[0])), self)
            root.take(len(self.tasks))
        return list(reversed(self.tasks))


class Branch:
    """A part of the tree: nodes that share the label values of the levels above, and the service's tasks on them."""

    __slots__ = ("_branches", "_group", "_heap", "_order", "_part", "tasks")

    def __init__(self, part: Part, group: Group) -> None:
        self._group = group
        self._part = part
        self.tasks = 0  # of the service; counted by the branch above, which is the one that compares
        self._heap: list[Entry] | None = None
        self._branches = [Branch(each, group) for each in part.parts]
        for branch in self._branches:
            branch.count()
        self._order = sorted((branch.tasks, index) for index, branch in enumerate(self._branches))

    def count(self) -> None:
        """Counts the service's tasks on all nodes of this part, those that do not pass included."""
        service_id = self._group.key[0]
        self.tasks = sum(info.by_service.get(service_id, 0) for info in self._part.infos)

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
            info = heap[0][2]
            if not group.pipeline.still_passes(info):
                heapq.heappop(heap)
                continue
            group.place(group.tasks.pop(), info)
            placed += 1
            heapq.heapreplace(heap, (info.rank(group.key, group.now), info.id, info))
        return placed

    def _candidates(self) -> list[Entry]:
        if self._heap is None:
            group = self._group
            passes, key, now = group.pipeline.still_passes, group.key, group.now
            self._heap = [(info.rank(key, now), info.id, info) for info in self._part.fitting if passes(info)]
            heapq.heapify(self._heap)
        return self._heap


def _split(infos: Sequence[NodeInfo], descriptor: str) -> list[list[NodeInfo]]:
    parts: dict[str, list[NodeInfo]] = {}
    for info in infos:
        parts.setdefault(constraints.label(info.node, descriptor) or "", []).append(info)
    return [parts[value] for value in sorted(parts)]
