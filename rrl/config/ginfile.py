"""Gin files in, one typed, immutable `Config` out; all mistakes together, but for what stands below a line that
cannot be read.

The dialect is a strict subset of gin: bindings, scopes, blocks, macros, `include`, `@X()` and
`%gin.REQUIRED` mean what stock gin means by them. Nothing of a file is executed: `import` is refused.
Paths are relative to the file that they stand in (`rrl.config.files`), those of included files too.
Stricter than gin: `include` is relative to the including file (or else a shipped file) and stands before
the bindings; the same key twice in one file, `@X` without `()`, and bindings or macros that nothing uses
are errors (included files may bind more than a run uses). Precedence: include < file < override.
Several files at once mean a file that includes them one after another.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from rrl import registry
from rrl.config import repair
from rrl.config.files import Finder, beside
from rrl.config.files import find as find_file
from rrl.config.grammar import Binding, Block, ConfigError, Import, Include, Place, Problem, parse, references_in
from rrl.config.resolve import Layer, Layered, Names, Resolver, replaced, unused
from rrl.config.words import a_kind, closest, describe, dumps, either, files_of, flatten, flatten_text, literal
from rrl.machine.paths import expanded, is_pipe, unusable
from rrl.registry import PLUGIN_GROUP, Config, UserError

__all__ = [
    "FRAGMENTS",
    "ConfigError",
    "Problem",
    "binds",
    "bound",
    "describe",
    "dumps",
    "files_of",
    "find",
    "fitting",
    "flatten",
    "flatten_text",
    "folders_of",
    "fragments",
    "holds",
    "laid_over",
    "load",
    "loads",
    "must_be",
    "must_fit",
    "names_in",
    "placed",
    "resolved",
    "root_of",
    "root_together",
    "shipped",
]


T = TypeVar("T")

FRAGMENTS = {
    "env": {"Experiment.env"},
    "encoder": {"Experiment.encoder"},
    "method": {"Experiment.agent", "Experiment.iterations"},
    "eval": {"Experiment.evaluators"},
}
"""Folders of shipped parts of runs, and what a part of this kind gives a run."""


def load(
    sources: str | Path | Sequence[str | Path],
    overrides: Sequence[str] = (),
    root: str = "Experiment",
    finder: Finder = find_file,
) -> Config:
    """The config of component `root` that gin files and `overrides` (gin statements) describe.

    A source is a path, or the bare name of a shipped file (see `find`). Several are laid over each other as if a
    file included them one after another: the later one wins. `finder` finds the files that fields name. Raises
    ConfigError with all mistakes.
    """
    return resolved(sources, overrides, root, finder)[0]


def resolved(
    sources: str | Path | Sequence[str | Path],
    overrides: Sequence[str] = (),
    root: str = "Experiment",
    finder: Finder = find_file,
) -> tuple[Config, Resolver]:
    """`load`, and what knows where each value comes from."""
    names = [sources] if isinstance(sources, (str, Path)) else list(sources)
    files = [_locate(name) for name in names]
    reader = _Reader(finder)
    part = Path(names[0]).parts[0] in FRAGMENTS and str(names[0]).removesuffix(".gin") in fragments()
    if len(files) == 1 and not part:
        return _config(reader, reader.file(*files[0]), overrides, root)
    together = Place(" + ".join(map(str, names)), 0, "")
    return _config(reader, reader.layers(files), overrides, root, together)


def loads(
    text: str,
    filename: str = "<string>",
    overrides: Sequence[str] = (),
    root: str = "Experiment",
    finder: Finder = find_file,
) -> Config:
    """Like `load` for a text; its paths are relative to the folder of `filename`."""
    reader = _Reader(finder)
    return _config(reader, reader.file(Path(filename), filename, text), overrides, root)[0]


def bound(
    source: str,
    field: str,
    root: str = "Experiment",
    finder: Finder = find_file,
    overrides: Sequence[str] = (),
    alone: str = "",
) -> Any:
    """What a gin file binds to one field of `root` (a component, or a tuple of them), whatever else of a run it holds
    or lacks, such as a file of `gin/env`; with `alone`, which says what to do about it, the file itself may bind
    nothing else. Raises ConfigError with all mistakes in it."""
    reader = _Reader(finder)
    path, shown = _locate(source)
    without = reader.file(path, shown)
    bindings = [*without, *reader.overrides(overrides)]
    names = Names(bindings, reader.blocks)
    run = Resolver((b for b, _ in bindings), names, reader.complete, folders=reader.folders, finder=finder)
    found = run.bound(root, field)
    problems = [*reader.problems, *names.problems, *names.unknown_components(reader.files), *run.problems]
    whole = found if isinstance(found, tuple) else (found,)
    if not (whole and all(isinstance(part, Config) for part in whole)) and not problems:
        hint = f"add a line such as `{root}.{field} = @Name()`"
        problems.append(Problem.at(reader.start, f"nothing here binds {root}.{field} to a component", hint))
    elif reader.complete:
        before = Resolver((b for b, _ in without), Names(without, []), True, folders=reader.folders, finder=finder)
        before.bound(root, field)
        idle = unused(bindings, run, before.used, names, alone)
        problems += [problem for problem in idle if alone or problem.idle]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return found


def fitting(
    read: Callable[[list[str]], T], overrides: Iterable[str], settings: Iterable[str] = ()
) -> tuple[T, list[str]]:
    """(what `read` makes of the overrides that something in it uses, these), for what is made of several files: gin
    statements, of which some are meant for one of them. `settings` are statements that an override of the same field
    replaces. ConfigError for every other mistake."""
    used = list(overrides)
    while True:
        try:
            return read(laid_over(settings, used)), used
        except ConfigError as error:
            idle = {problem.file for problem in error.problems if problem.idle}
            fit = [text for text in used if f'--set "{text}"' not in idle]
            if fit == used:
                raise
            used = fit


def laid_over(settings: Iterable[str], overrides: Sequence[str]) -> list[str]:
    """Both, but of the settings only those whose field no override sets: gin statements."""
    fields = {_field(text) for text in overrides}
    return [*(text for text in settings if _field(text) not in fields), *overrides]


def must_fit(overrides: Iterable[str], used: Iterable[Collection[str]], what: str) -> None:
    """UserError for an override that is in none of `used`: those that fit one or other of `what`."""
    known = {text for texts in used for text in texts}
    for text in overrides:
        if text not in known:
            raise UserError(f'--set "{text}" fits none of {what}; `rrl check FILE` prints what a file uses')


def _field(statement: str) -> str:
    return statement.partition("=")[0].strip()


def binds(source: str, name: str) -> bool:
    """Does this gin file itself (not what it includes) set a field of component `name`?"""
    path, _ = _locate(source)
    try:
        statements, _ = parse(_read(path), source)  # `load` will say what is wrong
    except (OSError, UnicodeDecodeError):
        return False
    return any(isinstance(line, Binding) and line.name == name and line.field for line in statements)


def holds(source: str, label: str) -> bool:
    """Does this gin file, or one that it includes, bind `label`, such as `Experiment.env`?"""
    return label in _bound_in(*_locate(source))


def root_of(sources: Sequence[str]) -> tuple[str, str]:
    """(root component, source) that gin files describe: of the first one that binds another root than a run, itself or
    by what it includes; else a run's."""
    kinds = [kind for kind in registry.ROOTS if kind != "experiment"]
    names = [name for kind in kinds for name in registry.names(kind)]
    for source in sources:
        bound = {label.rpartition(".")[0] for label in _bound_in(*_locate(source))}
        if found := [name for name in names if name in bound]:
            return found[0], source
    return "Experiment", sources[0] if sources else ""


