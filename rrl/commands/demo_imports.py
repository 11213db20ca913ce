"""`rrl demos import`: other people's demonstrations, replayed here and kept as a set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rrl.commands.demos import LAST, Say, environments, how_far, in_size, verdicts
from rrl.config import ginfile
from rrl.demos import importers, lerobot, sets
from rrl.demos.record import record
from rrl.demos.replay import NoPolicy
from rrl.demos.sets import Demos
from rrl.envs.base import (
    EnvFactory,
    find_spec,
    find_task,
    task_names,
)
from rrl.envs.vector import WorkerVectorEnv
from rrl.machine.progress import SILENCE, Progress
from rrl.registry import UserError, build
from rrl.rollout.data import Episode, Rollout
from rrl.rollout.episodes import Collector


def take_over(
    source: str,
    out: Path,
    say: Say,
    *,
    task: str | None,
    kind: str | None,
    protocol: str | None,
    origin: str | None,
    progress: Progress = SILENCE,
) -> None:
    """`rrl demos import`: replay what `rrl.demos.importers` reads, and write what happens here as a set.

    Observations, rewards and success are this simulator's, never the file's. Positions and velocities are the
    file's where it has them, so that `verify` can tell how far the replay drifts from the recording.
    """
    out = sets.free(out)
    ours, spec = lerobot.facts(Path(source)), importers.environment(source, kind)
    env: EnvFactory = build(sets.with_objects(_task(source, ours, spec, task, protocol)))
    if spec:
        say(f"recorded in {spec['id']}; the task here is {env.name}")
    recorded = importers.read(source, kind)
    with closing(environments(env, len(recorded))) as envs:
        envs.reset(seed=0)
        recorded, todo = _scripted(envs, recorded, source, say)
        progress.phase("replaying", sum(len(episode.actions) for episode in recorded))
        recording = record(Collector(envs), NoPolicy(envs.action_dim), todo, progress.advance)
    rollout = recording.rollout
    facts = {
        **sets.facts_of(env),
        "origin": origin or str(ours.get("origin", "human")),
        "source": Path(source).name,
        "actions": "recorded",
        "returns": rollout.returns().tolist(),
        "success": {flag: int(rollout.success(flag).sum()) for flag in rollout.flags},
    }
    demos = recording.demos(range(len(recorded)), facts)
    if all(episode.qpos is not None and episode.qvel is not None for episode in recorded):
        replayed, demos = demos, _with_states(demos, recorded)
        say(how_far(demos, replayed))
    _compare_observations(rollout, recorded, say)
    demos.save(out)
    over = int((demos.lengths > env.horizon).sum())
    longer = f", {over} of them longer than the horizon of {env.horizon}" if over else ""
    say(f"{out}: {in_size(demos)}{longer}; {verdicts(rollout)}")


def _task(
    source: str, ours: Mapping[str, Any], spec: Mapping[str, Any], task: str | None, protocol: str | None
) -> EnvFactory.Config:
    """What a user named (a task, or a gin file that binds a run's environment), what our own export or the source says,
    or the task in its name. UserError if there is none of these, or it has no such protocol."""
    if task is not None and (task.endswith(".gin") or task in ginfile.shipped()):
        config = ginfile.bound(task, "env")
        assert isinstance(config, EnvFactory.Config)
    elif task is not None:
        config = find_task(task)
    elif "env" in ours:
        config = _recorded(source, ours)
    else:
        config = find_spec(spec) if spec else find_task(_task_in(source))
    return config if protocol is None else config.of({**dict(config), "protocol": protocol})


def _recorded(source: str, ours: Mapping[str, Any]) -> EnvFactory.Config:
    try:
        return sets.environment(ours)
    except UserError as error:
        raise UserError(f"{error}\n{source} was recorded there; say with --task which task that is here") from error


def _task_in(source: str) -> str:
    """The task whose name's words stand in the source's, the last one if there are several."""
    words = re.split(r"[^a-z]+", source.lower())  # words: a folder called `open` is no pen
    places = {}
    for name in task_names():
        parts = re.split(r"[^a-z]+", name.lower())
        ends = [k for k in range(len(parts), len(words) + 1) if words[k - len(parts) : k] == parts]
        if ends:
            places[name] = ends[-1]
    if not places:
        raise UserError(
            f"which task are the demonstrations in {source}? Say it with --task: its name, gymnasium's id of it, or a "
            "gin file that sets `Experiment.env`"
        )
    return max(places, key=lambda name: places[name])


def _scripted(
    envs: WorkerVectorEnv, recorded: Sequence[importers.Recorded], source: str, say: Say
) -> tuple[list[importers.Recorded], list[Episode]]:
    """The episodes in this task's units, and as open-loop replays. UserError if they are of another task."""
    needed = envs.call("initial")[0]
    sizes = {name: len(needed[name]) for name in ("qpos", "qvel")}
    own = envs.factory.action_range()
    names = [f"{source}, episode {i}" for i in range(len(recorded))]
    whole = [importers.split(where, each, *sizes.values()) for where, each in zip(names, recorded, strict=True)]
    starts = _starts(envs.factory, whole, needed, source, say)
    ready = [_fitting(where, each, envs.action_dim, sizes, own) for where, each in zip(names, whole, strict=True)]
    for line in [*_ranges(recorded[0].bounds, own), *importers.odd_actions(ready)]:
        say(line)
    return ready, [
        Episode(i, initial=start, actions=each.actions.astype(np.float32))
        for i, (each, start) in enumerate(zip(ready, starts, strict=True))
    ]


def _fitting(
    where: str, recorded: importers.Recorded, action_dim: int, sizes: Mapping[str, int], own: Any
) -> importers.Recorded:
    """The episode with actions of [-1, 1], out of its own bounds or those of the environment; UserError if its numbers
    are not as many as the task's."""
    if recorded.actions.shape[1] != action_dim:
        raise UserError(f"{where}: actions have {recorded.actions.shape[1]} dimensions, this task's {action_dim}")
    for name, size in sizes.items():
        values = getattr(recorded, name)
        if values is not None and values.shape[1] != size:
            raise UserError(f"{where}: {name} has {values.shape[1]} numbers a step, this task's {size}")
    bounds = recorded.bounds or own
    return recorded if bounds is None else replace(recorded, actions=importers.normalised(recorded.actions, bounds))


def _ranges(theirs: Any, own: Any) -> Iterator[str]:
    """In words, that a source gives its actions another range than the environment has."""
    own = (-1.0, 1.0) if own is None else own
    if theirs is not None and np.isfinite(theirs).all() and not all(map(np.allclose, theirs, own)):
        a, b = (f"[{np.min(low):.3g}, {np.max(high):.3g}]" for low, high in (theirs, own))
        yield f"the source's actions range over {a}, this environment's over {b}: the one is stretched to the other"


def _starts(
    env: EnvFactory, recorded: Sequence[importers.Recorded], needed: Mapping[str, Any], source: str, say: Say
) -> list[dict[str, Any]]:
    """How the episodes begin, as `reset` takes it; says what the environment tells of it."""
    seen = [None if each.observations is None else each.observations[0] for each in recorded]
    try:
        found = env.starts([each.initial for each in recorded], seen)
    except UserError as error:
        raise UserError(f"{source}, {error}") from error
    if found is not None:
        say(found[1])
        return found[0]
    return [_start(each.initial, needed, f"{source}, episode {i}") for i, each in enumerate(recorded)]


def _start(told: Mapping[str, Any], needed: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What is `needed` of a recorded start; UserError if it lacks something."""
    initial = {k: importers.array(told[k], f"{where}: {k}") for k in needed if k in told}
    missing = [k for k, v in needed.items() if k not in initial or initial[k].shape != v.shape]
    for name, values in initial.items():
        importers.finite(values, f"{where}: {name}")
    if missing:
        wants = ", ".join(f"{k} {needed[k].shape}" for k in missing)
        has = ", ".join(told) or "nothing"
        raise UserError(f"{where}: the initial state lacks {wants}; it has {has}. Is it this task?")
    return initial


def _with_states(replayed: Demos, recorded: Sequence[importers.Recorded]) -> Demos:
    """The file's states instead of the replay's; where the file lacks the last one, the replay's stays."""
    qpos, qvel, facts, start = replayed.qpos.copy(), replayed.qvel.copy(), replayed.facts, 0
    for episode, length in zip(recorded, replayed.lengths, strict=True):
        assert episode.qpos is not None
        assert episode.qvel is not None
        qpos[start : start + len(episode.qpos)] = episode.qpos
        qvel[start : start + len(episode.qvel)] = episode.qvel
        start += int(length) + 1
        if len(episode.qpos) == length:
            facts = {**facts, LAST: "the replay's: the source has none"}
    return replace(replayed, qpos=qpos, qvel=qvel, facts=facts)


def _compare_observations(rollout: Rollout, recorded: Sequence[importers.Recorded], say: Say) -> None:
    """Say how far the replay's observations are from the file's, if it has any of this kind."""
    theirs = []
    for i, episode in enumerate(recorded):
        if episode.observations is None or episode.observations.shape[1] != rollout.obs.shape[1]:
            return
        theirs.append(episode.observations[: int((rollout.episode == i).sum())])
    apart = np.abs(rollout.obs - np.concatenate(theirs)).max(axis=1, initial=0.0)
    say(
        f"observations differ from the recorded ones by {np.median(apart):.2g} (median over steps; at most "
        f"{apart.max():.2g}), at the start of an episode by {np.median(apart[rollout.starts]):.2g}"
    )
