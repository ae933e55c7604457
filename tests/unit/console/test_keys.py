"""What the keys beside the pages' own do: logs, explanations, copies, files; and what the head and the key bar say."""

from __future__ import annotations

import datetime
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual")

from textual.pilot import Pilot
from textual.widgets import Footer
from textual.widgets._footer import FooterKey

from swarmlet.console import saving
from swarmlet.console.app import Console
from swarmlet.console.pages import ExplainPage, LogsPage, TreePage
from swarmlet.console.views import Row, Table
from tests.unit.console import answers
from tests.unit.console.answers import row
from tests.unit.console.test_app import Fake, drive, keys, press, said, settled

EXPLANATION = {
    "kind": "task", "id": "t1", "name": "web.1", "state": "pending", "silent": [],
    "waits": [{"who": "scheduler", "why": "no suitable node", "seconds": None, "count": 1, "subjects": ["task web.1"]}],
}  # fmt: skip


class Streams:
    """Stands for the API's streams: notes what was asked for, and has nothing to say."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def logs(self, name: str, kind: str) -> Streams:
        self.asked.append((kind, name))
        return self

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def close(self) -> None:
        """Nothing is open."""


class Swarm(Fake):
    """With streams, and explanations."""

    streams = Streams()

    def __init__(self) -> None:
        super().__init__()
        self.table["explain"] = EXPLANATION
        self.streams = Streams()

    @property
    def engine(self) -> Any:
        return self.streams


def offered(app: Console) -> list[str]:
    """What the key bar offers, from left to right."""
    return [each.description for each in app.query_one(Footer).query(FooterKey)]


@pytest.mark.parametrize(("digit", "asked"), [("7", ("services", "s" * 25)), ("8", ("tasks", "t" * 25))])
def test_logs_of_the_chosen_service_or_task_are_one_key_away(digit: str, asked: tuple[str, str]) -> None:
    source = Swarm()

    async def test(app: Console, pilot: Pilot[None]) -> None:
        await press(app, pilot, digit)
        await settled(pilot, lambda: bool(app.chosen))
        await press(app, pilot, "l")
        assert isinstance(app.page, LogsPage)
        await settled(pilot, lambda: source.streams.asked == [asked])
        await press(app, pilot, "escape")
        await press(app, pilot, "e")
        assert isinstance(app.page, ExplainPage)
        assert app.page.subject == asked[1]
        await settled(pilot, lambda: "scheduler" in said(app, "#text"))
        assert [str(each.style) for each in app.text.render().spans if "red" in str(each.style)], "trouble stands out"  # type: ignore[union-attr]

    drive(test, source)


def test_keys_that_do_nothing_here_are_not_in_the_key_bar_and_do_nothing() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await settled(pilot, lambda: offered(app) == ["open", "page", "filter", "sort", "trace", "help", "quit"])
        await pilot.press("l", "e")
        assert isinstance(app.page, TreePage)
        await press(app, pilot, "5")
        await settled(pilot, lambda: offered(app) == ["page", "filter", "back", "help", "quit"])
        await press(app, pilot, "6")
        await settled(pilot, lambda: offered(app) == ["open", "page", "filter", "back", "sort", "help", "quit"])
        widths = sum(each.region.width for each in app.query_one(Footer).query(FooterKey))
        assert widths <= 80, "all of it is seen on 80 columns"

    drive(test)


def test_the_head_says_how_many_rows_there_are_and_what_fits_a_filter() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await settled(pilot, lambda: said(app, "#head").startswith(" tree (3)  ·  live"))
        await pilot.press("/", "[", "b")
        await settled(pilot, lambda: keys(app) == [])
        assert said(app, "#head").startswith(" tree (0 of 3)  ·  /[b")
        assert said(app, "#closing").endswith("nothing fits /[b: Esc ends the filter")
        await pilot.press("backspace", "backspace", "c", "enter")
        await settled(pilot, lambda: keys(app) == ["/a/c"])
        assert said(app, "#head").startswith(" tree (1 of 3)  ·  /c")

    drive(test)


def test_the_head_says_where_there_is_more_to_the_right() -> None:
    source = Fake()
    source.rows = [row("/a", last_error="E: " + "x" * 50)]

    async def test(app: Console, pilot: Pilot[None]) -> None:
        await settled(pilot, lambda: said(app, "#head").endswith("more ▸"))
        await pilot.press(*["right"] * 9)
        await settled(pilot, lambda: said(app, "#head").endswith("live"))

    drive(test, source)


def test_a_node_that_does_not_answer_is_said_not_to_before_the_question_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("swarmlet.console.app.SILENT_S", 0.1)
    go_on = threading.Event()

    class Hangs(Fake):
        hangs = False

        def ask(self, what: str, /, **details: Any) -> Any:
            if self.hangs:
                assert go_on.wait(60)
            return super().ask(what, **details)

    source = Hangs()

    async def test(app: Console, pilot: Pilot[None]) -> None:
        source.hangs = True
        try:
            await settled(pilot, lambda: "no answer for " in said(app, "#head"))
            assert keys(app) == ["/a", "/a/b", "/a/c"], "what is known stays"
        finally:
            source.hangs = False
            go_on.set()
        await settled(pilot, lambda: said(app, "#head").startswith(" tree (3)  ·  live"))

    drive(test, source)


def test_paths_and_ids_go_to_the_clipboard() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await pilot.press("j", "c")
        await settled(pilot, lambda: app.clipboard == "/a/b")
        await press(app, pilot, "enter")
        await pilot.press("c")
        assert app.clipboard == "/a/b", "what the page is about"
        await press(app, pilot, "5")
        await pilot.press("c")
        assert app.clipboard == "/a/b", "that page is about nothing"

    drive(test)


def test_letters_move_as_in_vi() -> None:
    source = Fake()
    source.rows = [row(f"/a{number:02}") for number in range(60)]

    async def test(app: Console, pilot: Pilot[None]) -> None:
        for key, chosen in (("j", "/a01"), ("j", "/a02"), ("k", "/a01"), ("G", "/a59"), ("g", "/a00")):
            await pilot.press(key)
            await settled(pilot, lambda chosen=chosen: app.chosen == chosen)  # type: ignore[misc]

    drive(test, source)


def test_long_lines_are_wrapped_and_run_on_by_a_key() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await press(app, pilot, "5")
        await settled(pilot, lambda: app.text.has_class("wide"))
        await pilot.press("w")
        await settled(pilot, lambda: not app.text.has_class("wide"))
        await pilot.press("w")
        await settled(pilot, lambda: app.text.has_class("wide"))

    drive(test)


def test_a_page_is_saved_as_it_is_filtered_and_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def saved() -> list[Path]:
        return list(tmp_path.iterdir())

    async def test(app: Console, pilot: Pilot[None]) -> None:
        await pilot.press("/", "a", "/", "enter", "ctrl+s")
        await settled(pilot, lambda: bool(saved()))
        (path,) = saved()
        lines = path.read_text(encoding="utf-8").splitlines()
        assert lines[0].split()[:2] == ["ACTOR", "STATE"]
        assert [line.split()[0] for line in lines[1:3]] == ["/a/b", "/a/c"]
        assert lines[3:] == ["3 actors, 0 failures kept, 0 dead letters"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        monkeypatch.setattr("swarmlet.console.saving.write_private", full)
        await pilot.press("ctrl+s")
        await settled(pilot, lambda: any("not saved: no room" in each.message for each in app._notifications))

    drive(test)


def full(path: str, data: bytes) -> None:
    raise OSError(28, "no room")


NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


def test_a_file_takes_the_place_of_none_and_has_whole_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = Table(("A", "B"), (Row("1", ("x" * 200, "\x1b[2J")),), (), "1 row")
    paths = [saving.save("tree", table, NOW), saving.save("tree", "said", NOW)]
    assert [path.name for path in paths] == ["swarmlet-tree-20260102T030405.txt", "swarmlet-tree-20260102T030405-1.txt"]
    assert paths[0].read_text(encoding="utf-8") == f"A{' ' * 199}  B\n{'x' * 200}  ^[[2J\n1 row\n"
    assert paths[1].read_text(encoding="utf-8") == "said\n"
    monkeypatch.setattr(saving, "SAME_SECOND_MAX", 2)
    with pytest.raises(FileExistsError, match="is there 2 times"):
        saving.save("tree", table, NOW)


def test_a_name_that_is_mistyped_is_asked_back() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        for typed, told in (("tsaks", "there is no page 'tsaks'; tasks is one"), ("[x", "there is no page '[x'")):
            await pilot.press(":", *typed, "enter")
            await settled(pilot, lambda told=told: told in [each.message for each in app._notifications])  # type: ignore[misc]
        assert isinstance(app.page, TreePage)

    drive(test)


def test_empty_pages_say_what_there_is_not() -> None:
    source = Fake()
    source.table |= {"crashes": [], "waiting": {"count": 0, "tasks": [], "behind": ["no leader is known here"]}}

    async def test(app: Console, pilot: Pilot[None]) -> None:
        await press(app, pilot, "4")
        await settled(pilot, lambda: said(app, "#closing") == "nothing failed")
        await press(app, pilot, ":", *"waiting", "enter")
        old = "WHAT IS KNOWN HERE MAY BE OLD: no leader is known here"
        await settled(pilot, lambda: said(app, "#closing") == f"{old}; no task waits")

    drive(test, source)


def test_a_list_that_is_cut_is_counted_in_its_title() -> None:
    async def test(app: Console, pilot: Pilot[None]) -> None:
        await press(app, pilot, "8")
        await settled(pilot, lambda: said(app, "#head").startswith(" tasks (1 of 10000)"))

    drive(test)
    assert answers.TASKS["count"] == 10_000
