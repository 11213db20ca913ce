"""The demonstrations' pictures, drawn once for all encoders that ask for the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from rrl.demos import DemoSet
from rrl.demos.replay import NoPolicy
from rrl.demos.sets import Demos
from rrl.envs import scene
from rrl.envs.base import OPTIONAL, EnvFactory, FrameRequest
from rrl.envs.scene import Scene
from rrl.envs.vector import WorkerVectorEnv, has
from rrl.evaluators.distractors import unshown
from rrl.rollout.data import Obs
from rrl.rollout.episodes import Collector

Place = tuple[int, int]
"""(episode, step) of a recorded state."""


@dataclass(frozen=True)
class Seen:
    """What was seen at N moments, as bytes: reshaped as a whole, large pictures would be copied."""

    rows: NDArray[np.uint8]
    """[N, pictures + 4 p]: the pictures (if there are any), then the state."""
    side: int
    """Of the pictures in pixels; 0: there are none."""
    state_dim: int

    @classmethod
    def packed(cls, obs: Obs) -> NDArray[np.uint8]:
        """Rows of an observation."""
        parts: list[NDArray[Any]] = [obs.state] if obs.frames is None else [obs.frames, obs.state]
        return np.concatenate([part.view(np.uint8).reshape(len(part), -1) for part in parts], axis=1)

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, places: NDArray[np.int64]) -> Obs:
        """The observation of these moments."""
        rows, width = self.rows[places], self.rows.shape[1] - 4 * self.state_dim
        state = np.ascontiguousarray(rows[:, width:]).view(np.float32).reshape(len(rows), self.state_dim)
        return Obs(rows[:, :width].reshape(len(rows), self.side, self.side, -1) if self.side else None, state)


class Watcher(NoPolicy):
    """Keeps all that is seen."""

    def observe(self, obs: Obs) -> NDArray[Any]:
        """As `Seen.packed`."""
        return Seen.packed(obs)


def replayed(demos: DemoSet, envs: WorkerVectorEnv, groups: int, progress: Callable[[int], None]) -> tuple[Seen, Seen]:
    """What is seen in a replay of the demonstrations: before each action [T], and after each episode's last one [E]."""
    rollout = demos.replay(Collector(envs, groups), Watcher(envs.action_dim), progress=progress)
    side = envs.frames.size if envs.frames else 0
    return Seen(rollout.obs, side, envs.state_dim), Seen(rollout.final_obs, side, envs.state_dim)


def spread(total: int, count: int) -> NDArray[np.int64]:
    """So many of `total` things (all, if there are fewer), evenly spread."""
    return np.linspace(0, total - 1, min(count, total)).round().astype(np.int64)


def shown(
    envs: WorkerVectorEnv,
    demos: Demos,
    places: Sequence[Place],
    scenes: Sequence[Scene] | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Seen:
    """What is seen of recorded states [K], without stepping, as if an episode began with each; in `scenes`, one for
    each, where they are given. Scenes are nominal afterwards. UserError where the environment can't."""
    n = envs.num_envs
    shares = np.array_split(np.arange(len(places)), n)  # of each slot: neighbours, for few resets
    stack = envs.frames.stack if envs.frames else 0
    rows: list[Any] = [None] * len(places)
    for turn in range(len(shares[0])):
        taken: list[int | None] = [int(share[turn]) if turn < len(share) else None for share in shares]
        here = [None if k is None else places[k] for k in taken]
        fresh = [k is not None and (turn == 0 or places[k][0] != places[k - 1][0]) for k in taken]
        if any(fresh):
            initial = [demos.script(p[0]).initial if p and new else None for p, new in zip(here, fresh, strict=True)]
            seeds = [p[0] if p else 0 for p in here]
            envs.reset(seed=seeds, options={"reset_mask": np.array(fresh), "initial": initial})
        if scenes is not None:
            envs.call_each("dress", [None if k is None else (scenes[k],) for k in taken])
        envs.call_each("show", [None if p is None else tuple(x[p[1]] for x in demos.states(p[0])) for p in here])
        seen = envs.observation()
        frames = np.concatenate([seen["frames"]] * stack, axis=-1) if stack else None
        for k, row in zip(taken, Seen.packed(Obs(frames, seen["state"])), strict=True):
            if k is not None:
                rows[k] = row
        progress(sum(k is not None for k in taken))
    if scenes is not None:
        envs.call("dress", Scene())
    return Seen(np.stack(rows), envs.frames.size if envs.frames else 0, envs.state_dim)


class Simulators:
    """The environments that are open: one set at a time, since each is a simulator in a process."""

    def __init__(self, num_envs: int) -> None:
        self._num_envs = num_envs
        self._open: WorkerVectorEnv | None = None
        self._key: Any = None

    def of(self, env: EnvFactory, frames: FrameRequest | None, workers: int) -> WorkerVectorEnv:
        """Environments of this kind; those that were open before are closed if they are of another."""
        key = (env.config, frames, workers)
        if self._open is None or key != self._key:
            self.close()
            self._open, self._key = WorkerVectorEnv(env, self._num_envs, frames, workers), key
        return self._open

    def close(self) -> None:
        """End their processes."""
        if self._open is not None:
            self._open.close()
        self._open = None


@contextmanager
def simulators(num_envs: int) -> Iterator[Simulators]:
    """Closed in the end, whatever happens."""
    opened = Simulators(num_envs)
    try:
        yield opened
    finally:
        opened.close()


def looks(env: EnvFactory) -> dict[str, EnvFactory.Config]:
    """The same task in every other look that its settings have: by `look default` and so on."""
    found: dict[str, EnvFactory.Config] = {}
    for name in sorted(env.visual):
        for option in get_args(type(env.config).model_fields[name].annotation):
            if option != getattr(env.config, name):
                found[f"{name} {option}"] = env.config.model_copy(update={name: option})  # type: ignore[assignment]
    return found


def changes(env: EnvFactory) -> tuple[list[str], dict[str, str]]:
    """(names of the visual changes that this environment can show, looks and kinds of scenes; names of other kinds,
    and why not)."""
    with closing(env.make_one(None)) as sim:
        lacks = [cannot for name, cannot in OPTIONAL.items() if name in ("initial", "show") and not has(sim, name)]
    if lacks:
        return [], dict.fromkeys([*looks(env), *scene.KINDS], f"its simulator cannot {lacks[0]}")
    refused = {kind: why for kind, why in unshown(env).items() if kind in scene.KINDS}
    return [*looks(env), *(kind for kind in scene.KINDS if kind not in refused)], refused
