"""Services, stacks, events and logs in a swarm of several machines: written at one manager, read at another."""

from __future__ import annotations

import json
import time

from tests.interop.walk.walker import Walk

CREATE = "service create --detach --no-resolve-image --stop-grace-period 1s"
UPDATE = "service update --detach --no-resolve-image"
SPECS = "{{json .Spec.TaskTemplate.ContainerSpec}}"
SECTIONS = {
    "container": "{{json .Spec.TaskTemplate.ContainerSpec}}",
    "resources": "{{json .Spec.TaskTemplate.Resources}}",
    "placement": "{{json .Spec.TaskTemplate.Placement}}",
    "rest": "{{json .Spec.Mode}} {{json .Spec.UpdateConfig}} {{json .Spec.RollbackConfig}} {{json .Spec.EndpointSpec}} "
    "{{json .Spec.TaskTemplate.LogDriver}} {{json .Spec.TaskTemplate.RestartPolicy}}",
    "state": "{{json .UpdateStatus}} {{.PreviousSpec.Labels}}",
}
CHANGES = (
    ("container", "--cap-add NET_ADMIN --cap-drop ALL"),
    ("container", "--cap-add CAP_NET_ADMIN --cap-drop NET_RAW"),
    ("container", "--cap-add ALL --cap-drop NET_ADMIN"),
    ("container", "--cap-add bogus"),
    ("container", "--sysctl-add net.core.somaxconn=1024 --sysctl-add kernel.msgmax=1"),
    ("container", "--sysctl-rm kernel.msgmax --sysctl-rm nosuch"),
    ("container", "--ulimit-add nofile=10:20 --ulimit-add nproc=5"),
    ("container", "--ulimit-add nofile=30 --ulimit-rm nproc"),
    ("container", "--ulimit-add bogus=1"),
    ("container", "--ulimit-add nofile=20:10"),
    ("container", "--dns-add 8.8.8.8 --dns-search-add example.com --dns-option-add ndots:2"),
    ("container", "--dns-add bogus"),
    ("container", "--dns-rm 8.8.8.8 --dns-search-rm example.com --dns-option-rm ndots:2"),
    ("container", "--host-add a:10.0.0.1 --host-add b:::1"),
    ("container", "--host-add bogus"),
    ("container", "--host-rm a:10.0.0.1 --host-rm b"),
    ("container", "--group-add wheel --group-add 7"),
    ("container", "--group-rm wheel"),
    ("container", "--container-label-add a=1 --container-label-add b="),
    ("container", "--container-label-rm a"),
    ("container", "--env-add A=1 --env-add A=2"),
    ("container", "--env-rm A"),
    (
        "container",
        "--health-cmd true --health-interval 5s --health-retries 2 --health-timeout 3s --health-start-period 1s",
    ),
    ("container", "--no-healthcheck"),
    ("container", "--no-healthcheck --health-cmd true"),
    ("container", "--health-cmd false"),
    ("container", "--health-retries 4"),
    ("container", "--init --tty --read-only --workdir /tmp --user 1:2 --hostname h.{{.Task.Slot}}"),
    ("container", "--hostname h --user 1 --stop-signal SIGINT --stop-grace-period 2s"),
    ("container", "--init=false --tty=false --read-only=false --hostname= --user= --workdir="),
    ("container", "--stop-grace-period -1s"),
    ("container", "--stop-signal bogus"),
    ("container", "--entrypoint /bin/sh --args '-c true'"),
    ("container", "--entrypoint= --args 'sleep 1d'"),
    (
        "container",
        "--mount-add type=bind,source=/tmp,target=/a,readonly --mount-add type=tmpfs,target=/t,tmpfs-size=1m",
    ),
    ("container", "--mount-add type=volume,source=v,target=/a"),
    ("container", "--mount-rm /a --mount-rm /nosuch"),
    ("container", "--mount-add type=bind,source=tmp,target=/a"),
    ("container", "--mount-add type=tmpfs,source=x,target=/a"),
    ("container", "--mount-add type=volume,source=v,target=a"),
    ("container", "--image busybox:1 --isolation default"),
    ("container", "--image BAD"),
    ("container", "--image busybox"),
    ("resources", "--limit-cpu 1.5 --limit-memory 1g --limit-pids 10 --reserve-cpu 0.25 --reserve-memory 64m"),
    ("resources", "--generic-resource-add gpu=2"),
    ("resources", "--generic-resource-add gpu=4"),
    ("resources", "--generic-resource-rm gpu"),
    ("resources", "--generic-resource-rm nosuch"),
    ("resources", "--limit-cpu 0 --limit-memory 0 --limit-pids 0 --reserve-cpu 0 --reserve-memory 0"),
    ("resources", "--limit-cpu bogus"),
    ("resources", "--limit-memory 2m"),
    ("resources", "--limit-pids -1"),
    ("placement", "--constraint-add node.role==worker --constraint-add node.labels.a!=b"),
    ("placement", "--constraint-rm node.labels.a!=b --constraint-add 'node.labels.c == d'"),
    ("placement", "--constraint-add bogus"),
    ("placement", "--placement-pref-add spread=node.labels.dc --placement-pref-add spread=node.labels.rack"),
    ("placement", "--placement-pref-rm spread=node.labels.dc"),
    ("placement", "--placement-pref-add binpack=node.labels.dc"),
    ("placement", "--placement-pref-add bogus"),
    ("placement", "--replicas-max-per-node 2"),
    ("placement", "--replicas-max-per-node 0"),
    ("placement", "--replicas-max-per-node -1"),
    ("rest", "--update-parallelism 3 --update-delay 2s --update-monitor 4s --update-failure-action rollback"),
    ("rest", "--update-max-failure-ratio 0.2 --update-order start-first"),
    ("rest", "--update-max-failure-ratio 1.2"),
    ("rest", "--update-parallelism -1"),
    ("rest", "--update-delay -1s"),
    ("rest", "--rollback-parallelism 0 --rollback-delay 1s --rollback-monitor 1s --rollback-failure-action continue"),
    ("rest", "--rollback-max-failure-ratio 0.5 --rollback-order start-first"),
    ("rest", "--rollback-failure-action rollback"),
    ("rest", "--restart-condition any --restart-delay 1s --restart-max-attempts 2 --restart-window 3s"),
    ("rest", "--restart-delay -1s"),
    ("rest", "--restart-max-attempts 0 --restart-condition none"),
    ("rest", "--log-driver json-file --log-opt max-size=1m"),
    ("rest", "--log-driver bogus"),
    ("rest", "--publish-add 8080:80 --publish-add published=53,target=53,protocol=udp,mode=host"),
    ("rest", "--publish-add 8080:81"),
    ("rest", "--publish-rm 80 --publish-rm 53/udp"),
    ("rest", "--publish-rm 81"),
    ("rest", "--endpoint-mode dnsrr"),
    ("rest", "--endpoint-mode vip"),
    ("rest", "--publish-add bogus"),
    ("rest", "--publish-add published=1,target=2,mode=bogus"),
    ("rest", "--max-concurrent 2"),
    ("rest", "--replicas 0"),
    ("state", "--label-add a=1 --label-add b=2"),
    ("state", "--label-add a=3 --label-rm b"),
    ("state", "--rollback"),
    ("state", "--rollback --label-add a=1"),
    ("state", "--force"),
    ("state", ""),
)


