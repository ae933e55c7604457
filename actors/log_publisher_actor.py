"""LogPublisherActor answers the log broker's subscriptions with the logs of this node's tasks.

It listens to the broker at the session's manager over a connection of its own (so that logs never hold up heartbeats),
asks the tasks' actors to read, and uploads what they read. Nothing waits for it: an error of the broker ends what was
under way here and is tried again after a back-off, and never ends a session.

Rules kept here:
1. A subscription that does not follow ends, with ``close``, when every task that it meant at its beginning has been
   read; one that follows takes up tasks as they come, and ends with the broker's ``close``.
2. What is read and not yet sent is bounded for each task (``agent_logs``); beyond it the reading is broken off and
   begun again later, behind the last line that was sent.
3. A subscription that is told again is ignored, also when it has ended well.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial

from google.protobuf.message import Message

from runtime.errors import Code, Refused
from runtime.executor.log_messages import message_of, options_of
from runtime.executor.port import LogOptions
from runtime.protocol.agent import AgentSetup, LogBrokerAt, LogsLife, ReadLogs, TaskAppeared, TaskGone
from runtime.stage import Actor, Address, Answer, GiveUp, Policy, Timer, handles
from runtime.swarm.agent_logs import LogFeed, LogPosition, LogRate, LogTarget
from runtime.swarm.agent_session import SessionBackoff
from runtime.wire.pb import logs_pb2
from runtime.wire.port import Cancel, Channel, Upload
from runtime.wire.services import path

LISTEN = path("LogBroker", "ListenSubscriptions")
PUBLISH = path("LogBroker", "PublishLogs")

BATCH_LINES = 128
BATCH_BYTES = 256 << 10
AGAIN = 1.0  # seconds before a broken reading or upload is taken up again
FINISHED_MAX = 1000  # ids of subscriptions that are remembered as ended
_FINAL = (Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED, Code.CANCELLED, Code.UNIMPLEMENTED)

log = logging.getLogger("swarmlet.agent")


@dataclass(slots=True, eq=False)
class _Reader:
    """One task's part in a subscription."""

    task: TaskAppeared
    feed: LogFeed
    position: LogPosition
    rate: LogRate
    done: bool = False
    error: str | None = None
    timer: Timer | None = None


@dataclass(slots=True, eq=False)
class _Subscription:
    """What the broker asked for, and who reads for it. ``upload`` is None while it is being taken up again."""

    id: str
    target: LogTarget
    options: LogOptions
    upload: Upload | None = None
    readers: dict[str, _Reader] = field(default_factory=dict)
    over: bool = False


@dataclass(frozen=True, slots=True)
class _ListenAgain:
    number: int


@dataclass(frozen=True, slots=True)
class _Drain:
    subscription: _Subscription
    reader: _Reader


@dataclass(frozen=True, slots=True)
class _ReadAgain:
    subscription: _Subscription
    reader: _Reader


@dataclass(frozen=True, slots=True)
class _UploadAgain:
    subscription: _Subscription


