"""Files that configs name: found relative to the gin file that names them, held absolute, written down so that they are
found again from any folder, and after the project has moved."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rrl.machine.paths import expanded, is_pipe, unusable
from rrl.registry import Component, Config, InputFile, UserError

Finder = Callable[[type[Component], InputFile, str, Sequence[Path]], str]
"""Of a component, its field's mark, a path as written and the folders to look in: the path to use, or UserError."""


def beside(path: Path) -> list[Path]:
    """The folders that paths in a file are relative to: its own, and its target's if it is a link. A pipe has none."""
    if is_pipe(path):
        return [Path()]
    return list(dict.fromkeys([path.parent, Path(os.path.realpath(path)).parent]))


def find(component: type[Component], mark: InputFile, text: str, folders: Sequence[Path]) -> str:
    """The absolute path of the first such file in one of the folders, or else in the current one; UserError says where
    it was looked for."""
    path = expanded(text)
    if mark.suffix and path.name and path.suffix != mark.suffix:
        path = path.with_name(path.name + mark.suffix)
    places = list(dict.fromkeys(absolute(folder / path) for folder in (*folders, Path())))
    found = next((place for place in places if not unusable(place)), None)
    if found is None:
        raise UserError("; ".join(map(unusable, places)))
    return str(found)


def absolute(path: Path) -> Path:
    """The path from the root, without `..`, by the links that it was given with where these lead there."""
    short = Path(os.path.normpath(path.absolute()))
    try:
        if ".." not in path.parts or short.samefile(path):
            return short
    except (OSError, ValueError):
        pass
    return Path(os.path.realpath(path.parent)) / path.name


def written(config: Config, field: str, value: Any, folder: Path | None, project: Path | None) -> Any:
    """How a gin file in `folder` says a field's value: files below `project` (None: `folder`) relative to it, others
    absolute; all of them for no folder, or for one that a link has put outside the project."""

    def name(path: Path) -> str:
        if folder is None:
            return str(path)
        real, top = (os.path.realpath(place) for place in (folder, project or folder))
        inside = _below(path, project or folder) if Path(real).is_relative_to(top) else None
        return str(path) if inside is None else os.path.relpath(top / inside, real)

    return _renamed(config, field, value, name)


def shown(config: Config, field: str, value: Any, project: Path | None) -> Any:
    """A field's value for people and comparisons, the same on every machine: files by their path in the project, others
    by their name and a checksum of the content."""

    def name(path: Path) -> str:
        if (inside := _below(path, project)) is not None:
            return str(inside)
        if unusable(path):
            return path.name
        with path.open("rb") as file:
            return f"{path.name} (sha256 {hashlib.file_digest(file, 'sha256').hexdigest()[:12]})"

    return _renamed(config, field, value, name)


def _renamed(config: Config, field: str, value: Any, name: Callable[[Path], str]) -> Any:
    """The value with `name` of each file in it."""
    if isinstance(value, tuple):
        return tuple(_renamed(config, field, item, name) for item in value)
    path = named(config, field, value) if isinstance(value, str) else None
    return value if path is None else name(path)


def named(config: Config, field: str, text: str) -> Path | None:
    """The file that a field's text means, absolute; None: none, or one that is not here under a relative path."""
    mark = config.input_file(field)
    if mark is None or text in mark.names(config.component):
        return None
    path = expanded(text)
    if path.is_absolute():
        return path
    try:
        return Path(find(config.component, mark, text, ()))
    except UserError:
        return None


def _below(path: Path, project: Path | None) -> Path | None:
    """The path from the project's folder on, whichever links lead there; None if it lies elsewhere."""
    if project is None:
        return None
    for file, top in (
        (path, Path(os.path.normpath(project.absolute()))),
        (Path(os.path.realpath(path.parent)) / path.name, Path(os.path.realpath(project))),
    ):
        if file.is_relative_to(top):
            return file.relative_to(top)
    return None