def updates(w: Walk) -> None:
    """Each flag of ``service update``, at one manager; what came of it, at the other."""
    w.swarm(2, 0)
    w(
        "m1", f"{CREATE} --name web --replicas 0 busybox sleep 1d"
    )  # a warning for each change of what processes cannot have
    for number, (section, flags) in enumerate(CHANGES):
        there, here = ("m1", "m2") if number % 2 else ("m2", "m1")
        changed = w(there, f"{UPDATE} {flags} web")
        if changed.code == 0:
            w(here, f"service inspect web --format '{SECTIONS[section]}'")
    w("m2", "service inspect web --pretty")
    w("m1", "service rollback --detach web")
    w("m2", "service rollback --detach web")
    w("m1", "service update --detach --image busybox web nosuch")
    w("m1", "service scale --detach web=0 nosuch=1")
    w("m2", "service rm web nosuch")
    w("m1", "service ls")


def stack(config: str, secret: str, **more: object) -> str:
    """A compose file (which may be JSON) of a service that reads a config and a secret, each a file of that name."""
    web = {
        "image": "host",
        "command": ["sleep", "1d"],
        "configs": [{"source": "conf", "target": "conf"}],
        "secrets": ["key"],
        "networks": ["host"],
        "stop_grace_period": "1s",
        **more,
    }
    named = {
        "configs": {"conf": {"file": f"./{config}", "name": f"conf-{config}"}},
        "secrets": {"key": {"file": f"./{secret}", "name": f"key-{secret}"}},
    }
    networks = {"host": {"external": True, "name": "host"}}
    return json.dumps({"version": "3.8", "services": {"web": web}, "networks": networks, **named})


