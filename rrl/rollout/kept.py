"""A collector that remembers finished episodes on disk: what was interrupted goes on where it was."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rrl.envs.vector import WorkerVectorEnv
from rrl.rollout.data import Episode, Policy, Rollout
from rrl.rollout.episodes import Collector, EachStep
from rrl.store.pieces import Arrays, Pieces


class KeptCollector(Collector):
    """As `Collector`, but one policy's episodes without observations are made in chunks of `num_envs`, each of which is
    kept in a file and not made again."""

    def __init__(
        self,
        envs: WorkerVectorEnv,
        groups: int,
        policy: Policy,
        facts: Mapping[str, Any],
        pieces: Pieces,
        found: Callable[[int], None] = lambda count: None,
    ) -> None:
        """`facts`, JSON-able: what decides an episode beside the environment and what `Episode` says. `found` is called
        with the number of steps that were kept, `progress` with that of those made."""
        super().__init__(envs, groups)
        self._policy, self._facts, self._pieces = policy, {**facts, "env": envs.factory.facts()}, pieces
        self._found = found

    def on(self, envs: WorkerVectorEnv) -> KeptCollector:
        """See `Collector`."""
        return KeptCollector(envs, self.groups, self._policy, self._facts, self._pieces, self._found)

    def collect(
        self,
        policy: Policy,
        todo: Sequence[Episode],
        *,
        each_step: EachStep | None = None,
        progress: Callable[[int], None] | None = None,
        ended: Callable[[bool], None] | None = None,
        keep: bool = True,
    ) -> Rollout:
        """See `Collector`. What somebody watches, or wants the observations of, is made anew."""
        if keep or each_step is not None or ended is not None or policy is not self._policy:
            return super().collect(policy, todo, each_step=each_step, progress=progress, ended=ended, keep=keep)
        size = self.envs.num_envs
        chunks = [todo[start : start + size] for start in range(0, len(todo), size)]
        return joined([self._chunk(policy, chunk, progress) for chunk in chunks])

    def _chunk(self, policy: Policy, todo: Sequence[Episode], progress: Callable[[int], None] | None) -> Rollout:
        key = {"piece": "episodes", **self._facts, "episodes": [_facts(episode) for episode in todo]}
        arrays = self._pieces.arrays(key)
        if arrays is None:
            rollout = super().collect(policy, todo, progress=progress, keep=False)
            self._pieces.put_arrays(key, _arrays(rollout))
            return rollout
        self._found(len(arrays["rewards"]))
        own: dict[str, Any] = {name: arrays[name] for name in ARRAYS}
        own |= {part: {k: v.item() for k, v in _beginning(arrays, part).items()} for part in COSTS}
        return Rollout(**own, flags=_beginning(arrays, "flag"), success_steps=self.envs.factory.score.steps)


ARRAYS = ("obs", "actions", "rewards", "episode", "t", "terminated", "truncated", "final_obs")
COSTS = ("seconds", "counts")
"""What making them took: of a chunk that was kept, what it took when it was made. Earlier versions kept none."""


def _arrays(rollout: Rollout) -> Arrays:
    found = {name: getattr(rollout, name) for name in ARRAYS}
    found |= {f"flag {name}": values for name, values in rollout.flags.items()}
    return found | {f"{part} {name}": np.array(n) for part in COSTS for name, n in getattr(rollout, part).items()}


def _beginning(arrays: Arrays, part: str) -> Arrays:
    """Those whose names begin so, without that."""
    return {name.removeprefix(f"{part} "): values for name, values in arrays.items() if name.startswith(f"{part} ")}


def _facts(episode: Episode) -> dict[str, Any]:
    """What decides an episode, as JSON; arrays by their checksums."""

    def told(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        if isinstance(value, Mapping):
            return {name: told(entry) for name, entry in value.items()}
        return value

    return {field.name: told(getattr(episode, field.name)) for field in dataclasses.fields(episode)} | {
        "scene": dataclasses.asdict(episode.scene)
    }


def joined(rollouts: Sequence[Rollout]) -> Rollout:
    """The episodes of all of them, one after another. What they cost is summed up where it is known of all."""
    first = rollouts[0]
    offsets = np.cumsum([0, *(rollout.episodes for rollout in rollouts)])[:-1]
    parts: dict[str, Any] = {part: _sum([getattr(rollout, part) for rollout in rollouts]) for part in COSTS}
    parts |= {name: np.concatenate([getattr(rollout, name) for rollout in rollouts]) for name in ARRAYS}
    episode = np.concatenate([r.episode + offset for r, offset in zip(rollouts, offsets, strict=True)])
    parts["episode"] = episode.astype(np.int32)
    flags = {name: np.concatenate([rollout.flags[name] for rollout in rollouts]) for name in first.flags}
    return Rollout(**parts, flags=flags, success_steps=first.success_steps)


def _sum(costs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    known = [name for name in costs[0] if all(name in cost for cost in costs)]
    return {name: sum(cost[name] for cost in costs) for name in known}
