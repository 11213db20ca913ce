"""Endless stepping: what agents that learn at every step act in, as `Collector` is for whole episodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.envs.vector import WorkerVectorEnv
from rrl.rollout.data import Episode, Policy, Rollout, Stream, episodes
from rrl.rollout.slots import Arrays, Slots, check_actions, check_rewards


@dataclass(frozen=True)
class Ended:
    """An episode that came to its end."""

    value: float
    """Sum of its rewards."""
    length: int
    """Agent steps."""
    success: tuple[bool, ...]
    """Under each of the environment's flags."""


class Stepper:
    """Steps all slots of a vector environment together; a slot whose episode ended begins the next one.

    Episodes are numbered in the order in which they begin, the lowest slot first, and draw everything from
    their number as in `rollout.episodes`. All that decides the future is in `snapshot`.
    """

    def __init__(self, envs: WorkerVectorEnv, stack: int, seed: int) -> None:
        """`stack` is the policy's."""
        self.envs = envs
        self.seed = seed
        n = envs.num_envs
        self._slots = Slots(n, envs.frames, stack)
        self._running: list[Episode | None] = [None] * n
        self._number = np.full(n, -1)
        self._t = np.zeros(n, np.int32)
        self._returns = np.zeros(n)
        self._wins = np.zeros((n, len(envs.factory.flags)), np.int64)
        self._begun = 0
        self.ended: list[Ended] = []
        """Episodes that ended since the caller last emptied this list."""
        self.seconds = dict.fromkeys(("simulate", "render", "encode", "act"), 0.0)
        """Seconds spent since the caller last set them to 0."""
        self.counts = dict.fromkeys(("encode", "act"), 0)
        """Observations, as in `Rollout.counts`, likewise."""

    def collect(
        self,
        policy: Policy,
        count: int,
        progress: Callable[[int], None] | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> Rollout:
        """`count` steps of every slot, [N * count] transitions sorted by slot, then time.

        A piece of the rollout is a stretch of one slot's episode: it ends where the episode does, or where this
        collection does (then it is neither terminated nor truncated, and `final_obs` is what it goes on from).
        `progress` is told of the environment steps of each round; `meanwhile` is done once, while the environments
        make their first step.
        """
        rounds = []
        for i in range(count):
            rounds.append(self.step(policy, None if i else meanwhile))
            if progress is not None:
                progress(self.envs.num_envs * self.envs.factory.action_repeat)
        return rounds[0] if count == 1 else joined(rounds)

    def step(self, policy: Policy, meanwhile: Callable[[], None] | None = None) -> Rollout:
        """One step of every slot, [N] transitions: piece i of the rollout is slot i, its `final_obs` what
        the step led to, and `t` its place in the running episode. `meanwhile`: as `collect`'s."""
        n = self.envs.num_envs
        idle = np.array([episode is None for episode in self._running])
        if idle.any():
            self._begin(policy, idle)
        start = time.perf_counter()
        drawn = [e.noise[t] for e, t in zip(self._running, self._t, strict=True) if e and e.noise is not None]
        actions = self._slots.act(policy, np.stack(drawn))
        check_actions(policy, actions, self._moment)
        self.seconds["act"] += time.perf_counter() - start
        self.counts["act"] += n
        before, t = self._slots.observed, self._t.copy()
        stepping = self.envs.begin_step(actions, np.ones(n, bool))
        if meanwhile is not None:
            meanwhile()
        self.envs.wait(stepping)
        results = {name: values.copy() for name, values in self.envs.results().items()}
        simulating, rendering = results["seconds"].sum(axis=0)
        self.seconds["simulate"] += simulating
        self.seconds["render"] += rendering
        self._t += 1
        check_rewards(results["reward"], self._moment)
        self._observe(policy, np.zeros(n, bool), np.ones(n, bool))
        self._returns += results["reward"]
        self._wins += results["flags"]
        factory = self.envs.factory
        for i in np.flatnonzero(results["terminated"] | results["truncated"]):
            success = tuple(bool(won > factory.score.steps) for won in self._wins[i])
            self.ended.append(Ended(float(self._returns[i]), int(self._t[i]), success))
            self._running[i] = None
        return Rollout(
            obs=before,
            actions=actions,
            rewards=results["reward"],
            flags={name: results["flags"][:, f] for f, name in enumerate(factory.flags)},
            episode=np.arange(n, dtype=np.int32),
            t=t,
            terminated=results["terminated"],
            truncated=results["truncated"],
            final_obs=self._slots.observed,
            success_steps=factory.score.steps,
            slots=np.arange(n, dtype=np.int32),
        )

    def _begin(self, policy: Policy, idle: NDArray[np.bool_]) -> None:
        seeds: list[int | None] = [None] * len(idle)
        for i in np.flatnonzero(idle):
            episode = self._episode(self._begun)
            self._number[i], self._running[i], seeds[i] = self._begun, episode, episode.seed
            self._begun += 1
        self._t[idle], self._returns[idle], self._wins[idle] = 0, 0.0, 0
        start = time.perf_counter()
        self.envs.reset(seed=seeds, options={"reset_mask": idle})
        self.seconds["simulate"] += time.perf_counter() - start
        self._observe(policy, idle, np.zeros_like(idle))

    def _moment(self, slot: int) -> str:
        episode = self._running[slot]
        assert episode is not None
        return f"{self.envs.factory.name}, {episode.moment(int(self._t[slot]))}"

    def _episode(self, number: int) -> Episode:
        noise = (self.envs.factory.horizon, self.envs.action_dim)
        return episodes(1, seed=self.seed, stream=Stream.TRAIN, first=number, noise=noise)[0]

    def _observe(self, policy: Policy, fresh: NDArray[np.bool_], moved: NDArray[np.bool_]) -> None:
        start = time.perf_counter()
        self._slots.look(policy, self.envs.observation(), fresh, moved, self._moment)
        self.seconds["encode"] += time.perf_counter() - start
        self.counts["encode"] += self.envs.num_envs

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While others (evaluators) use the environments; the episodes go on afterwards, bit for bit."""
        states = self.envs.call("get_state") if self._begun else None
        yield
        if states is not None:
            self.envs.call_each("set_state", [(state,) for state in states])

    def snapshot(self) -> tuple[Arrays, dict[str, Any]]:
        """(arrays, JSON-able values) from which `restore` continues bit for bit."""
        values = {"begun": self._begun, "running": [e is not None for e in self._running]}
        if not self._begun:
            return {}, values
        arrays: Arrays = {"number": self._number, "t": self._t, "returns": self._returns, "wins": self._wins}
        arrays |= self._slots.snapshot()
        for i, state in enumerate(self.envs.call("get_state")):
            arrays |= {f"slot{i}.{name}": np.asarray(value) for name, value in state.items()}
        return {name: value.copy() for name, value in arrays.items()}, values

    def restore(self, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
        """Undo of `snapshot`, in environments made with the same settings."""
        self._begun = values["begun"]
        if not self._begun:
            return
        self._number, self._t = arrays["number"].copy(), arrays["t"].copy()
        self._returns, self._wins = arrays["returns"].copy(), arrays["wins"].copy()
        self._slots.restore(arrays)
        self._running = [
            self._episode(int(number)) if runs else None
            for number, runs in zip(self._number, values["running"], strict=True)
        ]
        states = []
        for i in range(self.envs.num_envs):
            start = f"slot{i}."
            states.append(({k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)},))
        self.envs.call_each("set_state", states)


def joined(rounds: Sequence[Rollout]) -> Rollout:
    """Single steps of N slots, one after another, as one rollout; see `Stepper.collect`."""
    count, slots = len(rounds), rounds[0].episodes

    def by_slot(name: str) -> NDArray[Any]:
        values = np.stack([getattr(step, name) for step in rounds], axis=1)  # [N, count, ...]
        return values.reshape(slots * count, *values.shape[2:])

    terminated, truncated = by_slot("terminated"), by_slot("truncated")
    ends = terminated | truncated
    ends[count - 1 :: count] = True
    last = np.flatnonzero(ends)
    return Rollout(
        obs=by_slot("obs"),
        actions=by_slot("actions"),
        rewards=by_slot("rewards"),
        flags={name: np.stack([step.flags[name] for step in rounds], axis=1).reshape(-1) for name in rounds[0].flags},
        episode=np.concatenate([[0], np.cumsum(ends[:-1])]).astype(np.int32),
        t=by_slot("t"),
        terminated=terminated,
        truncated=truncated,
        final_obs=by_slot("final_obs")[last],
        success_steps=rounds[0].success_steps,
        slots=(last // count).astype(np.int32),
    )
