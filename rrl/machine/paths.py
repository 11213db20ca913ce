"""Paths as people type them: what `~` means, what stands there, and whether something new may."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from rrl.registry import UserError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def expanded(text: str | Path) -> Path:
    """The path with the home folder in place of a leading `~` or `~user`; UserError if nobody knows that folder."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{text}: there is no home folder {Path(text).parts[0]} here; write the path out") from error


def caches() -> Path:
    """The folder of all that can be made again: `$RRL_CACHE`, or `~/.cache/rrl` (XDG, whose relative paths count as
    none). UserError as `expanded`."""
    if root := os.environ.get("RRL_CACHE"):
        return expanded(root).absolute()
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (home if home.is_absolute() else expanded("~/.cache")) / "rrl"


def typed(text: str) -> Path:
    """A path from the command line; UserError as `expanded`, or where nobody may even look."""
    path = expanded(text)
    try:
        path.exists()
    except OSError as error:
        raise UserError(f"{text} can't be looked at: {error.strerror}") from error
    return path


def word(text: str) -> str:
    """What may be a path or a name, as it was typed but for a leading `~`; UserError as `typed`."""
    path = typed(text)
    return str(path) if text.startswith("~") else text


def is_pipe(path: Path) -> bool:
    """Is it a pipe, such as `<(command)` in a shell?"""
    try:
        return path.is_fifo()
    except OSError:
        return False


def unusable(path: Path) -> str:
    """Why this is no file that can be read, in words: "there is no file x", "x is a folder, ..."; empty: it is one."""
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except FileNotFoundError:
        link = path.is_symlink()
        return f"{path} is a link to {path.readlink()}, which is not there" if link else f"there is no file {path}"
    except (OSError, ValueError) as error:
        return f"{path} can't be read: {getattr(error, 'strerror', None) or error}"
    if kind in _KINDS:
        return f"{path} is {_KINDS[kind]}, where a file is needed"
    return "" if os.access(path, os.R_OK) else f"{path} can't be read: no permission"


def new_file(path: Path) -> Path:
    """The path, at which a file can be made; UserError if something is there already, or the folder can't be written.
    Nothing is made: missing folders are the writer's business."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it")
    return new_folder(path)


def charts(path: Path) -> tuple[Path, Path]:
    """The .png and the .svg that a chart of this name (with either ending or none) is drawn into; UserError for a
    folder, or another ending: other files than the one that was named would be written."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it")
    if path.suffix not in ("", ".png", ".svg"):
        raise UserError(f"a chart is a .png and an .svg of one name; got {path}")
    return path.with_suffix(".png"), path.with_suffix(".svg")


def new_folder(path: Path) -> Path:
    """The path, at which a folder can be made; likewise."""
    if os.path.lexists(path):
        raise UserError(f"{path} exists already; choose another name or remove it first")
    writable(path.parent)
    return path


def writable(folder: Path) -> None:
    """UserError if files can't be made in this folder, or in the one that it would be made in."""
    there = next(p for p in (folder, *folder.absolute().parents) if os.path.lexists(p))
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        reason = f"{there} is no folder" if not there.is_dir() else error.strerror
        raise UserError(f"nothing can be written into {folder}: {reason}") from error
