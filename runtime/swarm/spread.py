"""Where the tasks of one group go: the tree of spread preferences, and the choice of nodes at its leaves.

Rules owned here: each preference is a level of the tree, keyed by a label's value (a node without the label has the
empty value, other descriptors are left out); tasks are split so that branches end with equally many tasks of the
service; within a leaf every task goes to the best node at that moment (`NodeInfo.rank`, then node id), which is asked
again whether it still passes after each placement.

Which branch a node belongs to, and whether it comes into question at all, is kept for all groups that ask for the same
(`Layouts`). For most nodes the rank is the number of their tasks alone, which is the same for all services: these stand
in one order for each leaf, made once a run. Only the few that hold tasks of the service, or where tasks failed, are
ranked anew for each group. So a group of k tasks costs those few and k steps of one heap a level, however many nodes
there are.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from runtime.swarm import constraints
from runtime.swarm.filters import FixedKey, Pipeline
from runtime.swarm.node_info import FailureKey, NodeInfo, Whereabouts
from runtime.wire.pb import objects_pb2 as objects

Place = Callable[[objects.Task, NodeInfo], None]
"""Books a task on a node that passed."""

Entry = tuple[tuple[int, int, int], str, NodeInfo]
"""Rank and id of a node; ids differ, so that books are never compared."""

Light = tuple[int, str, NodeInfo]
"""Number of tasks and id of a node."""


LAYOUTS_MAX = 256
"""So many kinds of groups are remembered; then all are forgotten."""


def descriptors(task: objects.Task) -> tuple[str, ...]:
    """The spread preferences that name a label."""
    named = [each.spread.spread_descriptor for each in task.spec.placement.preferences if each.HasField("spread")]
    prefixes = (constraints.NODE_LABEL, constraints.ENGINE_LABEL)
    return tuple(text for text in named if any(text.lower().startswith(p) and len(text) > len(p) for p in prefixes))


@dataclass(slots=True, eq=False)
class Part:
    """Nodes that share some label values: all of them by id, and either their division by the next label or, at a leaf,
    those that may pass. ``order`` is a heap of these by their tasks, made in the run of that number; a node that got
    more since stands too early in it."""

    infos: dict[str, NodeInfo]
    parts: Sequence[Part]
    fitting: dict[str, NodeInfo]
    order: list[Light] = field(default_factory=list)
    ordered_in: int = 0

    def ordered(self, run: int) -> list[Light]:
        """The order of this run."""
        if self.ordered_in != run:
            self.ordered_in = run
            self.order = [(info.active, id, info) for id, info in self.fitting.items()]
            heapq.heapify(self.order)
        return self.order


class Layouts:
    """How the nodes are divided for each kind of group, until any node changes; ``run`` numbers the runs, in each of
    which nodes only get tasks and lose none."""

    __slots__ = ("_known", "_nodes", "run", "whereabouts")

    def __init__(self, nodes: dict[str, NodeInfo], whereabouts: Whereabouts) -> None:
        self._nodes = nodes
        self._known: dict[tuple[FixedKey, tuple[str, ...]], Part] = {}
        self.whereabouts = whereabouts
        self.run = 0

    def begin_run(self) -> None:
        """Nodes may have lost tasks since the last run: orders are made anew where they are asked for."""
        self.run += 1

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
        parts = [_lay_out(each, levels[1:], pipeline) for each in _split(infos, levels[0])]
        return Part({info.id: info for info in infos}, parts, {})
    return Part({info.id: info for info in infos}, (), {info.id: info for info in infos if pipeline.may_pass(info)})


class Group:
    """Like tasks to be placed: one pipeline, one service version, one time."""

    __slots__ = ("key", "leaves", "now", "pipeline", "place", "run", "special", "tasks")

    def __init__(
        self, tasks: Sequence[objects.Task], key: FailureKey, pipeline: Pipeline, now: float, place: Place
    ) -> None:
        self.tasks = list(reversed(tasks))
        self.key = key
        self.pipeline = pipeline
        self.now = now
        self.place = place
        self.special: dict[str, NodeInfo] = {}
        self.leaves: list[Leaf] = []
        self.run = 0

    def spread(self, layouts: Layouts) -> list[objects.Task]:
        """Places as many tasks as fit; gives those that are left, in their order."""
        if self.tasks:
            self.run, self.special = layouts.run, layouts.whereabouts.special(self.key[0])
            root = Branch(layouts.of(self.pipeline, descriptors(self.tasks[0])), self)
            root.take(len(self.tasks))
            for leaf in self.leaves:
                leaf.restore()
        return list(reversed(self.tasks))


class Branch:
    """A part of the tree: nodes that share the label values of the levels above, and the service's tasks on them."""

    __slots__ = ("_branches", "_group", "_leaf", "_order", "_part", "tasks")

    def __init__(self, part: Part, group: Group) -> None:
        self._group = group
        self._part = part
        self.tasks = 0  # of the service; counted by the branch above, which is the one that compares
        self._leaf: Leaf | None = None
        self._branches = [Branch(each, group) for each in part.parts]
        for branch in self._branches:
            branch.count()
        self._order = sorted((branch.tasks, index) for index, branch in enumerate(self._branches))

    def count(self) -> None:
        """Counts the service's tasks on all nodes of this part, those that do not pass included."""
        service_id = self._group.key[0]
        special, infos = self._group.special, self._part.infos
        self.tasks = sum(info.by_service.get(service_id, 0) for id, info in special.items() if id in infos)

    def take(self, count: int) -> int:
        """Places up to ``count`` tasks below this branch; gives how many found a node."""
        placed = self._share(count) if self._branches else self._of_leaf().place(count)
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

    def _of_leaf(self) -> Leaf:
        if self._leaf is None:
            self._leaf = Leaf(self._part, self._group)
            self._group.leaves.append(self._leaf)
        return self._leaf


