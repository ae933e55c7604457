"""``swarmlet stop`` and ``swarmlet start``: services that rest for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from runtime.operations import reading, stopping
from swarmlet.engine_link import Engine
from swarmlet.errors import EXIT_FAILED, EXIT_OK, StartError
from swarmlet.operator_options import OperatorOptions
from swarmlet.waiting import until

Say = Callable[[str], None]
PATIENCE_S: Final = 3.0
"""How long a global service may take until it has a task anywhere; it may as well be that no node fits."""


def stop(engine: Engine, asked: OperatorOptions, say: Say) -> int:
    """Stops services, and waits until their tasks have ended."""
    return _each(engine, asked, say, stopping.stop, _left)


def start(engine: Engine, asked: OperatorOptions, say: Say) -> int:
    """Starts services again, and waits until their tasks run."""
    patient_until = engine.clock() + PATIENCE_S
    return _each(engine, asked, say, stopping.start, lambda engine, id: _not_up(engine, id, patient_until))


def _each(
    engine: Engine,
    asked: OperatorOptions,
    say: Say,
    decide: Callable[[Any], stopping.Step],
    missing: Callable[[Engine, str], str],
) -> int:
    """Changes all services first, then waits for them in turn; one that is refused leaves the others as they are."""
    ids = {name: engine.service(name)["ID"] for name in dict.fromkeys(asked.typed["services"])}
    failed = False
    for name, id in ids.items():
        try:
            say(_changed(engine, id, decide))
        except stopping.CannotStop as reason:
            failed = True
            say(f"{name} is left as it is: {reason}")
            ids = {other: its for other, its in ids.items() if other != name}
    for id in ids.values() if not asked.typed["detach"] else ():
        until(engine, lambda id=id: missing(engine, id), asked.typed["timeout"], say)  # type: ignore[misc]
    return EXIT_FAILED if failed else EXIT_OK


def _changed(engine: Engine, id: str, decide: Callable[[Any], stopping.Step]) -> str:
    steps: list[stopping.Step] = []

    def change(service: Any) -> Any:
        steps.append(decide(service["Spec"]))
        return steps[-1].spec

    engine.update("services", id, change)
    return steps[-1].text


def _left(engine: Engine, id: str) -> str:
    """What of a stopped service may still run."""
    unheard = reading.down_nodes(engine.nodes())
    service = _one(engine, id)
    if not stopping.is_stopped(service["Spec"]) and reading.wanted_number(service):
        return ""  # somebody started it again
    left = reading.still_there(engine.tasks(service=id), unheard)
    names = reading.task_names([service])
    shown = [f"{reading.task_name(task, names)} is {reading.said(task)}" for task in left[: reading.REASONS_MAX]]
    return f"{len(left)} tasks have not ended yet: {'; '.join(shown)}" if left else ""


def _not_up(engine: Engine, id: str, patient_until: float) -> str:
    """Why a started service is not up."""
    service = _one(engine, id)
    if not reading.wanted_number(service) and engine.clock() < patient_until:
        return f"{reading.name_of(service)} has no tasks yet"
    why = reading.not_up(service, engine.tasks(service=id))
    return f"{reading.name_of(service)}: {why}" if why else ""


def _one(engine: Engine, id: str) -> Any:
    for service in engine.services(id=id):
        return service
    raise StartError(f"service {id} was removed meanwhile")
