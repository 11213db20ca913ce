"""Gin's grammar with places: what one text says, statement by statement, and where it cannot be read.

Only `gin.config_parser` is used, never gin's runtime: parsing a text runs no code. Where gin's parser
stops at the first mistake, `parse` mends that statement and goes on, so that all mistakes of a text
are found together.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gin.config_parser import (
    BindingStatement,
    BlockDeclaration,
    ConfigParser,
    ImportStatement,
    IncludeStatement,
)

from rrl.registry import PLUGIN_GROUP, UserError


@dataclass(frozen=True)
class Place:
    """A line of a file, or (line 0) an override on the command line."""

    file: str
    line: int
    text: str
    """The line itself, without indentation."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True)
class Problem:
    """One mistake of the user: what is wrong, where, and what to do."""

    message: str
    file: str
    line: int
    """Counted from 1; 0 where no line applies (an override, a missing file)."""
    text: str
    """The offending line, without indentation."""
    hint: str = ""
    idle: bool = False
    """An override that is right in itself, but nothing in this run uses it."""

    @classmethod
    def at(cls, place: Place, message: str, hint: str = "", *, idle: bool = False) -> Problem:
        """A problem at a place."""
        return cls(message, place.file, place.line, place.text, hint, idle)

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        text = f"\n    {self.text}" if self.line and self.text else ""
        hint = f"\n  {self.hint}" if self.hint else ""
        return f"{where}: {self.message}{text}{hint}"


class ConfigError(UserError):
    """All mistakes of a configuration, as data (`problems`) and as text (`str`)."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Reference:
    """`@scope/Name()`; `called` is False if the brackets are missing."""

    scopes: tuple[str, ...]
    name: str
    called: bool

    def __str__(self) -> str:
        return "@" + "/".join((*self.scopes, self.name)) + ("()" if self.called else "")


@dataclass(frozen=True)
class Macro:
    """`%name`"""

    name: str

    def __str__(self) -> str:
        return f"%{self.name}"


UNREADABLE = Macro("__unreadable__")
"""Value of a binding that was reported already: whoever meets it keeps silent."""


@dataclass(frozen=True, eq=False)
class Binding:
    """`scope/name.field = value`, or the macro `name = value` (then `field` is empty). Equal by identity."""

    scope: str
    name: str
    field: str
    value: Any
    place: Place
    in_block: bool

    @property
    def label(self) -> str:
        """How the file names it, such as `big/ResNet.depth`."""
        return (f"{self.scope}/" if self.scope else "") + self.name + (f".{self.field}" if self.field else "")


@dataclass(frozen=True)
class Include:
    """`include 'path'`; `path` is None if the line could not be read."""

    path: str | None
    place: Place


@dataclass(frozen=True)
class Block:
    """The head `Name:` of an indented block; its bindings follow as statements of their own."""

    name: str
    place: Place


Statement = Binding | Include | Block

_KEY = re.compile(r"\s*([A-Za-z_][\w./]*)")
_VALUES = "gin takes numbers, strings, True, False, None, tuples, @Name() and %macro"
_START = re.compile(r"\s*(?:[A-Za-z_][\w./]*\s*(?:=|:\s*(?:#.*)?$)|(?:include|import|from)\b)")


class _Delegate:
    """What gin's parser calls to represent `@name()` and `%name`."""

    def configurable_reference(self, scoped_name: str, evaluate: bool) -> Reference:
        *scopes, name = scoped_name.split("/")
        return Reference(tuple(scopes), name, evaluate)

    def macro(self, name: str) -> Macro:
        return Macro(name)


def parse(text: str, file: str, numbered: bool = True) -> tuple[list[Statement], list[Problem]]:
    """The statements of `text` and the problems of its grammar.

    A statement that cannot be read is reported once; its key, as far as it can be told, stays bound
    to `UNREADABLE`. Places carry `file` and, if `numbered`, the line.
    """
    original = text.split("\n")
    lines = list(original)

    def place(line: int) -> Place:
        return Place(file, line if numbered else 0, original[line - 1].strip())

    problems: list[Problem] = []
    attempts: dict[int, int] = {}
    while True:
        try:
            parsed = list(ConfigParser("\n".join(lines), _Delegate()))
            break
        except (SyntaxError, tokenize.TokenError, TypeError, ValueError, RecursionError) as error:
            first, end, shown, message, hint = _diagnose(error, lines)
            attempts[first] = attempts.get(first, 0) + 1
            if attempts[first] == 1:
                problems.append(Problem.at(place(shown), message, hint))
            _mend(error, lines, first, end, attempts[first])
            if attempts[first] > 4:  # mending does not help: stop here rather than try for ever
                lines = [""]
    statements: list[Statement] = []
    for statement in parsed:
        where = place(statement.location.line_num)
        if isinstance(statement, ImportStatement):
            hint = f"plugins are found by themselves through the entry-point group {PLUGIN_GROUP}"
            message = f"{statement.format()} is refused: gin files run no code"
            problems.append(Problem.at(where, message, hint))
        elif isinstance(statement, IncludeStatement):
            unreadable = statement.filename == UNREADABLE.name
            statements.append(Include(None if unreadable else statement.filename, where))
        elif isinstance(statement, BlockDeclaration):
            statements.append(Block(statement.selector, where))
        elif isinstance(statement, BindingStatement):
            if UNREADABLE.name in (statement.arg_name, statement.selector):
                continue
            in_block = statement.location.char_num is not None
            scope, name, field = statement.scope, statement.selector, statement.arg_name
            if not field and scope:
                scope, name = "", f"{scope}/{name}"
            statements.append(Binding(scope, name, field, statement.value, where, in_block))
    return statements, problems


