"""What of a picture a frozen network's features answer to: Grad-CAM (Selvaraju et al., ICCV 2017).

A map is the sum of the last layer's channels that still has places, weighed by the gradient of one number with respect
to each channel. The paper's figure 2 takes the score of ImageNet's likeliest class for that number. Encoders here have
no classifier, so it is the length of a picture's feature vector: a place is bright as far as it is the one that the
features tell of, whatever they tell. With a policy it may be the length of the mean action: what of the picture the
policy acts on.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rrl.encoders.settings.base import Encoder
from rrl.envs.base import EnvFactory
from rrl.envs.vector import WorkerVectorEnv
from rrl.evaluators.base import Context, Evaluator
from rrl.evaluators.video import captioned
from rrl.registry import Mistake, Parts, UserError, proposals, register
from rrl.rollout.data import Episode, Policy, Stream, episodes
from rrl.rollout.episodes import Collector
from rrl.store.files import writing

Of = Literal["features", "action"]
SIDE = 224
CAPTION = 20
"""Pixels of a line above the pictures."""


@register
class GradCAM(Evaluator):
    """Draws where in the pictures of an episode (mean action) the encoder's features, or the policy's actions, are."""

    class Config(Evaluator.Config):
        """How many pictures, and what is explained."""

        when: Literal["always", "end"] = "end"
        """'end': at the end; 'always': after the warm start too, then as `Experiment.eval_every` says."""
        moments: Annotated[int, Field(gt=0, le=100)] = 8
        """Of the episode, evenly spread; a row of the sheet each."""
        of: Of = "features"
        """Which number's gradient: the length of the feature vector, or of the policy's mean action."""

        def steps(self, env: EnvFactory) -> int:
            """Of one episode."""
            return env.horizon

        def refusal(self) -> str | None:
            """Where the package isn't installed."""
            return missing()

        def misfit(self, run: Parts) -> Iterable[Mistake]:
            """No pictures, or several that are looked at together."""
            yield from super().misfit(run)
            if why := unfit(run.encoder):
                yield Mistake("evaluators", f"{self.component.__name__}: {why}", "remove it, or take such an encoder")

    config: Config

    def run(self, policy: Policy, env: EnvFactory, context: Context) -> Iterator[tuple[str, float]]:
        """Writes `pictures/<iteration>_grad_cam.png` and yields its number of rows."""
        from rrl.evaluators import heat

        try:
            if why := missing():
                raise UserError(why)
            if context.network is None:
                raise UserError("the encoder is not at hand here")
            action = None if self.config.of == "features" else heat.mean_action(policy)
            envs = WorkerVectorEnv(env, 1, context.frames, min(1, context.collector.envs.workers))
            try:
                (episode,) = episodes(1, seed=context.seed, stream=Stream.VIDEO)
                shots = taken(Collector(envs), policy, episode, self.config.moments, context.progress)
            finally:
                envs.close()
            maps = heat.heat(context.network, shots.frames, shots.state, action)
        except UserError as error:  # as with a video: a run must not fail for it
            context.say(f"no Grad-CAM: {error}")
            return
        label = env.name, context.encoder, f"update {context.iteration}: {explained(self.config.of)}"
        path = context.folder / "pictures" / f"{context.iteration:06d}_grad_cam.png"
        draw([block(shots, maps, label)], path)
        context.say(f"Grad-CAM: {path}")
        yield "grad_cam_moments", float(len(shots.frames))


class Shots(NamedTuple):
    """Moments of an episode."""

    frames: NDArray[np.uint8]
    """[K, H, W, 3 * cameras]"""
    state: NDArray[np.float32]
    """[K, p]"""
    t: Sequence[int]
    """Steps made before each."""


def unfit(encoder: Encoder.Config) -> str:
    """Why there can be no maps of this encoder; empty if there may be."""
    cls = encoder.component
    assert issubclass(cls, Encoder)
    if cls.each_picture:
        return ""
    others = proposals("encoder", each_picture=True)
    return f"it needs a frozen network that sees each camera's picture by itself ({others}), not {cls.__name__}"


def missing() -> str | None:
    """What to do where the package isn't installed; None: it is."""
    if importlib.util.find_spec("pytorch_grad_cam") is None:
        return "Grad-CAM needs the package grad-cam: pip install 'rrl[look]'"
    return None


def explained(of: Of) -> str:
    """In words."""
    return f"Grad-CAM of the length of the {'features' if of == 'features' else 'mean action'}"


def taken(
    collector: Collector, policy: Policy, episode: Episode, count: int, progress: Callable[[int], None] | None = None
) -> Shots:
    """`count` moments of the episode, evenly spread from its first step to its last; fewer if it is shorter. The
    collector has one environment."""
    seen: list[tuple[NDArray[np.uint8], NDArray[np.float32]]] = []

    def look(running: NDArray[np.int64], _t: NDArray[np.int64]) -> None:
        now = collector.envs.observation()
        if running[0] >= 0:
            seen.append((now["frames"][0].copy(), now["state"][0].copy()))

    collector.collect(policy, [episode], each_step=look, progress=progress, keep=False)
    chosen = np.unique(np.linspace(0, len(seen) - 1, count).round().astype(int)).tolist()
    frames, state = (np.stack([seen[k][part] for k in chosen]) for part in (0, 1))
    return Shots(frames, state, [k + 1 for k in chosen])


def block(shots: Shots, maps: NDArray[np.float32], label: Sequence[str], side: int = SIDE) -> NDArray[np.uint8]:
    """One episode: a row for each moment, and in it for each camera the picture and the map over it, from blue (0) to
    red (its own most); the label's lines above."""
    from PIL import Image
    from pytorch_grad_cam.utils.image import show_cam_on_image

    def scaled(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))

    rows = []
    for frames, here, t in zip(shots.frames, maps, shots.t, strict=True):
        cameras = np.split(frames, len(here), axis=2)
        tiles = []
        for picture, places in zip(cameras, here, strict=True):
            tiles += [picture, show_cam_on_image(picture.astype(np.float32) / 255, places, use_rgb=True)]
        row = np.concatenate([scaled(tile) for tile in tiles], axis=1)
        rows.append(captioned(row, f"step {t}"))
    whole = np.concatenate(rows)
    strip = np.zeros((CAPTION, whole.shape[1], 3), np.uint8)
    return np.concatenate([*(captioned(strip, line) for line in label), whole])


def draw(blocks: Sequence[NDArray[np.uint8]], path: Path) -> None:
    """Write a .png with the blocks side by side."""
    from PIL import Image

    height = max(len(each) for each in blocks)
    level = [np.pad(each, ((0, height - len(each)), (0, 0), (0, 0))) for each in blocks]
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as file:
        Image.fromarray(np.concatenate(level, axis=1)).save(file, format="png", optimize=True)
