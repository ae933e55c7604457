"""Services, tasks and nodes as the Engine API shows them."""

from __future__ import annotations

from typing import Any


def service(name: str = "web", mode: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A service; ``more`` replaces parts of its spec."""
    spec = {
        "Name": name,
        "Labels": {},
        "TaskTemplate": {"ContainerSpec": {"Image": "host"}, "Placement": {}},
        "Mode": mode if mode is not None else {"Replicated": {"Replicas": 3}},
        **more,
    }
    return {"ID": f"id-of-{name}", "Version": {"Index": 7}, "Spec": spec}


def task(
    id: str, state: str = "running", desired: str = "running", node: str = "n1", slot: int = 1, **more: Any
) -> dict[str, Any]:
    """A task of ``web``."""
    base = {"ID": id, "ServiceID": "id-of-web", "NodeID": node, "Slot": slot, "DesiredState": desired}
    return {**base, "Status": {"State": state, "Timestamp": f"2026-01-01T00:00:{len(id):02}Z"}, "Spec": {}, **more}


def node(id: str, state: str = "ready", availability: str = "active") -> dict[str, Any]:
    """A node."""
    return {
        "ID": id,
        "Version": {"Index": 3},
        "Spec": {"Role": "worker", "Availability": availability, "Labels": {}},
        "Description": {"Hostname": f"host-{id}"},
        "Status": {"State": state},
    }