def macros_in(value: Any) -> Iterator[str]:
    """Names of the macros that a parsed value mentions."""
    return (leaf.name for leaf in _leaves(value) if isinstance(leaf, Macro))


def references_in(value: Any) -> Iterator[Reference]:
    """The components that a parsed value mentions."""
    return (leaf for leaf in _leaves(value) if isinstance(leaf, Reference))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, dict):
        yield from _leaves([*value, *value.values()])
    else:
        yield value


def _logical_starts(lines: list[str]) -> tuple[list[int], bool]:
    """Numbers of the lines that start a statement, and whether the text could be read to its end."""
    starts: list[int] = []
    skipped = (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    fresh = True
    try:
        for token in tokenize.generate_tokens(io.StringIO("\n".join(lines)).readline):
            if token.type in skipped:
                continue
            if fresh:
                starts.append(token.start[0])
            fresh = token.type == tokenize.NEWLINE
    except IndentationError as error:
        starts.append(error.args[1][1])
        return starts, False
    except (tokenize.TokenError, SyntaxError):
        return starts, False
    return starts, True


def _error_line(error: Exception, lines: list[str], starts: list[int]) -> int:
    """The line, from 1, at which gin's parser or Python's tokenizer stopped."""
    if isinstance(error, (SyntaxError, tokenize.TokenError)) and len(error.args) > 1:
        line: int = error.args[1][0 if isinstance(error, tokenize.TokenError) else 1]
        return min(max(line, 1), len(lines))
    # Values such as {[]: 1} and very deep brackets fail without a location: find the statement that does.
    for first, end in zip(starts, [*starts[1:], len(lines) + 1], strict=True):
        _, _, value = "".join(lines[first - 1 : end - 1]).partition("=")
        try:
            ConfigParser(f"x = {value.strip()}", _Delegate()).parse_statement()
        except (TypeError, ValueError, RecursionError):
            return first
        except (SyntaxError, tokenize.TokenError):
            continue
    return starts[0] if starts else 1


def _diagnose(error: Exception, lines: list[str]) -> tuple[int, int, int, str, str]:
    """First line and end (exclusive) of the broken statement, the line to show, message and hint."""
    starts, complete = _logical_starts(lines)
    line = _error_line(error, lines, starts)
    first = max((start for start in starts if start <= line), default=line)
    if str(error.args[0]).startswith("Expected indentation"):
        head = max((start for start in starts if start < line), default=first)
        name = lines[head - 1].strip()
        return head, head + 1, head, f"the block {name} is empty", "indent the lines `field = value` below it"
    later = [start for start in starts if start > first]
    if not complete and not later:
        later = [n for n in range(first + 1, len(lines) + 1) if _START.match(lines[n - 1])]
    end = later[0] if later else len(lines) + 1
    runs_on = line > first and bool(_START.match(lines[line - 1]))
    if runs_on or isinstance(error, tokenize.TokenError):
        if runs_on:
            end = line
        if isinstance(error, tokenize.TokenError) and "string" in str(error.args[0]):
            return first, end, first, "the string is never closed", "add the closing quotes"
        opened = _open_bracket(lines[first - 1 : end - 1])
        closing = {"(": ")", "[": "]", "{": "}"}.get(opened, ")")
        return first, end, first, f"the bracket {opened} is never closed", f"add the closing `{closing}`"
    message, hint = _explain(error, lines, first, line)
    return first, end, line, message, hint


def _open_bracket(lines: list[str]) -> str:
    """The innermost bracket that these lines leave open."""
    opened = []
    try:
        for token in tokenize.generate_tokens(io.StringIO("\n".join(lines)).readline):
            if token.type == tokenize.OP and token.string in "([{":
                opened.append(token.string)
            elif token.type == tokenize.OP and token.string in ")]}" and opened:
                opened.pop()
    except (tokenize.TokenError, SyntaxError):
        pass
    return opened[-1] if opened else "("


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _head_without_colon(lines: list[str], first: int) -> bool:
    """Is this line `Name` with a more indented line below it?"""
    line = lines[first - 1]
    below = next((other for other in lines[first:] if other.strip()), "")
    return "=" not in line and len(_indent(below)) > len(_indent(line))


def _bad_indentation(error: Exception, lines: list[str], first: int) -> bool:
    before = next((other for other in reversed(lines[: first - 1]) if other.strip()), "")
    deeper = len(_indent(lines[first - 1])) > len(_indent(before))
    unexpected = str(error.args[0]).startswith("Invalid identifier") and deeper
    return unexpected or isinstance(error, IndentationError)


def _explain(error: Exception, lines: list[str], first: int, line: int) -> tuple[str, str]:
    """Message and hint in the user's words for an error of gin's parser."""
    said, text = str(error.args[0]), lines[line - 1]
    key = match[1] if (match := _KEY.match(lines[first - 1])) else ""
    location = error.args[1] if len(error.args) > 1 else (None, line, 0, text)
    rest = text[location[2] or 0 :].split("#")[0].strip()
    form = "write `Component.field = value`, `name = value`, `Component:` or `include 'file.gin'`"
    if _bad_indentation(error, lines, first):
        return "this line's indentation fits no line above it", "indent all lines of a block alike"
    if "Failed to parse token" in said:
        token = said.split("Failed to parse token ", 1)[1][1:-1]
        if token.lower() in ("true", "false", "none"):
            return f"{token} is not a value", f"did you mean {token.capitalize()}?"
        if token.lower() in ("nan", "inf", "infinity"):
            return f"{token} is not a value", "numbers must be finite"
        if re.fullmatch(r"[A-Za-z_]\w*", token):
            hint = f"strings need quotes: '{token}'; components are written @Name()"
            return f"{token} is not a value", hint
        return f"{token} is not a value", _VALUES
    if said.startswith("Unable to parse value"):
        if not rest:
            return f"{key} has no value", f"write `{key} = value`"
        if rest[0] in "'\"":
            return "the string is never closed", "add the closing quotes"
        return f"{rest} is not a value", _VALUES
    if said == "Expected ')'.":
        name = re.sub(r".*@([\w/.]+)\($", r"\1", text[: location[2]].rstrip())
        hint = f"write `{name}.field = value` on a line of its own"
        return f"@{name}() takes nothing between its brackets", hint
    if said.startswith("Expected newline"):
        if rest.startswith(","):
            return f"unexpected {rest} after the value", "tuples need brackets: (1, 2)"
        return f"unexpected {rest} after the value", "one statement a line; gin does no arithmetic"
    if said.startswith("Expected ',' or"):
        return f"expected a comma before {rest}", "separate the items of a tuple by commas"
    if said.startswith("Expected '='") and lines[first - 1] != lines[first - 1].lstrip():
        hint = "leave the component's name away, or end the indentation"
        return "inside a block stands `field = value`", hint
    if said.startswith("Expected file path") or key == "include":
        return "include takes a file name in quotes", "write `include 'base/file.gin'`"
    if said.startswith("Malformatted"):
        return "spaces or doubled separators inside a name", form
    if _head_without_colon(lines, first):
        return f"{key} is followed by an indented block but has no colon", f"did you mean `{key}:`?"
    if said == "Expected ':'." or isinstance(error, TypeError):
        return f"the value of {key} cannot be read", "fields take no dicts and no sets"
    if isinstance(error, RecursionError):
        return f"the value of {key} is nested too deeply", ""
    return f"cannot read {lines[first - 1].strip()}", form


def _mend(error: Exception, lines: list[str], first: int, end: int, attempt: int) -> None:
    """Replace a broken statement by one that says as much as can be told; blank it if that failed, too."""
    line = lines[first - 1]
    indent = _indent(line)
    key = match[1] if (match := _KEY.match(line)) else ""
    if attempt == 1 and _bad_indentation(error, lines, first):
        before = next((other for other in reversed(lines[: first - 1]) if other.strip()), "")
        lines[first - 1] = _indent(before) + line.lstrip()
        return
    empty_block = str(error.args[0]).startswith("Expected indentation")
    if attempt == 1 and _head_without_colon(lines, first) and not empty_block:
        lines[first - 1] = f"{indent}{key}:"
        return
    for number in range(first, end):
        lines[number - 1] = ""
    if empty_block or attempt > 2 or not key:
        return
    if key == "include":
        lines[first - 1] = f"include '{UNREADABLE.name}'"
    elif key in ("import", "from"):
        return
    elif attempt == 1 and (indent or "." in key or "=" in line):
        squeezed = re.match(r"\s*(\w+(?:\s*[./]\s*\w+)*)", line)
        key = re.sub(r"\s", "", squeezed[1]) if squeezed else key
        lines[first - 1] = f"{indent}{key} = %{UNREADABLE.name}"
    elif indent:
        lines[first - 1] = f"{indent}{UNREADABLE.name} = None"
