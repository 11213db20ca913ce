"""`rrl inspect`: what a run's environment has, tried before anything is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from rrl.config import ginfile
from rrl.envs.about import numbers
from rrl.envs.base import OPTIONAL, EnvFactory, FrameRequest, SimEnv
from rrl.envs.vector import has
from rrl.machine.paths import new_file
from rrl.registry import UserError, build
from rrl.store.files import writing

Say = Callable[[str], None]
WIDTH = 100
"""Characters of a line."""
GLUE = "\N{NO-BREAK SPACE}"
"""Keeps the words of a short entry on one line."""


def show(sources: Sequence[str], overrides: Sequence[str], picture: Path | None, say: Say) -> None:
    """Print it, after an episode of random actions and the first picture of one, which goes to the file `picture`.
    UserError where the run has no pictures, or the environment refuses its settings."""
    config = _judged_or_not(sources, overrides)
    env: EnvFactory = build(config.env)
    frames = config.encoder.frames()
    if picture is not None:
        _may_be_drawn(picture, frames, config.encoder.label())
    env.probe(frames)
    score = env.score
    judged = f"`{score.name}` in more than {score.steps} steps" if score.counted else "the return"
    say(f"{env.name}: episodes of {env.horizon:,} steps, judged by {judged}")
    if faults := env.at_fault():
        _tell("of the joints' angles", faults, say)
    with closing(env.make_one(None)) as sim:
        ended = _random_episode(sim, env, config.seed)
        about: Mapping[str, Sequence[str]] = getattr(sim, "about", dict)()
        lacks = [f"{cannot} (no `{name}`)" for name, cannot in OPTIONAL.items() if not has(sim, name)]
        _tell("actions", [f"{numbers(sim.action_space.shape[0])} in [-1, 1]"], say)
        _tell("state vector", [numbers(sim.observation_space["state"].shape[0])], say)
    _tell("pictures", [in_words(frames), *env.cameras] if frames else ["none"], say)
    for title, texts in about.items():
        _tell(title, texts, say)
    if lacks:
        _tell("it cannot", lacks, say)
    _tell(f"an episode of random actions (seed {config.seed})", ended, say)
    if frames is None:
        return
    with closing(env.make_one(frames)) as sim:
        first = sim.reset(seed=config.seed)[0]["frames"]
    if picture is not None:
        _draw(first, picture)
        say(f"the first picture: {picture}")


def _judged_or_not(sources: Sequence[str], overrides: Sequence[str]) -> Any:
    """The run; one whose evaluators don't fit too: what there is to judge by is what one looks for."""
    try:
        return ginfile.load(sources, overrides)
    except ginfile.ConfigError as error:
        try:
            return ginfile.load(sources, [*overrides, "Experiment.evaluators = ()"])
        except ginfile.ConfigError:
            raise error from None


def _tell(title: str, texts: Sequence[str], say: Say) -> None:
    whole = [text.replace(" ", GLUE) if len(text) < WIDTH / 2 else text for text in texts] or ["none"]
    text = fill(f"{title}: {', '.join(whole)}", WIDTH, subsequent_indent="  ", break_long_words=False)
    say(text.replace(GLUE, " "))


def _may_be_drawn(picture: Path, frames: FrameRequest | None, encoder: str) -> None:
    if frames is None:
        raise UserError(f"{encoder} sees no pictures: leave --picture away, or take an encoder of pictures")
    if picture.suffix != ".png":
        raise UserError(f"a picture is a .png; got {picture}")
    new_file(picture)


def _random_episode(sim: SimEnv, env: EnvFactory, seed: int) -> list[str]:
    """Run one, and say how it went. UserError where the simulator breaks a promise."""
    rng, total, steps, ended = np.random.default_rng(seed), 0.0, 0, False
    up = dict.fromkeys(env.flags, 0)
    seen, _ = sim.reset(seed=seed)
    while not ended:
        action = rng.uniform(-1, 1, sim.action_space.shape).astype(np.float32)
        seen, reward, terminated, truncated, info = sim.step(action)
        total, steps, ended = total + reward, steps + 1, terminated or truncated
        if not (np.isfinite(seen["state"]).all() and np.isfinite(reward)):
            raise UserError(f"{env.name}, step {steps}: a number of the state, or the reward, is not finite")
        for broken in _broken(sim, env, np.asarray(seen["state"]), info, steps, ended):
            raise UserError(f"{env.name}, step {steps}: {broken}")
        up = {flag: count + bool(info[flag]) for flag, count in up.items()}
    how = "ended by the task" if terminated else "cut at the limit"
    return [f"{steps:,} steps, {how}", f"return {total:.1f}", *(f"{f} in {n} steps" for f, n in up.items())]


def _broken(
    sim: SimEnv, env: EnvFactory, state: Any, info: Mapping[str, Any], steps: int, ended: bool
) -> Iterator[str]:
    """What `SimEnv` promises and this step did not keep."""
    size = sim.observation_space["state"].shape
    if state.shape != size or state.dtype != np.float32:
        yield f"the state must be float32 {size}, as in `observation_space`; it is {state.dtype} {state.shape}"
    for flag in env.flags:
        if flag not in info:
            yield f"the info must hold the goal flag {flag!r}; it has {', '.join(info) or 'nothing'}"
    if steps >= env.horizon and not ended:
        yield f"the episode must be truncated here: its horizon is {env.horizon}"


def in_words(frames: FrameRequest) -> str:
    """Such as `224 x 224 pixels (the centre of 256)`."""
    whole = "" if frames.crop_from == frames.size else f" (the centre of {frames.crop_from})"
    return f"{frames.size} x {frames.size} pixels{whole}" + (f", {frames.stack} at a time" if frames.stack > 1 else "")


def _draw(frames: Any, path: Path) -> None:
    """All cameras side by side, pixel by pixel."""
    from PIL import Image

    pictures = np.split(frames, frames.shape[2] // 3, axis=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as file:
        Image.fromarray(np.concatenate(pictures, axis=1)).save(file, format="png")
