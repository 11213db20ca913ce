"""`rrl demos`: record demonstrations with a policy or take over other people's; describe, verify, film and
export a set."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rrl import registry
from rrl.demos import importers, record, replay, sets
from rrl.demos.sets import Demos
from rrl.envs.base import EnvFactory, FrameRequest
from rrl.envs.vector import WorkerVectorEnv
from rrl.evaluators.success import in_words
from rrl.evaluators.video import captioned, tiles, write_video
from rrl.registry import UserError, build
from rrl.rollout.data import Episode, Obs, Policy, Rollout, Stream, episodes
from rrl.rollout.episodes import Collector
from rrl.run import policies

Say = Callable[[str], None]
LAST = "last_states"
"""A fact of a set whose source lacks the states after the last actions."""


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


def make(
    policy: Path,
    out: Path,
    count: int,
    seed: int,
    tries: int,
    say: Say,
    action_noise: float = 0.0,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Record `count` successful episodes (of at most `tries`) and write them; see `rrl demos make`."""
    if tries < count:
        raise UserError(f"{count} successful episodes can't come from {tries} tries; raise --tries")
    out = sets.free(out)
    known = policies.shipped()
    if str(policy) not in known and not policy.exists():
        raise UserError(
            f"there is no file {policy}, nor a shipped policy of that name ({', '.join(known)}); "
            "runs write policy.safetensors and best_policy.safetensors"
        )
    policy = known.get(str(policy), policy)
    config, agent, values = policies.load(policy)
    env: EnvFactory = build(config.env)
    envs = WorkerVectorEnv(env, min(config.num_envs, tries), config.encoder.frames(), config.workers or 0)
    try:
        noise = (env.horizon, envs.action_dim) if action_noise else None
        todo = episodes(tries, seed=seed, stream=Stream.DEMOS, noise=noise)
        made = record.record(Collector(envs), Noisy(agent, action_noise), todo, progress)
    finally:
        envs.close()
    rollout, flag = made.rollout, env.flags[0]
    good = [int(i) for i in np.flatnonzero(rollout.success(flag))][:count]
    if len(good) < count:
        raise UserError(
            f"only {len(good)} of {tries} episodes succeeded ({flag}) where {count} were wanted: "
            "run more episodes, or use a better policy"
        )
    rates = {k: float(rollout.success(k).mean()) for k in rollout.flags}
    facts = {
        **env.facts(),
        "policy": policy.name,
        "policy_facts": {k: v for k, v in values.items() if k != "config"},
        "actions": f"mean plus Gaussian noise of std {action_noise}" if action_noise else "mean",
        "seed": seed,
        "seeds": [todo[i].seed for i in good],
        "episodes_tried": good[-1] + 1,
        "policy_success": rates,
    }
    made.demos(good, facts).save(out)
    words = ", ".join(f"{k} {100 * v:.0f} %" for k, v in rates.items())
    steps = int(np.isin(rollout.episode, good).sum())
    say(f"{out}: {count} episodes, {steps} steps (the policy over {tries} episodes: {words})")


