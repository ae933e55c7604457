"""What a node's tasks were run by before, and whether any of them still run there.

Rules owned here: an executor begins only where it will see all that runs for its node. What another kind has left, or
this kind at another engine, is neither ended nor taken over, for nobody asked for that: it is told, and how to end it.
An engine that cannot be reached is not waited for: it may be gone for good.
"""

from __future__ import annotations

import logging
import os
from typing import Final

from runtime.executor import journal, procfs
from runtime.executor.container import SOCKET, kept_owner
from runtime.executor.container_config import TASK_LABEL
from runtime.executor.engine_client import EngineClient, EngineRefused, EngineUnavailable
from runtime.executor.engine_containers import EngineContainers
from runtime.executor.keeper import JOURNAL
from runtime.executor.work import Loop, answer_of

LOOK_S: Final = 10.0
END: Final = "drain the node or end it with --stop-tasks-on-exit"

log = logging.getLogger("swarmlet.executor")


def of_processes(directory: str) -> str:
    """What is to be said of the tasks that run as processes, kept in ``directory``; empty if there are none."""
    try:
        with open(os.path.join(directory, JOURNAL), "rb") as file:
            records, _ = journal.read(file.read())
    except FileNotFoundError:
        return ""
    boot = procfs.boot_id()
    here = [each for each in records.values() if each["state"] == "running" and each["boot"] == boot]
    left = [each["id"] for each in here if procfs.start_time(each["pid"]) == each["start"]]
    return _said(left, "as processes", f"start it with the process executor first, and {END}")


def of_containers(loop: Loop, directory: str, socket: str = "") -> str:
    """The same of containers at the engine that ``directory`` remembers, but for those that the one at ``socket`` has:
    an engine may be reached by several paths."""
    try:
        with open(os.path.join(directory, SOCKET), encoding="utf-8", errors="surrogateescape") as file:
            remembered = file.read()
    except FileNotFoundError:
        return ""
    if remembered == socket:
        return ""
    left = answer_of(loop, _left(remembered, socket, kept_owner(directory)), LOOK_S)
    if left == [] and not socket:
        os.unlink(os.path.join(directory, SOCKET))  # nobody need ask again
    if isinstance(left, list):
        return _said(left, f"as containers of {remembered}", f"start it with that engine first, and {END}")
    log.warning("whether tasks of this node still run at %s cannot be told: %s", remembered, left or "it is silent")
    return ""


async def _left(remembered: str, socket: str, owner: str) -> list[str]:
    there = await _alive(remembered, owner)
    try:
        here = await _alive(socket, owner) if socket and there else {}
    except (EngineUnavailable, EngineRefused):
        here = {}
    return [task for container, task in there.items() if container not in here]


async def _alive(socket: str, owner: str) -> dict[str, str]:
    client = EngineClient(socket, answer_s=LOOK_S)
    try:
        found = await EngineContainers(client, owner).alive()
    finally:
        await client.close()
    return {str(each["Id"]): str(each["Labels"].get(TASK_LABEL)) for each in found}


def _said(tasks: list[str], how: str, remedy: str) -> str:
    if not tasks:
        return ""
    named = ", ".join(sorted(tasks)[:3]) + (", ..." if len(tasks) > 3 else "")
    count = "a task of this node still runs" if len(tasks) == 1 else f"{len(tasks)} tasks of this node still run"
    return f"{count} {how} ({named}): {remedy}"
