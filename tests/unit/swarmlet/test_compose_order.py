"""``depends_on`` of compose files: the label that comes of it, and what cannot be."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runtime.swarm.labels import START_AFTER, starts_after
from swarmlet import compose
from swarmlet.compose_values import ComposeError

HEALTH = {"healthcheck": {"test": ["CMD", "true"]}}
JOB = {"deploy": {"mode": "replicated-job"}}


def load(**services: dict[str, Any]) -> compose.Stack:
    found = {name: {"image": "host", "command": "sleep 1", **fields} for name, fields in services.items()}
    return compose.load(yaml.safe_dump({"services": found}, sort_keys=False), "shop", {})


def after(stack: compose.Stack, name: str) -> tuple[str, ...]:
    (spec,) = [each for each in stack.services if each.annotations.name == f"shop_{name}"]
    return starts_after(spec.annotations.labels)


def faults(**services: dict[str, Any]) -> list[str]:
    with pytest.raises(ComposeError) as error:
        load(**services)
    return error.value.faults


def on(other: str, **how: Any) -> dict[str, Any]:
    return {"depends_on": {other: how or None}}


def test_a_list_and_a_mapping_say_the_same() -> None:
    for wish in (["db", "cache"], {"db": None, "cache": {"condition": "service_started"}}):
        stack = load(web={"depends_on": wish}, db={}, cache={})
        assert after(stack, "web") == ("shop_db", "shop_cache")
        assert after(stack, "db") == ()
        assert stack.warnings == ()


def test_services_that_are_waited_for_may_stand_behind() -> None:
    assert after(load(db={}, web=on("db")), "web") == after(load(web=on("db"), db={}), "web")


def test_healthy_is_what_running_means_where_there_is_a_health_check() -> None:
    assert after(load(web=on("db", condition="service_healthy"), db=HEALTH), "web") == ("shop_db",)
    assert faults(web=on("db", condition="service_healthy"), db={}) == [
        "services.web.depends_on.db.condition: db has no healthcheck"
    ]


def test_complete_is_for_jobs() -> None:
    assert after(load(web=on("migrate", condition="service_completed_successfully"), migrate=JOB), "web")
    assert faults(web=on("db", condition="service_completed_successfully"), db={}) == [
        "services.web.depends_on.db.condition: db never completes: it is no job (deploy.mode: replicated-job)"
    ]


def test_a_service_that_is_not_there_is_a_fault_unless_it_is_not_required() -> None:
    assert faults(web={"depends_on": ["db"]}) == ["services.web.depends_on[0]: the file has no service db"]
    assert faults(web=on("db", required=True)) == ["services.web.depends_on.db: the file has no service db"]
    assert after(load(web=on("db", required=False)), "web") == ()


def test_what_is_said_of_restarts_is_left_out_with_a_warning() -> None:
    (warning,) = load(web=on("db", restart=True), db={}).warnings
    assert warning.startswith("services.web.depends_on.db.restart: is left out")


@pytest.mark.parametrize(
    ("wish", "fault"),
    [
        ("db", "services.web.depends_on: must be a mapping"),
        ({"db": {"when": 1}}, "services.web.depends_on.db.when: is no field that compose files have here"),
        ({"db": {"condition": "soon"}}, "services.web.depends_on.db.condition: must be one of"),
    ],
)
def test_what_is_malformed_is_a_fault_with_its_place(wish: Any, fault: str) -> None:
    (found,) = faults(web={"depends_on": wish}, db={})
    assert found.startswith(fault)


def test_services_that_wait_for_each_other_are_a_fault() -> None:
    wishes = {"a": "b", "b": "c", "c": "a"}
    (fault,) = faults(**{name: on(other) for name, other in wishes.items()})
    place, circle, end = fault.split(": ")
    names = circle.split(" after ")
    assert len(names) == 4
    assert all(wishes[name] == other for name, other in itertools.pairwise(names))
    assert (place, end) == (f"services.{names[0]}.depends_on", "none of them would ever start")
    (alone,) = faults(a=on("a"))
    assert "a after a" in alone


def test_a_label_of_the_files_own_comes_first() -> None:
    stack = load(web={"depends_on": ["db"], "deploy": {"labels": {START_AFTER: "vault, shop_db"}}}, db={})
    assert after(stack, "web") == ("vault", "shop_db")


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.sampled_from("abcd"), unique=True), min_size=1))
def test_every_file_that_is_taken_can_be_started(wishes: dict[str, list[str]]) -> None:
    try:
        stack = load(**{name: {"depends_on": others} for name, others in wishes.items()})
    except ComposeError:
        return
    started: set[str] = set()
    while ready := {name for name in wishes.keys() - started if started.issuperset(wishes[name])}:
        started |= ready
    assert started == wishes.keys()
    for name, others in wishes.items():
        assert after(stack, name) == tuple(f"shop_{other}" for other in others)
