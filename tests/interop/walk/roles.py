"""Promotions and demotions."""

from __future__ import annotations

from tests.interop.walk.walker import Walk

CREATE = "service create --detach --no-resolve-image --stop-grace-period 1s"


def promoted(w: Walk, name: str, *managers: str) -> None:
    w.wait(f"{name} manages", lambda: w.manages(name))
    w.settle(*managers, name)


def demoted(w: Walk, name: str, *managers: str) -> None:
    """Its manager may take a moment to end, and commands are refused in other words until it has."""
    w.wait(f"{name} works", lambda: "Worker nodes" in w.quietly(name, "node ls").err)
    w.settle(*managers)


def roles(w: Walk) -> None:
    """Promotions and demotions, also of the leader and of the last manager; tasks run on."""
    w.swarm(2, 2)
    w("m1", f"{CREATE} --name web --constraint node.hostname==w1 host sleep 1d")
    w.peers["m1"].wait_tasks("web", 1)
    task = w.peers["m1"].tasks("web")[0]["ID"]
    w("m2", "node promote w1")
    promoted(w, "w1", "m1", "m2")
    w.at_each("node ls", "m1", "m2", "w1")
    w("w1", "info")
    w("w1", "node promote w1 m1 nosuch")
    w("w1", "node promote w2")
    promoted(w, "w2", "m1", "m2", "w1")
    w("w1", "node demote nosuch w1")
    w("w1", "node demote w1")
    demoted(w, "w1", "m1", "m2", "w2")
    w("w1", "node ls")
    w("w1", "info")
    w("m2", "node demote w1")
    w("w2", "node update --role worker w2")
    demoted(w, "w2", "m1", "m2")
    w("m2", "node demote m1")
    demoted(w, "m1", "m2")
    w("m2", "node ls")
    w("m1", "node ls")
    w("m2", "node demote m2")
    w("m2", "node update --role worker --availability drain m2")
    w("m2", "node ls")
    w("m2", "node promote m1")
    promoted(w, "m1", "m2")
    w("m2", "node demote m2")
    demoted(w, "m2", "m1")
    w("m1", "node ls")
    w.does("the task is still the first one", lambda: str(w.peers["m1"].tasks("web")[0]["ID"] == task))


CHAPTERS = {"roles": roles}
