"""Which plugin it is that nodes are missing: SwarmKit's own words say only on how many nodes one is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from runtime.swarm.filters import missing_plugins, plugins_of
from runtime.wire.pb import objects_pb2 as objects


def plugin_hints(nodes: Sequence[objects.Node], task: objects.Task) -> list[str]:
    """A sentence for each plugin that the task needs and not every node has, by name; none where there are no nodes."""
    wanted, log = plugins_of(task)
    lacking = Counter(each for node in nodes for each in missing_plugins(node, wanted, log))
    return [
        f"the {kind.lower()} driver {name} is {_where(len(nodes) - count, len(nodes))}"
        for (kind, name), count in sorted(lacking.items())
    ]


def _where(having: int, all_: int) -> str:
    return "not there" if all_ == 1 else f"on {having or 'none'} of {all_} nodes"
