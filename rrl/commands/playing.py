"""`rrl play`: a policy at work, in a video through any camera, as a Rerun recording, or in MuJoCo's viewer."""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from rrl.commands import rerun_recording
from rrl.commands.demos import Filming, Say
from rrl.commands.policies import locate
from rrl.envs.base import EnvFactory, FrameRequest
from rrl.envs.vector import WorkerVectorEnv, has
from rrl.evaluators.video import video
from rrl.machine.console import Display
from rrl.machine.paths import new_file
from rrl.registry import UserError, build
from rrl.rollout.data import Episode, Rollout, Stream, episodes
from rrl.rollout.episodes import Collector
from rrl.run import policies


def play(
    source: str,
    out: Path | None,
    say: Say,
    progress: Display,
    *,
    count: int,
    seed: int | None,
    sampled: bool,
    best: bool,
    cameras: Sequence[str],
    look: str,
    size: int,
    every: int,
) -> None:
    """Let a policy act in the first episodes of its evaluation stream, and show them: as a video (.mp4) or a Rerun
    recording (.rrd) in `out`, through the given cameras (none: its own) side by side; without `out`, in a window.
    UserError where either can't be."""
    if out is None:
        _need_screen()
    else:
        if out.suffix not in (".mp4", ".rrd"):
            raise UserError(f"a video is an .mp4, a recording for Rerun an .rrd; got {out}")
        if out.suffix == ".rrd":
            rerun_recording.need()
        elif size % 2:
            raise UserError(f"--size {size}: a video's sides are even numbers of pixels (H.264); take {size + 1}")
        new_file(out)
    config, agent, _ = policies.load(locate(source, best), as_run=True)
    env: EnvFactory = build(config.env)
    filmed: EnvFactory = build(config.env.filmed(cameras, look))
    with closing(WorkerVectorEnv(env, count, config.encoder.frames(), 0)) as envs:
        noise = (env.horizon, envs.action_dim) if sampled else None
        todo = episodes(count, seed=config.seed if seed is None else seed, stream=Stream.EVAL, noise=noise)
        progress.phase("acting", count * env.horizon)
        rollout = Collector(envs).collect(agent, todo, progress=progress.advance, keep=False)
    # The same actions from the same seeds are the same episodes: other pictures need not be drawn while it acts.
    acted = [Episode(e.seed, actions=rollout.actions[rollout.episode == i]) for i, e in enumerate(todo)]
    verdicts = _verdicts(rollout, env)
    if out is None:
        _window(env, acted, verdicts, say)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".rrd":
        progress.phase("recording", len(rollout.t))
        with closing(WorkerVectorEnv(filmed, 1, FrameRequest(size, size), 0)) as envs:
            rerun_recording.write(out, envs, acted, rollout, verdicts, every, progress.advance)
        say(f"{out}: {count} episodes ({', '.join(verdicts)}); look at it with: rerun {shlex.quote(str(out))}")
        return
    shown = 0
    with closing(WorkerVectorEnv(filmed, 1, FrameRequest(size, size), 0)) as envs, video(out) as write:
        collector = Collector(envs)
        progress.phase("filming", len(rollout.t))
        for i, episode in enumerate(acted):
            label = f"{env.name}  {config.encoder.label()}  {', '.join(filmed.cameras)}  episode {i + 1}: {verdicts[i]}"
            filming = Filming(envs.action_dim, write, every, size, label)
            collector.collect(filming, [episode], progress=progress.advance)
            shown += filming.shown
    say(f"{out}: {count} episodes ({', '.join(verdicts)}), {shown} frames")


def _verdicts(rollout: Rollout, env: EnvFactory) -> list[str]:
    if env.score.counted:
        return ["success" if won else "failure" for won in rollout.success(env.score.name)]
    return [f"return {value:.1f}" for value in rollout.returns()]


def _need_screen() -> None:
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UserError("there is no screen for a window (no DISPLAY): name a video to write, --out play.mp4")


def _window(env: EnvFactory, acted: Sequence[Episode], verdicts: Sequence[str], say: Say) -> None:
    """Show the episodes in MuJoCo's viewer, in real time, one after another, until it is closed."""
    with closing(env.make_one(None)) as sim:
        if not has(sim, "simulator"):
            raise UserError(f"{env.name} has no MuJoCo model that a window could show: name a video, --out play.mp4")
        model, data = sim.simulator()  # type: ignore[attr-defined]
        pause = 1.0 / float(getattr(sim, "metadata", {}).get("render_fps") or 100)
        with _viewer(model, data) as window:
            for i, (episode, verdict) in enumerate(zip(acted, verdicts, strict=True)):
                say(f"episode {i + 1}: {verdict}")
                sim.reset(seed=episode.seed)
                for action in [] if episode.actions is None else episode.actions:
                    due = time.monotonic() + pause
                    with window.lock():
                        sim.step(action)
                    if not window.is_running():  # it was closed
                        return
                    window.sync()
                    time.sleep(max(due - time.monotonic(), 0.0))


@contextmanager
def _viewer(model: Any, data: Any) -> Iterator[Any]:
    import mujoco.viewer

    before = set(threading.enumerate())
    try:
        window = mujoco.viewer.launch_passive(model, data)
    except Exception as error:  # GLFW's and MuJoCo's own
        raise UserError(f"MuJoCo's viewer can't open a window ({error}): name a video, --out play.mp4") from error
    try:
        yield window
    finally:
        window.close()
        for thread in set(threading.enumerate()) - before:  # GLFW must not end before what draws with it
            thread.join(timeout=10.0)
