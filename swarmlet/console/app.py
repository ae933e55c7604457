"""The console's terminal: one page at a time over a key bar, refreshed in the background.

Keys are those that people know from k9s and htop. Nothing blocks the terminal: every question runs on a worker, at most
one at a time, not more often than once a second. Rows keep their place and the cursor its row.
"""

from __future__ import annotations

import datetime
import difflib
import time
from typing import Any, ClassVar, Final

from rich.cells import cell_len
from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import DataTable, Footer, Input, Static

from runtime.introspection.lines import harmless
from swarmlet.console import saving
from swarmlet.console.pages import (
    EXPLAINED,
    JUMPS,
    PAGES,
    ActorPage,
    ExplainPage,
    FollowPage,
    Page,
    TracePage,
    TreePage,
)
from swarmlet.console.source import Lost, Source
from swarmlet.console.views import NAME_MAX, Table, arranged, fitted
from swarmlet.console.widgets import Help, Question, Rows, Sheet

REFRESH_S: Final = 1.0
HISTORY_MAX: Final = 20
SILENT_S: Final = 2.0
"""A question that has no answer for so long is said to have none."""
NAME_SHARE: Final = 0.4
"""Of the width, for a cell that is not the last of its row, beyond what a name in the tree has."""
OTHER_VERSION: Final = "The node is of another version: this page of its answer cannot be read here."
THEMES: Final = ("textual-dark", "textual-light", "nord", "gruvbox", "solarized-light")
TROUBLE: Final = (
    r"NO LEADER[^\n]*|\bNO\b|WHAT IS KNOWN HERE MAY BE OLD:[^\n]*|\bwarning:|\bdid not answer\b|\bof different minds\b"
    r"|(?<!/)\b(?:stuck|suspended)\b|\bno suitable node\b"  # an actor may be called so
)
"""What stands out in the text of a page that ``marks``."""
# Words that are the whole of a cell, and how they stand out. What is well is not coloured.
STANDS_OUT: Final = {
    **dict.fromkeys(("failed", "rejected", "orphaned", "down", "stuck", "disconnected", "unreachable"), "bold red"),
    **dict.fromkeys(("pending", "preparing", "starting", "restarting", "suspended", "paused", "drain"), "dark_orange"),
}


