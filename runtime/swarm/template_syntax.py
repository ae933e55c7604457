"""The syntax of templates: the part of Go's ``text/template`` that service specs use, as a tree.

Rules owned here: what the text of a template means. Supported: text, field and variable chains, string, number and
boolean literals, function calls, pipes, parentheses, ``if``/``else if``/``else``, ``range``, ``with``, variables,
comments and trim markers. Definitions (``define``, ``block``, ``template``) are refused. Parsing ends in a tree or
in `TemplateError`, never in another exception, and depth and size are bounded: a template comes from a user.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

TEMPLATE_NAME: Final = "expansion"
DEPTH_MAX: Final = 50
SIZE_MAX: Final = 1 << 20


class TemplateError(ValueError):
    """A template that cannot be parsed or evaluated; the text is the one a user sees."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant: text, number, boolean, or ``nil`` as None."""

    pos: int
    source: str
    value: str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Chain:
    """Fields reached from something: from dot (base None), a variable or a parenthesised pipeline."""

    pos: int
    source: str
    base: Variable | Pipe | None
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """``$`` or ``$name``."""

    pos: int
    source: str


@dataclass(frozen=True, slots=True)
class Name:
    """A function's name."""

    pos: int
    source: str


@dataclass(frozen=True, slots=True)
class Command:
    """An operand alone, or a function and its arguments."""

    pos: int
    source: str
    words: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pipe:
    """Commands, each getting the last one's result as its last argument; the result may name variables."""

    pos: int
    source: str
    declares: tuple[str, ...]
    assigns: bool
    commands: tuple[Command, ...]


Operand = Literal | Chain | Variable | Name | Pipe


