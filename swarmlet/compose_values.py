"""Values of compose files: where they stand, what is wrong with them, durations, sizes, numbers, lists and maps.

Rules it owns: a file is read to its end and every fault is told, each with the path of its place
(``services.web.deploy.replicas``); what is understood and cannot be honoured is an error if the service would mean
something else without it, else a warning.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from runtime.swarm.durations import INT64_MAX, parse_duration

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?b?)", re.IGNORECASE)
_OCTAL: Final = re.compile(r"(0o?)?[0-7]{1,6}")
_SIZE_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


class ComposeError(ValueError):
    """A compose file that cannot be used; ``faults`` says why, one sentence each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class Notes:
    """Faults and warnings of one file, in the order of their finding, each told once."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.warnings: list[str] = []

    def fault(self, path: str, text: str) -> None:
        """Something that must be changed before the file can be used."""
        _add(self.faults, f"{path}: {text}" if path else text)

    def warn(self, path: str, text: str) -> None:
        """Something that is left out and does not change what the service means."""
        _add(self.warnings, f"{path}: {text}" if path else text)


def _add(notes: list[str], text: str) -> None:
    if text not in notes:
        notes.append(text)


def parse_size(value: object) -> int:
    """``50M``, ``1.5gb``, ``1024`` in bytes; units are powers of 1024. Raises ValueError for anything else."""
    match = _SIZE.fullmatch(str(value).strip()) if isinstance(value, (int, str)) else None
    if match is None or isinstance(value, bool) or (match.group(3).lower() == "i" and not match.group(2)):
        raise ValueError(f"{value!r} is no size, such as 50M or 1gb")
    size = int(Decimal(match.group(1)) * 1024 ** _SIZE_POWERS[match.group(2).lower()])
    if size > INT64_MAX:
        raise ValueError(f"{value!r} is too large a size")
    return size


def parse_nano_cpus(value: object) -> int:
    """``0.5`` CPUs in billionths. Raises ValueError unless it is a number of at least 0 with at most nine places."""
    try:
        nano = Decimal(str(value)) * 1_000_000_000
    except InvalidOperation:
        nano = Decimal(-1)
    if isinstance(value, bool) or not nano.is_finite() or nano < 0 or nano != int(nano) or nano > INT64_MAX:
        raise ValueError(f"{value!r} is no number of CPUs, such as 0.5")
    return int(nano)


class Place:
    """One value of the file with its path. Reading a wrong type notes a fault and gives an empty value."""

    __slots__ = ("notes", "path", "value")

    def __init__(self, value: Any, path: str, notes: Notes) -> None:
        self.value = value
        self.path = path
        self.notes = notes

    def fault(self, text: str) -> None:
        """Notes a fault of this place."""
        self.notes.fault(self.path, text)

    def warn(self, text: str) -> None:
        """Notes a warning about this place."""
        self.notes.warn(self.path, text)

    def at(self, key: str) -> Place:
        """The value under a key of this mapping, None when absent."""
        value = self.value.get(key) if isinstance(self.value, dict) else None
        return Place(value, f"{self.path}.{key}" if self.path else key, self.notes)

    def entries(self) -> Iterator[tuple[str, Place]]:
        """Keys and values of a mapping, in the file's order; fields of users' own (``x-...``) are left out."""
        if self.value is None:
            return
        if not isinstance(self.value, dict):
            self.fault("must be a mapping")
            return
        for key in self.value:
            if not isinstance(key, str):
                self.fault(f"the key {key!r} must be a text")
            elif not key.startswith("x-"):
                yield key, self.at(key)

    def items(self) -> Iterator[Place]:
        """The values of a list."""
        if self.value is None:
            return
        if not isinstance(self.value, list):
            self.fault("must be a list")
            return
        for index, value in enumerate(self.value):
            yield Place(value, f"{self.path}[{index}]", self.notes)

    def known(self, *keys: str) -> None:
        """Notes a fault for each key of this mapping that is none of ``keys``."""
        for key, place in self.entries():
            if key not in keys:
                place.fault("is no field that compose files have here")

    def text(self) -> str:
        """A text; numbers are taken as they were written."""
        if self.value is None:
            return ""
        if isinstance(self.value, bool) or not isinstance(self.value, (str, int, float)):
            self.fault("must be a text")
            return ""
        return str(self.value)

    def texts(self) -> list[str]:
        """A list of texts."""
        return [item.text() for item in self.items()]

    def command(self) -> list[str]:
        """A command: a list as it stands, or a text split as a shell would."""
        if not isinstance(self.value, str):
            return self.texts()
        try:
            return shlex.split(self.value)
        except ValueError as error:
            self.fault(f"cannot be split into words: {error}")
            return []

    def flag(self) -> bool:
        """True or false, also as the texts that a variable leaves."""
        if self.value in (None, False, "false", "no", ""):
            return False
        if self.value in (True, "true", "yes"):
            return True
        self.fault("must be true or false")
        return False

    def number(self, least: int = 0, most: int = INT64_MAX) -> int:
        """A whole number, also as the text that a variable leaves."""
        value = self.value
        if value is None:
            return 0
        if isinstance(value, str) and re.fullmatch(r"-?\d+", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.fault(f"must be a whole number from {least}" + (f" to {most}" if most < INT64_MAX else ""))
            return 0
        return value

    def octal(self) -> int:
        """Permissions: a text (also what begins with 0, which is none of YAML 1.2's numbers) is octal, a number not."""
        if isinstance(self.value, str) and _OCTAL.fullmatch(self.value):
            return int(self.value.replace("o", ""), 8)
        return self.number(0, 0o7777)

    def fraction(self) -> float:
        """A number from 0 to 1."""
        try:
            value = float(self.value)
        except (TypeError, ValueError):
            value = -1.0
        if isinstance(self.value, bool) or not 0.0 <= value <= 1.0:
            self.fault("must be a number from 0 to 1")
            return 0.0
        return value

    def duration_ns(self) -> int:
        """A duration in nanoseconds."""
        return self._parsed(parse_duration, self.text())

    def size(self) -> int:
        """A size in bytes."""
        return self._parsed(parse_size, self.value)

    def nano_cpus(self) -> int:
        """CPUs in billionths."""
        return self._parsed(parse_nano_cpus, self.value)

    def _parsed(self, parse: Any, value: Any) -> int:
        try:
            return int(parse(value))
        except ValueError as error:
            self.fault(str(error))
            return 0

    def choice(self, choices: dict[str, Any]) -> Any:
        """One of the named choices; a fault gives the first."""
        text = self.text()
        if text not in choices:
            self.fault(f"must be one of {', '.join(choices)}, not {text!r}")
            return next(iter(choices.values()))
        return choices[text]

    def pairs(self) -> dict[str, str | None]:
        """A mapping of texts, or a list of ``key=value``; None where a key has no value."""
        if isinstance(self.value, dict):
            return {key: self._pair(place) for key, place in Place.entries(self)}
        found: dict[str, str | None] = {}
        for item in self.items():
            name, equals, value = item.text().partition("=")
            if name:
                found[name] = value if equals else None
        return found

    def _pair(self, place: Place) -> str | None:
        if place.value is None:
            return None
        if isinstance(place.value, bool):
            return str(place.value).lower()
        return place.text()
