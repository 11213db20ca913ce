"""A video of the policy at work, beside the very pixels that it sees."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rrl.envs.base import EnvFactory
from rrl.envs.vector import WorkerVectorEnv
from rrl.evaluators.base import Context, Evaluator
from rrl.registry import Count, UserError, register
from rrl.rollout.data import Episode, Policy, Stream, episodes
from rrl.rollout.effects import affected
from rrl.rollout.episodes import Collector
from rrl.store.files import writing

SIDE = 480  # pixels; the height of `SimEnv.render`
Shot = tuple[NDArray[np.uint8], NDArray[np.uint8] | None]  # for people; what the encoder gets


@register
class Video(Evaluator):
    """Films episodes (mean action): left for people at full quality, right what the encoder gets."""

    class Config(Evaluator.Config):
        """How many episodes, and how dense."""

        episodes: Annotated[int, Field(gt=0, le=100)] = 3
        """Episodes, one after another in one file; each has an environment of its own."""
        every: Count = 4
        """Film every so many of the agent's steps (Adroit's of 0.01 s: 4, at 25 frames/s, is real time)."""

        def steps(self, env: EnvFactory) -> int:
            """Of all episodes."""
            return self.episodes * env.horizon

    config: Config

    def run(self, policy: Policy, env: EnvFactory, context: Context) -> Iterator[tuple[str, float]]:
        """Writes `videos/<iteration>.mp4` and yields its number of frames."""
        todo = episodes(self.config.episodes, seed=context.seed, stream=Stream.VIDEO)
        label = f"{env.name}  {context.encoder}  update {context.iteration}"
        try:
            count = film(policy, env, context, todo, self.config.every, label, f"{context.iteration:06d}")
        except UserError as error:  # a run without pictures must not fail on a machine without GL
            context.say(f"no video: {error}")
            return
        yield "video_frames", float(count)


def film(
    policy: Policy, env: EnvFactory, context: Context, todo: Sequence[Episode], every: int, label: str, name: str
) -> int:
    """Film episodes, every so many steps, into `videos/<name>.mp4`; returns its number of frames. UserError where this
    environment or this machine can't be filmed."""
    context.collector.envs.need("render")
    envs = WorkerVectorEnv(env, len(todo), context.frames, min(len(todo), context.collector.envs.workers))
    # Kept as they come and put together one at a time in the end, when the verdicts are known: three
    # episodes of 500 pictures are 1 GB so, by arithmetic; with the right half and captions it would be 6.
    shots: dict[int, list[Shot]] = {i: [] for i in range(len(todo))}

    def shoot(running: NDArray[np.int64], t: NDArray[np.int64]) -> None:
        due = [() if i >= 0 and n % every == 0 else None for i, n in zip(running, t, strict=True)]
        views = envs.call_each("render", due)
        seen = envs.observation().get("frames")
        for slot, i in enumerate(running):
            if due[slot] is not None:
                effect = todo[i].scene.effect
                frames = None if seen is None else affected(seen[slot], effect) if effect else seen[slot].copy()
                shots[int(i)].append((views[slot], frames))

    try:
        envs.renderer()
        rollout = Collector(envs).collect(policy, todo, each_step=shoot, progress=context.progress, keep=False)
    finally:
        envs.close()
    if env.score.counted:
        verdicts = ["success" if won else "failure" for won in rollout.success(env.score.name)]
    else:
        verdicts = [f"return {value:.1f}" for value in rollout.returns()]
    folder = context.folder / "videos"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.mp4"
    with video(path) as write:
        for i in range(len(todo)):
            told = f"{label}  episode {i + 1}/{len(todo)}: {verdicts[i]}"
            for view, frames in shots[i]:
                right = [] if frames is None else [tiles(frames)]
                write(captioned(np.concatenate([view, *right], axis=1), told))
    context.say(f"video: {path}")
    return sum(map(len, shots.values()))


def tiles(frames: NDArray[np.uint8], side: int = SIDE) -> NDArray[np.uint8]:
    """All cameras of one observation [H, W, 3c] as one picture, `side` pixels high."""
    from PIL import Image

    pictures = [frames[:, :, 3 * c : 3 * c + 3] for c in range(frames.shape[2] // 3)]
    scaled = [np.asarray(Image.fromarray(p).resize((side, side), Image.Resampling.NEAREST)) for p in pictures]
    return np.concatenate(scaled, axis=1)


def captioned(picture: NDArray[np.uint8], label: str) -> NDArray[np.uint8]:
    """The picture with a line of text over its upper edge."""
    from PIL import Image, ImageDraw

    image: Any = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 8 + draw.textlength(label), 20), fill=(0, 0, 0))
    draw.text((4, 4), label, fill=(255, 255, 255))
    return np.asarray(image)


@contextmanager
def video(path: Path) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """A function that adds a frame [H, W, 3] to an .mp4 of 25 frames/s; all have one size, of even sides, as H.264
    needs. The file is there, whole, when the block ends."""
    import imageio.v3 as iio

    whole = io.BytesIO()
    with iio.imopen(whole, "w", plugin="pyav", extension=".mp4") as encoder:
        encoder.init_video_stream("libx264", fps=25)
        yield encoder.write_frame
    with writing(path) as file:
        file.write(whole.getbuffer())
