"""Tokens and roots: what is printed, what is refused, and how a swarm moves to another root."""

from __future__ import annotations

from tests.interop.walk.certificates import PEOPLES_FILES, write_files
from tests.interop.walk.walker import Walk

TLS = "{{.Hostname}} {{.Status}} {{.TLSStatus}}"
ROTATING = "info --format '{{.Swarm.Cluster.RootRotationInProgress}}'"
TOKEN = "swarm join-token -q worker"
CA_CONFIG = "info --format '{{json .Swarm.Cluster.Spec.CAConfig}}'"


def rotated(w: Walk, at: str) -> None:
    """Until no node has to move any more, as this manager sees it."""
    w.wait("the root is rotated", lambda: w.quietly(at, ROTATING).out.strip() == "false")
    w.wait("all have moved", lambda: set(w.quietly(at, "node ls --format '{{.TLSStatus}}'").out.split()) == {"Ready"})


def one_root(w: Walk) -> str:
    """Whether every manager prints the same root, and every node trusts it."""
    roots = {w.quietly(name, "swarm ca").out.strip() for name in w.peers if w.manages(name)}
    trusted = {
        node["Description"]["TLSInfo"]["TrustRoot"].strip()
        for name in w.peers
        if w.manages(name)
        for node in w.peers[name].get("/nodes")
    }
    return str(len(roots) == 1 and roots == trusted)


def tokens(w: Walk) -> None:
    """Tokens are shown and changed; old ones are worth nothing."""
    w.swarm(2, 0)
    w.start("w1", "w2")
    w("m1", "swarm join-token")
    w("m1", "swarm join-token bogus")
    w("m1", "swarm join-token worker manager")
    w("m1", "swarm join-token manager")
    w("m2", "swarm join-token worker")
    w("m2", "swarm join-token -q worker")
    w("m2", "swarm join-token --rotate worker")
    w("m1", "swarm join-token --rotate -q manager")
    w("w1", "swarm join --token {worker} {m1}:2377")
    w("w1", "swarm join --token {manager} {m2}:2377")
    w("w1", "info")
    w.tokens_of("m1")
    w("w1", "swarm join --token {worker} {m2}:2377")
    w("w2", "swarm join --token {manager} {m2}:2377")
    w.settle("m1", "m2", "w2")
    w("m2", "node ls")
    w("w1", "swarm join-token worker")
    w("w1", "swarm join-token --rotate worker")


def keys(w: Walk) -> None:
    """The root is shown and changed: by a new one, by people's own, while a node is away; bad ones are refused."""
    w.swarm(2, 1)
    w.values.update(write_files(w.lab.root))
    w("m1", "swarm ca")
    w.does("all have one root", lambda: one_root(w))
    refused_roots(w)
    w("m2", "swarm update --cert-expiry 59m")
    w("m2", "swarm update --cert-expiry 48h")
    w("m1", CA_CONFIG)
    w("m1", "swarm update --external-ca protocol=bogus,url=https://{m1}:1")
    w("m1", "swarm update --external-ca protocol=cfssl")
    w("m1", "swarm update --external-ca protocol=cfssl,url=https://{m1}:1/sign")
    w("m1", CA_CONFIG)
    w("m2", "swarm ca --rotate")
    rotated(w, "m1")
    w.does("all have one root", lambda: one_root(w))
    w("m1", "swarm ca --rotate --quiet")
    rotated(w, "m1")
    w("m1", "swarm ca --rotate --ca-cert {cert} --ca-key {key}")
    rotated(w, "m1")
    w.does("the root is the given one", lambda: str(w.quietly("m2", "swarm ca").out.strip() == w.values["pem"]))
    w("m2", "node ls")
    w("m2", CA_CONFIG)
    before = w.quietly("m1", TOKEN).out
    w.end("w1")
    w.seen("m1", "w1", "down")
    w("m1", "swarm ca --rotate --detach --cert-expiry 72h")
    w.wait(
        "the managers have moved", lambda: w.quietly("m1", f"node ls --format '{TLS}'").out.count("Ready Ready") == 2
    )
    w("m1", f"node ls --format '{TLS}'")
    w("m2", "info")
    w.does("the token is still the old one", lambda: str(w.quietly("m2", TOKEN).out == before))
    w("m1", CA_CONFIG)
    w.again("w1")
    rotated(w, "m2")
    w.does("all have one root", lambda: one_root(w))
    w.does("the token is another one", lambda: str(w.quietly("m2", TOKEN).out != before))
    w("m2", f"node ls --format '{TLS}'")
    w("m2", "info")


def refused_roots(w: Walk) -> None:
    """What is no root that a swarm could move to."""
    for command in (
        "swarm ca --cert-expiry 2h", "swarm ca --ca-cert {cert} --ca-key {key}", "swarm ca --quiet --detach",
        "swarm ca --rotate --cert-expiry 59m", "swarm ca --rotate --ca-cert {cert}", "swarm ca --rotate --ca-key {key}",
        "swarm ca --rotate --ca-cert nosuch.pem --ca-key {key}",
    ):  # fmt: skip
        w("m1", command)
    for cert, key in PEOPLES_FILES:
        w("m1", f"swarm ca --rotate --ca-cert {{{cert}}} --ca-key {{{key}}}")
    w("m1", "swarm ca --rotate --ca-cert {cert} --external-ca protocol=cfssl,url=https://{m1}:1/sign")
    w(
        "m1",
        "swarm ca --rotate --detach --ca-cert {cert} --ca-key {key} --external-ca protocol=cfssl,url=http://{m1}:1/sign",
    )
    w("m1", ROTATING)


CHAPTERS = {"tokens": tokens, "keys": keys}
