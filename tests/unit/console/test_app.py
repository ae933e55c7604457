"""The console's terminal, driven by keys, over answers that a test decides."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

pytest.importorskip("textual")

from textual import events
from textual.pilot import Pilot
from textual.widgets import DataTable, Input, Static

from swarmlet.console.app import HISTORY_MAX, OTHER_VERSION, THEMES, Console
from swarmlet.console.pages import ActorPage, CrashPage, LogsPage, TracePage, TreePage
from swarmlet.console.source import Lost, Source
from swarmlet.console.widgets import SIDE
from tests.unit.console import answers
from tests.unit.console.answers import row, tree


class Fake(Source):
    """Answers from a table; ``lost`` makes it fail."""

    def __init__(self) -> None:
        super().__init__("/nowhere")
        self.clock = 0.0
        self.rows = [row("/a"), row("/a/b"), row("/a/c")]
        self.lost = ""
        self.refusals: dict[str, str] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.table: dict[str, Any] = {
            "messages": [answers.figures("Write", 9), answers.figures("Tick", 7)],
            "crashes": [answers.crash("/a")],
            "raft": answers.RAFT,
            "tasks": answers.TASKS,
            "waiting": answers.WAITING,
            "act": "done",
            "node": {"api": []},
        }

    def ask(self, what: str, /, **details: Any) -> Any:
        self.asked.append((what, details))
        if self.lost:
            raise Lost(self.lost)
        if what in self.refusals:
            raise ValueError(self.refusals[what])
        if what == "tree":
            self.clock += 1.0
            return tree(self.clock, *self.rows)
        if what == "actor":
            figures = {"snapshot": {"count": 3}, "messages": [], "parent": "", "children": [], "watchers": [],
                       "stack": [], "waits_for": [], "crashes": []}  # fmt: skip
            return {**row(details["path"]), **figures}
        return self.table[what]

    def get(self, path: str, **query: Any) -> Any:
        if self.lost:
            raise Lost(self.lost)
        return {"/nodes": [answers.NODE], "/services": [answers.SERVICE]}[path]

    def link(self) -> Any:
        return FakeLink(self)


class FakeLink:
    """A trace of two messages that ends at once."""

    def __init__(self, source: Fake) -> None:
        self.source = source

    def __enter__(self) -> FakeLink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing to close."""

    def ask(self, what: str, /, **details: Any) -> Any:
        return self.source.ask(what, **details)

    def follow(self, what: str, /, **details: Any) -> Any:
        self.source.asked.append((what, details))
        yield {"value": {}}
        yield {"more": [answers.record("", "/a"), answers.record("/a", "/b")]}
        yield {"end": "2 messages were traced", "dropped": 1, "taken": 2}


Drive = Callable[[Console, Pilot[None]], Awaitable[None]]


def drive(test: Drive, source: Fake | None = None, write: bool = False, size: tuple[int, int] = (80, 24)) -> None:
    app = Console(source or Fake(), write)

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await settled(pilot, lambda: app._fetched is not None or bool(app.trouble))
            await test(app, pilot)

    asyncio.run(run())


