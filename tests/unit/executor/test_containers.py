"""What the engine shows and says, read: states, ports, logs, images' names, itself."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.executor.container_logs import BrokenLog, Frames, TerminalLines, line_of, nanoseconds
from runtime.executor.container_state import ContainerState
from runtime.executor.engine_client import EngineRefused, spoken, words_of
from runtime.executor.engine_description import describe, engine_resources
from runtime.executor.engine_events import concerned
from runtime.executor.image_reference import familiar, parse
from runtime.executor.port import Stream
from runtime.wire.pb import types_pb2

HOST = types_pb2.PortConfig.HOST


def state(status: str = "running", ports: dict[str, Any] | None = None, **fields: Any) -> ContainerState:
    found = {"Id": "c1", "State": {"Status": status, **fields}, "NetworkSettings": {"Ports": ports}}
    return ContainerState.of(found)


@pytest.mark.parametrize(
    ("status", "fresh", "running", "ended"),
    [
        ("created", True, False, False), ("running", False, True, False), ("paused", False, True, False),
        ("restarting", False, True, False), ("removing", False, True, False), ("exited", False, False, True),
        ("dead", False, False, True), ("stopped", False, False, True), ("configured", True, False, False),
    ],
)  # fmt: skip
def test_a_state_is_one_of_three(status: str, fresh: bool, running: bool, ended: bool) -> None:
    found = state(status)
    assert (found.fresh, found.running, found.ended) == (fresh, running, ended)


def test_what_runs_has_a_pid_and_what_has_ended_an_exit_code() -> None:
    running = state("running", Pid=5, ExitCode=0).container_status
    ended = state("exited", Pid=0, ExitCode=9).container_status
    assert (running.container_id, running.pid, running.exit_code) == ("c1", 5, 0)
    assert (ended.pid, ended.exit_code) == (0, 9)


def test_an_inspection_that_says_nothing_is_a_state_all_the_same() -> None:
    assert ContainerState.of({}).running
    assert state(Health=None).health == ""


def both(*numbers: str) -> list[dict[str, str]]:
    return [{"HostIp": host, "HostPort": number} for number in numbers for host in ("::", "0.0.0.0")]


def published(found: ContainerState, *ports: types_pb2.PortConfig, on_host: bool = False) -> list[tuple[int, int]]:
    status = found.port_status(ports, on_host)
    assert all(port.publish_mode == HOST for port in status.ports)
    return sorted((port.target_port, port.published_port) for port in status.ports)


def port(target: int, number: int = 0, mode: int = 0, protocol: int = 0) -> types_pb2.PortConfig:
    return types_pb2.PortConfig(
        target_port=target,
        published_port=number,
        publish_mode=mode,
        protocol=protocol,  # type: ignore[arg-type]
    )


def test_a_port_is_told_once_though_it_is_bound_twice() -> None:
    found = state(ports={"80/tcp": both("8080")})
    assert published(found, port(80, 8080, HOST)) == [(80, 8080)]


def test_a_target_in_both_modes_has_both_of_its_ports() -> None:
    found = state(ports={"80/tcp": both("49153", "8080")})
    assert published(found, port(80, 9000), port(80, 8080, HOST)) == [(80, 8080), (80, 49153)]


def test_a_port_of_another_protocol_is_another_port() -> None:
    found = state(ports={"80/tcp": both("49153"), "80/udp": both("49154")})
    udp = types_pb2.PortConfig.UDP
    assert published(found, port(80, 9000), port(80, 9000, 0, udp)) == [(80, 49153), (80, 49154)]


def test_a_port_that_the_engine_does_not_publish_is_not_told() -> None:
    assert published(state(ports={"80/tcp": None}), port(80, 9000), port(81, 8081, HOST)) == []
    assert published(state(ports={"80/tcp": both("1")}), port(80, 8080, HOST)) == []


def test_on_the_machines_network_a_container_answers_at_its_targets() -> None:
    assert published(state(), port(80, 9000), port(81, 8081, HOST), on_host=True) == [(80, 80), (81, 81)]


# Logs

PIECES = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=8)


def framed(pieces: list[tuple[int, bytes]]) -> bytes:
    return b"".join(bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data for stream, data in pieces)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[begin:end] for begin, end in itertools.pairwise(edges)]


@given(PIECES, st.lists(st.integers(0, 500), max_size=9))
def test_frames_come_out_whole_however_they_are_cut(pieces: list[tuple[int, bytes]], places: list[int]) -> None:
    frames = Frames()
    assert [each for piece in cut(framed(pieces), places) for each in frames.feed(piece)] == pieces


@given(st.binary(max_size=200), st.lists(st.integers(0, 500), max_size=9))
def test_a_terminals_bytes_come_out_whole_however_they_are_cut(data: bytes, places: list[int]) -> None:
    lines = TerminalLines()
    found = [each for piece in cut(data, places) for each in lines.feed(piece)] + list(lines.rest())
    assert b"".join(text for _, text in found) == data
    assert all(text.endswith(b"\n") for _, text in found[:-1])


@given(st.binary(max_size=300))
def test_bytes_that_are_no_frames_break_off_and_nothing_else(data: bytes) -> None:
    found = []
    with contextlib.suppress(BrokenLog):
        for each in Frames().feed(data):
            found.append(each)
    assert all(stream in (0, 1, 2) for stream, _ in found)
    assert len(framed(found)) <= len(data)


def test_a_frame_of_the_engine_itself_is_the_reason_of_the_end() -> None:
    with pytest.raises(BrokenLog, match="Error grabbing logs: gone"):
        list(Frames().feed(framed([(3, b"Error grabbing logs: gone\n")])))


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("2026-01-02T03:04:05.000000006Z", 6), ("2026-01-02T03:04:05Z", 0), ("2026-01-02T03:04:05.5Z", 500_000_000),
        ("2026-01-02T05:04:05.1+02:00", 100_000_000),
    ],
)  # fmt: skip
def test_a_time_stamp_is_read_to_the_nanosecond(stamp: str, expected: int) -> None:
    assert nanoseconds(stamp) == 1767323045 * 10**9 + expected


@pytest.mark.parametrize("stamp", ["", "now", "2026-13-02T03:04:05Z", "2026-01-02T03:04:05", "2026-01-02 03:04:05Z"])
def test_a_time_stamp_that_is_none_breaks_the_log(stamp: str) -> None:
    with pytest.raises(BrokenLog):
        nanoseconds(stamp)


def test_a_piece_without_its_time_breaks_the_log() -> None:
    with pytest.raises(BrokenLog):
        line_of(1, b"word")


def test_a_line_keeps_its_spaces() -> None:
    line = line_of(2, b"2026-01-02T03:04:05Z  a b \n")
    assert (line.data, line.stream, line.partial) == (b" a b \n", Stream.STDERR, False)


# Events

TASK = "com.docker.swarm.task.id"


@pytest.mark.parametrize(
    ("event", "task"),
    [
        ({"Action": "die", "Actor": {"ID": "c", "Attributes": {TASK: "t"}}}, "t"),
        ({"Action": "health_status: unhealthy", "Actor": {"Attributes": {TASK: "t"}}}, "t"),
        ({"status": "died", "Actor": {"Attributes": {TASK: "t"}}}, "t"),
        ({"Action": "exec_start: sh", "Actor": {"Attributes": {TASK: "t"}}}, ""),
        ({"Action": "die", "Actor": {"Attributes": {}}}, ""),
        ({"Action": "die", "Actor": {"Attributes": None}}, ""),
        ({"Action": "die", "Actor": []}, ""),
        ([], ""),
    ],
)
def test_an_event_concerns_the_task_whose_container_changed(event: Any, task: str) -> None:
    assert concerned(event) == task


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["Action", "Actor", "x"]), inner),
    max_leaves=6,
)


@given(JSON)
def test_an_event_of_any_form_is_survived(event: Any) -> None:
    assert isinstance(concerned(event), str)


# Images


@pytest.mark.parametrize(
    ("image", "text", "pulled"),
    [
        ("busybox", "busybox:latest", "latest"),
        ("docker.io/library/busybox:1", "busybox:1", "1"),
        ("index.docker.io/library/busybox", "busybox:latest", "latest"),
        ("library/busybox", "busybox:latest", "latest"),
        ("docker.io/me/app", "me/app:latest", "latest"),
        ("host:5000/a/b:t", "host:5000/a/b:t", "t"),
        ("localhost/app", "localhost/app:latest", "latest"),
        (f"app@sha256:{'a' * 64}", f"app@sha256:{'a' * 64}", f"sha256:{'a' * 64}"),
        (f"app:1@sha256:{'a' * 64}", f"app:1@sha256:{'a' * 64}", f"sha256:{'a' * 64}"),
    ],
)
def test_an_image_is_called_as_the_engine_calls_it(image: str, text: str, pulled: str) -> None:
    found = parse(image)
    assert found is not None
    assert (found.text, found.pulled) == (text, pulled)


@pytest.mark.parametrize("image", ["", "Upper", "a" * 64, f"sha256:{'b' * 64}", "a@b", "a:", "a//b", "-a", "a:t:u"])
def test_what_no_registry_can_know_stays_as_it_is(image: str) -> None:
    assert parse(image) is None
    assert familiar(image) == image


@given(st.text(max_size=30))
def test_a_familiar_name_is_its_own(image: str) -> None:
    assert familiar(familiar(image)) == familiar(image)


# The engine itself


@pytest.mark.parametrize(("offered", "version"), [("1.41", "1.41"), ("1.99", "1.47"), ("1.40", "1.40")])
def test_the_version_spoken_is_one_that_both_know(offered: str, version: str) -> None:
    assert spoken(offered) == version


@pytest.mark.parametrize("offered", ["", "1.39", "one", "1"])
def test_an_engine_without_a_common_version_is_refused(offered: str) -> None:
    with pytest.raises(EngineRefused):
        spoken(offered)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"message":"no"}', "no"), (b"plain\n", "plain"), (b"", "the container engine gave no reason"),
        (b'{"cause":"why","message":""}', "why"), (b"[1]", "[1]"),
    ],
)  # fmt: skip
def test_a_refusal_is_told_in_the_engines_words(body: bytes, text: str) -> None:
    assert words_of(body) == text


INFO: dict[str, Any] = {
    "Architecture": "x86_64", "OSType": "linux", "NCPU": 3, "MemTotal": 7, "Labels": ["zone=a", "flag"],
    "Plugins": {"Volume": ["local"], "Network": ["host", "bridge"], "Authorization": None, "Log": ["local"]},
    "GenericResources": [
        {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 2}}, {"NamedResourceSpec": {"Kind": "gpu", "Value": "u"}}, {},
    ],
}  # fmt: skip
MANAGED = [
    {"Name": "v:1", "Enabled": True, "Config": {"Interface": {"Types": ["docker.volumedriver/1.0"]}}},
    {"Name": "off", "Enabled": False, "Config": {"Interface": {"Types": ["docker.volumedriver/1.0"]}}},
    {"Name": "m", "Enabled": True, "Config": {"Interface": {"Types": [{"Capability": "metricscollector"}]}}},
]


def test_an_engine_is_shown_as_it_shows_itself() -> None:
    own = types_pb2.GenericResource(discrete_resource_spec={"kind": "own", "value": 1})
    found = describe(INFO, {"Version": "28.0"}, MANAGED, [own])
    assert (found.platform.architecture, found.platform.os) == ("x86_64", "linux")
    assert (found.resources.nano_cpus, found.resources.memory_bytes) == (3 * 10**9, 7)
    assert list(found.resources.generic) == [*engine_resources(INFO["GenericResources"]), own]
    assert found.engine.engine_version == "28.0"
    assert dict(found.engine.labels) == {
        "zone": "a", "flag": "", "swarmlet.executor": "container", "swarmlet.engine": "docker",
        "swarmlet.limits": "enforced",
    }  # fmt: skip
    assert [(each.type, each.name) for each in found.engine.plugins] == [
        ("Log", "local"), ("Network", "bridge"), ("Network", "host"), ("Network", "overlay"), ("Volume", "local"),
        ("Volume", "v:1"),
    ]  # fmt: skip


def test_podman_is_known_by_its_components() -> None:
    found = describe({}, {"Components": [{"Name": "Podman Engine"}]}, [], [])
    assert found.engine.labels["swarmlet.engine"] == "podman"