class LogPublisherActor(Actor):
    """``tasks`` are those that this node runs."""

    policy = Policy(give_up=GiveUp.NEVER)

    def __init__(self, agent: Address, setup: AgentSetup) -> None:
        super().__init__()
        self.agent = agent
        self.setup = setup
        self.tasks: dict[str, TaskAppeared] = {}
        self.subscriptions: dict[str, _Subscription] = {}
        self.backoff = SessionBackoff()
        self._finished: OrderedDict[str, None] = OrderedDict()
        self._target: str | None = None
        self._channel: Channel | None = None
        self._listening: Cancel | None = None
        self._number = 0

    def started(self) -> None:
        self.tell(self.agent, LogsLife())

    def stopped(self) -> None:
        self._hang_up()

    def crashed(self) -> None:
        self._hang_up()

    def snapshot(self) -> dict[str, object]:
        readers = [reader for each in self.subscriptions.values() for reader in each.readers.values()]
        return {
            "tasks": len(self.tasks),
            "broker": self._target or "",
            "subscriptions": len(self.subscriptions),
            "reading": sum(1 for reader in readers if not reader.done),
        }

    # The broker

    @handles(LogBrokerAt)
    def broker_at(self, message: LogBrokerAt) -> None:
        """A new session, or none: whatever was asked for will be asked for again."""
        self._hang_up()
        self._target = message.target
        if message.target is not None:
            self._listen(message.target)

    @handles(_ListenAgain)
    def listen_again(self, message: _ListenAgain) -> None:
        """The back-off is over."""
        if message.number == self._number and self._target is not None and self._channel is None:
            self._listen(self._target)

    def _listen(self, target: str) -> None:
        assert self.world.transport is not None, "this node has no transport"
        self._number += 1
        self._channel = self.world.transport.connect(target, self.setup.credentials)
        self._listening = self._channel.stream(
            LISTEN,
            logs_pb2.ListenSubscriptionsRequest(),
            on_item=self.sink(partial(self._told, self._number)),
            on_end=self.sink(partial(self._listen_ended, self._number)),
        )

    def _listen_ended(self, number: int, refused: Refused | None) -> None:
        if number != self._number:
            return
        self._hang_up()
        if refused is not None and refused.code is Code.UNIMPLEMENTED:
            log.warning(
                "the manager at %s has no log broker: its logs are not published", self._target, extra=self.about()
            )
            return
        self.backoff.failed()
        self.after(self.backoff.delay(self.world.random), _ListenAgain(self._number))

    def _hang_up(self) -> None:
        self._number += 1
        for subscription in list(self.subscriptions.values()):
            self._drop(subscription)
        if self._listening is not None:
            self._listening()
            self._listening = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _told(self, number: int, message: logs_pb2.SubscriptionMessage) -> None:
        if number != self._number:
            return
        self.backoff.succeeded()
        known = self.subscriptions.get(message.id)
        if message.close:
            if known is not None:
                self._finish(known)
        elif known is None and message.id not in self._finished:
            self._begin(message)

    # Subscriptions

    def _begin(self, message: logs_pb2.SubscriptionMessage) -> None:
        subscription = _Subscription(message.id, LogTarget.of(message.selector), options_of(message.options))
        self.subscriptions[message.id] = subscription
        self._open_upload(subscription)
        for task in list(self.tasks.values()):
            self._add(subscription, task)
        self._finish_if_read(subscription)

    def _add(self, subscription: _Subscription, task: TaskAppeared) -> None:
        meant = subscription.target.means(task.task_id, task.service_id, self.setup.node_id)
        if not meant or task.task_id in subscription.readers:
            return
        position = LogPosition(subscription.options.since_ns)
        reader = _Reader(task, LogFeed(_unwoken), position, LogRate(self.monotonic()))
        subscription.readers[task.task_id] = reader
        self._read(subscription, reader)

    def _finish_if_read(self, subscription: _Subscription) -> None:
        if subscription.options.follow or subscription.over or subscription.upload is None:
            return
        if all(reader.done for reader in subscription.readers.values()):
            self._finish(subscription)

    def _finish(self, subscription: _Subscription) -> None:
        """Ends it well: the broker hears that nothing more comes from here."""
        upload, subscription.upload = subscription.upload, None
        if upload is not None:
            upload.send(logs_pb2.PublishLogsMessage(subscription_id=subscription.id, close=True))
            upload.finish()
        self._drop(subscription)
        self._finished[subscription.id] = None
        if len(self._finished) > FINISHED_MAX:
            self._finished.popitem(last=False)

    def _drop(self, subscription: _Subscription) -> None:
        subscription.over = True
        self.subscriptions.pop(subscription.id, None)
        for reader in subscription.readers.values():
            if reader.timer is not None:
                reader.timer.cancel()
            if reader.feed.cancel is not None and not reader.feed.ended:
                reader.feed.cancel()
        if subscription.upload is not None:
            subscription.upload.cancel()
            subscription.upload = None

    # Uploads

    def _open_upload(self, subscription: _Subscription) -> None:
        assert self._channel is not None
        subscription.upload = self._channel.upload(PUBLISH, done=self.sink(partial(self._published, subscription)))

    def _published(self, subscription: _Subscription, result: Message | Refused) -> None:
        if subscription.over:
            return
        subscription.upload = None
        if isinstance(result, Refused) and result.code not in _FINAL:
            log.warning(
                "logs for subscription %s: %s; going on in %g s", subscription.id, result, AGAIN, extra=self.about()
            )
            self.after(AGAIN, _UploadAgain(subscription))
        else:
            self._drop(subscription)

    @handles(_UploadAgain)
    def upload_again(self, message: _UploadAgain) -> None:
        """What was handed to the broken upload may be lost; the rest follows."""
        subscription = message.subscription
        if subscription.over:
            return
        self._open_upload(subscription)
        for reader in list(subscription.readers.values()):
            self._drain(subscription, reader)
        self._finish_if_read(subscription)

    # Tasks

    @handles(TaskAppeared)
    def task_appeared(self, message: TaskAppeared) -> None:
        """Whoever follows takes it up."""
        self.tasks[message.task_id] = message
        for subscription in list(self.subscriptions.values()):
            if subscription.options.follow:
                self._add(subscription, message)

    @handles(TaskGone)
    def task_gone(self, message: TaskGone) -> None:
        """What was read of it is still sent."""
        self.tasks.pop(message.task_id, None)

    # Reading

    def _read(self, subscription: _Subscription, reader: _Reader) -> None:
        feed = reader.feed = LogFeed(self.sink(lambda _: self._drain(subscription, reader)))
        options = subscription.options
        if reader.position.began:
            reader.position.resume()
            options = LogOptions(options.streams, options.follow, 0, reader.position.since_ns)
        question = ReadLogs(options, feed.line, self.sink(partial(self._read_ended, subscription, reader, feed)))
        self.ask(reader.task.address, question, partial(self._reading, subscription, reader, feed))

    def _reading(self, subscription: _Subscription, reader: _Reader, feed: LogFeed, answer: Answer) -> None:
        if answer.error is not None:
            self._read_ended(subscription, reader, feed, str(answer.error))
        elif answer.value is None:
            self._read_ended(subscription, reader, feed, None)
        else:
            feed.begun(answer.value)
            if subscription.over or reader.feed is not feed:
                answer.value()

    def _read_ended(self, subscription: _Subscription, reader: _Reader, feed: LogFeed, error: str | None) -> None:
        if subscription.over or reader.feed is not feed or feed.ended:
            return
        feed.ended = True
        reader.error = error
        self._drain(subscription, reader)

    @handles(_Drain)
    def drain(self, message: _Drain) -> None:
        """More of one task, after others had their turn or its share of time had come."""
        message.reader.timer = None
        self._drain(message.subscription, message.reader)

    def _drain(self, subscription: _Subscription, reader: _Reader) -> None:
        """Sends one batch of what was read; what follows comes as a message."""
        if subscription.over or subscription.upload is None or reader.done or reader.timer is not None:
            return
        wait = reader.rate.wait(self.monotonic())
        if wait > 0:
            reader.timer = self.after(wait, _Drain(subscription, reader))
            return
        reader.feed.look()
        batch = self._batch(subscription, reader)
        if batch.messages and not subscription.upload.send(batch):
            return  # the end of the upload tells why
        if reader.feed:
            reader.timer = self.after(0.0, _Drain(subscription, reader))
        elif reader.feed.ended:
            self._read_out(subscription, reader)

    def _batch(self, subscription: _Subscription, reader: _Reader) -> logs_pb2.PublishLogsMessage:
        batch = logs_pb2.PublishLogsMessage(subscription_id=subscription.id)
        task = reader.task
        context = logs_pb2.LogContext(service_id=task.service_id, node_id=self.setup.node_id, task_id=task.task_id)
        size = 0
        while reader.feed and len(batch.messages) < BATCH_LINES and size < BATCH_BYTES:
            line = reader.feed.take()
            if reader.position.admit(line.timestamp_ns):
                batch.messages.append(message_of(context, line))
                size += len(line.data)
        reader.rate.spend(size)
        return batch

    def _read_out(self, subscription: _Subscription, reader: _Reader) -> None:
        """Everything that a reading gave is sent: it goes on where it was broken off, or that was all."""
        if reader.feed.overfull:
            self._read(subscription, reader)
        elif reader.error is not None and subscription.options.follow and reader.task.task_id in self.tasks:
            self.after(AGAIN, _ReadAgain(subscription, reader))
        else:
            if reader.error is not None:
                about = self.about(task_id=reader.task.task_id, service_id=reader.task.service_id)
                log.warning("logs of task %s: %s", reader.task.task_id, reader.error, extra=about)
            reader.done = True
            self._finish_if_read(subscription)

    @handles(_ReadAgain)
    def read_again(self, message: _ReadAgain) -> None:
        """After trouble with a task that is still here."""
        if not message.subscription.over:
            self._read(message.subscription, message.reader)


def _unwoken(_: None) -> None:
    """Nothing is read yet."""
