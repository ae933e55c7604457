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
            "state": {"count": 3}, "traceback": ["line 1"]}  # fmt: skip


def record(sender: str, receiver: str, kind: str = "Write", told: float = 0.0) -> dict[str, Any]:
    return {"told": told, "begun": told, "took": 0.001, "trace": 1, "sender": sender, "receiver": receiver,
            "type": kind, "outcome": "ok"}  # fmt: skip


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
TASK = {
    "ID": "t" * 25, "ServiceID": "s" * 25, "NodeID": "n" * 25, "Slot": 1, "DesiredState": "running",
    "Status": {"State": "pending", "Message": "pending task scheduling", "Err": "no suitable node (x)"},
}  # fmt: skip
