"""The yardstick of `rrl bench sampling`: a loop of the shape of the original RRL code, kept plain on purpose.

One process; `mujoco.Renderer` at the model's own quality, 256 x 256 pixels; PIL and torchvision transforms
(resize 256, centre crop 224, ImageNet's mean and standard deviation); one picture at a time through a
float32 network; then the policy (paper section 4). Only the model and the network
are handed in by rrl.
"""

from __future__ import annotations

import re
import time

import mujoco
import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

FRAME_SKIP = 5
TRANSFORM = transforms.Compose(
    [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)


class Loop:
    """One environment, one network, one policy."""

    def __init__(self, model: mujoco.MjModel, cameras: tuple[str, ...], network: nn.Module, features: int) -> None:
        """`network`: float32 [1, 3, 224, 224] -> [1, features], the original's, in evaluation mode."""
        self.model, self.cameras, self.network = model, cameras, network
        self.data = mujoco.MjData(model)
        self.renderer = mujoco.Renderer(model, 256, 256)
        low, high = model.actuator_ctrlrange.T
        self.middle, self.half = (low + high) / 2, (high - low) / 2
        self.joints = [model.jnt_qposadr[j] for j in range(model.njnt) if re.fullmatch(r"\w+J\d", model.joint(j).name)]
        torch.manual_seed(0)
        self.policy = nn.Sequential(
            nn.Linear(features * len(cameras) + len(self.joints), 256),
            nn.Tanh(),
            nn.Linear(256, 256),
            nn.Tanh(),
            nn.Linear(256, model.nu),
        )

    @torch.no_grad()
    def run(self, steps: int) -> dict[str, float]:
        """Make `steps` steps; seconds by stage."""
        seconds = dict.fromkeys(("simulate", "render", "transform", "encode", "act"), 0.0)
        rng = np.random.default_rng(0)
        mujoco.mj_resetData(self.model, self.data)
        last = time.perf_counter()

        def lap(stage: str) -> None:
            nonlocal last
            now = time.perf_counter()
            seconds[stage] += now - last
            last = now

        for _ in range(steps):
            features = []
            for camera in self.cameras:
                self.renderer.update_scene(self.data, camera=camera)
                picture = self.renderer.render()
                lap("render")
                x = TRANSFORM(Image.fromarray(picture)).unsqueeze(0)
                lap("transform")
                features.append(self.network(x)[0])
                lap("encode")
            joints = torch.as_tensor(self.data.qpos[self.joints], dtype=torch.float32)
            action = self.policy(torch.cat([*features, joints])).numpy() + 0.1 * rng.standard_normal(self.model.nu)
            lap("act")
            self.data.ctrl[:] = self.middle + np.clip(action, -1, 1) * self.half
            mujoco.mj_step(self.model, self.data, nstep=FRAME_SKIP)
            lap("simulate")
        return seconds

    def close(self) -> None:
        """Free the renderer, whose context MuJoCo cannot free by itself at exit."""
        self.renderer.close()
