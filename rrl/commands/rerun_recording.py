"""Episodes as a recording for Rerun's viewer: cameras, state, actions, rewards and goal flags over the same steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.demos.replay import NoPolicy
from rrl.envs.vector import WorkerVectorEnv
from rrl.registry import UserError
from rrl.rollout.data import Episode, Obs, Rollout
from rrl.rollout.episodes import Collector
from rrl.store import files

QUALITY = 90
"""Of JPEG."""


def need() -> None:
    """UserError without Rerun's package."""
    try:
        import rerun  # noqa: F401
    except ImportError as error:
        raise UserError("a recording for Rerun needs the package rerun-sdk: pip install 'rrl[rerun]'") from error


def write(
    path: Path,
    envs: WorkerVectorEnv,
    acted: Sequence[Episode],
    rollout: Rollout,
    verdicts: Sequence[str],
    every: int,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Replay the episodes of `rollout` in the one environment of `envs` and write what they were, a picture of each
    camera every so many steps. Each is an entity of its own, `episode_1` and so on, over the timeline `step`."""
    import rerun as rr

    collector = Collector(envs)
    recording = rr.RecordingStream("rrl", send_properties=False)
    whole = rr.binary_stream(recording)
    for i, episode in enumerate(acted):
        entity = f"episode_{i + 1}"
        recording.log(entity, rr.TextDocument(verdicts[i]), static=True)
        watching = _Watching(envs.action_dim, recording, entity, envs.factory.cameras, every)
        seen, own = collector.collect(watching, [episode], progress=progress), rollout.episode == i
        series = {"state": seen.obs, "action": rollout.actions[own], "reward": rollout.rewards[own]}
        series |= {f"flags/{name}": up[own].astype(float) for name, up in rollout.flags.items()}
        for name, values in series.items():
            steps, columns = rr.TimeColumn("step", sequence=rollout.t[own]), rr.Scalars.columns(scalars=values)
            recording.send_columns(f"{entity}/{name}", indexes=[steps], columns=columns)
    with files.writing(path) as file:
        file.write(whole.read() or b"")


class _Watching(NoPolicy):
    """Keeps the state, and records every n-th picture that a replay of one episode shows."""

    def __init__(self, action_dim: int, recording: Any, entity: str, cameras: Sequence[str], every: int) -> None:
        super().__init__(action_dim)
        self.recording, self.entity, self.cameras, self.every = recording, entity, cameras, every
        self.step = 0

    def observe(self, obs: Obs) -> NDArray[np.float32]:
        """The state vector."""
        import rerun as rr

        if obs.frames is not None and self.step % self.every == 0:
            self.recording.set_time("step", sequence=self.step)
            for c, camera in enumerate(self.cameras):
                picture = rr.Image(obs.frames[0][:, :, 3 * c : 3 * c + 3]).compress(jpeg_quality=QUALITY)
                self.recording.log([self.entity, "cameras", camera], picture)
        self.step += 1
        return super().observe(obs)
