"""The console's parts that take keys of their own: tables and texts that the arrows move, questions, and the help."""

from __future__ import annotations

from typing import ClassVar, Final

from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import ScrollableContainer
from textual.screen import ModalScreen
from textual.widgets import DataTable, Static

SIDE: Final = 10
"""So many columns at once to the side."""
HELP: Final = """[b]1-9 0 :[/b]    pages: tree, messages, trace, crashes, raft, nodes,
           services, tasks, logs, events; by name alone also
           waiting, waits, beliefs; with what they are about
           actor PATH, explain NAME, plan NODE
[b]arrows[/b]     rows (also j k g G); wide tables and texts to the side
[b]Enter Esc[/b]  deeper (actor, crash, logs, trace, plan), back
[b]l e[/b]        logs of a service or a task; what it or a node waits for
[b]/ [/b]         show only rows with a text; Esc ends it
[b]s S[/b]        sort by the next column, turn the order round
[b]Space[/b]      fold or unfold an actor of the tree
[b]t d a[/b]      trace the chosen actor, as table or sequence, anew
[b]p w[/b]        pause and go on; wrap long lines, or do not
[b]c ^s[/b]       copy the chosen path or id; save the page as a file
[b]R Z U[/b]      restart, suspend for 30 s, resume the chosen actor:
           with --write, after a question
[b]T ? q[/b]      next theme, this page, quit

The console reads what is counted in passing.
Traces, suspensions and log levels end with it."""


class Question(ModalScreen[bool]):
    """Yes or no, by key."""

    BINDINGS: ClassVar[list[BindingType]] = [("y", "yes", "Yes"), ("n,escape", "no", "No")]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        bold = Style(bold=True)
        yield Static(Text.assemble(self._text, "\n\n", ("y", bold), " yes   ", ("n", bold), " no"), id="question")

    def action_yes(self) -> None:
        """Do it."""
        self.dismiss(True)

    def action_no(self) -> None:
        """Leave it."""
        self.dismiss(False)


class Help(ModalScreen[None]):
    """The keys."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,question_mark,q", "dismiss", "Back")]

    def compose(self) -> ComposeResult:
        yield Static(HELP, id="help")


class Rows(DataTable[Text]):
    """A table of which the arrows move the rows, and all of it to the side. ``leads``: whether Enter leads anywhere."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "open", key_display="enter"),
        Binding("j", "cursor_down", show=False),
        Binding("k", "cursor_up", show=False),
        Binding("g", "scroll_top", show=False),
        Binding("G", "scroll_bottom", show=False),
    ]
    leads = True

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enter is not offered where it leads nowhere."""
        return self.leads or action != "select_cursor"

    def action_cursor_right(self) -> None:
        """What is to the right."""
        self.scroll_relative(x=SIDE, animate=False)

    def action_cursor_left(self) -> None:
        """What is to the left."""
        self.scroll_relative(x=-SIDE, animate=False)


class Sheet(ScrollableContainer):
    """Text that the arrows move."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", show=False),
        Binding("k", "scroll_up", show=False),
        Binding("g", "scroll_home", show=False),
        Binding("G", "scroll_end", show=False),
    ]

    def action_scroll_right(self) -> None:
        """What is to the right."""
        self.scroll_relative(x=SIDE, animate=False)

    def action_scroll_left(self) -> None:
        """What is to the left."""
        self.scroll_relative(x=-SIDE, animate=False)
