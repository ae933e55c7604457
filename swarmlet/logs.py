"""Log records as lines: text for people, JSON for programs, both without secrets.

A record of ours may have fields (``extra``): ``node`` and ``actor`` say who speaks, ``task_id``, ``service_id`` and
``node_id`` what it is about. Secrets are left out by type, whoever logs them: bytes are told by their length, messages
of the wire without the fields that are secret; and what looks like a token or a private key is hidden in every line,
tracebacks included. A host program may give ``JsonFormatter`` or ``TextFormatter`` to handlers of its own.
"""

from __future__ import annotations

import copy
import datetime
import json
import logging
from typing import Any, Final

from google.protobuf.message import Message

from runtime.introspection.bodies import scrub
from runtime.introspection.redact import hide

FIELDS: Final = ("node", "actor", "task_id", "service_id", "node_id")


class _Redacting(logging.Formatter):
    """Arguments by type, and the finished line by what it looks like."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, or several with a traceback."""
        shown = copy.copy(record)
        shown.args = _arguments(record.args)
        shown.exc_text = None
        return hide(super().format(shown))


class TextFormatter(_Redacting):
    """Time, level, logger and text."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")


class JsonFormatter(_Redacting):
    """One object a line: ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``msg``, the record's fields, and ``error``
    with a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the record holds."""
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        shown = copy.copy(record)
        shown.args = _arguments(record.args)
        found: dict[str, Any] = {
            "time": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": hide(shown.getMessage()),
        }
        found |= {name: hide(str(value)) for name in FIELDS if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            found["error"] = hide(self.formatException(record.exc_info))
        return json.dumps(found, ensure_ascii=False)


def _arguments(arguments: Any) -> Any:
    if isinstance(arguments, tuple):
        return tuple(_plain(each) for each in arguments)
    if isinstance(arguments, dict):
        return {name: _plain(each) for name, each in arguments.items()}
    return arguments


def _plain(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"({len(value)} bytes)"
    if isinstance(value, Message):
        value = copy.deepcopy(value)
        scrub(value)
    return value
