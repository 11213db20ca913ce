"""The terminal that standard output may be."""

from __future__ import annotations

import shutil
import sys


def width() -> int | None:
    """Its columns; None: standard output is no terminal, and lines may be of any length."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