class Console(App[None]):
    """``source`` gives the answers; ``write`` allows acts."""

    CSS = """
    #head { height: 1; background: $primary; color: $text; }
    #head.lost { background: $error; }
    #table { height: 1fr; scrollbar-size: 0 1; }
    #scroll { height: 1fr; padding: 0 1; scrollbar-size: 0 1; }
    #text.wide { width: auto; text-wrap: nowrap; }
    #closing { height: 1; color: $text-muted; }
    #prompting { height: 1; }
    #kind { width: 2; padding: 0 0 0 1; }
    #prompt { height: 1; width: 1fr; border: none; padding: 0; }
    .hidden { display: none; }
    Question, Help { align: center middle; }
    #question, #help { width: auto; max-width: 100%; height: auto; border: round $primary; padding: 1 2;
                       background: $surface; }
    """
    TITLE = "swarmlet"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        # Before whoever has the focus is told: the keys behind them would still be told to the table.
        Binding("colon", "prompt(':')", "page", key_display="0-9 :", priority=True),
        Binding("slash", "prompt('/')", "filter", key_display="/", priority=True),
        Binding("escape", "back", "back", key_display="esc"),
        Binding("s", "sort", "sort"),
        Binding("S", "turn", "turn", show=False),
        Binding("space", "fold", "fold", show=False),
        Binding("t", "trace", "trace"),
        Binding("d", "diagram", "diagram", show=False),
        Binding("a", "again", "anew", show=False),
        Binding("l", "logs", "logs", show=False),
        Binding("e", "explain", "explain", show=False),
        Binding("c", "copy", "copy", show=False),
        Binding("w", "wrap", "wrap", show=False),
        Binding("ctrl+s", "save", "save", show=False),
        Binding("p", "pause", "pause", show=False),
        Binding("R", "act('restart')", "restart", show=False),
        Binding("Z", "act('suspend')", "suspend", show=False),
        Binding("U", "act('resume')", "resume", show=False),
        Binding("T", "theme", "theme", show=False),
        Binding("question_mark", "help", "help", key_display="?"),
        Binding("q", "quit", "quit"),
        *(
            Binding(str((number + 1) % 10), f"page('{name}')", name, show=False)
            for number, name in enumerate(list(PAGES)[:10])
        ),
    ]

    def __init__(self, source: Source, write: bool = False) -> None:
        super().__init__()
        self.source = source
        self.write = write
        self.page: Page = TreePage()
        self.history: list[Page] = []
        self.wanted = ""
        self.column: int | None = None
        self.descending = False
        self.paused = False
        self.trouble = ""
        self.refused = ""
        self._fetched: Any = None
        self._asking = False
        self._asked_at = 0.0
        self._count = ""
        self._columns: tuple[str, ...] = ()
        self._prompt = ""

        # Kept, not looked up: a question or the help may lie above the screen that they are on.
        self.head = Static("", id="head", markup=False)
        self.table = Rows(id="table", cursor_type="row", zebra_stripes=True)
        self.text = Static("", id="text", markup=False)
        self.scroll = Sheet(self.text, id="scroll", classes="hidden")
        self.closing = Static("", id="closing", markup=False)
        self.prompt = Input(id="prompt", compact=True)
        self.kind = Static("", id="kind", markup=False)
        self.prompting = Horizontal(self.kind, self.prompt, id="prompting")
        self.prompting.display = False

    def compose(self) -> ComposeResult:
        yield from (self.head, self.table, self.scroll, self.closing, self.prompting, Footer())

    def on_mount(self) -> None:
        """Begins to ask."""
        self.table.focus()
        self.set_interval(REFRESH_S, self.refresh_page)
        self.refresh_page()

    # Answers

    def refresh_page(self, first: bool = False) -> None:
        """Asks for what the page shows, unless that is under way already; while it is paused only for the ``first``."""
        if self._asking:
            self._show_head()  # which says so when that takes long
        elif first or not self.paused:
            self._asking, self._asked_at = True, time.monotonic()
            self.page.wanted = self.wanted
            self._fetch(self.page)

    @work(thread=True, group="fetch")
    def _fetch(self, page: Page) -> None:
        fetched: Any = None
        trouble = refused = ""
        try:
            fetched = page.fetch(self.source)
        except Lost as error:
            trouble = str(error)
        except ValueError as error:
            refused = str(error)
        except (LookupError, TypeError, AttributeError):
            refused = OTHER_VERSION
        self.call_from_thread(self._arrived, page, fetched, trouble, refused)

    def _arrived(self, page: Page, fetched: Any, trouble: str, refused: str) -> None:
        self._asking = False
        if not self.is_running:
            return
        if page is not self.page:
            self.refresh_page(first=True)
            return
        back = bool(self.trouble) and not trouble
        self.trouble = trouble
        if back:
            self.notify("the node answers again")
            if isinstance(page, FollowPage):
                page.again()
        if not trouble:
            self._fetched, self.refused = fetched, refused
            self._show()
        self._show_head()

    def _shown(self) -> Table | str:
        if self.refused:
            return self.refused
        try:
            return self.page.show(self._fetched)
        except (LookupError, TypeError, AttributeError):
            self.refused = OTHER_VERSION
            return self.refused

    def _show(self) -> None:
        if self._fetched is None and not self.refused:
            return
        shown = self._shown()
        is_text, self._count = isinstance(shown, str), ""
        self.table.set_class(is_text, "hidden")
        self.scroll.set_class(not is_text, "hidden")
        if isinstance(shown, str):
            self._show_text(shown)
        else:
            table = arranged(shown, self.wanted, self.column, self.descending)
            self._count = table.count
            self._show_table(fitted(table, max(NAME_MAX, int(self.size.width * NAME_SHARE))))

    def _show_text(self, text: str) -> None:
        if self.wanted:
            text = "\n".join(line for line in text.splitlines() if self.wanted.lower() in line.lower())
        at_end = self.scroll.scroll_offset.y >= self.scroll.max_scroll_y
        self.text.set_class(not self.page.wraps and not self.refused, "wide")
        found = Text(harmless(text).expandtabs())  # the terminal's widths are measured without tabs
        if self.page.marks:
            found.highlight_regex(TROUBLE, "bold red")
        self.text.update(found)
        self.closing.update("")
        if isinstance(self.page, FollowPage) and at_end:
            self.scroll.scroll_end(animate=False)

    def _show_table(self, shown: Table) -> None:
        table = self.table
        if self._columns != shown.columns:
            table.clear(columns=True)
            for number, column in enumerate(shown.columns):
                table.add_column(column, key=str(number))
            self._columns = shown.columns
        here = [str(key.value) for key in table.rows]
        keys = [row.key for row in shown.rows]
        if here == keys:
            self._update_cells(shown)
        else:
            self._replace_rows(shown)
        fits_none = f"nothing fits /{self.wanted}: Esc ends the filter" if self.wanted else self.page.empty
        self.closing.update("; ".join(filter(None, (shown.closing, "" if shown.rows else fits_none))))

    def _update_cells(self, shown: Table) -> None:
        """Only what changed is drawn anew: nothing flickers."""
        for index, row in enumerate(shown.rows):
            present = self.table.get_row_at(index)
            for number, cell in enumerate(row.cells):
                if present[number].plain != cell:
                    self.table.update_cell(row.key, str(number), _cell(cell, number in shown.right))
        self._widen(shown)

    def _widen(self, shown: Table) -> None:
        """Makes columns as wide as what is in them, before anything is drawn: the table would measure that once it is
        idle, and keep what it drew until then, cut to the old width. No column of a page becomes narrower again."""
        for number, column in enumerate(self.table.ordered_columns):
            needed = max((cell_len(row.cells[number]) for row in shown.rows), default=0)
            if needed > column.content_width:
                column.content_width = needed
                self.table._require_update_dimensions = True  # how far it can be scrolled follows from the widths

    def _replace_rows(self, shown: Table) -> None:
        table, chosen, begins = self.table, self.chosen or self.page.chosen, not self.table.row_count
        top = table.scroll_offset
        table.clear()
        for row in shown.rows:
            table.add_row(*(_cell(cell, number in shown.right) for number, cell in enumerate(row.cells)), key=row.key)
        self._widen(shown)
        if chosen in table.rows:
            table.move_cursor(row=table.get_row_index(chosen), animate=False, scroll=begins)
        if not begins:
            table.scroll_to(y=top.y, animate=False)

    @property
    def chosen(self) -> str:
        """The key of the row under the cursor; empty if there is none."""
        table = self.table
        if not table.row_count or self.page.is_text or self.refused:
            return ""
        return str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value)

    def _show_head(self) -> None:
        said = [f" {self.page.title} {self._count}".rstrip()]
        if self.wanted:
            said.append(f"/{self.wanted}")
        if self.column is not None and self.column < len(self._columns):
            said.append(f"by {self._columns[self.column].lower()}{' down' if self.descending else ''}")
        if self.paused:
            said.append("paused: p goes on")
        said.append(self._stands())
        if self.write:
            said.append("write mode")
        shown = self.table if self.scroll.has_class("hidden") else self.scroll
        if shown.scroll_offset.x < shown.max_scroll_x:
            said.append("more ▸")
        self.head.set_class(bool(self.trouble), "lost")
        self.head.update("  ·  ".join(said))

    def _stands(self) -> str:
        if self.trouble:
            return f"LOST: {harmless(self.trouble)}"
        silent = time.monotonic() - self._asked_at if self._asking else 0.0
        if silent >= SILENT_S:
            return f"no answer for {silent:.0f} s"
        return "asking" if self._fetched is None and not self.refused else "live"

    # Ways

    def open(self, page: Page) -> None:
        """Shows another page; Esc leads back, as it was left."""
        left = self.page
        left.wanted, left.column, left.descending, left.chosen = self.wanted, self.column, self.descending, self.chosen
        self.history.append(left)
        if len(self.history) > HISTORY_MAX:
            self.history.pop(0).close()
        self._change(page)

    def _change(self, page: Page) -> None:
        self.page, self._fetched, self.refused, self._count = page, None, "", ""
        self.table.leads = page.leads
        self.wanted, self.column, self.descending = page.wanted, page.column, page.descending
        self.table.clear(columns=True)
        self._columns = ()
        self.text.update("")
        self.closing.update("")
        (self.scroll if page.is_text else self.table).focus()
        self._show_head()
        self.refresh_bindings()
        self.refresh_page(first=True)

    def action_page(self, name: str) -> None:
        """Jumps to a page, unless it is the one that is shown."""
        if self.page.name != name or self.page.subject:
            self.open(PAGES[name]())

    def action_deeper(self) -> None:
        """Where the chosen row leads."""
        page = self.page.deeper(self.chosen) if self.chosen else None
        if page is not None:
            self.open(page)

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Enter in a table."""
        if self.is_running:
            self.action_deeper()

    async def action_back(self) -> None:
        """Ends a filter, or leads to the page before."""
        if self.wanted:
            self.wanted = ""
            self._show()
            self._show_head()
        elif self.history:
            self.page.close()
            self._change(self.history.pop())

    def action_help(self) -> None:
        """The keys."""
        self.push_screen(Help())

    def action_theme(self) -> None:
        """The next theme."""
        place = THEMES.index(self.theme) if self.theme in THEMES else -1
        self.theme = THEMES[(place + 1) % len(THEMES)]

    # The prompt

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A prompt that is open has its own colons and slashes, and nothing opens one below a question. Keys that do
        nothing on a page are not offered there."""
        if action == "prompt":
            return not self._prompt and len(self.screen_stack) == 1
        offered = {
            "back": bool(self.history or self.wanted or self._prompt),
            "sort": not self.page.is_text,
            "trace": isinstance(self.page, (TreePage, ActorPage)),
        }
        return offered.get(action, True)

    def action_prompt(self, kind: str) -> None:
        """Asks for a page's name or for a filter."""
        self._prompt = kind
        self.prompt.value = self.wanted if kind == "/" else ""
        self.prompt.placeholder = "page" if kind == ":" else "text in a row"
        self.kind.update(kind)
        self.prompting.display = True
        self.screen.set_focus(self.prompt)  # now, not with the next refresh: the keys that follow at once are for it

    def on_input_changed(self, event: Input.Changed) -> None:
        """A filter works as it is typed. While the console ends there is no screen any more to show it on: what widgets
        have still said by then is left alone, here and below."""
        if self._prompt == "/" and self.is_running:
            self.wanted = event.value
            self.refresh_bindings()
            self._show()
            self._show_head()
            self.refresh_page()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """The prompt is done."""
        if not self.is_running:
            return
        kind, typed = self._prompt, event.value.strip()
        self._end_prompt()
        if kind == ":" and typed:
            name, _, subject = typed.partition(" ")
            found = [each for each in (*JUMPS, "quit") if each.startswith(name)]
            if not found:
                near = difflib.get_close_matches(name, JUMPS, 1)
                meant = f"; {near[0]} is one" if near else ""
                self.notify(f"there is no page {name!r}{meant}", severity="error", markup=False)
            elif found[0] == "quit":
                self.exit()
            else:
                self.open(JUMPS[found[0]](subject.strip()))

    def on_key(self, event: Any) -> None:
        """Esc ends the prompt."""
        if event.key == "escape" and self._prompt:
            event.stop()
            if self._prompt == "/":
                self.wanted = ""
            self._end_prompt()
            self._show()

    def _end_prompt(self) -> None:
        self._prompt = ""
        self.prompting.display = False
        (self.scroll if self.page.is_text else self.table).focus()
        self._show_head()

    # What a page can do

    def action_sort(self) -> None:
        """By the next column; after the last one in the page's own order again."""
        last = len(self._columns) - 1
        self.column = 0 if self.column is None else self.column + 1 if self.column < last else None
        self._show()
        self._show_head()

    def action_turn(self) -> None:
        """The other way round."""
        self.descending = not self.descending
        self._show()
        self._show_head()

    def action_fold(self) -> None:
        """Folds an actor of the tree."""
        if isinstance(self.page, TreePage) and self.chosen:
            self.page.fold(self.chosen)
            self._show()

    def action_trace(self) -> None:
        """Traces the chosen actor, or the one that is shown."""
        path = self.chosen if isinstance(self.page, TreePage) else self.page.subject
        if path.startswith("/"):
            self.open(TracePage(path))

    def action_diagram(self) -> None:
        """A trace as a sequence diagram, or as a table again."""
        if isinstance(self.page, TracePage):
            self.page.diagram = not self.page.diagram
            self._show()

    def action_again(self) -> None:
        """A trace that ended begins anew."""
        if isinstance(self.page, FollowPage):
            self.page.again()
            self.refresh_page()

    def action_logs(self) -> None:
        """What the chosen service or task prints."""
        page = self.page.logs(self.chosen) if self.chosen else None
        if page is not None:
            self.open(page)

    def action_explain(self) -> None:
        """What the chosen service, task or node waits for."""
        if self.chosen and isinstance(self.page, EXPLAINED):
            self.open(ExplainPage(self.chosen))

    def action_copy(self) -> None:
        """Hands the path or the id of the chosen row, or of what the page is about, to the terminal's clipboard."""
        if text := self.chosen or self.page.subject:
            self.copy_to_clipboard(text)
            self.notify(f"copied {text}", markup=False)

    def action_wrap(self) -> None:
        """Wraps long lines of a text, or lets them run on."""
        self.page.wraps = not self.page.wraps
        self._show()

    def action_save(self) -> None:
        """Writes the page to a file."""
        if self._fetched is None and not self.refused:
            return
        shown = self._shown()
        if not isinstance(shown, str):
            shown = arranged(shown, self.wanted, self.column, self.descending)
        try:
            said = f"saved as {saving.save(self.page.name, shown, datetime.datetime.now(datetime.UTC))}"
        except OSError as error:
            said = f"not saved: {error.strerror or error}"
        self.notify(said, markup=False)

    def action_pause(self) -> None:
        """Shows nothing new until it is pressed again."""
        self.paused = not self.paused
        self._show_head()
        self.refresh_page()

    def action_act(self, act: str) -> None:
        """Something that changes the node, after a question."""
        path = self.chosen if isinstance(self.page, TreePage) else self.page.subject
        if not path.startswith("/"):
            return
        if not self.write:
            self.notify("this changes the running node: start the console with --write", severity="warning")
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._act(act, path)

        self.push_screen(Question(f"{act} {path}?"), answered)

    @work(thread=True, group="act")
    def _act(self, act: str, path: str) -> None:
        try:
            with self.source.link() as link:
                # A suspension ends with the connection that asked for it, so it is asked for over the console's own.
                done = (self.source if act == "suspend" else link).ask("act", act=act, path=path, write=True)
        except (Lost, ValueError) as error:
            done = str(error)
        self.call_from_thread(self.notify, harmless(str(done)), markup=False)

    def on_unmount(self) -> None:
        """Whatever was begun ends."""
        for page in (self.page, *self.history):
            page.close()
        self.source.drop()


def _cell(text: str, right: bool) -> Text:
    return Text(text, STANDS_OUT.get(text, ""), justify="right" if right else "left")
