"""Demonstrations of a run: which set, replayed through the run's environment and encoder, and cached."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rrl.demos.sets import Demos, load, npz, shipped
from rrl.envs.base import EnvFactory
from rrl.envs.vector import WorkerVectorEnv
from rrl.machine.paths import caches, expanded, unusable
from rrl.registry import Component, Count, InputFile, Mistake, Parts, Seed, UserError, register
from rrl.rollout.data import Obs, Policy, Rollout
from rrl.rollout.episodes import Collector, check_width
from rrl.rollout.slots import Slots
from rrl.store.arrays import npz as npz_file
from rrl.store.files import shipped_first, writing


def _remedy() -> str:
    return f"name a shipped set ({', '.join(shipped())}), or make one with `rrl demos make`"


@register
class DemoSet(Component):
    """Demonstrations of a run: which set, and how much of it."""

    kind: ClassVar[str] = "demos"

    class Config(Component.Config):
        """Which demonstrations a run learns from."""

        source: Annotated[str | None, InputFile(".npz", lambda _: shipped(), _remedy)] = None
        """A path of an .npz written by `rrl demos make` or `rrl demos import`, relative to the gin file, or the
        name of a shipped set; None: the set shipped for the environment and protocol."""
        episodes: Count | None = None
        """Use only so many episodes; None: all (the paper: 25)."""
        pick_seed: Seed | None = None
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
            """The set's name, or its file's; empty for the one that is shipped for the environment."""
            return Path(self.source or "").name

    def __init__(self, config: Config, *, env: EnvFactory) -> None:
        self.env = env
        source = config.source or "_".join(filter(None, (env.name, env.protocol)))
        known, name, file = shipped(), config.label() or source, npz(expanded(source))
        if source not in known and (why := unusable(file)):
            if config.source is None:
                raise UserError(
                    f"no demonstrations come with rrl for {env.name} {env.protocol}".rstrip()
                    + ": make or import some (`rrl demos`), and name them in `DemoSet.source`"
                )
            raise UserError(f"no demonstrations named {name}: {why}\n{_remedy()}")
        self.demos = load(shipped_first(source, known, file) if config.source else known.get(source, file))
        recorded = self.demos.facts.get("env")
        if recorded != env.name:
            raise UserError(
                f"demonstrations {name} are of {recorded}, but the environment is {env.name}\n"
                "  name a set of this task in `DemoSet.source`, or take the environment that they are of"
            )
        if config.episodes is not None:
            if config.episodes > len(self.demos):
                raise UserError(
                    f"DemoSet.episodes is {config.episodes}, but {name} holds {len(self.demos)} episodes; None: all"
                )
            chosen = np.arange(len(self.demos))
            if config.pick_seed is not None:
                chosen = np.random.default_rng(config.pick_seed).permutation(chosen)
            self.demos = self.demos.pick(sorted(chosen[: config.episodes].tolist()))
        if env.action_repeat > self.demos.action_repeat and env.action_repeat % self.demos.action_repeat == 0:
            self.demos = self.demos.repeated(env.action_repeat // self.demos.action_repeat)
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
        facts = {"action_repeat": str(self.env.action_repeat), **self.env.facts()}
        return [
            f"demonstrations were recorded with {key} {self.demos.facts[key]}, this run has {facts[key]}"
            for key in dict.fromkeys(("protocol", "horizon", *self.env.variant, *self.env.packages))
            if key in self.demos.facts and self.demos.facts[key] != facts.get(key)
        ]

    def replay(
        self,
        collector: Collector,
        policy: Policy,
        key: Mapping[str, str] | None = None,
        progress: Callable[[int], None] | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> Rollout:
        """Replay all actions and return what `policy.observe` makes of the observations (T transitions).

        The result is cached on disk under `key` (None: not cached), which must say all that decides features:
        encoder, weights, precision, GL renderer, code, versions; environment and demonstrations are added here. `say`
        is told, before it begins, what takes so long and that it won't again.
        """
        if key is None:
            return self._replayed(collector, policy, progress)
        full = {
            **key,
            **self.env.facts(),
            "demos": self.demos.contents(),
            "replay": self.config.replay,
            "rrl": version("rrl"),
        }
        digest = hashlib.sha256(json.dumps(full, sort_keys=True).encode()).hexdigest()[:32]
        path = caches() / "features" / f"{self.env.name}-{digest}.npz"
        cached = _read_cache(path)
        if cached is None:
            say(f"replaying the demonstrations through the encoder: done once, then kept in {path.parent}")
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


class NoPolicy:
    """Stands where a replay needs a policy: keeps the state vector, never acts."""

    stack = 1

    def __init__(self, action_dim: int) -> None:
        self.action_dim = action_dim

    def observe(self, obs: Obs) -> NDArray[np.float32]:
        """The state vector."""
        return obs.state.copy()

    def act(self, observed: NDArray[np.float32], noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Zeros; a replay puts recorded actions in their place."""
        return np.zeros((len(observed), self.action_dim), np.float32)


