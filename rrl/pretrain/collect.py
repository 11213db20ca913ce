"""From episodes to pictures on disk: a share of each kind of actions, in pieces that can be made again bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.agents.base import Agent
from rrl.demos.sets import with_objects
from rrl.envs.vector import WorkerVectorEnv
from rrl.machine.console import Display, duration
from rrl.machine.processes import in_bytes
from rrl.pretrain.pretraining import KINDS, Pretraining, parts
from rrl.registry import build
from rrl.rollout.data import Episode, Obs, Stream, episodes
from rrl.rollout.episodes import Collector
from rrl.store.pictures import PictureStore

HELD = 1e9
"""Bytes of pictures that are held until they are written, at most (and a whole episode's at least)."""
MEASURED = 10.0
"""Seconds of collecting after which it is told how long the rest takes."""


class BudgetOver(Exception):
    """The time that `--budget` gave is over."""


@dataclass(frozen=True)
class Noisy:
    """A policy of the data set: an agent's mean actions and Gaussian noise, or what is drawn alone."""

    agent: Agent | None
    """None: the drawn actions."""
    std: float = 0.0
    stack: int = 1

    def observe(self, obs: Obs) -> NDArray[Any]:
        return obs.state if self.agent is None else self.agent.observe(obs)

    def act(self, observed: NDArray[Any], noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        assert noise is not None
        if self.agent is None:
            return noise
        return np.asarray(self.agent.act(observed, None) + np.float32(self.std) * noise, np.float32)


def collect(
    pretraining: Pretraining, store: PictureStore, display: Display, deadline: float | None = None
) -> NDArray[np.uint8]:
    """All pictures of the data set; those that the store lacks are made first. BudgetOver where `deadline`, on the
    monotonic clock, comes before. UserError for a full disk: what is there is kept."""
    wanted = pretraining.config.pictures
    if store.rows < wanted:
        store.need_room(wanted)
        with store.open():
            whole = f"{wanted:,} pictures of {store.side} px ({in_bytes(wanted * store.size)})"
            there = f", of which {store.rows:,} are there" if store.rows else ""
            display.line(f"collecting {whole} in {store.folder}{there}")
            with closing(_Source(pretraining)) as source:
                _fill(pretraining, store, source, display, deadline)
    return store.read()


def _fill(
    pretraining: Pretraining, store: PictureStore, source: _Source, display: Display, deadline: float | None
) -> None:
    config, began, at_first, told = pretraining.config, time.monotonic(), store.rows, False
    for kind, end in enumerate(accumulate(count for count, _ in parts(config))):
        while store.rows < end:
            if deadline is not None and time.monotonic() > deadline:
                raise BudgetOver
            first = store.progress.get("episode", 0) if store.progress.get("kind") == kind else 0
            missing = end - store.rows
            display.phase(f"pictures: {KINDS[kind]}", missing)
            todo = source.episodes(kind, first, missing)
            pictures = source.pictures(kind, todo, lambda n: display.advance(n * len(pretraining.env.cameras)))
            store.append(pictures[:missing], {"kind": kind, "episode": first + len(todo)})
            seconds = time.monotonic() - began
            if not told and seconds > MEASURED:
                told, speed = True, (store.rows - at_first) / seconds
                left = duration((config.pictures - store.rows) / speed)
                display.line(f"{speed:,.0f} pictures/s: {left} for the others, and then the training")


class _Source:
    """The environments that pictures come from, and the experts in them."""

    def __init__(self, pretraining: Pretraining) -> None:
        config, env = pretraining.config, pretraining.env
        assert config.workers is not None
        self.config, self.env, self.seed = config, env, config.seed
        self.stds = (0.0, *config.noise)
        self.envs = WorkerVectorEnv(env, config.num_envs, pretraining.frames, config.workers)
        self.agent: Agent | None = None
        self.own: WorkerVectorEnv | None = None
        """The expert's own environments, if it doesn't act from the whole state alone."""
        if pretraining.expert is None:
            return
        expert, self.agent = pretraining.expert
        frames, whole = expert.encoder.frames(), expert.env == with_objects(expert.env)
        if frames or not whole or self.agent.stack > 1 or self.agent.state_dim != self.envs.state_dim:
            self.own = WorkerVectorEnv(build(expert.env), config.num_envs, frames, config.workers)

    def close(self) -> None:
        """End the worker processes."""
        self.envs.close()
        if self.own:
            self.own.close()

    def episodes(self, kind: int, first: int, missing: int) -> list[Episode]:
        """The next episodes of a kind, which make so many pictures or fewer; always the same for the same place."""
        env, cameras = self.env, len(self.env.cameras)
        assert self.envs.frames is not None
        each = env.horizon * cameras
        size = each * 3 * self.envs.frames.size**2
        count = min(self.config.num_envs, -(-missing // each), max(int(HELD / size), 1))
        shape = (env.horizon, self.envs.action_dim)
        drawn = episodes(count, seed=self.seed, stream=Stream.PICTURES, iteration=kind, first=first, noise=shape)
        if kind < len(self.stds):
            return drawn
        words = ([self.seed, Stream.PICTURES, kind, i, 1] for i in range(first, first + count))
        uniform = (np.random.default_rng(w).uniform(-1, 1, shape).astype(np.float32) for w in words)
        return [replace(episode, noise=noise) for episode, noise in zip(drawn, uniform, strict=True)]

    def pictures(self, kind: int, todo: Sequence[Episode], progress: Callable[[int], None]) -> NDArray[np.uint8]:
        """What these episodes show after each of their steps, camera after camera: [n, side, side, 3]."""
        policy = Noisy(self.agent, self.stds[kind]) if kind < len(self.stds) else Noisy(None)
        if self.own and policy.agent is not None:
            todo = self._acted(policy.agent, policy.std, todo)
            policy = Noisy(None)
        steps = max(self.env.horizon if e.actions is None else len(e.actions) for e in todo)
        frames = self.envs.observation()["frames"]
        side, cameras = frames.shape[1], len(self.env.cameras)
        seen = np.zeros((len(todo), steps, *frames.shape[1:]), np.uint8)
        look = partial(_keep, seen, self.envs)
        rollout = Collector(self.envs).collect(policy, todo, each_step=look, progress=progress, keep=False)
        made = seen[rollout.episode, rollout.t]
        return np.moveaxis(made.reshape(-1, side, side, cameras, 3), 3, 1).reshape(-1, side, side, 3)

    def _acted(self, agent: Agent, std: float, todo: Sequence[Episode]) -> list[Episode]:
        """The same episodes with the actions of an expert that acts in its own observations."""
        assert self.own is not None
        rollout = Collector(self.own).collect(Noisy(agent, std, agent.stack), todo, keep=False)
        scripts = (rollout.actions[rollout.episode == i] for i in range(len(todo)))
        return [replace(episode, actions=actions) for episode, actions in zip(todo, scripts, strict=True)]


def _keep(seen: NDArray[np.uint8], envs: WorkerVectorEnv, episode: NDArray[np.int64], t: NDArray[np.int64]) -> None:
    """Put down what the running episodes show after a step."""
    slots = np.flatnonzero(episode >= 0)
    seen[episode[slots], t[slots] - 1] = envs.observation()["frames"][slots]
