"""What is said to an actor that serves calls of the wire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.wire.port import Call


@dataclass(frozen=True, slots=True)
class Incoming:
    """Question: a call that came in. The answer to a unary call is its response message, or a Refused.

    Of a stream only a refusal counts as an answer: its items and its end go through the call itself.
    """

    call: Call

    def __repr__(self) -> str:
        return f"Incoming({self.call.method})"