def take_over(
    source: str, out: Path, say: Say, *, task: str | None, kind: str | None, protocol: str, origin: str
) -> None:
    """`rrl demos import`: replay what `rrl.demos.importers` reads, and write what happens here as a set.

    Observations, rewards and success are this simulator's, never the file's. Positions and velocities are the
    file's where it has them, so that `verify` can tell how far the replay drifts from the recording.
    """
    out = sets.free(out)
    env = _adroit(task or _task_in(source), protocol)
    recorded = importers.read(source, kind)
    envs = WorkerVectorEnv(env, min(25, len(recorded)), None, 0)
    try:
        envs.reset(seed=0)
        needed = envs.call("initial")[0]
        todo = [
            _scripted(i, each, needed, envs.action_dim, f"{source}, episode {i}") for i, each in enumerate(recorded)
        ]
        replayed = record.record(Collector(envs), NoPolicy(envs.action_dim), todo)
    finally:
        envs.close()
    rollout = replayed.rollout
    facts = {
        **env.facts(),
        "origin": origin,
        "source": Path(source).name,
        "actions": "recorded",
        "success": {k: int(rollout.success(k).sum()) for k in rollout.flags},
    }
    made = replayed.demos(range(len(recorded)), facts)
    if all(each.qpos is not None and each.qvel is not None for each in recorded):
        if any(len(each.qpos) == len(each.actions) for each in recorded if each.qpos is not None):
            made = replace(made, facts={**made.facts, LAST: "the replay's: the source has none"})
        filed = _with_states(made, recorded)
        say(_apart(filed, made))
        made = filed
    seen = [each.observations for each in recorded]
    if all(each is not None and each.shape[1] == rollout.obs.shape[1] for each in seen):
        theirs = np.concatenate([each[:n] for each, n in zip(seen, made.lengths, strict=True) if each is not None])
        apart = np.abs(rollout.obs - theirs).max(axis=1)
        say(
            f"observations differ from the recorded ones by {np.median(apart):.2g} (median over steps), "
            f"at the start of an episode by {np.median(apart[rollout.starts]):.2g}"
        )
    made.save(out)
    wins = "; ".join(in_words([rollout], flag) for flag in rollout.flags)
    over = int((made.lengths > env.horizon).sum())
    longer = f", {over} of them longer than the horizon of {env.horizon}" if over else ""
    say(f"{out}: {len(made)} episodes of {made.lengths.min()} to {made.lengths.max()} steps{longer}; {wins}")


def _scripted(index: int, each: importers.Recorded, needed: Mapping[str, Any], action_dim: int, where: str) -> Episode:
    """The episode as an open-loop replay; UserError if it is of another task."""
    initial = {k: importers.array(each.initial[k], f"{where}: {k}") for k in needed if k in each.initial}
    missing = [k for k, v in needed.items() if k not in initial or initial[k].shape != v.shape]
    for name, values in initial.items():
        importers.finite(values, f"{where}: {name}")
    if missing:
        has = ", ".join(each.initial)
        wants = ", ".join(f"{k} {needed[k].shape}" for k in missing)
        raise UserError(f"{where}: the initial state lacks {wants}; it has {has or 'nothing'}. Is it this task?")
    if each.actions.shape[1] != action_dim:
        raise UserError(f"{where}: actions have {each.actions.shape[1]} dimensions, this task's {action_dim}")
    for name in ("qpos", "qvel"):
        values = getattr(each, name)
        if values is not None and values.shape[1] != len(needed[name]):
            raise UserError(f"{where}: {name} has {values.shape[1]} numbers a step, this task's {len(needed[name])}")
    return Episode(index, initial=initial, actions=each.actions.astype(np.float32))


def _with_states(made: Demos, recorded: Sequence[importers.Recorded]) -> Demos:
    """The file's states instead of the replay's; where the file lacks the last one, the replay's stays."""
    qpos, qvel, start = made.qpos.copy(), made.qvel.copy(), 0
    for each, length in zip(recorded, made.lengths, strict=True):
        assert each.qpos is not None
        assert each.qvel is not None
        qpos[start : start + len(each.qpos)] = each.qpos
        qvel[start : start + len(each.qvel)] = each.qvel
        start += int(length) + 1
    return replace(made, qpos=qpos, qvel=qvel)


def _drift(recorded: Demos, replayed: Demos) -> list[NDArray[np.float64]]:
    """Per episode and state, the largest difference of positions; last states that nobody recorded are left
    out."""
    known = slice(None, -1 if LAST in recorded.facts else None)
    pairs = ((recorded.states(i)[0], replayed.states(i)[0]) for i in range(len(recorded)))
    return [np.abs(a - b).max(axis=1)[known] for a, b in pairs]


