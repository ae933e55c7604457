"""WatchStreamActor is one stream of the Watch service.

An empty message says that nothing is missed from here on; then each commit comes that holds something asked for. It
ends with its caller, with its manager, or when its caller reads too slowly.
"""

from __future__ import annotations

from typing import Any

from runtime.errors import Code, Refused
from runtime.protocol.store import Commits, Watch
from runtime.stage import Actor, Address, Answer, Policy, Restart, handles
from runtime.store.events import Select, WatchFilter
from runtime.store.view import Published
from runtime.store.watching import COMPACTED, OUT_OF_ORDER, messages
from runtime.wire.pb import watch_pb2
from runtime.wire.port import Call

ENDED = "server context done while watching for events"


class WatchStreamActor(Actor):
    """``asked`` is what the caller selects; nothing at all is a stream on which nothing comes."""

    policy = Policy(restart=Restart.TEMPORARY)

    def __init__(self, store: Address, published: Published, call: Call, asked: tuple[Select, ...]) -> None:
        super().__init__()
        self.store = store
        self.published = published
        self.call = call
        self.selections = asked
        self.begun = False
        self._early: list[Commits] = []

    def started(self) -> None:
        request: Any = self.call.request
        gone = self.sink(lambda _: self.stop())
        self.call.on_cancel(lambda: gone(None))
        since = request.resume_from.index if request.HasField("resume_from") else None
        if self.selections:
            self.ask(self.store, Watch(WatchFilter(self.selections), since), lambda answer: self._began(answer, since))
        else:
            self._begin()

    def stopped(self) -> None:
        self.call.fail(Refused(Code.UNAVAILABLE, ENDED))

    def crashed(self) -> None:
        self.stopped()

    def snapshot(self) -> dict[str, Any]:
        return {"begun": self.begun, "selections": len(self.selections)}

    def _began(self, answer: Answer, since: int | None) -> None:
        error = answer.error
        if error is None:
            self._begin()
            return
        if isinstance(error, Refused) and error.code is Code.OUT_OF_RANGE and since is not None:
            ahead = since > self.published.view.version
            error = Refused(Code.UNKNOWN, OUT_OF_ORDER if ahead else COMPACTED)
        self.call.fail(error if isinstance(error, Refused) else Refused(Code.UNAVAILABLE, ENDED))
        self.stop()

    def _begin(self) -> None:
        self.begun = True
        self.call.send(watch_pb2.WatchMessage())
        early, self._early = self._early, []
        for message in early:
            self.commits(message)

    @handles(Commits)
    def commits(self, message: Commits) -> None:
        """Changes in order; those that come before the answer of the store wait for the empty message."""
        if not self.begun:
            self._early.append(message)
            return
        old_objects: bool = self.call.request.include_old_object  # type: ignore[attr-defined]
        for commit in message.commits:
            for part in messages(commit, old_objects):
                if not self.call.send(part):
                    return
