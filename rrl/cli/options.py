"""Arguments and options that several commands take."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated

import typer

from rrl.cli import completion


def finite(value: float) -> float:
    """nan passes every comparison, and so the ends of a range."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"it must be a number; got {value}")
    return value


SEED = 2**63 - 1
"""The largest one; `rrl.registry.Seed` says why."""
BUDGET = 87_600
"""Hours; clocks end somewhere."""
EPISODES = 100_000
"""Of one evaluation or recording, at most: what happens in all of their steps is held at once."""


def path(text: str | Path) -> Path:
    """A path as it was typed, `~` too where the shell left it alone."""
    from rrl.machine.paths import typed

    return typed(str(text))


def word(text: str) -> str:
    """A path or a name, likewise."""
    from rrl.machine.paths import word

    return word(text)


Sources = Annotated[
    list[str],
    typer.Argument(
        parser=word,
        autocompletion=completion.gin_files,
        help="Gin files, or names of shipped ones (see `rrl list`); several are laid over each other, the later wins.",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        autocompletion=completion.settings,
        help='Override a binding, in gin syntax: --set "ResNet.depth = 50". Repeatable.',
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        help="Stop training cleanly after this time, such as 90s, 30m or 2h; `rrl resume` goes on. What comes before "
        "(demonstrations, warm start) is never cut."
    ),
]


def numbers_of(text: str | None, option: str = "--seeds") -> list[int]:
    """`0,1,2` -> [0, 1, 2]"""
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise typer.BadParameter(f"{option} takes whole numbers with commas between, such as 0,1,2; got {text!r}")
    # Python itself refuses to read more than some thousand digits.
    large = [part for part in parts if len(part) > len(str(SEED)) or int(part) > SEED]
    if large:
        raise typer.BadParameter(f"{option} takes numbers up to {SEED}; got {large[0]}")
    return [int(part) for part in parts]


def seconds_of(text: str | None) -> float | None:
    """`90s`, `30m`, `2h` -> seconds, more than 0: in none nothing could be done; None: no limit."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if match is None:
        raise typer.BadParameter(f"--budget takes a number with s, m or h, such as 90s, 30m or 2h; got {text!r}")
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
    if not seconds:
        raise typer.BadParameter(f"--budget takes more than no time, such as 90s; got {text!r}")
    if seconds > BUDGET * 3600:
        raise typer.BadParameter(f"--budget takes at most {BUDGET}h, ten years; got {text!r}")
    return seconds
