"""`rrl demos`: record demonstrations with a policy; describe, verify, film and export a set."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rrl.demos import sets
from rrl.demos.record import Noisy, Recording, record
from rrl.demos.replay import NoPolicy, playback
from rrl.demos.sets import Demos
from rrl.envs.base import (
    EnvFactory,
    FrameRequest,
    reset_options,
    seed_of,
)
from rrl.envs.vector import WorkerVectorEnv
from rrl.evaluators.success import in_words, return_in_words
from rrl.evaluators.video import captioned, tiles, video
from rrl.machine.paths import new_file
from rrl.machine.progress import SILENCE, Progress
from rrl.registry import UserError, build
from rrl.rollout.data import Obs, Rollout, Stream, episodes
from rrl.rollout.episodes import Collector
from rrl.store.files import shipped_first

Say = Callable[[str], None]
LAST = "last_states"
"""A fact of a set whose source lacks the states after the last actions."""
SHOWN = 5
"""Values of a longer list that are printed."""
LOST = 0.01
"""Share of its return that a replay may lose, where nothing counts successes."""


def make(
    policy: str | Path,
    out: Path,
    count: int,
    seed: int,
    tries: int | None,
    say: Say,
    action_noise: float = 0.0,
    progress: Progress = SILENCE,
) -> None:
    """Record `count` successful episodes, of at most `tries` (None: twice as many), and write them; where a task has
    no success test, the first `count` episodes. See `rrl demos make`."""
    if not math.isfinite(action_noise):
        raise UserError(f"--action-noise is a number from 0 on; got {action_noise:g}")
    out = sets.free(out)
    from rrl.run import policies  # torch

    file = policies.find(policy)
    config, agent, values = policies.load(file)
    env: EnvFactory = build(config.env)
    tries = (tries or 2 * count) if env.score.counted else count
    if tries < count:
        raise UserError(f"{count} successful episodes can't come from {tries} tries; raise --tries")
    slots = min(config.num_envs, tries)
    with closing(WorkerVectorEnv(env, slots, config.encoder.frames(), config.workers or 0)) as envs:
        noise = (env.horizon, envs.action_dim) if action_noise else None
        todo = episodes(tries, seed=seed, stream=Stream.DEMOS, noise=noise)
        progress.phase("recording", tries * env.horizon)
        recording = record(Collector(envs), Noisy(agent, action_noise), todo, progress.advance)
    rollout = recording.rollout
    chosen = _chosen(rollout, env, count)
    rates = {flag: float(rollout.success(flag).mean()) for flag in rollout.flags}
    facts = {
        **sets.facts_of(env),
        "policy": file.name,
        "policy_facts": {k: v for k, v in values.items() if k != "config"},
        "actions": f"mean plus Gaussian noise of std {action_noise}" if action_noise else "mean",
        "seed": seed,
        "seeds": [todo[i].seed for i in chosen],
        "returns": rollout.returns()[chosen].tolist(),
        "episodes_tried": chosen[-1] + 1,
        "policy_success": rates,
    }
    recording.demos(chosen, facts).save(out)
    words = ", ".join(f"{flag} {100 * rate:.0f} %" for flag, rate in rates.items())
    whose = f"the policy over {tries} episodes: {words}" if rates else f"the first ones; {return_in_words([rollout])}"
    say(f"{out}: {count} episodes, {int(np.isin(rollout.episode, chosen).sum())} steps ({whose})")


def _chosen(rollout: Rollout, env: EnvFactory, count: int) -> list[int]:
    """The first `count` episodes that are worth learning from; UserError if there are not so many."""
    good = rollout.success(env.score.name) if env.score.counted else np.ones(rollout.episodes, bool)
    chosen = [int(i) for i in np.flatnonzero(good)][:count]
    if len(chosen) < count:
        raise UserError(
            f"only {len(chosen)} of {rollout.episodes} episodes succeeded ({env.score.name}) where {count} were "
            "wanted: run more episodes, or use a better policy"
        )
    return chosen


def _drift(recorded: Demos, replayed: Demos) -> list[NDArray[np.float64]]:
    """Per episode and state, the largest difference of positions; last states that nobody recorded are left
    out."""
    known = slice(None, -1 if LAST in recorded.facts else None)
    pairs = ((recorded.states(i)[0], replayed.states(i)[0]) for i in range(len(recorded)))
    return [np.abs(a - b).max(axis=1, initial=0.0)[known] for a, b in pairs]


def how_far(recorded: Demos, replayed: Demos) -> str:
    """How far recorded positions and those of a replay are apart, in words."""
    drift = _drift(recorded, replayed)
    half, end = np.median([(d[len(d) // 2], d[-1]) for d in drift], axis=0)
    return (
        f"positions differ from the recorded ones by at most {max(d.max() for d in drift):.2g}; "
        f"median {half:.2g} half-way, {end:.2g} at the end"
    )


def info(source: str | None, say: Say) -> None:
    """Describe one set, or list the shipped ones."""
    if source is None:
        for name, path in sets.shipped().items():
            say(f"{name}  {len(sets.load(path))} episodes  {path.stat().st_size / 1e6:.2f} MB")
        return
    demos = _load(source)
    say(f"{in_size(demos)}, {len(demos.actions)} in all")
    for name, value in demos.facts.items():
        say(f"{name}: {_brief(value)}")


def _brief(value: Any) -> str:
    """A fact, of a list with a value for each episode its beginning."""
    if isinstance(value, list) and len(value) > SHOWN and not isinstance(value[0], str):
        return f"{json.dumps(value[:SHOWN])[:-1]}, ...] ({len(value)})"
    return value if isinstance(value, str) else json.dumps(value)


def verify(source: str, say: Say, progress: Progress = SILENCE) -> bool:
    """Replay by actions (do the successes come out again? how far do states drift?) and by states.

    Returns whether at least as many episodes succeed as were recorded; without a success test, whether the replay
    loses no more than `LOST` of the recorded return.
    """
    demos = _load(source)
    env = _environment(demos)
    with closing(environments(env, len(demos))) as envs:
        recording = _replay(envs, demos, progress)
        progress.phase("showing the states", len(demos.actions) + len(demos))
        shown = _shown(envs, demos, progress, say)
    rollout, here = recording.rollout, env.facts()
    ok = _judge(demos, rollout, say)
    versions = ", ".join(f"{name} {demos.facts.get(name)}, here is {here[name]}" for name in env.packages)
    versions = f"recorded with {versions}"
    replayed = recording.demos(range(len(demos)), {})
    drift = _drift(demos, replayed)
    if not demos.qpos.size:
        say(f"there are no positions to compare: no MuJoCo simulates it ({versions})")
    elif not max(d.max() for d in drift):
        say(f"positions are the recorded ones bit for bit, in the float32 that the set keeps ({versions})")
    else:
        say(f"{how_far(demos, replayed)} ({versions})")
        for step in sorted({1, 10, 30, 100, int(np.median([len(d) for d in drift])) - 1}):
            at = np.array([d[step] for d in drift if step < len(d)])
            if len(at):
                say(f"  after {step} steps: median {np.median(at):.2g}, worst {at.max():.2g}")
    if env.has_state and shown is not None:
        apart = np.abs(shown.obs - rollout.obs).max(axis=1)
        say(
            "playback by states: the task's state observation differs from the replay's by at most "
            f"{apart.max():.2g}, median over steps {np.median(apart):.2g}"
        )
    return ok


def _shown(envs: WorkerVectorEnv, demos: Demos, progress: Progress, say: Say) -> Rollout | None:
    """The recorded states, shown one by one; None, and why is said, where that can't be done."""
    try:
        return playback(Collector(envs), NoPolicy(envs.action_dim), demos, progress.advance)
    except UserError as error:
        say(f"no playback by states: {error}")
        return None