def root_together(sources: Sequence[str]) -> str:
    """The root component that gin files describe; UserError for a sweep beside other files."""
    root, source = root_of(sources)
    if root == "Sweep" and len(sources) > 1:
        raise UserError(f"{source} is a sweep of its own: name it alone, not beside other files")
    return root


def must_be(wanted: str, sources: Sequence[str]) -> None:
    """UserError, with the right command, if the files describe another root than `wanted`."""
    root, source = root_of(sources)
    if root != wanted:
        kind, asked = (registry.get(name).kind.replace("experiment", "run") for name in (root, wanted))
        command, right = (registry.ROOTS[registry.get(name).kind] for name in (wanted, root))
        such = [name for name in shipped() if name.split("/")[0] in (command, f"{command}s")]  # the folder's name
        text = f"{source} is {a_kind(kind)}, not {a_kind(asked)}{' such as ' if such else ''}{', '.join(such)}"
        raise UserError(f"{text}; start it with: rrl {right} {source}")


def placed(statement: str, folders: Sequence[Path]) -> str:
    """A binding that a file holds as text, such as a sweep's override: the files that it names, which are looked for in
    the file's `folders`, are named from the current one."""
    binding = next(iter(parse(statement, "")[0]), None)
    if not isinstance(binding, Binding) or binding.name not in registry.names():
        return statement
    component = registry.get(binding.name)
    mark = component.Config.input_file(binding.field)
    if mark is None:
        return statement

    def path(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return tuple(map(path, value))
        if not isinstance(value, str) or value in mark.names(component):
            return value
        try:
            return _display(Path(find_file(component, mark, value, folders)))
        except UserError:  # told where it is used
            return value

    return f"{binding.label} = {literal(path(binding.value))}"


def shipped() -> dict[str, Path]:
    """The gin files that come with the package, by name: `adroit_pen_resnet34`, `method/rrl`, ..."""
    folder = _folder()
    files = sorted(folder.rglob("*.gin")) if folder else []
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files if folder}


