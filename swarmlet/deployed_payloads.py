"""Secrets and configs of a stack in its swarm: made, taken as they are, replaced, removed when nobody needs them.

Rules it owns: what the stack made carries its label and the name that it has in the file; data never changes in place,
so changed data is a new object (``NAME.2``, ``NAME.3``, ...) that services are moved to; an older one stays as long as
a service of the stack, or what it would be rolled back to, refers to it. No data is read back from the swarm: whether
it is the same is asked by an update with it, which a manager refuses if it is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runtime.errors import Code, Refused, not_found
from runtime.wire.pb import control_pb2, objects_pb2, specs_pb2
from swarmlet.compose_payloads import SECTIONS, Payload
from swarmlet.compose_service import NAMESPACE

if TYPE_CHECKING:
    from swarmlet.node import Node

SOURCE: Final = "swarmlet.compose.source"
GENERATION: Final = "swarmlet.compose.generation"


@dataclass(frozen=True, slots=True)
class Held:
    """What a secret or config of the file is in the swarm."""

    id: str
    name: str


Names = Mapping[tuple[str, str], Held]
"""By kind and the name in the file."""


def ensure(node: Node, stack: str, wanted: Sequence[Payload]) -> tuple[Names, list[str]]:
    """Has everything there, and says what was done. Raises Refused with the manager's reason."""
    names: dict[tuple[str, str], Held] = {}
    done: list[str] = []
    for payload in wanted:
        hand = _Hand(node, payload.kind)
        held, line = hand.outside(payload) if payload.data is None else hand.own(stack, payload)
        names[payload.kind, payload.key] = held
        done += [line] if line else []
    return names, done


def resolved(spec: specs_pb2.ServiceSpec, names: Names) -> specs_pb2.ServiceSpec:
    """The spec with the ids and names that the swarm knows."""
    new = specs_pb2.ServiceSpec()
    new.CopyFrom(spec)
    for secret in new.task.container.secrets:
        held = names["secret", secret.secret_name]
        secret.secret_id, secret.secret_name = held.id, held.name
    for config in new.task.container.configs:
        held = names["config", config.config_name]
        config.config_id, config.config_name = held.id, held.name
    return new


def clear(node: Node, stack: str, names: Names, services: Iterable[objects_pb2.Service]) -> list[str]:
    """Removes what the stack made and neither its file nor any of its services needs any longer."""
    needed = {held.id for held in names.values()}
    for service in services:
        for spec in (service.spec, service.previous_spec):
            needed |= {each.secret_id for each in spec.task.container.secrets}
            needed |= {each.config_id for each in spec.task.container.configs}
    done = []
    for kind in SECTIONS:
        hand = _Hand(node, kind)
        for old in hand.of_stack(stack):
            if old.id not in needed:
                hand.call("Remove", **{f"{kind}_id": old.id})
                done.append(f"removed {kind} {old.spec.annotations.name}")
    return done


class _Hand:
    """The control requests of one kind."""

    def __init__(self, node: Node, kind: str) -> None:
        self.node = node
        self.kind = kind

    def call(self, verb: str, **fields: Any) -> Any:
        method = f"{verb}{self.kind.capitalize()}" + ("s" if verb == "List" else "")
        request = getattr(control_pb2, f"{method}Request")(**fields)
        return self.node.control(method, request, getattr(control_pb2, f"{method}Response"))

    def listed(self, **filters: Any) -> list[Any]:
        wanted = getattr(control_pb2, f"List{self.kind.capitalize()}sRequest").Filters(**filters)
        return list(getattr(self.call("List", filters=wanted), f"{self.kind}s"))

    def of_stack(self, stack: str, **labels: str) -> list[Any]:
        """What a stack made, the oldest first."""
        found = self.listed(labels={NAMESPACE: stack, SOURCE: "", **labels})
        return sorted(found, key=_generation)

    def outside(self, payload: Payload) -> tuple[Held, str]:
        """One that others made."""
        for found in self.listed(names=[payload.name]):
            return Held(found.id, payload.name), ""
        raise not_found(f"the external {self.kind} {payload.name} is not there")

    def own(self, stack: str, payload: Payload) -> tuple[Held, str]:
        """The newest that the stack made, if it has this data, or a new one."""
        found = [each for each in self.of_stack(stack) if each.spec.annotations.labels[SOURCE] == payload.key]
        newest = next((each for each in reversed(found) if _base(each) == payload.name), None)
        if newest is not None and self._same(stack, newest, payload):
            return Held(newest.id, newest.spec.annotations.name), ""
        generation = 1 if newest is None else _generation(newest) + 1
        name = payload.name if generation == 1 else f"{payload.name}.{generation}"
        made = getattr(self.call("Create", spec=self._spec(stack, payload, name, generation)), self.kind)
        line = f"created {self.kind} {name}"
        return Held(made.id, name), f"{line} in place of {newest.spec.annotations.name}" if newest else line

    def _same(self, stack: str, held: Any, payload: Payload) -> bool:
        if held.spec.templating.name != payload.template:
            return False
        spec = self._spec(stack, payload, held.spec.annotations.name, _generation(held))
        fields = {f"{self.kind}_id": held.id, f"{self.kind}_version": held.meta.version, "spec": spec}
        try:
            self.call("Update", **fields)
        except Refused as refused:
            if refused.code is not Code.INVALID_ARGUMENT:
                raise
            return False
        return True

    def _spec(self, stack: str, payload: Payload, name: str, generation: int) -> Any:
        spec = specs_pb2.SecretSpec() if self.kind == "secret" else specs_pb2.ConfigSpec()
        spec.annotations.name = name
        ours = {NAMESPACE: stack, SOURCE: payload.key, GENERATION: str(generation)}
        spec.annotations.labels.update({**payload.labels, **ours})
        assert payload.data is not None
        spec.data = payload.data
        if payload.template:
            spec.templating.name = payload.template
        return spec


def _generation(held: Any) -> int:
    text = held.spec.annotations.labels.get(GENERATION, "")
    return int(text) if text.isascii() and text.isdecimal() else 0


def _base(held: Any) -> str:
    """Its name without the number of its generation."""
    name: str = held.spec.annotations.name
    return name if _generation(held) <= 1 else name.removesuffix(f".{_generation(held)}")