async def settled(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while True:
        await pilot.pause(0.01)
        if condition():
            return
        assert time.monotonic() < limit, "the console did not get there"


def keys(app: Console) -> list[str]:
    return [str(key.value) for key in app.table.rows]


def said(app: Console, place: str) -> str:
    found: Static = {"#head": app.head, "#text": app.text, "#closing": app.closing}[place]
    return str(found.render())


async def press(app: Console, pilot: Pilot[None], *pressed: str) -> None:
    """Keys that lead to another page, and its first answer."""
    before = app.page
    await pilot.press(*pressed)
    await settled(pilot, lambda: app.page is not before and app._fetched is not None)


def test_it_begins_with_the_tree_and_refreshes_it() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        assert keys(app) == ["/a", "/a/b", "/a/c"]
        assert said(app, "#head").startswith(" tree (3)  ·  live")
        source: Any = app.source
        source.rows = [row("/a", depth=5), row("/a/b"), row("/a/d")]
        await settled(pilot, lambda: keys(app) == ["/a", "/a/b", "/a/d"])
        assert app.table.get_row_at(0)[2].plain == "5"

    drive(test)


def test_the_cursor_stays_on_its_row_when_rows_come_and_go() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await pilot.press("down", "down")
        assert app.chosen == "/a/c"
        source: Any = app.source
        source.rows = [row("/a"), row("/a/aa"), row("/a/b"), row("/a/c")]
        await settled(pilot, lambda: len(keys(app)) == 4)
        assert app.chosen == "/a/c"

    drive(test)


def test_enter_leads_deeper_and_escape_back() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await pilot.press("down")
        await press(app, pilot, "enter")
        assert isinstance(app.page, ActorPage)
        assert app.page.subject == "/a/b"
        assert "count  3" in said(app, "#text")
        await press(app, pilot, "escape")
        assert isinstance(app.page, TreePage)

    drive(test)


@pytest.mark.parametrize(
    ("digit", "first"),
    [("2", "Write"), ("4", None), ("6", "n" * 25), ("7", "s" * 25), ("8", "t" * 25)],
)
def test_digits_jump_to_pages(digit: str, first: str | None) -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await press(app, pilot, digit)
        if first is not None:
            assert keys(app)[0] == first

    drive(test)


def test_a_crash_is_shown_with_its_state_and_traceback() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await press(app, pilot, "4")
        await press(app, pilot, "enter")
        assert isinstance(app.page, CrashPage)
        text = said(app, "#text")
        assert "before it: Write" in text
        assert "line 1" in text
        assert "count  3" in text

    drive(test)


def test_a_page_is_reached_by_its_name_and_an_actor_by_its_path() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await press(app, pilot, "colon", *"raf", "enter")
        assert "leader 1 in term 7" in said(app, "#text")
        await press(app, pilot, "colon", *"actor", "space", "slash", "a", "enter")
        assert isinstance(app.page, ActorPage)
        assert app.page.subject == "/a"
        await pilot.press("colon", *"nonsense", "enter")
        assert isinstance(app.page, ActorPage)

    drive(test)


def test_what_is_typed_at_once_behind_a_colon_is_for_the_prompt() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await press(app, pilot, "8")
        app.action_prompt(":")
        assert app.focused is app.prompt, "before anything is drawn"
        await press(app, pilot, *"raf", "enter")
        assert app.page.name == "raft"
        assert app.focused is not app.prompt

    drive(test)


def test_keys_that_come_all_at_once_reach_the_prompt_in_their_order() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await press(app, pilot, "8")
        for key in (":", "r", "a", "f", "t"):
            app.post_message(events.Key(key if key != ":" else "colon", key))  # as a terminal that is behind reads them
        app.post_message(events.Key("enter", None))
        await settled(pilot, lambda: app.page.name == "raft")
        for key in ("/", "a", "/", ":"):
            app.post_message(events.Key({"/": "slash", ":": "colon"}.get(key, key), key))
        await settled(pilot, lambda: app.prompt.value == "a/:")

    drive(test)


def test_what_is_typed_while_it_ends_does_no_harm() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await pilot.press("slash", "a")
        chosen = DataTable.RowSelected(app.table, 0, app.table.ordered_rows[0].key)
        said = (Input.Changed(app.prompt, "ab"), Input.Submitted(app.prompt, "ab"), chosen)
        ended = app._close_messages

        async def late(*args: Any, **options: Any) -> None:
            for message in said:  # the screens are closed by now
                await app._on_message(message)
            handled.append(app.is_running)
            await ended(*args, **options)

        app._close_messages = late  # type: ignore[method-assign]

    handled: list[bool] = []
    drive(test)
    assert handled == [False]


def test_a_filter_works_as_it_is_typed_and_escape_ends_it() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await pilot.press("slash", "c", "enter")
        assert keys(app) == ["/a/c"]
        assert "/c" in said(app, "#head")
        await pilot.press("escape")
        await settled(pilot, lambda: len(keys(app)) == 3)
        await pilot.press("slash", "b")
        assert keys(app) == ["/a/b"]
        await pilot.press("escape")
        assert len(keys(app)) == 3

    drive(test)


def test_rows_are_sorted_turned_and_unsorted() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        source: Any = app.source
        source.rows = [row("/a"), row("/a/b", depth=9), row("/a/c", depth=4)]
        await pilot.press("s", "s", "s", "S")
        await settled(pilot, lambda: keys(app) == ["/a/b", "/a/c", "/a"])
        assert "by depth down" in said(app, "#head")
        for _ in range(6):
            await pilot.press("s")
        assert keys(app) == ["/a", "/a/b", "/a/c"]

    drive(test)


def test_an_actor_is_folded_and_unfolded() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await pilot.press("space")
        assert keys(app) == ["/a"]
        await pilot.press("space")
        assert len(keys(app)) == 3

    drive(test)


def test_an_actor_is_traced_as_a_table_and_as_a_diagram() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await press(app, pilot, "t")
        assert isinstance(app.page, TracePage)
        await settled(pilot, lambda: app.table.row_count == 2)
        await settled(pilot, lambda: "1 dropped" in said(app, "#closing"))
        source: Any = app.source
        asked = dict(source.asked)["trace"]
        assert (asked["paths"], asked["types"]) == (["/a"], [])
        assert asked["count"] > 0
        assert asked["seconds"] > 0
        await pilot.press("d")
        assert "▶" in said(app, "#text")

    drive(test)


def test_a_lost_node_is_said_and_found_again() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        source: Any = app.source
        source.lost = "no node answers"
        await settled(pilot, lambda: "LOST: no node answers" in said(app, "#head"))
        assert len(keys(app)) == 3, "what was known stays on the screen"
        source.lost = ""
        await settled(pilot, lambda: "live" in said(app, "#head"))

    drive(test)


def test_what_a_node_refuses_is_said_in_place_of_the_page_and_is_no_loss() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        source: Any = app.source
        refusal = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state."
        source.refusals["tasks"] = refusal
        await pilot.press("8")
        await settled(pilot, lambda: said(app, "#text") == refusal)
        assert said(app, "#head").strip() == "tasks  ·  live"
        assert not app.head.has_class("lost")
        assert app.chosen == ""
        assert app.text.size.width < 80
        assert app.text.size.height == 2, "a sentence is wrapped"
        source.refusals.clear()
        await settled(pilot, lambda: app.table.row_count > 0 and not app.refused)
        assert not [each for each in app._notifications if "answers again" in each.message]
        source.lost = "no node answers"
        await settled(pilot, lambda: app.head.has_class("lost"))

    drive(test)


def test_what_stands_out_is_coloured_and_what_is_empty_says_so() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        source: Any = app.source
        source.rows[1]["state"] = "suspended"
        await settled(pilot, lambda: "dark_orange" in [str(app.table.get_cell("/a/b", "1").style)])
        assert str(app.table.get_cell("/a", "1").style) == ""
        source.table["crashes"] = []
        await press(app, pilot, "4")
        await settled(pilot, lambda: said(app, "#closing") == "nothing failed")

    drive(test)


@pytest.mark.parametrize("kind", [":", "/"])
def test_a_prompt_says_what_it_asks_for_and_help_fits_on_80_columns(kind: str) -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        app.action_prompt(kind)
        await pilot.pause()
        assert str(app.kind.render()) == kind
        assert app.prompting.display
        await pilot.press("escape", "question_mark")
        await pilot.pause()
        help_ = app.screen.query_one("#help", Static)
        assert help_.size.width == max(len(line) for line in str(help_.render()).splitlines()), "no line is wrapped"

    drive(test)


def test_a_cell_that_grew_is_drawn_whole_although_it_is_drawn_before_the_table_is_idle() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await press(app, pilot, "8")
        why = "a reason that is longer than the one there was before"
        await pilot.press("p")
        await settled(pilot, lambda: not app._asking)
        task = {**answers.TASKS["tasks"][0], "why": why}
        app._fetched = {**answers.TASKS, "tasks": [task]}
        app._show()
        app.table.render_lines(app.table.size.region)  # as a refresh that comes in between
        await pilot.pause()
        lines = app.table.render_lines(app.table.size.region)
        assert any(why in line.text for line in lines)
        width = app.table.virtual_size.width
        app._fetched = answers.TASKS
        app._show()
        await pilot.pause()
        assert app.table.virtual_size.width == width, "columns do not jump"

    drive(test, size=(160, 48))


def test_escape_leads_back_to_a_page_as_it_was_left() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await pilot.press("slash", "/", "a", "/", "enter", "s", "down")
        assert (keys(app), app.chosen) == (["/a/b", "/a/c"], "/a/c")
        await press(app, pilot, "enter")
        await press(app, pilot, "escape")
        await settled(pilot, lambda: keys(app) == ["/a/b", "/a/c"])
        assert (app.wanted, app.column, app.chosen) == ("/a/", 0, "/a/c")

    drive(test)


def test_what_was_left_long_ago_is_let_go() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        closed: list[str] = []

        class Left(ActorPage):
            def close(self) -> None:
                closed.append(self.subject)

        for number in range(HISTORY_MAX + 3):
            app.open(Left(f"/{number}"))
        assert len(app.history) == HISTORY_MAX
        assert closed == ["/0", "/1"]
        app.action_page("tree")
        before = app.page
        app.action_page("tree")
        assert app.page is before, "the page that is shown is not opened again"

    drive(test)


def test_an_explanation_is_reached_by_name() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        source: Any = app.source
        source.table["explain"] = {"kind": "service", "name": "web", "id": "1", "state": "0 of 1 tasks run",
                                   "waits": [], "silent": []}  # fmt: skip
        await press(app, pilot, "colon", *"expl", "space", *"web", "enter")
        assert ("explain", {"name": "web"}) in source.asked
        assert "0 of 1 tasks run" in said(app, "#text")
        await pilot.press("colon", *"explain", "enter")
        await settled(pilot, lambda: "Type :explain and the name" in said(app, "#text"))

    drive(test)


@pytest.mark.parametrize("digit", ["8", "5"])
def test_the_arrows_move_what_is_wider_than_the_terminal(digit: str) -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        source: Any = app.source
        source.table["tasks"] = {**answers.TASKS, "tasks": [{**answers.TASKS["tasks"][0], "why": "x" * 200}]}
        await press(app, pilot, digit)
        moved = app.table if digit == "8" else app.scroll
        await settled(pilot, lambda: moved.max_scroll_x >= SIDE)
        await pilot.press("right")
        await settled(pilot, lambda: moved.scroll_offset.x == SIDE)
        await pilot.press("left")
        await settled(pilot, lambda: moved.scroll_offset.x == 0)

    drive(test, size=(50, 24))


def test_a_node_leads_to_what_would_happen_without_it() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        source: Any = app.source
        source.table["plan"] = {"action": "rm", "id": "1", "name": "one", "warnings": ["it is a manager"], "ends": [],
                                "moves": [{"task": "web.1", "to": "two", "waits": ""}]}  # fmt: skip
        await press(app, pilot, "6")
        await press(app, pilot, "enter")
        assert ("plan", {"action": "rm", "name": "n" * 25}) in source.asked
        assert "if node one were removed: 1 task would move" in said(app, "#text")
        await pilot.press("colon", *"plan", "enter")
        await settled(pilot, lambda: "Type :plan and the name of a node" in said(app, "#text"))

    drive(test)


@pytest.mark.parametrize(("digit", "what"), [("4", "crashes"), ("5", "raft"), ("8", "tasks")])
def test_an_answer_of_another_version_is_said_and_ends_nothing(digit: str, what: str) -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        source: Any = app.source
        source.table[what] = {"raft": {"loaded": True}} if what == "raft" else [{"at": 1.0}]
        await pilot.press(digit)
        await settled(pilot, lambda: said(app, "#text") == OTHER_VERSION)
        await press(app, pilot, "1")
        assert keys(app) == ["/a", "/a/b", "/a/c"]

    drive(test)


def test_what_a_task_prints_does_not_command_the_terminal() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        source: Any = app.source
        source.refusals["messages"] = "\x1b[2J\x1b]0;title\x07[/b] wide: 日本"
        await pilot.press("2")
        await settled(pilot, lambda: said(app, "#text") == "^[[2J^[]0;title^G[/b] wide: 日本")

    drive(test)


def test_an_actor_is_shown_with_windows_that_grow() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        source: Any = app.source
        handled = iter(range(0, 10_000, 10))
        clock = iter(range(10_000))
        inner = source.ask

        def ask(what: str, /, **details: Any) -> Any:
            more = {"clock": float(next(clock)), "handled": next(handled)} if what == "actor" else {}
            found = inner(what, **details)
            return {**found, **more} if more else found

        source.ask = ask
        await press(app, pilot, "enter")
        await settled(pilot, lambda: "over 10 s: 10.0 messages a second" in said(app, "#text"))
        assert "over 1 s: 10.0 messages a second" in said(app, "#text")

    drive(test)


def test_nothing_new_is_shown_while_it_is_paused() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await pilot.press("p")
        source: Any = app.source
        await settled(pilot, lambda: not app._asking)
        count = len(source.asked)
        await pilot.pause(0.2)
        assert len(source.asked) == count
        assert "paused" in said(app, "#head")
        await press(app, pilot, "2")
        assert keys(app), "another page is asked for once"
        count = len(source.asked)
        await pilot.pause(0.2)
        assert len(source.asked) == count

    drive(test)


def acts(app: Console) -> list[dict[str, Any]]:
    source: Any = app.source
    return [details for what, details in source.asked if what == "act"]


def test_acts_need_write_mode() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await pilot.press("R", "y")
        assert acts(app) == []

    drive(test)


@pytest.mark.parametrize(("key", "act"), [("R", "restart"), ("Z", "suspend"), ("U", "resume")])
def test_acts_need_a_yes(key: str, act: str) -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await pilot.press(key, "n")
        assert acts(app) == []
        await pilot.press(key, "y")
        await settled(pilot, lambda: bool(acts(app)))
        assert acts(app) == [{"act": act, "path": "/a", "write": True}]

    drive(test, write=True)


def test_logs_are_asked_for_by_service() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await press(app, pilot, "9")
        assert "Choose a service" in said(app, "#text")
        await press(app, pilot, "7")
        await pilot.press("enter")
        assert isinstance(app.page, LogsPage)
        assert app.page.subject == "s" * 25

    drive(test)


def test_help_and_themes() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await pilot.press("question_mark")
        assert "pages: tree" in str(app.screen.query_one("#help", Static).render())
        await pilot.press("escape")
        seen = {app.theme}
        for _ in THEMES:
            await pilot.press("T")
            seen.add(app.theme)
        assert set(THEMES) <= seen

    drive(test, size=(120, 40))
