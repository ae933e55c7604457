"""Volumes, binds and tmpfs of a compose file as mounts of containers.

Rules it owns: a volume is made by the engine of the node that runs the task, with the name, driver and labels that
``docker stack deploy`` gives it; paths of this machine are resolved beside the compose file; what a mount cannot have
is a fault by its name. Nothing of a volume is removed with the stack, as everywhere in Docker.
"""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from runtime.wire.pb import types_pb2
from swarmlet.compose_values import Place

if TYPE_CHECKING:
    from runtime.wire.pb import specs_pb2
    from swarmlet.compose_payloads import Surroundings

Mount = types_pb2.Mount
TYPES: Final = {"volume": Mount.VOLUME, "bind": Mount.BIND, "tmpfs": Mount.TMPFS}
PROPAGATIONS: Final = {
    "rprivate": Mount.BindOptions.RPRIVATE,
    "private": Mount.BindOptions.PRIVATE,
    "rshared": Mount.BindOptions.RSHARED,
    "shared": Mount.BindOptions.SHARED,
    "rslave": Mount.BindOptions.RSLAVE,
    "slave": Mount.BindOptions.SLAVE,
}
CONSISTENCIES: Final = ("cached", "consistent", "default", "delegated")
"""They mean something to Docker Desktop alone."""
NAMESPACE: Final = "com.docker.stack.namespace"


@dataclass(frozen=True, slots=True)
class Volume:
    """A named volume of the file: what the engine calls it, and what it is made with where it is missing."""

    name: str
    external: bool = False
    driver: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def volumes(top: Place, stack: str) -> dict[str, Volume]:
    """The file's section ``volumes``, by key."""
    return {key: _volume(key, place, stack) for key, place in top.at("volumes").entries()}


def _volume(key: str, place: Place, stack: str) -> Volume:
    place.known("driver", "driver_opts", "external", "labels", "name")
    outside, name = place.at("external"), place.at("name").text()
    if isinstance(outside.value, dict):  # as compose files before 3.5 have it
        outside.known("name")
        return Volume(outside.at("name").text() or key, external=True)
    if outside.flag():
        for other in ("driver", "driver_opts", "labels"):
            if place.at(other).value is not None:
                place.at(other).fault("is not for an external volume, which is there already")
        return Volume(name or key, external=True)
    labels = {label: value or "" for label, value in place.at("labels").pairs().items()}
    options = {option: value or "" for option, value in place.at("driver_opts").pairs().items()}
    driver = place.at("driver").text() or ("local" if options else "")
    return Volume(name or f"{stack}_{key}", False, driver, options, {**labels, NAMESPACE: stack})


def add(place: Place, container: specs_pb2.ContainerSpec, around: Surroundings) -> None:
    """What a service mounts: its ``volumes`` and ``tmpfs``."""
    targets: set[str] = set()
    wanted = [_Reader(item, around).mount() for item in place.at("volumes").items()]
    memory = place.at("tmpfs")
    wanted += [_tmpfs(item) for item in ([memory] if isinstance(memory.value, str) else memory.items())]
    for item, mount in wanted:
        if not mount.target.startswith("/"):
            item.fault(f"the target must be an absolute path, not {mount.target!r}")
        elif mount.target.rstrip("/") in targets:
            item.fault(f"something else is mounted at {mount.target} already")
        targets.add(mount.target.rstrip("/"))
        container.mounts.append(mount)


