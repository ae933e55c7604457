"""Consensus, waiting tasks, beliefs and open questions as people read them."""

from __future__ import annotations

import copy
import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runtime.introspection import render, render_domain, render_waits
from tests.unit.console import answers


def test_consensus_shows_who_leads_who_follows_and_how_far_behind() -> None:
    text = render_domain.raft(answers.RAFT)
    assert text.startswith("leader 1 in term 7\nlog: last 20, committed 20, applied 19, snapshot at 0")
    one, two = (line.split() for line in text.splitlines() if "10.0.0." in line)
    assert one == ["one", "leader", "yes", "20", "0", "replicate", "10.0.0.1:2377", "1", "one"]
    assert two == ["two", "follower", "NO", "5", "15", "snapshot", "at", "18", "10.0.0.2:2377", "2", "two"]
    assert "store: version 120\n  3 watchers, 1 write in flight\n  2 nodes, 4 tasks" in text
    assert "certificate: swarm-manager, 89.5 days left; root 7300 days left\n  of node one" in text


def test_members_are_called_as_their_machines_where_those_are_known() -> None:
    named = copy.deepcopy(answers.RAFT)
    for peer, name in zip(named["raft"]["peers"], ("m1", "m2"), strict=True):
        peer["name"] = name
    text = render_domain.raft(named)
    assert text.startswith("leader m1 (1) in term 7\n")
    assert "\nm2    follower" in text
    named["raft"] |= {"raft id": "2", "role": "follower", "leading": False}
    assert render_domain.raft(named).startswith("follower m2 (2) in term 7, leader m1 (1)\n")


def test_what_may_be_old_is_said_to_be_before_all_else() -> None:
    behind = {"behind": ["/cluster/node/manager/raft: suspended", "no leader"]}
    line = "WHAT IS KNOWN HERE MAY BE OLD: /cluster/node/manager/raft: suspended; no leader"
    for text in (
        render_domain.raft({**answers.RAFT, **behind}),
        render_domain.waiting({**answers.WAITING, **behind}),
        render_domain.waiting({"count": 0, "tasks": [], **behind}),
        render_domain.beliefs({**belief(), **behind}),
        render_domain.beliefs({**belief(agent=None, differ=None), **behind}),
        render_waits.explanation({**EXPLANATION, **behind}),
        render_waits.plan({**PLAN, **behind}),
    ):
        assert text.startswith(f"{line}\n")
    assert render_domain.behind({"behind": []}) == []


EXPLANATION: dict[str, Any] = {
    "kind": "task", "id": "t1", "name": "web.1", "state": "pending", "waits": [], "silent": [],
}  # fmt: skip
PLAN: dict[str, Any] = {"action": "rm", "id": "n1", "name": "m1", "moves": [], "ends": [], "warnings": []}


def test_an_answer_from_elsewhere_than_the_leader_says_where_it_is() -> None:
    elsewhere = {"elsewhere": "this node does not lead its swarm: ask on the leader's node, m1 (10.0.0.1:2377)"}
    last = f"  as far as it is known here: {elsewhere['elsewhere']}"
    assert render_waits.explanation({**EXPLANATION, **elsewhere}).splitlines()[1:] == ["  nothing waits", last]
    assert render_waits.plan({**PLAN, **elsewhere}).splitlines()[1:] == [last]


def test_who_did_not_answer_is_named_with_what_keeps_it() -> None:
    found = {**EXPLANATION, "silent": ["/a", "/b"], "because": {"/a": "suspended"}}
    assert render_waits.explanation(found).splitlines()[-2:] == [
        "  /a did not answer (suspended): it may know more",
        "  /b did not answer: it may know more",
    ]


def test_a_window_gives_the_rate_of_writes() -> None:
    before = copy.deepcopy(answers.RAFT)
    before["clock"], before["store"]["version"] = 8.0, 100
    assert "version 120 (10.0 entries a second over 2.0 s)" in render_domain.raft(answers.RAFT, before)


def test_a_swarm_without_a_leader_says_so_and_a_worker_shows_its_certificate() -> None:
    lost = copy.deepcopy(answers.RAFT)
    lost["raft"] |= {"leader": "", "leading": False, "role": "candidate"}
    head = "candidate 1 in term 7: NO LEADER is known, nothing can be written"
    assert render_domain.raft(lost).splitlines()[0] == head, "of two members one is reached"
    lost["raft"]["peers"][1]["reached"] = True
    assert render_domain.raft(lost).splitlines()[0] == (
        f"{head}; a majority is reached, so some of them take no part: they say why"
    )
    worker = {"clock": 1.0, "certificate": answers.RAFT["certificate"]}
    assert render_domain.raft(worker).startswith("certificate:")
    assert render_domain.raft({"clock": 1.0}) == "this node runs no manager"
    assert render_domain.raft({"clock": 1.0, "raft": "(no answer in time)"}) == "this node runs no manager"


