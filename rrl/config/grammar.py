"""Gin's grammar with places: what one text says, statement by statement, and where it cannot be read.

Only `gin.config_parser` is used, never gin's runtime: parsing a text runs no code. It stops at a text's first
mistake; `parse` says what it is in the user's words.
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

from rrl.config import limits
from rrl.config.characters import foreign
from rrl.registry import UserError

NEEDS_QUOTES = "strings need quotes"
LONGEST = 200
"""Characters of a line or a value that an error shows."""


def cut(text: str, most: int = LONGEST) -> str:
    """The text, without its middle if it is longer than that."""
    return text if len(text) <= most else f"{text[: most - 50]} ... {text[-40:]}"


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

    @property
    def where(self) -> str:
        """Its place in words."""
        return str(Place(self.file, self.line, self.text))

    @property
    def what(self) -> str:
        """All of it but its place: equal for mistakes of one kind."""
        text = f"\n    {cut(self.text)}" if self.line and self.text else ""
        hints = "".join(f"\n  {hint}" for hint in (foreign(self.text[: limits.GUESSED]), self.hint) if hint)
        return f"{self.message}{text}{hints}"

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class ConfigError(UserError):
    """All mistakes of a configuration, as data (`problems`) and as text (`str`), where equal ones are told once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        places: dict[str, list[str]] = {}
        for problem in problems:
            places.setdefault(problem.what, []).append(problem.where)
        super().__init__("\n".join(f"{', '.join(where)}: {what}" for what, where in places.items()))
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


@dataclass(frozen=True, eq=False)
class Binding:
    """`scope/name.field = value`, or the macro `name = value` (then `field` is empty). Equal by identity."""

    scope: str
    name: str
    field: str
    value: Any
    place: Place
    in_block: bool
    via: tuple[Place, ...] = ()
    """The includes that led to its file, the innermost first."""

    @property
    def label(self) -> str:
        """How the file names it, such as `big/ResNet.depth`."""
        return (f"{self.scope}/" if self.scope else "") + self.name + (f".{self.field}" if self.field else "")


@dataclass(frozen=True)
class Include:
    """`include 'path'`"""

    path: str
    place: Place


@dataclass(frozen=True)
class Block:
    """The head `Name:` of an indented block; its bindings follow as statements of their own."""

    name: str
    place: Place


@dataclass(frozen=True)
class Import:
    """`import module`, which is refused: nothing of a file is executed."""

    text: str
    place: Place


Statement = Binding | Include | Block | Import

_KEY = re.compile(r"\s*([A-Za-z_][\w./]*)")
_OTHER_SIGN = re.compile(r"\s*[A-Za-z_][\w./]*\s*(?:==|:=|->|<-|=>|:(?=.*\S))")
_MORE = re.compile(r"[,;]\s*[A-Za-z_][\w./]*\s*=")
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_NO_VALUE = "has no value"
_VALUES = "gin takes numbers, strings, True, False, None, tuples, @Name() and %macro"
_START = re.compile(r"\s*(?:[A-Za-z_][\w./]*\s*(?:=|:\s*(?:#.*)?$)|(?:include|import|from)\b)")


class _Delegate:
    """What gin's parser calls to represent `@name()` and `%name`."""

    def configurable_reference(self, scoped_name: str, evaluate: bool) -> Reference:
        *scopes, name = scoped_name.split("/")
        return Reference(tuple(scopes), name, evaluate)

    def macro(self, name: str) -> Macro:
        return Macro(name)


def parse(text: str, file: str, numbered: bool = True) -> tuple[list[Statement], Problem | None]:
    """The statements of `text` up to its first error of grammar, and that error.

    Places carry `file` and, if `numbered`, the line.
    """
    if len(text) > limits.CHARACTERS:
        message = f"a text of {len(text):,} characters, and a configuration has {limits.CHARACTERS:,} at most"
        return [], Problem(message, file, 0, "")
    lines = text.split("\n")

    def place(line: int) -> Place:
        return Place(file, line if numbered else 0, lines[line - 1].strip(" \t\r"))

    if line := _many_strings(lines):
        message = f"more than {limits.JOINED} strings stand side by side"
        return [], Problem.at(place(line), message, "write them as one, or put commas between them")
    statements: list[Statement] = []
    try:
        for statement in ConfigParser(text, _Delegate()):
            where = place(statement.location.line_num)
            said = _statement(statement, where)
            if _halves(said):
                hint = "write the character itself"
                return statements, Problem.at(where, "a string holds half a character, which no file can hold", hint)
            statements.append(said)
    except (SyntaxError, tokenize.TokenError, TypeError, ValueError, RecursionError) as error:
        line, message, hint = _diagnose(error, lines)
        return statements, Problem.at(place(line), message, hint)
    return statements, None