def _judge(demos: Demos, rollout: Rollout, say: Say) -> bool:
    """Say what the replay by actions reached; is it as good as what was recorded?"""
    ok = True
    for flag in rollout.flags:
        then, now = int(demos.success(flag, rollout.success_steps).sum()), int(rollout.success(flag).sum())
        say(f"replay by actions: {in_words([rollout], flag)}; recorded {then}")
        ok &= now >= then
    if not rollout.flags:
        returns = np.array(demos.facts.get("returns", ()))
        recorded = f"recorded {returns.mean():.1f}" if len(returns) else "none was recorded"
        say(f"replay by actions: {return_in_words([rollout])}; {recorded}")
        ok = not len(returns) or bool(rollout.returns().mean() >= returns.mean() - LOST * abs(returns.mean()))
    return ok


def film(
    source: str,
    out: Path,
    say: Say,
    *,
    cameras: Sequence[str],
    look: str,
    chosen: Sequence[int],
    size: int,
    every: int,
    by: Literal["actions", "states"],
    progress: Progress = SILENCE,
) -> None:
    """`rrl demos render`: episodes through the given cameras (none: the protocol's), side by side."""
    if out.suffix != ".mp4":
        raise UserError(f"a video is an .mp4; got {out}")
    if size % 2:
        raise UserError(f"--size {size}: a video's sides are even numbers of pixels (H.264); take {size + 1}")
    new_file(out)
    demos = _load(source)
    wrong = [i for i in chosen if i >= len(demos)]
    if wrong or not chosen:
        raise UserError(f"{source} has episodes 0 to {len(demos) - 1}; got {wrong[0] if wrong else 'none'}")
    env: EnvFactory = build(sets.environment(demos.facts).filmed(cameras, look))
    verdicts = _recorded_verdicts(demos, env)
    out.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with closing(WorkerVectorEnv(env, 1, FrameRequest(size, size), 0)) as envs, video(out) as write:
        collector = Collector(envs)
        progress.phase("filming", sum(int(demos.lengths[i]) + (by == "states") for i in chosen))
        for i in chosen:
            label = f"{env.name}  {', '.join(env.cameras)}  look {look}  episode {i}{verdicts[i]} (by {by})"
            filming, episode = Filming(envs.action_dim, write, every, size, label), demos.pick([i])
            if by == "actions":
                collector.collect(filming, [episode.script(0)], progress=progress.advance)
            else:
                playback(collector, filming, episode, progress.advance)
            count += filming.shown
    say(f"{out}: {len(chosen)} episodes, {count} frames")


