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

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rrl import registry
from rrl.config.files import Finder, beside
from rrl.config.files import find as find_file
from rrl.config.grammar import Binding, ConfigError, Place, Problem, parse, references_in
from rrl.config.idle import replaced, unused
from rrl.config.reading import FRAGMENTS, Reader, bound_in, fragments, read_text
from rrl.config.resolve import Layered, Names, Resolver
from rrl.config.sources import display, find, locate, near, shipped
from rrl.config.words import a_kind, describe, dumps, files_of, flatten, flatten_text, literal
from rrl.registry import Config, UserError

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
    "near",
    "placed",
    "resolved",
    "root_of",
    "root_together",
    "shipped",
]


T = TypeVar("T")


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
    files = [locate(name) for name in names]
    reader = Reader(finder)
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
    reader = Reader(finder)
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
    reader = Reader(finder)
    path, shown = locate(source)
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
    path, _ = locate(source)
    try:
        statements, _ = parse(read_text(path), source)  # `load` will say what is wrong
    except (OSError, UnicodeDecodeError):
        return False
    return any(isinstance(line, Binding) and line.name == name and line.field for line in statements)


def holds(source: str, label: str) -> bool:
    """Does this gin file, or one that it includes, bind `label`, such as `Experiment.env`?"""
    return label in bound_in(*locate(source))


def root_of(sources: Sequence[str]) -> tuple[str, str]:
    """(root component, source) that gin files describe: of the first one that binds another root than a run, itself or
    by what it includes; else a run's."""
    kinds = [kind for kind in registry.ROOTS if kind != "experiment"]
    names = [name for kind in kinds for name in registry.names(kind)]
    for source in sources:
        bound = {label.rpartition(".")[0] for label in bound_in(*locate(source))}
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
            return display(Path(find_file(component, mark, value, folders)))
        except UserError:  # told where it is used
            return value

    return f"{binding.label} = {literal(path(binding.value))}"


def names_in(source: str) -> list[str]:
    """Components that a gin file and those that it includes name, with their gin scopes, such as `final/SuccessRate`:
    those that they refer to, and those of which they bind something."""
    bindings = [binding for binding, _ in Reader(find_file).file(*locate(source))]
    bound = [binding.label.rpartition(".")[0] for binding in bindings if binding.field]
    referred = [str(item)[1:].removesuffix("()") for binding in bindings for item in references_in(binding.value)]
    return list(dict.fromkeys([*bound, *referred]))


def folders_of(source: str | Path) -> list[Path]:
    """Where a gin file's own paths are looked for; ConfigError if there is none."""
    return beside(locate(source)[0])


def _config(
    reader: Reader, bindings: list[Layered], overrides: Sequence[str], root: str, layers: Place | None = None
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


def _used(reader: Reader, bindings: list[Layered], root: str, place: Place, *, whole: bool = False) -> set[Binding]:
    """What a run of these bindings uses; if it must be `whole`, nothing where they don't make one."""
    names = Names(bindings, [])
    run = Resolver((b for b, _ in bindings), names, True, folders=reader.folders, finder=reader.finder)
    config = run.component(root, (), place)
    return set() if whole and config is None else run.used
