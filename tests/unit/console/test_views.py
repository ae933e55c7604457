"""What the console's screens show, as tables."""

from __future__ import annotations

import pytest

pytest.importorskip("rich")

from rich.cells import cell_len

from swarmlet.console import views
from swarmlet.console.views import Row, Table, arranged, fitted
from tests.unit.console import answers
from tests.unit.console.answers import row, tree


def cells(table: Table) -> list[tuple[str, ...]]:
    return [each.cells for each in table.rows]


def test_the_tree_shows_what_happened_between_two_answers() -> None:
    before = tree(10.0, row("/a", handled=100, busy_s=1.0))
    busy = row("/a", handled=150, busy_s=1.5, depth=3, oldest_s=0.25)
    after = tree(12.0, busy, row("/a/b", restarts=2, last_error="E: x\ny"))
    table = views.tree(before, after)
    assert table.columns == ("ACTOR", "STATE", "DEPTH", "MSG/S", "BUSY", "FAILS", "NOW", "LAST ERROR")
    assert cells(table) == [
        ("▾ a", "running", "3", "25.0", "25%", "", "oldest 250.0 ms", ""),
        ("    b", "running", "0", "0.0", "0%", "2", "", "E: x y"),
    ]
    assert table.closing == "2 actors, 0 failures kept, 0 dead letters"


def test_a_folded_actor_hides_what_is_below_it() -> None:
    after = tree(1.0, row("/a"), row("/a/b"), row("/a/b/c"), row("/ab"))
    table = views.tree(None, after, frozenset({"/a"}))
    assert [each.key for each in table.rows] == ["/a", "/ab"]
    assert table.rows[0].cells[0] == "▸ a"


def test_work_in_hand_is_named_with_its_time_and_long_names_are_cut() -> None:
    table = views.tree(None, tree(1.0, row("/task-" + "x" * 40, handling="Write", handling_s=2.0)))
    assert table.rows[0].cells[6] == "Write 2.0 s"
    assert len(table.rows[0].cells[0]) == views.NAME_MAX


def test_messages_crashes_and_traces_have_a_row_each() -> None:
    assert cells(views.messages([answers.figures("Write", 5)]))[0][:4] == ("Write", "5", "", "")
    rated = {**answers.figures("Write", 5), "rate": 2.5, "failed": 1}
    assert cells(views.messages([rated]))[0][:4] == ("Write", "5", "2.5", "1")
    crashes = views.crashes([answers.crash("/old"), answers.crash("/new", "E: a\n b")])
    assert [each[1:] for each in cells(crashes)] == [
        ("/new", "2", "Tick", "E: a b"),
        ("/old", "2", "Tick", "RuntimeError: x"),
    ]
    traced = views.trace([answers.record("", "/a", told=5.0), answers.record("/a", "/b", told=5.5)])
    assert [each[:4] for each in cells(traced)] == [
        ("+0 us", "(outside)", "a", "Write"),
        ("+500.0 ms", "a", "b", "Write"),
    ]


def test_a_trace_shows_the_message_on_80_columns_and_a_filter_knows_whole_paths() -> None:
    table = views.trace(
        [answers.record("/cluster/node/manager/raft", "/cluster/node/manager/raft/transport", "SendRaft")]
    )
    assert cells(table)[0][1:4] == ("raft", "transport", "SendRaft")
    assert len(arranged(table, "manager/raft", None, False).rows) == 1


def test_an_actor_that_is_stuck_is_said_to_be() -> None:
    table = views.tree(None, tree(1.0, row("/a", handling="Write", handling_s=3.0)))
    assert cells(table)[0][1] == "stuck"


def test_an_actor_out_of_its_place_has_its_path() -> None:
    table = views.tree(None, tree(1.0, row("/a"), row("/a/log", depth=2), row("/a/" + "x" * 40 + "/log", depth=3)))
    by_depth = arranged(table, "", 2, True)
    assert [each.cells[0] for each in by_depth.rows] == ["…" + "x" * 25 + "/log", "/a/log", "/a"]
    assert all(len(each.cells[0]) <= views.NAME_MAX for each in by_depth.rows)
    assert [each.cells[0] for each in arranged(table, "/a/log", None, False).rows] == ["/a/log"]
    assert arranged(table, "", 0, False).rows[1].cells[0].endswith("  log"), (
        "in the tree's own order it is drawn as one"
    )


