"""Files that are whole or not there, and locks: the only place where either is made."""

from __future__ import annotations

import fcntl
import glob
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import psutil
from filelock import FileLock, Timeout

from rrl.registry import UserError
from rrl.store.schema import parsed, text_of


def shipped_first(name: str, shipped: Mapping[str, Path], file: Path) -> Path:
    """What a name means: the shipped file, or else the user's own `file`; warns where there are both."""
    if name not in shipped:
        return file
    if file.is_file():
        warnings.warn(f"{name} is the shipped one, not the file of that name here: that is ./{file}", stacklevel=3)
    return shipped[name]


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """An open file that becomes `path` when the block ends: a crash at any moment leaves the old file or the new
    one, whole and on disk. OSError where it can't be written."""
    part = _part(path)
    with part.open("wb") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    _sync(path.parent)


@contextmanager
def making(path: Path) -> Iterator[Path]:
    """An empty folder that becomes `path`, where nothing is yet, when the block ends: a crash at any moment leaves all
    of it or nothing. OSError where it can't be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    part.mkdir()
    try:
        yield part
        for inside in part.rglob("*"):
            _sync(inside)
        part.rename(path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    _sync(path.parent)


@contextmanager
def placing(path: Path) -> Iterator[Path]:
    """A name for a file that other code makes, which becomes `path` when the block ends: a crash at any moment leaves
    all of it or nothing. OSError where it can't be written."""
    part = _part(path)  # a folder, as that code may put others beside it
    part.mkdir()
    try:
        yield part / path.name
        _sync(part / path.name)
        (part / path.name).replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _sync(path.parent)


def _part(path: Path) -> Path:
    """What `path` is called until it is whole. Removes what processes that were killed left behind."""
    for left in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
        pid = left.name.split(".")[-2]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f"{path.name}.{os.getpid()}.part")


def _sync(path: Path) -> None:
    """Onto the disk: a file, or the names in a folder."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_text(path: Path, text: str) -> None:
    """Write or replace a text file."""
    with writing(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write or replace a JSON object."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def _itself(path: str, flags: int) -> int:
    """An opener that follows no link: what grows is written in place, and a stranger's folder may hold links."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def append(path: Path, text: str) -> None:
    """Add text to the end of a file, on disk when this returns. OSError for a link."""
    with open(path, "a", opener=_itself) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def extend(path: Path, size: int, data: bytes | memoryview) -> None:
    """Put data behind the first `size` bytes of a file, on disk when this returns; what stood there goes. OSError, and
    the first `size` bytes, where there is no room for it, or for a link."""
    with open(path, "ab", opener=_itself) as file:
        file.truncate(size)
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), size)
            raise


def cut(path: Path, size: int) -> None:
    """Keep the first `size` bytes of a file. OSError for a link."""
    with open(path, "r+b", opener=_itself) as file:
        file.truncate(size)
        os.fsync(file.fileno())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty if there is no such file or it isn't one."""
    try:
        value = parsed(text_of(path))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


@contextmanager
def locked(path: Path, *, seconds: float = -1, refusal: str = "") -> Iterator[None]:
    """Hold the lock file `path`; the kernel lets go of it however this process ends. UserError(`refusal`) if another
    process holds it for longer than `seconds` (-1: wait as long as it takes); OSError where it can't be written."""
    lock = FileLock(path, timeout=seconds)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(refusal or f"another process holds {path}") from None
    try:
        yield
    finally:
        lock.release()


def busy(path: Path) -> bool:
    """Does a process hold this lock file? Looking needs no right to write, and disturbs nobody who looks too."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none
        return False
    return False
