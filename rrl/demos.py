"""Demonstrations: sets of recorded episodes, replayed through a run's own environment and encoder.

A set is one `.npz` (actions, states, what the task randomised) beside one `.json` (where it comes
from). It holds no pictures and no features: those depend on the run's camera, look and encoder, and are
made by replaying the actions (and then cached). Rewards are the run's too.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rrl.envs.base import EnvFactory
from rrl.registry import Component, UserError, register
from rrl.rollout import Collector, Episode, Obs, Policy, Rollout, Stack

FORMAT = 1
CACHED = 1
"""Raised where features that earlier code has cached may be wrong (1: on CUDA they were)."""


@dataclass(frozen=True)
class Demos:
    """Recorded episodes of one task, E of them with T actions in all."""

    lengths: NDArray[np.int64]
    """[E]: number of actions of each episode."""
    actions: NDArray[np.float32]
    """[T, m]: in the environment's units (it clips to [-1, 1])."""
    qpos: NDArray[np.float32]
    """[T + E, nq]: positions before each action and after the last (m, rad)."""
    qvel: NDArray[np.float16]
    """[T + E, nv]: velocities likewise (m/s, rad/s); half precision, for playback by states only."""
    flags: Mapping[str, NDArray[np.bool_]]
    """Per goal flag [T]: up after the step?"""
    initial: Mapping[str, NDArray[np.float64]]
    """[E, ...]: the initial state and what the task randomised, as `SimEnv.reset` takes it."""
    facts: Mapping[str, Any]
    """Environment, protocol, MuJoCo version, policy, seeds and success, for people and for checks."""

    def __len__(self) -> int:
        return len(self.lengths)

    def script(self, i: int) -> Episode:
        """Episode i as an open-loop replay from its recorded initial state.

        Its seed is i: it decides nothing but noise on observations, which no two of them should share.
        """
        start = int(self.lengths[:i].sum())
        actions = self.actions[start : start + int(self.lengths[i])]
        return Episode(i, initial={k: v[i] for k, v in self.initial.items()}, actions=actions)

    def states(self, i: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(qpos [L + 1, nq], qvel [L + 1, nv]) of episode i."""
        start = int(self.lengths[:i].sum()) + i
        rows = slice(start, start + int(self.lengths[i]) + 1)
        return self.qpos[rows].astype(np.float64), self.qvel[rows].astype(np.float64)

    def success(self, flag: str, steps: int) -> NDArray[np.bool_]:
        """[E]: `flag` up in more than `steps` recorded steps."""
        index = np.repeat(np.arange(len(self)), self.lengths)
        return np.bincount(index, self.flags[flag], len(self)) > steps

    def pick(self, chosen: Sequence[int]) -> Demos:
        """These episodes, in this order."""
        step_of = np.repeat(np.arange(len(self)), self.lengths)
        state_of = np.repeat(np.arange(len(self)), self.lengths + 1)
        steps = np.concatenate([np.flatnonzero(step_of == i) for i in chosen])
        states = np.concatenate([np.flatnonzero(state_of == i) for i in chosen])
        return replace(
            self,
            lengths=self.lengths[list(chosen)],
            actions=self.actions[steps],
            qpos=self.qpos[states],
            qvel=self.qvel[states],
            flags={k: v[steps] for k, v in self.flags.items()},
            initial={k: v[list(chosen)] for k, v in self.initial.items()},
        )

    def checksum(self) -> str:
        """SHA-256 of what replays use: actions, lengths, initial states and positions."""
        digest = hashlib.sha256()
        arrays = {"actions": self.actions, "lengths": self.lengths, "qpos": self.qpos, **self.initial}
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name])
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()[:16]

    @property
    def origin(self) -> str:
        """Who acted: `policy NAME`, or what the facts say (`human`), or `unknown`."""
        policy = self.facts.get("policy")
        return f"policy {Path(policy).stem}" if policy else str(self.facts.get("origin", "unknown"))

    def save(self, path: Path) -> None:
        """Write `path`.npz and `path`.json; refuses to overwrite either."""
        path = free(path)
        kept: list[NDArray[Any]] = [self.actions, self.qpos, self.qvel, *self.initial.values()]
        if not all(np.isfinite(values).all() for values in kept):
            raise UserError(f"{path} is not written: the episodes hold numbers that are not finite")
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, NDArray[Any]] = {
            "lengths": self.lengths,
            "actions": self.actions,
            "qpos": self.qpos,
            "qvel": self.qvel,
        }
        arrays |= {f"flag.{k}": v for k, v in self.flags.items()}
        arrays |= {f"initial.{k}": v for k, v in self.initial.items()}
        np.savez_compressed(path, allow_pickle=False, **arrays)
        facts = {**self.facts, "format": FORMAT, "checksum": self.checksum()}  # of these, not of their source
        path.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n")


def npz(path: Path) -> Path:
    """The path with its .npz, typed or not."""
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")


def free(path: Path) -> Path:
    """`npz(path)`; UserError if it or its .json exists."""
    for file in (npz(path), npz(path).with_suffix(".json")):
        if file.exists():
            raise UserError(f"{file} exists already; choose another name or remove it first")
    return npz(path)


def load(path: Path) -> Demos:
    """Read a set written by `Demos.save`. UserError if it isn't one, or was changed."""
    path = npz(path)
    if not path.exists():
        raise UserError(f"no demonstrations at {path}")
    try:
        facts = json.loads(path.with_suffix(".json").read_text())
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        demos = Demos(
            lengths=arrays["lengths"],
            actions=arrays["actions"],
            qpos=arrays["qpos"],
            qvel=arrays["qvel"],
            flags={k[5:]: v for k, v in arrays.items() if k.startswith("flag.")},
            initial={k[8:]: v for k, v in arrays.items() if k.startswith("initial.")},
            facts=facts,
        )
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise UserError(f"{path} is not a set of demonstrations that rrl wrote: {error}") from error
    if facts.get("checksum") != demos.checksum():
        raise UserError(f"{path} does not match the checksum in its .json: the file was changed or cut short")
    return demos


def shipped() -> dict[str, Path]:
    """Name -> path of the sets that come with the package, such as `adroit_door_paper`."""
    folder = Path(str(files("rrl"))) / "data" / "demos"
    return {path.stem: path for path in sorted(folder.glob("*.npz"))}


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
                raise UserError(
                    f"DemoSet.episodes is {config.episodes}, but {name} holds {len(self.demos)} episodes"
                )
            chosen = np.arange(len(self.demos))
            if config.pick_seed is not None:
                chosen = np.random.default_rng(config.pick_seed).permutation(chosen)
            self.demos = self.demos.pick(sorted(chosen[: config.episodes].tolist()))
        self.name = name
        self.config = config

    def mismatches(self) -> list[str]:
        """Where the run differs from what was recorded, in words: printed and tagged."""
        facts = self.env.facts()
        return [
            f"demonstrations were recorded with {key} {self.demos.facts[key]}, this run has {facts[key]}"
            for key in ("protocol", "mujoco", "gymnasium-robotics")
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

    def _replayed(
        self, collector: Collector, policy: Policy, progress: Callable[[int], None] | None
    ) -> Rollout:
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
                pictures = frames.push(
                    seen["frames"], *((everywhere, nowhere) if t == 0 else (nowhere, everywhere))
                )
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
        success_steps=envs.factory.success_steps,
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
