"""Drawing: MuJoCo scenes into numpy arrays, through one OpenGL context per process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from rrl.envs import gl
from rrl.registry import UserError

gl.choose_backend()
import mujoco  # noqa: E402 (MuJoCo reads MUJOCO_GL while it is imported)

if TYPE_CHECKING:
    from rrl.envs.base import FrameRequest
    from rrl.envs.dress import Dress


@dataclass(frozen=True)
class Look:
    """Render quality. `shadow_map`: side of the shadow map in texels, 0 for no shadows. `samples` per pixel
    for smooth edges, 0 for none; a driver may give fewer (Mesa's software renderer: at most 4)."""

    shadow_map: int
    samples: int


LOOKS = {"default": Look(4096, 8), "balanced": Look(1024, 4), "fast": Look(0, 0)}
"""`default` is what the Adroit models ask for; the others trade looks for speed."""


class Canvas:
    """The GPU side of pictures of one model: its meshes, textures and an offscreen buffer [size, size]."""

    def __init__(self, model: Any, size: int, look: Look) -> None:
        gl.context().make_current()
        # A canvas takes its properties from the model, at this moment only.
        buffer, quality = model.vis.global_, model.vis.quality
        buffer.offwidth = buffer.offheight = size
        quality.shadowsize, quality.offsamples = look.shadow_map, look.samples
        self.context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
        self.viewport = mujoco.MjrRect(0, 0, size, size)
        self.pixels = np.empty((size, size, 3), np.uint8)
        gl.users.add(self)

    def free(self) -> None:
        """Free the GPU memory."""
        if self.context is not None:
            gl.context().make_current()
            self.context.free()
            self.context = None

    def __del__(self) -> None:
        if hasattr(self, "context"):
            self.free()


# Environments with the same model, size and look share a canvas; it is freed with the last of them.
_canvases: WeakValueDictionary[tuple[str, int, Look], Canvas] = WeakValueDictionary()


class View:
    """Some cameras on one simulator. `name` says which model it is: equal names share a canvas.

    Cameras are names or numbers of the model's cameras, or `mujoco.MjvCamera`s. To be used in one thread.
    """

    def __init__(self, model: Any, name: str, cameras: Sequence[str | int | Any], size: int, look: Look) -> None:
        self._model = model
        self._option = mujoco.MjvOption()
        self._cameras = [_fixed(model, camera) if isinstance(camera, str | int) else camera for camera in cameras]
        self._scene = mujoco.MjvScene(model, maxgeom=1000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = look.shadow_map > 0
        key = (name, size, look)
        canvas = _canvases.get(key)
        if canvas is None:
            # Made from the first environment's model: what a task randomises is not part of a canvas.
            canvas = _canvases[key] = Canvas(model, size, look)
        self._canvas = canvas

    def draw(self, data: Any, out: NDArray[np.uint8], dress: Dress | None = None) -> None:
        """Draw the simulator as it stands into `out`, uint8 [size, size, 3 * cameras], upright; `dress` changes how it
        looks."""
        canvas = self._canvas
        gl.context().make_current()  # other code of this process may have its own context
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, canvas.context)
        for c, camera in enumerate(self._cameras):
            mujoco.mjv_updateScene(
                self._model, data, self._option, None, camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene
            )
            if dress is not None:
                dress.put_on(self._scene)
            mujoco.mjr_render(canvas.viewport, self._scene, canvas.context)
            mujoco.mjr_readPixels(canvas.pixels, None, canvas.viewport, canvas.context)
            out[..., 3 * c : 3 * c + 3] = canvas.pixels[::-1]  # OpenGL's first row is the lowest


def narrow(model: Any, frames: FrameRequest) -> None:
    """Narrow every camera's field of view to the centre crop that an encoder asks for."""
    model.cam_fovy[:] = narrowed(model.cam_fovy, frames)


def narrowed(fovy: Any, frames: FrameRequest) -> Any:
    """Fields of view (degrees) that show the same pixels as rendering `crop_from` and cropping:
    tan(f'/2) = tan(f/2) * size / crop_from."""
    return np.degrees(2 * np.arctan(np.tan(np.radians(fovy) / 2) * frames.size / frames.crop_from))


def _fixed(model: Any, name: str | int) -> Any:
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
    try:
        camera.fixedcamid = model.camera(name).id
    except KeyError:
        known = ", ".join(repr(model.camera(i).name) for i in range(model.ncam)) or "none"
        raise UserError(f"the model has no camera {name!r}; it has {known}") from None
    return camera
