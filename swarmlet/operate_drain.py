"""``swarmlet drain``: a node is drained, and that is waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runtime.operations import draining, reading
from swarmlet.engine_link import Engine
from swarmlet.errors import EXIT_OK
from swarmlet.operator_options import OperatorOptions
from swarmlet.waiting import until

Say = Callable[[str], None]


def drain(engine: Engine, asked: OperatorOptions, say: Say) -> int:
    """Drains a node, or has it take tasks again."""
    typed = asked.typed
    name, wanted = typed["node"], "active" if typed["undo"] else "drain"
    changed: list[Any] = []

    def change(node: Any) -> Any:
        changed[:] = [draining.drained(node, wanted)]
        return changed[0]

    node = engine.update("nodes", name, change)
    shown = reading.hostname(node)
    if typed["undo"]:
        again = "takes tasks again; those that left it stay where they are" if changed[0] else "takes tasks already"
        say(f"{shown} {again}")
        return EXIT_OK
    say(f"{shown} is {'being drained' if changed[0] else 'drained already'}; back with: swarmlet drain --undo {shown}")
    if typed["wait"]:
        _wait(engine, node["ID"], shown, typed["timeout"], say)
    return EXIT_OK


def _wait(engine: Engine, id: str, shown: str, timeout_s: float, say: Say) -> None:
    moving: set[draining.Place] = set()
    warned: set[str] = set()

    def missing() -> str:
        node, tasks = engine.get(f"/nodes/{id}"), engine.tasks()
        if node["Spec"]["Availability"] != "drain":
            return ""  # somebody took it back
        warning = draining.unheard(node, tasks)
        if warning not in {"", *warned}:
            warned.add(warning)
            say(warning)
        services = engine.services()
        moving.update(draining.places(id, tasks, services))
        return draining.progress(node, tasks, moving, reading.task_names(services)).text

    until(engine, missing, timeout_s, say, about=shown)
    if engine.get(f"/nodes/{id}")["Spec"]["Availability"] != "drain":
        say(f"{shown} is not drained any more: somebody has it take tasks again")
    else:
        say(f"{shown} is drained: {len(moving)} tasks run elsewhere, or are not wanted any more")
