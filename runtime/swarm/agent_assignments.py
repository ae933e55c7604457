"""What assignment messages give a node: tasks, and the secrets and configs that they use.

Rules owned here:
1. Secrets and configs are kept in memory alone and in no repr. A complete message replaces all of them.
2. A task reads only those that its container spec names. A secret made for one task (``<secret>.<task>``) goes
   before the common one.
3. What a life has read stays as it was: the maps are replaced as a whole, so any thread may read them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from runtime.errors import Code, Refused, invalid, not_found
from runtime.swarm.ingress_tables import PREFIX
from runtime.swarm.templates import PayloadContext, TemplateContext, TemplateError, expand_payload, expand_text
from runtime.wire.pb import dispatcher_pb2 as dispatcher
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types


@dataclass(slots=True)
class TaskChanges:
    """The tasks of one message. ``complete``: a task that is not in ``given`` is not this node's any more."""

    complete: bool
    given: dict[str, tuple[objects.Task, types.TaskStatus]] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)


def bare(task: objects.Task) -> objects.Task:
    """A copy without status and meta: two versions of a task that say the same to a node are equal."""
    copy = objects.Task()
    copy.CopyFrom(task)
    copy.ClearField("status")
    copy.ClearField("meta")
    return copy


def task_changes(message: dispatcher.AssignmentsMessage) -> TaskChanges:
    """The tasks of a message, in its order; the last word about a task counts."""
    changes = TaskChanges(message.type == dispatcher.AssignmentsMessage.COMPLETE)
    for change in message.changes:
        if change.assignment.WhichOneof("item") != "task":
            continue
        task = change.assignment.task
        if change.action == dispatcher.AssignmentChange.UPDATE:
            status = types.TaskStatus()
            status.CopyFrom(task.status)
            changes.given[task.id] = bare(task), status
        else:
            changes.given.pop(task.id, None)
            changes.removed.append(task.id)
    changes.removed = [task_id for task_id in changes.removed if task_id not in changes.given]
    return changes


def needs_payloads(task: objects.Task) -> bool:
    """Whether a task can be started only when its secrets and configs are there."""
    container = task.spec.container
    return bool(container.secrets or container.configs)


class Dependencies:
    """The secrets and configs of a node. Changed by its agent alone, read by anybody."""

    __slots__ = ("configs", "secrets", "tables")

    def __init__(self) -> None:
        self.secrets: Mapping[str, objects.Secret] = {}
        self.configs: Mapping[str, objects.Config] = {}
        self.tables: Mapping[str, bytes] = {}

    def __repr__(self) -> str:
        return f"Dependencies({len(self.secrets)} secrets, {len(self.configs)} configs)"

    def apply(self, message: dispatcher.AssignmentsMessage) -> bool:
        """Takes over what a message says of secrets and configs. True if the tables of published services changed."""
        complete = message.type == dispatcher.AssignmentsMessage.COMPLETE
        kinds = {change.assignment.WhichOneof("item") for change in message.changes}
        if complete or "secret" in kinds:
            self.secrets = _changed({} if complete else self.secrets, message, "secret")
        if complete or "config" in kinds:
            self.configs = _changed({} if complete else self.configs, message, "config")
        before = self.tables
        self.tables = {id: config.spec.data for id, config in self.configs.items() if id.startswith(PREFIX)}
        return self.tables != before


Item = TypeVar("Item", objects.Secret, objects.Config)


def _changed(before: Mapping[str, Item], message: dispatcher.AssignmentsMessage, kind: str) -> dict[str, Item]:
    after = dict(before)
    for change in message.changes:
        if change.assignment.WhichOneof("item") != kind:
            continue
        item = getattr(change.assignment, kind)
        if change.action == dispatcher.AssignmentChange.UPDATE:
            copy = type(item)()
            copy.CopyFrom(item)
            after[item.id] = copy
        else:
            after.pop(item.id, None)
    return after


class TaskPayloads:
    """What one task may read of a node's secrets and configs, templates expanded."""

    __slots__ = ("_configs", "_context", "_dependencies", "_node", "_secrets", "_task")

    def __init__(self, dependencies: Dependencies, task: objects.Task, node: types.NodeDescription) -> None:
        container = task.spec.container
        self._dependencies = dependencies
        self._task = task
        self._node = node
        self._context = TemplateContext.of(task, node)
        self._secrets = frozenset(reference.secret_id for reference in container.secrets)
        self._configs = frozenset(reference.config_id for reference in container.configs)

    def expand(self, text: str) -> str:
        """One template text of the task's spec. ``Refused`` if it is a bad one."""
        try:
            return expand_text(text, self._context)
        except TemplateError as error:
            raise invalid(str(error)) from None

    def secret(self, secret_id: str) -> bytes:
        """A secret's payload. ``Refused`` if the task does not refer to it or the node was not given it."""
        found = self._find_secret(secret_id)
        return self._expanded(found.spec.data, found.spec, secret=True)

    def config(self, config_id: str) -> bytes:
        """A config's payload, as ``secret``."""
        found = self._find_config(config_id)
        return self._expanded(found.spec.data, found.spec, secret=False)

    def _find_secret(self, secret_id: str) -> objects.Secret:
        self._check("secret", secret_id, self._secrets)
        secrets = self._dependencies.secrets
        found = secrets.get(f"{secret_id}.{self._task.id}") or secrets.get(secret_id)
        if found is None:
            raise not_found(f"secret {secret_id} not found")
        return found

    def _find_config(self, config_id: str) -> objects.Config:
        self._check("config", config_id, self._configs)
        found = self._dependencies.configs.get(config_id)
        if found is None:
            raise not_found(f"config {config_id} not found")
        return found

    def _check(self, kind: str, id: str, allowed: frozenset[str]) -> None:
        if id not in allowed:
            raise Refused(Code.PERMISSION_DENIED, f"task not authorized to access {kind} {id}")

    def _expanded(self, data: bytes, spec: specs.SecretSpec | specs.ConfigSpec, secret: bool) -> bytes:
        if not spec.HasField("templating"):
            return data
        context = PayloadContext.of(
            self._task,
            self._node,
            lambda id: _unless_refused(lambda: self._find_secret(id).spec.data),
            lambda id: _unless_refused(lambda: self._find_config(id).spec.data),
        )
        try:
            return expand_payload(data, spec.templating, context, secret=secret)[0]
        except TemplateError as error:
            raise invalid(str(error)) from None


def _unless_refused(read: Callable[[], bytes]) -> bytes | None:
    try:
        return read()
    except Refused:
        return None
