"""Versions of secrets and configs: which there are, who has which, how far a service is, what may go."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.operations.families import (
    CannotRotate,
    Family,
    Kind,
    Rolling,
    family,
    moved,
    next_spec,
    references,
    removable,
    rolling,
    users,
)
from runtime.swarm.labels import FAMILY, VERSION
from tests.unit.operations.things import service, task

KINDS: list[Kind] = ["secret", "config"]


def thing(name: str, number: int | None = None, of: str = "token", **spec: Any) -> dict[str, Any]:
    labels = {} if number is None else {FAMILY: of, VERSION: str(number)}
    return {"ID": f"id-{name}", "Spec": {"Name": name, "Labels": labels, **spec}}


THREE = [thing("token.v3", 3), thing("token"), thing("other"), thing("token.v2", 2)]


def family_of(kind: Kind = "secret", *things: dict[str, Any]) -> Family:
    return family(kind, "token", things or THREE)


def reference(kind: Kind, name: str, target: str = "key") -> dict[str, Any]:
    file = {"Name": target, "UID": "7", "GID": "8", "Mode": 0o440}
    return {"File": file, f"{kind.capitalize()}ID": f"id-{name}", f"{kind.capitalize()}Name": name}


def container(kind: Kind, *names: str) -> dict[str, Any]:
    return {"ContainerSpec": {"Image": "x", f"{kind.capitalize()}s": [reference(kind, name) for name in names]}}


def having(kind: Kind, *names: str, called: str = "web", **more: Any) -> dict[str, Any]:
    return service(called, TaskTemplate=container(kind, *names), **more)


# Which there are


def test_the_first_version_has_the_familys_name_and_the_others_say_what_they_are() -> None:
    found = family_of()
    assert [(each.name, each.number) for each in found.versions] == [("token", 1), ("token.v2", 2), ("token.v3", 3)]
    assert found.newest.id == "id-token.v3"
    assert found.older == {"id-token", "id-token.v2"}


def test_a_version_tells_its_familys_name_when_it_is_rotated_by_its_own() -> None:
    with pytest.raises(CannotRotate, match=r"token.v2 is a version of the secret token: rotate token"):
        family("secret", "token.v2", THREE)


def test_without_a_first_version_there_is_nothing_to_rotate() -> None:
    with pytest.raises(CannotRotate, match="there is no config nosuch: docker config create makes the first version"):
        family("config", "nosuch", THREE)


@pytest.mark.parametrize("label", ["", "two", "-1", "0", "1e3", "9" * 30, "²"])
def test_a_label_that_is_no_number_makes_no_version(label: str) -> None:
    odd = thing("token.v9", 9)
    odd["Spec"]["Labels"][VERSION] = label
    assert [each.name for each in family_of("secret", thing("token"), odd).versions] == ["token"]


def test_the_next_version_is_as_the_newest_but_for_its_name_and_number() -> None:
    base = thing("token", Templating={"Name": "golang"})
    base["Spec"]["Labels"] = {"team": "a", "swarmlet.compose.source": "key"}
    assert next_spec(family_of("secret", base)) == {
        "Name": "token.v2",
        "Labels": {"team": "a", FAMILY: "token", VERSION: "2"},
        "Templating": {"Name": "golang"},
    }


def test_a_name_that_somebody_else_took_is_passed_over() -> None:
    spec = next_spec(family_of("secret", thing("token"), thing("token.v2"), thing("token.v3", 3, "another")))
    assert (spec["Name"], spec["Labels"][VERSION]) == ("token.v4", "4")


def test_what_has_no_data_of_its_own_or_no_room_for_a_name_is_refused() -> None:
    with pytest.raises(CannotRotate, match="its driver's"):
        next_spec(family_of("secret", thing("token", Driver={"Name": "vault"})))
    long = "t" * 62
    with pytest.raises(CannotRotate, match="longer than the 64 characters"):
        next_spec(family("secret", long, [thing(long)]))


# Who has which


@pytest.mark.parametrize("kind", KINDS)
def test_a_service_keeps_target_owner_mode_and_all_else_of_its_spec(kind: Kind) -> None:
    spec = having(kind, "token", "other", "token.v2")["Spec"]
    before = copy.deepcopy(spec)
    new = moved(family_of(kind), spec)
    assert new is not None
    assert references(kind, new) == ["id-token.v3", "id-other", "id-token.v3"]
    names = [each[f"{kind.capitalize()}Name"] for each in new["TaskTemplate"]["ContainerSpec"][f"{kind.capitalize()}s"]]
    assert names == ["token.v3", "other", "token.v3"]
    assert new["TaskTemplate"]["ContainerSpec"][f"{kind.capitalize()}s"][0]["File"] == reference(kind, "x")["File"]
    assert spec == before, "what was read is not changed in place"
    assert moved(family_of(kind), new) is None, "and a second time there is nothing to do"


def test_a_credential_spec_that_is_a_config_moves_with_its_reference() -> None:
    spec = having("config", "token")["Spec"]
    spec["TaskTemplate"]["ContainerSpec"]["Privileges"] = {"CredentialSpec": {"Config": "id-token"}}
    spec["TaskTemplate"]["ContainerSpec"]["Configs"][0] = {"ConfigID": "id-token", "ConfigName": "token", "Runtime": {}}
    new = moved(family_of("config"), spec)
    assert new is not None
    assert new["TaskTemplate"]["ContainerSpec"]["Privileges"] == {"CredentialSpec": {"Config": "id-token.v3"}}
    assert new["TaskTemplate"]["ContainerSpec"]["Configs"][0]["ConfigID"] == "id-token.v3"


@pytest.mark.parametrize("template", [{}, {"ContainerSpec": None}, {"ContainerSpec": {"Secrets": None}}])
def test_a_service_without_any_is_none_of_its_users(template: dict[str, Any]) -> None:
    found = users(family_of(), [service(TaskTemplate=template)], jobs=True)
    assert (found.rolled, found.left) == ((), ())


def test_jobs_are_left_unless_they_are_asked_for_and_one_that_has_the_newest_is_no_matter() -> None:
    job = having("secret", "token", called="job", mode={"ReplicatedJob": {}})
    done = having("secret", "token.v3", called="done", mode={"GlobalJob": {}})
    web, db = having("secret", "token.v2"), having("secret", "token.v3", called="db")
    everybody = [web, job, done, db, having("secret", "other", called="x")]
    found = users(family_of(), everybody, jobs=False)
    assert [each["Spec"]["Name"] for each in found.rolled] == ["db", "done", "web"]
    assert [each["Spec"]["Name"] for each in found.left] == ["job"]
    assert [each["Spec"]["Name"] for each in users(family_of(), everybody, jobs=True).rolled] == [
        "db", "done", "job", "web",
    ]  # fmt: skip


# How far a service is

NEW, OLD = container("secret", "token.v3"), container("secret", "token")


def far(tasks: list[dict[str, Any]], state: str = "", refers_to: str = "token.v3", **more: Any) -> Rolling:
    found = having("secret", refers_to, mode=more.pop("mode", {"Replicated": {"Replicas": 2}}))
    if state:
        found["UpdateStatus"] = {"State": state, "Message": more.pop("message", "")}
    return rolling(family_of(), {**found, **more}, tasks)


def test_it_is_done_when_all_its_tasks_run_with_the_newest_and_no_update_is_on_its_way() -> None:
    both = [task("a", Spec=NEW), task("b", Spec=NEW), task("old", "shutdown", "shutdown", Spec=OLD)]
    assert far(both) == far(both, "completed") == Rolling()
    assert far(both, "updating").going == "2 of 2 tasks run with token.v3"


def test_it_is_not_done_while_a_task_that_is_wanted_has_an_older_one_or_one_is_missing() -> None:
    assert far([task("a", Spec=NEW), task("b", Spec=OLD)]).going == "1 of 2 tasks run with token.v3"
    assert far([task("a", Spec=NEW), task("b", Spec=OLD)], "completed").going
    pending = task("b", "pending", Spec=NEW, Status={"State": "pending", "Err": "no suitable node"})
    assert far([task("a", Spec=NEW), pending]).going == ("1 of 2 tasks run with token.v3; 1 pending (no suitable node)")


def test_tasks_that_came_to_their_end_under_a_completed_update_are_not_waited_for() -> None:
    assert far([task("a", "complete", "shutdown", Spec=NEW)], "completed") == Rolling()


def test_a_service_without_replicas_is_done_at_once_and_a_job_as_soon_as_it_is_told() -> None:
    assert far([], mode={"Replicated": {"Replicas": 0}}) == Rolling()
    assert far([], mode={"ReplicatedJob": {}}) == Rolling()


def test_the_number_that_is_wanted_is_what_the_api_says_for_global_services() -> None:
    status = {"RunningTasks": 1, "DesiredTasks": 2}
    assert far([task("a", Spec=NEW)], mode={"Global": {}}, ServiceStatus=status).going
    assert not far([task("a", Spec=NEW), task("b", Spec=NEW)], mode={"Global": {}}, ServiceStatus=status).going


@pytest.mark.parametrize(
    ("state", "refers_to", "text"),
    [
        ("paused", "token.v3", "its update is paused: too bad"),
        ("rollback_paused", "token", "its rollback is paused: too bad"),
        ("rollback_completed", "token", "it was rolled back: too bad"),
        ("", "other", "somebody gave it another secret meanwhile"),
    ],
)
def test_what_gets_no_further_by_itself_says_why(state: str, refers_to: str, text: str) -> None:
    assert far([task("a", Spec=OLD)], state, refers_to, message="too bad").stuck == text


def test_a_rollback_is_waited_for_and_an_old_one_says_nothing_about_the_newest() -> None:
    assert far([], "rollback_started", "token", message="m").going == "it is being rolled back: m"
    both = [task("a", Spec=NEW), task("b", Spec=NEW)]
    assert far(both, "rollback_completed") == Rolling()


# What may go


def gone(keep: int, services: list[dict[str, Any]], tasks: list[dict[str, Any]] | None = None) -> list[str]:
    return [each.name for each in removable(family_of(), keep, services, tasks or [])]


def test_all_but_the_newest_and_those_that_are_kept_go_the_oldest_first() -> None:
    web = having("secret", "token.v3")
    assert gone(0, [web]) == ["token", "token.v2"]
    assert gone(1, [web]) == ["token"]
    assert gone(2, [web]) == gone(99, [web]) == []


def test_what_a_service_or_a_task_refers_to_stays_whoever_it_is() -> None:
    assert gone(0, [having("secret", "token.v3"), having("secret", "token", called="job")]) == ["token.v2"]
    assert gone(0, [], [task("a", Spec=OLD)]) == ["token.v2"]
    assert gone(0, [], [task("a", "shutdown", "shutdown", Spec=OLD)]) == ["token", "token.v2"]


def test_what_a_service_would_be_rolled_back_to_stays_unless_none_is_kept() -> None:
    web = {**having("secret", "token.v3"), "PreviousSpec": having("secret", "token")["Spec"]}
    assert gone(1, [web]) == []
    assert gone(0, [web]) == ["token", "token.v2"]


NAMES = st.sampled_from(["token", "token.v2", "token.v3"])


@given(st.lists(NAMES, max_size=4), st.lists(NAMES, max_size=4), st.integers(0, 3))
def test_nothing_goes_that_anything_refers_to_and_the_newest_never(by: list[str], run: list[str], keep: int) -> None:
    services = [having("secret", *by)]
    tasks = [task(f"t{n}", Spec=container("secret", name)) for n, name in enumerate(run)]
    going = set(gone(keep, services, tasks))
    assert not going & {*by, *run, "token.v3"}
    assert len(going) <= max(0, 2 - keep)