def _many_strings(lines: list[str]) -> int:
    """The line where more than `limits.JOINED` strings stand side by side, which gin's parser takes to be one; 0 if
    none does. The time that it takes grows with the square of their number."""
    if sum(line.count("'") + line.count('"') for line in lines) <= 2 * limits.JOINED:
        return 0
    count = 0
    try:
        for token in tokenize.generate_tokens(io.StringIO("\n".join(lines)).readline):
            if token.type == tokenize.STRING:
                count += 1
            elif token.type not in (tokenize.NL, tokenize.COMMENT):
                count = 0
            if count > limits.JOINED:
                return token.start[0]
    except (tokenize.TokenError, SyntaxError):  # told when it is read
        pass
    return 0


def value_of(source: str) -> Any:
    """The value that gin source says, such as `(1, 2)`. ValueError if it says none."""
    statements, problem = parse(f"value = {source}", "")
    if problem or len(statements) != 1 or not isinstance(statements[0], Binding):
        raise ValueError(f"{source} is no value of gin's")
    return statements[0].value


def _halves(statement: Statement) -> bool:
    """Does a string hold half a character: a surrogate, alone?"""
    said = statement.path if isinstance(statement, Include) else getattr(statement, "value", None)
    return any("\ud800" <= c <= "\udfff" for leaf in _leaves(said) if isinstance(leaf, str) for c in leaf)


def _statement(parsed: Any, place: Place) -> Statement:
    """A statement of gin's parser as one of ours."""
    if isinstance(parsed, ImportStatement):
        return Import(parsed.format(), place)
    if isinstance(parsed, IncludeStatement):
        return Include(parsed.filename, place)
    if isinstance(parsed, BlockDeclaration):
        return Block(parsed.selector, place)
    assert isinstance(parsed, BindingStatement)
    scope, name, field = parsed.scope, parsed.selector, parsed.arg_name
    if not field and scope:
        scope, name = "", f"{scope}/{name}"
    return Binding(scope, name, field, parsed.value, place, in_block=parsed.location.char_num is not None)


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


def _logical_starts(lines: list[str]) -> list[int]:
    """Numbers of the lines that start a statement, as far as the text can be read."""
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
    except (tokenize.TokenError, SyntaxError):
        pass
    return starts


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


def _diagnose(error: Exception, lines: list[str]) -> tuple[int, str, str]:
    """The line to show, message and hint."""
    starts = _logical_starts(lines)
    line = _error_line(error, lines, starts)
    first = max((start for start in starts if start <= line), default=line)
    if str(error.args[0]).startswith("Expected indentation"):
        head = max((start for start in starts if start < line), default=first)
        return head, f"the block {lines[head - 1].strip()} is empty", "indent the lines `field = value` below it"
    runs_on = line > first and bool(_START.match(lines[line - 1]))
    if runs_on or isinstance(error, tokenize.TokenError):
        if isinstance(error, tokenize.TokenError) and "string" in str(error.args[0]):
            return first, "the string is never closed", "add the closing quotes"
        opened = _open_bracket(lines[first - 1 : line - 1 if runs_on else None])
        return first, f"the bracket {opened} is never closed", f"add the closing `{_CLOSING[opened]}`"
    message, hint = _explain(error, lines, first, line)
    return (first if message.endswith(_NO_VALUE) else line), message, hint


def _open_bracket(lines: list[str]) -> str:
    """The outermost bracket that these lines leave open."""
    opened = []
    try:
        for token in tokenize.generate_tokens(io.StringIO("\n".join(lines)).readline):
            if token.type == tokenize.OP and token.string in "([{":
                opened.append(token.string)
            elif token.type == tokenize.OP and token.string in ")]}" and opened:
                opened.pop()
    except (tokenize.TokenError, SyntaxError):
        pass
    return opened[0] if opened else "("


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _head_without_colon(lines: list[str], first: int) -> bool:
    """Is this line `Name` with a more indented line below it?"""
    line = lines[first - 1]
    below = next((other for other in lines[first:] if other.strip()), "")
    return "=" not in line and len(_indent(below)) > len(_indent(line))


def _before(lines: list[str], first: int) -> str:
    """The line above, but for empty ones."""
    return next((other for other in reversed(lines[: first - 1]) if other.strip()), "")


def _tabs_and_spaces(lines: list[str], first: int) -> bool:
    here, above = _indent(lines[first - 1]), _indent(_before(lines, first))
    return bool(here) and bool(above) and ("\t" in here) != ("\t" in above)


