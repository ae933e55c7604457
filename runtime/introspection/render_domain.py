"""Consensus and store, tasks that wait, beliefs and open questions as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runtime.introspection.render import columns, states
from runtime.introspection.sequence import duration

Answer = Mapping[str, Any]
_PEER_HEADS = ("NODE", "ROLE", "REACHED", "MATCH", "LAG", "STATE", "ADDRESS", "MEMBER", "NODE ID")
_REST = ("log", "transport", "dispatcher", "scheduler")


def raft(value: Answer, before: Answer | None = None) -> str:
    """What ``raft`` was answered; with an answer of some time before also how much is written a second."""
    if not isinstance(value.get("raft"), Mapping):
        return _certificate(value) or "this node runs no manager"
    core, lines = value["raft"], behind(value)
    if core.get("loaded") is False:
        return "the log is being read"
    leader = f", leader {_called(core, core['leader'])}" if core["leader"] and not core["leading"] else ""
    lines.append(f"{core['role']} {_called(core, core['raft id'])} in term {core['term']}{leader}{_no_leader(core)}")
    lines.append(f"log: last {core['last']}, committed {core['committed']}, applied {core['applied']}"
                 f", snapshot at {core['snapshot']}")  # fmt: skip
    lines.append(f"pace: {core['pace']} (a tick each {duration(core['tick'])}); appends in flight "
                 f"{core['appends in flight']}, proposals waiting {core['waiting']}")  # fmt: skip
    lines += ["", columns([_PEER_HEADS, *(_peer(each) for each in core["peers"])], right=(3, 4))]
    lines += ["", _store(value, before)]
    if text := _certificate(value):
        lines.append(text)
    for name in _REST:
        if value.get(name):
            lines += [f"{name}:", states(value[name])]
    return "\n".join(lines)


def behind(value: Answer) -> list[str]:
    """A line that says why the answer may be old, if it may."""
    why = value.get("behind")
    return [f"WHAT IS KNOWN HERE MAY BE OLD: {'; '.join(why)}"] if why else []


def _called(core: Answer, raft_id: str) -> str:
    """A member by the name of its machine, where that is known."""
    names = [each.get("name") for each in core["peers"] if isinstance(each, Mapping) and each["raft id"] == raft_id]
    return f"{names[0]} ({raft_id})" if any(names) else raft_id


def _no_leader(core: Answer) -> str:
    if core["leader"]:
        return ""
    voters = [each for each in core["peers"] if isinstance(each, Mapping) and each.get("votes", True)]
    most = 2 * sum(each["reached"] for each in voters) > len(voters)
    why = "; a majority is reached, so some of them take no part: they say why" if most else ""
    return f": NO LEADER is known, nothing can be written{why}"


def _peer(peer: Answer) -> tuple[str, ...]:
    role = "leader" if peer["leader"] else "follower" if peer.get("votes", True) else "listener"
    reached = "yes" if peer["reached"] else "NO"
    known = "match" in peer
    state = str(peer.get("state", ""))
    if peer.get("pending snapshot"):
        state += f" at {peer['pending snapshot']}"
    lag = (str(peer["match"]), str(peer["lag"])) if known else ("", "")
    return (peer.get("name") or peer["node"], role, reached, *lag, state, peer["addr"], peer["raft id"], peer["node"])


def _store(value: Answer, before: Answer | None) -> str:
    store = value.get("store")
    if not isinstance(store, Mapping):
        return f"store: {store}"
    objects = ", ".join(_counted(count, kind) for kind, count in store["objects"].items()) or "nothing"
    rate = _rate(value, before)
    busy = f"{_counted(store['watchers'], 'watchers')}, {_counted(store['in flight'], 'writes')} in flight"
    return f"store: version {store['version']}{rate}\n  {busy}\n  {objects}"


def _counted(count: int, kinds: str) -> str:
    return f"{count} {kinds.removesuffix('s') if count == 1 else kinds}"


def _rate(value: Answer, before: Answer | None) -> str:
    if before is None or not isinstance(before.get("store"), Mapping):
        return ""
    seconds = max(1e-6, value["clock"] - before["clock"])
    grown = value["store"]["version"] - before["store"]["version"]
    return f" ({grown / seconds:.1f} entries a second over {seconds:.1f} s)"


def _certificate(value: Answer) -> str:
    found = value.get("certificate")
    if not isinstance(found, Mapping) or not found.get("node"):
        return ""
    trouble = f"; {found['trouble']}" if found["trouble"] else ""
    failed = f"; {found['failed renewals']} renewals failed" if found["failed renewals"] else ""
    return (f"certificate: {found['role']}, {found['days left']:.1f} days left; "
            f"root {found['root days left']:.0f} days left{failed}{trouble}\n  of node {found['node']}")  # fmt: skip


def tasks(value: Answer) -> str:
    """What ``tasks`` was answered."""
    table = [("TASK", "STATE", "DESIRED", "NODE", "ID", "WHY")]
    for each in value["tasks"]:
        cells = [each[name] for name in ("name", "state", "desired", "node")]
        table.append((*cells, each["id"][:12], " ".join(each["why"].split())))
    closing = first_of(len(value["tasks"]), value["found"], what_of(value))
    return "\n".join([*behind(value), columns(table), closing])


def what_of(found: Answer) -> str:
    """What is listed: all tasks, or those that fit a text."""
    return "tasks" if found["found"] == found["count"] else f"tasks that fit, of {found['count']}"


def waiting(value: Answer) -> str:
    """What ``waiting`` was answered."""
    if not value["count"]:
        return "\n".join([*behind(value), "no task waits"])
    table = [("TASK", "ID", "STATE", "NODE", "SINCE", "NEXT", "WHY")]
    table += [
        (
            each["name"],
            each["id"][:12],
            each["state"],
            each["node"],
            duration(each["since_s"]),
            each["who"],
            " ".join(each["why"].split()),
        )
        for each in value["tasks"]
    ]
    closing = first_of(len(value["tasks"]), value["count"], "tasks that wait")
    return "\n".join([*behind(value), columns(table, right=(4,)), closing])


def first_of(shown: int, count: int, what: str) -> str:
    """``first N of M`` where some are left out; one task is no tasks, and waits."""
    if count == 1:
        what = what.replace("that wait", "that waits").replace("that fit", "that fits").replace("tasks", "task")
    return f"{count} {what}" if shown == count else f"first {shown} of {count} {what}"


def beliefs(value: Answer) -> str:
    """What both sides believe of a node's tasks."""
    agent, manager, differ = value["agent"], value["manager"], value["differ"]
    if differ is None:
        side, rows = ("agent", agent) if agent is not None else ("manager", manager)
        table = [("TASK", "STATE", "DESIRED", "ID"), *((r["name"], r["state"], r["desired"], r["id"]) for r in rows)]
        other = "the manager's side is on a manager" if side == "agent" else "the agent's side is on that node"
        alone = f"the {side} alone was asked: {other}\n(--manager SOCKET, --agent SOCKET)"
        return "\n".join([*behind(value), columns(table), alone])
    said = f"node {value['node']}: the agent has {_counted(len(agent), 'tasks')}, the manager {len(manager)}"
    head = "\n".join([*behind(value), said])
    if not differ:
        return f"{head}; of all that live they say the same"
    table = [("TASK", "AGENT", "MANAGER", "WHICH MEANS"),
             *((r["name"], r["agent"] or "-", r["manager"] or "-", r["means"]) for r in differ)]  # fmt: skip
    return f"{head}\nof {_counted(len(differ), 'tasks')} they are of different minds\n{columns(table)}"


