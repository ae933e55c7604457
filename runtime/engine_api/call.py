"""One request and its answer, free of any HTTP library: what handlers get and give.

Rules: a handler reads its request through this and answers with one ``Answer``, or with a ``Stream`` whose headers
leave before its first piece; of a query key given twice the first value counts; booleans in queries come in the two
dialects of the engine, strict and loose.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runtime.engine_api import jsonio
from runtime.engine_api.convert import names
from runtime.engine_api.errors import bad
from runtime.engine_api.versions import NEWEST, Version

if TYPE_CHECKING:
    from runtime.engine_api.backend import Backend

JSON_TYPE: Final = "application/json"
TEXT_TYPE: Final = "text/plain; charset=utf-8"
STRICT_TRUE: Final = frozenset(("1", "t", "T", "TRUE", "true", "True"))
STRICT_FALSE: Final = frozenset(("0", "f", "F", "FALSE", "false", "False"))
LOOSE_FALSE: Final = frozenset(("", "0", "no", "false", "none"))
U64_DIGITS: Final = 20


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. An empty ``content_type`` means no body and no such header."""

    status: int = 200
    body: bytes = b""
    content_type: str = ""
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer in pieces. ``pieces`` is closed when the client is gone.

    Where the client asks for an upgrade and there is ``take``, the connection becomes a pipe: the pieces as they are
    one way, and the other way what the client says, to ``take``, with nothing in the end.
    """

    content_type: str
    pieces: AsyncGenerator[bytes, None]
    status: int = 200
    take: Callable[[bytes], Awaitable[None]] | None = None


EMPTY: Final = Answer()


def answer(value: object, status: int = 200) -> Answer:
    """``value`` as JSON."""
    return Answer(status, jsonio.encode(value), JSON_TYPE)


def unicode(text: str) -> str:
    """``text`` of a request's head with U+FFFD for octets that are not UTF-8, as in Go; no protobuf holds those."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


class Call:
    """One request: its path below the version in parts, its query, its body."""

    __slots__ = ("_header", "_query", "_raw_query", "backend", "body", "content_type", "method", "parts", "version")

    def __init__(
        self,
        backend: Backend,
        method: str,
        parts: list[str],
        raw_query: str = "",
        body: bytes = b"",
        content_type: str = "",
        version: Version = NEWEST,
        header: Callable[[str], str | None] | None = None,
    ) -> None:
        self.backend = backend
        self.method = method
        self.parts = parts
        self.version = version
        self.body = body
        self.content_type = content_type
        self._raw_query = raw_query
        self._query: dict[str, str] | None = None
        self._header = header

    @property
    def target(self) -> str:
        """The second part of the path: an id, a name or a prefix."""
        return self.parts[1]

    def given(self, *keys: str) -> dict[str, str]:
        """Those of these query keys that are there and not empty."""
        return {key: value for key in keys if (value := self.query(key))}

    def query(self, key: str) -> str:
        """The first value of a query key, empty if it is absent."""
        if self._query is None:
            self._query = {}
            if self._raw_query:
                try:
                    pairs = urllib.parse.parse_qsl(self._raw_query, keep_blank_values=True, max_num_fields=1000)
                except ValueError:
                    raise bad("too many fields in the query") from None
                for name, value in pairs:
                    self._query.setdefault(name, value)
        return self._query.get(key, "")

    def header(self, name: str) -> str:
        """A header, empty if it is absent."""
        return unicode((self._header(name) if self._header else None) or "")

    def json(self) -> jsonio.JsonObject:
        """The body's object; empty for an absent body."""
        body: jsonio.JsonObject = names.exact(jsonio.decode(self.body, self.content_type))
        return body

    def strict(self, key: str, plainly: bool = False) -> bool:
        """A boolean that must be one; absent is false. The refusal quotes Go's parser unless ``plainly``."""
        value = self.query(key)
        if value in STRICT_TRUE:
            return True
        if not value or value in STRICT_FALSE:
            return False
        parser = "" if plainly else f': strconv.ParseBool: parsing "{value}": invalid syntax'
        raise bad(f"invalid value for {key}: {value}{parser}")

    def loose(self, key: str) -> bool:
        """A boolean for which nearly everything is true."""
        return self.query(key).strip().lower() not in LOOSE_FALSE

    def object_version(self, kind: str, plainly: bool = False) -> int:
        """The ``version`` that an update names. Raises ApiError 400, quoting Go's parser unless ``plainly``."""
        value = self.query("version")
        why = ""
        if not (value.isascii() and value.isdecimal()):
            why = "invalid syntax"
        elif len(value.lstrip("0")) > U64_DIGITS or int(value) >= 1 << 64:
            why = "value out of range"
        if not why:
            return int(value)
        parser = "" if plainly else f" '{value}': strconv.ParseUint: parsing \"{value}\": {why}"
        raise bad(f"invalid {kind} version{parser}")
