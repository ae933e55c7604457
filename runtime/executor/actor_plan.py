"""What a task asks of the program that its node runs in: which registered actor it is, and what that is given.

Rules owned here: only what is registered can run, nothing is imported by name; every field that an actor cannot honour
is refused by its name; environment values are templates. A refusal is final: REJECTED.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from runtime.executor.actor_log import LOG_BYTES, ActorLog
from runtime.executor.health import HealthRules
from runtime.executor.port import Rejected, Stream, TaskContext
from runtime.executor.process_plan import GRACE, check_network, expand_into, log_driver, log_limits
from runtime.protocol.actor_tasks import Ping
from runtime.stage import Actor
from runtime.stage.policy import GiveUp, Policy, Restart
from runtime.swarm.actor_spec import PREFIX, actor_name, check_name, unsupported, wants_health
from runtime.swarm.generic import environment
from runtime.swarm.naming import task_name
from runtime.wire.pb import objects_pb2, types_pb2

if TYPE_CHECKING:
    from runtime.stage import Address

ACTOR: Final = "actor"


@dataclasses.dataclass(frozen=True, slots=True)
class Registered:
    """An actor that services can run. Each task has an instance, made with its TaskPlace and then ``arguments``.
    ``restart``: one that fails comes back in its place, as its policy says, and its task goes on; otherwise its failure
    is its task's."""

    actor: type[Actor]
    arguments: tuple[Any, ...] = ()
    restart: bool = False

    def policy(self) -> Policy:
        """How an instance lives. It has a thread of its own, so that one that takes its time holds nobody else up."""
        kind = Restart.TRANSIENT if self.restart else Restart.TEMPORARY
        return dataclasses.replace(
            self.actor.policy,
            restart=kind,
            give_up=GiveUp.STAY_DOWN,
            escalates=(),
            own_thread=True,
        )

    def takes(self, message: type[Any]) -> bool:
        """Whether it has a handler for such messages."""
        return message in self.actor._handlers


Registry = Mapping[str, Registered]


def registry_of(actors: Mapping[str, type[Actor] | Registered]) -> Registry:
    """Names and what they stand for. ValueError for a name that no image can have, TypeError for what is no actor."""
    found = {}
    for name, given in actors.items():
        check_name(name)
        registered = given if isinstance(given, Registered) else Registered(given)
        if not (isinstance(registered.actor, type) and issubclass(registered.actor, Actor)):
            raise TypeError(f"{name} is to be a class of actors, not {registered.actor!r}")
        found[name] = registered
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class TaskPlace:
    """What an actor that is a task is given: who it is, what its service says, and how it speaks to the swarm.

    ``env`` has its templates expanded; ``args`` are the service's arguments, ``labels`` its container labels.
    ``slot`` is 0 in global services; ``node`` is the name of the node's machine.
    """

    task_id: str
    service_id: str
    service: str
    slot: int
    node_id: str
    node: str
    args: tuple[str, ...]
    env: Mapping[str, str] = dataclasses.field(repr=False)
    labels: Mapping[str, str]
    _secrets: Mapping[str, bytes] = dataclasses.field(repr=False)
    _configs: Mapping[str, bytes] = dataclasses.field(repr=False)
    _write: Callable[[str, Stream], None] = dataclasses.field(repr=False)
    _exit: Callable[[int], None] = dataclasses.field(repr=False)
    _at: Callable[[str], Address] = dataclasses.field(repr=False)

    def secret(self, name: str) -> bytes:
        """A secret of the service, by its target's name. KeyError if it has none of that name."""
        return self._secrets[name]

    def config(self, name: str) -> bytes:
        """A config of the service, by its target's name. KeyError if it has none of that name."""
        return self._configs[name]

    def log(self, line: str, error: bool = False) -> None:
        """Writes a line for ``docker service logs``, of standard error if it is one. From any thread."""
        self._write(line, Stream.STDERR if error else Stream.STDOUT)

    def exit(self, code: int = 0) -> None:
        """Ends the task with this exit code, once the message in hand is handled. From any thread."""
        if not 0 <= code <= 255:
            raise ValueError(f"an exit code is a number from 0 to 255, not {code}")
        self._exit(code)

    def at(self, path: str) -> Address:
        """The address of somebody in this node's tree: ``/queue`` is what the program mounted as ``queue``."""
        return self._at(path)


