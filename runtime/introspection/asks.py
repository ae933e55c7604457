"""What a stage can be asked, and what it answers: one method a question, the same over a socket and in the process.

Rules owned here: reading changes nothing and stops nobody. An actor is asked for its declared state ahead of its
mailbox and with a deadline, and one that does not answer is shown as such, with the stack of its thread. Values are
made of what msgpack and JSON know, and hold no secrets.

Asks: ``tree`` (rows and totals; with ``"states": true`` the declared states too), ``actor`` (``path``: one row, its
state, figures per message type, crashes, who waits for whom), ``messages`` (figures per type, of all), ``crashes``,
``raft`` (the declared states of consensus, store, dispatcher, scheduler and certificates), ``node`` (who this is, where
its API answers), ``backup`` (``file``: the absolute path of a new file, which gets a backup of this manager),
``explain`` (``kind``, ``name``: what a service, task or node waits for) and ``plan`` (``action``, ``name``: what
draining or removing a node would do), which the leader's node alone can answer; ``rebalance`` (``services``,
``without``, ``limit``: which tasks the scheduler would place elsewhere now, by any manager's store); ``waiting``
(``limit``: the tasks that wait and why, as any manager's store has them), ``tasks`` (``limit``, ``text``: the first of
all tasks), ``beliefs`` (``node``: what the agent here and the manager here say of a node's tasks, this node's if none
is named) and ``waits`` (every question between actors that is not answered yet).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from runtime.errors import Refused
from runtime.introspection import domain, metrics, protocol, standing
from runtime.introspection.metrics import Family
from runtime.introspection.redact import redact
from runtime.introspection.render import STUCK_S
from runtime.introspection.rows import row, rows, totals
from runtime.introspection.writing import ask_actor, write_private
from runtime.protocol.cluster import LocalTasks
from runtime.protocol.explain import Explain, PlanNode
from runtime.protocol.manager import AskPublished, MakeBackup
from runtime.stage import Stage
from runtime.stage.cell import Cell
from runtime.stage.observe import CrashReport, MessageStats, describe_error, quantile
from runtime.store.view import Published, View
from runtime.swarm import rebalancing
from runtime.swarm.explaining import find

STATE_DEADLINE_S: Final = 2.5
EXPLAIN_DEADLINE_S: Final = 4.5
EXPLAINER: Final = "/cluster/node/manager/leader/explain"
CRASHES_SHOWN: Final = 200
FRAMES_SHOWN: Final = 30
DOMAIN: Final = {
    "raft": "/cluster/node/manager/raft",
    "transport": "/cluster/node/manager/raft/transport",
    "log": "/cluster/node/manager/raft/log",
    "store": "/cluster/node/manager/store",
    "dispatcher": "/cluster/node/manager/leader/dispatcher",
    "scheduler": "/cluster/node/manager/leader/scheduler",
    "certificate": "/cluster/node/certificate",
}
"""Where the views of the domain come from."""

CLUSTER: Final = "/cluster"
MANAGER: Final = "/cluster/node/manager"
LIMIT_MAX: Final = 10_000
MOVES_SHOWN: Final = 10
BACKUP: Final = "/cluster/node/manager/backup"
BACKUP_DEADLINE_S: Final = 120.0

_NO_MANAGER: Final = {
    "locked": " (its swarm is locked: docker swarm unlock opens it)",
    "inactive": " (it is in no swarm)",
    "error": " (docker info says what is wrong)",
}

Ask = Callable[[dict[str, Any]], Awaitable[Any]]


class Asks:
    """The questions about one stage. Its methods belong to one event loop; ``about`` says who the node is."""

    def __init__(self, stage: Stage, about: dict[str, Any] | None = None) -> None:
        self.stage = stage
        self._about = dict(about or {})
        self.asks: dict[str, Ask] = {
            "tree": self._tree,
            "actor": self._actor,
            "messages": self._messages,
            "crashes": self._crashes,
            "raft": self._raft,
            "node": self._node,
            "backup": self._backup,
            "explain": self._explain,
            "plan": self._plan,
            "rebalance": self._rebalance,
            "waiting": self._waiting,
            "tasks": self._tasks,
            "beliefs": self._beliefs,
            "waits": self._waits,
        }

    async def answer(self, request: dict[str, Any]) -> Any:
        """The answer's value; BadRequest with what is wrong."""
        asked = self.asks.get(request["ask"])
        if asked is None:
            raise protocol.BadRequest(f"nothing is known of {request['ask'][:100]!r}")
        return await asked(request)

    def cell(self, request: dict[str, Any]) -> Cell:
        """The actor that a request names; BadRequest if nobody lives there."""
        path = str(request.get("path", ""))
        cell = self.stage.cells.get(path)
        if cell is None:
            raise protocol.BadRequest(f"nobody lives at {path[:200]!r}")
        return cell

    async def _backup(self, request: dict[str, Any]) -> Any:
        """Has this node's manager make a backup and puts it into a new private file."""
        path = request.get("file")
        if not isinstance(path, str) or not os.path.isabs(path):
            raise protocol.BadRequest("a backup needs the absolute path of a new file")
        data = await ask_actor(self.stage.at(BACKUP), MakeBackup(), BACKUP_DEADLINE_S)
        try:
            await asyncio.to_thread(write_private, path, data)
        except OSError as error:
            raise protocol.BadRequest(f"cannot write {path}: {error.strerror or error}") from None
        return {"bytes": len(data)}

    async def _node(self, request: dict[str, Any]) -> Any:
        about = {**self._about, "name": self.stage.name, "clock": self.stage.read_clock()}
        return {**about, "behind": await self._behind()}

    async def _tree(self, request: dict[str, Any]) -> Any:
        found = rows(self.stage)
        if request.get("states") is True:
            states = await read_states(self.stage.walk())
            for each in found:
                each["snapshot"] = states.get(each["path"])
        return {"stage": totals(self.stage), "actors": found}

    async def _actor(self, request: dict[str, Any]) -> Any:
        cell = self.cell(request)
        states = await read_states([cell])
        parent = cell.parent
        return {
            **row(cell, self.stage.read_nanos()),
            "clock": self.stage.read_clock(),
            "snapshot": states[cell.path],
            "messages": message_figures([cell]),
            "parent": parent.path if parent is not None else "",
            "children": sorted(child.path for child in list(cell.children.values())),
            "watchers": self.stage.watchers_of(cell.path),
            "stack": stack(cell, self.stage.read_nanos()),
            "waits_for": waits_for(cell),
            "crashes": [self._crash(each) for each in self._reports(cell.path)],
        }

    def _reports(self, path: str = "") -> list[CrashReport]:
        found = [each for each in self.stage.observations.crashes if not path or each.path == path]
        return found[-CRASHES_SHOWN:]

    def _crash(self, report: CrashReport) -> dict[str, Any]:
        cell = self.stage.cells.get(report.path)
        return {**crash(report), "in_all": cell.failures.total if cell is not None else 0}

    async def _messages(self, request: dict[str, Any]) -> Any:
        return message_figures(self.stage.walk())

    async def _crashes(self, request: dict[str, Any]) -> Any:
        path = str(request.get("path", ""))
        found = [self._crash(report) for report in self._reports(path)]
        if path and not found:
            self.cell(request)  # who is gone may have failed; who never was has not
        return found

    async def _explain(self, request: dict[str, Any]) -> Any:
        kind = request.get("kind", "")
        if kind not in ("", "service", "task", "node"):
            raise protocol.BadRequest("what is explained is a service, a task or a node")
        name = str(request.get("name", ""))
        found = await self._leader(Explain(kind, name), partial(domain.explanation, kind=kind, name=name))
        return {**found, "because": standing.kept(self.stage, found["silent"])}

    async def _plan(self, request: dict[str, Any]) -> Any:
        action = request.get("action")
        if action not in ("drain", "rm"):
            raise protocol.BadRequest("what is planned is to drain or to rm a node")
        name, now = str(request.get("name", "")), self.stage.world.clock.now()
        return await self._leader(PlanNode(action, name), partial(domain.plan, action=action, name=name, now=now))

    async def _rebalance(self, request: dict[str, Any]) -> Any:
        """Which tasks would be moved to lie as the scheduler would place them now, by this manager's own view."""
        names, without = request.get("services", []), request.get("without", [])
        if not all(isinstance(each, list) and all(isinstance(name, str) for name in each) for each in (names, without)):
            raise protocol.BadRequest("services are a list of names")
        limit, now = _limit(request, MOVES_SHOWN), self.stage.world.clock.now()
        view = (await self.published()).view
        try:
            return await asyncio.to_thread(rebalancing.plan, view, names, limit, now, without)
        except Refused as refused:
            raise protocol.BadRequest(refused.text) from None

    async def _leader(self, question: Explain | PlanNode, from_view: Callable[[View], dict[str, Any]]) -> Any:
        """The answer of the actor that only the leader has. Of a manager that does not lead, what follows from its own
        view, which lacks what the leader's actors would have told; ``elsewhere`` says where they are."""
        if EXPLAINER in self.stage.cells:
            found = await ask_actor(self.stage.at(EXPLAINER), question, EXPLAIN_DEADLINE_S)
            return {**found, "behind": await self._behind()}
        elsewhere, view = f"this node does not lead its swarm{await self._who_leads()}", await self._view()
        if view is None:
            raise protocol.BadRequest(elsewhere)
        try:
            found = await asyncio.to_thread(from_view, view)
        except Refused as refused:
            raise protocol.BadRequest(refused.text) from None
        return {**found, "elsewhere": elsewhere, "behind": await self._behind()}

    async def _who_leads(self) -> str:
        cell = self.stage.cells.get(DOMAIN["raft"])
        core = (await read_states([cell]))[cell.path] if cell is not None else None
        if not isinstance(core, dict) or "leader" not in core:
            return f": ask on the leader's node{await self._why_no_manager()}"
        if not core["leader"]:
            return ", and nobody does now: swarmlet raft says which managers are reached"
        leaders = [peer for peer in core["peers"] if isinstance(peer, dict) and peer["raft id"] == core["leader"]]
        await self._name(leaders)
        where = "".join(f", {peer['name']} ({peer['addr']})" for peer in leaders)
        return f": ask on the leader's node{where}"

    async def _why_no_manager(self) -> str:
        """What stands in the way, as the cluster's actor has it; empty where nothing does."""
        cell = self.stage.cells.get(CLUSTER)
        state = (await read_states([cell]))[cell.path] if cell is not None else None
        return _NO_MANAGER.get(str(state.get("state", "")), "") if isinstance(state, dict) else ""

    async def published(self) -> Published:
        """Where this node's manager has its newest view; BadRequest if it runs no manager."""
        if MANAGER not in self.stage.cells:
            raise protocol.BadRequest(f"this node runs no manager now{await self._why_no_manager()}")
        found: Published = await ask_actor(self.stage.at(MANAGER), AskPublished(), STATE_DEADLINE_S)
        return found

    async def _view(self) -> View | None:
        """The newest view; none where no manager runs, or one that begins or ends."""
        if MANAGER not in self.stage.cells:
            return None
        with contextlib.suppress(protocol.BadRequest):
            return (await self.published()).view
        return None

    async def metrics(self) -> list[Family]:
        """All figures of this node, read when they are asked for."""
        view = await self._view()
        states = await self._domain()
        return await asyncio.to_thread(metrics.families, self.stage, view, states)

    async def _tasks(self, request: dict[str, Any]) -> Any:
        limit, text = _limit(request, domain.TASKS_LISTED), str(request.get("text", ""))
        found = await asyncio.to_thread(domain.tasks, (await self.published()).view, limit, text)
        return {**found, "behind": await self._behind()}

    async def _waiting(self, request: dict[str, Any]) -> Any:
        limit = _limit(request, domain.WAITING_SHOWN)
        view, now = (await self.published()).view, self.stage.world.clock.now()
        found = await asyncio.to_thread(domain.waiting, view, now, limit)
        return {**found, "behind": await self._behind()}

    async def _beliefs(self, request: dict[str, Any]) -> Any:
        own, agent, manager = await self._own_id(), None, None
        view = (await self.published()).view if MANAGER in self.stage.cells else None
        node_id = _node_id(view, str(request.get("node") or own))
        if node_id == own:
            told = await ask_actor(self.stage.at(CLUSTER), LocalTasks(), STATE_DEADLINE_S)
            agent = [domain.agent_task(task, status) for task, status in told]
        if view is not None:
            manager = domain.node_tasks(view, node_id)
        if agent is None and manager is None:
            raise protocol.BadRequest("this node runs no manager: of other nodes it knows nothing")
        return {**domain.beliefs(node_id, agent, manager), "behind": await self._behind()}

    async def _behind(self) -> list[str]:
        """Why what this node's manager knows of the swarm may be old; nothing where it is not."""
        cell = self.stage.cells.get(DOMAIN["raft"])
        if (found := self._kept()) or cell is None:
            return found  # of an actor that is kept no state comes in time
        return _leaderless((await read_states([cell]))[cell.path])

    def _kept(self) -> list[str]:
        return [f"{path}: {why}" for path, why in standing.kept(self.stage).items()]

    async def _name(self, peers: Sequence[Any]) -> None:
        """Adds to what is said of managers how their machines are called."""
        view = await self._view()
        for peer in peers:
            if isinstance(peer, dict):
                peer["name"] = domain.hostname(view, peer["node"]) if view is not None else peer["node"]

    async def _own_id(self) -> str:
        cell = self.stage.cells.get(DOMAIN["certificate"])
        state = (await read_states([cell]))[cell.path] if cell is not None else None
        return str(state.get("node", "")) if isinstance(state, dict) else ""

    async def _waits(self, request: dict[str, Any]) -> Any:
        return [{"from": cell.path, **each} for cell in self.stage.walk() for each in waits_for(cell)]

    async def _raft(self, request: dict[str, Any]) -> Any:
        found = await self._domain()
        core = found.get("raft")
        if isinstance(core, dict):
            await self._name(core.get("peers", ()))
        return {**found, "behind": self._kept() or _leaderless(core)}

    async def _domain(self) -> dict[str, Any]:
        cells = {name: cell for name, path in DOMAIN.items() if (cell := self.stage.cells.get(path)) is not None}
        states = await read_states(list(cells.values()))
        return {name: states[cell.path] for name, cell in cells.items()} | {"clock": self.stage.read_clock()}


