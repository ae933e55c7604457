"""Base of the actors that live by the store's changes.

A life begins with a view (``begin``) and gets every later commit once, in order (``commit``). What the life before was
told and had not handled is in the mailbox still, and a store that has not heard of its end goes on telling it: what the
new life has seen already is left out. If the store cannot go on from that view (it was restarted, or this actor fell
too far behind), the life fails, and the next one begins from a newer view: nothing that a life remembers is worth more
than the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from runtime.errors import Refused
from runtime.protocol.manager import LeaderContext
from runtime.protocol.store import Commits, Step, Watch, Write, WriteBatch
from runtime.stage import Actor, Answer, handles
from runtime.store.events import Commit, WatchFilter
from runtime.store.view import View


class StoreWatcher(Actor):
    """``watched`` says which changes it wants."""

    watched: ClassVar[WatchFilter] = WatchFilter()

    def __init__(self, context: LeaderContext) -> None:
        super().__init__()
        self.context = context
        self._seen = 0

    def started(self) -> None:
        self._start_watch(self.watched)

    def _start_watch(self, watched: WatchFilter) -> None:
        view = self.view
        self._seen = view.version
        self.begin(view)
        self.ask(self.context.store, Watch(watched, view.version), self._watching)

    def _watching(self, answer: Answer) -> None:
        answer.get()

    @property
    def view(self) -> View:
        """The newest committed view; it may be ahead of the commit in hand."""
        return self.context.published.view

    def begin(self, view: View) -> None:
        """The state that this life starts from."""

    def commit(self, commit: Commit) -> None:
        """The next commit with its events that are watched."""

    @handles(Commits)
    def commits(self, message: Commits) -> None:
        """Changes, in order."""
        for commit in message.commits:
            if commit.version > self._seen:
                self._seen = commit.version
                self.commit(commit)

    def write(self, run: Step, then: Callable[[Answer], None] | None = None) -> None:
        """One transaction; ``then`` hears of its outcome. Without ``then`` a refusal fails this actor."""
        self.ask(self.context.store, Write(run), then or _must_succeed)

    def write_batch(self, steps: Sequence[Step], then: Callable[[Answer], None] | None = None) -> None:
        """Several steps in as few transactions as fit; the answer's value has a result or a Refused for each."""
        self.ask(self.context.store, WriteBatch(steps), then or _must_succeed)


def results_of(answer: Answer) -> Sequence[Any]:
    """What came of each step of a batch of which none may be refused; raises the first refusal, or the error."""
    results: Sequence[Any] = answer.get()
    for result in results:
        if isinstance(result, Refused):
            raise result
    return results


def _must_succeed(answer: Answer) -> None:
    answer.get()