def _bad_indentation(error: Exception, lines: list[str], first: int) -> bool:
    deeper = len(_indent(lines[first - 1])) > len(_indent(_before(lines, first)))
    unexpected = str(error.args[0]).startswith("Invalid identifier") and deeper
    return unexpected or isinstance(error, IndentationError)


def _explain(error: Exception, lines: list[str], first: int, line: int) -> tuple[str, str]:
    """Message and hint in the user's words for an error of gin's parser."""
    said, text = str(error.args[0]), lines[line - 1]
    key = match[1] if (match := _KEY.match(lines[first - 1])) else ""
    location = error.args[1] if len(error.args) > 1 else (None, line, 0, text)
    rest = text[location[2] or 0 :].split("#")[0].strip()
    form = "write `Component.field = value`, `name = value`, `Component:` or `include 'file.gin'`"
    if _tabs_and_spaces(lines, first):
        return "this line is indented otherwise than the one above: tabs and spaces mix", "indent by spaces alone"
    if _bad_indentation(error, lines, first):
        return "this line's indentation fits no line above it", "indent all lines of a block alike"
    if "Failed to parse token" in said:
        token = said.split("Failed to parse token ", 1)[1][1:-1]
        if token.lower() in ("true", "false", "none"):
            return f"{token} is not a value", f"did you mean {token.capitalize()}?"
        if token.lower() in ("nan", "inf", "infinity"):
            return f"{token} is not a value", "numbers must be finite"
        if re.fullmatch(r"[A-Za-z_]\w*", token):
            hint = f"{NEEDS_QUOTES}: '{cut(token)}'; components are written @Name()"
            return f"{cut(token)} is not a value", hint
        if token[:1] in "'\"" and "\\" in token:
            return f"{cut(token)} is not a value", "double a backslash in a string, or write paths with /"
        if re.fullmatch(r"-?\d+", token):
            return f"{cut(token)} is not a value", "no number of gin's is that long"
        return f"{cut(token)} is not a value", _VALUES
    if said.startswith("Unable to parse value"):
        if not rest:
            return f"{key} {_NO_VALUE}", f"write `{key} = value`"
        if rest[0] in "'\"":
            return "the string is never closed", "add the closing quotes"
        return f"{cut(rest)} is not a value", _VALUES
    if said == "Expected ')'.":
        name = re.sub(r".*@([\w/.]+)\($", r"\1", text[: location[2]].rstrip())
        hint = f"write `{name}.field = value` on a line of its own"
        return f"@{name}() takes nothing between its brackets", hint
    if _OTHER_SIGN.match(lines[first - 1]) and not rest.startswith(("'", '"')):
        return f"a setting is written with `=`: cannot read {lines[first - 1].strip()}", ""
    if said.startswith("Expected newline"):
        return f"unexpected {cut(rest)} after the value", _rule_for_more(rest, key)
    if said.startswith("Expected ',' or"):
        if rest[:1] in _CLOSING.values():
            opened = next(opening for opening, closing in _CLOSING.items() if f"'{closing}'" in said)
            return f"the bracket {opened} is closed by {rest[0]}", f"close it by `{_CLOSING[opened]}`"
        return f"expected a comma before {cut(rest)}", "separate the items of a tuple by commas"
    if said.startswith("Expected '='") and lines[first - 1] != lines[first - 1].lstrip():
        hint = "leave the component's name away, or end the indentation"
        return "inside a block stands `field = value`", hint
    if said.startswith("Expected file path") or key == "include":
        return "include takes a file name in quotes", "write `include 'method/rrl.gin'`"
    if said.startswith("Malformatted") and not foreign(text):
        return "spaces or doubled separators inside a name", form
    if _head_without_colon(lines, first):
        return f"{key} is followed by an indented block but has no colon", f"did you mean `{key}:`?"
    if said == "Expected ':'." or isinstance(error, TypeError):
        return f"the value of {key} cannot be read", "fields take no dicts and no sets"
    if isinstance(error, RecursionError):
        return f"the value of {key} is nested too deeply", ""
    if re.match(r"<{7}|={7}|>{7}", text):
        form = "two versions were merged here: keep the lines of one, and delete these marks"
    return f"cannot read {cut(lines[first - 1].strip())}", form


def _rule_for_more(rest: str, key: str) -> str:
    """What gin has of what stands behind a whole value."""
    if rest[:1] in _CLOSING.values():
        return "no bracket is open here: delete it"
    if key == "include":
        return "one include a line"
    if _MORE.match(rest):
        return "one statement a line, and one to each --set"
    if rest.startswith(","):
        return "tuples need brackets: (1, 2)"
    return "macros take no brackets" if rest == "()" else "one statement a line; gin does no arithmetic"
