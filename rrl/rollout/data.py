"""What passes between policies and environments: observations, rollouts, episodes.

Every episode draws everything it needs (reset, exploration noise) from its own seed sequence, and
environments advance in lockstep in batches of constant shape, so a rollout depends on the
configuration alone: not on the number of worker processes, not on their speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rrl.envs.scene import Scene


class Obs(NamedTuple):
    """A batch of raw observations."""

    frames: NDArray[np.uint8] | None
    """[N, H, W, 3 * cameras * stack], oldest first, as the encoder asks for; None: nothing is rendered."""
    state: NDArray[np.float32]
    """[N, p]: joint angles or the task's state observation."""


class Policy(Protocol):
    """What acting in environments needs of an agent."""

    @property
    def stack(self) -> int:
        """How many of the latest rows that `observe` kept `act` wants to see."""

    def observe(self, obs: Obs) -> NDArray[Any]:
        """What to keep of a batch of observations, a row each: [N, n]."""

    def act(self, observed: NDArray[Any], noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Actions [N, m] for the latest `stack` rows of each, [N, stack * n], oldest first; `noise` [N, m] is
        standard normal, None: the mean action."""


@dataclass(frozen=True)
class Rollout:
    """Whole episodes as flat arrays, T transitions of E episodes, sorted by episode, then time.

    In endless stepping an "episode" here is a piece of one: it may begin at t > 0, and where the collection cut it, it
    is neither `terminated` nor `truncated` and goes on from its `final_obs`.
    """

    obs: NDArray[Any]
    """[T, n]: what the policy's `observe` kept of the observation before each action."""
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
    """[T]: cut at the horizon after this step: what would have followed begins with the piece's `final_obs`."""
    final_obs: NDArray[Any]
    """[E, n]: the observation after each episode's last action."""
    success_steps: int = 0
    """An episode succeeds under a flag when it was up in more than this many steps."""
    slots: NDArray[np.int32] | None = None
    """[E]: the environment of each episode or piece of one, where that matters: in endless stepping."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds: simulate and render (the wait for the workers, split by their own clocks), encode,
    act, and `total`."""
    counts: dict[str, int] = field(default_factory=dict)
    """Observations that went through the encoder (`encode`) and the policy (`act`): idle slots' too, and those that no
    action follows."""

    @property
    def episodes(self) -> int:
        """Number of episodes E."""
        return len(self.final_obs)

    @property
    def starts(self) -> NDArray[np.int64]:
        """[E]: index of the first transition of each episode, or piece of one."""
        return np.flatnonzero(np.diff(self.episode, prepend=-1))

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
    CALIBRATION = 4
    PICTURES = 5


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
    scene: Scene = Scene()  # noqa: RUF009 (it is frozen)
    """How its pictures look; by default as the model has it."""

    def moment(self, t: int) -> str:
        """In words, for errors: after its reset (t = 0), or after its step t."""
        of = f"the episode with seed {self.seed}" if self.actions is None else f"the replay of episode {self.seed}"
        return f"{f'step {t}' if t else 'the reset'} of {of}"


def episodes(
    count: int,
    *,
    seed: int,
    stream: Stream,
    iteration: int = 0,
    first: int = 0,
    noise: tuple[int, int] | None = None,
) -> list[Episode]:
    """`count` episodes, numbered from `first`; episode i draws everything from
    `SeedSequence([seed, stream, iteration, i])`.

    `noise` is the (horizon, action dim) of exploration noise; None: mean actions. (The authors'
    code adds the seeds up, which makes neighbouring job seeds share nearly all episodes.)
    """
    drawn = []
    for i in range(first, first + count):
        reset, exploration = np.random.SeedSequence([seed, stream, iteration, i]).spawn(2)
        normal = np.random.default_rng(exploration).standard_normal(noise, np.float32) if noise else None
        drawn.append(Episode(int(reset.generate_state(1)[0]), normal))
    return drawn
