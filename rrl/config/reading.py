"""Reads gin files, the files that they include, and overrides, into bindings in order of precedence; nothing of them is
resolved here."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from rrl.config import limits, repair
from rrl.config.files import Finder, beside
from rrl.config.files import find as find_file
from rrl.config.grammar import NEEDS_QUOTES, Binding, Block, Import, Include, Place, Problem, parse
from rrl.config.resolve import Layer, Layered
from rrl.config.sources import display, gin_files_in, moved_to, real, shipped, shipped_like
from rrl.config.words import closest, either
from rrl.machine.paths import expanded, is_pipe, unusable
from rrl.registry import PLUGIN_GROUP

FRAGMENTS = {
    "env": {"Experiment.env"},
    "encoder": {"Experiment.encoder"},
    "method": {"Experiment.agent", "Experiment.iterations"},
    "eval": {"Experiment.evaluators"},
}
"""Folders of shipped parts of runs, and what a part of this kind gives a run."""


class Reader:
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
        self._included = 0
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
        known = {real(path): name for name, path in shipped().items()}
        parts = set(fragments())
        layered: list[Layered] = []
        for path, shown in files:
            name = known.get(real(path), "")
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
        shown = os.path.normpath(Path(name).parent / statement.path) if path == paths[0] else display(path)
        bare = statement.path.removesuffix(".gin")
        if unusable(path) and bare in (known := shipped()):
            path, shown = known[bare], display(known[bare])
        above = [real(other) for other, _ in stack]
        if real(path) in above:
            circle = [name for _, name in stack[above.index(real(path)) :]]
            message = f"include goes round in a circle: {' -> '.join([*circle, circle[0]])}"
            self.problems.append(Problem.at(statement.place, message, "remove one of these includes"))
            self.complete = False
            return []
        self._included += 1
        if self._included > limits.INCLUDED:
            message = f"more than {limits.INCLUDED} texts are included, one counted as often as it is read"
            self.problems.append(Problem.at(statement.place, message, "include less"))
            self.complete = False
            return []
        text = self._text(path, shown, statement.place, statement.path, above)
        if text is None:
            return []
        return self._bindings(text, [*stack, (path, shown)], (statement.place, *via))

    def _text(self, path: Path, shown: str, place: Place, written: str, above: Sequence[Path] = ()) -> str | None:
        """A file's text; None, with a problem at `place`, if it cannot be read. `above`: files that include it."""
        try:
            text = read_text(path)
            if "\0" not in text:
                return text
            line = text[: text.index("\0")].count("\n") + 1
            message, hint = f"{shown} is not UTF-8 text: a NUL in line {line}", "save it as UTF-8"
        except UnicodeDecodeError as error:
            message = f"{shown} is not UTF-8 text: {error.reason} at byte {error.start}"
            hint = "save it as UTF-8"
        except OSError as error:
            message = f"cannot read {shown}: {error.strerror or error}"
            if isinstance(error, PermissionError):
                hint = "you may not read it"
            elif error.errno == errno.EFBIG:
                hint = f"a configuration is a text of at most {limits.CHARACTERS:,} characters"
            else:
                hint = _instead(path, written, above)
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


def fragments(field: str = "") -> list[str]:
    """Names of the shipped parts of runs; with a field such as `Experiment.agent`, of those that give it to a run."""
    known = shipped()
    return [
        name
        for folder, gives in FRAGMENTS.items()
        for name in known
        if name.startswith(f"{folder}/") and (not field or (field in gives and gives <= bound_in(known[name], name)))
    ]


def bound_in(path: Path, shown: str) -> set[str]:
    """What a file and those that it includes bind."""
    return {binding.label for binding, _ in Reader(find_file).file(path, shown)}


def read_text(path: Path) -> str:
    """The text of a file; a pipe's is kept, since it can be read but once."""
    if is_pipe(path):
        return _piped(path)
    about = path.stat()
    if not stat.S_ISREG(about.st_mode) and not stat.S_ISDIR(about.st_mode):  # a device may never end
        raise OSError(errno.EINVAL, "it is no file", str(path))
    if about.st_size > 4 * limits.CHARACTERS:  # of UTF-8 four bytes at most
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return path.read_text(encoding="utf-8-sig")


@cache
def _piped(path: Path) -> str:
    return path.read_text(encoding="utf-8-sig")


def _repaired(problem: Problem, text: str, shown: str) -> Problem:
    """The problem of a line that can't be read, with the line that was probably meant, if it can be read in its
    place."""
    lines = text.split("\n")
    index = max(problem.line, 1) - 1
    if len(problem.text) > limits.GUESSED:
        return problem
    guess = repair.statement(problem.text)
    if not guess:
        wanted = repair.expected(problem.text) if problem.hint.startswith(NEEDS_QUOTES) else ""
        return replace(problem, hint=wanted) if wanted else problem
    lines[index] = lines[index][: len(lines[index]) - len(lines[index].lstrip(" \t"))] + guess
    _, error = parse("\n".join(lines), shown)
    if error is not None and error.line <= problem.line:
        return problem
    rule = "" if problem.hint.startswith("did you mean") else problem.hint
    return replace(problem, hint=f"did you mean `{guess}`? {rule}".rstrip())


def _instead(path: Path, written: str, above: Sequence[Path]) -> str:
    """What to do about an include that cannot be read; `above`: files that it would lead back to."""
    if moved := moved_to(written):
        return f"it is now {moved}"
    inside = gin_files_in(path)
    near = {other.stem: other for other in gin_files_in(path.parent) if real(other) not in above}
    close = [Path(written).with_name(near[name].name).as_posix() for name in closest(path.stem, near)]
    close = [Path(written, other.name).as_posix() for other in inside] or close or [shipped_like(written)]
    if any(close):
        lines = either(f"`include '{name}'`" for name in close[:5])
        return f"did you mean {lines}?"
    if Path(written).is_absolute() or "://" in written:
        return "include a file that is here, or a shipped one (`rrl list files`)"
    return "paths are relative to the including file"
