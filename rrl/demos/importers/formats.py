"""Which formats there are, how they are told apart, and reading any of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rrl.demos.importers.arrays import read_npz
from rrl.demos.importers.base import Recorded, check
from rrl.demos.importers.dapg import read_dapg
from rrl.demos.importers.hdf5 import hdf5_environment, read_hdf5
from rrl.demos.importers.lerobot import is_lerobot, read_lerobot
from rrl.demos.importers.minari import minari_environment, read_minari
from rrl.machine.paths import unusable
from rrl.registry import UserError

T = TypeVar("T")


class Format(NamedTuple):
    """How demonstrations may be written down."""

    read: Callable[[str], list[Recorded]]
    """Of a file's path."""
    suffixes: tuple[str, ...] = ()
    """Of its files; none: it is a folder, or an id."""
    environment: Callable[[str], dict[str, Any]] = lambda source: {}
    """gymnasium's description of where a source was recorded; nothing if it tells none."""


FORMATS = {
    "dapg": Format(read_dapg, (".pickle", ".pkl")),
    "hdf5": Format(read_hdf5, (".hdf5", ".h5"), hdf5_environment),
    "lerobot": Format(read_lerobot),
    "minari": Format(read_minari, environment=minari_environment),
    "npz": Format(read_npz, (".npz",)),
}


def read(source: str, kind: str | None = None) -> list[Recorded]:
    """The episodes of a file, a folder (LeRobot, Minari) or a Minari dataset id.

    `kind` is one of `FORMATS`; None: told by the name. UserError if the source can't be read or is something
    else than it claims.
    """
    episodes = _asked(source, kind, lambda format_: format_.read)
    if not episodes:
        raise UserError(f"{source} holds no episodes")
    for i, episode in enumerate(episodes):
        check(f"{source}, episode {i}", episode)
    return episodes


def environment(source: str, kind: str | None = None) -> dict[str, Any]:
    """gymnasium's description of the environment that a source was recorded in, as it says: `id`, `kwargs`,
    `entry_point`, `max_episode_steps`, all of them perhaps; nothing if it says nothing. Errors as those of `read`."""
    told = _asked(source, kind, lambda format_: format_.environment)
    kwargs, steps = told.get("kwargs") or {}, told.get("max_episode_steps")
    if not isinstance(told.get("id"), str) or not isinstance(kwargs, dict) or not isinstance(steps, int | None):
        return {}
    return {**told, "kwargs": kwargs}


def _asked(source: str, kind: str | None, what: Callable[[Format], Callable[[str], T]]) -> T:
    """What the reader of a source's format answers."""
    kind = kind or guess(source)
    if kind not in FORMATS:
        raise UserError(f"there is no format {kind}; it is one of {', '.join(FORMATS)}")
    if FORMATS[kind].suffixes and (why := unusable(Path(source))):
        raise UserError(why)
    try:
        return what(FORMATS[kind])(source)
    except UserError:
        raise
    except Exception as error:  # other people's files, and libraries that read them, fail in many ways
        raise UserError(
            f"{source} can't be read as {kind}, it may be damaged: {type(error).__name__}: {error}"
        ) from error


def guess(source: str) -> str:
    """The format that a name suggests; UserError if it suggests none."""
    path = Path(source)
    for kind, format_ in FORMATS.items():
        if path.suffix in format_.suffixes:
            return kind
    if is_lerobot(path):
        return "lerobot"
    if path.is_dir() or not path.exists():  # an id such as D4RL/door/human-v2
        return "minari"
    raise UserError(f"the name {source} says nothing of its format; add --format with one of {', '.join(FORMATS)}")