def waits(found: Sequence[Answer]) -> str:
    """Who waits for whom, the longest first; a ring of waits is named."""
    if not found:
        return "no actor waits for another"
    table = [("ACTOR", "WAITS FOR", "TO ANSWER", "SINCE", "AT MOST")]
    table += [
        (each["from"], each["path"], each["type"], duration(each["waited_s"]), duration(each["deadline_s"]))
        for each in sorted(found, key=lambda each: -each["waited_s"])
    ]
    return "\n".join([columns(table, right=(3, 4)), *(f"in a ring: {' -> '.join(ring)}" for ring in rings(found))])


def rings(found: Sequence[Answer]) -> list[list[str]]:
    """Circles of actors of which each waits for the next; each circle once, from its first path on."""
    waited: dict[str, set[str]] = {}
    for each in found:
        waited.setdefault(each["from"], set()).add(each["path"])
    seen: set[str] = set()
    rings: list[list[str]] = []
    for start in sorted(waited):
        _walk(start, [], waited, seen, rings)
    return rings


def _walk(path: str, above: list[str], waited: Mapping[str, set[str]], seen: set[str], rings: list[list[str]]) -> None:
    if path in above:
        ring = above[above.index(path) :]
        first = ring.index(min(ring))
        rings.append([*ring[first:], *ring[:first], ring[first]])
        return
    if path in seen:
        return
    seen.add(path)
    for other in sorted(waited.get(path, ())):
        _walk(other, [*above, path], waited, seen, rings)
