"""Demonstrations of a run: which set, replayed through the run's environment and encoder, and cached."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rrl.demos.sets import Demos, load, npz, shipped
from rrl.envs.base import EnvFactory
from rrl.registry import Component, Mistake, Parts, UserError, register
from rrl.rollout.data import Obs, Policy, Rollout, Stack
from rrl.rollout.episodes import Collector

CACHED = 1
"""Raised where features that earlier code has cached may be wrong (1: on CUDA they were)."""


@register
class DemoSet(Component):
    """Demonstrations of a run: which set, and how much of it."""

    kind: ClassVar[str] = "demos"

    class Config(Component.Config):
        """Which demonstrations a run learns from."""

        source: str | None = None
        """A path of an .npz written by `rrl demos make` or `rrl demos import`, or the name of a shipped set;
        None: the set shipped for the environment and protocol."""
        episodes: Annotated[int, Field(gt=0)] | None = None
        """Use only so many episodes; None: all (the paper: 25)."""
        pick_seed: Annotated[int, Field(ge=0)] | None = None
        """Decides which ones, where `episodes` leaves some out; None: the first."""
        replay: Literal["actions", "states"] = "actions"
        """`actions`: step the simulator with the recorded actions (the authors' way; rewards are the run's).
        `states`: show the recorded states one by one, whatever the physics version (no rewards)."""

        def misfit(self, run: Parts) -> Iterable[Mistake]:
            """Recorded states have no rewards, which some agents learn from."""
            if run.agent.component.demo_rewards and self.replay == "states":
                yield Mistake(
                    "demos",
                    f"{run.agent.component.__name__} learns from the demonstrations' rewards; replayed states have "
                    "none",
                    "set `DemoSet.replay = 'actions'`",
                )

        def label(self) -> str:
            """The set's name; empty for the one that is shipped for the environment."""
            return self.source or ""

    def __init__(self, config: Config, *, env: EnvFactory) -> None:
        self.env = env
        name = config.source or f"{env.name}_{env.protocol}"
        known = shipped()
        if name not in known and not npz(Path(name)).exists():
            raise UserError(
                f"no demonstrations named {name}: neither a file nor a shipped set ({', '.join(known)}).\n"
                "Make some with `rrl demos make`, or set DemoSet.source to a file"
            )
        self.demos = load(known.get(name, Path(name)))
        recorded = self.demos.facts.get("env")
        if recorded != env.name:
            raise UserError(f"demonstrations {name} are of {recorded}, but the environment is {env.name}")
        if config.episodes is not None:
            if config.episodes > len(self.demos):
                raise UserError(f"DemoSet.episodes is {config.episodes}, but {name} holds {len(self.demos)} episodes")
            chosen = np.arange(len(self.demos))
            if config.pick_seed is not None:
                chosen = np.random.default_rng(config.pick_seed).permutation(chosen)
            self.demos = self.demos.pick(sorted(chosen[: config.episodes].tolist()))
        self.name = name
        self.config = config

    def facts(self) -> dict[str, str]:
        """What tags say of the set: checksum, who acted, how many episodes, what this run does otherwise."""
        return {
            "checksum": self.demos.checksum(),
            "origin": self.demos.origin,
            "episodes": str(len(self.demos)),
            "mismatches": "; ".join(self.mismatches()) or "none",
        }

    def mismatches(self) -> list[str]:
        """Where the run differs from what was recorded, in words: printed and tagged."""
        facts = self.env.facts()
        return [
            f"demonstrations were recorded with {key} {self.demos.facts[key]}, this run has {facts[key]}"
            for key in ("protocol", *self.env.packages)
            if key in self.demos.facts and self.demos.facts[key] != facts.get(key)
        ]

    def replay(
        self,
        collector: Collector,
        policy: Policy,
        key: Mapping[str, str] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Rollout:
        """Replay all actions and return what `policy.observe` makes of the observations (T transitions).

        The result is cached on disk under `key` (None: not cached), which must say all that decides features:
        encoder, weights, precision, GL renderer, versions; environment and demonstrations are added here.
        """
        if key is None:
            return self._replayed(collector, policy, progress)
        full = {
            **key,
            **self.env.facts(),
            "demos": self.demos.checksum(),
            "replay": self.config.replay,
            "rrl": version("rrl"),
            "features": CACHED,
        }
        digest = hashlib.sha256(json.dumps(full, sort_keys=True).encode()).hexdigest()[:32]
        path = cache_folder() / f"{self.env.name}-{digest}.npz"
        cached = _read_cache(path)
        if cached is None:
            cached = self._replayed(collector, policy, progress)
            try:
                _write_cache(path, cached)
            except OSError as error:
                warnings.warn(f"features are not cached in {path.parent}: {error}", stacklevel=2)
        return cached

    def _replayed(self, collector: Collector, policy: Policy, progress: Callable[[int], None] | None) -> Rollout:
        if self.config.replay == "states":
            return playback(collector, policy, self.demos, progress)
        scripts = [self.demos.script(i) for i in range(len(self.demos))]
        return collector.collect(policy, scripts, progress=progress)


def playback(
    collector: Collector, policy: Policy, demos: Demos, progress: Callable[[int], None] | None = None
) -> Rollout:
    """Show all recorded states, without stepping, as a rollout with the recorded flags and rewards 0."""
    envs = collector.envs
    observed: list[list[NDArray[Any]]] = [[] for _ in range(len(demos))]
    frames = None if envs.frames is None else Stack(envs.num_envs, envs.frames.stack)
    everywhere, nowhere = np.ones(envs.num_envs, bool), np.zeros(envs.num_envs, bool)
    for start in range(0, len(demos), envs.num_envs):
        group = range(start, min(start + envs.num_envs, len(demos)))
        idle: list[Any] = [None] * (envs.num_envs - len(group))
        states = [demos.states(i) for i in group]
        envs.reset(
            seed=[*group, *([0] * len(idle))],  # as in `Demos.script`
            options={"initial": [demos.script(i).initial for i in group] + idle},
        )
        for t in range(max(len(qpos) for qpos, _ in states)):
            now: list[Any] = [(qpos[t], qvel[t]) if t < len(qpos) else None for qpos, qvel in states]
            envs.call_each("show", now + idle)
            seen = envs.observation()
            pictures = None
            if frames is not None:
                pictures = frames.push(seen["frames"], *((everywhere, nowhere) if t == 0 else (nowhere, everywhere)))
            batch = policy.observe(Obs(pictures, seen["state"]))
            for slot, i in enumerate(group):
                if now[slot] is not None:
                    observed[i].append(batch[slot].copy())
            if progress is not None:
                progress(sum(each is not None for each in now))
    step = np.concatenate([np.arange(n) for n in demos.lengths])
    return Rollout(
        obs=np.concatenate([each[:-1] for each in observed]),
        actions=demos.actions,
        rewards=np.zeros(len(demos.actions)),
        flags=dict(demos.flags),
        episode=np.repeat(np.arange(len(demos)), demos.lengths).astype(np.int32),
        t=step.astype(np.int32),
        terminated=np.zeros(len(step), np.bool_),
        truncated=step == np.repeat(demos.lengths, demos.lengths) - 1,
        final_obs=np.stack([each[-1] for each in observed]),
        success_steps=envs.factory.score.steps,
    )


def cache_folder() -> Path:
    """Where demonstrations' features are cached: `$RRL_CACHE`, or `~/.cache/rrl` (XDG)."""
    root = os.environ.get("RRL_CACHE")
    if root is None:
        root = str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "rrl")
    return Path(root) / "features"


_ARRAYS = ("obs", "actions", "rewards", "episode", "t", "terminated", "truncated", "final_obs")


def _write_cache(path: Path, rollout: Rollout) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    with part.open("wb") as file:
        arrays = {name: getattr(rollout, name) for name in _ARRAYS}
        arrays |= {f"flag.{k}": v for k, v in rollout.flags.items()}
        np.savez(file, allow_pickle=False, success_steps=rollout.success_steps, **arrays)
    part.replace(path)


def _read_cache(path: Path) -> Rollout | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            return Rollout(
                **{name: file[name] for name in _ARRAYS},
                flags={k[5:]: file[k] for k in file.files if k.startswith("flag.")},
                success_steps=int(file["success_steps"]),
            )
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None  # missing, or a damaged file: made again
