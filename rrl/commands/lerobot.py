"""`rrl demos export --format lerobot`: demonstrations with pictures, as LeRobot's policies train on them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rrl.commands.demos import LAST, Say
from rrl.demos import importers, lerobot, sets
from rrl.demos.replay import NoPolicy
from rrl.demos.sets import Demos
from rrl.envs.base import EnvFactory, FrameRequest
from rrl.envs.vector import WorkerVectorEnv
from rrl.machine.paths import new_folder
from rrl.machine.progress import SILENCE, Progress
from rrl.registry import UserError, build
from rrl.rollout.data import Obs, Rollout
from rrl.rollout.episodes import Collector
from rrl.store.files import shipped_first

SIZE = 224
"""Side of a picture in pixels, where nothing else is said: what most pretrained networks take."""
FPS = 30
"""Steps per second, where neither the environment nor the user says how many."""


def export(
    source: str,
    out: Path,
    say: Say,
    *,
    cameras: Sequence[str] = (),
    look: str = "default",
    size: int = SIZE,
    fps: int | None = None,
    task: str | None = None,
    state: Literal["robot", "task"] = "robot",
    progress: Progress = SILENCE,
) -> None:
    """Replay a set through the given cameras (none: the protocol's) and write it as a LeRobotDataset.

    `observation.state` is the robot alone (joint angles), or with `task` the task's objects too; rewards and success
    are the replay's. How each episode began, and the recorded states, go along, so that `rrl demos import` gives the
    same set again.
    """
    lerobot.parquet()
    if size % 2:
        raise UserError(f"--size {size}: a video's sides are even numbers of pixels (H.264); take {size + 1}")
    new_folder(out)
    demos = sets.load(shipped_first(source, sets.shipped(), sets.npz(Path(source))))
    config = sets.environment(demos.facts)
    config = sets.with_objects(config) if state == "task" else sets.robot_alone(config)
    env: EnvFactory = build(config.filmed(cameras, look))
    frames = FrameRequest(size, size) if env.cameras else None
    env.probe(frames)
    plan = lerobot.Plan(
        lengths=demos.lengths.tolist(),
        fps=_fps(env, fps, say),
        task=task or env.name.replace("_", " "),
        robot=env.name,
        cameras=_plain(env.cameras),
        side=size,
        about={**demos.facts, "origin": demos.origin, "exported": env.facts()},
    )
    with closing(WorkerVectorEnv(env, 1, frames, 0)) as envs, lerobot.writing_dataset(out, plan) as writer:
        collector = Collector(envs)
        progress.phase("filming", len(demos.actions))
        for i, length in enumerate(plan.lengths):
            showing = _Showing(envs.action_dim, length, writer.picture)
            rollout = collector.collect(showing, [demos.script(i)], progress=progress.advance)
            writer.end_episode(_columns(demos, rollout, i, env), _row(demos, i))
    episodes = np.split(demos.actions.astype(np.float64), np.cumsum(demos.lengths)[:-1])
    for line in importers.odd_actions([importers.Recorded(actions, {}) for actions in episodes]):
        say(line)
    pictures = f"pictures {size} x {size} of {', '.join(plan.cameras)}" if plan.cameras else "no pictures: no cameras"
    say(f"{out}: {len(demos)} episodes, {len(demos.actions)} steps, {plan.fps} a second; {pictures}")
    alone = "the robot alone" if env.blind_state else "all that the environment observes"
    say(f"observation.state: {rollout.obs.shape[1]} numbers, {alone}; the task in words: {plan.task!r}")


class _Showing(NoPolicy):
    """Hands on what the cameras of one environment see before each of an episode's actions."""

    def __init__(self, action_dim: int, length: int, write: Callable[[NDArray[np.uint8]], None]) -> None:
        super().__init__(action_dim)
        self.left, self.write = length, write

    def observe(self, obs: Obs) -> NDArray[np.float32]:
        """The state vector."""
        if obs.frames is not None and self.left:
            self.write(obs.frames[0])
            self.left -= 1
        return super().observe(obs)


def _fps(env: EnvFactory, asked: int | None, say: Say) -> int:
    """Steps per second of simulated time, as a whole number."""
    simulator = env.make_one(None)
    exact = getattr(simulator, "metadata", {}).get("render_fps")
    simulator.close()
    if asked is not None:
        return asked
    if exact is None:
        say(f"{env.name} doesn't say how long a step takes: {FPS} steps a second are written (--fps says otherwise)")
        return FPS
    whole = max(1, round(float(exact)))
    if whole != exact:
        say(f"{env.name} makes {exact:g} steps a second; LeRobot takes whole numbers: {whole} are written")
    return whole


def _plain(cameras: Sequence[str]) -> list[str]:
    """Names that a column and a folder can have; two that would be one are numbered."""
    plain = [re.sub(r"\W+", "_", name) for name in cameras]
    return plain if len(set(plain)) == len(plain) else [f"{name}_{i}" for i, name in enumerate(plain)]


def _columns(demos: Demos, rollout: Rollout, i: int, env: EnvFactory) -> dict[str, NDArray[Any]]:
    """Episode i, a row for each action."""
    qpos, qvel = demos.states(i)
    success = {"next.success": rollout.flags[env.score.name][:, None]} if env.score.counted else {}
    return {
        "observation.state": rollout.obs,
        "action": rollout.actions,
        "next.reward": rollout.rewards[:, None].astype(np.float32),
        "next.done": np.arange(1, len(rollout.actions) + 1)[:, None] == len(rollout.actions),
        **success,
        f"{lerobot.STATE}qpos": qpos[:-1].astype(np.float32),
        f"{lerobot.STATE}qvel": qvel[:-1].astype(np.float32),
    }


def _row(demos: Demos, i: int) -> dict[str, Any]:
    """How episode i began, and its last state, if that was recorded."""
    row = {f"{lerobot.INITIAL}{name}": values[i].tolist() for name, values in demos.initial.items()}
    if LAST in demos.facts:
        return row
    return row | {
        f"{lerobot.FINAL}{name}": values[-1].tolist()
        for name, values in zip(("qpos", "qvel"), demos.states(i), strict=True)
    }