def _recorded_verdicts(demos: Demos, env: EnvFactory) -> list[str]:
    """What became of each episode when it was recorded: `: success`, `: return 812.3`, or nothing."""
    if env.score.counted:
        success = demos.success(env.score.name, env.score.steps)
        return [": success" if won else ": failure" for won in success]
    return [f": return {value:.1f}" for value in demos.facts.get("returns", ())] or [""] * len(demos)


class Filming(NoPolicy):
    """Writes every n-th picture that a replay of one episode shows, cameras side by side."""

    def __init__(
        self, action_dim: int, write: Callable[[NDArray[np.uint8]], None], every: int, size: int, label: str
    ) -> None:
        super().__init__(action_dim)
        self.write, self.every, self.size, self.label = write, every, size, label
        self.seen = self.shown = 0

    def observe(self, obs: Obs) -> NDArray[np.float32]:
        """The state vector; the pictures of the one environment are filmed."""
        assert obs.frames is not None
        if self.seen % self.every == 0:
            self.write(captioned(tiles(obs.frames[0], self.size), self.label))
            self.shown += 1
        self.seen += 1
        return super().observe(obs)


def export(source: str, dataset: str, say: Say, progress: Progress = SILENCE) -> None:
    """`rrl demos export`: replay a set and write it as a local Minari dataset.

    Observations are the task's state; infos hold qpos, qvel and the goal flags; the initial state is in the
    options of reset, as in Minari's own Adroit datasets, or the seed of the reset is told, so that `rrl demos import`
    reads it back.
    """
    try:
        import minari
        from minari.data_collector import EpisodeBuffer
        from minari.dataset.minari_dataset import parse_dataset_id
        from minari.storage.datasets_root_dir import get_dataset_path
    except ImportError as error:
        raise UserError("Minari datasets need minari: pip install 'rrl[demos]'") from error
    demos = _load(source)
    env = _environment(demos)
    try:
        parse_dataset_id(dataset)
    except (ValueError, TypeError) as error:
        raise UserError(f"a Minari id looks like rrl/door/expert-v0; got {dataset}") from error
    if get_dataset_path(dataset).exists():
        raise UserError(f"there is a local Minari dataset {dataset} already; choose another id")
    with closing(environments(env, len(demos))) as envs:
        rollout = _replay(envs, demos, progress).rollout
        spaces = (envs.single_observation_space["state"], envs.single_action_space)  # type: ignore[index]
    buffers = [
        EpisodeBuffer(id=i, **_reset(demos.script(i).initial or {}), **_columns(demos, rollout, i))
        for i in range(len(demos))
    ]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about an author and a permalink, which a user may add there
            minari.create_dataset_from_buffers(
                dataset_id=dataset,
                buffer=buffers,
                observation_space=spaces[0],
                action_space=spaces[1],
                algorithm_name=demos.origin,
                description=", ".join(f"{k} {v}" for k, v in env.facts().items()),
            )
    except BaseException as error:  # an id or a folder that Minari does not take
        shutil.rmtree(get_dataset_path(dataset), ignore_errors=True)  # half a dataset would stand in the next try's way
        if not isinstance(error, Exception):
            raise
        raise UserError(f"Minari does not take {dataset}: {error}") from error
    say(f"Minari dataset {dataset}: {len(demos)} episodes, {len(demos.actions)} steps")


