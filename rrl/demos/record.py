"""Recording: episodes with the simulator's states, which become a set of demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.demos.sets import Demos
from rrl.rollout.data import Episode, Obs, Policy, Rollout
from rrl.rollout.episodes import Collector


@dataclass(frozen=True)
class Recording:
    """Episodes as they ran, with the simulator's states: what demonstrations are made of."""

    rollout: Rollout
    initial: Mapping[int, Mapping[str, NDArray[np.float64]]]
    """Per episode, its start as `SimEnv.reset` takes it."""
    states: Mapping[int, list[tuple[NDArray[np.float64], NDArray[np.float64]]]]
    """Per episode, (qpos, qvel) before each action and after the last."""

    def demos(self, chosen: Sequence[int], facts: Mapping[str, Any]) -> Demos:
        """These episodes as a set."""
        ends = np.searchsorted(self.rollout.episode, np.arange(self.rollout.episodes + 1))
        rows = [slice(ends[i], ends[i + 1]) for i in chosen]
        return Demos(
            lengths=np.array([row.stop - row.start for row in rows]),
            actions=np.concatenate([self.rollout.actions[row] for row in rows]),
            qpos=np.concatenate([[q for q, _ in self.states[i]] for i in chosen]).astype(np.float32),
            qvel=np.concatenate([[v for _, v in self.states[i]] for i in chosen]).astype(np.float16),
            flags={k: np.concatenate([v[row] for row in rows]) for k, v in self.rollout.flags.items()},
            initial={k: np.stack([self.initial[i][k] for i in chosen]) for k in self.initial[chosen[0]]},
            facts=facts,
        )


class Noisy:
    """A policy's mean action plus Gaussian noise: less tidy demonstrations than an expert's own."""

    def __init__(self, policy: Policy, std: float) -> None:
        self.policy, self.std, self.stack = policy, std, policy.stack

    def observe(self, obs: Obs) -> NDArray[Any]:
        """As the policy does."""
        return self.policy.observe(obs)

    def act(self, observed: NDArray[Any], noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """mean + std * noise, in the environment's action units."""
        mean = self.policy.act(observed, None)
        return mean if noise is None else mean + np.float32(self.std) * noise


def record(
    collector: Collector,
    policy: Policy,
    todo: Sequence[Episode],
    progress: Callable[[int], None] | None = None,
) -> Recording:
    """Run `todo` and keep the simulator's states."""
    envs = collector.envs
    initial: dict[int, dict[str, NDArray[np.float64]]] = {}
    states: dict[int, list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = {}

    def watch(running: NDArray[np.int64], _t: NDArray[np.int64]) -> None:
        now = envs.call("physics")
        fresh = [() if i >= 0 and i not in initial else None for i in running]
        begun = envs.call_each("initial", fresh)
        for slot, i in enumerate(running):
            if fresh[slot] is not None:
                initial[i] = begun[slot]
                states[i] = [(begun[slot]["qpos"], begun[slot]["qvel"])]
            if i >= 0:
                states[i].append(now[slot])

    rollout = collector.collect(policy, todo, each_step=watch, progress=progress)
    return Recording(rollout, initial, states)
