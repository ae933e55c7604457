"""Versions of a secret or a config, whose data never changes: which there are, who has which, what may go.

Rules owned here: a family has a name; its first version is what has just that name, the others are called ``NAME.v2``,
``NAME.v3`` and say by labels what they are. The newest has the highest number. What a service has, and where a rotation
stands, follows from references alone, so a rotation that was cut off goes on from what is there. A service keeps target
file, owner and mode. A job is not touched unless that is asked for: any update of one runs it anew. A version goes when
it is none of those kept and nothing refers to it: no service, none of its tasks, and, as long as one is kept to roll
back to, nothing that a service would be rolled back to.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from runtime.operations.reading import Json, is_job, is_wanted, name_of, runs, wanted_number, why
from runtime.swarm.labels import FAMILY, VERSION

Kind = Literal["secret", "config"]
DATA_MAX: Final[dict[Kind, int]] = {"secret": 500 * 1024, "config": 1000 * 1024}
NAME_MAX: Final = 64
_DIGITS_MAX: Final = 9
_LISTS: Final[dict[Kind, str]] = {"secret": "Secrets", "config": "Configs"}
_NOT_PASSED_ON: Final = "swarmlet."
_STOPPED: Final = {
    "paused": "its update is paused",
    "rollback_paused": "its rollback is paused",
    "rollback_completed": "it was rolled back",
}


class CannotRotate(Exception):
    """It cannot be rotated; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Version:
    """One of a family. ``spec`` is without data, where the API shows none."""

    id: str
    name: str
    number: int
    spec: Json


@dataclass(frozen=True, slots=True)
class Family:
    """All versions of a secret or config, the oldest first: at least one. ``taken`` are names of others."""

    kind: Kind
    name: str
    versions: tuple[Version, ...]
    taken: frozenset[str] = frozenset()

    @property
    def newest(self) -> Version:
        """The one that services are to have."""
        return self.versions[-1]

    @property
    def older(self) -> frozenset[str]:
        """The ids of all others."""
        return frozenset(each.id for each in self.versions[:-1])

    def called(self, id: str) -> str:
        """The name of a version by its id."""
        return next((each.name for each in self.versions if each.id == id), id)


def family(kind: Kind, name: str, things: Iterable[Json]) -> Family:
    """The family of this name among all secrets, or all configs. CannotRotate if there is none."""
    found, taken = [], set()
    for thing in things:
        labels = thing["Spec"].get("Labels") or {}
        if name_of(thing) == name and labels.get(FAMILY, name) != name:
            theirs = labels[FAMILY]
            raise CannotRotate(f"{name} is a version of the {kind} {theirs}: rotate {theirs}")
        number = _number(labels.get(VERSION, "")) if FAMILY in labels else 1
        if number and (labels[FAMILY] if FAMILY in labels else name_of(thing)) == name:
            found.append(Version(thing["ID"], name_of(thing), number, thing["Spec"]))
        else:
            taken.add(name_of(thing))
    if not found:
        raise CannotRotate(f"there is no {kind} {name}: docker {kind} create makes the first version")
    return Family(kind, name, tuple(sorted(found, key=lambda each: (each.number, each.name))), frozenset(taken))


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX else 0


def next_spec(family: Family) -> dict[str, Any]:
    """The spec of the next version, as the newest is but for its name and without data. CannotRotate if its data is a
    driver's, or its name would be too long."""
    newest = family.newest
    if newest.spec.get("Driver"):
        raise CannotRotate(f"the data of {newest.name} is its driver's, which rotates it in its own way")
    number = newest.number + 1
    while (name := f"{family.name}.v{number}") in family.taken:
        number += 1
    if len(name) > NAME_MAX:
        raise CannotRotate(f"{name} is longer than the {NAME_MAX} characters that a name may have")
    labels = {key: value for key, value in (newest.spec.get("Labels") or {}).items() if _is_passed_on(key)}
    spec: dict[str, Any] = {"Name": name, "Labels": {**labels, FAMILY: family.name, VERSION: str(number)}}
    if newest.spec.get("Templating"):
        spec["Templating"] = copy.deepcopy(newest.spec["Templating"])
    return spec


def _is_passed_on(label: str) -> bool:
    return not label.startswith(_NOT_PASSED_ON)


# Who has which


