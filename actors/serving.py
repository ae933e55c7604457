"""Base of the actors that answer calls of the wire.

A method marked with ``@serves("Dispatcher", "Heartbeat")`` takes the Call; what it returns answers a unary call, a
``Refused`` that it raises refuses it, and ``self.defer()`` puts the answer off. If the actor fails over a call, the
caller hears so by itself; a stream that a life held must be ended in ``stopped`` and ``crashed``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from google.protobuf.message import Message

from runtime.errors import Code, Refused
from runtime.protocol.wire import Incoming
from runtime.stage import Actor, handles
from runtime.wire.port import Call
from runtime.wire.services import path

Served = Callable[[Any, Call], Message | None]


def serves(service: str, method: str) -> Callable[[Served], Served]:
    """Marks the handler of one method of the wire; KeyError if there is no such method."""
    name = path(service, method)

    def mark(handler: Served) -> Served:
        handler.__dict__["served_path"] = name
        return handler

    return mark


class Serving(Actor):
    """An actor with calls of the wire among its messages."""

    served: ClassVar[dict[str, Served]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        served: dict[str, Served] = {}
        for base in reversed(cls.__mro__):
            for handler in vars(base).values():
                name = getattr(handler, "served_path", None)
                if name is not None:
                    served[name] = handler
        cls.served = served

    @handles(Incoming)
    def incoming(self, message: Incoming) -> Message | None:
        """Runs the handler of the call's method."""
        handler = self.served.get(message.call.method)
        if handler is None:
            raise Refused(Code.UNIMPLEMENTED, f"{self.address.path} does not serve {message.call.method}")
        return handler(self, message.call)
