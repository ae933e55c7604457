"""``swarmlet rotate``: new data for a secret or a config, and all services moved to it, one after the other.

Rules it owns: data comes from a file or from standard input and is in no argument, line or error; the next service is
touched when the one before is done; one that does not get there ends the command, which says what is done and what not,
and the same command goes on from there.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from typing import Any, BinaryIO, Final

from runtime.operations import families, reading
from runtime.operations.families import CannotRotate, Family, Version
from swarmlet.engine_link import Engine, Refused
from swarmlet.errors import EXIT_OK, StartError
from swarmlet.operator_options import OperatorOptions
from swarmlet.waiting import until

Say = Callable[[str], None]
CREATE_ATTEMPTS: Final = 5
CONFLICT: Final = 409
BAD_REQUEST: Final = 400


def rotate(engine: Engine, asked: OperatorOptions, say: Say) -> int:
    """The whole rotation. StartError with what stands in the way."""
    typed = asked.typed
    kind: families.Kind = typed["kind"]
    data = read_data(kind, typed["file"], sys.stdin.buffer) if typed["file"] else b""
    try:
        if typed["dry_run"]:
            return _plan(engine, _family(engine, kind, typed["name"]), data, asked, say)
        family = _with_data(engine, _family(engine, kind, typed["name"]), data, say)
    except CannotRotate as reason:
        raise StartError(str(reason)) from None
    _roll(engine, family, asked, say)
    _clear(engine, family, typed["keep"], say)
    return EXIT_OK


def read_data(kind: families.Kind, file: str, stdin: BinaryIO) -> bytes:
    """What the file holds, or standard input for ``-``. StartError if it cannot be read or is no data of this kind."""
    most = families.DATA_MAX[kind]
    try:
        if file == "-":
            data = stdin.read(most + 1)
        else:
            with open(file, "rb") as opened:
                data = opened.read(most + 1)
    except OSError as error:
        raise StartError(f"cannot read {file}: {error.strerror or error}") from None
    if not 0 < len(data) < most:
        raise StartError(f"{kind} data must be larger than 0 and less than {most} bytes")
    return data


def _family(engine: Engine, kind: families.Kind, name: str) -> Family:
    return families.family(kind, name, engine.listed(f"/{kind}s"))


# The newest version


def _with_data(engine: Engine, family: Family, data: bytes, say: Say) -> Family:
    """The family with a newest version that has this data; as it is where no data was given."""
    if not data:
        say(f"no new data was given: {family.newest.name} is the newest version")
        return family
    for _ in range(CREATE_ATTEMPTS):
        if has_data(engine, family, data):
            say(f"{family.newest.name} has this data already")
            return family
        spec = families.next_spec(family)
        try:
            engine.post(f"/{family.kind}s/create", {**spec, "Data": _encoded(data)})
        except Refused as refused:
            if refused.status != CONFLICT:
                raise
            family = _family(engine, family.kind, family.name)  # somebody made one of this name
        else:
            say(f"created {family.kind} {spec['Name']}")
            return _family(engine, family.kind, family.name)
    raise StartError(f"others make versions of {family.name} all the time")


def has_data(engine: Engine, family: Family, data: bytes) -> bool:
    """Whether the newest version has this data. Data of secrets is not shown: whether it is the same is asked by an
    update with it, which a manager refuses if it is not."""
    newest = family.newest
    found = engine.get(f"/{family.kind}s/{newest.id}")
    if family.kind == "config":
        return base64.b64decode(found["Spec"].get("Data") or "") == data
    if newest.spec.get("Driver"):
        return False
    try:
        engine.update("secrets", newest.id, lambda secret: {**secret["Spec"], "Data": _encoded(data)})
    except Refused as refused:
        if refused.status != BAD_REQUEST:
            raise
        return False
    return True


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


# The services


def _roll(engine: Engine, family: Family, asked: OperatorOptions, say: Say) -> None:
    """Moves all services to the newest version; StartError where one stops."""
    users = families.users(family, engine.services(), asked.typed["jobs"])
    for service in users.left:
        say(f"left {_left(service)}")
    names = [reading.name_of(each) for each in users.rolled]
    for number, service in enumerate(users.rolled):
        try:
            _roll_one(engine, family, service, asked.typed["timeout"], say)
        except Stuck as stuck:
            rest = names[number + 1 :]
            still = f"; not looked at yet: {', '.join(rest)}" if rest else ""
            raise StartError(f"{names[number]}: {stuck}{still}. The same command goes on from here") from None


class Stuck(Exception):
    """A service gets no further by itself."""


def _roll_one(engine: Engine, family: Family, service: Any, timeout_s: float, say: Say) -> None:
    begun = ""

    def change(found: Any) -> Any:
        nonlocal begun
        new = families.moved(family, found["Spec"])
        paused = families.is_paused(found)
        begun = "is updated" if new is not None else "was paused and goes on with its update" if paused else ""
        return new or (found["Spec"] if paused else None)

    name = reading.name_of(service)
    engine.update("services", service["ID"], change)
    if begun:
        say(f"{name} {begun} to {family.newest.name}")
    until(engine, lambda: _going(engine, family, service["ID"]), timeout_s, say, about=name)
    say(f"{name} has {family.newest.name}")


def _going(engine: Engine, family: Family, id: str) -> str:
    for service in engine.services(id=id):
        found = families.rolling(family, service, engine.tasks(service=id))
        if found.stuck:
            raise Stuck(found.stuck)
        return found.going
    return ""  # it was removed meanwhile


def _left(service: Any) -> str:
    return f"{reading.name_of(service)} as it is: it is a job, which an update would run anew (--jobs)"


# The old versions


def _clear(engine: Engine, family: Family, keep: int, say: Say) -> None:
    """Removes the old versions that nothing needs."""
    family = _family(engine, family.kind, family.name)
    for version in families.removable(family, keep, engine.services(), engine.tasks()):
        try:
            engine.delete(f"/{family.kind}s/{version.id}")
        except Refused as refused:
            say(f"{version.name} stays: {refused}")  # somebody took it into use in between
        else:
            say(f"removed {family.kind} {version.name}")


# The dry run


def _plan(engine: Engine, family: Family, data: bytes, asked: OperatorOptions, say: Say) -> int:
    """Says what would be done; nothing is changed."""
    kind, new = family.kind, family
    say(f"{kind} {family.name}: {', '.join(each.name for each in family.versions)}")
    if data and not (kind == "config" and has_data(engine, family, data)):
        spec = families.next_spec(family)
        unless = f", unless {family.newest.name} has this data already" if kind == "secret" else ""
        say(f"would create {spec['Name']}{unless}")
        made = Version("", spec["Name"], family.newest.number + 1, spec)
        new = Family(kind, family.name, (*family.versions, made), family.taken)
    services = engine.services()
    users = families.users(new, services, asked.typed["jobs"])
    for service in users.rolled:
        say(f"would {_step(new, service)}")
    for service in users.left:
        say(f"would leave {_left(service)}")
    keep = asked.typed["keep"]
    rolled = [{**each, "Spec": families.moved(new, each["Spec"]) or each["Spec"]} for each in users.rolled]
    other = [each for each in services if each not in users.rolled]
    for version in families.removable(new, keep, [*rolled, *other], ()):
        say(f"would remove {version.name} when no task has it any more")
    say("Nothing was changed.")
    return EXIT_OK


def _step(family: Family, service: Any) -> str:
    had = set(families.references(family.kind, service["Spec"])) & family.older
    if not had:
        return f"wait until {reading.name_of(service)} has {family.newest.name}, as it is to"
    return (
        f"update {reading.name_of(service)} from {', '.join(sorted(map(family.called, had)))} to {family.newest.name}"
    )
