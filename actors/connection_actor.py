"""ConnectionActor owns this node's connection to its own manager's control API.

It watches the manager's control actor, asks for its health until that says it serves, and tells its subscribers of each
change: connected, lost, connected again. It never starts or stops a manager, and answers nothing for it.
"""

from __future__ import annotations

from runtime.protocol.node import CheckHealth, ControlConnection, SubscribeControlConnection
from runtime.stage import Actor, ActorDown, ActorUp, Address, Answer, GiveUp, Policy, handles

CONTROL_API = "ControlAPI"
HEALTH_POLL = 0.5  # seconds between two looks at a control API that does not serve yet
HEALTH_TIMEOUT = 5.0


class _Poll:
    """Time to look at the control API's health again."""


class ConnectionActor(Actor):
    """Keeps ``control``: the address that answers now, or none."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, target: Address) -> None:
        super().__init__()
        self.target = target
        self.control: Address | None = None
        self.subscribers: list[Address] = []
        self._up = False

    def started(self) -> None:
        self.watch(self.target)

    def snapshot(self) -> dict[str, object]:
        return {"connected": self.control is not None, "subscribers": [each.path for each in self.subscribers]}

    @handles(SubscribeControlConnection)
    def subscribe(self, message: SubscribeControlConnection) -> None:
        """The subscriber hears the present value first."""
        subscriber = self.sender
        if subscriber is None:
            return
        if subscriber not in self.subscribers:
            self.subscribers.append(subscriber)
            self.watch(subscriber)
        self.tell(subscriber, ControlConnection(self.control))

    @handles(ActorUp)
    def up(self, message: ActorUp) -> None:
        """The control actor lives (again): it may not serve yet."""
        if message.path == self.target.path:
            self._up = True
            self._check()

    @handles(ActorDown)
    def down(self, message: ActorDown) -> None:
        """The control actor failed or ended, or a subscriber did."""
        if message.path == self.target.path:
            self._up = False
            self._publish(None)
        elif message.final:
            self.subscribers = [each for each in self.subscribers if each.path != message.path]

    @handles(_Poll)
    def poll(self, message: _Poll) -> None:
        """Looks again."""
        self._check()

    def _check(self) -> None:
        if self._up and self.control is None:
            self.ask(self.target, CheckHealth(CONTROL_API), self._health, HEALTH_TIMEOUT)

    def _health(self, answer: Answer) -> None:
        if not self._up or self.control is not None:
            return
        if answer.error is None and answer.value:
            self._publish(self.target)
        else:
            self.after(HEALTH_POLL, _Poll())

    def _publish(self, control: Address | None) -> None:
        if control == self.control:
            return
        self.control = control
        for subscriber in self.subscribers:
            self.tell(subscriber, ControlConnection(control))
