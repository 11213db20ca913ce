"""Environments by gymnasium's names, for code that knows nothing of rrl: registered when `rrl.envs` is imported.

    import gymnasium
    import rrl.envs

    env = gymnasium.make("rrl/AdroitDoor-v0", reward="dense", frames=84)

`gymnasium.make("rrl.envs:rrl/AdroitDoor-v0")` needs no second import. gymnasium 1 reads no entry points, so that
nothing is known before.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium

from rrl.envs.adroit import Adroit
from rrl.envs.adroit_tasks import TASKS
from rrl.envs.base import EnvFactory, FrameRequest
from rrl.envs.dmcontrol import PAPER, DMControl
from rrl.envs.mjrl import MJRL
from rrl.registry import UserError

FACTORIES: dict[str, type[EnvFactory]] = {cls.__name__: cls for cls in (Adroit, DMControl, MJRL)}
RENDER_MODE = "rgb_array"


def register_ids() -> None:
    """Tell gymnasium of every task of `tasks`."""
    for name, family, settings in tasks():
        kwargs = {"family": family, **settings}
        gymnasium.register(f"rrl/{name}-v0", entry_point=f"{__name__}:make", kwargs=kwargs)


def tasks() -> Iterator[tuple[str, str, dict[str, str]]]:
    """(name such as `AdroitDoor`, class of the factory, settings that choose the task): the four Adroit tasks, the
    paper's six of DMControl, MJRL's two."""
    for task in TASKS:
        yield f"Adroit{_camel(task)}", "Adroit", {"task": task}
    for domain, task in PAPER:
        yield f"DMControl{_camel(domain)}{_camel(task)}", "DMControl", {"domain": domain, "task": task}
    yield "Reacher7DoF", "MJRL", {"task": "reacher"}
    yield "PegInsertion", "MJRL", {"task": "peg_insertion"}


def make(
    family: str,
    *,
    frames: int | None = None,
    crop_from: int | None = None,
    render_mode: str | None = None,
    **settings: Any,
) -> Any:
    """What `gymnasium.make` calls: a `gymnasium.Env` with float32 observations `state` [p] and, if asked for, uint8
    `frames` [H, W, 3 * cameras].

    `settings` are fields of the factory's Config; `frames` is the side of the pictures in pixels, and `crop_from` the
    side of the pictures whose centre they are (as in `FrameRequest`; None: whole pictures). Episodes are truncated by
    the environment itself. UserError says what does not fit.
    """
    if render_mode not in (None, RENDER_MODE):
        raise UserError(f"render_mode is {RENDER_MODE!r}, pictures for people; got {render_mode!r}")
    factory = FACTORIES[family]
    # gymnasium writes and reads the settings of an environment as JSON, which has lists alone.
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    return factory(factory.Config.of(given)).make_one(_request(frames, crop_from))


# With it, gymnasium wraps for `human` and for `rgb_array_list`.
make.metadata = {"render_modes": [RENDER_MODE]}  # type: ignore[attr-defined]


def _request(frames: int | None, crop_from: int | None) -> FrameRequest | None:
    if frames is None and crop_from is None:
        return None
    whole = frames if crop_from is None else crop_from
    if not (isinstance(frames, int) and isinstance(whole, int) and 1 <= frames <= whole):
        got = f"frames={frames!r}, crop_from={crop_from!r}"
        raise UserError(f"frames is the side of the pictures in pixels, at most crop_from; got {got}")
    return FrameRequest(frames, whole)


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))
