"""What happens to pictures between the camera and the policy: brightness, contrast, blur, compression, a patch."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rrl.envs.scene import Effect, Scene


def seen(frames: NDArray[np.uint8], scenes: Sequence[Scene]) -> NDArray[np.uint8]:
    """Pictures [N, H, W, 3 * cameras] as they reach a policy: those with an effect in a copy."""
    effects = [scene.effect for scene in scenes]
    if not any(effects):
        return frames
    pairs = zip(frames, effects, strict=True)
    return np.stack([picture if effect is None else affected(picture, effect) for picture, effect in pairs])


def affected(frames: NDArray[np.uint8], effect: Effect) -> NDArray[np.uint8]:
    """A copy of an observation's pictures [H, W, 3 * cameras] under an effect, each camera's by itself."""
    cameras = [_one(frames[:, :, c : c + 3], effect) for c in range(0, frames.shape[2], 3)]
    return np.concatenate(cameras, axis=2)


def _one(picture: NDArray[np.uint8], effect: Effect) -> NDArray[np.uint8]:
    import torch
    from torchvision.transforms.v2 import functional as F

    side = picture.shape[0]
    image = torch.from_numpy(picture.copy()).permute(2, 0, 1)
    if effect.brightness != 1:
        image = F.adjust_brightness(image, effect.brightness)
    if effect.contrast != 1:
        image = F.adjust_contrast(image, effect.contrast)
    if effect.blur:
        std = effect.blur * side
        image = F.gaussian_blur(image, [2 * int(3 * std + 0.5) + 1] * 2, [std, std])
    if effect.patch is not None:
        x, y, width = (number * side for number in effect.patch)
        top, left = (max(round(middle - width / 2), 0) for middle in (y, x))
        colour = torch.tensor(effect.patch_rgb).mul(255).round().to(torch.uint8)
        image = image.clone()
        image[:, top : max(round(y + width / 2), 0), left : max(round(x + width / 2), 0)] = colour[:, None, None]
    result = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    return _compressed(result, effect.jpeg) if effect.jpeg < 100 else result


def _compressed(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "jpeg", quality=quality)
    return np.asarray(Image.open(file))
