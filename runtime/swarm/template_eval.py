"""Evaluation of templates: a tree of `template_syntax` and a value for dot give text.

Rules owned here: how values print, what is true, what the functions do; a missing field or key is an error that says
where and what (``template: expansion:1:2: executing "expansion" at <.Nope>: ...``). Evaluation ends in text or in
`TemplateError`; steps and output are bounded, because templates come from users and are tried on managers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from runtime.swarm.template_syntax import (
    TEMPLATE_NAME,
    Action,
    Block,
    Chain,
    Command,
    Literal,
    Name,
    Operand,
    Part,
    Pipe,
    TemplateError,
    Text,
    Variable,
    place,
)

STEPS_MAX: Final = 100_000
OUTPUT_MAX: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """A value with named fields; ``type_name`` is what errors call it."""

    type_name: str
    fields: Mapping[str, Value]


Value = str | int | float | bool | None | Record | Mapping[str, "Value"] | Sequence["Value"]
Function = Callable[..., Value]


class FunctionError(Exception):
    """What a function has against its arguments."""


def evaluate(source: str, tree: Sequence[Part], dot: Value, functions: Mapping[str, Function]) -> str:
    """The text of a parsed template for one value of dot.

    ``functions`` are added to the built-in ones. Raises `TemplateError`.
    """
    check_functions(source, tree, functions)
    return _Run(source, functions).whole(tree, dot)


def check_functions(source: str, tree: Sequence[Part], functions: Mapping[str, Function]) -> None:
    """Refuses a template that names an unknown function, wherever it stands; Go does so while parsing."""
    for part in tree:
        if isinstance(part, Text):
            continue
        _check_pipe(source, part.pipe, functions)
        if isinstance(part, Block):
            check_functions(source, part.body, functions)
            check_functions(source, part.otherwise, functions)


def _check_pipe(source: str, pipe: Pipe, functions: Mapping[str, Function]) -> None:
    for command in pipe.commands:
        for word in command.words:
            if isinstance(word, Name) and word.source not in functions and word.source not in BUILTINS:
                line = source.count("\n", 0, word.pos) + 1
                raise TemplateError(f'template: {TEMPLATE_NAME}:{line}: function "{word.source}" not defined')
            inner = word.base if isinstance(word, Chain) else word
            if isinstance(inner, Pipe):
                _check_pipe(source, inner, functions)


def type_name(value: Value) -> str:
    """What Go would call the type of a value, for error texts."""
    if isinstance(value, Record):
        return value.type_name
    if isinstance(value, Mapping):
        return "map[string]string"
    names = {str: "string", bool: "bool", int: "int", float: "float64", type(None): "<nil>"}
    return names.get(type(value), "[]string")


def truth(value: Value) -> bool:
    """Whether a value is not empty, as ``if``, ``with``, ``and``, ``or`` and ``not`` see it; records are true."""
    return isinstance(value, Record) or bool(value)


def printed(value: Value) -> str:
    """A value as it stands in the output."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if -(10**40) < value < 10**40 else "(number too large)"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Record):
        return "{" + " ".join(printed(field) for field in value.fields.values()) + "}"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{printed(value[key])}" for key in sorted(value)) + "]"
    return "[" + " ".join(printed(item) for item in value) + "]"


def quoted(text: str) -> str:
    """A text in double quotes on one line, as error texts show what they are about."""
    return '"' + "".join(_QUOTED.get(letter) or _visible(letter) for letter in text) + '"'


_QUOTED: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _visible(letter: str) -> str:
    return letter if letter.isprintable() else f"\\u{ord(letter):04x}"


def join(*parts: Value) -> str:
    """``join sep a b …``: the parts with the separator between them; every argument is text."""
    texts: list[str] = []
    for part in parts:
        if not isinstance(part, str):
            raise FunctionError(f"wrong type for value; expected string; got {type_name(part)}")
        texts.append(part)
    if not texts:
        raise FunctionError("error calling join: a separator is needed")
    return texts[0].join(texts[1:])


