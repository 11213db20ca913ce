"""Pictures from which int8 inference takes its ranges: of the run's own task, camera and look."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.demos.sets import Demos
from rrl.envs.vector import WorkerVectorEnv
from rrl.rollout.data import Stream, episodes

PICTURES = 128
"""Enough for ranges that no longer move much; quantising takes seconds."""


def pictures(envs: WorkerVectorEnv, demos: Demos | None, seed: int) -> NDArray[np.uint8]:
    """Frames uint8 [128, H, W, 3 * cameras]: of recorded states, evenly spread over all demonstrations, or,
    without demonstrations, of episodes with smooth random actions. The environments are left as they are
    then: reset them. Equal arguments give equal frames."""
    return _recorded(envs, demos) if demos is not None else _random(envs, seed)


def _recorded(envs: WorkerVectorEnv, demos: Demos) -> NDArray[np.uint8]:
    places = [(i, t) for i in range(len(demos)) for t in range(len(demos.states(i)[0]))]
    spread = np.linspace(0, len(places) - 1, PICTURES).round().astype(int)
    chosen = [places[k] for k in spread]
    taken: list[NDArray[np.uint8]] = []
    for start in range(0, PICTURES, envs.num_envs):
        batch = chosen[start : start + envs.num_envs]
        idle: list[Any] = [None] * (envs.num_envs - len(batch))
        mask = np.arange(envs.num_envs) < len(batch)
        initial = [demos.script(i).initial for i, _ in batch] + idle
        envs.reset(seed=[0] * envs.num_envs, options={"reset_mask": mask, "initial": initial})
        now = [tuple(part[t] for part in demos.states(i)) for i, t in batch]
        envs.call_each("show", now + idle)
        taken.append(envs.observation()["frames"][: len(batch)].copy())
    return np.concatenate(taken)


def _random(envs: WorkerVectorEnv, seed: int) -> NDArray[np.uint8]:
    n, horizon = envs.num_envs, envs.factory.horizon
    todo = episodes(n, seed=seed, stream=Stream.CALIBRATION, noise=(horizon, envs.action_dim))
    envs.reset(seed=[episode.seed for episode in todo])
    action: NDArray[np.float32] = np.zeros((n, envs.action_dim), np.float32)
    taken: list[NDArray[np.uint8]] = []
    rounds = -(-PICTURES // n)
    for t in range(horizon):
        drawn = np.stack([episode.noise[t] for episode in todo if episode.noise is not None])
        action[:] = 0.9 * action + 0.3 * drawn  # neighbouring steps move alike, as a policy's do
        envs.step(action)
        if (t + 1) * rounds // horizon > len(taken):
            taken.append(envs.observation()["frames"].copy())
    return np.concatenate(taken)[:PICTURES]
