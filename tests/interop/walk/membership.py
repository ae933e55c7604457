"""Joining, and commands at every manager."""

from __future__ import annotations

from tests.interop.walk.walker import Walk

INSPECT = (
    "{{.Description.Hostname}} {{json .Spec}} {{json .Status}} {{json .ManagerStatus}} {{json .Description.Platform}}"
)
MANAGERS = ("m1", "m2", "m3")


def joining(w: Walk) -> None:
    """Machines join at a leader and at managers that only follow; wrong tokens and places are refused."""
    w.start("m1", "m2", "m3", "w1", "w2")
    w("m1", "info")
    w("m1", "swarm init --advertise-addr {m1}")
    w.tokens_of("m1")
    w("w1", "swarm join --token {worker} {m1}:2377")
    w("m2", "swarm join --token {manager} {m1}:2377")
    w.settle("m1", "m2")
    w("m3", "swarm join --token {manager} {m2}:2377")
    w.settle("m1", "m2", "m3")
    refusals(w)
    w("w2", "swarm join --token {worker} --availability drain {m3}")
    w.settle("m1", "m2", "m3")
    w("w2", "swarm join --token {worker} {m1}:2377")
    w("m2", "swarm init")
    w.at_each("info")
    w.at_each("node ls")
    w.at_each(f"node inspect self --format '{INSPECT}'")
    for manager in MANAGERS:
        w(manager, f"node inspect m1 m2 m3 w1 w2 --format '{INSPECT}'")
        w(manager, "node inspect --pretty m2")
        w(manager, "node inspect nosuch")
        w(manager, "info --format '{{len .Swarm.RemoteManagers}} {{.Swarm.Nodes}} {{.Swarm.Managers}}'")
    w(
        "w1",
        "info --format '{{len .Swarm.RemoteManagers}} {{.Swarm.Nodes}} {{.Swarm.Managers}} {{json .Swarm.Cluster}}'",
    )


def refusals(w: Walk) -> None:
    """What w2 tries before it is let in."""
    worker = w.values["worker"]
    head, _, secret = worker.rpartition("-")
    last = {"1": "2"}.get(secret[-1], "1")
    w.values["wrong"] = f"{head}-{secret[:-1]}{last}"
    digest = head.rpartition("-")[2]
    w.values["foreign"] = f"SWMTKN-1-{'1' * len(digest)}-{secret}"
    w.values["short"] = worker[:-1]
    w("w2", "swarm join --token {wrong} {m2}:2377")
    w("w2", "swarm join --token {wrong} {m1}:2377")
    w("w2", "swarm join --token {foreign} {m1}:2377")
    w("w2", "swarm join --token {short} {m1}:2377")
    w("w2", "swarm join {m1}:2377")
    w("w2", "swarm join --token {worker} {w1}:2377")
    w.quietly("w2", "swarm leave --force")  # who tries on is told to stop
    w("w2", "swarm join --token {worker} {m1}:1")
    w.quietly("w2", "swarm leave --force")  # who tries on is told to stop
    w("w2", "swarm join --token {worker} nosuch.invalid:2377")
    w.quietly("w2", "swarm leave --force")  # who tries on is told to stop
    w("w2", "info")
    w("w2", "swarm join --token {worker} --availability bogus {m1}:2377")
    w("w2", "swarm join --token {manager} --listen-addr nosuch {m1}:2377")


def writing(w: Walk) -> None:
    """Writes at every manager, seen at every other; workers refuse."""
    w.swarm()
    create = "service create --detach --no-resolve-image --stop-grace-period 1s"
    w("m2", f"{create} --name web --replicas 2 --constraint node.hostname==w1 host sh -c 'echo hello; sleep 1d'")
    w.peers["m1"].wait_tasks("web", 2)
    w("m3", "service scale --detach web=3")
    w.peers["m1"].wait_tasks("web", 3)
    w("m2", "secret create s1 -", fed="one")
    w("m3", "config create c1 -", fed="two")
    w("m2", "network create --driver overlay n1")
    w("m3", "secret create s1 -", fed="again")
    w("m2", f"{create} --name web host true")
    w("m3", "node update --label-add zone=a w2")
    w("m2", f"{create} --name zoned --constraint node.labels.zone==a --secret s1 --config c1 host sleep 1d")
    w.peers["m2"].wait_tasks("zoned", 1)
    for manager in MANAGERS:
        w(manager, "service ls --format '{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}}'")
        w(manager, "service ps --format '{{.Name}} {{.Node}} {{.DesiredState}} {{.Error}}' web")
        w(manager, "node ps --format '{{.Name}} {{.Node}} {{.DesiredState}}' w1 w2")
        w(manager, "node ps")
        w(manager, "secret ls --format '{{.Name}}'")
        w(manager, "config ls --format '{{.Name}}'")
        w(manager, "network ls --filter name=n1 --format '{{.Name}} {{.Driver}} {{.Scope}}'")
        w.wait("logs", lambda manager=manager: w.quietly(manager, "service logs --raw web").out.count("hello") == 3)
        w(manager, "service logs --raw web")
        w(manager, "service logs nosuch")
        w(manager, "node inspect --format '{{json .Spec.Labels}}' w2")
    w("m3", "node update --availability drain w1")
    w.wait("w1 is drained", lambda: not w.peers["m2"].tasks("web", w.peers["w1"]))
    unplaced = "service ps --filter desired-state=running web"
    w.wait("its tasks wait elsewhere", lambda: w.quietly("m2", unplaced).out.count("no suitable node") == 3)
    w("m2", "node ls")
    w("m2", "service ps --format '{{.Node}} {{.DesiredState}} {{.Error}}' --filter desired-state=running web")
    w("m2", "node update --availability active w1")
    for command in (
        "node ls", "node ps", "service ls", "service ps web", "secret ls", "config ls", "swarm join-token worker",
        "swarm ca", "swarm unlock-key", "swarm update --task-history-limit 3", "node promote w1", "stack ls",
        "swarm unlock", "swarm ca --rotate", "service logs web", "node inspect self", "node inspect m1",
    ):  # fmt: skip
        w("w1", command)
    w("m3", "secret rm s1")
    w("m2", "service rm zoned")
    w("m3", "secret rm s1")
    w("m2", "service rm web nosuch")
    w("m3", "config rm c1")
    w("m2", "network rm n1")
    w.at_each("service ls", *MANAGERS)


CHAPTERS = {"joining": joining, "writing": writing}
