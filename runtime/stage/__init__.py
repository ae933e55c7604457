"""The stage: actors' ground. Addresses, mailboxes, supervision, timers, dispatchers, observation."""

from runtime.stage.actor import Actor, handles
from runtime.stage.address import Address
from runtime.stage.answers import ActorUnavailable, Answer, AskTimeout, BlockingGet, Future, Reply
from runtime.stage.messages import ActorDown, ActorUp
from runtime.stage.policy import GiveUp, Overflow, Policy, Restart, Strategy
from runtime.stage.stage import Stage
from runtime.stage.timers import Timer
from runtime.stage.world import Clock, RealClock, World

__all__ = [
    "Actor",
    "ActorDown",
    "ActorUnavailable",
    "ActorUp",
    "Address",
    "Answer",
    "AskTimeout",
    "BlockingGet",
    "Clock",
    "Future",
    "GiveUp",
    "Overflow",
    "Policy",
    "RealClock",
    "Reply",
    "Restart",
    "Stage",
    "Strategy",
    "Timer",
    "World",
    "handles",
]