def _apart(recorded: Demos, replayed: Demos) -> str:
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
    made = _load(source)
    say(f"{len(made)} episodes of {made.lengths.min()} to {made.lengths.max()} steps, {len(made.actions)} in all")
    say(json.dumps(made.facts, indent=2))


def verify(source: str, say: Say) -> bool:
    """Replay by actions (do the successes come out again? how far do states drift?) and by states.

    Returns whether at least as many episodes succeed as were recorded.
    """
    made = _load(source)
    env = _environment(made)
    envs = WorkerVectorEnv(env, min(25, len(made)), None, 0)
    try:
        replayed = record.record(Collector(envs), NoPolicy(envs.action_dim), [made.script(i) for i in range(len(made))])
        shown = replay.playback(Collector(envs), NoPolicy(envs.action_dim), made)
    finally:
        envs.close()
    rollout, again = replayed.rollout, replayed.demos(range(len(made)), {})
    ok = True
    for flag in rollout.flags:
        then = int(made.success(flag, env.score.steps).sum())
        now = int(rollout.success(flag).sum())
        say(f"replay by actions: {in_words([rollout], flag)}; recorded {then}")
        ok &= now >= then
    versions = f"recorded with MuJoCo {made.facts.get('mujoco')}, here is {env.facts()['mujoco']}"
    drift = _drift(made, again)
    if not max(d.max() for d in drift):
        say(f"positions are the recorded ones bit for bit, in the float32 that the set keeps ({versions})")
    else:
        say(f"{_apart(made, again)} ({versions})")
        for step in sorted({1, 10, 30, 100, int(np.median([len(d) for d in drift])) - 1}):
            at = np.array([d[step] for d in drift if step < len(d)])
            if len(at):
                say(f"  after {step} steps: median {np.median(at):.2g}, worst {at.max():.2g}")
    apart = np.abs(shown.obs - rollout.obs).max(axis=1)
    say(
        "playback by states: the task's state observation differs from the replay's by at most "
        f"{apart.max():.2g}, median over steps {np.median(apart):.2g}"
    )
    return bool(ok)


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
    progress: Callable[[int], None] | None = None,
) -> None:
    """`rrl demos render`: episodes through the given cameras (none: the protocol's), side by side."""
    if out.exists():
        raise UserError(f"{out} exists already; choose another name or remove it first")
    if out.suffix != ".mp4":
        raise UserError(f"a video is an .mp4; got {out}")
    made = _load(source)
    wrong = [i for i in chosen if i >= len(made)]
    if wrong or not chosen:
        raise UserError(f"{source} has episodes 0 to {len(made) - 1}; got {wrong[0] if wrong else 'none'}")
    env = _environment(made, look=look, cameras=tuple(cameras) or None)
    envs = WorkerVectorEnv(env, 1, FrameRequest(size, size), 0)
    recorded = made.success(env.flags[0], env.score.steps)
    frames: list[NDArray[np.uint8]] = []
    try:
        collector = Collector(envs)
        for i in chosen:
            verdict = "success" if recorded[i] else "failure"
            label = f"{env.name}  {', '.join(env.cameras)}  look {look}  episode {i}: {verdict} (by {by})"
            watched, part = Filming(envs.action_dim, frames, every, size, label), made.pick([i])
            if by == "actions":
                collector.collect(watched, [part.script(0)], progress=progress)
            else:
                replay.playback(collector, watched, part, progress)
    finally:
        envs.close()
    out.parent.mkdir(parents=True, exist_ok=True)
    write_video(out, frames)
    say(f"{out}: {len(chosen)} episodes, {len(frames)} frames")


