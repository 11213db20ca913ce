"""A gin file in, one typed, immutable `Config` out; all mistakes of the file together.

The dialect is a strict subset of gin: bindings, scopes, blocks, macros, `include`, `@X()` and
`%gin.REQUIRED` mean what stock gin means by them. Nothing of a file is executed: `import` is refused.
Stricter than gin: `include` is relative to the including file (or else a shipped file) and stands before
the bindings; the same key twice in one file, `@X` without `()`, and bindings or macros that nothing uses
are errors (included files may bind more than a run uses). Precedence: include < file < override.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rrl import registry
from rrl.config.grammar import Binding, Block, ConfigError, Include, Place, Problem, Reference, parse
from rrl.config.resolve import Layer, Layered, Names, Resolver, unused
from rrl.config.words import closest, describe, dumps, flatten, literal
from rrl.registry import Config

__all__ = [
    "ConfigError",
    "Problem",
    "binds",
    "describe",
    "dumps",
    "find",
    "flatten",
    "flatten_text",
    "load",
    "loads",
    "shipped",
]


def load(source: str | Path, overrides: Sequence[str] = (), root: str = "Experiment") -> Config:
    """The config of component `root` that a gin file and `overrides` (gin statements) describe.

    `source` is a path, or the bare name of a shipped file (see `find`). Raises ConfigError with all
    mistakes.
    """
    path = Path(source)
    if not path.is_file():
        path = find(str(source))
        return _load(None, path, _display(path), overrides, root)
    return _load(None, path, str(source), overrides, root)


def loads(text: str, filename: str = "<string>", overrides: Sequence[str] = (), root: str = "Experiment") -> Config:
    """Like `load` for a text; `include` is relative to the folder of `filename`."""
    return _load(text, Path(filename), filename, overrides, root)


def binds(source: str, name: str) -> bool:
    """Does this gin file itself (not what it includes) set a field of component `name`?"""
    path = Path(source) if Path(source).is_file() else find(source)
    try:
        statements, _ = parse(path.read_text(encoding="utf-8-sig"), source)
    except (OSError, UnicodeDecodeError):
        return False  # `load` will say what is wrong
    return any(isinstance(each, Binding) and each.name == name and each.field for each in statements)


def shipped() -> dict[str, Path]:
    """The gin files that come with the package, by name: `adroit_pen_resnet34`, `base/adroit`, ..."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "_gin", here.parent / "gin"):
        if folder.is_dir():
            files = sorted(folder.rglob("*.gin"))
            return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}
    return {}


def find(name: str) -> Path:
    """Path of the shipped gin file `name`, with or without `.gin`; ConfigError if there is none."""
    known = shipped()
    bare = name.removesuffix(".gin")
    if bare in known:
        return known[bare]
    files = [p for p in _gin_files(Path()) + _gin_files(Path("gin")) if p.resolve() not in known.values()]
    local = {path.with_suffix("").as_posix(): path.as_posix() for path in files}
    options = local | {other: other for other in known}
    close = [options[o] for o in closest(bare, options, 3) or closest(Path(bare).name, options, 3)]
    runnable = [other for other in known if "/" not in other]
    hint = f"shipped: {', '.join(runnable)}" if runnable else "give the path of a gin file"
    hint = f"did you mean {' or '.join(close)}?" if close else hint
    message = "there is no such gin file, neither here nor among the shipped ones"
    raise ConfigError([Problem(message, name, 0, "", hint)])


def flatten_text(text: str, filename: str = "<string>", root: str = "Experiment") -> dict[str, str]:
    """`flatten` of a text that `dumps` wrote, by any version: components and fields need not exist any more. What
    cannot be read is left out."""
    statements, _ = parse(text, filename)
    fields: dict[str, dict[str, Any]] = {}
    for each in statements:
        if isinstance(each, Binding) and each.field:
            name = f"{each.scope}/{each.name}" if each.scope else each.name
            fields.setdefault(name, {})[each.field] = each.value
    flat: dict[str, str] = {}

    def put(place: str, value: Any, above: tuple[str, ...]) -> None:
        items = value if isinstance(value, (tuple, list)) else ()
        if isinstance(value, Reference):
            flat[place] = value.name
            visit("/".join((*value.scopes, value.name)), f"{place}.", above)
        elif any(isinstance(item, Reference) for item in items):
            for index, item in enumerate(items):
                put(f"{place}.{index}", item, above)
        else:
            flat[place] = value if isinstance(value, str) else literal(value)

    def visit(name: str, prefix: str, above: tuple[str, ...]) -> None:
        if name not in above:
            for field, value in fields.get(name, fields.get(name.rpartition("/")[2], {})).items():
                put(prefix + field, value, (*above, name))

    visit(root, "", ())
    return flat