def fragments(field: str = "") -> list[str]:
    """Names of the shipped parts of runs; with a field such as `Experiment.agent`, of those that give it to a run."""
    known = shipped()
    return [
        name
        for folder, gives in FRAGMENTS.items()
        for name in known
        if name.startswith(f"{folder}/") and (not field or (field in gives and gives <= _bound_in(known[name], name)))
    ]


def names_in(source: str) -> list[str]:
    """Components that a gin file and those that it includes name, with their gin scopes, such as `final/SuccessRate`:
    those that they refer to, and those of which they bind something."""
    bindings = [binding for binding, _ in _Reader(find_file).file(*_locate(source))]
    bound = [binding.label.rpartition(".")[0] for binding in bindings if binding.field]
    referred = [str(item)[1:].removesuffix("()") for binding in bindings for item in references_in(binding.value)]
    return list(dict.fromkeys([*bound, *referred]))


def _bound_in(path: Path, shown: str) -> set[str]:
    """What a file and those that it includes bind."""
    return {binding.label for binding, _ in _Reader(find_file).file(path, shown)}


def find(name: str) -> Path:
    """Path of the shipped gin file `name`, with or without `.gin`; ConfigError if there is none."""
    known = shipped()
    bare = name.removesuffix(".gin")
    if bare in known:
        return known[bare]
    close = near(name)
    hint = f"did you mean {' or '.join(close)}?" if close else "give a path, or a name that `rrl list files` shows"
    hint = f"it is now {moved}" if (moved := _moved(name)) else hint
    message = "there is no such gin file, neither here nor among the shipped ones"
    raise ConfigError([Problem(message, name, 0, "", hint)])


def near(name: str) -> list[str]:
    """Gin files, here or shipped, most like one that there is none of; best first."""
    known = shipped()
    bare = name.removesuffix(".gin")
    if moved := _moved(name):
        return [moved]
    files = [p for p in _gin_files(Path()) + _gin_files(Path("gin")) if _real(p) not in known.values()]
    local = {path.with_suffix("").as_posix(): path.as_posix() for path in files}
    options = local | {other: other for other in known}
    by_stem = {other.rpartition("/")[2]: other for other in known}
    stem = Path(bare).name
    close = [options[o] for o in closest(bare, options, 3) or closest(stem, options, 3)]
    return close or [by_stem[o] for o in closest(stem, by_stem, 3)]


