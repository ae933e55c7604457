"""How far a node's draining is, and what holds it up."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.operations.draining import drained, places, progress, unheard
from runtime.operations.reading import task_names
from tests.unit.operations.things import node, service, task

SERVICES = [service(), service("agent", {"Global": {}}), service("job", {"ReplicatedJob": {}})]
NAMES = task_names(SERVICES)
WEB = "id-of-web"


def going(tasks: list[dict[str, Any]], of: dict[str, Any] | None = None, *before: tuple[str, int]) -> str:
    here = of or node("n1", availability="drain")
    return progress(here, tasks, {*before, *places("n1", tasks, SERVICES)}, NAMES).text


def old(id: str, slot: int = 1, state: str = "shutdown", created: str = "2026-01-01T00:00:00Z", **more: Any) -> Any:
    return task(id, state, "shutdown", slot=slot, CreatedAt=created, **more)


def new(id: str, slot: int = 1, state: str = "running", desired: str = "running", **more: Any) -> dict[str, Any]:
    return task(id, state, desired, node="n2", slot=slot, CreatedAt="2026-01-01T00:00:09Z", **more)


def test_a_node_is_drained_when_its_tasks_have_ended_and_their_slots_run_elsewhere() -> None:
    assert going([old("a"), new("b"), old("c", 2), new("d", 2)], None, (WEB, 1), (WEB, 2)) == ""


def test_a_task_that_was_told_to_stop_holds_it_up_with_the_time_that_it_has() -> None:
    spec = {"ContainerSpec": {"StopGracePeriod": 30_000_000_000}}
    assert going([old("a", state="running", Spec=spec), new("b")]) == (
        "1 task not ended: web.1 is running and was told to stop, in 30 s"
    )


def test_a_task_that_nobody_told_to_stop_says_so() -> None:
    text = going([task("a", Status={"State": "running", "Message": "started"})])
    assert text == "1 task not ended: web.1 is running (started) and was not told to stop yet"


def test_a_task_that_still_comes_up_here_is_not_missing_elsewhere() -> None:
    assert going([task("a", "starting")]) == "1 task not ended: web.1 is starting and was not told to stop yet"


def test_a_replacement_that_waits_holds_it_up_with_its_reason() -> None:
    waits = new("b", state="pending", Status={"State": "pending", "Err": "no suitable node (1 node not available)"})
    text = "1 task not running elsewhere: web.1 is pending (no suitable node (1 node not available))"
    assert going([old("a"), waits]) == text


def test_a_replacement_that_is_held_says_for_what() -> None:
    held = new("b", state="ready", desired="ready")
    assert going([old("a", state="running"), held]).endswith(
        "1 task not running elsewhere: web.1 is ready, and held until the old task has stopped"
    )


def test_a_command_that_comes_later_still_waits_for_what_left_the_node_last() -> None:
    assert places("n1", [old("a"), new("b", state="starting")], SERVICES) == {(WEB, 1)}
    assert places("n1", [old("a"), new("b")], SERVICES) == set()


def test_a_replacement_of_one_that_ended_elsewhere_since_is_somebody_elses_trouble() -> None:
    since = task("z", "failed", "shutdown", node="n2", CreatedAt="2026-01-01T00:00:05Z")
    assert going([old("a"), since, new("b", state="starting")]) == ""


def test_times_are_compared_although_the_api_cuts_their_zeros_off() -> None:
    for before, after in (("00.09Z", "00.1Z"), ("00Z", "00.1Z"), ("00.95Z", "01Z")):
        earlier = old("z", created=f"2026-01-01T00:00:{before}")
        later = task("a", "failed", "shutdown", node="n2", CreatedAt=f"2026-01-01T00:00:{after}")
        assert places("n1", [earlier, later, new("b", state="starting")], SERVICES) == set(), (before, after)


def test_global_tasks_have_to_end_and_nothing_replaces_them() -> None:
    agent = {"ServiceID": "id-of-agent"}
    gone = task("a", "shutdown", "shutdown", slot=0, **agent)
    elsewhere = task("b", "starting", node="n2", slot=0, **agent)
    assert going([gone, elsewhere]) == ""
    assert going([task("a", "running", "shutdown", slot=0, **agent), elsewhere]) == (
        "1 task not ended: agent.n1 is running and was told to stop"
    )


def test_jobs_number_their_slots_from_none_and_a_run_that_is_complete_has_moved() -> None:
    job = {"ServiceID": "id-of-job"}
    first = task("a", "shutdown", "shutdown", slot=0, **job)
    again = {**task("b", "starting", "complete", node="n2", slot=0, **job), "DesiredState": "complete"}
    del first["Slot"], again["Slot"]
    assert places("n1", [{**first, "Status": {"State": "running"}}], SERVICES) == {("id-of-job", 0)}
    assert (
        progress(node("n1"), [first, {**again, "Status": {"State": "complete"}}], {("id-of-job", 0)}, NAMES).text == ""
    )


def test_a_slot_that_nothing_is_wanted_in_any_more_is_not_waited_for() -> None:
    assert going([old("a")], None, (WEB, 1)) == ""


def test_many_are_told_by_their_number_and_the_first_few() -> None:
    text = going([old(f"t{n}", n, "running") for n in range(1, 9)])
    assert text.startswith("8 tasks not ended: web.1 is running")
    assert text.endswith("web.5 is running and was told to stop; and 3 more")


def test_a_node_that_is_down_is_warned_of_and_its_tasks_are_not_waited_for() -> None:
    lost = node("n1", "down", "drain")
    tasks = [old("a", state="running"), new("b")]
    assert going(tasks, lost) == ""
    assert unheard(lost, tasks) == "host-n1 is down: nobody can say whether 1 task still runs there"
    assert unheard(node("n1"), tasks) == unheard(lost, [old("a")]) == ""


@pytest.mark.parametrize("availability", ["active", "pause", "drain"])
def test_only_the_availability_changes_and_only_if_it_is_another(availability: str) -> None:
    spec = drained(node("n1", availability=availability))
    expected = {"Role": "worker", "Availability": "drain", "Labels": {}}
    assert spec == (None if availability == "drain" else expected)