class Leaf:
    """The nodes of a part while a group is placed: the special ones with a rank of their own, the others as the part
    orders them for all groups. Whoever is taken out of that order goes back with `restore`."""

    __slots__ = ("_aside", "_group", "_order", "_own", "_special")

    def __init__(self, part: Part, group: Group) -> None:
        self._group = group
        self._order = part.ordered(group.run)
        self._special = {id for id in group.special if id in part.fitting}
        self._aside: list[NodeInfo] = []
        self._own = [self._entry(part.fitting[id]) for id in self._special]
        heapq.heapify(self._own)

    def _entry(self, info: NodeInfo) -> Entry:
        return info.rank(self._group.key, self._group.now), info.id, info

    def place(self, count: int) -> int:
        """Places up to ``count`` tasks; gives how many found a node."""
        group, placed = self._group, 0
        while placed < count and (info := self._best()) is not None:
            group.place(group.tasks.pop(), info)
            heapq.heappush(self._own, self._entry(info))
            placed += 1
        return placed

    def restore(self) -> None:
        """The order of the part is whole again."""
        for info in self._aside:
            heapq.heappush(self._order, (info.active, info.id, info))
        self._aside.clear()

    def _best(self) -> NodeInfo | None:
        """Takes out the best node that passes; one that does not is out for the whole group."""
        passes = self._group.pipeline.still_passes
        while True:
            light = self._lightest()
            if self._own and (light is None or self._own[0][:2] < ((0, 0, light[0]), light[1])):
                info = heapq.heappop(self._own)[2]
            elif light is not None:
                info = self._set_aside()
            else:
                return None
            if passes(info):
                return info

    def _lightest(self) -> Light | None:
        """The first of the part's order that is no special one; those that got tasks since step back to their place."""
        order = self._order
        while order:
            active, id, info = order[0]
            if id in self._special:
                self._set_aside()
            elif active != info.active:
                heapq.heapreplace(order, (info.active, id, info))
            else:
                return order[0]
        return None

    def _set_aside(self) -> NodeInfo:
        info = heapq.heappop(self._order)[2]
        self._aside.append(info)
        return info


def _split(infos: Sequence[NodeInfo], descriptor: str) -> list[list[NodeInfo]]:
    parts: dict[str, list[NodeInfo]] = {}
    for info in infos:
        parts.setdefault(constraints.label(info.node, descriptor) or "", []).append(info)
    return [parts[value] for value in sorted(parts)]
