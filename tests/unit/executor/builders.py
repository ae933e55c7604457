"""Tasks and contexts for the executor's tests."""

from __future__ import annotations

from collections.abc import Mapping

from runtime.executor.port import TaskContext
from runtime.wire.pb import objects_pb2


def task(identity: str, *command: str, image: str = "host") -> objects_pb2.Task:
    """A task of the process executor."""
    made = objects_pb2.Task(id=identity, slot=1)
    made.spec.container.image = image
    made.spec.container.command.extend(command)
    return made


def context(payloads: Mapping[str, bytes] | None = None) -> TaskContext:
    """A context whose templates know the host name alone; KeyError for what is not in ``payloads``."""
    given = dict(payloads or {})

    def expand(text: str) -> str:
        if "{{bad" in text:
            raise ValueError("template: bad")
        return text.replace("{{.Node.Hostname}}", "box")

    return TaskContext("node", "box", expand, given.__getitem__, given.__getitem__)