class Filming(NoPolicy):
    """Keeps every n-th picture that a replay of one episode shows, cameras side by side."""

    def __init__(self, action_dim: int, frames: list[NDArray[np.uint8]], every: int, size: int, label: str) -> None:
        super().__init__(action_dim)
        self.frames, self.every, self.size, self.label = frames, every, size, label
        self.seen = 0

    def observe(self, obs: Obs) -> NDArray[np.float32]:
        """The state vector; the pictures of the one environment are kept."""
        assert obs.frames is not None
        if self.seen % self.every == 0:
            self.frames.append(captioned(tiles(obs.frames[0], self.size), self.label))
        self.seen += 1
        return super().observe(obs)


def export(source: str, dataset: str, say: Say) -> None:
    """`rrl demos export`: replay a set and write it as a local Minari dataset.

    Observations are the task's state; infos hold qpos, qvel and the goal flags; the initial state is in the
    options of reset, as in Minari's own Adroit datasets, so that `rrl demos import` reads it back.
    """
    try:
        import minari
        from minari.data_collector import EpisodeBuffer
        from minari.dataset.minari_dataset import parse_dataset_id
        from minari.storage.datasets_root_dir import get_dataset_path
    except ImportError as error:
        raise UserError("Minari datasets need minari: pip install 'rrl[demos]'") from error
    made = _load(source)
    env = _environment(made)
    try:
        parse_dataset_id(dataset)
    except (ValueError, TypeError) as error:
        raise UserError(f"a Minari id looks like rrl/door/expert-v0; got {dataset}") from error
    if get_dataset_path(dataset).exists():
        raise UserError(f"there is a local Minari dataset {dataset} already; choose another id")
    envs = WorkerVectorEnv(env, min(25, len(made)), None, 0)
    try:
        rollout = Collector(envs).collect(NoPolicy(envs.action_dim), [made.script(i) for i in range(len(made))])
        spaces = (envs.single_observation_space["state"], envs.single_action_space)  # type: ignore[index]
    finally:
        envs.close()
    buffers = [
        EpisodeBuffer(
            id=i,
            options={"initial_state_dict": dict(made.script(i).initial or {})},
            **_columns(made, rollout, i),
        )
        for i in range(len(made))
    ]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about an author and a permalink, which a user may add there
            minari.create_dataset_from_buffers(
                dataset_id=dataset,
                buffer=buffers,
                observation_space=spaces[0],
                action_space=spaces[1],
                algorithm_name=made.origin,
                description=", ".join(f"{k} {v}" for k, v in env.facts().items()),
            )
    except Exception as error:  # an id or a folder that Minari does not take
        raise UserError(f"Minari does not take {dataset}: {error}") from error
    say(f"Minari dataset {dataset}: {len(made)} episodes, {len(made.actions)} steps")


def _columns(made: Demos, rollout: Rollout, i: int) -> dict[str, Any]:
    """Episode i as Minari wants it: observations and infos with one row more than the actions."""
    rows = rollout.episode == i
    qpos, qvel = made.states(i)
    if LAST in made.facts:
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


def _environment(made: Demos, **settings: Any) -> EnvFactory:
    """The environment a set was recorded in, with its task's state observation."""
    family, _, task = str(made.facts["env"]).partition("_")
    if family != "adroit":
        raise UserError(f"this version of rrl has no environment {made.facts['env']}")
    return _adroit(task, str(made.facts["protocol"]), **settings)


def _adroit(task: str, protocol: str, **settings: Any) -> EnvFactory:
    try:
        config = registry.get("Adroit").Config.model_validate(
            {"task": task, "protocol": protocol, "state": "task", **settings}
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    env: EnvFactory = build(config)
    return env


def _task_in(source: str) -> str:
    words = re.split(r"[^a-z]+", source.lower())  # words: a folder called `open` is no pen
    named = [word for word in words if word in ("pen", "door", "hammer", "relocate")]
    if not named:
        raise UserError(f"which task are the demonstrations in {source}? Say it with --task")
    return named[-1]


def _load(source: str) -> Demos:
    return sets.load(sets.shipped().get(source, Path(source)))
