"""Answers as a node gives them, small enough to check by eye."""

from __future__ import annotations

from typing import Any


def row(path: str, **fields: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "state": "running", "depth": 0, "highest": 0, "oldest_s": 0.0, "handled": 0, "failed": 0, "busy_s": 0.0,
        "restarts": 0, "last_error": "", "handling": "", "handling_s": 0.0,
    }  # fmt: skip
    return {"path": path, "actor": "A", **empty, **fields}


def tree(clock: float, *rows: dict[str, Any]) -> dict[str, Any]:
    stage = {"name": "n", "clock": clock, "actors": len(rows), "dead_letters": 0, "late_answers": 0,
             "refused_full": 0, "crashes": 0}  # fmt: skip
    return {"stage": stage, "actors": list(rows)}


def figures(kind: str, count: int = 1, busy: float = 0.001) -> dict[str, Any]:
    names = ("wait_p50_s", "wait_p99_s", "wait_max_s", "busy_p50_s", "busy_p99_s", "busy_max_s")
    return {"type": kind, "count": count, "failed": 0, "busy_s": busy, **dict.fromkeys(names, 0.0001)}


def crash(path: str, error: str = "RuntimeError: x") -> dict[str, Any]:
    return {"path": path, "actor": "A", "at": 1000.0, "error": error, "message": "Tick", "before": ["Write"],
            "state": {"count": 3}, "traceback": ["line 1"], "in_all": 2}  # fmt: skip


def record(sender: str, receiver: str, kind: str = "Write", told: float = 0.0) -> dict[str, Any]:
    return {"told": told, "begun": told, "took": 0.001, "trace": 1, "sender": sender, "receiver": receiver,
            "type": kind, "outcome": "ok"}  # fmt: skip


RAFT: dict[str, Any] = {
    "clock": 10.0,
    "raft": {
        "raft id": "1", "role": "leader", "term": 7, "leading": True, "last": 20, "committed": 20, "applied": 19,
        "appends in flight": 0, "waiting": 0, "tick": 0.1, "members": 2, "messages refused": 0, "last refusal": "",
        "leader": "1", "pace": "fast", "snapshot": 0,
        "peers": [
            {"raft id": "1", "node": "one", "addr": "10.0.0.1:2377", "leader": True, "reached": True, "match": 20,
             "lag": 0, "state": "replicate", "appends in flight": 0, "pending snapshot": 0},
            {"raft id": "2", "node": "two", "addr": "10.0.0.2:2377", "leader": False, "reached": False, "match": 5,
             "lag": 15, "state": "snapshot", "appends in flight": 0, "pending snapshot": 18},
        ],
    },
    "store": {"version": 120, "leading": True, "in flight": 1, "watchers": 3, "objects": {"nodes": 2, "tasks": 4}},
    "dispatcher": {"nodes": 2, "sessions": 1, "assignments waiting": 4},
    "certificate": {"node": "one", "role": "swarm-manager", "expires": 1e9, "days left": 89.5, "root days left": 7300.0,
                    "asking": False, "failed renewals": 0, "trouble": ""},
}  # fmt: skip
WAITING: dict[str, Any] = {
    "count": 3,
    "tasks": [
        {"id": "t1", "name": "web.1", "service": "web", "state": "pending", "node": "", "since_s": 30.0,
         "who": "scheduler", "why": "no suitable node\n(x)"},
        {"id": "t2", "name": "web.2", "service": "web", "state": "preparing", "node": "one", "since_s": 4.0,
         "who": "agent", "why": "node one is at it"},
    ],
    "reasons": [{"who": "scheduler", "why": "no suitable node (x)", "count": 2}],
}  # fmt: skip
NODE = {
    "ID": "n" * 25, "Description": {"Hostname": "one"}, "Status": {"State": "ready", "Addr": "10.0.0.1"},
    "Spec": {"Availability": "active"}, "ManagerStatus": {"Leader": True},
}  # fmt: skip
SERVICE = {
    "ID": "s" * 25,
    "Spec": {"Name": "web", "Mode": {"Replicated": {"Replicas": 2}},
             "TaskTemplate": {"ContainerSpec": {"Image": "host:latest"}}},
    "ServiceStatus": {"RunningTasks": 1, "DesiredTasks": 2},
}  # fmt: skip
TASKS: dict[str, Any] = {
    "count": 10_000, "found": 10_000,
    "tasks": [{"id": "t" * 25, "name": "web.1", "state": "pending", "desired": "running", "node": "one",
               "why": "no suitable node (x)"}],
}  # fmt: skip
