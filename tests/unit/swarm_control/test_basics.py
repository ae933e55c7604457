"""Identifiers, names, defaults and image references."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import Code, Refused
from runtime.swarm import defaults, identity, naming, ports
from runtime.swarm.control.image import is_image
from runtime.wire.pb import objects_pb2 as objects
from runtime.wire.pb import specs_pb2 as specs
from runtime.wire.pb import types_pb2 as types

RULE_A = re.compile(r"^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*\Z")
RULE_B = re.compile(r"^[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?\Z")
NAMES = st.text(alphabet="aZ09-_.é \n", max_size=12)  # longer ones make the published pattern backtrack for years


@given(st.binary(min_size=17, max_size=17))
def test_an_id_is_25_base36_characters_whatever_the_entropy(raw: bytes) -> None:
    made = identity.new_id(lambda size: raw[:size])
    assert identity.is_id(made)
    number = int.from_bytes(raw, "big") | 1 << 135
    assert identity.base36(number)[1:26] == made
    assert int(identity.base36(number), 36) == number


def test_the_smallest_and_the_largest_id_have_the_same_length() -> None:
    assert identity.new_id(bytes) == identity.base36(1 << 135)[1:26]
    assert len(identity.new_id(lambda size: b"\xff" * size)) == 25


def test_a_source_that_gives_too_little_is_an_error() -> None:
    with pytest.raises(AssertionError, match="asked for 17 random bytes, got 3"):
        identity.new_id(lambda size: b"abc")


def test_what_is_no_id() -> None:
    assert not identity.is_id("a" * 24)
    assert not identity.is_id("A" * 25)
    assert not identity.is_id("")


def test_a_join_token_has_the_parts_that_a_joining_node_reads() -> None:
    token = identity.new_join_token(b"cert", bytes)
    prefix, version, digest, secret = token.split("-")
    assert (prefix, version, len(digest), secret) == ("SWMTKN", "1", 50, "0" * 25)
    assert identity.new_join_token(b"other", bytes).split("-")[2] != digest
    assert identity.new_join_token(b"cert", bytes, fips=True).startswith(f"SWMTKN-2-1-{digest}-")
    assert len(identity.new_join_token(b"cert", lambda size: b"\xff" * size).split("-")[3]) == 25


def accepted(name: str, check: Callable[[str], None]) -> bool:
    """Whether a check lets a name pass; it may refuse in one way only."""
    try:
        check(name)
    except Refused as refused:
        return refused.code is not Code.INVALID_ARGUMENT
    return True


@given(NAMES)
def test_rule_a_is_the_published_pattern(name: str) -> None:
    assert accepted(name, naming.check_name) == bool(RULE_A.match(name))


@given(NAMES)
def test_rule_b_is_the_published_pattern(name: str) -> None:
    assert accepted(name, naming.check_secret_name) == bool(RULE_B.match(name))


@pytest.mark.parametrize(("check", "longest"), [(naming.check_name, 63), (naming.check_secret_name, 64)])
def test_names_have_a_greatest_length(check: Callable[[str], None], longest: int) -> None:
    assert accepted("a" * longest, check)
    assert accepted("a" + "-" * (longest - 2) + "b", check)
    assert not accepted("a" * (longest + 1), check)
    assert not accepted("a" + "-" * longest + "b", check)


def test_a_hostile_name_is_refused_without_backtracking() -> None:
    assert not accepted("a" * 50_000 + "!", naming.check_name)
    assert not accepted("a-" * 50_000, naming.check_name)


def test_tasks_are_named_by_slot_or_by_node() -> None:
    task = objects.Task(id="t", slot=2, node_id="n")
    task.service_annotations.name = "web"
    assert naming.task_name(task) == "web.2.t"
    task.slot = 0
    assert naming.task_name(task) == "web.n.t"
    task.annotations.name = "own"
    assert naming.task_name(task) == "own"


def test_runtimes_have_names() -> None:
    assert naming.runtime_name(specs.TaskSpec(container=specs.ContainerSpec())) == "container"
    assert naming.runtime_name(specs.TaskSpec(attachment=specs.NetworkAttachmentSpec())) == "attachment"
    assert naming.runtime_name(specs.TaskSpec(generic=specs.GenericRuntimeSpec(kind="Actor"))) == "actor"
    assert naming.runtime_name(specs.TaskSpec()) is None


@given(st.integers())
def test_random_names_are_valid_names(seed: int) -> None:
    naming.check_name(naming.random_name(random.Random(seed)))


def test_a_random_name_avoids_those_that_are_taken() -> None:
    taken: set[str] = set()
    for _ in range(300):
        name = naming.random_name(random.Random(5), taken.__contains__)
        assert name not in taken
        taken.add(name)


def test_with_every_name_taken_the_search_ends_in_a_crash_and_not_in_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "ATTEMPTS_MAX", 100)
    with pytest.raises(RuntimeError, match="100 names in a row were taken"):
        naming.random_name(random.Random(1), lambda name: True)


def test_the_key_of_a_slot_names_service_and_slot() -> None:
    assert ports.slot_key("s", 3) == "s/3"


@pytest.mark.parametrize("value", [0.0, 1.5, -1.5, 0.000000001, -0.25, 7776000.0])
def test_durations_keep_their_value_and_one_sign(value: float) -> None:
    message = defaults.to_duration(value)
    assert defaults.seconds(message) == value
    assert message.seconds * message.nanos >= 0
    assert defaults.nanoseconds(message) == round(value * 1e9)


def test_an_empty_spec_is_completed_with_every_default() -> None:
    spec = specs.ServiceSpec(task=specs.TaskSpec(container=specs.ContainerSpec()))
    full = defaults.insert_defaults(spec)
    assert full.task.container.stop_grace_period.seconds == 10
    for message, field in (
        (full.task.container, "pull_options"),
        (full.task.container, "dns_config"),
        (full.task, "resources"),
        (full.task, "placement"),
    ):
        assert message.HasField(field)
    assert (full.task.restart.condition, full.task.restart.delay.seconds) == (types.RestartPolicy.ANY, 5)
    for config in (full.update, full.rollback):
        assert (config.parallelism, config.monitor.seconds) == (1, 5)
        assert (config.failure_action, config.order) == (types.UpdateConfig.PAUSE, types.UpdateConfig.STOP_FIRST)
    assert spec == specs.ServiceSpec(task=specs.TaskSpec(container=specs.ContainerSpec()))


def test_what_a_spec_says_is_kept() -> None:
    spec = specs.ServiceSpec()
    spec.task.restart.condition = types.RestartPolicy.NONE
    spec.update.parallelism = 0
    spec.update.order = types.UpdateConfig.START_FIRST
    spec.rollback.monitor.seconds = 9
    full = defaults.insert_defaults(spec)
    assert (full.task.restart.condition, full.task.restart.delay.seconds) == (types.RestartPolicy.NONE, 5)
    assert (full.update.parallelism, full.update.order) == (0, types.UpdateConfig.START_FIRST)
    assert (full.update.monitor.seconds, full.rollback.monitor.seconds) == (5, 9)
    assert not full.task.HasField("container")
    assert defaults.insert_defaults(full) == full


def test_restart_defaults_apply_where_the_spec_is_silent() -> None:
    silent = specs.TaskSpec()
    assert (defaults.restart_delay(silent), defaults.restart_condition(silent)) == (5.0, types.RestartPolicy.ANY)
    spoken = specs.TaskSpec(restart=types.RestartPolicy(condition=types.RestartPolicy.NONE))
    spoken.restart.delay.nanos = 500_000_000
    assert (defaults.restart_delay(spoken), defaults.restart_condition(spoken)) == (0.5, types.RestartPolicy.NONE)


def test_the_first_cluster_object_has_the_values_of_a_new_swarm() -> None:
    key = types.EncryptionKey(subsystem="swarm-manager", key=b"k")
    made = defaults.initial_cluster("id", types.RootCA(ca_cert=b"c"), unlock_key=key)
    spec = made.spec
    assert (made.id, spec.annotations.name, made.root_ca.ca_cert) == ("id", "default", b"c")
    assert spec.orchestration.task_history_retention_limit == 10
    assert spec.dispatcher.heartbeat_period.seconds == 5
    raft = spec.raft
    assert (raft.snapshot_interval, raft.keep_old_snapshots, raft.log_entries_for_slow_followers) == (10_000, 0, 500)
    assert (raft.heartbeat_tick, raft.election_tick) == (1, 10)
    assert spec.ca_config.node_cert_expiry.seconds == 7_776_000
    assert spec.HasField("encryption_config")
    assert list(made.unlock_keys) == [key]
    assert defaults.cluster_spec(heartbeat_tick=2, election_tick=20).raft.election_tick == 20


GOOD_IMAGES = [
    "nginx", "nginx:1.25", "host", "host:any-1_2.3", "library/nginx", "a.b/c/d:tag", "localhost/x",
    "localhost:5000/x:y", "Registry.Example/x", "127.0.0.1:5000/x", "[::1]:5000/x", "a__b-c.d", "a--b",
    "x:" + "t" * 128, "a" * 255,
    "nginx@sha256:" + "0" * 64, "nginx:1@sha256:" + "a" * 64,
]  # fmt: skip
BAD_IMAGES = [
    "", "BAD IMAGE", "Nginx", "nginx:", ":tag", "nginx:-t", "nginx:a:b", "a//b", "/a", "a/", "_a", "a___b", "a..b",
    "a/B", "x:" + "t" * 129, "a" * 256, "0" * 64, "nginx@", "nginx@sha256:xyz", "nginx@sha256:00", "-a.b/c",
    "a.b:port/c", "a@b@c", "nginx\n", "é",
]  # fmt: skip


@pytest.mark.parametrize("image", GOOD_IMAGES)
def test_image_references_are_recognised(image: str) -> None:
    assert is_image(image)


@pytest.mark.parametrize("image", BAD_IMAGES)
def test_what_cannot_name_an_image_is_told(image: str) -> None:
    assert not is_image(image)


@given(st.text(alphabet="aZ0:/@.-_[]", max_size=30))
def test_any_text_is_or_is_not_an_image(text: str) -> None:
    assert is_image(text) in (True, False)
    if is_image(text):
        assert is_image(f"example.com/{text.split('/')[-1]}") or "/" in text or text.startswith("[")