def stacks(w: Walk) -> None:
    """A stack is deployed and changed at any manager: its config and its secret rotate, others are refused."""
    w.swarm(2, 1)
    root = w.lab.root
    files = {
        "one.yml": stack("a", "b"),
        "two.yml": stack("c", "d", environment={"V": "2"}),
        "labels.yml": stack("c", "d", deploy={"labels": {"x": "y"}, "replicas": 2}),
        "global.yml": stack("c", "d", deploy={"mode": "global"}),
        "more.yml": json.dumps({"version": "3.8", "services": {"web": {"image": "host"}, "more": {"image": "host"}}}),
        "bad.yml": "services: [",
        "none.yml": json.dumps({"version": "3.8"}),
    }
    for name, text in {**files, "a": "1", "b": "2", "c": "3", "d": "4"}.items():
        (root / name).write_text(text, encoding="utf-8")
        w.values[name.partition(".")[0]] = str(root / name)
    deploy = "stack deploy --resolve-image never --detach --compose-file"

    def state(at: str) -> None:
        w(at, "stack ls")
        w(at, "stack services shop --format '{{.Name}} {{.Mode}} {{.Image}}'")
        w(at, "config ls --format '{{.Name}} {{.Labels}}'")
        w(at, "secret ls --format '{{.Name}} {{.Labels}}'")

    w("m1", f"{deploy} {{one}} shop")
    state("m2")
    w.peers["m2"].wait_tasks("shop_web", 1)
    w("m2", f"{deploy} {{one}} shop")
    (root / "a").write_text("another", encoding="utf-8")
    w("m1", f"{deploy} {{one}} shop")
    (root / "a").write_text("1", encoding="utf-8")
    w("m2", f"{deploy} {{two}} shop")
    w("m1", "service inspect shop_web --format '{{json .Spec.TaskTemplate.ContainerSpec.Env}}'")
    state("m1")
    w("m1", "config rm conf-c")
    w("m2", "secret rm key-d")
    w("m1", "config rm conf-a nosuch")
    w("m1", "secret rm key-b nosuch")
    w("m2", f"{deploy} {{labels}} shop")
    w("m1", "service inspect shop_web --format '{{json .Spec.Labels}} {{json .Spec.Mode}}'")
    w("m1", f"{deploy} {{global}} shop")
    w("m2", f"{deploy} {{bad}} shop")
    w("m2", f"{deploy} {{none}} shop")
    w("m2", f"{deploy} {{two}} 'bad name!'")
    w("m2", f"{deploy} {{two}} --prune shop")
    state("m1")
    w("m1", "stack ps nosuch")
    w("m1", "stack services nosuch")
    w("m1", "stack rm nosuch shop")
    w.wait("the stack is gone", lambda: not w.quietly("m2", "service ls -q").out)
    state("m2")


def several(w: Walk) -> None:
    """Several nodes at once, and every setting of the swarm."""
    w.swarm(1, 3)
    w("m1", "node promote w1 w2 w3 nosuch")
    w.wait("all manage", lambda: all(w.manages(name) for name in ("w1", "w2", "w3")))
    w.settle("m1", "w1", "w2", "w3")
    w("w1", "node promote w1 w2")
    w("w2", "node ls --format '{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}'")
    w("w3", "node demote w1 w2 nosuch m1")
    for name in ("w1", "w2"):
        w.wait(f"{name} works", lambda name=name: "Worker nodes" in w.quietly(name, "node ls").err)  # type: ignore[misc]
    w.settle("m1", "w3")
    w("w3", "node ls --format '{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}'")
    w("w3", "node update --availability drain --label-add a=1 --label-add b --role worker w1")
    w("m1", "node inspect w1 --format '{{json .Spec}}'")
    w("m1", "node update --label-rm b --label-rm nosuch w1")
    w("w3", "node inspect w1 w2 nosuch --format '{{json .Spec}}'")
    w("m1", "node update --availability bogus w1")
    w("m1", "node update nosuch")
    w("m1", "node update w1")
    w("w3", "node rm w1 w2 nosuch")
    spec = "info --format '{{json .Swarm.Cluster.Spec}}'"
    for number, flags in enumerate(
        ("--task-history-limit 0", "--task-history-limit -1", "--dispatcher-heartbeat 1s", "--dispatcher-heartbeat 0s",
         "--dispatcher-heartbeat -1s", "--cert-expiry 61m", "--cert-expiry bogus", "--snapshot-interval 7",
         "--snapshot-interval -1", "--max-snapshots 0", "--max-snapshots 3", "--autolock=bogus", "--autolock",
         "--autolock=false", "--external-ca bogus", "--external-ca protocol=cfssl,url=https://h/,x=y",
         "--external-ca protocol=cfssl,url=https://h/ --external-ca protocol=cfssl,url=https://i/", "--external-ca=")
    ):  # fmt: skip
        there, here = ("m1", "w3") if number % 2 else ("w3", "m1")
        if w(there, f"swarm update {flags}").code == 0:
            w(here, spec)
    w("w3", "swarm update --autolock=true")
    w("m1", "swarm unlock-key --quiet")
    w("m1", "swarm unlock-key --rotate --quiet")
    w.does("both have one key", lambda: str(len({w.quietly(at, "swarm unlock-key -q").out for at in ("m1", "w3")})))