def test_nothing_in_a_cell_commands_the_terminal() -> None:
    table = arranged(Table(("A",), (Row("k", ("\x1b[31mred\x1b[0m \x1b]0;x\x07",)),)), "", None, False)
    assert table.rows[0].cells == ("red ^[]0;x^G",)


def test_the_swarm_is_shown_as_docker_shows_it() -> None:
    assert cells(views.nodes([answers.NODE], {})) == [("one", "ready", "active", "Leader", "10.0.0.1", "n" * 12, "")]
    assert cells(views.services([answers.SERVICE], {})) == [
        ("web", "replicated", "1/2", "host:latest", "", "s" * 12, "")
    ]
    (task,) = cells(views.tasks(answers.TASKS))
    assert task == ("web.1", "pending", "running", "one", "t" * 12, "no suitable node (x)")


def test_a_node_that_may_be_behind_says_so_below_what_its_api_answers() -> None:
    asked = {"behind": ["no leader is known here"]}
    for table in (views.nodes([], asked), views.services([], asked)):
        assert table.closing == "WHAT IS KNOWN HERE MAY BE OLD: no leader is known here"
    assert views.nodes([answers.NODE], {"behind": []}).closing == ""


def test_a_list_that_is_cut_says_how_much_there_is() -> None:
    assert views.tasks(answers.TASKS).closing == "first 1 of 10000 tasks"
    assert views.tasks({**answers.TASKS, "found": 1}).closing == "1 task that fits, of 10000"
    assert views.waiting(answers.WAITING).closing == "first 2 of 3 tasks that wait; Enter explains one"


def test_an_event_is_a_line() -> None:
    event = {"Type": "service", "Action": "update", "time": 3661,
             "Actor": {"ID": "x" * 25, "Attributes": {"name": "web", "replicas.new": "3"}}}  # fmt: skip
    assert views.event(event) == "01:01:01  service  update   web  replicas.new=3"
    assert views.event({}) == "00:00:00"


TABLE = Table(
    ("NAME", "COUNT"),
    (Row("1", ("web", "9"), ("web", 9)), Row("2", ("Api", "10"), ("Api", 10)), Row("3", ("db", "10"), ("db", 10))),
)


@pytest.mark.parametrize(
    ("wanted", "column", "descending", "keys"),
    [
        ("", None, False, "123"),
        ("API", None, False, "2"),
        ("b", None, False, "13"),
        ("zz", None, False, ""),
        ("", 0, False, "231"),
        ("", 1, False, "123"),
        ("", 1, True, "231"),
        ("", 7, False, "123"),
    ],
)
def test_rows_are_filtered_and_sorted_by_value(wanted: str, column: int | None, descending: bool, keys: str) -> None:
    assert "".join(row.key for row in arranged(TABLE, wanted, column, descending).rows) == keys


def test_a_long_name_leaves_room_for_the_rest_and_the_last_cell_is_whole() -> None:
    long = "x" * 50
    (row_,) = fitted(Table(("A", "B"), (Row("k", (long, long)),)), 20).rows
    assert row_.cells == ("x" * 13 + "…xxxxxx", long)
    (row_,) = fitted(Table(("A", "B"), (Row("k", (f"{long}.17", "")),)), 20).rows
    assert row_.cells[0].endswith("…xxx.17")
    (row_,) = fitted(Table(("A", "B"), (Row("k", ("日本" * 10, "")),)), 20).rows
    assert cell_len(row_.cells[0]) <= 20
    assert row_.cells[0].endswith("…日本日本日本")
    short = Table(("A",), (Row("k", ("short",)),))
    assert fitted(short, 20) == short
