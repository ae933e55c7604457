"""Log lines: fields for programs, and no secret in any of them."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.wire.pb import objects_pb2 as objects
from swarmlet.logs import JsonFormatter, TextFormatter

FORMATTERS = [JsonFormatter(), TextFormatter()]


def record(text: str, *arguments: Any, error: BaseException | None = None, **fields: str) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error is not None else None
    made = logging.LogRecord("swarmlet.agent", logging.WARNING, __file__, 1, text, arguments, info)
    made.__dict__.update(fields)
    return made


def test_a_line_of_json_has_its_fields() -> None:
    line = JsonFormatter().format(record("task %s: %s", "t1", "x", node="n1", actor="/agent", task_id="t1", other="no"))
    found = json.loads(line)
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "warning", "logger": "swarmlet.agent", "msg": "task t1: x", "node": "n1", "actor": "/agent",
        "task_id": "t1",
    }  # fmt: skip


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_secrets_are_left_out_by_what_they_look_like(formatter: logging.Formatter) -> None:
    line = formatter.format(
        record("joined with %s, unlocked with SWMKEY-1-abc", "SWMTKN-1-abc-def", actor="SWMTKN-1-x")
    )
    assert "abc" not in line
    assert "SWMTKN" not in line
    assert line.count("(hidden)") >= 2


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_secrets_are_left_out_by_type(formatter: logging.Formatter) -> None:
    secret = objects.Secret(id="s1")
    secret.spec.annotations.name = "login"
    secret.spec.data = b"hunter2"
    line = formatter.format(record("%s and %r", secret, b"hunter2"))
    assert "hunter2" not in line
    assert "login" in line
    assert "(7 bytes)" in line
    assert secret.spec.data == b"hunter2", "the object itself is left as it is"


@pytest.mark.parametrize("formatter", FORMATTERS)
def test_a_traceback_is_told_without_its_secrets(formatter: logging.Formatter) -> None:
    try:
        raise ValueError("cannot read -----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY----- here")
    except ValueError as error:
        line = formatter.format(record("failed", error=error))
    assert "ValueError: cannot read (hidden) here" in line
    assert "MHcCAQEE" not in line


def test_a_record_is_shown_to_several_handlers_as_it_was_made() -> None:
    made = record("%s", b"abc")
    assert TextFormatter().format(made).endswith("(3 bytes)")
    assert made.args == (b"abc",)
    assert made.getMessage() == "b'abc'"


@given(st.text(max_size=60), st.text(max_size=20))
def test_whatever_is_logged_is_one_line_of_json(text: str, field: str) -> None:
    line = JsonFormatter().format(record("%s", text, node=field))
    assert "\n" not in line
    assert json.loads(line)["node"] == field or "(hidden)" in line
