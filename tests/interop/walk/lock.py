"""Managers that lock themselves: keys, locked managers, and what they let nobody do."""

from __future__ import annotations

from tests.interop.test_keys import role_in_certificate
from tests.interop.walk.walker import Walk

KEY = "swarm unlock-key -q"


def key_at(w: Walk, at: str) -> str:
    """The unlock key as a manager shows it."""
    return w.quietly(at, KEY).out.strip()


def known_everywhere(w: Walk, *managers: str) -> str:
    """Until the managers show the same key; that."""
    w.wait("all know the key", lambda: len({key_at(w, name) for name in managers}) == 1)
    return key_at(w, managers[0])


def lock(w: Walk) -> None:
    """The lock is set, its key changed; a manager that starts is locked until it is given the key."""
    w.swarm(3, 1)
    w("m1", "swarm unlock-key")
    w("m1", "swarm unlock-key --rotate")
    w("m1", "swarm unlock", fed="SWMKEY-1-nonsense\n")
    w("w1", "swarm unlock", fed="SWMKEY-1-nonsense\n")
    w("m2", "swarm update --autolock=true")
    first = known_everywhere(w, "m1", "m2", "m3")
    w("m2", "swarm update --autolock=true")
    w("m3", "swarm unlock-key")
    w("m1", KEY)
    w("m3", "info")
    w("m1", "swarm unlock", fed=f"{first}\n")
    w.restart("m3")
    locked(w)
    w("m3", "swarm unlock", fed=f"{first}\n")
    w.settle("m1", "m2", "m3")
    w("m3", "info")
    w("m3", "node ls")
    rotation(w, first)
    w("m2", "swarm update --autolock=false")
    w.wait("nobody has a key", lambda: not any(key_at(w, name) for name in ("m1", "m2", "m3")))
    w("m1", "swarm unlock-key")
    w("m1", "swarm unlock-key --rotate")
    w.pause(2.0)
    w.restart("m2")
    w.settle("m1", "m2", "m3")
    w("m2", "node ls")


def locked(w: Walk) -> None:
    """What m3 answers while it is locked."""
    w.wait("it is locked", lambda: w.state("m3") == "locked")
    for command in (
        "info", "node ls", "service ls", "swarm ca", "swarm join-token worker", "swarm unlock-key",
        "swarm update --autolock=false", "network ls --filter driver=overlay", "secret ls", "swarm leave", "swarm init",
        "swarm init --force-new-cluster", "swarm join --token {worker} {m1}:2377",
    ):  # fmt: skip
        w("m3", command)
    w("m3", "swarm unlock", fed="\n")
    w("m3", "swarm unlock", fed="nonsense\n")
    w("m3", "swarm unlock", fed="SWMKEY-1-nonsense\n")
    w("m3", "swarm unlock", fed="SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n")
    w("m3", "info --format '{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}} {{.Swarm.Error}}'")
    w.seen("m1", "m3", "down")
    w("m1", "node ls")


def rotation(w: Walk, first: str) -> None:
    """The key is changed while m3 is there, and again while it is off."""
    w("m1", "swarm unlock-key --rotate")
    second = known_everywhere(w, "m1", "m2", "m3")
    w.does("it is another one", lambda: str(second != first))
    w.pause(2.0)
    w.end("m3")
    w("m2", "swarm unlock-key --rotate -q")
    third = known_everywhere(w, "m1", "m2")
    w.again("m3")
    w.wait("it is locked", lambda: w.state("m3") == "locked")
    w("m3", "swarm unlock", fed=f"{first}\n")
    w("m3", "swarm unlock", fed=f"{third}\n")
    w("m3", "swarm unlock", fed=f"{second}\n")
    w.settle("m1", "m2", "m3")
    w.does("it knows the newest", lambda: str(known_everywhere(w, "m1", "m2", "m3") == third))
    w.pause(2.0)
    w.restart("m3")
    w.wait("it is locked", lambda: w.state("m3") == "locked")
    w("m3", "swarm unlock", fed=f"{second}\n")
    w("m3", "swarm unlock", fed=f"{third}\n")
    w.settle("m1", "m2", "m3")


def locks(w: Walk) -> None:
    """A swarm that is locked from its beginning; who joins, is promoted, leaves while it is locked."""
    w.start("m1", "m2", "w1")
    w("m1", "swarm init --autolock --advertise-addr {m1}")
    w.tokens_of("m1")
    w("m2", "swarm join --token {manager} {m1}:2377")
    w("w1", "swarm join --token {worker} {m1}:2377")
    w.settle("m1", "m2")
    key = known_everywhere(w, "m1", "m2")
    w("m2", "node promote w1")
    w.wait("w1 manages", lambda: w.manages("w1"))
    w.settle("m1", "m2", "w1")
    w.pause(2.0)
    for name in ("m2", "w1"):
        w.restart(name)
        w.wait("it is locked", lambda name=name: w.state(name) == "locked")
        w(name, "swarm unlock", fed=f"{key}\n")
        w.settle("m1", "m2", "w1")
    w("m1", "node demote w1")
    w.wait("w1 works", lambda: role_in_certificate(w.peers["w1"]) == "swarm-worker")
    w.settle("m1", "m2")
    w.pause(2.0)
    w.restart("w1")
    w.wait("w1 is back", lambda: w.state("w1") in ("active", "locked"))
    w("w1", "info")
    w.restart("m2")
    w.wait("it is locked", lambda: w.state("m2") == "locked")
    w("m2", "swarm leave --force")
    w("m2", "info")
    w("m2", "swarm unlock", fed=f"{key}\n")


CHAPTERS = {"lock": lock, "locks": locks}
