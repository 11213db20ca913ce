"""Arrays of an .npz: numbers alone, whose sizes are known and compared before any is unpacked."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.lib.format import read_array, read_array_header_1_0, read_array_header_2_0, read_magic
from numpy.typing import NDArray

KINDS = "fiub"
"""Of numpy's types: numbers and truth values. Objects are never read, and nothing here writes text."""


class Npz:
    """An open .npz."""

    def __init__(self, file: ZipFile) -> None:
        self._file = file
        self.announced = {name: _header(file, member) for member in file.namelist() if (name := _name(member))}
        """An array of the shape and type of each one, which takes no memory and holds zeros."""

    @property
    def size(self) -> int:
        """Bytes of all arrays."""
        return sum(array.size * array.itemsize for array in self.announced.values())

    def read(self, name: str) -> NDArray[Any]:
        """An array. KeyError if there is none of the name; ValueError if it is damaged."""
        kind = self.announced[name].dtype
        if kind.hasobject:
            raise ValueError(f"{name} holds Python objects, which are never read")
        if kind.kind not in KINDS or not kind.isnative or kind.itemsize > 8:
            raise ValueError(f"{name} holds {kind}, no numbers of this machine's kinds")
        with _plain(), self._file.open(f"{name}.npy") as content:
            values: NDArray[Any] = read_array(content, allow_pickle=False)
        return values


@contextmanager
def npz(path: Path) -> Iterator[Npz]:
    """An .npz to be read. ValueError, which says why, if it is none, or announces other arrays than it holds."""
    with _plain():
        file = ZipFile(path)
    with file:
        with _plain():
            packed = Npz(file)
        yield packed


@contextmanager
def _plain() -> Iterator[None]:
    """What zipfile and numpy raise for damaged files is a ValueError."""
    try:
        yield
    except (BadZipFile, zlib.error, EOFError, OSError, OverflowError, RuntimeError, TypeError, SyntaxError) as error:
        raise ValueError(str(error) or "it is cut short") from error


def _name(member: str) -> str:
    return member.removesuffix(".npy") if member.endswith(".npy") else ""


def _header(file: ZipFile, member: str) -> NDArray[Any]:
    with file.open(member) as content:
        shape, dtype = _shape(content)
        head = content.tell()
    needed, there = prod(shape) * dtype.itemsize, file.getinfo(member).file_size - head
    if needed != there and not dtype.hasobject:
        raise ValueError(f"{_name(member)} announces {needed:,} bytes of {dtype} {list(shape)} and holds {there:,}")
    return np.broadcast_to(np.zeros((), dtype), shape)


def _shape(content: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """(shape, dtype) that an .npy announces; ValueError for versions that numbers don't need."""
    version = read_magic(content)
    read = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"an array in numpy's format {version}, which holds no plain numbers")
    shape, _, dtype = read(content)
    return shape, dtype
