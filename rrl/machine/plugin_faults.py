"""Faults in a plugin's code: told by the plugin's own lines, without the many of ours that led to them."""

from __future__ import annotations

import traceback
from pathlib import Path

from rrl import registry

_OURS = Path(registry.__file__).parent


def told(error: BaseException) -> str | None:
    """What went wrong in a plugin's code and in which lines, of several calls each; None: it was not raised there, nor
    in a library that the plugin called."""
    frames = traceback.extract_tb(error.__traceback__)
    after = next((i + 1 for i in reversed(range(len(frames))) if _within(frames[i].filename, [_OURS])), 0)
    plugins = registry.plugin_code()
    first = next((i for i in range(after, len(frames)) if _within(frames[i].filename, plugins)), None)
    if first is None:
        return None
    what = traceback.format_exception_only(error)[-1].strip()
    lines = [
        f"  {_shown(frame.filename)}:{frame.lineno}, in {frame.name}\n    {frame.line}" for frame in frames[first:]
    ]
    return "\n".join([f"a plugin's code failed: {what}", *lines])


def _within(file: str, places: list[Path]) -> bool:
    """Is it one of these files, or in one of these folders, but for an environment that lies there?"""
    path = Path(file)
    return any(
        place == path or (place in path.parents and "site-packages" not in path.relative_to(place).parts)
        for place in places
    )


def _shown(file: str) -> str:
    """Relative to the current folder, if it lies there."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if here in path.parents else file
