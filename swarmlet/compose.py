"""Compose files (3.x, the subset that a process can honour) as the services of a stack.

Pure: the text, the variables and a reader of files beside it come in, specs and warnings come out.

Rules it owns: every fault of a file is told at once, with its place; a key that stands twice in a mapping, a file that
unfolds to more than ``NODES_MAX`` values and an unknown field are faults; what this version of the cluster does not
offer is refused here, before anything is deployed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Final

import yaml

from runtime.errors import Refused
from runtime.swarm.offered import check_offered
from runtime.wire.pb import control_pb2, specs_pb2
from swarmlet.compose_mounts import volumes
from swarmlet.compose_networks import NOT_CHOSEN, Network, networks
from swarmlet.compose_order import order
from swarmlet.compose_payloads import Payload, Surroundings, payloads
from swarmlet.compose_service import is_process, service
from swarmlet.compose_values import ComposeError, Notes, Place
from swarmlet.compose_variables import BadVariable, substitute

NODES_MAX: Final = 100_000
_SERVICE_NAME: Final = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9_.-]*[a-zA-Z0-9])?")
_STACK_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]*")
_GENERIC_FILES: Final = ("compose", "docker-compose", "docker-stack", "stack")
_REPLACED: Final = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


@dataclass(frozen=True, slots=True)
class Stack:
    """What a compose file asks for, in the file's order, and what was left out of it.

    ``services`` refer to secrets, configs and networks by their names in the file (``deployment`` fills the ids in).
    """

    name: str
    services: tuple[specs_pb2.ServiceSpec, ...]
    warnings: tuple[str, ...]
    payloads: tuple[Payload, ...] = ()
    networks: tuple[Network, ...] = ()


class _Loader(yaml.SafeLoader):
    """Plain values only, and no key twice in a mapping.

    As compose's own reader it knows YAML 1.2's scalars: only true and false are truth values, so that ``yes`` and
    ``no`` stay texts, and ``22:22`` is no number to the base of 60.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class has it
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice in a mapping", key.start_mark
                )
            seen.add(key.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)\Z"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9]*|0x[0-9a-fA-F]+)\Z"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]*([eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)\Z"),
    list("-+0123456789"),
)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def stack_name(path: PurePath) -> str:
    """A stack's name where its file gives none: the file's own, or its directory's for ``compose.yml`` and the like."""
    stem = path.stem if path.stem not in _GENERIC_FILES else path.parent.name
    name = re.sub(r"[^a-z0-9_-]", "", stem.lower()).lstrip("_-")
    return name or "stack"


def load(
    text: str,
    name: str,
    environ: Mapping[str, str],
    read: Callable[[str], bytes] | None = None,
    beside: str = "",
    local_networks: bool = False,
) -> Stack:
    """The stack that a compose file asks for.

    ``name`` is the stack's name unless the file gives one; ``environ`` holds the variables; ``read`` gives what is in
    a file by its path as written (OSError if it cannot); ``beside`` is the directory of the file;
    ``local_networks`` says that containers can be on networks. Raises ComposeError with everything that is wrong.
    """
    notes = Notes()
    top = _parse(text, environ, notes)
    top.known("version", "name", "services", "secrets", "configs", "volumes", "networks")
    if top.at("name").value is not None:
        name = top.at("name").text()
    if not _STACK_NAME.fullmatch(name):
        notes.fault("name", f"{name!r} must be of a-z, 0-9, - and _, and begin with a letter or digit")
    _top_level(top, notes, local_networks)
    around = Surroundings(name, environ, read or _absent, notes, beside=beside)
    found = payloads(top, around)
    around = replace(around, payloads=found, volumes=volumes(top, name))
    if local_networks:
        around = replace(around, networks=networks(top, name))
    specs = {key: _service(key, place, around) for key, place in top.at("services").entries()}
    order(top.at("services"), specs)
    if not specs and not notes.faults:
        notes.fault("services", "the file has none")
    if notes.faults:
        raise ComposeError(notes.faults)
    used = {each.target for spec in specs.values() for each in spec.task.networks}
    on = tuple(each for each in (around.networks or {}).values() if each.key in used)
    return Stack(name, tuple(specs.values()), tuple(notes.warnings), tuple(found.values()), on)


def _absent(path: str) -> bytes:
    raise FileNotFoundError(path)


def _parse(text: str, environ: Mapping[str, str], notes: Notes) -> Place:
    try:
        content = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        raise ComposeError([f"the file is no valid YAML: {error}"]) from None
    if not isinstance(content, dict):
        raise ComposeError(["the file must be a mapping with services"])
    budget = [NODES_MAX]
    content = {
        key: value if str(key).startswith("x-") else _substituted(value, str(key), environ, notes, budget)
        for key, value in content.items()
    }
    return Place(content, "", notes)


def _substituted(value: Any, path: str, environ: Mapping[str, str], notes: Notes, budget: list[int]) -> Any:
    """A copy with variables replaced. ``budget`` counts values: aliases of aliases can unfold without bound."""
    budget[0] -= 1
    if budget[0] < 0:
        raise ComposeError([f"the file unfolds to more than {NODES_MAX} values"])
    if isinstance(value, dict):
        return {key: _substituted(inner, f"{path}.{key}", environ, notes, budget) for key, inner in value.items()}
    if isinstance(value, list):
        return [_substituted(inner, f"{path}[{index}]", environ, notes, budget) for index, inner in enumerate(value)]
    if not isinstance(value, str):
        return value
    try:
        return substitute(value, environ, lambda name: notes.warn("", f"the variable {name} is not set and is empty"))
    except BadVariable as error:
        notes.fault(path, str(error))
        return ""


def _top_level(top: Place, notes: Notes, local_networks: bool) -> None:
    version = top.at("version").text()
    if version and not re.fullmatch(r"3(\.\d+)?", version):
        notes.fault("version", f"must be 3.x, not {version}")
    containers = any(not is_process(place.at("image").text()) for _, place in top.at("services").entries())
    if top.at("volumes").value and not containers:
        top.at("volumes").warn("is left out: processes have no volumes of their own")
    named = top.at("networks")
    plain = isinstance(named.value, dict) and set(named.value) == {"default"}
    if named.value and not plain and not (containers and local_networks):
        named.warn(f"is left out: {NOT_CHOSEN if containers else 'processes have no networks of their own'}")


def _service(key: str, place: Place, around: Surroundings) -> specs_pb2.ServiceSpec:
    if not _SERVICE_NAME.fullmatch(key):
        place.fault("a service's name is of letters, digits, _, . and -, and begins and ends with one of the first two")
    if not isinstance(place.value, dict):
        place.fault("must be a mapping")
        return specs_pb2.ServiceSpec()
    spec = service(key, place, around)
    try:
        check_offered("CreateService", control_pb2.CreateServiceRequest(spec=spec))
    except Refused as refused:
        place.fault(refused.text)
    return spec