def _folder() -> Path | None:
    """Where the shipped files are: in the wheel, or in the checkout."""
    here = Path(__file__).resolve().parents[1]
    return next((folder for folder in (here / "_gin", here.parent / "gin") if folder.is_dir()), None)


def _moved(name: str) -> str:
    """What has taken the place of a shipped file that went; "" if there was none of this name."""
    folder = _folder()
    table = folder / "moved.json" if folder else Path()
    moved: dict[str, str] = json.loads(table.read_text(encoding="utf-8")) if table.is_file() else {}
    return moved.get("/".join(Path(name.removesuffix(".gin")).parts[-2:]), "")


def _shipped_like(written: str) -> str:
    """The shipped file most like what an include names; "" if none is."""
    close = [name for name in near(written) if name in shipped()]
    return f"{close[0]}.gin" if close else ""


def folders_of(source: str | Path) -> list[Path]:
    """Where a gin file's own paths are looked for; ConfigError if there is none."""
    return beside(_locate(source)[0])


def _locate(source: str | Path) -> tuple[Path, str]:
    """A file, and how errors show it."""
    path = expanded(source)
    if not unusable(path) or is_pipe(path):
        return path, str(source)
    if os.path.lexists(path) and str(source).removesuffix(".gin") not in shipped():
        gin_files = ", ".join(map(str, _gin_files(path)))
        raise ConfigError([Problem(unusable(path), str(source), 0, "", gin_files and f"it holds {gin_files}")])
    path = find(str(source))
    return path, _display(path)


def _read(path: Path) -> str:
    """The text of a file; a pipe's is kept, since it can be read but once."""
    return _piped(path) if is_pipe(path) else path.read_text(encoding="utf-8-sig")