def _load(text: str | None, path: Path, shown: str, overrides: Sequence[str], root: str) -> Config:
    """`text` None: it is read from `path`."""
    reader = _Reader()
    bindings = [*reader.read(text, path, shown), *reader.overrides(overrides)]
    names = Names(bindings, reader.blocks)
    run = Resolver((b for b, _ in bindings), names, reader.complete)
    without = [(b, layer) for b, layer in bindings if layer != Layer.OVERRIDE]
    before = Resolver((b for b, _ in without), Names(without, []), reader.complete)
    start = Place(shown, 1, reader.first_line)
    config = None
    if root in registry.names():
        mentions = [b.place for b, _ in sorted(without, key=lambda pair: -pair[1]) if b.name == root and b.field]
        for resolver in (run, before):
            resolver.referred[root] = [root]
        config = run.component(root, (), mentions[0] if mentions else start)
        before.component(root, (), start)
    else:
        names.unknown.setdefault(root, []).append(start)
    problems = [
        *reader.problems,
        *names.problems,
        *names.unknown_components([*reader.files, shown]),
        *run.problems,
    ]
    if reader.complete and root in registry.names():
        problems += unused(bindings, run, before, names)
    if problems or config is None:
        order = {file: index for index, file in enumerate(reader.files)}
        unique = dict.fromkeys(problems)
        raise ConfigError(sorted(unique, key=lambda p: (order.get(p.file, len(order)), p.line)))
    return config


class _Reader:
    """Reads a file, the files it includes, and the overrides, in order of precedence."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.blocks: list[Block] = []
        self.files: list[str] = []
        """Names of all texts, in the order in which their problems are told."""
        self.first_line = ""
        self.complete = True
        """False if a file could not be read: what is missing or unused cannot be told then."""

    def read(self, text: str | None, path: Path, shown: str) -> list[Layered]:
        """All bindings of the run's file and of what it includes."""
        if text is None:
            text = self._text(path, shown, Place(shown, 0, ""), str(path))
        if text is None:
            return []
        self.first_line = text.split("\n")[0].strip()
        return self._bindings(text, [(path.resolve(), shown)])

    def overrides(self, overrides: Sequence[str]) -> list[Layered]:
        """The bindings of `--set`: each override is a text of its own, together they are one file."""
        found: list[Binding] = []
        for text in overrides:
            shown = f'--set "{text}"'
            self.files.append(shown)
            statements, problems = parse(text, shown, numbered=False)
            self.problems += problems
            if not statements and not problems:
                hint = 'write --set "Component.field = value"'
                self.problems.append(Problem.at(Place(shown, 0, text), "an override must bind something", hint))
            for statement in statements:
                if isinstance(statement, Binding):
                    found.append(statement)
                elif isinstance(statement, Block):
                    self.blocks.append(statement)
                elif statement.path is not None:
                    hint = "include it in a gin file"
                    self.problems.append(Problem.at(statement.place, "--set takes bindings, not include", hint))
        return [(binding, Layer.OVERRIDE) for binding in self._without_duplicates(found)]

    def _bindings(self, text: str, stack: list[tuple[Path, str]]) -> list[Layered]:
        """`stack`: the file of this text (resolved path, name shown) below those that include it."""
        shown = stack[-1][1]
        self.files += [shown] if shown not in self.files else []
        statements, problems = parse(text, shown)
        self.problems += problems
        included: list[Layered] = []
        own: list[Binding] = []
        for statement in statements:
            if isinstance(statement, Block):
                self.blocks.append(statement)
            elif isinstance(statement, Binding):
                own.append(statement)
            else:
                if own:  # stock gin would let the included file win
                    hint = f"move it above {own[0].place}: a file's own bindings go before included ones"
                    self.problems.append(Problem.at(statement.place, "include comes after bindings", hint))
                included += self._include(statement, stack)
        layer = Layer.FILE if len(stack) == 1 else Layer.INCLUDED
        return [*included, *((binding, layer) for binding in self._without_duplicates(own))]

    def _include(self, statement: Include, stack: list[tuple[Path, str]]) -> list[Layered]:
        if statement.path is None:
            self.complete = False
            return []
        path = stack[-1][0].parent / statement.path
        shown = os.path.normpath(Path(stack[-1][1]).parent / statement.path)
        bare = statement.path.removesuffix(".gin")
        if not path.is_file() and bare in (known := shipped()):
            path, shown = known[bare], _display(known[bare])
        path = path.resolve()
        above = [other for other, _ in stack]
        if path in above:
            circle = [name for _, name in stack[above.index(path) :]]
            message = f"include goes round in a circle: {' -> '.join([*circle, circle[0]])}"
            self.problems.append(Problem.at(statement.place, message, "remove one of these includes"))
            self.complete = False
            return []
        text = self._text(path, shown, statement.place, statement.path)
        return self._bindings(text, [*stack, (path, shown)]) if text is not None else []

    def _text(self, path: Path, shown: str, place: Place, written: str) -> str | None:
        """A file's text; None, with a problem at `place`, if it cannot be read."""
        try:
            return path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            message = f"{shown} is not UTF-8 text: {error.reason} at byte {error.start}"
            hint = "save it as UTF-8"
        except OSError as error:
            close = closest(path.name, [other.name for other in _gin_files(path.parent)])
            message = f"cannot read {shown}: {error.strerror or error}"
            hint = "paths are relative to the including file"
            hint = f"did you mean '{Path(written).with_name(close[0]).as_posix()}'?" if close else hint
        self.problems.append(Problem.at(place, message, hint))
        self.complete = False
        return None

    def _without_duplicates(self, bindings: list[Binding]) -> list[Binding]:
        seen: dict[str, Binding] = {}
        for binding in bindings:
            first = seen.setdefault(binding.label, binding)
            if first is not binding:
                message = f"{binding.label} is bound twice; first at {first.place}"
                self.problems.append(Problem.at(binding.place, message, "delete one of the two"))
        return list(seen.values())


def _gin_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.gin")) if folder.is_dir() else []


def _display(path: Path) -> str:
    """A path as errors show it: relative to the working directory if it lies below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