@dataclasses.dataclass(frozen=True, slots=True)
class ActorPlan:
    """A task ready to be started. ``name`` is its place below the supervisor."""

    task: objects_pb2.Task = dataclasses.field(repr=False)
    task_id: str
    container_id: str
    name: str
    registered: Registered
    node_id: str
    node: str
    env: Mapping[str, str] = dataclasses.field(repr=False)
    grace: float
    health: HealthRules | None
    log: ActorLog = dataclasses.field(repr=False)

    def place(
        self,
        secrets: Mapping[str, bytes],
        configs: Mapping[str, bytes],
        leave: Callable[[int], None],
        at: Callable[[str], Address],
    ) -> TaskPlace:
        """What the actor is given."""
        task, container = self.task, self.task.spec.container
        return TaskPlace(
            task_id=task.id,
            service_id=task.service_id,
            service=task.service_annotations.name,
            slot=task.slot,
            node_id=self.node_id,
            node=self.node,
            args=tuple(container.args),
            env=self.env,
            labels=MappingProxyType(dict(sorted(container.labels.items()))),
            _secrets=secrets,
            _configs=configs,
            _write=self.log.write,
            _exit=leave,
            _at=at,
        )


def make_plan(
    task: objects_pb2.Task, context: TaskContext, registry: Registry, log_of: Callable[[int], ActorLog]
) -> ActorPlan:
    """The plan of a task; ``Rejected`` with a sentence that names what can't be had. ``log_of(limit)`` finds or makes
    the task's log."""
    registered = _registered(task, registry)
    _check_fields(task, registered)
    env: dict[str, str] = {}
    container = task.spec.container
    expand_into(env, container.env, context)
    for given in environment(task.assigned_generic_resources):
        kind, _, value = given.partition("=")
        env[kind] = value
    size, files = log_limits(log_driver(task), ACTOR, LOG_BYTES)
    grace = container.stop_grace_period.ToNanoseconds() / 1e9 if container.HasField("stop_grace_period") else GRACE
    return ActorPlan(
        task=task,
        task_id=task.id,
        container_id=hashlib.sha256(task.id.encode()).hexdigest(),
        name=task_name(task),
        registered=registered,
        node_id=context.node_id,
        node=context.hostname,
        env=MappingProxyType(env),
        grace=grace,
        health=HealthRules(container.healthcheck) if wants_health(container) else None,
        log=log_of(size * _files_kept(log_driver(task), files)),
    )


def _files_kept(driver: types_pb2.Driver, files: int) -> int:
    """How many files' worth of lines are kept: one, unless the service says how many."""
    return files if not files or "max-file" in driver.options else 1


def _registered(task: objects_pb2.Task, registry: Registry) -> Registered:
    image = task.spec.container.image
    name = actor_name(image) if task.spec.HasField("container") else ""
    known = ", ".join(sorted(registry)) or "none"
    if not name:
        raise Rejected(f'the actor executor runs images like "{PREFIX}NAME" only, not "{image}"')
    if name not in registry:
        raise Rejected(f'no actor "{name}" is registered at this node; there are: {known}')
    return registry[name]


def _check_fields(task: objects_pb2.Task, registered: Registered) -> None:
    for field in unsupported(task.spec):
        raise Rejected(f"the actor executor cannot honour {field}")
    for port in task.endpoint.ports:
        raise Rejected(f"the actor executor cannot publish ports: {port.target_port}")
    for attachment in task.networks:
        check_network(attachment, ACTOR, "an actor")
    if wants_health(task.spec.container) and not registered.takes(Ping):
        raise Rejected(
            f"the actor executor cannot honour healthcheck: {registered.actor.__name__} has no handler of Ping"
        )


def payloads(task: objects_pb2.Task, context: TaskContext) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Secrets and configs by the names of their targets. KeyError or Refused for what this node was not given."""
    container = task.spec.container
    secrets = {_target(each, each.secret_name): context.secret(each.secret_id) for each in container.secrets}
    configs = {_target(each, each.config_name): context.config(each.config_id) for each in container.configs}
    return secrets, configs


def _target(reference: Any, name: str) -> str:
    return str(reference.file.name if reference.HasField("file") and reference.file.name else name)