def playback(
    collector: Collector, policy: Policy, demos: Demos, progress: Callable[[int], None] | None = None
) -> Rollout:
    """Show all recorded states, without stepping, as a rollout with the recorded flags and rewards 0."""
    check_width(demos.actions, collector.envs)
    slots = Slots(collector.envs.num_envs, collector.envs.frames)
    rows: list[NDArray[Any]] = []
    for start in range(0, len(demos), slots.count):
        rows += _shown(collector.envs, slots, policy, demos, start, progress)
    t = np.concatenate([np.arange(n) for n in demos.lengths])
    return Rollout(
        obs=np.concatenate([row[:-1] for row in rows]),
        actions=demos.actions,
        rewards=np.zeros(len(demos.actions)),
        flags=dict(demos.flags),
        episode=np.repeat(np.arange(len(demos)), demos.lengths).astype(np.int32),
        t=t.astype(np.int32),
        terminated=np.zeros(len(t), np.bool_),
        truncated=t == np.repeat(demos.lengths, demos.lengths) - 1,
        final_obs=np.stack([row[-1] for row in rows]),
        success_steps=collector.envs.factory.score.steps,
    )


def _shown(
    envs: WorkerVectorEnv,
    slots: Slots,
    policy: Policy,
    demos: Demos,
    start: int,
    progress: Callable[[int], None] | None,
) -> list[NDArray[Any]]:
    """As many episodes as there are slots, from number `start`: per episode the observed rows [L + 1, n]."""
    group = range(start, min(start + slots.count, len(demos)))
    idle: list[Any] = [None] * (slots.count - len(group))
    states = [demos.states(i) for i in group]
    rows: list[list[NDArray[Any]]] = [[] for _ in group]
    envs.reset(
        seed=[*group, *([0] * len(idle))],  # as in `Demos.script`
        options={"initial": [demos.script(i).initial for i in group] + idle},
    )
    for t in range(max(len(qpos) for qpos, _ in states)):
        now: list[Any] = [(qpos[t], qvel[t]) if t < len(qpos) else None for qpos, qvel in states]
        envs.call_each("show", now + idle)
        fresh = np.full(slots.count, t == 0)
        place = [f"{envs.factory.name}, state {t} of recorded episode {start + slot}" for slot in range(slots.count)]
        observed = slots.look(policy, envs.observation(), fresh, ~fresh, place.__getitem__)
        for slot, state in enumerate(now):
            if state is not None:
                rows[slot].append(observed[slot].copy())
        if progress is not None:
            progress(sum(state is not None for state in now))
    return [np.stack(row) for row in rows]


_ARRAYS = ("obs", "actions", "rewards", "episode", "t", "terminated", "truncated", "final_obs")


def _write_cache(path: Path, rollout: Rollout) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: getattr(rollout, name) for name in _ARRAYS}
    arrays |= {f"flag.{k}": v for k, v in rollout.flags.items()}
    with writing(path) as file:
        np.savez(file, allow_pickle=False, success_steps=rollout.success_steps, **arrays)


def _read_cache(path: Path) -> Rollout | None:
    try:
        with npz_file(path) as file:
            arrays: dict[str, Any] = {name: file.read(name) for name in _ARRAYS}
            rollout = Rollout(
                **arrays,
                flags={k[5:]: file.read(k) for k in file.announced if k.startswith("flag.")},
                success_steps=int(file.read("success_steps")),
            )
    except (ValueError, KeyError, TypeError):
        return None  # missing, or a damaged file: made again
    # Earlier versions cached NaN features too: made again, which says where they come from.
    finite = all(np.isfinite(values).all() for values in (rollout.obs, rollout.final_obs, rollout.rewards))
    return rollout if finite else None
