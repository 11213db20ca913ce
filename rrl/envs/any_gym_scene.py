"""Pictures of a MuJoCo model that another package's environment simulates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.envs import render
from rrl.envs.base import FrameRequest, meant
from rrl.envs.dress import Dress
from rrl.envs.scene import Scene as Changes
from rrl.registry import UserError

import mujoco  # isort: skip (after render, which chooses MuJoCo's renderer)


VIEW = ("distance", "azimuth", "elevation")


class Scene:
    """Draws a simulator that somebody else steps, through its named cameras or as it shows itself to people.

    Drawn here and not by the environment: gymnasium's own renderer looks at the middle of whatever state it first saw,
    so that its pictures would depend on when it was made.
    """

    def __init__(
        self, name: str, model: Any, data: Any, renderer: Any, turned: Sequence[str], view: Sequence[float] | None
    ) -> None:
        """`name`: equal ones have equal models. `renderer`: gymnasium's own of this model, or None. `turned`: cameras
        whose pictures are turned by 180 degrees. `view`: the free camera's distance, azimuth and elevation, if it
        isn't to be as the renderer has it."""
        self.name, self.model, self.data = name, model, data
        self._turned = turned
        self._dress: Dress | None = None
        config: dict[str, Any] = dict(getattr(renderer, "default_cam_config", None) or {})
        config |= dict(zip(VIEW, view or (), strict=False))
        self._tracked = int(config.get("trackbodyid", -1))
        self._views: dict[tuple[tuple[str, ...], str, int], render.View] = {}
        quality = model.vis.quality  # as the model asks for; drawing changes it
        self._default = render.Look(quality.shadowsize, quality.offsamples)
        self._free = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(model, self._free)
        for field in (*VIEW, "lookat"):
            if field in config:
                setattr(self._free, field, config[field])
        chosen = getattr(renderer, "camera_id", None)
        self._own = self._free if chosen is None or chosen < 0 or view else chosen

    def need(self, cameras: Sequence[str]) -> None:
        """UserError unless the model has all these cameras."""
        known = [self.model.camera(i).name for i in range(self.model.ncam)]
        if unknown := [name for name in cameras if name not in known]:
            has = f"it has {', '.join(known)}" if known else "its model has none: leave `Gymnasium.cameras` away"
            raise UserError(
                f"Gymnasium.cameras: {self.name} has no camera {unknown[0]!r}; {has}{meant(unknown[0], known)}"
            )

    def physics(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(qpos, qvel) now."""
        return np.array(self.data.qpos), np.array(self.data.qvel)

    def put(self, qpos: NDArray[np.float64], qvel: NDArray[np.float64]) -> None:
        """Positions and velocities, all else as it is but for the solver's memory, which a reset clears too."""
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel
        self.data.qacc_warmstart[:] = 0
        mujoco.mj_forward(self.model, self.data)

    def beyond(self) -> dict[str, NDArray[Any]]:
        """Copies of what a reset may set beside positions and velocities: the model's numbers, mocap bodies, the
        states of actuators."""
        model = {name: getattr(self.model, name) for name in dir(self.model) if not name.startswith("_")}
        data = {name: getattr(self.data, name) for name in ("mocap_pos", "mocap_quat", "act", "userdata")}
        return {name: value.copy() for name, value in (model | data).items() if isinstance(value, np.ndarray)}

    def dress(self, changes: Changes, qpos: NDArray[np.float64] | None) -> None:
        """Change all pictures from the next one on; `qpos`: where the episode began, if one has. UserError if the model
        lacks what is to change."""
        dress = Dress(changes, self.model, self.name)
        dress.begin(qpos)
        self._dress = dress

    def begin(self, qpos: NDArray[np.float64]) -> None:
        """An episode has begun at these positions."""
        if self._dress is not None:
            self._dress.begin(qpos)

    def draw(self, cameras: tuple[str, ...], look: str, frames: FrameRequest, out: NDArray[np.uint8]) -> None:
        """Draw the simulator as it stands into `out` [size, size, 3 * cameras]; no cameras: as it shows itself."""
        key = (cameras, look, frames.size)
        if key not in self._views:
            chosen = self._default if look == "default" else render.LOOKS[look]
            eyes = cameras or (self._own,)
            self._views[key] = render.View(self.model, self.name, eyes, frames.size, chosen)
        if self._tracked >= 0:
            self._free.lookat[:] = self.data.xpos[self._tracked]
        fovy, free = self.model.cam_fovy.copy(), self.model.vis.global_.fovy
        render.narrow(self.model, frames)
        self.model.vis.global_.fovy = render.narrowed(free, frames)
        self._views[key].draw(self.data, out, self._dress)
        self.model.cam_fovy[:], self.model.vis.global_.fovy = fovy, free
        for c, camera in enumerate(cameras):
            if camera in self._turned:
                picture = out[..., 3 * c : 3 * c + 3]
                picture[:] = picture[::-1, ::-1].copy()


def scene_of(name: str, env: Any, turned: Sequence[str], view: Sequence[float] | None) -> Scene | None:
    """The MuJoCo simulator in an environment, or in one that it holds; None if there is none."""
    core = env.unwrapped
    holders = [core, *vars(core).values()]
    for holder in holders:
        model, data = getattr(holder, "model", None), getattr(holder, "data", None)
        if isinstance(model, mujoco.MjModel) and isinstance(data, mujoco.MjData):
            renderers = (getattr(other, "mujoco_renderer", None) for other in holders)
            own = next((each for each in renderers if getattr(each, "model", None) is model), None)
            return Scene(name, model, data, own, turned, view)
    return None