@dataclass(frozen=True, slots=True)
class Text:
    """Text that stands as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Action:
    """A pipeline whose result is printed (unless it declares a variable)."""

    pipe: Pipe


@dataclass(frozen=True, slots=True)
class Block:
    """``if``, ``with`` or ``range`` with its two bodies."""

    keyword: str
    pipe: Pipe
    body: tuple[Part, ...]
    otherwise: tuple[Part, ...]


Part = Text | Action | Block


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    pos: int
    spaced: bool


_TOKEN = re.compile(
    r"""(?P<declare>:=)|(?P<assign>=)|(?P<pipe>\|)|(?P<open>\()|(?P<close>\))|(?P<comma>,)
      |(?P<field>\.[^\W\d]\w*)|(?P<number>[+-]?(?:\d[\w.]*|\.\d\w*))|(?P<dot>\.)
      |(?P<variable>\$\w*)|(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<raw>`[^`]*`)|(?P<word>[^\W\d]\w*)""",
    re.VERBOSE,
)
_KEYWORDS = frozenset({"if", "else", "end", "range", "with", "define", "block", "template", "break", "continue"})
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)", re.DOTALL)
_SIMPLE_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\\": "\\", '"': '"'}
_SPACE = " \t\r\n"
_SPACES = frozenset(_SPACE)


def line_of(text: str, pos: int) -> int:
    """The line of a position, from one."""
    return text.count("\n", 0, pos) + 1


def place(text: str, pos: int) -> str:
    """``name:line:column`` of a position; columns count bytes from zero, as Go's do."""
    start = text.rfind("\n", 0, pos) + 1
    column = len(text[start:pos].encode(errors="surrogatepass"))
    return f"{TEMPLATE_NAME}:{line_of(text, pos)}:{column}"


def parse(text: str) -> tuple[Part, ...]:
    """The tree of a template; `TemplateError` with the line when the text is not one."""
    if len(text) > SIZE_MAX:
        raise TemplateError(f"template: {TEMPLATE_NAME}: longer than {SIZE_MAX} characters")
    return _Parser(text).whole()


class _Parser:
    """Recursive descent over the text: the outer level finds actions, the inner one reads their tokens."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.tokens: list[_Token] = []
        self.next = 0
        self.trim = False
        self.known = ["$"]

    def fail(self, problem: str, pos: int | None = None) -> TemplateError:
        """The error with the line of a position (else of where the parser is), for the caller to raise."""
        line = line_of(self.text, self.at if pos is None else pos)
        return TemplateError(f"template: {TEMPLATE_NAME}:{line}: {problem}")

    # Outer level: text and actions.

    def whole(self) -> tuple[Part, ...]:
        """The whole text; nothing may be left open or closed too often."""
        parts, ended_by = self.body()
        if ended_by:
            raise self.fail(f"unexpected {{{{{ended_by}}}}}")
        return parts

    def body(self) -> tuple[tuple[Part, ...], str]:
        """Parts up to an ``else``, an ``end`` (its word is returned) or the end of the text (empty word)."""
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise self.fail(f"nested deeper than {DEPTH_MAX}")
        parts: list[Part] = []
        while self.plain_text(parts):
            if not self.read_action():
                continue
            word = self.keyword()
            if word in ("else", "end"):
                self.depth -= 1
                return tuple(parts), word
            parts.append(self.block(word) if word else Action(self.pipeline_to_end()))
        self.depth -= 1
        return tuple(parts), ""

    def plain_text(self, parts: list[Part]) -> bool:
        """Takes the text before the next action; whether there is an action."""
        start = self.text.find("{{", self.at)
        piece = self.text[self.at : start if start >= 0 else None]
        if self.trim:
            piece = piece.lstrip(_SPACE)
        self.trim = False
        if start >= 0 and self.text[start + 2 : start + 3] == "-" and self.text[start + 3 : start + 4] in _SPACES:
            piece = piece.rstrip(_SPACE)
        if piece:
            parts.append(Text(piece))
        self.at = start if start >= 0 else len(self.text)
        return start >= 0

    def read_action(self) -> bool:
        """Reads the tokens of the action that begins here; False for a comment."""
        begin = self.at
        at = begin + 2
        if self.text[at : at + 1] == "-" and self.text[at + 1 : at + 2] in _SPACES:
            at += 2
        if self.text.startswith("/*", at):
            self.comment(at)
            return False
        self.tokens, self.next = [], 0
        while True:
            word = at
            while self.text[at : at + 1] in _SPACES:
                at += 1
            if self.close(at, spaced=at > word):
                return True
            match = _TOKEN.match(self.text, at)
            if match is None:
                raise self.bad_character(at, begin)
            kind = match.lastgroup or ""
            self.tokens.append(_Token(kind, match.group(), at, at > word))
            at = match.end()

    def close(self, at: int, *, spaced: bool) -> bool:
        """Takes a closing delimiter; after a space it may trim the text that follows."""
        if spaced and self.text.startswith("-}}", at):
            self.trim, self.at = True, at + 3
            return True
        if self.text.startswith("}}", at):
            self.at = at + 2
            return True
        return False

    def comment(self, at: int) -> None:
        """Takes a comment, which must fill its action."""
        end = self.text.find("*/", at + 2)
        if end < 0:
            raise self.fail("unclosed comment", at)
        after = end + 2
        spaced = self.text[after : after + 1] in _SPACES
        if not self.close(after + spaced, spaced=spaced):
            raise self.fail("comment ends before closing delimiter", at)

    def bad_character(self, at: int, begin: int) -> TemplateError:
        """What to say of a character that begins no token."""
        letter = self.text[at : at + 1]
        if not letter:
            return self.fail("unclosed action", begin)
        if letter == '"':
            return self.fail("unterminated quoted string", at)
        if letter == "`":
            return self.fail("unterminated raw quoted string", at)
        return self.fail(f"unrecognized character in action: U+{ord(letter):04X} {letter!r}", at)

    # Inner level: the tokens of one action.

    def peek(self) -> _Token | None:
        """The next token of the action."""
        return self.tokens[self.next] if self.next < len(self.tokens) else None

    def take(self, *kinds: str) -> _Token | None:
        """Takes the next token if it is of one of the kinds."""
        token = self.peek()
        if token is None or token.kind not in kinds:
            return None
        self.next += 1
        return token

    def keyword(self) -> str:
        """Takes a keyword and returns it; empty when the action does not begin with one."""
        token = self.peek()
        if token is None or token.kind != "word" or token.text not in _KEYWORDS:
            return ""
        if token.text in ("define", "block", "template", "break", "continue"):
            raise self.fail(f"{{{{{token.text}}}}} is not supported here", token.pos)
        self.next += 1
        if token.text == "end" and self.peek() is not None:
            raise self.fail("unexpected text in end", token.pos)
        return token.text

    def block(self, keyword: str) -> Block:
        """An ``if``, ``with`` or ``range`` up to and with its ``end``."""
        scope = len(self.known)
        pipe = self.pipeline_to_end(ranging=keyword == "range")
        body, ended_by = self.body()
        otherwise: tuple[Part, ...] = ()
        if ended_by == "else":
            otherwise, ended_by = self.otherwise(keyword)
        if not ended_by:
            raise self.fail("unexpected EOF")
        del self.known[scope:]
        return Block(keyword, pipe, body, otherwise)

    def otherwise(self, keyword: str) -> tuple[tuple[Part, ...], str]:
        """The part after ``else``; ``else if`` and ``else with`` open a block that shares the ``end``."""
        word = self.keyword()
        if not word:
            if self.peek() is not None:
                raise self.fail("unexpected text in else")
            parts, ended_by = self.body()
            if ended_by == "else":
                raise self.fail("expected end; found {{else}}")
            return parts, ended_by
        if word != keyword or keyword == "range":
            raise self.fail(f"unexpected {word} in else")
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise self.fail(f"nested deeper than {DEPTH_MAX}")
        inner = self.block(word)
        self.depth -= 1
        return (inner,), "end"

    def pipeline_to_end(self, *, ranging: bool = False) -> Pipe:
        """A pipeline that is all that is left of the action."""
        pipe = self.pipeline(ranging=ranging)
        left = self.peek()
        if left is not None:
            raise self.fail(f"unexpected {left.text!r} in command", left.pos)
        return pipe

    def pipeline(self, *, ranging: bool = False) -> Pipe:
        """A pipeline: variables, if it declares any, and its commands."""
        declares, assigns = self.declarations(ranging=ranging)
        first = self.next
        commands = [self.command()]
        while self.take("pipe"):
            commands.append(self.command())
            if isinstance(commands[-1].words[0], Literal):
                raise self.fail(f"non executable command in pipeline stage {len(commands)}", commands[-1].pos)
        if not assigns:
            self.known.extend(declares)
        return Pipe(commands[0].pos, self.source(first), declares, assigns, tuple(commands))

    def source(self, first: int) -> str:
        """The text from a token to the last one taken."""
        last = self.tokens[self.next - 1]
        return self.text[self.tokens[first].pos : last.pos + len(last.text)]

    def declarations(self, *, ranging: bool) -> tuple[tuple[str, ...], bool]:
        """The variables in front of a pipeline, and whether they are assigned to instead of declared."""
        start = self.next
        names = []
        while (token := self.take("variable")) is not None:
            names.append(token.text)
            if not (ranging and len(names) == 1 and self.take("comma")):
                break
        sign = self.take("declare", "assign") if names else None
        if sign is None:
            self.next = start
            return (), False
        if sign.kind == "assign" and any(name not in self.known for name in names):
            raise self.fail(f'undefined variable "{names[0]}"', sign.pos)
        return tuple(names), sign.kind == "assign"

    def command(self) -> Command:
        """Operands up to a pipe, a parenthesis or the end of the action."""
        first = self.next
        words: list[Operand] = []
        while (word := self.operand(first=not words)) is not None:
            words.append(word)
        if not words:
            raise self.fail("missing value for command")
        head = words[0]
        if len(words) > 1 and not isinstance(head, Name):
            raise self.fail(f"can't give argument to non-function {head.source}", head.pos)
        return Command(head.pos, self.source(first), tuple(words))

    def operand(self, *, first: bool) -> Operand | None:
        """One operand, or None where none begins; operands stand apart by a space."""
        token = self.take("field", "dot", "variable", "number", "string", "raw", "word", "open")
        if token is None:
            return None
        if not first and not token.spaced and token.kind != "open":
            raise self.fail(f"unexpected {token.text!r} after a value", token.pos)
        if token.kind == "open":
            return self.parenthesised(token)
        if token.kind in ("field", "dot", "variable"):
            return self.chain(token)
        return self.constant(token)

    def chain(self, token: _Token) -> Operand:
        """Dot, a field or a variable, with the fields that follow it."""
        base = self.variable(token) if token.kind == "variable" else None
        fields = [token.text[1:]] if token.kind == "field" else []
        return self.more_fields(token, base, fields)

    def variable(self, token: _Token) -> Variable:
        """A variable that was declared before."""
        if token.text not in self.known:
            raise self.fail(f'undefined variable "{token.text}"', token.pos)
        return Variable(token.pos, token.text)

    def more_fields(self, token: _Token, base: Variable | Pipe | None, fields: list[str]) -> Operand:
        """The fields that follow without a space; a chain stands where its second link does, as in Go."""
        begin = self.next - 1 if base is None or isinstance(base, Variable) else self.tokens.index(token)
        pos = token.pos
        while (link := self.peek()) is not None and link.kind == "field" and not link.spaced:
            pos = link.pos if pos == token.pos else pos
            fields.append(link.text[1:])
            self.next += 1
        if not fields and base is not None:
            return base
        return Chain(pos, self.source(begin), base, tuple(fields))

    def parenthesised(self, token: _Token) -> Operand:
        """A pipeline in parentheses, with the fields that follow it."""
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise self.fail(f"nested deeper than {DEPTH_MAX}", token.pos)
        pipe = self.pipeline()
        if not self.take("close"):
            raise self.fail("unclosed left paren", token.pos)
        self.depth -= 1
        return self.more_fields(token, pipe, [])

    def constant(self, token: _Token) -> Operand:
        """A literal or the name of a function."""
        if token.kind == "word":
            known = {"true": True, "false": False, "nil": None}
            if token.text not in known:
                return Name(token.pos, token.text)
            return Literal(token.pos, token.text, known[token.text])
        if token.kind == "number":
            return Literal(token.pos, token.text, self.number(token))
        if token.kind == "raw":
            return Literal(token.pos, token.text, token.text[1:-1])
        return Literal(token.pos, token.text, _ESCAPE.sub(self.unescape, token.text[1:-1]))

    def number(self, token: _Token) -> int | float:
        """The value of a number literal."""
        if len(token.text) <= 40:
            for reader in (lambda text: int(text, 0), float):
                try:
                    return reader(token.text)
                except ValueError:
                    continue
        raise self.fail(f"bad number syntax: {token.text[:40]!r}", token.pos)

    def unescape(self, match: re.Match[str]) -> str:
        """The character that an escape sequence stands for."""
        code = match.group(1)
        if code in _SIMPLE_ESCAPES:
            return _SIMPLE_ESCAPES[code]
        if code[0] in "xuU" and len(code) > 1:
            number = int(code[1:], 16)
        elif len(code) == 3:
            number = int(code, 8)
        else:
            raise self.fail("invalid syntax in quoted string")
        if number > 0x10FFFF or 0xD800 <= number < 0xE000:
            raise self.fail("invalid character in quoted string")
        return chr(number)