@cache
def _piped(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig")


def _config(
    reader: _Reader, bindings: list[Layered], overrides: Sequence[str], root: str, layers: Place | None = None
) -> tuple[Config, Resolver]:
    """`layers`: several files, which may lack a part; None: one, which tells what is missing where it first binds
    `root`."""

    def remedy(field: str) -> str:
        names = fragments(field) if layers else []
        return f"lay a part from {names[0].split('/')[0]}/ over it: {', '.join(names)}" if names else ""

    mentions = [b.place for b, _ in sorted(bindings, key=lambda pair: -pair[1]) if b.name == root and b.field]
    place = layers or (mentions[0] if mentions else reader.start)
    without, bindings = bindings, [*bindings, *reader.overrides(overrides)]
    names = Names(bindings, reader.blocks)
    run = Resolver((b for b, _ in bindings), names, reader.complete, remedy, reader.folders, reader.finder)
    config, known = None, root in registry.names()
    if known:
        run.referred[root] = [root]
        config = run.component(root, (), place)
    else:
        names.unknown.setdefault(root, []).append(place)
    problems = [
        *reader.problems,
        *names.problems,
        *names.unknown_components([*reader.files, place.file]),
        *run.problems,
    ]
    if reader.complete and known:
        # What overrides, or files that are laid over others, take the place of was used before.
        before = _used(reader, without, root, place) if overrides else set()
        earlier = [_used(reader, without[:end], root, place, whole=True) for end in reader.ends[:-1]]
        problems += unused(bindings, run, before.union(*earlier), names)
        problems += replaced(reader.given, run, before, root)
    if problems or config is None:
        order = {file: index for index, file in enumerate(reader.files)}
        unique = dict.fromkeys(problems)
        raise ConfigError(sorted(unique, key=lambda p: (order.get(p.file, len(order)), p.line)))
    return config, run


def _used(reader: _Reader, bindings: list[Layered], root: str, place: Place, *, whole: bool = False) -> set[Binding]:
    """What a run of these bindings uses; if it must be `whole`, nothing where they don't make one."""
    names = Names(bindings, [])
    run = Resolver((b for b, _ in bindings), names, True, folders=reader.folders, finder=reader.finder)
    config = run.component(root, (), place)
    return set() if whole and config is None else run.used


class _Reader:
    """Reads files, the files that they include, and the overrides, in order of precedence."""

    def __init__(self, finder: Finder) -> None:
        self.finder = finder
        self.folders: dict[str, list[Path]] = {}
        """By the name of a text, the folders that paths in it are relative to."""
        self.problems: list[Problem] = []
        self.blocks: list[Block] = []
        self.files: list[str] = []
        """Names of all texts, in the order in which their problems are told."""
        self.start = Place("", 0, "")
        """The file's first line."""
        self.ends: list[int] = []
        """Of several files laid over each other, how many bindings there are up to each one's end."""
        self.given: list[Binding] = []
        """What the parts among them are there for, such as a method's agent."""
        self.complete = True
        """False if a text could not be read to its end: what is missing or unused cannot be told then."""

    def file(self, path: Path, shown: str, text: str | None = None) -> list[Layered]:
        """All bindings of the run's file, or of a text in its stead, and of what it includes."""
        if text is None:
            text = self._text(path, shown, Place(shown, 0, ""), str(path))
        if text is None:
            return []
        self.start = Place(shown, 1, text.split("\n")[0].strip())
        return self._bindings(text, [(path, shown)])

    def layers(self, files: Sequence[tuple[Path, str]]) -> list[Layered]:
        """All bindings of files as if one included them: shipped ones may bind more than the run uses."""
        known = {_real(path): name for name, path in shipped().items()}
        parts = set(fragments())
        layered: list[Layered] = []
        for path, shown in files:
            name = known.get(_real(path), "")
            bindings = self.file(path, shown)
            if name in parts:
                gives = FRAGMENTS[name.split("/")[0]]
                self.given += [b for b, layer in bindings if layer == Layer.FILE and b.label in gives]
            layered += [(b, Layer.INCLUDED) for b, _ in bindings] if name else bindings
            self.ends.append(len(layered))
        return layered

    def overrides(self, overrides: Sequence[str]) -> list[Layered]:
        """The bindings of `--set`: each override is a text of its own, together they are one file."""
        bindings: list[Binding] = []
        for text in overrides:
            shown = f'--set "{text}"'
            self.files.append(shown)
            statements = self._statements(text, shown, numbered=False)
            if not statements and not any(problem.file == shown for problem in self.problems):
                hint = 'write --set "Component.field = value"'
                self.problems.append(Problem.at(Place(shown, 0, text), "an override must bind something", hint))
            for statement in statements:
                if isinstance(statement, Binding):
                    bindings.append(statement)
                elif isinstance(statement, Include):
                    hint = "include it in a gin file"
                    self.problems.append(Problem.at(statement.place, "--set takes bindings, not include", hint))
        return [(binding, Layer.OVERRIDE) for binding in self._without_duplicates(bindings)]

    def _statements(self, text: str, shown: str, numbered: bool = True) -> list[Binding | Include]:
        """What a text says; blocks and problems are noted."""
        statements, error = parse(text, shown, numbered)
        if error is not None:
            self.problems.append(_repaired(error, text, shown))
            self.complete = False
        said: list[Binding | Include] = []
        for statement in statements:
            if isinstance(statement, Import):
                hint = f"plugins are found by themselves through the entry-point group {PLUGIN_GROUP}"
                message = f"{statement.text} is refused: gin files run no code"
                self.problems.append(Problem.at(statement.place, message, hint))
            elif isinstance(statement, Block):
                self.blocks.append(statement)
            else:
                said.append(statement)
        return said

    def _bindings(self, text: str, stack: list[tuple[Path, str]], via: tuple[Place, ...] = ()) -> list[Layered]:
        """`stack`: the file of this text (path, name shown) below those that include it, `via` these lines."""
        path, shown = stack[-1]
        self.folders[shown] = beside(path)
        self.files += [shown] if shown not in self.files else []
        included: list[Layered] = []
        own: list[Binding] = []
        for statement in self._statements(text, shown):
            if isinstance(statement, Binding):
                own.append(replace(statement, via=via))
                continue
            if own:  # stock gin would let the included file win
                hint = f"move it above {own[0].place}: a file's own bindings go before included ones"
                self.problems.append(Problem.at(statement.place, "include comes after bindings", hint))
            included += self._include(statement, stack, via)
        layer = Layer.FILE if len(stack) == 1 else Layer.INCLUDED
        return [*included, *((binding, layer) for binding in self._without_duplicates(own))]

    def _include(self, statement: Include, stack: list[tuple[Path, str]], via: tuple[Place, ...]) -> list[Layered]:
        name = stack[-1][1]
        if not statement.path.strip():
            self.problems.append(
                Problem.at(statement.place, "include names no file", "write `include 'method/rrl.gin'`")
            )
            self.complete = False
            return []
        paths = [folder / expanded(statement.path) for folder in self.folders[name]]
        path = next((path for path in paths if not unusable(path)), paths[0])
        shown = os.path.normpath(Path(name).parent / statement.path) if path == paths[0] else _display(path)
        bare = statement.path.removesuffix(".gin")
        if unusable(path) and bare in (known := shipped()):
            path, shown = known[bare], _display(known[bare])
        above = [_real(other) for other, _ in stack]
        if _real(path) in above:
            circle = [name for _, name in stack[above.index(_real(path)) :]]
            message = f"include goes round in a circle: {' -> '.join([*circle, circle[0]])}"
            self.problems.append(Problem.at(statement.place, message, "remove one of these includes"))
            self.complete = False
            return []
        text = self._text(path, shown, statement.place, statement.path, above)
        if text is None:
            return []
        return self._bindings(text, [*stack, (path, shown)], (statement.place, *via))

    def _text(self, path: Path, shown: str, place: Place, written: str, above: Sequence[Path] = ()) -> str | None:
        """A file's text; None, with a problem at `place`, if it cannot be read. `above`: files that include it."""
        try:
            text = _read(path)
            if "\0" not in text:
                return text
            line = text[: text.index("\0")].count("\n") + 1
            message, hint = f"{shown} is not UTF-8 text: a NUL in line {line}", "save it as UTF-8"
        except UnicodeDecodeError as error:
            message = f"{shown} is not UTF-8 text: {error.reason} at byte {error.start}"
            hint = "save it as UTF-8"
        except OSError as error:
            message = f"cannot read {shown}: {error.strerror or error}"
            hint = "you may not read it" if path.exists() and not path.is_dir() else _instead(path, written, above)
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


def _repaired(problem: Problem, text: str, shown: str) -> Problem:
    """The problem of a line that can't be read, with the line that was probably meant, if it can be read in its
    place."""
    lines = text.split("\n")
    index = max(problem.line, 1) - 1
    guess = repair.statement(problem.text)
    if not guess:
        return problem
    lines[index] = lines[index][: len(lines[index]) - len(lines[index].lstrip(" \t"))] + guess
    _, error = parse("\n".join(lines), shown)
    if error is not None and error.line <= problem.line:
        return problem
    rule = "" if problem.hint.startswith("did you mean") else problem.hint
    return replace(problem, hint=f"did you mean `{guess}`? {rule}".rstrip())


def _instead(path: Path, written: str, above: Sequence[Path]) -> str:
    """What to do about an include that cannot be read; `above`: files that it would lead back to."""
    if moved := _moved(written):
        return f"it is now {moved}"
    inside = _gin_files(path)
    near = {other.stem: other for other in _gin_files(path.parent) if _real(other) not in above}
    close = [Path(written).with_name(near[name].name).as_posix() for name in closest(path.stem, near)]
    close = [Path(written, other.name).as_posix() for other in inside] or close or [_shipped_like(written)]
    if any(close):
        lines = either(f"`include '{name}'`" for name in close[:5])
        return f"did you mean {lines}?"
    if Path(written).is_absolute() or "://" in written:
        return "include a file that is here, or a shipped one (`rrl list files`)"
    return "paths are relative to the including file"


def _real(path: Path) -> Path:
    """Where a path leads, by all links; one whose links go round in a circle too."""
    return Path(os.path.realpath(path))


def _gin_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.gin")) if folder.is_dir() else []


def _display(path: Path) -> str:
    """A path as errors show it: relative to the working directory if it lies below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
