"""Removals, lost leaders, a lost quorum and what is done about it."""

from __future__ import annotations

from tests.interop.walk.membership import MANAGERS
from tests.interop.walk.roles import CREATE, demoted
from tests.interop.walk.walker import Walk


def removal(w: Walk) -> None:
    """Nodes are removed, with and without force; what a removed node says; new tokens; leaving."""
    w.swarm()
    w("m2", "node rm w1")
    w("m2", "node rm m3")
    w("m2", "node rm --force m3")
    w("m2", "node rm m2")
    w("m2", "node rm nosuch")
    w("m2", "node rm --force w1")
    w.pause(8.0)
    w("w1", "info")
    w("w1", "node ls")
    w("w1", "swarm join --token {worker} {m1}:2377")
    w("m1", "node ls")
    w("w1", "swarm leave")
    w("w1", "info")
    w("m3", "swarm join-token --rotate worker")
    w.wait("all know", lambda: len({w.quietly(each, "swarm join-token -q worker").out for each in MANAGERS}) == 1)
    w("w1", "swarm join --token {worker} {m2}:2377")
    w.tokens_of("m2")
    w("w1", "swarm join --token {worker} {m2}:2377")
    w.settle(*MANAGERS)
    w("m2", "swarm join-token --rotate -q manager")
    w("w2", "swarm leave")
    w.seen("m1", "w2", "down")
    w("m3", "node ls")
    w("m3", "node promote w2")
    w("m3", "node demote w2")
    w("m3", "node rm w2")
    w("m3", "node ls")
    w("w2", "swarm leave")
    w("w2", "swarm leave --force")
    w("m3", "swarm leave")
    w("m3", "swarm leave --force")
    w.wait("m3 is missed", lambda: "Unreachable" in w.quietly("m1", "node ls").out)
    w.seen("m1", "m3", "down")
    w("m1", "node ls")
    w("m1", "node rm m3")
    w("m1", "node rm --force m3")
    w("m1", "swarm leave")
    w("m1", "node demote m2")
    w("m2", "node demote m3")
    w.wait("m3 is out", lambda: "ManagerStatus" not in w.peers["m1"].node(w.peers["m3"]))
    w("m2", "node rm m3")
    w("m1", "node ls")
    w("m2", "swarm leave")
    w("m1", "node demote m2")
    demoted(w, "m2", "m1")
    w("m2", "swarm leave")
    w("m1", "swarm leave")
    w("m1", "swarm leave --force")
    w("m1", "info")
    w("w1", "swarm leave")
    w("w1", "info")


def leaders(w: Walk) -> None:
    """The leader is killed, hung and stopped; who is left answers, and sees who is missing."""
    w.swarm(3, 0)
    for number, (strike, mend) in enumerate(((w.kill, w.again), (w.hang, w.go_on), (w.end, w.again))):
        leader = w.settle(*MANAGERS)
        others = [name for name in MANAGERS if name != leader]
        w.aliases = {leader: "old"}
        strike(leader)
        before = dict(w.aliases)
        w.does("a write succeeds", lambda others=others, number=number: w.wait(
            "a write", lambda: w.quietly(others[0], f"network create --driver overlay n{number}").code == 0
            or f"n{number}" in w.quietly(others[0], "network ls").out))  # fmt: skip
        w.wait("it is missed", lambda others=others, leader=leader: all(
            f"{leader}" in "".join(line for line in w.quietly(at, "node ls").out.splitlines() if "Unreachable" in line)
            for at in others))  # fmt: skip
        w.seen(others[0], leader, "down")
        new = w.settle(*others, without=(leader,))
        w.aliases = {**before, new: "new", next(name for name in others if name != new): "other"}
        for name in (new, next(name for name in others if name != new)):
            w(name, "node ls --format '{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}'")
            w(name, "node inspect --format '{{.Status.State}} {{json .ManagerStatus}}' " + leader)
        mend(leader)
        w.settle(*MANAGERS)
        w(leader, "node ls --format '{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}'")
        w(leader, "network ls --filter driver=overlay --format '{{.Name}}'")
        w.aliases = {}


def quorum(w: Walk) -> None:
    """Two of three managers are lost: what each command answers, and a new cluster is made by force."""
    w.swarm(3, 2)
    w("m1", f"{CREATE} --name web --replicas 2 --constraint node.role==worker host sh -c 'echo hello; sleep 1d'")
    w.peers["m1"].wait_tasks("web", 2)
    w("m1", "secret create s1 -", fed="one")
    w.kill("m2")
    w.wait("it is missed", lambda: "Unreachable" in w.quietly("m1", "node ls").out)
    w.seen("m1", "m2", "down")
    w("m1", "node ls")
    w("m1", "node demote m3")
    w("m1", "node demote m1")
    w("m3", "swarm leave")
    w.kill("m3")
    w.wait("nobody leads", lambda: "does not have a leader" in w.quietly("m1", "secret create s2 -", "x").err)
    for command in (
        "node ls", "node inspect self --format '{{.Status.State}}'", "node inspect m2 --format '{{.Status.State}}'",
        "node ps --format '{{.DesiredState}}' w1", "service ls",
        "service ps --format '{{.Image}} {{.DesiredState}}' web", "service inspect web --format '{{.Spec.Name}}'",
        "service logs --raw web",
        f"{CREATE} --name late host true", "service scale --detach web=3", "service rm web", "secret ls", "config ls",
        "secret rm s1", "network ls --filter driver=overlay", "network create --driver overlay n1", "stack ls",
        "swarm join-token worker", "swarm join-token --rotate worker", "swarm update --task-history-limit 3",
        "swarm ca", "swarm ca --rotate", "swarm unlock-key", "node update --label-add a=b w1", "node promote w1",
        "node demote m2", "node rm --force w1", "node rm m2", "swarm leave", "swarm init", "swarm unlock", "info",
    ):  # fmt: skip
        w("m1", command)
    w("w2", "info")
    w("w2", "swarm leave")
    w("w2", "swarm join --token {worker} {m1}:2377")
    w("w2", "info")
    w("w1", "swarm init --force-new-cluster")
    w("m1", "swarm init --force-new-cluster --advertise-addr {m1}")
    w.wait("the workers are back", lambda: len(w.peers["m1"].tasks("web")) == 2)
    w("m1", "node ls")
    w("m1", "info")
    w("m1", "service ls --format '{{.Name}} {{.Replicas}}'")
    w("m1", "secret ls --format '{{.Name}}'")
    w("m1", "secret create s3 -", fed="x")
    w("m1", "swarm join-token -q worker")


CHAPTERS = {"removal": removal, "leaders": leaders, "quorum": quorum}
