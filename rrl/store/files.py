"""Files that are whole or not there, and locks: the only place where either is made."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from rrl.registry import UserError


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """An open file that becomes `path` when the block ends: a crash at any moment leaves the old file or the new
    one, whole and on disk."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write or replace a text file."""
    with writing(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write or replace a JSON object."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty if there is no such file or it isn't one."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


@contextmanager
def locked(path: Path, *, seconds: float = -1, refusal: str = "") -> Iterator[None]:
    """Hold the lock file `path`; the kernel lets go of it however this process ends. UserError(`refusal`) if another
    process holds it for longer than `seconds` (-1: wait as long as it takes)."""
    try:
        with FileLock(path, timeout=seconds, mode=0o666):
            yield
    except Timeout:
        raise UserError(refusal or f"another process holds {path}") from None


def busy(path: Path) -> bool:
    """Does a process hold this lock file?"""
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except (Timeout, OSError):
        return True
