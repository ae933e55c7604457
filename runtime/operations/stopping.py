"""Stopping a service without removing it, and starting it again: what its spec becomes.

Rules owned here: a replicated service is scaled to 0, a global one gets a constraint that no node meets; what is needed
to start it again is a label of the service, so it is there under any leader and after any restart. Only what `stop`
changed is taken back: what others changed meanwhile stays, and a service that somebody scaled up meanwhile keeps its
number. Jobs are refused: they end by themselves, and any update of one runs it anew.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Final

from runtime.operations.reading import Json, is_job, mode_of, replicas_of
from runtime.swarm.labels import NOWHERE, STOPPED

EVERYWHERE: Final = "global"
_DIGITS_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Step:
    """What to send (None: nothing has to be), and a sentence on it."""

    spec: dict[str, Any] | None
    text: str


class CannotStop(Exception):
    """It cannot be done for this service; the text is the reason."""


def stop(spec: Json) -> Step:
    """The spec of the stopped service. CannotStop for jobs."""
    name = spec["Name"]
    if is_job(spec):
        raise CannotStop(f"{name} is a job: it ends by itself, and each change of it runs it anew (docker service rm)")
    new = copy.deepcopy(dict(spec))
    if mode_of(spec) == "global":
        if NOWHERE in _constraints(spec):
            return Step(None, f"{name} is stopped already")
        _place(new)["Constraints"] = [*_constraints(spec), NOWHERE]
        new["Labels"] = {**(spec.get("Labels") or {}), STOPPED: EVERYWHERE}
        return Step(new, f"{name} is stopped on every node")
    replicas = replicas_of(spec)
    if not replicas:
        remembered = _remembered(spec)
        known = f"{name} is stopped already: it had {remembered} replicas"
        return Step(None, known if remembered else f"{name} has no replicas: there is nothing to stop")
    new["Mode"] = {"Replicated": {"Replicas": 0}}
    new["Labels"] = {**(spec.get("Labels") or {}), STOPPED: str(replicas)}
    return Step(new, f"{name} is stopped: it had {replicas} replicas")


def start(spec: Json) -> Step:
    """The spec of the service as it was before it was stopped, with all that changed meanwhile. CannotStop if it is
    not known how many replicas it had."""
    name = spec["Name"]
    if is_job(spec):
        raise CannotStop(f"{name} is a job: docker service update --force {name} runs it anew")
    new = copy.deepcopy(dict(spec))
    new["Labels"] = {key: value for key, value in (spec.get("Labels") or {}).items() if key != STOPPED}
    if mode_of(spec) == "global":
        if NOWHERE not in _constraints(spec):
            return _not_stopped(spec, new, f"{name} is not stopped")
        _place(new)["Constraints"] = [each for each in _constraints(spec) if each != NOWHERE]
        return Step(new, f"{name} is started on every node that fits")
    if replicas_of(spec):
        return _not_stopped(spec, new, f"{name} is not stopped: it has {replicas_of(spec)} replicas")
    remembered = _remembered(spec)
    if not remembered:
        raise CannotStop(f"{name} has no replicas, and no label {STOPPED} says how many it had: docker service scale")
    new["Mode"] = {"Replicated": {"Replicas": remembered}}
    return Step(new, f"{name} is started with {remembered} replicas")


def is_stopped(spec: Json) -> bool:
    """Whether `stop` stopped the service and nobody started it since."""
    if mode_of(spec) == "global":
        return NOWHERE in _constraints(spec)
    return not replicas_of(spec) and _remembered(spec) > 0


def _not_stopped(spec: Json, new: dict[str, Any], text: str) -> Step:
    """Somebody started it in another way: what was remembered is of no use any more."""
    return Step(new if STOPPED in (spec.get("Labels") or {}) else None, text)


def _remembered(spec: Json) -> int:
    text = (spec.get("Labels") or {}).get(STOPPED, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX else 0


def _constraints(spec: Json) -> list[str]:
    return list(((spec.get("TaskTemplate") or {}).get("Placement") or {}).get("Constraints") or [])


def _place(spec: dict[str, Any]) -> dict[str, Any]:
    template = spec.setdefault("TaskTemplate", {})
    if template.get("Placement") is None:
        template["Placement"] = {}
    place: dict[str, Any] = template["Placement"]
    return place
