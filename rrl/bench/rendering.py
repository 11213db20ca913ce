"""`rrl bench rendering`: frames per second by look and size, and what each look changes in the picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.bench.measure import REFERENCE, Case, Sample, rate
from rrl.demos.sets import Demos, load, shipped
from rrl.envs import adroit_scene, gl
from rrl.envs.adroit import Adroit
from rrl.envs.base import FrameRequest
from rrl.envs.render import LOOKS

UNIT = "frames_per_second"


def cases(task: str, sizes: Sequence[int], seconds: float) -> list[Case]:
    """`mujoco.Renderer` as the original used it (256 px, the model's own quality), then ours: every look
    and size. All in this process, on the threads that the driver takes by itself."""
    timed = [Case(REFERENCE, _timed(_reference(task), seconds), {"task": task, "look": "default", "size": 256})]
    for look in LOOKS:
        for size in sizes:
            work = _timed(_ours(task, look, size), seconds)
            timed.append(Case(f"{look} {size} px", work, {"task": task, "look": look, "size": size}, REFERENCE))
    return timed


def _timed(draw: Callable[[], int], seconds: float) -> Callable[[], Sample]:
    def run() -> Sample:
        frames = draw()  # the first call after other cases' is slower
        return Sample(rate(draw, frames, seconds))

    return run


def _reference(task: str) -> Callable[[], int]:
    import mujoco

    gl.context()  # loads libraries in an order that works
    model = adroit_scene.model(task, "paper")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = mujoco.Renderer(model, 256, 256)
    gl.users.add(_Closing(renderer))
    cameras = environment(task, "default").cameras

    def draw() -> int:
        for camera in cameras:
            renderer.update_scene(data, camera=camera)
            renderer.render()
        return len(cameras)

    return draw


class _Closing:
    """MuJoCo's renderer fails at exit unless it is closed while its driver is still there."""

    def __init__(self, renderer: Any) -> None:
        self.renderer = renderer
        _open.append(self)

    def free(self) -> None:
        self.renderer.close()


_open: list[_Closing] = []


def _ours(task: str, look: str, size: int) -> Callable[[], int]:
    factory = environment(task, look)
    env = factory.make_one(FrameRequest(size, round(size * 256 / 224)))
    observation, _ = env.reset(seed=0)
    qpos, qvel = env.physics()
    env.frame_buffer = observation["frames"]

    def draw() -> int:
        env.show(qpos, qvel)
        return len(factory.cameras)

    return draw


@dataclass(frozen=True)
class Drift:
    """How far a look is from the default one, over pictures of recorded states."""

    look: str
    psnr: float
    """dB, of the mean squared error over all pictures; inf where they are equal."""
    features: float
    """RMS of the features' difference over the RMS of the default's centred features: 1 is as far as
    one state is from another."""


def drift(task: str, encode: Callable[[NDArray[np.uint8]], NDArray[np.float32]], count: int = 24) -> list[Drift]:
    """PSNR and feature drift of every look against `default` at 224 px; `encode`: frames -> features."""
    demos = load(shipped()[f"adroit_{task}_paper"])
    pictures = {look: _pictures(task, look, demos, count) for look in LOOKS}
    wanted = pictures["default"]
    features = encode(wanted)
    spread = np.sqrt(np.square(features - features.mean(0)).mean())
    drifts = []
    for look, seen in pictures.items():
        error = np.square(seen.astype(np.float64) - wanted).mean()
        psnr = float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
        moved = np.sqrt(np.square(encode(seen) - features).mean())
        drifts.append(Drift(look, psnr, float(moved / spread)))
    return drifts


def _pictures(task: str, look: str, demos: Demos, count: int) -> NDArray[np.uint8]:
    env = environment(task, look).make_one(FrameRequest(224, 256))
    pictures = []
    for k in range(count):
        i = k % len(demos)
        env.reset(seed=0, options={"initial": demos.script(i).initial})
        qpos, qvel = demos.states(i)
        t = k * (len(qpos) - 1) // max(count - 1, 1)
        pictures.append(env.show(qpos[t], qvel[t])["frames"].copy())
    return np.stack(pictures)


def environment(task: str, look: str) -> Adroit:
    """The task under the paper's protocol."""
    return Adroit(Adroit.Config(task=task, look=look))  # type: ignore[arg-type]