def _index(collection: Value, *keys: Value) -> Value:
    for key in keys:
        if isinstance(collection, Mapping):
            if not isinstance(key, str):
                raise FunctionError(f"error calling index: value has type {type_name(key)}; should be string")
            collection = collection.get(key, "")
        elif isinstance(collection, Sequence) and isinstance(key, int) and not isinstance(key, bool):
            if not 0 <= key < len(collection):
                raise FunctionError(f"error calling index: index out of range: {printed(key)}")
            collection = ord(collection[key]) if isinstance(collection, str) else collection[key]
        else:
            raise FunctionError(f"error calling index: can't index item of type {type_name(collection)}")
    return collection


def _len(value: Value) -> int:
    if isinstance(value, str):
        return len(value.encode(errors="surrogatepass"))
    if isinstance(value, Mapping | Sequence):
        return len(value)
    raise FunctionError(f"error calling len: len of type {type_name(value)}")


def _comparable(first: Value, second: Value) -> None:
    numbers = (int, float)
    same = type(first) is type(second) or (
        isinstance(first, numbers)
        and isinstance(second, numbers)
        and not isinstance(first, bool)
        and not isinstance(second, bool)
    )
    if not same:
        raise FunctionError("error calling comparison: incompatible types for comparison")


def _eq(first: Value, *others: Value) -> bool:
    if not others:
        raise FunctionError("error calling eq: missing argument for comparison")
    for other in others:
        _comparable(first, other)
    return any(first == other for other in others)


def _lt(first: Value, second: Value) -> bool:
    _comparable(first, second)
    if isinstance(first, str) and isinstance(second, str):
        return first < second
    if isinstance(first, int | float) and isinstance(second, int | float) and not isinstance(first, bool):
        return first < second
    raise FunctionError("error calling lt: invalid type for comparison")


def _print(*values: Value) -> str:
    """Go's Sprint: a space between two operands when neither is text."""
    pieces: list[str] = []
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            pieces.append(" ")
        pieces.append("<nil>" if value is None else printed(value))
    return "".join(pieces)


def _println(*values: Value) -> str:
    return " ".join("<nil>" if value is None else printed(value) for value in values) + "\n"


_VERBS: Mapping[str, Callable[[Value], str]] = {
    "v": printed,
    "s": printed,
    "d": printed,
    "t": printed,
    "q": lambda value: quoted(printed(value)),
}


def _printf(form: Value, *values: Value) -> str:
    """``%s %d %v %t %q %%`` without widths; other verbs are refused rather than imitated half."""
    if not isinstance(form, str):
        raise FunctionError(f"wrong type for value; expected string; got {type_name(form)}")
    pieces, rest = [], list(values)
    head, *parts = form.replace("%%", "\0").split("%")
    for part in parts:
        if part[:1] not in _VERBS or not rest:
            raise FunctionError(f"error calling printf: verb %{part[:1]} has no meaning or no argument")
        pieces.append(_VERBS[part[:1]](rest.pop(0)) + part[1:])
    if rest:
        raise FunctionError("error calling printf: more arguments than verbs")
    return (head + "".join(pieces)).replace("\0", "%")


def _ne(first: Value, second: Value) -> bool:
    return not _eq(first, second)


def _le(first: Value, second: Value) -> bool:
    return _lt(first, second) or _eq(first, second)


def _gt(first: Value, second: Value) -> bool:
    return _lt(second, first)


def _ge(first: Value, second: Value) -> bool:
    return _le(second, first)


def _not(value: Value) -> bool:
    return not truth(value)


BUILTINS: Final[Mapping[str, Function]] = {
    "and": lambda first, *rest: first,  # the run evaluates these two itself: their arguments are lazy
    "or": lambda first, *rest: first,
    "not": _not,
    "len": _len,
    "index": _index,
    "print": _print,
    "println": _println,
    "printf": _printf,
    "eq": _eq,
    "ne": _ne,
    "lt": _lt,
    "le": _le,
    "gt": _gt,
    "ge": _ge,
}


class _Nothing:
    """The absence of a piped value (nil is a value)."""


