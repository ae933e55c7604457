"""Variables in compose files: ``$NAME``, ``${NAME}``, defaults, required ones and alternatives.

Rules it owns, as compose files have them: ``$$`` is a dollar; ``:-`` and ``:?`` and ``:+`` count an empty value as
unset, the forms without colon do not; a default may itself hold variables; a variable without value or default becomes
empty and is named in a warning; only values are substituted, never keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATORS: Final = (":-", ":?", ":+", "-", "?", "+")
DEPTH_MAX: Final = 20


class BadVariable(ValueError):
    """A text whose variables cannot be read, or a required variable without a value."""


def substitute(text: str, environ: Mapping[str, str], missing: Callable[[str], None], depth: int = 0) -> str:
    """``text`` with its variables replaced; ``missing`` hears each name that had neither value nor default.

    Raises BadVariable for a dollar that begins no variable, and for a required variable without value.
    """
    if "$" not in text:
        return text
    if depth > DEPTH_MAX:
        raise BadVariable("defaults are nested too deeply")
    pieces: list[str] = []
    position = 0
    while (dollar := text.find("$", position)) >= 0:
        pieces.append(text[position:dollar])
        value, position = _variable(text, dollar + 1, environ, missing, depth)
        pieces.append(value)
    return "".join([*pieces, text[position:]])


def _variable(
    text: str, start: int, environ: Mapping[str, str], missing: Callable[[str], None], depth: int
) -> tuple[str, int]:
    """The value of what follows a dollar at ``start``, and where the text goes on."""
    following = text[start : start + 1]
    if following == "$":
        return "$", start + 1
    if following == "{":
        end = _closing_brace(text, start + 1)
        return _braced(text[start + 1 : end], environ, missing, depth), end + 1
    name = _NAME.match(text, start)
    if name is None:
        raise BadVariable(f"invalid interpolation format: {text!r}; a dollar sign is written as $$")
    return _plain(name.group(), environ, missing), name.end()


def _closing_brace(text: str, start: int) -> int:
    """Where the brace that was opened before ``start`` is closed; variables inside have braces of their own."""
    depth = 1
    for position in range(start, len(text)):
        if text.startswith("${", position):
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return position
    raise BadVariable(f"invalid interpolation format: {text!r}; a brace is not closed")


def _plain(name: str, environ: Mapping[str, str], missing: Callable[[str], None]) -> str:
    if name not in environ:
        missing(name)
    return environ.get(name, "")


def _braced(inside: str, environ: Mapping[str, str], missing: Callable[[str], None], depth: int) -> str:
    match = _NAME.match(inside)
    if match is None:
        raise BadVariable(f"invalid interpolation format: ${{{inside}}} names no variable")
    name, rest = match.group(), inside[match.end() :]
    if not rest:
        return _plain(name, environ, missing)
    operator = next((each for each in _OPERATORS if rest.startswith(each)), None)
    if operator is None:
        raise BadVariable(f"invalid interpolation format: ${{{inside}}}")
    argument = rest[len(operator) :]
    value = environ.get(name)
    present = bool(value) if operator.startswith(":") else value is not None
    if operator.endswith("+"):
        return substitute(argument, environ, missing, depth + 1) if present else ""
    if present:
        return value or ""
    if operator.endswith("?"):
        because = substitute(argument, environ, missing, depth + 1)
        raise BadVariable(f"required variable {name} is missing a value" + (f": {because}" if because else ""))
    return substitute(argument, environ, missing, depth + 1)


def parse_env_file(text: str) -> dict[str, str | None]:
    """The assignments of an environment file: ``NAME=value`` lines, comments, quotes, an optional ``export``.

    A name without ``=`` has the value None: it is taken from the environment. Raises ValueError with the line's number.
    """
    found: dict[str, str | None] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip().removeprefix("export ").strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name = name.strip()
        if not _NAME.fullmatch(name):
            raise ValueError(f"line {number}: {name!r} is no name of a variable")
        found[name] = _unquote(value.strip(), number) if equals else None
    return found


def _unquote(value: str, number: int) -> str:
    quote = value[:1]
    if quote not in ("'", '"'):
        return re.split(r"\s+#", value, maxsplit=1)[0]
    end = value.find(quote, 1)
    if end < 0:
        raise ValueError(f"line {number}: a quote is not closed")
    inside = value[1:end]
    return inside if quote == "'" else inside.replace("\\n", "\n")
