"""MuJoCo models of the Adroit tasks: gymnasium_robotics' files with a protocol's cameras and appearance."""

from __future__ import annotations

import copy
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

from rrl.envs import gl
from rrl.envs.adroit_tasks import TASKS
from rrl.registry import UserError

gl.choose_backend()
import mujoco  # noqa: E402 (MuJoCo reads MUJOCO_GL while it is imported)

SPECTATORS = {
    "pen": ((0.0, -0.25, 0.22), (0.75, 125.0, -35.0)),
    "door": ((0.0, 0.0, 0.2), (1.6, 135.0, -30.0)),
    "hammer": ((0.0, -0.15, 0.12), (1.15, 135.0, -30.0)),
    "relocate": ((0.0, -0.1, 0.15), (1.35, 135.0, -30.0)),
}
"""The spectators' camera of each task: point looked at (m); distance (m), azimuth and elevation (degrees)."""


def model(task: str, protocol: str) -> Any:
    """A fresh `mujoco.MjModel`, the caller's to change."""
    return copy.copy(_compiled(task, protocol))


@lru_cache
def _compiled(task: str, protocol: str) -> Any:
    spec = mujoco.MjSpec.from_file(str(assets() / TASKS[task].xml))
    if protocol == "paper":
        _paper(spec, task)
    compiled = spec.compile()
    # Weaker wrist and fingers than in the file, as every version of these environments sets after loading.
    for first, last, strength in (("A_WRJ1", "A_WRJ0", 10.0), ("A_FFJ3", "A_THJ0", 1.0)):
        actuators = slice(compiled.actuator(first).id, compiled.actuator(last).id + 1)
        compiled.actuator_gainprm[actuators, :3] = (strength, 0.0, 0.0)
        compiled.actuator_biasprm[actuators, :3] = (0.0, -strength, 0.0)
    return compiled


def assets() -> Path:
    """Folder of the Adroit models, found without importing gymnasium_robotics (slow, prints warnings)."""
    package = importlib.util.find_spec("gymnasium_robotics")
    if package is None or not package.submodule_search_locations:
        raise UserError("Adroit's models come with gymnasium-robotics: pip install gymnasium-robotics")
    folder = Path(package.submodule_search_locations[0], "envs", "assets", "adroit_hand")
    if not folder.is_dir():
        raise UserError(f"no Adroit models in {folder}: pip install 'gymnasium-robotics>=1.4'")
    return folder


def _paper(spec: Any, task: str) -> None:
    """Cameras and appearance of the RRL authors' released environments."""
    known = {camera.name for camera in spec.cameras}
    for name, camera in TASKS[task].paper_cameras.items():
        edited = spec.camera(name) if name in known else spec.worldbody.add_camera(name=name)
        edited.pos = camera.pos
        edited.quat = camera.quat  # MjSpec silently ignores Euler angles here
    if task == "pen":
        spec.camera("view_4").pos = (0.4, -0.4, 0.4)
        spec.geom("pen").rgba[3] = 1.0
        spec.geom("target").rgba[3] = 1.0
    if task == "relocate":
        for geom in spec.body("table").geoms:
            geom.rgba = (*geom.rgba[:3], 0.0)
        for light in spec.lights:
            light.castshadow = False
        ball = spec.geom("sphere")
        ball.material = ""
        ball.rgba = (1.0, 0.0, 0.0, 1.0)
        spec.site("target").rgba[3] = 0.3


def spectator(task: str) -> Any:
    """A camera for people: third person, from the front right of the hand."""
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FREE
    camera.lookat[:] = SPECTATORS[task][0]
    camera.distance, camera.azimuth, camera.elevation = SPECTATORS[task][1]
    return camera