def test_waiting_tasks_are_a_table_that_says_what_it_leaves_out() -> None:
    lines = render_domain.waiting(answers.WAITING).splitlines()
    assert lines[1].split()[:3] == ["web.1", "t1", "pending"]
    assert lines[1].endswith("scheduler  no suitable node (x)")
    assert lines[-1] == "first 2 of 3 tasks that wait"
    assert render_domain.first_of(1, 1, "tasks that wait; x") == "1 task that waits; x"
    assert render_domain.first_of(1, 1, "tasks") == "1 task"
    assert render_domain.first_of(0, 0, "tasks") == "0 tasks"
    assert render_domain.waiting({"count": 0, "tasks": []}) == "no task waits"


def test_tasks_are_a_table_that_says_what_it_leaves_out() -> None:
    lines = render_domain.tasks({**answers.TASKS, "behind": ["x"]}).splitlines()
    assert lines[0] == "WHAT IS KNOWN HERE MAY BE OLD: x"
    assert lines[2].split() == ["web.1", "pending", "running", "one", "t" * 12, "no", "suitable", "node", "(x)"]
    assert lines[3:] == ["first 1 of 10000 tasks"]
    assert render_domain.tasks({"tasks": [], "found": 0, "count": 3}).splitlines()[1:] == ["0 tasks that fit, of 3"]


def belief(**sides: Any) -> dict[str, Any]:
    row = {"id": "t1", "name": "web.1", "state": "running", "desired": "running"}
    return {"node": "n1", "agent": [row], "manager": [row], "differ": [], **sides}


def test_beliefs_say_that_they_agree_where_they_do_not_and_who_was_not_asked() -> None:
    text = render_domain.beliefs(belief())
    assert text == "node n1: the agent has 1 task, the manager 1; of all that live they say the same"
    differ = [{"id": "t1", "name": "web.1", "agent": "", "manager": "running, to be running", "means": "lost"}]
    assert "web.1  -" in render_domain.beliefs(belief(differ=differ))
    alone = render_domain.beliefs(belief(manager=None, differ=None))
    assert "the agent alone was asked" in alone
    assert "--manager SOCKET" in alone


def wait(path: str, of: str, waited: float = 1.0) -> dict[str, Any]:
    return {"from": path, "path": of, "type": "Ask", "waited_s": waited, "deadline_s": 20.0}


def test_who_waits_longest_stands_first_and_a_ring_is_named() -> None:
    text = render_domain.waits([wait("/a", "/b"), wait("/b", "/c", 5.0), wait("/c", "/a")])
    assert text.splitlines()[1].split() == ["/b", "/c", "Ask", "5.0", "s", "20.0", "s"]
    assert text.splitlines()[-1] == "in a ring: /a -> /b -> /c -> /a"
    assert render_domain.waits([]) == "no actor waits for another"


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), max_size=8))
def test_a_ring_is_named_exactly_when_there_is_one(edges: list[tuple[str, str]]) -> None:
    def reaches(start: str) -> bool:
        seen: set[str] = set()
        due = [there for here, there in edges if here == start]
        while due:
            if (path := due.pop()) == start:
                return True
            if path not in seen:
                seen.add(path)
                due += [there for here, there in edges if here == path]
        return False

    found = render_domain.rings([wait(here, there) for here, there in edges])
    assert bool(found) == any(reaches(path) for path in "abcd")
    for ring in found:
        assert ring[0] == ring[-1]
        assert all(pair in edges for pair in itertools.pairwise(ring))


def test_an_actor_that_is_stuck_is_the_busiest_although_it_finished_nothing() -> None:
    stuck = answers.row("/stuck", handling="Work", handling_s=30.0)
    earlier = answers.row("/stuck", handling="Work", handling_s=28.0)
    other = answers.row("/other", handled=5, busy_s=0.5)
    found = render.window(answers.tree(0.0, earlier, answers.row("/other")), answers.tree(2.0, stuck, other))
    assert [(row["path"], row["busy"]) for row in found["actors"]] == [("/stuck", 1.0), ("/other", 0.25)]


def test_actors_that_are_behind_come_before_the_busiest_and_those_at_rest_say_why() -> None:
    rows = (
        answers.row("/busy", handled=9, busy_s=0.9, depth=1, oldest_s=0.1),
        answers.row("/late", depth=1, oldest_s=3.0),
        answers.row("/suspended", state="suspended", depth=4, oldest_s=60.0),
        answers.row("/emptied", oldest_s=0.0),
    )
    before = answers.tree(0.0, *(answers.row(each["path"]) for each in rows))
    found = render.window(before, answers.tree(2.0, *rows))
    assert [row["path"] for row in found["actors"]] == ["/suspended", "/late", "/busy", "/emptied"]
    lines = render.top(found, 10).splitlines()
    assert lines[1].split() == ["/suspended", "0.0", "0.0", "%", "4", "+4", "60.0", "s", "(suspended)"]
    assert lines[4].split() == ["/emptied", "0.0", "0.0", "%", "0"]


def test_failures_that_repeat_are_counted() -> None:
    text = render.crashes([answers.crash("/a"), answers.crash("/b"), answers.crash("/a")], tracebacks=False)
    assert text.splitlines()[1].split() == ["2", "2", "/a", "Tick", "RuntimeError:", "x"]
    assert render.crashes([answers.crash("/a")], tracebacks=False).startswith("1970-01-01")
