"""What a node can be measured by: SwarmKit's own names, and beside them services, actors, consensus and store.

Pure functions over what is there already: the published view, counters kept in passing, and states that actors declare.
Everything is computed when it is asked for; between two questions nothing is. The number of series is bounded: actors
are told apart by class, reasons by kind, and of services at most ``SERVICES_MAX`` have series of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from runtime.introspection import domain
from runtime.stage import Stage
from runtime.stage.observe import Durations
from runtime.store.view import View
from runtime.swarm.control.services import service_status
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import types_pb2 as types

SERVICES_MAX: Final = 500
OTHERS: Final = "(others)"


@dataclass(frozen=True, slots=True)
class Histogram:
    """``buckets`` are upper bounds as text with how many durations are at most that; the last is ``+Inf``."""

    buckets: list[tuple[str, float]]
    sum: float


Sample = tuple[Sequence[str], "float | Histogram"]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: ``kind`` is gauge, counter or histogram; a sample has a value for each label."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    samples: list[Sample] = field(default_factory=list)


def gauge(name: str, text: str, value: float | None) -> list[Family]:
    """A gauge without labels; none if there is no value."""
    return [Family(name, "gauge", text, (), [((), value)])] if value is not None else []


def families(stage: Stage, view: View | None, states: Mapping[str, Any]) -> list[Family]:
    """All of a node. ``view`` is none on workers; ``states`` are the declared states of ``asks.DOMAIN``, of which those
    that did not answer in time are texts."""
    return [
        *node(view, states),
        *(objects_of(view) if view is not None else ()),
        *(services(view) if view is not None else ()),
        *consensus(states),
        *store(states),
        *timings(stage),
        *actors(stage),
    ]


def _state(states: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = states.get(name)
    return found if isinstance(found, Mapping) else {}


def node(view: View | None, states: Mapping[str, Any]) -> list[Family]:
    """Who this node is."""
    certificate = _state(states, "certificate")
    found = [Family("swarm_node_info", "gauge", "Information related to the swarm", ("swarm_id", "node_id"))]
    if certificate.get("node"):
        found[0].samples.append(((certificate["cluster"], certificate["node"]), 1.0))
        days = "Days until the certificate expires"
        found.append(Family("swarmlet_certificate_days_left", "gauge", days, ("certificate",), [
            (("node",), certificate["days left"]), (("root",), certificate["root days left"]),
        ]))  # fmt: skip
    leads = bool(_state(states, "raft").get("leading"))
    found += gauge("swarm_node_manager", "Whether this node is a manager", float(view is not None))
    found += gauge("swarm_manager_leader", "Whether this node leads its swarm", float(leads))
    return found


_NODE_STATES: Final = ("unknown", "down", "ready", "disconnected")
_TASK_STATES: Final = {name.lower(): number for name, number in types.TaskState.items()}


def objects_of(view: View) -> list[Family]:
    """How many objects of each kind there are, as this manager's replica has them; nodes and tasks by state."""
    nodes = Counter(int(each.status.state) for each in view.all(objects.Node))
    found = [
        Family("swarm_manager_nodes", "gauge", "The number of nodes", ("state",), [
            ((name,), float(nodes[number])) for number, name in enumerate(_NODE_STATES)
        ]),
        Family("swarm_manager_tasks_total", "gauge", "The number of tasks in the cluster object store", ("state",), [
            ((name,), float(view.count_found(objects.Task, "task_state", number)))
            for name, number in _TASK_STATES.items()
        ]),
    ]  # fmt: skip
    kinds = (
        ("services", objects.Service),
        ("networks", objects.Network),
        ("secrets", objects.Secret),
        ("configs", objects.Config),
    )
    for name, kind in kinds:
        found += gauge(f"swarm_manager_{name}_total", f"The number of {name} in the store", float(view.count(kind)))
    return found


def services(view: View) -> list[Family]:
    """How many tasks each service is to have, how many run, how many wait and for what."""
    who = ("service_id", "service_name")
    desired = Family("swarmlet_service_tasks_desired", "gauge", "Tasks that a service is to have", who)
    running = Family("swarmlet_service_tasks_running", "gauge", "Tasks of a service that run", who)
    pending = Family("swarmlet_service_tasks_pending", "gauge", "Tasks of a service that wait", (*who, "reason"))
    names: dict[str, tuple[str, str]] = {}
    wanted: Counter[tuple[str, str]] = Counter()
    run: Counter[tuple[str, str]] = Counter()
    for place, service in enumerate(view.all(objects.Service)):
        own = place < SERVICES_MAX
        name = (service.id, service.spec.annotations.name) if own else ("", OTHERS)
        status = service_status(view, service.id)
        names[service.id] = name
        wanted[name] += status.desired_tasks
        run[name] += status.running_tasks
    desired.samples.extend((name, float(count)) for name, count in wanted.items())
    running.samples.extend((name, float(run[name])) for name in wanted)
    waits = Counter(
        (*names[task.service_id], domain.reason_class(why, who_acts))
        for task, who_acts, why in domain.waiting_tasks(view)
        if task.service_id in names
    )
    pending.samples.extend((labels, float(count)) for labels, count in sorted(waits.items()))
    return [desired, running, pending]


# Consensus and store


