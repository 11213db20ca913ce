"""Many pictures on disk: raw bytes that are mapped into memory, and how many of them are whole."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.machine.processes import in_bytes
from rrl.registry import UserError
from rrl.store import files

PICTURES, FACTS, LOCK = "pictures.u8", "pictures.json", "lock"
ROOM = 500_000_000
"""Bytes of the disk that are left free for everything else."""


class PictureStore:
    """A data set in a folder of its own, which is named by a checksum of the facts that decide its pictures: whoever
    wants the same pictures finds them. It grows at its end; `rows` of it are whole, whatever ended the last writer."""

    def __init__(self, root: Path, side: int, facts: Mapping[str, Any]) -> None:
        """`facts`, JSON-able, decide every byte. Nothing is written before `open`."""
        text = json.dumps(facts, sort_keys=True)
        self.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:12]
        self.folder = root / self.fingerprint
        self.side, self.facts = side, dict(facts)
        self.rows = 0
        """Whole pictures."""
        self.progress: dict[str, Any] = {}
        """What the writer said of them last."""
        self._look()

    @property
    def path(self) -> Path:
        """The file of bytes [rows, side, side, 3]."""
        return self.folder / PICTURES

    @property
    def size(self) -> int:
        """Bytes of a picture."""
        return 3 * self.side**2

    def need_room(self, rows: int) -> None:
        """UserError if the disk has no room for so many pictures in all."""
        there = next(p for p in (self.folder, *self.folder.absolute().parents) if p.exists())
        missing, free = (rows - self.rows) * self.size, shutil.disk_usage(there).free - ROOM
        if missing > free:
            raise UserError(
                f"{rows:,} pictures are {in_bytes(rows * self.size)}, of which {in_bytes(missing)} are to be made, and "
                f"{self.folder.parent} has room for {in_bytes(max(free, 0))}: make room, or take fewer pictures"
            )

    @contextmanager
    def open(self) -> Iterator[None]:
        """Be the only process that adds pictures. UserError if another one does, or nothing can be written."""
        refusal = f"another process is collecting the pictures of {self.folder}; wait for it or stop it"
        with ExitStack() as stack:
            with self._told():
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(files.locked(self.folder / LOCK, seconds=1, refusal=refusal))
            self._look()
            yield

    def append(self, pictures: NDArray[np.uint8], progress: Mapping[str, Any]) -> None:
        """Add pictures [n, side, side, 3] and what to remember with them; both are on disk when this returns. UserError
        where they can't be written."""
        rows = self.rows + len(pictures)
        with self._told():
            files.extend(self.path, self.rows * self.size, np.ascontiguousarray(pictures).data.cast("B"))
            files.write_json(self.folder / FACTS, {"facts": self.facts, "rows": rows, "progress": dict(progress)})
        self.rows, self.progress = rows, dict(progress)

    def _look(self) -> None:
        said = files.read_json(self.folder / FACTS)
        self.rows, self.progress = said.get("rows", 0), said.get("progress", {})
        there = self.path.stat().st_size if self.path.is_file() else 0
        if there < self.rows * self.size:  # appending would fill the hole with black pictures
            raise UserError(
                f"{self.path} was cut short: it has {there:,} bytes of {self.rows * self.size:,}; remove "
                f"{self.folder}, and the same command makes it again"
            )

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"pictures can't be written to {self.folder}: {error.strerror or error}\n  {self.rows:,} pictures are "
                "kept there: once there is room, the same command goes on"
            ) from error

    def read(self) -> NDArray[np.uint8]:
        """The pictures [rows, side, side, 3], mapped: a row is read from disk, or from memory if it is there, when it
        is used. UserError if the file is shorter than was written."""
        self._look()
        return np.memmap(self.path, np.uint8, "r", shape=(self.rows, self.side, self.side, 3))