def _reset(initial: Mapping[str, Any]) -> dict[str, Any]:
    """How an episode began as Minari has it: the seed and the options of its reset, or else its initial state."""
    if "seed" in initial:
        return {"seed": seed_of(initial["seed"]), "options": reset_options(initial) or None}
    return {"options": {"initial_state_dict": dict(initial)}}


def _columns(demos: Demos, rollout: Rollout, i: int) -> dict[str, Any]:
    """Episode i as Minari wants it: observations and infos with one row more than the actions."""
    rows = rollout.episode == i
    qpos, qvel = demos.states(i)
    if LAST in demos.facts:
        qpos[-1], qvel[-1] = np.nan, np.nan
    flags = {k: np.append(False, v[rows]) for k, v in rollout.flags.items()}
    return {
        "observations": np.concatenate([rollout.obs[rows], rollout.final_obs[i : i + 1]]),
        "actions": rollout.actions[rows],
        "rewards": rollout.rewards[rows],
        "terminations": rollout.terminated[rows],
        "truncations": rollout.truncated[rows],
        "infos": {"qpos": qpos, "qvel": qvel, **flags},
    }


def _load(source: str) -> Demos:
    return sets.load(shipped_first(source, sets.shipped(), sets.npz(Path(source))))


def _environment(demos: Demos) -> EnvFactory:
    """The environment that a set was recorded in, with the task's objects in the state vector."""
    env: EnvFactory = build(sets.with_objects(sets.environment(demos.facts)))
    return env


def environments(env: EnvFactory, count: int) -> WorkerVectorEnv:
    """Simulators for so many replays, in this process."""
    return WorkerVectorEnv(env, min(25, count), None, 0)


def _replay(envs: WorkerVectorEnv, demos: Demos, progress: Progress) -> Recording:
    """All episodes by their actions."""
    progress.phase("replaying", len(demos.actions))
    todo = [demos.script(i) for i in range(len(demos))]
    return record(Collector(envs), NoPolicy(envs.action_dim), todo, progress.advance)


def in_size(demos: Demos) -> str:
    """How many episodes of what length, in words."""
    return f"{len(demos)} episodes of {demos.lengths.min()} to {demos.lengths.max()} steps"


def verdicts(rollout: Rollout) -> str:
    """How good the episodes are, in words."""
    return "; ".join(in_words([rollout], flag) for flag in rollout.flags) or return_in_words([rollout])
