"""Where gin files are: paths, and the names of the files that come with the package."""

from __future__ import annotations

import json
import os
from pathlib import Path

from rrl.config.grammar import ConfigError, Problem
from rrl.config.words import closest
from rrl.machine.paths import expanded, is_pipe, unusable


def shipped() -> dict[str, Path]:
    """The gin files that come with the package, by name: `adroit_pen_resnet34`, `method/rrl`, ..."""
    folder = _folder()
    files = sorted(folder.rglob("*.gin")) if folder else []
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files if folder}


def find(name: str) -> Path:
    """Path of the shipped gin file `name`, with or without `.gin`; ConfigError if there is none."""
    known = shipped()
    bare = name.removesuffix(".gin")
    if bare in known:
        return known[bare]
    close = near(name)
    hint = f"did you mean {' or '.join(close)}?" if close else "give a path, or a name that `rrl list files` shows"
    hint = f"it is now {moved}" if (moved := moved_to(name)) else hint
    message = "there is no such gin file, neither here nor among the shipped ones"
    raise ConfigError([Problem(message, name, 0, "", hint)])


def near(name: str) -> list[str]:
    """Gin files, here or shipped, most like one that there is none of; best first."""
    known = shipped()
    bare = name.removesuffix(".gin")
    if moved := moved_to(name):
        return [moved]
    files = [p for p in gin_files_in(Path()) + gin_files_in(Path("gin")) if real(p) not in known.values()]
    local = {path.with_suffix("").as_posix(): path.as_posix() for path in files}
    options = local | {other: other for other in known}
    by_stem = {other.rpartition("/")[2]: other for other in known}
    stem = Path(bare).name
    close = [options[o] for o in closest(bare, options, 3) or closest(stem, options, 3)]
    return close or [by_stem[o] for o in closest(stem, by_stem, 3)]


def locate(source: str | Path) -> tuple[Path, str]:
    """A file, and how errors show it."""
    path = expanded(source)
    if not unusable(path) or is_pipe(path):
        return path, str(source)
    if os.path.lexists(path) and str(source).removesuffix(".gin") not in shipped():
        gin_files = ", ".join(map(str, gin_files_in(path)))
        raise ConfigError([Problem(unusable(path), str(source), 0, "", gin_files and f"it holds {gin_files}")])
    path = find(str(source))
    return path, display(path)


def shipped_like(written: str) -> str:
    """The shipped file most like what an include names; "" if none is."""
    known = shipped()
    close = [name for name in near(written) if name in known]
    return f"{close[0]}.gin" if close else ""


def moved_to(name: str) -> str:
    """What has taken the place of a shipped file that went; "" if there was none of this name."""
    folder = _folder()
    table = folder / "moved.json" if folder else Path()
    moved: dict[str, str] = json.loads(table.read_text(encoding="utf-8")) if table.is_file() else {}
    return moved.get("/".join(Path(name.removesuffix(".gin")).parts[-2:]), "")


def gin_files_in(folder: Path) -> list[Path]:
    """The gin files of a folder, by name; none where it is no folder."""
    return sorted(folder.glob("*.gin")) if os.path.isdir(folder) else []  # noqa: PTH112 (of names too long too)


def _folder() -> Path | None:
    """Where the shipped files are: in the wheel, or in the checkout."""
    here = Path(__file__).resolve().parents[1]
    return next((folder for folder in (here / "_gin", here.parent / "gin") if folder.is_dir()), None)


def real(path: Path) -> Path:
    """Where a path leads, by all links; one whose links go round in a circle too."""
    return Path(os.path.realpath(path))


def display(path: Path) -> str:
    """A path as errors show it: relative to the working directory if it lies below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
