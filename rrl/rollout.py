"""Observations, rollouts, and the collector that makes one from the other.

Every episode draws everything it needs (reset, exploration noise) from its own seed sequence, and
environments advance in lockstep in batches of constant shape, so a rollout depends on the
configuration alone: not on the number of worker processes, not on their speed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rrl.envs.vector import WorkerVectorEnv


class Obs(NamedTuple):
    """A batch of raw observations."""

    frames: NDArray[np.uint8] | None
    """[N, H, W, 3 * cameras], or None where nothing is rendered."""
    state: NDArray[np.float32]
    """[N, p]: joint angles or the task's state observation."""


class Policy(Protocol):
    """What the collector and the evaluators need of an agent."""

    def observe(self, obs: Obs) -> NDArray[np.float32]:
        """What to keep of a batch of observations: float32 [N, n]."""

    def act(self, observed: NDArray[np.float32], noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Actions [N, m] for `observe`d batches; `noise` [N, m] is standard normal, None: the mean action."""


@dataclass(frozen=True)
class Rollout:
    """Whole episodes as flat arrays, T transitions of E episodes, sorted by episode, then time."""

    obs: NDArray[np.float32]
    """[T, n]: the policy's observation before each action."""
    actions: NDArray[np.float32]
    """[T, m]: as drawn, not clipped (likelihoods need them so)."""
    rewards: NDArray[np.float64]
    """[T]"""
    flags: dict[str, NDArray[np.bool_]]
    """Per goal flag [T]: up after the step?"""
    episode: NDArray[np.int32]
    """[T]: index of the episode, from 0 to E - 1."""
    t: NDArray[np.int32]
    """[T]: step index in the episode, from 0."""
    terminated: NDArray[np.bool_]
    """[T]: true end of the task after this step (pen dropped)."""
    truncated: NDArray[np.bool_]
    """[T]: cut at the horizon after this step."""
    final_obs: NDArray[np.float32]
    """[E, n]: the observation after each episode's last action."""
    success_steps: int = 0
    """An episode succeeds under a flag when it was up in more than this many steps."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds: simulate and render (the wait for the workers, split by their own clocks), encode,
    act, and `total`."""

    @property
    def episodes(self) -> int:
        """Number of episodes E."""
        return len(self.final_obs)

    @property
    def starts(self) -> NDArray[np.int64]:
        """[E]: index of each episode's first transition."""
        return np.flatnonzero(self.t == 0)

    def returns(self) -> NDArray[np.float64]:
        """[E]: undiscounted sum of rewards of each episode."""
        return np.bincount(self.episode, self.rewards, self.episodes).astype(np.float64)

    def success(self, flag: str) -> NDArray[np.bool_]:
        """[E]: success of each episode, `flag` up in more than `success_steps` steps (paper section 5)."""
        return np.bincount(self.episode, self.flags[flag], self.episodes) > self.success_steps


class Stream(IntEnum):
    """What episodes are for; each stream has random numbers of its own."""

    TRAIN = 0
    EVAL = 1
    DEMOS = 2
    VIDEO = 3


@dataclass(frozen=True)
class Episode:
    """What decides an episode beside the policy."""

    seed: int
    """Seed of the environment's reset."""
    noise: NDArray[np.float32] | None = None
    """[horizon, m] standard normal exploration noise; None: mean actions."""
    initial: Mapping[str, NDArray[np.float64]] | None = None
    """Start from this recorded state instead of a random one."""
    actions: NDArray[np.float32] | None = None
    """[L, m]: replay these open loop, all of them, whatever the policy says and past any horizon."""


def episodes(
    count: int, *, seed: int, stream: Stream, iteration: int = 0, noise: tuple[int, int] | None = None
) -> list[Episode]:
    """`count` episodes; the i-th draws everything from `SeedSequence([seed, stream, iteration, i])`.

    `noise` is the (horizon, action dim) of exploration noise; None: mean actions. (The authors'
    code adds the seeds up, which makes neighbouring job seeds share nearly all episodes.)
    """
    made = []
    for i in range(count):
        reset, exploration = np.random.SeedSequence([seed, stream, iteration, i]).spawn(2)
        drawn = np.random.default_rng(exploration).standard_normal(noise, np.float32) if noise else None
        made.append(Episode(int(reset.generate_state(1)[0]), drawn))
    return made


class Collector:
    """Runs episodes on a vector environment in lockstep, encoding and acting in batches of `num_envs`.

    Slots take episodes in order; a slot whose episode ends takes the next one, the lowest slot first.
    Idle slots stay in the batch (their rows are ignored), since rounding depends on the batch's shape.
    """

    def __init__(self, envs: WorkerVectorEnv) -> None:
        self.envs = envs

    def collect(
        self,
        policy: Policy,
        todo: Sequence[Episode],
        *,
        each_step: Callable[[NDArray[np.int64], NDArray[np.int64]], None] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Rollout:
        """Run all episodes of `todo` with `policy`.

        `each_step(episode, t)` is called after every step with, per slot, the running episode's index (-1:
        idle) and its step count; `progress(n)` with the number of steps just made.
        """
        envs, n_slots = self.envs, self.envs.num_envs
        factory = envs.factory
        began = time.perf_counter()
        clock = dict.fromkeys(("simulate", "render", "encode", "act"), 0.0)
        longest = max(factory.horizon if e.actions is None else len(e.actions) for e in todo)
        rewards = np.zeros((len(todo), longest))
        actions = np.zeros((len(todo), longest, envs.action_dim), np.float32)
        flags = np.zeros((len(todo), longest, len(factory.flags)), bool)
        terminated = np.zeros((len(todo), longest), bool)
        truncated = np.zeros((len(todo), longest), bool)
        lengths = np.zeros(len(todo), np.int64)
        obs = final_obs = np.zeros(0, np.float32)

        running = np.full(n_slots, -1)
        upcoming = 0

        def observe() -> NDArray[np.float32]:
            start = time.perf_counter()
            seen = envs.observation()
            observed = policy.observe(Obs(seen.get("frames"), seen["state"]))
            clock["encode"] += time.perf_counter() - start
            return observed

        def refill(free: NDArray[np.bool_]) -> bool:
            """Start the next episodes in the free slots; True if any started."""
            nonlocal upcoming
            running[free] = -1
            mask = np.zeros(n_slots, bool)
            seeds: list[int | None] = [None] * n_slots
            initial: list[Any] = [None] * n_slots
            for j in np.flatnonzero(free)[: len(todo) - upcoming]:
                episode = todo[upcoming]
                mask[j], seeds[j], initial[j], running[j] = True, episode.seed, episode.initial, upcoming
                upcoming += 1
            if mask.any():
                start = time.perf_counter()
                envs.reset(seed=seeds, options={"reset_mask": mask, "initial": initial})
                clock["simulate"] += time.perf_counter() - start
            return bool(mask.any())

        refill(np.ones(n_slots, bool))
        observed = observe()
        obs = np.zeros((len(todo), longest, observed.shape[1]), np.float32)
        final_obs = np.zeros((len(todo), observed.shape[1]), np.float32)
        noise = np.zeros((n_slots, envs.action_dim), np.float32)
        while (running >= 0).any():
            active = running >= 0
            slots = np.flatnonzero(active)
            index, t = running[slots], lengths[running[slots]]
            start = time.perf_counter()
            noise[:] = 0.0
            for j, i in zip(slots, index, strict=True):
                drawn = todo[i].noise
                if drawn is not None:
                    noise[j] = drawn[lengths[i]]
            chosen = policy.act(observed, noise)
            for j, i in zip(slots, index, strict=True):
                script = todo[i].actions
                if script is not None:
                    chosen[j] = script[lengths[i]]
            clock["act"] += time.perf_counter() - start

            obs[index, t] = observed[slots]
            actions[index, t] = chosen[slots]
            start = time.perf_counter()
            _, reward, term, trunc, info = envs.step(chosen, active)
            waited = time.perf_counter() - start
            simulating, rendering = info["seconds"].sum(axis=0)
            share = rendering / max(simulating + rendering, 1e-12)
            clock["render"] += waited * share
            clock["simulate"] += waited * (1.0 - share)
            rewards[index, t] = reward[slots]
            flags[index, t] = info["flags"][slots]
            terminated[index, t] = term[slots]
            truncated[index, t] = trunc[slots]
            lengths[index] += 1
            observed = observe()

            done = np.zeros(n_slots, bool)
            for j, i in zip(slots, index, strict=True):
                script = todo[i].actions
                done[j] = term[j] or trunc[j] if script is None else lengths[i] == len(script)
            final_obs[running[done]] = observed[done]
            if each_step is not None:
                each_step(running, np.where(active, lengths[running], 0))
            if progress is not None:
                progress(len(slots))
            if done.any() and refill(done):
                observed = observe()

        kept = np.arange(longest) < lengths[:, None]
        whole = bool(kept.all())

        def flat(values: NDArray[Any]) -> NDArray[Any]:
            # Without early ends the padded array is the flat one: no copy of up to 250 MB.
            return values.reshape(-1, *values.shape[2:]) if whole else values[kept]

        flat_flags = flat(flags)
        episode, t = np.nonzero(kept)
        return Rollout(
            obs=flat(obs),
            actions=flat(actions),
            rewards=flat(rewards),
            flags={name: flat_flags[:, f] for f, name in enumerate(factory.flags)},
            episode=episode.astype(np.int32),
            t=t.astype(np.int32),
            terminated=flat(terminated),
            truncated=flat(truncated),
            final_obs=final_obs,
            success_steps=factory.success_steps,
            seconds=clock | {"total": time.perf_counter() - began},
        )
