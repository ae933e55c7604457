"""The name of an actor, which stays the same through restarts, its own and its parents'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.stage.answers import Future, Reply

if TYPE_CHECKING:
    from runtime.stage.cell import Cell
    from runtime.stage.stage import Stage


class Address:
    """Tells messages to whoever lives at ``path``. Equal by stage and path; safe to share between threads."""

    __slots__ = ("_cell", "path", "stage")

    def __init__(self, stage: Stage, path: str, cell: Cell | None = None) -> None:
        self.stage = stage
        self.path = path
        self._cell = cell

    def resolve(self) -> Cell | None:
        """The cell that lives here now, if any."""
        cell = self._cell
        if cell is None or cell.gone:
            cell = self._cell = self.stage.cells.get(self.path)
        return cell

    def tell(self, message: Any, sender: Address | None = None, trace: int = 0) -> None:
        """Enqueues a message. Never blocks; a message that nobody can take is counted as a dead letter."""
        self.send(message, sender, None, trace)

    def send(self, message: Any, sender: Address | None, reply: Reply | None, trace: int) -> None:
        """Enqueues a message whose answer goes to ``reply``."""
        cell = self._cell
        if cell is None or cell.gone:
            cell = self.resolve()
            if cell is None:
                self.stage.dead_letter(self.path, message, reply)
                return
        cell.put((message, sender, reply, self.stage.read_nanos(), trace or self.stage.next_trace()))

    def ask(self, message: Any) -> Future:
        """Enqueues a question. For edges only: inside a handler use ``Actor.ask``."""
        future = Future(self.path)
        self.send(message, None, future.reply, 0)
        return future

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and other.path == self.path and other.stage is self.stage

    def __hash__(self) -> int:
        return hash(self.path)

    def __repr__(self) -> str:
        return f"<{self.stage.name}:{self.path}>"
