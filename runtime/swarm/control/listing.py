"""Filters of the list requests.

Rules owned here: of the filters with values, the first in the kind's precedence selects from the store by index, then
every filter is applied (AND between filters, OR between the values of one); a label filter wants the key, and the value
unless it is empty. Secrets, configs and resources instead take the union of names, name prefixes and id prefixes.
Lists come sorted by id, each object once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from runtime.swarm.ports import Key, T, View


@dataclass(frozen=True, slots=True)
class Filter(Generic[T]):
    """One filter of a request: its values, how the store finds objects by one value, whether an object passes."""

    values: Sequence[Any]
    find: Callable[[View, Any], Sequence[T]]
    passes: Callable[[T], bool]


def by_index(kind: type[T], index: str, values: Sequence[Key], of: Callable[[T], Key | None]) -> Filter[T]:
    """A filter on an index; ``of`` gives an object's key. Not for names, whose keys are folded."""
    wanted = frozenset(values)
    return Filter(values, lambda view, key: view.find(kind, index, key), lambda item: of(item) in wanted)


def by_name(kind: type[T], values: Sequence[str], name: Callable[[T], str]) -> Filter[T]:
    """A filter on whole names: found in any case, then compared exactly."""
    wanted = frozenset(values)
    return Filter(values, lambda view, text: view.find(kind, "name", text.lower()), lambda item: name(item) in wanted)


def by_name_prefix(kind: type[T], values: Sequence[str], name: Callable[[T], str]) -> Filter[T]:
    """A filter on beginnings of names, compared exactly."""
    prefixes = tuple(values)
    return Filter(
        values, lambda view, text: view.prefix(kind, "name", text.lower()), lambda item: name(item).startswith(prefixes)
    )


def by_id_prefix(kind: type[T], values: Sequence[str]) -> Filter[T]:
    """A filter on beginnings of ids."""
    prefixes = tuple(values)
    return Filter(values, lambda view, text: view.prefix(kind, "id", text), lambda item: item.id.startswith(prefixes))


def labels_match(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether every wanted label is there, with the wanted value unless that is empty."""
    return all(key in labels and value in ("", labels[key]) for key, value in wanted.items())


def select(
    view: View, kind: type[T], filters: Iterable[Filter[T]], passes: Callable[[T], bool] = lambda item: True
) -> list[T]:
    """The objects that pass all filters and ``passes``, sorted by id. Filters stand in their precedence."""
    active = [one for one in filters if one.values]
    found = union(view, active[:1]) if active else view.all(kind)
    return [item for item in found if passes(item) and all(one.passes(item) for one in active)]


def union(view: View, filters: Iterable[Filter[T]]) -> list[T]:
    """What the store finds for any value of any of the filters, sorted by id, each object once."""
    found = {item.id: item for one in filters for value in one.values for item in one.find(view, value)}
    return [found[id] for id in sorted(found)]


def select_any(
    view: View, kind: type[T], filters: Iterable[Filter[T]], passes: Callable[[T], bool] = lambda item: True
) -> list[T]:
    """The objects that the store finds by any filter and that pass ``passes``: the rule of secrets and configs."""
    active = [one for one in filters if one.values]
    found = union(view, active) if active else view.all(kind)
    return [item for item in found if passes(item)]