def _leaderless(core: Any) -> list[str]:
    return ["no leader is known here"] if isinstance(core, dict) and core.get("leader") == "" else []


def _node_id(view: View | None, text: str) -> str:
    """The id of the node that is meant. What may be the id of a node that the swarm forgot stays as it is: its agent
    may have tasks yet."""
    if view is None or _ID.fullmatch(text):
        return text
    try:
        return str(find(view, "node", text).id)
    except Refused as refused:
        raise protocol.BadRequest(refused.text) from None


_ID: Final = re.compile(r"[0-9a-z]{25}")


def _limit(request: dict[str, Any], default: int) -> int:
    limit = request.get("limit", default)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit <= LIMIT_MAX:
        raise protocol.BadRequest(f"a limit is a whole number from 1 to {LIMIT_MAX}")
    return limit


def crash(report: CrashReport) -> dict[str, Any]:
    """A crash report as it may be shown."""
    return {
        "path": report.path,
        "actor": report.actor,
        "at": report.at,
        "error": redact(report.error),
        "message": report.message,
        "before": list(report.before),
        "state": redact(report.state),
        "traceback": redact(report.traceback.splitlines()[-20:]),
    }


def message_figures(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """What actors did, by message type, busiest first; times in seconds, quantiles as upper bounds of buckets, but no
    longer than the longest there was."""
    merged: dict[str, list[MessageStats]] = {}
    for cell in cells:
        for kind, stats in list(cell.tally.stats.items()):
            merged.setdefault(kind.__name__, []).append(stats)
    figures = [_figures(name, stats) for name, stats in merged.items()]
    return sorted(figures, key=lambda each: (-each["busy_s"], each["type"]))


def _figures(name: str, stats: list[MessageStats]) -> dict[str, Any]:
    waits = [sum(column) for column in zip(*(each.wait_buckets for each in stats), strict=True)]
    busies = [sum(column) for column in zip(*(each.busy_buckets for each in stats), strict=True)]
    wait_max, busy_max = (max(each.wait_max for each in stats) / 1e9, max(each.busy_max for each in stats) / 1e9)
    return {
        "type": name,
        "count": sum(each.count for each in stats),
        "failed": sum(each.failed for each in stats),
        "wait_p50_s": min(wait_max, quantile(waits, 0.5)),
        "wait_p99_s": min(wait_max, quantile(waits, 0.99)),
        "wait_max_s": wait_max,
        "busy_p50_s": min(busy_max, quantile(busies, 0.5)),
        "busy_p99_s": min(busy_max, quantile(busies, 0.99)),
        "busy_max_s": busy_max,
        "busy_s": sum(each.busy_s for each in stats),
    }


def stack(cell: Cell, now: int) -> list[str]:
    """Where the actor's thread is, if it has been at one message for a while: files, lines and functions, no values."""
    if cell.handling is None or (now - cell.handling_since) / 1e9 < STUCK_S:
        return []
    frame = sys._current_frames().get(cell.thread)
    if frame is None:
        return []
    frames = traceback.extract_stack(frame)[-FRAMES_SHOWN:]
    return [f"{each.filename}:{each.lineno} in {each.name}" for each in frames]


def waits_for(cell: Cell) -> list[dict[str, Any]]:
    """The questions that this actor asked and that are not answered: of whom, what, since when, and how long it will
    wait at most."""
    instance = cell.instance
    questions = list(getattr(instance, "_questions", {}).values())  # an instance that begins has none yet
    now = cell.stage.world.clock.monotonic()
    return [
        {
            "path": each.path,
            "type": each.kind.__name__,
            "waited_s": round(max(0.0, now - each.deadline + each.seconds), 3),
            "deadline_s": each.seconds,
        }
        for each in questions
    ]


async def read_states(cells: Sequence[Cell]) -> dict[str, Any]:
    """What each actor declares of its state, taken in its own turn; a sentence for those that do not answer in time."""
    loop = asyncio.get_running_loop()
    futures = {cell.path: _state(cell, loop) for cell in cells}
    if futures:
        await asyncio.wait(futures.values(), timeout=STATE_DEADLINE_S)
    late = "(no answer in time)"
    return {path: future.result() if future.done() else late for path, future in futures.items()}


def _state(cell: Cell, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = loop.create_future()

    def arrived(state: Any) -> None:
        if not future.done():
            future.set_result(state)

    def read() -> None:
        """Runs in the actor's turn: whatever goes wrong here must not be a failure of the actor."""
        instance = cell.instance
        try:
            state = redact(instance.snapshot()) if instance is not None else None
        except Exception as error:  # noqa: BLE001 - a broken state is shown, and fails nobody
            state = f"(its snapshot failed: {describe_error(error)})"
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(arrived, state)

    cell.control(read)
    return future
