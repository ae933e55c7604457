"""Machines that were off for too long, and swarms that are taken from a copy of a manager's directory."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.interop.peers import Dockerd, Peer
from tests.interop.walk.certificates import expire, write_files
from tests.interop.walk.keys import rotated
from tests.interop.walk.roles import CREATE
from tests.interop.walk.walker import Walk

STATE = "info --format '{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}} {{len .Swarm.RemoteManagers}}'"


def own_root(w: Walk) -> None:
    """The swarm of m1 moves to a root whose key the walk has."""
    w.values.update(write_files(w.lab.root))
    w.quietly("m1", "swarm ca --rotate --quiet --ca-cert {cert} --ca-key {key}")
    rotated(w, "m1")
    w.tokens_of("m1")


def sleep_too_long(w: Walk, name: str) -> None:
    """A machine is off until after its certificate's end."""
    w.end(name)
    w.does(f"the certificate of {name} expires", lambda: expire(w.peers[name], w.values["key"]))
    w.again(name)


def nodes(w: Walk) -> None:
    """As m1 shows them, once it has missed those that have left."""
    ready = "node ls --format '{{.Hostname}} {{.Status}}'"
    w.wait("one w1 is ready", lambda: w.quietly("m1", ready).out.splitlines().count("w1 Ready") == 1)
    w.nodes("m1")


def expiry(w: Walk) -> None:
    """A worker, a manager of several and one that is alone come back with a certificate that expired."""
    w.swarm(3, 2)
    own_root(w)
    w("m1", f"{CREATE} --name web --constraint node.hostname==w1 host sleep 1d")
    w.peers["m1"].wait_tasks("web", 1)
    sleep_too_long(w, "w1")
    w.seen("m1", "w1", "down")
    w.pause(3.0)
    w("w1", "info")
    w("w1", "node ls")
    w("m1", "node ls")
    w("w1", "swarm join --token {worker} {m1}:2377")
    w("w1", "swarm leave")
    w("w1", "swarm leave --force")
    w("w1", "swarm join --token {worker} {m1}:2377")
    w("w1", STATE)
    nodes(w)
    sleep_too_long(w, "m3")
    w.seen("m1", "m3", "down")
    w.pause(3.0)
    w("m3", "info")
    w("m3", "node ls")
    nodes(w)
    w("m3", "swarm leave")
    w("m3", "swarm leave --force")
    w("m3", "swarm join --token {manager} {m1}:2377")
    w.wait("three are reachable", lambda: w.quietly("m1", "node ls").out.count("Reachable") == 2)
    nodes(w)
    down = "node ls --filter name=m3 --format '{{.ID}} {{.Status}}'"
    w.values["old"] = next(line.split()[0] for line in w.quietly("m1", down).out.splitlines() if "Down" in line)
    w("m1", "node demote {old}")
    w.wait("it is no member", lambda: "Unreachable" not in w.quietly("m1", "node ls").out)
    w("m1", "node rm {old}")
    nodes(w)


def alone(w: Walk) -> None:
    """The only manager was off until after its certificate's end."""
    w.swarm(1, 0)
    own_root(w)
    w("m1", "secret create s1 -", fed="one")
    sleep_too_long(w, "m1")
    w.pause(5.0)
    w("m1", "info")
    w("m1", "secret ls --format '{{.Name}}'")
    w("m1", "swarm init --force-new-cluster --advertise-addr {m1}")
    w("m1", "secret ls --format '{{.Name}}'")
    w("m1", "swarm leave")
    w("m1", STATE)


def kept(peer: Peer) -> Path:
    """The directory that Docker's manual says to copy."""
    return peer.root / "data" / ("swarm" if isinstance(peer, Dockerd) else "")


def copied(w: Walk, name: str) -> Path:
    """A copy of what a stopped manager keeps."""
    copy = w.lab.root / "copy"
    shutil.copytree(kept(w.peers[name]), copy, symlinks=True)
    return copy


def put_back(w: Walk, name: str, copy: Path) -> None:
    """A stopped daemon's directory is replaced by a copy."""
    shutil.rmtree(kept(w.peers[name]))
    shutil.copytree(copy, kept(w.peers[name]), symlinks=True)


def backup(w: Walk) -> None:
    """A manager's directory is copied while it is stopped, and put back there and on another machine."""
    w.swarm(1, 1)
    w.start("m2")
    w("m1", f"{CREATE} --name web --constraint node.hostname==w1 host sleep 1d")
    w.peers["m1"].wait_tasks("web", 1)
    w("m1", "secret create s1 -", fed="one")
    w.end("m1")
    copy = copied(w, "m1")
    w.again("m1")
    w.settle("m1")
    w("m1", "secret create s2 -", fed="two")
    w("m1", "service rm web")
    w.end("m1")
    w.does("the copy is put back", lambda: put_back(w, "m1", copy))
    w.again("m1")
    w.settle("m1")
    w("m1", "secret ls --format '{{.Name}}'")
    w.peers["m1"].wait_tasks("web", 1)
    w("m1", "service ls --format '{{.Name}} {{.Replicas}}'")
    w("m1", "swarm init --force-new-cluster")
    w.settle("m1")
    w("m1", "node ls")
    w.kill("m1")
    w.end("m2")
    w.does("the copy is put on another machine", lambda: put_back(w, "m2", copy))
    w.again("m2")
    w.pause(5.0)
    w("m2", STATE)
    w("m2", "swarm init --force-new-cluster --advertise-addr {m2}")
    w("m2", "info")
    w("m2", "secret ls --format '{{.Name}}'")
    w("m2", "swarm join-token worker")
    w.tokens_of("m2")
    w("w1", "swarm leave --force")
    w("w1", "swarm join --token {worker} {m2}:2377")
    w.wait("it is ready", lambda: "Ready" in w.quietly("m2", "node ls --filter role=worker --format '{{.Status}}'").out)
    w.nodes("m2")


def locked_backup(w: Walk) -> None:
    """The same with managers that lock themselves."""
    w.swarm(1, 0)
    w.quietly("m1", "swarm update --autolock=true")
    key = w.quietly("m1", "swarm unlock-key -q").out
    w("m1", "secret create s1 -", fed="one")
    w.pause(2.0)
    w.end("m1")
    copy = copied(w, "m1")
    w.again("m1")
    w.wait("it is locked", lambda: w.state("m1") == "locked")
    w("m1", "swarm unlock", fed=key)
    w.settle("m1")
    w.quietly("m1", "swarm unlock-key --rotate")
    newer = w.quietly("m1", "swarm unlock-key -q").out
    w.end("m1")
    w.does("the copy is put back", lambda: put_back(w, "m1", copy))
    w.again("m1")
    w.wait("it is locked", lambda: w.state("m1") == "locked")
    w("m1", "swarm init --force-new-cluster")
    w("m1", "swarm unlock", fed=newer)
    w("m1", "swarm unlock", fed=key)
    w.settle("m1")
    w("m1", "swarm init --force-new-cluster")
    w("m1", "secret ls --format '{{.Name}}'")
    w("m1", "node ls")


CHAPTERS = {"expiry": expiry, "alone": alone, "backup": backup, "locked_backup": locked_backup}
