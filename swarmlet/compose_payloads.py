"""Secrets and configs of a compose file: where their data comes from, and how services refer to them.

Rules it owns: data is read when the file is read, so that everything wrong with it is told before anything starts; a
secret or config that is ``external`` is looked for by name and never made. A service refers to them by the names that
they have in the file; what they are called in the swarm, and by which ids, is found at the deployment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from runtime.errors import Refused
from runtime.swarm.control.secrets import CONFIG_SIZE_LIMIT, SECRET_SIZE_LIMIT
from runtime.swarm.naming import check_secret_name
from runtime.wire.pb import specs_pb2, types_pb2
from swarmlet.compose_mounts import Volume
from swarmlet.compose_networks import Network
from swarmlet.compose_values import Notes, Place

SECTIONS: Final[Mapping[str, str]] = {"secret": "secrets", "config": "configs"}
LIMITS: Final[Mapping[str, int]] = {"secret": SECRET_SIZE_LIMIT, "config": CONFIG_SIZE_LIMIT}
SOURCES: Final[Mapping[str, tuple[str, ...]]] = {
    "secret": ("file", "environment", "external"),
    "config": ("file", "environment", "content", "external"),
}
MODE: Final = 0o444


@dataclass(frozen=True, slots=True)
class Payload:
    """A secret or a config. ``key`` is its name in the file, ``name`` in the swarm; without ``data`` it is external."""

    kind: str
    key: str
    name: str
    data: bytes | None = field(repr=False)
    labels: Mapping[str, str]
    template: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a file's services are read with: the stack's name, variables, a reader of files beside it and the directory
    that those are in, the file's secrets and configs by kind and key, its volumes by key, and its networks if services
    can be on some."""

    stack: str
    environ: Mapping[str, str]
    read: Callable[[str], bytes]
    notes: Notes
    payloads: Mapping[tuple[str, str], Payload] = field(default_factory=dict)
    beside: str = ""
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    networks: Mapping[str, Network] | None = None


def payloads(top: Place, around: Surroundings) -> dict[tuple[str, str], Payload]:
    """Everything in the sections ``secrets`` and ``configs``, by kind and key."""
    return {
        (kind, key): _payload(kind, key, place, around)
        for kind, section in SECTIONS.items()
        for key, place in top.at(section).entries()
    }


def _payload(kind: str, key: str, place: Place, around: Surroundings) -> Payload:
    place.known(*SOURCES[kind], "name", "labels", "template_driver", "driver", "driver_opts")
    for unknown in ("driver", "driver_opts"):
        if place.at(unknown).value is not None:
            place.at(unknown).fault("drivers of secrets are plugins of an engine; use file, environment or external")
    given = [name for name in SOURCES[kind] if place.at(name).value not in (None, False)]
    if len(given) != 1:
        place.fault(f"needs one of {', '.join(SOURCES[kind])}" + (f", not {' and '.join(given)}" if given else ""))
        return Payload(kind, key, key, None, {})
    outside = given == ["external"]
    name = _name(key, place, outside, around.stack)
    if outside:
        return Payload(kind, key, name, None, {})
    data = _data(given[0], place.at(given[0]), around)
    if data is not None and not 0 < len(data) < LIMITS[kind]:
        place.fault(f"{kind} data must be larger than 0 and less than {LIMITS[kind]} bytes")
    labels = {label: value or "" for label, value in place.at("labels").pairs().items()}
    driver = place.at("template_driver")
    template = driver.choice({"golang": "golang"}) if driver.value is not None else ""
    return Payload(kind, key, name, data or b"", labels, template)


def _name(key: str, place: Place, outside: bool, stack: str) -> str:
    old_form = place.at("external").at("name")  # as compose files before 3.5 have it
    if old_form.value is not None:
        name = old_form.text()
    else:
        if outside:
            place.at("external").flag()
        name = place.at("name").text() or (key if outside else f"{stack}_{key}")
    try:
        check_secret_name(name)
    except Refused as refused:
        place.fault(f"{name!r}: {refused.text}")
    return name


def _data(source: str, place: Place, around: Surroundings) -> bytes | None:
    """The data; a fault and None if it cannot be had."""
    text = place.text()
    if source == "content":
        return text.encode()
    if source == "environment":
        value = around.environ.get(text)
        if value is None:
            place.fault(f"the variable {text!r} is not set")
        return None if value is None else value.encode(errors="surrogateescape")
    try:
        return around.read(text)
    except FileNotFoundError:
        place.fault(f"there is no file {text!r}")
    except (OSError, ValueError) as error:
        place.fault(f"{text!r} cannot be read: {error}")
    return None


def references(
    place: Place, kind: str, container: specs_pb2.ContainerSpec, process: bool, around: Surroundings
) -> None:
    """What a service wants of one kind, as references by name without ids."""
    targets: set[str] = set()
    for item in place.items():
        if isinstance(item.value, dict):
            item.known("source", "target", "uid", "gid", "mode")
        source = item.at("source").text() if isinstance(item.value, dict) else item.text()
        payload = around.payloads.get((kind, source))
        if payload is None:
            item.fault(f"the file's section {SECTIONS[kind]} has no {source!r}")
            continue
        file = _target(item, source, kind, process)
        if file.name in targets:
            item.fault(f"another {kind} has the target {file.name!r}")
        targets.add(file.name)
        if kind == "secret":
            container.secrets.add(secret_name=payload.key, file=file)
        else:
            container.configs.add(config_name=payload.key, file=file)


def _target(item: Place, source: str, kind: str, process: bool) -> types_pb2.FileTarget:
    """Where the task finds it. A container finds configs at the root, a process in a directory of its own."""
    target = item.at("target").text() or source
    if process and (target.startswith("/") or ".." in target.split("/")):
        item.at("target").fault("a process finds its files below a directory of its own: name a file, not a path")
    if kind == "config" and not process and not target.startswith("/"):
        target = f"/{target}"
    uid, gid = item.at("uid").text() or "0", item.at("gid").text() or "0"
    return types_pb2.FileTarget(name=target, uid=uid, gid=gid, mode=_mode(item.at("mode")))


def _mode(place: Place) -> int:
    return MODE if place.value is None else place.octal()
