"""Finished pieces of long work: each is a file that is whole or not there, found again by what decides its content."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar
from zipfile import is_zipfile

import numpy as np
from numpy.typing import NDArray

from rrl.store import files
from rrl.store.arrays import npz

Key = Mapping[str, Any]
"""All that decides a piece, as JSON: settings, checksums, versions."""
Arrays = dict[str, NDArray[Any]]


class Pieces:
    """Those in a folder of a probe or an evaluation."""

    FOLDER: ClassVar[str] = "pieces"

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)

    def has(self, key: Key) -> bool:
        """Is this piece done, and whole?"""
        return self.get(key) is not None or is_zipfile(self._path(key, ".npz"))

    def get(self, key: Key) -> dict[str, Any] | None:
        """A piece of numbers: `result`, `seconds` it took, and `time` when it was done (ms since 1970). None: not done,
        or damaged."""
        found = files.read_json(self._path(key, ".json"))
        return found if "result" in found else None

    def made(self, key: Key, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The result of a piece of numbers, computed if there is none."""
        found = self.get(key)
        if found is None:
            start = time.monotonic()
            found = {"result": dict(work()), "seconds": time.monotonic() - start, "time": int(time.time() * 1000)}
            files.write_json(self._path(key, ".json"), {"key": dict(key), **found})
        result: dict[str, Any] = found["result"]
        return result

    def arrays(self, key: Key) -> Arrays | None:
        """A piece of arrays; None: not done, or damaged."""
        try:
            with npz(self._path(key, ".npz")) as file:
                return {name: file.read(name) for name in file.announced}
        except ValueError:
            return None

    def put_arrays(self, key: Key, arrays: Arrays) -> None:
        """Keep a piece of arrays."""
        with files.writing(self._path(key, ".npz")) as file:
            np.savez(file, allow_pickle=False, **arrays)

    def _path(self, key: Key, suffix: str) -> Path:
        text = json.dumps(key, sort_keys=True)
        return self.folder / f"{key['piece']}-{hashlib.sha256(text.encode()).hexdigest()[:16]}{suffix}"