class _Reader:
    """One entry of ``volumes``, in its short or long form."""

    def __init__(self, place: Place, around: Surroundings) -> None:
        self.place = place
        self.around = around
        self.made = types_pb2.Mount()

    def mount(self) -> tuple[Place, types_pb2.Mount]:
        """The mount, and the place to blame for it."""
        if isinstance(self.place.value, dict):
            self._long()
        else:
            self._short(self.place.text())
        return self.place, self.made

    def _short(self, text: str) -> None:
        """``TARGET``, ``SOURCE:TARGET`` or ``SOURCE:TARGET:MODE,MODE``."""
        parts = text.split(":")
        if len(parts) > 3 or not all(parts):
            self.place.fault(f"must be [SOURCE:]TARGET[:MODE], not {text!r}")
            return
        self.made.type = Mount.VOLUME
        self.made.target = parts[0] if len(parts) == 1 else parts[1]
        if len(parts) > 1:
            self._source(parts[0], bind=parts[0].startswith(("/", ".", "~")))
        for mode in parts[2].split(",") if len(parts) == 3 else ():
            self._mode(mode)

    def _mode(self, mode: str) -> None:
        made = self.made
        if mode == "ro":
            made.readonly = True
        elif mode == "nocopy" and made.type == Mount.VOLUME:
            made.volume_options.nocopy = True
        elif made.type == Mount.BIND and mode in PROPAGATIONS:
            made.bind_options.propagation = PROPAGATIONS[mode]
        elif mode != "rw" and mode not in CONSISTENCIES:
            self.place.fault(f"the mode {mode!r} cannot be had by a {TYPE_NAMES[made.type]} of a service")

    def _long(self) -> None:
        place, made = self.place, self.made
        place.known("type", "source", "target", "read_only", "consistency", "bind", "volume", "tmpfs")
        made.type = place.at("type").choice(TYPES)
        made.target = place.at("target").text()
        made.readonly = place.at("read_only").flag()
        if made.type == Mount.TMPFS:
            if place.at("source").value is not None:
                place.at("source").fault("a tmpfs has none")
        elif place.at("source").value is not None or made.type == Mount.BIND:
            self._source(place.at("source").text(), bind=made.type == Mount.BIND)
        for name, number in TYPES.items():
            section = place.at(name)
            if section.value is not None and number != made.type:
                section.fault(f"is not for a {TYPE_NAMES[made.type]}")
        self._options()

    def _options(self) -> None:
        made, bind, volume, tmpfs = self.made, *(self.place.at(name) for name in ("bind", "volume", "tmpfs"))
        bind.known("propagation", "create_host_path", "recursive")
        if bind.at("propagation").value is not None:
            made.bind_options.propagation = bind.at("propagation").choice(PROPAGATIONS)
        if bind.at("create_host_path").flag():
            made.bind_options.createmountpoint = True
        if bind.at("recursive").value is not None:
            self._recursive(bind.at("recursive"))
        volume.known("nocopy", "subpath")
        if volume.at("nocopy").flag():
            made.volume_options.nocopy = True
        if volume.at("subpath").value is not None:
            made.volume_options.subpath = volume.at("subpath").text()
        tmpfs.known("size", "mode")
        if tmpfs.at("size").value is not None:
            made.tmpfs_options.size_bytes = tmpfs.at("size").size()
        if tmpfs.at("mode").value is not None:
            made.tmpfs_options.mode = tmpfs.at("mode").octal()

    def _recursive(self, place: Place) -> None:
        options = self.made.bind_options
        options.nonrecursive = place.text() == "disabled"
        options.readonlynonrecursive = place.text() == "writable"
        options.readonlyforcerecursive = place.text() == "readonly"
        place.choice(dict.fromkeys(("enabled", "disabled", "writable", "readonly")))

    def _source(self, text: str, *, bind: bool) -> None:
        made = self.made
        if bind:
            made.type, made.source = Mount.BIND, self._path(text)
            return
        volume = self.around.volumes.get(text)
        if volume is None:
            self.place.fault(f"the file's section volumes has no {text!r}")
            return
        made.source = volume.name
        if not volume.external:
            made.volume_options.labels.update(volume.labels)
        if volume.driver:
            made.volume_options.driver_config.name = volume.driver
            made.volume_options.driver_config.options.update(volume.options)

    def _path(self, text: str) -> str:
        """A path of this machine: below the home directory, or beside the file."""
        if text == "~" or text.startswith("~/"):
            text = self.around.environ.get("HOME", "") + text[1:]
        path = os.path.normpath(os.path.join(self.around.beside, text)) if text else ""
        if not path.startswith("/"):
            self.place.fault(f"the path {text!r} is no place on this machine")
        return path


TYPE_NAMES: Final = {number: name for name, number in TYPES.items()}


def _tmpfs(item: Place) -> tuple[Place, types_pb2.Mount]:
    """``PATH`` or ``PATH:size=64m,mode=1777``."""
    path, _, options = item.text().partition(":")
    made = types_pb2.Mount(type=Mount.TMPFS, target=path)
    for option in options.split(",") if options else ():
        name, _, value = option.partition("=")
        given = Place(value, item.path, item.notes)
        if name == "size":
            made.tmpfs_options.size_bytes = given.size()
        elif name == "mode":
            made.tmpfs_options.mode = given.octal()
        else:
            item.fault(f"the option {option!r} of a tmpfs cannot be had by a service")
    return item, made