_NOTHING = _Nothing()


class _Run:
    """One evaluation: the output so far, the variables in scope (innermost last) and what is left to spend."""

    def __init__(self, source: str, functions: Mapping[str, Function]) -> None:
        self.source = source
        self.functions = functions
        self.variables: list[tuple[str, Value]] = []
        self.steps = STEPS_MAX
        self.room = OUTPUT_MAX
        self.output: list[str] = []

    def whole(self, tree: Sequence[Part], dot: Value) -> str:
        """The output of a template; ``$`` is dot as it was at the start."""
        self.variables.append(("$", dot))
        self.parts(tree, dot)
        return "".join(self.output)

    def fail(self, pos: int, source: str, problem: str) -> NoReturn:
        """Ends the run with the place and the source of what went wrong."""
        raise TemplateError(
            f'template: {place(self.source, pos)}: executing "{TEMPLATE_NAME}" at <{source}>: {problem}'
        )

    def emit(self, text: str) -> None:
        """Adds to the output, within its bound."""
        self.room -= len(text)
        if self.room < 0:
            raise TemplateError(f"template: {TEMPLATE_NAME}: the result is longer than {OUTPUT_MAX} characters")
        self.output.append(text)

    def spend(self) -> None:
        """Counts one step, within the bound."""
        self.steps -= 1
        if self.steps < 0:
            raise TemplateError(f"template: {TEMPLATE_NAME}: more than {STEPS_MAX} steps")

    def parts(self, parts: Sequence[Part], dot: Value) -> None:
        """Runs parts in order; variables declared in them end with them."""
        scope = len(self.variables)
        for part in parts:
            self.spend()
            if isinstance(part, Text):
                self.emit(part.text)
            elif isinstance(part, Action):
                value = self.pipe(part.pipe, dot)
                if not part.pipe.declares:
                    self.emit(printed(value))
            else:
                self.block(part, dot)
        del self.variables[scope:]

    def block(self, block: Block, dot: Value) -> None:
        """Runs one ``if``, ``with`` or ``range``."""
        scope = len(self.variables)
        if block.keyword == "range":
            self.range(block, dot)
        else:
            value = self.pipe(block.pipe, dot)
            if truth(value):
                self.parts(block.body, value if block.keyword == "with" else dot)
            else:
                self.parts(block.otherwise, dot)
        del self.variables[scope:]

    def range(self, block: Block, dot: Value) -> None:
        """Runs the body once an item, with the item as dot; maps in the order of their keys."""
        pipe = block.pipe
        value = self.commands(pipe, dot)
        items = self.items(pipe, value)
        if not items:
            return self.parts(block.otherwise, dot)
        names = pipe.declares
        for key, item in items:
            scope = len(self.variables)
            bound = (item,) if len(names) < 2 else (key, item)
            for name, held in zip(names, bound, strict=False):
                self.bind(name, held, assigns=pipe.assigns)
            self.parts(block.body, item)
            del self.variables[scope:]
        return None

    def items(self, pipe: Pipe, value: Value) -> list[tuple[Value, Value]]:
        """What a range goes over: key and item."""
        if value is None:
            return []
        if isinstance(value, Mapping):
            return [(key, value[key]) for key in sorted(value)]
        if isinstance(value, Sequence) and not isinstance(value, str):
            return list(enumerate(value))
        # The type and not the value, which may be the content of a secret.
        return self.fail(pipe.pos, pipe.source, f"range can't iterate over a value of type {type_name(value)}")

    def bind(self, name: str, value: Value, *, assigns: bool) -> None:
        """Declares a variable, or gives the innermost one of that name another value."""
        if not assigns:
            self.variables.append((name, value))
            return
        for at in range(len(self.variables) - 1, -1, -1):
            if self.variables[at][0] == name:
                self.variables[at] = (name, value)
                return
        raise TemplateError(f'template: {TEMPLATE_NAME}: undefined variable "{name}"')

    def pipe(self, pipe: Pipe, dot: Value) -> Value:
        """The value of a pipeline, with its variables bound."""
        value = self.commands(pipe, dot)
        for name in pipe.declares:
            self.bind(name, value, assigns=pipe.assigns)
        return value

    def commands(self, pipe: Pipe, dot: Value) -> Value:
        """The value of the last command; each gets the one before as its last argument."""
        value: Value | _Nothing = _NOTHING
        for command in pipe.commands:
            self.spend()
            value = self.command(command, dot, value)
        assert not isinstance(value, _Nothing)
        return value

    def command(self, command: Command, dot: Value, piped: Value | _Nothing) -> Value:
        """The value of one command."""
        head = command.words[0]
        if isinstance(head, Name):
            return self.call(head, command, dot, piped)
        if not isinstance(piped, _Nothing):
            self.fail(head.pos, head.source, f"can't give argument to non-function {head.source}")
        if isinstance(head, Literal) and head.value is None:
            self.fail(head.pos, head.source, "nil is not a command")
        return self.operand(head, dot)

    def call(self, name: Name, command: Command, dot: Value, piped: Value | _Nothing) -> Value:
        """The value of a function for its arguments; a wrong number or type of them ends the run."""
        words = command.words[1:]
        if name.source in ("and", "or") and name.source not in self.functions:
            return self.lazy(name, words, dot, piped)
        arguments = [self.operand(word, dot) for word in words]
        if not isinstance(piped, _Nothing):
            arguments.append(piped)
        function = self.functions.get(name.source) or BUILTINS[name.source]
        try:
            inspect.signature(function).bind(*arguments)
        except TypeError:
            self.fail(command.pos, name.source, f"wrong number of args for {name.source}: got {len(arguments)}")
        try:
            value = function(*arguments)
        except FunctionError as error:
            self.fail(command.pos, command.source, str(error))
        if isinstance(value, str) and len(value) > OUTPUT_MAX:
            self.fail(command.pos, name.source, f"the result is longer than {OUTPUT_MAX} characters")
        return value

    def lazy(self, name: Name, words: Sequence[Operand], dot: Value, piped: Value | _Nothing) -> Value:
        """``and`` and ``or`` stop at the first argument that decides."""
        value: Value | _Nothing = _NOTHING
        for word in words:
            value = self.operand(word, dot)
            if truth(value) is (name.source == "or"):
                return value
        value = value if isinstance(piped, _Nothing) else piped
        if isinstance(value, _Nothing):
            self.fail(name.pos, name.source, f"wrong number of args for {name.source}: want at least 1 got 0")
        return value

    def operand(self, word: Operand, dot: Value) -> Value:
        """The value of one word of a command."""
        self.spend()
        if isinstance(word, Literal):
            return word.value
        if isinstance(word, Variable):
            return self.variable(word)
        if isinstance(word, Pipe):
            return self.pipe(word, dot)
        if isinstance(word, Chain):
            return self.chain(word, dot)
        return self.call(word, Command(word.pos, word.source, (word,)), dot, _NOTHING)

    def variable(self, word: Variable) -> Value:
        """The value of the innermost variable of that name."""
        for name, value in reversed(self.variables):
            if name == word.source:
                return value
        return self.fail(word.pos, word.source, f"undefined variable: {word.source}")

    def chain(self, chain: Chain, dot: Value) -> Value:
        """The value that fields lead to, from dot or from a base."""
        value = dot if chain.base is None else self.operand(chain.base, dot)
        for field in chain.fields:
            value = self.field(chain, value, field)
        return value

    def field(self, chain: Chain, value: Value, field: str) -> Value:
        """One step of a chain; a missing field or key ends the run."""
        if isinstance(value, Record):
            if field in value.fields:
                return value.fields[field]
        elif isinstance(value, Mapping):
            if field in value:
                return value[field]
            self.fail(chain.pos, chain.source, f'map has no entry for key "{field}"')
        elif value is None:
            self.fail(chain.pos, chain.source, f"nil data; no entry for key {field!r}")
        return self.fail(chain.pos, chain.source, f"can't evaluate field {field} in type {type_name(value)}")
