"""``/tasks``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runtime.engine_api import filters, resolve
from runtime.engine_api.call import Answer, Call, answer
from runtime.engine_api.convert import task
from runtime.engine_api.errors import plain
from runtime.wire.pb import control_pb2 as pb

if TYPE_CHECKING:
    from runtime.engine_api.backend import Backend

FILTERS: Final = ("_up-to-date", "desired-state", "id", "label", "name", "node", "runtime", "service")
DEFAULT_RUNTIMES: Final = ("container", "")
"""What is listed unless asked otherwise: tasks of plugins and network attachments stay out of the way."""


async def listing(call: Call) -> Answer:
    """``GET /tasks``; services and nodes in filters may be named in any way that resolves."""
    given = filters.parse(call.query("filters"), FILTERS)
    request = pb.ListTasksRequest(
        filters=pb.ListTasksRequest.Filters(
            id_prefixes=given.get("id", []),
            name_prefixes=given.get("name", []),
            labels=filters.labels(given.get("label", [])),
            service_ids=await _ids(call.backend, resolve.SERVICE, given.get("service", [])),
            node_ids=await _ids(call.backend, resolve.NODE, given.get("node", [])),
            desired_states=_states(given.get("desired-state", [])),
            runtimes=given.get("runtime") or DEFAULT_RUNTIMES,
            up_to_date=filters.boolean(given, "_up-to-date"),
        )
    )
    found: Any = await call.backend.control("ListTasks", request)
    return answer([task.task_to_json(item) for item in found.tasks])


async def _ids(backend: Backend, kind: resolve.Kind, terms: list[str]) -> list[str]:
    return [(await resolve.find(backend, kind, term)).id for term in terms]


def _states(values: list[str]) -> list[Any]:
    for value in values:
        if value.lower() not in task.STATES:
            raise plain(f"Invalid desired-state filter: '{value}'")
    return [task.STATES[value.lower()] for value in values]


async def inspect(call: Call) -> Answer:
    """``GET /tasks/{id}``."""
    return answer(task.task_to_json(await resolve.find(call.backend, resolve.TASK, call.target)))


ROUTES = {"GET /tasks": listing, "GET /tasks/*": inspect}