def consensus(states: Mapping[str, Any]) -> list[Family]:
    """Where the log stands; of the leader how far each member is behind."""
    raft = _state(states, "raft")
    if "term" not in raft:
        return []
    found = gauge("swarmlet_raft_term", "The term of the consensus", raft["term"])
    found += gauge("swarmlet_raft_has_leader", "Whether a leader is known", float(bool(raft["leader"])))
    for name, key in (("last", "last"), ("committed", "committed"), ("applied", "applied")):
        found += gauge(f"swarmlet_raft_{name}_index", f"The {name} index of the log", raft[key])
    found += gauge("swarmlet_raft_appends_in_flight", "Appends to the log under way", raft["appends in flight"])
    found += gauge("swarmlet_raft_proposals_waiting", "Proposals that wait for the next append", raft["waiting"])
    lag = Family("swarmlet_raft_member_lag_entries", "gauge", "Entries that a member is behind", ("member",))
    reached = Family("swarmlet_raft_member_reached", "gauge", "Whether a member is reached", ("member",))
    for peer in raft["peers"]:
        if not isinstance(peer, Mapping):
            continue  # a list that was cut says so in its last item
        reached.samples.append(((peer["node"],), float(peer["reached"])))
        if "lag" in peer:
            lag.samples.append(((peer["node"],), peer["lag"]))
    return [*found, reached, lag]


def store(states: Mapping[str, Any]) -> list[Family]:
    """The store and who is told of its changes."""
    state, dispatcher = _state(states, "store"), _state(states, "dispatcher")
    found: list[Family] = []
    for key in ("version", "watchers", "in flight"):
        name = f"swarmlet_store_{'writes_in_flight' if key == 'in flight' else key}"
        found += gauge(name, f"{key.capitalize()} of the store", state.get(key))
    for key in ("sessions", "assignments waiting", "statuses waiting"):
        name = f"swarmlet_dispatcher_{key.replace(' ', '_')}"
        found += gauge(name, f"{key.capitalize()} of the dispatcher", dispatcher.get(key))
    return found


def timings(stage: Stage) -> list[Family]:
    """The histograms that actors keep; SwarmKit's are there from the start, as they are at its own."""
    timings = dict(stage.observations.timings)  # a copy in one step: actors add to it
    return [
        Family(name, "histogram", "Durations in seconds", (), [((), _histogram(timings.get(name) or Durations()))])
        for name in sorted({*timings, *TIMINGS})
    ]


TIMINGS: Final = (
    "swarm_raft_transaction_latency_seconds", "swarm_raft_snapshot_latency_seconds",
    "swarm_store_write_tx_latency_seconds", "swarm_store_batch_latency_seconds",
    "swarm_dispatcher_scheduling_delay_seconds",
)  # fmt: skip


def _histogram(durations: Durations) -> Histogram:
    counts, total = list(durations.counts), 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, Durations.BOUNDS), "+Inf"), counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return Histogram(buckets, durations.sum)


# Actors


class _Class:
    """Figures of all actors of one class."""

    __slots__ = ("busy", "depth", "failed", "handled", "here", "oldest", "restarts", "stuck")

    def __init__(self) -> None:
        self.here = self.depth = self.handled = self.failed = self.restarts = 0
        self.busy = self.oldest = self.stuck = 0.0


def actors(stage: Stage) -> list[Family]:
    """Mailboxes, failures and work by class of actor; what is gone is in the counters."""
    now, by_class = stage.read_nanos(), _classes(stage)
    for cell in stage.walk():
        figures, stats = by_class.setdefault(cell.cls.__name__, _Class()), list(cell.tally.stats.values())
        oldest, in_hand = cell.mailbox.oldest(), cell.handling
        figures.here += 1
        figures.depth += cell.mailbox.depth
        figures.handled += sum(each.count for each in stats)
        figures.failed += sum(each.failed for each in stats)
        figures.busy += sum(each.busy_s for each in stats)
        figures.restarts += cell.failures.total
        figures.oldest = max(figures.oldest, (now - oldest) / 1e9 if oldest is not None else 0.0)
        figures.stuck = max(figures.stuck, (now - cell.handling_since) / 1e9 if in_hand is not None else 0.0)
    seen = stage.observations
    return [
        _by_class("swarmlet_actors", "gauge", "Actors", by_class, "here"),
        _by_class("swarmlet_actor_mailbox_messages", "gauge", "Messages that wait", by_class, "depth"),
        _by_class("swarmlet_actor_mailbox_oldest_seconds", "gauge", "How long the oldest waits", by_class, "oldest"),
        _by_class("swarmlet_actor_handling_seconds", "gauge", "Longest work on a message now", by_class, "stuck"),
        _by_class("swarmlet_actor_messages", "counter", "Messages handled", by_class, "handled"),
        _by_class("swarmlet_actor_failures", "counter", "Messages that failed an actor", by_class, "failed"),
        _by_class("swarmlet_actor_restarts", "counter", "Lives that ended by a failure", by_class, "restarts"),
        _by_class("swarmlet_actor_busy_seconds", "counter", "Time in handlers", by_class, "busy"),
        *_counters(
            ("swarmlet_dead_letters", "Messages that nobody could be given", seen.dead_letters),
            ("swarmlet_late_answers", "Answers that came after their deadline", seen.late_answers),
            ("swarmlet_mailbox_refusals", "Messages that full mailboxes refused", seen.refused_full),
        ),
    ]


def _classes(stage: Stage) -> dict[str, _Class]:
    found: dict[str, _Class] = {}
    for name, past in list(stage.observations.past.items()):
        figures = found[name] = _Class()
        figures.handled, figures.failed = past.handled, past.failed
        figures.restarts, figures.busy = past.restarts, past.busy
    return found


def _by_class(name: str, kind: str, text: str, by_class: Mapping[str, _Class], field_name: str) -> Family:
    samples: list[Sample] = [
        ((actor,), float(getattr(figures, field_name))) for actor, figures in sorted(by_class.items())
    ]
    return Family(name, kind, f"{text}, by class of actor", ("actor",), samples)


def _counters(*counters: tuple[str, str, int]) -> Iterable[Family]:
    return [Family(name, "counter", text, (), [((), float(value))]) for name, text, value in counters]