def references(kind: Kind, spec: Json | None) -> list[str]:
    """The ids of the secrets or configs that a service's spec, or a task's, refers to."""
    return [holder[key] for holder, key in _holders(kind, spec or {})]


def _holders(kind: Kind, spec: Json) -> Iterator[tuple[Any, str]]:
    """Whatever holds the id of one, and under which key: references, and a credential spec that is a config."""
    container = (spec.get("TaskTemplate") or spec).get("ContainerSpec") or {}
    yield from ((each, f"{kind.capitalize()}ID") for each in container.get(_LISTS[kind]) or [])
    credentials = (container.get("Privileges") or {}).get("CredentialSpec") or {}
    if kind == "config" and credentials.get("Config"):
        yield credentials, "Config"


def moved(family: Family, spec: Json) -> dict[str, Any] | None:
    """The spec with the newest version wherever it has an older one, all else being as it is; None if it has none."""
    if not family.older.intersection(references(family.kind, spec)):
        return None
    new = copy.deepcopy(dict(spec))
    name = f"{family.kind.capitalize()}Name"
    for holder, key in _holders(family.kind, new):
        if holder[key] in family.older:
            holder[key] = family.newest.id
            if name in holder:
                holder[name] = family.newest.name
    return new


@dataclass(frozen=True, slots=True)
class Users:
    """The services that have any version, by name: to be updated or watched until they are, and jobs that are left."""

    rolled: tuple[Json, ...]
    left: tuple[Json, ...]


def users(family: Family, services: Iterable[Json], jobs: bool) -> Users:
    """Who has the family; ``jobs`` says that jobs are updated too."""
    ids = {each.id for each in family.versions}
    having = [each for each in services if ids.intersection(references(family.kind, each["Spec"]))]
    having.sort(key=name_of)
    left = [each for each in having if is_job(each["Spec"]) and not jobs and moved(family, each["Spec"])]
    return Users(tuple(each for each in having if each not in left), tuple(left))


# How far a service is


@dataclass(frozen=True, slots=True)
class Rolling:
    """How far a service is: ``stuck`` is why it gets no further by itself, ``going`` what is still to come; both are
    empty when it is done."""

    going: str = ""
    stuck: str = ""


def rolling(family: Family, service: Json, tasks: Sequence[Json]) -> Rolling:
    """How far a service that was given the newest version is; with ``ServiceStatus`` as the API's lists have it."""
    status = service.get("UpdateStatus") or {}
    state, message = status.get("State") or "", status.get("Message") or ""
    if family.newest.id not in references(family.kind, service["Spec"]):
        if state == "rollback_started":
            return Rolling(going=f"it is being rolled back: {message}")
        return Rolling(stuck=_with(_STOPPED.get(state, f"somebody gave it another {family.kind} meanwhile"), message))
    if is_paused(service):
        return Rolling(stuck=_with(_STOPPED[state], message))
    if is_job(service["Spec"]):
        return Rolling()
    live = [task for task in tasks if is_wanted(task)]
    old = [task for task in live if family.older.intersection(references(family.kind, task.get("Spec")))]
    running, wanted = sum(map(runs, live)) - sum(map(runs, old)), wanted_number(service)
    if old or state == "updating" or (running < wanted and state != "completed"):
        text = f"{running} of {wanted} tasks run with {family.newest.name}"
        return Rolling(going="; ".join([text, *why(live)]))
    return Rolling()


def is_paused(service: Json) -> bool:
    """Whether an update waits for somebody to begin it again."""
    return ((service.get("UpdateStatus") or {}).get("State") or "") in ("paused", "rollback_paused")


def _with(text: str, message: str) -> str:
    return f"{text}: {message}" if message else text


# What may go


def removable(family: Family, keep: int, services: Sequence[Json], tasks: Iterable[Json]) -> list[Version]:
    """The versions that are none of the newest and the ``keep`` before it, and that nothing refers to."""
    surplus = family.versions[: max(0, len(family.versions) - 1 - keep)]
    used = _used(family.kind, keep, services, tasks)
    return [each for each in surplus if each.id not in used]


def _used(kind: Kind, keep: int, services: Sequence[Json], tasks: Iterable[Json]) -> Collection[str]:
    specs = [each["Spec"] for each in services] + [task.get("Spec") for task in tasks if is_wanted(task)]
    if keep:
        specs += [each.get("PreviousSpec") for each in services]
    return {id for spec in specs for id in references(kind, spec)}