def told(w: Walk) -> None:
    """What other managers tell of what is done at one, by filters; logs by their options."""
    w.swarm(2, 1)
    w.pause(2.0)
    w.values["begin"] = str(int(time.time()))
    w("m1", f"{CREATE} --name web --label a=b --constraint node.role==worker host sleep 1d")
    w.values["service"] = w.quietly("m1", "service inspect web --format {{.ID}}").out[:12]
    w.peers["m2"].wait_tasks("web", 1)
    w("m2", f"{UPDATE} --label-add c=d web")
    w("m1", "service scale --detach web=2")
    w.peers["m2"].wait_tasks("web", 2)
    w("m2", "node update --availability pause --label-add x=y w1")
    w("m1", "node update --availability active w1")
    w("m1", "secret create secret-s -", fed="1")
    w("m2", "config create config-c -", fed="1")
    w("m1", "network create --driver overlay --label e=f ov")
    w("m1", "network rm ov")
    w("m2", "secret rm secret-s")
    w("m1", "config rm config-c")
    w("m2", "service rm web")
    w.pause(1.0)
    w.values["soon"] = str(int(time.time()))
    w.values["node"] = w.quietly("m1", "node inspect w1 --format {{.ID}}").out[:12]
    events = "events --since {begin} --until {soon}"
    plain = "--format '{{.Type}} {{.Action}} {{.Scope}} {{.Actor.Attributes.name}}'"
    everything = "--format '{{.Type}} {{.Action}} {{json .Actor.Attributes}}'"
    for at in ("m1", "m2"):
        for kind in ("service", "node", "secret", "config"):
            w(at, f"{events} --filter type={kind} {everything}")
        w(at, f"{events} --filter type=network --filter scope=swarm {plain}")
    for filters in (
        "type=service --filter event=create", "type=service --filter event=update --filter event=remove",
        "scope=swarm --filter type=secret", "scope=local --filter type=secret", "type=bogus", "event=bogus",
        "service=web", "service=nosuch", "service={service}", "node={node}", "secret=secret",
        "config=config-c", "label=a=b", "label=a", "label=nosuch",
        "type=service --filter label=c=d", "type=service --filter bogus=x", "bogus",
    ):  # fmt: skip
        w("m2", f"{events} --filter {filters} {plain}")
    w("w1", f"{events} --filter type=service {plain}")
    w("m1", "events --since bogus --until {soon}")
    once = f"{CREATE} --constraint node.hostname==w1 --restart-condition none"
    w("m1", f"{once} --name says host sh -c 'echo one; echo two; sleep 1; echo three >&2'")
    w.wait("it has spoken", lambda: "three" in w.quietly("m2", "service logs --raw says").err)
    for at, options in (
        ("m1", ""), ("m2", "--no-task-ids"), ("m1", "--no-trunc"), ("m2", "--no-resolve"), ("m1", "--timestamps"),
        ("m2", "--tail 1"), ("m1", "--tail 0"), ("m2", "--tail all"), ("m1", "--tail -1"), ("m2", "--raw --tail 2"),
        ("m1", "--since 1h"), ("m2", "--since 2099-01-01T00:00:00"), ("m1", "--since bogus"), ("m2", "--details"),
        ("m1", "--raw --timestamps"),
    ):  # fmt: skip
        w(at, f"service logs {options} says")
    w.values["task"] = w.quietly("m1", "service ps -q says").out.strip()
    w("m2", "service logs {task}")
    w("m2", "service logs --raw --tail 1 {task}")
    w("w1", "service logs says")
    w("m1", "service logs")
    w("m1", f"{once} --name mute --log-driver none host true")
    w("m2", "service logs mute")


CHAPTERS = {"updates": updates, "stacks": stacks, "several": several, "told": told}
